"""The documents that topics are looked for in: a sliding window, and copies of one text told apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = ["Document", "leaders", "slide"]

WORDS_MAX = 80
"""Of each document so many are read: a headline and its first sentences say what it is about."""
SHINGLE = 3
ALIKE = 0.5
"""Jaccard similarity of word shingles from which on two documents count as copies of one text."""
ROWS = 1000


class Document(msgspec.Struct, frozen=True):
    """One article of the window.

    Attributes
    ----------
    id : str
    time : float
        ``published_at`` in POSIX seconds.
    text : str
        Headline and beginning.
    source : str
        Outlet; empty when not known.
    """

    id: str
    time: float
    text: str
    source: str = ""

    @classmethod
    def of(cls, id_: str, time: float, parts: Iterable[str], source: str = "") -> Document:
        """A document cut to what is read of it."""
        return cls(id_, time, " ".join(" ".join(parts).split()[:WORDS_MAX]), source)


def slide(documents: Iterable[Document], *, end: float, hours: float, count: int) -> list[Document]:
    """What is in the window: not after `end`, not older than `hours` before it, at most `count`, newest kept.

    Returns
    -------
    list of Document
        By time, then id.
    """
    since = end - hours * 3600
    kept = sorted((d for d in documents if since < d.time <= end), key=lambda d: (d.time, d.id))
    return kept[-count:]


def leaders(texts: Sequence[str]) -> NDArray[np.intp]:
    """Of each text, the index of the first one that it is a copy of; its own for an original.

    Copies share half of their word shingles (of three words), directly or by a chain of copies. Exact, by a
    sparse product; the wire story that forty outlets print becomes one document.

    Parameters
    ----------
    texts : sequence of str
        By time: the first one leads.

    Returns
    -------
    ndarray of shape (n_texts,)

    Examples
    --------
    >>> story = "Reactor on the northern coast goes back to work after long repair"
    >>> leaders([story, "Tea harvest fails in the hills again", story + " (agency)"]).tolist()
    [0, 1, 0]
    """
    from scipy.sparse import csr_array, vstack  # noqa: PLC0415 - keeps the start of commands fast
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415
    from sklearn.feature_extraction.text import CountVectorizer  # noqa: PLC0415

    if not texts:
        return np.zeros(0, dtype=np.intp)
    vectorizer = CountVectorizer(analyzer=_shingles, binary=True, dtype=np.float32)
    shingles = csr_array(vectorizer.fit_transform([text or " " for text in texts]))
    sizes = np.asarray(shingles.sum(axis=1)).ravel()
    blocks = []
    for start in range(0, len(texts), ROWS):
        shared = (shingles[start : start + ROWS] @ shingles.T).tocoo()
        together = sizes[shared.row + start] + sizes[shared.col] - shared.data
        near = shared.data >= ALIKE * together
        shape = (min(ROWS, len(texts) - start), len(texts))
        blocks.append(csr_array((np.ones(near.sum()), (shared.row[near], shared.col[near])), shape=shape))
    _, group = connected_components(vstack(blocks), directed=False)
    _, first = np.unique(group, return_index=True)
    return np.asarray(first[group], dtype=np.intp)


def _shingles(text: str) -> list[str]:
    words = [word.strip(".,;:!?'\"()[]‘’“”…-").lower() for word in text.split()]
    words = [word for word in words if word] or [text]
    return [" ".join(words[at : at + SHINGLE]) for at in range(max(1, len(words) - SHINGLE + 1))]
