"""Authored stance lexicon: phrases with a polarity toward whatever a text is about.

What speaks for or against one topic alone is said by frames (:mod:`classifiers.frames`).

``data/lexicon.tsv`` (UTF-8, tab separated, one header line): polarity -2 to 2, pattern. A pattern is
lower-case words; ``x*`` is any word that starts with x, ``_`` any one word, ``...`` up to four.
Matches stay within a sentence. Of overlapping matches the most specific one counts; polarity 0 marks a phrase
without stance that hides shorter ones inside it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from itertools import compress
from typing import NamedTuple

import ahocorasick_rs
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from classifiers.errors import DataError
from classifiers.features import Pairs, sum_groups
from classifiers.taxonomy import Topic

__all__ = ["Lexicon", "LexiconFeatures", "tokenize"]

GAP_MAX = 4
REACH = 6
WORDS_MAX = 200
BEFORE_MAX = 16
TARGETS_MAX = 65_536
NOTHING = (0, 0, 0, 0, 0, 0, 0)
_TOKEN = re.compile(r"u\.s\.?(?:a\.)?|[a-z0-9$&]+(?:'[a-z]+)?|%")
_QUOTES = str.maketrans({"’": "'", "‘": "'"})


def tokenize(sentence: str) -> tuple[str, ...]:
    """Words in lower case; ``U.S.`` becomes ``us``, ``%`` stands alone; at most 200 a sentence.

    Examples
    --------
    >>> tokenize("The U.S. won't lift curbs; sales fell 3%.")
    ('the', 'us', "won't", 'lift', 'curbs', 'sales', 'fell', '3', '%')
    """
    sentence = sentence.lower()
    if not sentence.isascii():
        sentence = sentence.translate(_QUOTES)
    found = _TOKEN.findall(sentence)[:WORDS_MAX]
    if "u.s" in sentence:
        found = ["us" if word.startswith("u.s") else word for word in found]
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the lexicon."""

    polarity: int
    pattern: tuple[str, ...]

    @property
    def fixed(self) -> int:
        """Words that are given; more make the entry more specific."""
        return sum(part not in {"_", "..."} for part in self.pattern)


class Match(NamedTuple):
    """Words ``start`` to ``end`` (excluded) of a sentence match the entry with this index."""

    start: int
    end: int
    entry: int


_Candidate = tuple[int, int, tuple[str, ...], int]  # no class: the search unpacks many
"""Number of an entry's second rarest run (of its only one); entry; pattern; where the rarest run stands there
(-1: behind a gap)."""


class Lexicon:
    """Finds entries in sentences: one search for all runs of given words, then those that may match.

    The search is that of A. Aho and M. Corasick, "Efficient String Matching", CACM 1975. An entry is tried
    where its rarest run stands in a sentence that has the second rarest as well.

    Parameters
    ----------
    entries : sequence of Entry
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = list(entries)
        self._fixed = [entry.fixed for entry in self.entries]
        all_runs = [_runs(entry.pattern) for entry in self.entries]
        counts = Counter(text for runs in all_runs for text in runs.values())
        number = {text: i for i, text in enumerate(counts)}
        self._search = ahocorasick_rs.AhoCorasick(list(number))
        self._by_run: list[list[_Candidate]] = [[] for _ in number]
        for index, (entry, runs) in enumerate(zip(self.entries, all_runs, strict=True)):
            by_rarity = sorted(runs.items(), key=lambda run: (counts[run[1]], -len(run[1])))
            (place, rarest), (_, second) = by_rarity[0], by_rarity[:2][-1]
            offset = -1 if "..." in entry.pattern[:place] else place
            self._by_run[number[rarest]].append((number[second], index, entry.pattern, offset))

    @classmethod
    def shipped(cls) -> Lexicon:
        """The lexicon that comes with the package.

        Raises
        ------
        DataError
            With the line that does not have two columns and a whole number.
        """
        text = resources.files("classifiers.data").joinpath("lexicon.tsv").read_text(encoding="utf-8")
        entries = []
        for number, line in enumerate(text.splitlines()[1:], start=2):
            try:
                polarity, pattern = line.split("\t")
                entries.append(Entry(int(polarity), tuple(pattern.split())))
            except ValueError:
                message = f"lexicon.tsv:{number}: expected polarity and pattern, got {line!r}"
                raise DataError(message) from None
        return cls(entries)

    def find(self, words: tuple[str, ...]) -> tuple[Match, ...]:
        """All matches in a sentence, overlapping ones included."""
        text = f" {' '.join(words)} "
        runs = self._search.find_matches_as_indexes(text, overlapping=True)
        if not runs:
            return ()
        there = {run for run, _, _ in runs}
        found: set[Match] = set()
        for run, blank, _ in runs:
            for second, index, pattern, offset in self._by_run[run]:
                if second not in there:
                    continue
                i = text.count(" ", 0, blank)  # the word behind the blank
                starts = (i - offset,) if offset >= 0 else range(max(0, i - BEFORE_MAX), i)
                for start in starts:
                    if start >= 0 and (end := _end_of_match(pattern, 0, words, start)):
                        found.add(Match(start, end, index))
        return tuple(sorted(found))

    def resolve(self, matches: Sequence[Match]) -> list[Match]:
        """Of overlapping matches the most specific one."""
        if len(matches) <= 1:
            return list(matches)
        fixed = self._fixed
        ranked = sorted((-fixed[match.entry], match.end - match.start, match) for match in matches)
        taken: set[int] = set()
        kept = []
        for *_, match in ranked:
            span = range(match.start, match.end)
            if taken.isdisjoint(span):
                taken.update(span)
                kept.append(match)
        return sorted(kept)

    def net(self, text: Sequence[str]) -> int:
        """Sum of the polarities in a text, cut into sentences."""
        matches = [match for part in text for match in self.resolve(self.find(tokenize(part)))]
        return sum(self.entries[match.entry].polarity for match in matches)


def _runs(pattern: Sequence[str]) -> dict[int, str]:
    """Stretches of given words by their first place, as they stand in a text with a blank around each word.

    A beginning of a word (``x*``) ends its stretch.
    """
    runs: dict[int, str] = {}
    first = 0
    for place, part in enumerate(pattern):
        if part in {"_", "..."}:
            first = place + 1
        elif part.endswith("*"):
            runs[first] = f"{runs.get(first, ' ')}{part[:-1]}"
            first = place + 1
        else:
            runs[first] = f"{runs.get(first, ' ')}{part} "
    return runs


def _end_of_match(pattern: tuple[str, ...], at: int, words: Sequence[str], i: int) -> int:
    """Where the pattern from part `at` on ends when it begins at word `i`; 0 when it does not match."""
    while at < len(pattern):
        part = pattern[at]
        if part == "...":
            for skip in range(GAP_MAX + 1):
                if end := _end_of_match(pattern, at + 1, words, i + skip):
                    return end
            return 0
        if i >= len(words):
            return 0
        if part.endswith("*"):
            if not words[i].startswith(part[:-1]):
                return 0
        elif part not in {"_", words[i]}:
            return 0
        i += 1
        at += 1
    return i


class Reading(NamedTuple):
    """A sentence as read for a topic: words, those of its object; sums by sign; entries that match."""

    words: int
    targets: int
    sums: tuple[int, ...]
    entries: tuple[int, ...]


class _Targets(dict[str, bool]):
    """Whether words name a topic's object: looked up once each."""

    def __init__(self, pattern: re.Pattern[str] | None) -> None:
        self._pattern = pattern

    def __missing__(self, word: str) -> bool:
        if len(self) >= TARGETS_MAX:
            self.clear()
        self[word] = found = self._pattern is not None and self._pattern.fullmatch(word) is not None
        return found


class LexiconFeatures:
    """Figures of a text and a topic from the lexicon: sums by sign, and one column an entry.

    Parameters
    ----------
    lexicon : Lexicon
    topics : sequence of Topic
        For the words of each topic's object.
    """

    size = 20

    def __init__(self, lexicon: Lexicon, topics: Sequence[Topic]) -> None:
        self.lexicon = lexicon
        patterns = {topic.id: topic.target_pattern for topic in topics}
        self._targets = lru_cache(maxsize=1024)(lambda topic: _Targets(patterns.get(topic)))
        self._found = lru_cache(maxsize=8192)(self._find)  # topics share sentences

    def _find(self, sentence: str) -> tuple[tuple[str, ...], list[Match]]:
        words = tokenize(sentence)
        return words, self.lexicon.resolve(self.lexicon.find(words))

    def _read(self, topic: str, sentence: str) -> Reading:
        words, matches = self._found(sentence)
        places = list(compress(range(len(words)), map(self._targets(topic).__getitem__, words)))
        if not matches:
            return Reading(len(words), len(places), NOTHING, ())
        sums = list(NOTHING)
        for match in matches:
            polarity = self.lexicon.entries[match.entry].polarity
            if polarity == 0:
                sums[2] += 1
                continue
            sign, size = int(polarity < 0), abs(polarity)
            sums[sign] += size
            if places:
                sums[5 + sign] += size
                if any(abs(j - match.start) <= REACH for j in places):
                    sums[3 + sign] += size
        return Reading(len(words), len(places), tuple(sums), tuple([match.entry for match in matches]))

    def transform(self, pairs: Pairs) -> tuple[NDArray[np.float32], sparse.csr_matrix]:
        """Features of texts and the topic that each is judged for.

        Returns
        -------
        (ndarray of shape (n_samples, 20), csr_matrix of shape (n_samples, n_entries))
            Positive and negative sums (square roots) of: the text, its first sentence, hits near a word of
            the topic's object, hits in a sentence with one; the count of entries without stance; squashed
            differences; form of the text. Then how often each entry matched.
        """
        read = [self._read(*pair) for pair in pairs.read]
        summing, first = pairs.summing, pairs.first
        sums = np.array([reading.sums for reading in read], dtype=np.float32).reshape(-1, len(NOTHING))
        targets = np.array([reading.targets for reading in read], dtype=np.float64)
        words = summing @ np.array([reading.words for reading in read], dtype=np.float64)
        f = np.zeros((len(pairs.texts), self.size), dtype=np.float32)
        f[:, [0, 1, 2, 5, 6, 7, 8]] = summing @ sums
        f[:, 3:5] = first @ sums[:, :2]
        f[:, 16] = ["?" in " ".join(text)[:200] for text in pairs.texts]
        f[:, 17] = np.minimum(words, 80) / 80
        f[:, 18] = first @ targets > 0
        f[:, 19] = (summing @ targets) / np.maximum(words, 10) * 5
        net = f[:, 0] - f[:, 1]
        f[:, 9] = np.tanh(net / 2)
        f[:, 10], f[:, 11] = np.sqrt(np.maximum(net, 0)), np.sqrt(np.maximum(-net, 0))
        f[:, 12] = f[:, :2].sum(axis=1) == 0
        f[:, 13], f[:, 14] = np.tanh(f[:, 3] - f[:, 4]), np.tanh(f[:, 7] - f[:, 8])
        f[:, 15] = np.tanh(net)
        f[:, :9] = np.sqrt(f[:, :9])
        matched = [[entry for pair in group for entry in read[pair].entries] for group in pairs.groups]
        entries = sum_groups(matched, len(self.lexicon.entries))
        entries.sum_duplicates()
        return f, entries
