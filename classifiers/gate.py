"""Screening: whether a text can have any topic at all, told by plain search for words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from classifiers.search import WordBits
from classifiers.taxonomy import Topic

__all__ = ["Gate"]


class Gate:
    """Whether a text holds a word of every group that some topic needs.

    The gate is a part of the model: without it no topic is assigned. Screening whole articles by it
    therefore changes no decision, since a window holds no word that its article lacks.

    Parameters
    ----------
    topics : sequence of Topic
        Order of the columns.
    """

    def __init__(self, topics: Sequence[Topic]) -> None:
        groups = [frozenset(group) for topic in topics for group in topic.needs]
        words = sorted(frozenset[str]().union(*groups))
        bits = [sum(1 << k for k, group in enumerate(groups) if word in group) for word in words]
        self._bits = WordBits(dict(zip(words, bits, strict=True)))
        self._needs = []
        first = 0
        for topic in topics:
            self._needs.append(((1 << len(topic.needs)) - 1) << first)
            first += len(topic.needs)
        self._is_open = lru_cache(maxsize=None)(self._has_all)  # there are few masks

    def mask(self, text: str) -> int:
        """Bit set of the groups that the text has a word of; masks of parts may be joined by ``|``."""
        return self._bits.join(text)

    def opens(self, masks: Sequence[int], window: Sequence[int]) -> bool:
        """Whether the masks of a window together have every group of some topic."""
        mask = 0
        for index in window:
            mask |= masks[index]
        return self._is_open(mask)

    def _has_all(self, mask: int) -> bool:
        return any(mask & need == need for need in self._needs)

    def any_open(self, text: str) -> bool:
        """Whether any topic is possible."""
        return self._is_open(self.mask(text))
