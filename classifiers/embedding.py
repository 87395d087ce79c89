"""Static word embeddings without torch or network: files of the PyPI package ``wordllama``, read by path."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from classifiers.errors import ModelError
from classifiers.features import sum_groups
from classifiers.mention import MASK

__all__ = ["Embedding", "WordClasses", "directions"]

Vectors = NDArray[np.float32]
_WEIGHTS = Path("weights/l2_supercat_256.safetensors")
CLASSES = 200
_TOKENIZER = Path("tokenizers/l2_supercat_tokenizer_config.json")


class Embedding:
    """A vector a token; the vector of a text is the direction of their sum.

    Sums can be added: overlapping windows of an article read each sentence once. Memory: 32 MB.

    Attributes
    ----------
    sha256 : str
        Of the weights.

    Raises
    ------
    ModelError
        When the package is not installed.
    """

    def __init__(self) -> None:
        from safetensors.numpy import load as load_tensors  # noqa: PLC0415 - only with user topics
        from tokenizers import Tokenizer  # noqa: PLC0415

        weights = _file(_WEIGHTS).read_bytes()
        self.sha256 = hashlib.sha256(weights).hexdigest()
        self._table = load_tensors(weights)["embedding.weight"].astype(np.float32)
        self._tokenizer = Tokenizer.from_file(str(_file(_TOKENIZER)))

    @classmethod
    @lru_cache(maxsize=1)
    def shared(cls) -> Embedding:
        """The one of this process."""
        return cls()

    def sums(self, parts: Sequence[str]) -> Vectors:
        """Sum of the token vectors of each sentence, shape (n_sentences, 256); 0 for an empty one."""
        own = [part.split() for part in parts]
        words = list({word for part in own for word in part})  # a batch holds each of them about ten times
        found = self._tokenizer.encode_batch_fast(words, add_special_tokens=False)
        tokens = {word: encoding.ids for word, encoding in zip(words, found, strict=True)}
        groups = [[token for word in part for token in tokens[word]] for part in own]
        return np.asarray(sum_groups(groups, len(self._table)) @ self._table)


class WordClasses:
    """Words grouped by their vectors (k-means), so that n-grams of groups say what n-grams of words say.

    Parameters
    ----------
    classes : dict of str to int
    """

    def __init__(self, classes: dict[str, int]) -> None:
        self.classes = classes

    @classmethod
    def fit(cls, texts: Sequence[Sequence[str]], min_df: int) -> WordClasses:
        """Group the words that occur in at least `min_df` of the texts, cut into words."""
        from sklearn.cluster import KMeans  # noqa: PLC0415 - 50 ms of every start, for training alone

        frequency = Counter(word for text in texts for word in set(text))
        words = sorted(word for word, count in frequency.items() if count >= min_df)
        if not words:
            return cls({})
        vectors = directions(Embedding.shared().sums(words))
        size = min(CLASSES, len(np.unique(vectors, axis=0)))
        grouping = KMeans(size, n_init=1, max_iter=20, random_state=0).fit(vectors)
        return cls(dict(zip(words, grouping.labels_.tolist(), strict=True)))

    def of(self, word: str) -> str:
        """Name of the group of a word; words that are not known share one; the rest stays as it is."""
        return f"c{self.classes.get(word, -1)}" if word[0].isalnum() and word != MASK else word


def directions(sums: Vectors, center: Vectors | float = 0.0) -> Vectors:
    """Rows of length 1: the direction of each sum as seen from `center`; 0 stays 0."""
    rows = _unit(_unit(sums) - center)
    rows[~(sums != 0).any(axis=1)] = 0
    return rows


def _unit(rows: Vectors) -> Vectors:
    lengths = np.sqrt((rows * rows).sum(axis=1, keepdims=True))
    return np.asarray(rows / np.maximum(lengths, 1e-12), dtype=np.float32)


def _file(name: Path) -> Path:
    package = find_spec("wordllama")
    origin = Path(package.origin).parent if package and package.origin else Path()
    if not (origin / name).is_file():
        message = "word vectors need the package wordllama (0.4): `pip install wordllama`"
        raise ModelError(message)
    return origin / name
