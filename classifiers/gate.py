"""Screening: which topics a text can have at all, told by plain search for terms."""

from __future__ import annotations

from collections.abc import Sequence

import ahocorasick_rs
import numpy as np
from numpy.typing import NDArray

from classifiers.taxonomy import Topic

__all__ = ["Gate"]


class Gate:
    """For each topic, whether a text holds a term of every group that the topic needs.

    The gate is a part of the model: behind a closed gate the probability is 0. Screening whole articles by
    it therefore changes no decision, since a window holds no term that its article lacks.

    Parameters
    ----------
    topics : sequence of Topic
        Order of the columns.
    """

    def __init__(self, topics: Sequence[Topic]) -> None:
        groups = [frozenset(group) for topic in topics for group in topic.needs]
        self._terms = sorted(frozenset[str]().union(*groups))
        self._bits = [sum(1 << k for k, group in enumerate(groups) if term in group) for term in self._terms]
        self._needs = []
        first = 0
        for topic in topics:
            self._needs.append(((1 << len(topic.needs)) - 1) << first)
            first += len(topic.needs)
        self._automaton = ahocorasick_rs.AhoCorasick(self._terms)

    def mask(self, text: str) -> int:
        """Bit set of the groups that the text has a term of; masks of parts may be joined by ``|``."""
        bits = 0
        for index in {
            found[0] for found in self._automaton.find_matches_as_indexes(text.lower(), overlapping=True)
        }:
            bits |= self._bits[index]
        return bits

    def opened(self, mask: int) -> NDArray[np.bool_]:
        """Which topics a mask opens; shape (n_topics,)."""
        return np.array([mask & need == need for need in self._needs])

    def touched(self, mask: int) -> list[int]:
        """Columns of the topics of which at least one group has a term."""
        return [column for column, need in enumerate(self._needs) if mask & need]

    def any_open(self, text: str) -> bool:
        """Whether any topic is possible."""
        mask = self.mask(text)
        return any(mask & need == need for need in self._needs)
