"""Authored stance lexicon: phrases with a polarity toward a topic's object.

``data/lexicon.tsv`` (UTF-8, tab separated, one header line): topic (or ``any``), polarity -2 to 2, pattern. A
pattern is lower-case words; ``x*`` is any word that starts with x, ``_`` any one word, ``...`` up to four.
Matches stay within a sentence. Of overlapping matches the most specific one counts; polarity 0 marks a phrase
without stance that hides shorter ones inside it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from classifiers.errors import DataError
from classifiers.taxonomy import Topic

__all__ = ["Lexicon", "LexiconFeatures", "tokenize"]

ANY = "any"
GAP_MAX = 4
REACH = 6
WORDS_MAX = 200
STEM_MIN = 4
_TOKEN = re.compile(r"u\.s\.?(?:a\.)?|[a-z0-9$&]+(?:'[a-z]+)?|%")
_QUOTES = str.maketrans({"’": "'", "‘": "'"})


def tokenize(sentence: str) -> tuple[str, ...]:
    """Words in lower case; ``U.S.`` becomes ``us``, ``%`` stands alone; at most 200 a sentence.

    Examples
    --------
    >>> tokenize("The U.S. won't lift curbs; sales fell 3%.")
    ('the', 'us', "won't", 'lift', 'curbs', 'sales', 'fell', '3', '%')
    """
    found = _TOKEN.findall(sentence.lower().translate(_QUOTES))[:WORDS_MAX]
    return tuple("us" if word.startswith("u.s") else word for word in found)


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the lexicon."""

    topic: str
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


class Lexicon:
    """Finds entries in sentences, by an index over each pattern's rarest word.

    Parameters
    ----------
    entries : sequence of Entry
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = list(entries)
        counts = Counter(part for entry in self.entries for part in set(entry.pattern))
        self._exact: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._prefix: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for index, entry in enumerate(self.entries):
            fixed = [part for part in entry.pattern if part not in {"_", "..."}]
            anchor = min(fixed, key=lambda part: (_is_short_stem(part), counts[part], -len(part)))
            place = entry.pattern.index(anchor)
            offset = -1 if "..." in entry.pattern[:place] else place
            target = self._prefix[anchor[:-1]] if anchor.endswith("*") else self._exact[anchor]
            target.append((index, offset))
        self._lengths = sorted({len(stem) for stem in self._prefix})
        self.find = lru_cache(maxsize=8192)(self._find)  # overlapping windows read a sentence more than once

    @classmethod
    def shipped(cls) -> Lexicon:
        """The lexicon that comes with the package.

        Raises
        ------
        DataError
            With the line that does not have three columns and a whole number.
        """
        text = resources.files("classifiers.data").joinpath("lexicon.tsv").read_text(encoding="utf-8")
        entries = []
        for number, line in enumerate(text.splitlines()[1:], start=2):
            try:
                topic, polarity, pattern = line.split("\t")
                entries.append(Entry(topic, int(polarity), tuple(pattern.split())))
            except ValueError:
                message = f"lexicon.tsv:{number}: expected topic, polarity and pattern, got {line!r}"
                raise DataError(message) from None
        return cls(entries)

    def _find(self, words: tuple[str, ...]) -> tuple[Match, ...]:
        """All matches in a sentence, overlapping ones included."""
        found: set[Match] = set()
        for i, word in enumerate(words):
            for index, offset in self._candidates(word):
                pattern = self.entries[index].pattern
                starts = (i - offset,) if offset >= 0 else range(max(0, i - 16), i)
                for start in starts:
                    if start >= 0 and (end := _end_of_match(pattern, 0, words, start)):
                        found.add(Match(start, end, index))
        return tuple(sorted(found))

    def _candidates(self, word: str) -> list[tuple[int, int]]:
        candidates = list(self._exact.get(word, ()))
        for length in self._lengths:
            if length > len(word):
                break
            candidates += self._prefix.get(word[:length], ())
        return candidates

    def resolve(self, matches: Sequence[Match], topic: str) -> list[Match]:
        """Matches that hold for a topic: of its own and the shared entries, the most specific first."""
        entries = self.entries
        wanted = [match for match in matches if entries[match.entry].topic in {topic, ANY}]
        wanted.sort(
            key=lambda m: (
                -entries[m.entry].fixed,
                m.end - m.start,
                entries[m.entry].topic == ANY,
                m.start,
                m.entry,
            )
        )
        taken: set[int] = set()
        kept = []
        for match in wanted:
            span = range(match.start, match.end)
            if taken.isdisjoint(span):
                taken.update(span)
                kept.append(match)
        return sorted(kept)

    def net(self, text: Sequence[str], topic: str) -> int:
        """Sum of the polarities that hold for a topic in a text, cut into sentences."""
        matches = [match for part in text for match in self.resolve(self.find(tokenize(part)), topic)]
        return sum(self.entries[match.entry].polarity for match in matches)


def _is_short_stem(part: str) -> bool:
    """Whether so many words begin with it that it makes a poor index."""
    return part.endswith("*") and len(part) < STEM_MIN


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


class LexiconFeatures:
    """Figures of a text and a topic from the lexicon: sums by sign, and one column an entry.

    Parameters
    ----------
    lexicon : Lexicon
    topics : sequence of Topic
        For the words of each topic's object.
    """

    size = 24

    def __init__(self, lexicon: Lexicon, topics: Sequence[Topic]) -> None:
        self.lexicon = lexicon
        self._targets = {topic.id: topic.target_pattern for topic in topics}
        self._is_target = lru_cache(maxsize=65536)(self._match_target)
        self._tokenize = lru_cache(maxsize=8192)(tokenize)

    def _match_target(self, topic: str, word: str) -> bool:
        pattern = self._targets.get(topic)
        return pattern is not None and pattern.fullmatch(word) is not None

    def transform(
        self, texts: Sequence[Sequence[str]], topics: Sequence[str]
    ) -> tuple[NDArray[np.float32], sparse.csr_matrix]:
        """Features of pairs of a text, cut into sentences, and a topic.

        Returns
        -------
        (ndarray of shape (n_samples, 24), csr_matrix of shape (n_samples, n_entries))
            Positive and negative sums (square roots) of: shared entries, the topic's own, the first sentence,
            hits near a word of the topic's object, hits in a sentence with one; counts of entries without
            stance; squashed differences; form of the text. Then how often each entry matched.
        """
        dense = np.zeros((len(texts), self.size), dtype=np.float32)
        rows: list[int] = []
        columns: list[int] = []
        for i, (text, topic) in enumerate(zip(texts, topics, strict=True)):
            found = self._fill(dense[i], text, topic)
            rows += [i] * len(found)
            columns += found
        ones = np.ones(len(rows), dtype=np.float32)
        shape = (len(texts), len(self.lexicon.entries))
        return dense, sparse.csr_matrix((ones, (rows, columns)), shape=shape)

    def _fill(self, f: NDArray[np.float32], text: Sequence[str], topic: str) -> list[int]:
        found: list[int] = []
        total = targets = 0
        for number, sentence in enumerate(text):
            words = self._tokenize(sentence)
            places = [j for j, word in enumerate(words) if self._is_target(topic, word)]
            total += len(words)
            targets += len(places)
            f[22] = f[22] or (number == 0 and bool(places))
            for match in self.lexicon.resolve(self.lexicon.find(words), topic):
                entry = self.lexicon.entries[match.entry]
                own = entry.topic != ANY
                found.append(match.entry)
                if entry.polarity == 0:
                    f[4 + own] += 1
                    continue
                sign, size = int(entry.polarity < 0), abs(entry.polarity)
                f[2 * own + sign] += size
                if number == 0:
                    f[6 + sign] += size
                if places:
                    f[10 + sign] += size
                    if min(abs(j - match.start) for j in places) <= REACH:
                        f[8 + sign] += size
        net = f[0] + f[2] - f[1] - f[3]
        f[12] = np.tanh(net / 2)
        f[13], f[14] = max(net, 0) ** 0.5, max(-net, 0) ** 0.5
        f[15] = f[:4].sum() == 0
        f[16], f[17] = np.tanh(f[6] - f[7]), np.tanh(f[10] - f[11])
        f[18], f[19] = np.tanh(f[2] - f[3]), np.tanh(f[0] - f[1])
        f[20] = "?" in " ".join(text)[:200]
        f[21] = min(total, 80) / 80
        f[23] = targets / max(total, 10) * 5
        f[:12] = np.sqrt(f[:12])
        return found
