"""Authored knowledge of the topics: words that speak for or against one, alone or near each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources

import yaml
from scipy import sparse

from classifiers.errors import DataError
from classifiers.features import sum_groups
from classifiers.search import WordSearch

__all__ = ["Hints"]

REACH = 40
PAIR = 2


class Hints:
    """Which hints a sentence holds.

    A hint is a group of words, or two groups of which words stand near each other: "curbs" and "exports" say
    more together than apart, and "export" beside "diesel" speaks against a topic for which "export" speaks.
    How much each hint counts for each topic is learned.

    Parameters
    ----------
    groups : mapping of str to sequence of str
        Words of each group (`x*`: words that begin with x).
    hints : sequence of sequences of str
        Names of one group, or of two whose words are at most 40 characters apart. Their order is that of the
        columns.

    Attributes
    ----------
    size : int
        Number of hints.

    Examples
    --------
    >>> hints = Hints({"limit": ["curb*"], "export": ["export*"]}, [["limit"], ["limit", "export"]])
    >>> hints.found("New curbs on exports"), hints.found("A kerb, a curb"), hints.found("Exports rose")
    ((0, 1), (0,), ())
    """

    def __init__(self, groups: Mapping[str, Sequence[str]], hints: Sequence[Sequence[str]]) -> None:
        bit = {name: 1 << place for place, name in enumerate(groups)}
        of_word: dict[str, int] = {}
        for name, words in groups.items():
            for word in words:
                of_word[word] = of_word.get(word, 0) | bit[name]
        self._search = WordSearch(list(of_word))
        self._bits = [list(of_word.values())[word] for word in self._search.owners]
        numbered = [(column, *(bit[name] for name in names)) for column, names in enumerate(hints)]
        self._single = [(hint[0], hint[1]) for hint in numbered if len(hint) == PAIR]
        self._pairs = [(hint[0], hint[1], hint[2]) for hint in numbered if len(hint) > PAIR]
        self.size = len(hints)
        self._possible = lru_cache(maxsize=65536)(self._find_possible)

    @classmethod
    @lru_cache(maxsize=1)
    def shipped(cls) -> Hints:
        """Those that come with the package, ``data/hints.yaml``."""
        source = resources.files("classifiers.data").joinpath("hints.yaml")
        return cls.from_yaml(source.read_text(encoding="utf-8"))

    @classmethod
    def from_yaml(cls, text: str) -> Hints:
        """Read groups and hints.

        Raises
        ------
        DataError
            When the text does not have the form that the comments of ``data/hints.yaml`` describe.
        """
        try:
            content = yaml.safe_load(text)
            groups = {name: [str(word) for word in words] for name, words in content["groups"].items()}
            hints = [line.split(" + ") for line in content["hints"]]
            unknown = {name for names in hints for name in names} - set(groups)
            longer = [names for names in hints if len(names) > PAIR]
        except (AttributeError, KeyError, TypeError) as error:
            message = f"hints.yaml: {type(error).__name__}: {error}; see the comments at its top"
            raise DataError(message) from None
        if unknown or longer:
            message = f"hints.yaml: unknown groups {sorted(unknown)}, hints of more than two groups {longer}"
            raise DataError(message)
        return cls(groups, hints)

    def _find_possible(self, bits: int) -> tuple[tuple[int, ...], tuple[tuple[int, int, int], ...]]:
        """Of the groups that are there: columns of the single ones, and column and groups of the pairs."""
        single = tuple(column for column, one in self._single if bits & one)
        pairs = tuple(pair for pair in self._pairs if bits & pair[1] and bits & pair[2])
        return single, pairs

    def found(self, sentence: str) -> tuple[int, ...]:
        """Columns of the hints in a sentence."""
        bits = 0
        places = []
        for pattern, start, end in self._search.find(f" {sentence.lower()} "):
            own = self._bits[pattern]
            bits |= own
            places.append((own, start + 1, end))
        if not bits:
            return ()
        single, pairs = self._possible(bits)
        if not pairs:
            return single
        near = (column for column, one, other in pairs if _are_near(places, one, other))
        return (*single, *near)

    def matrix(self, sentences: Sequence[str]) -> sparse.csr_matrix:
        """Hints of each sentence as ones, shape (n_sentences, n_hints)."""
        return sum_groups([self.found(sentence) for sentence in sentences], self.size)


def _are_near(places: Sequence[tuple[int, int, int]], one: int, other: int) -> bool:
    """Whether words of two groups follow each other at most 40 characters apart, whichever comes first."""
    ours = [(start, end) for bits, start, end in places if bits & one]
    theirs = [(start, end) for bits, start, end in places if bits & other]
    return any(
        0 <= start - to <= REACH or 0 <= since - end <= REACH for start, end in ours for since, to in theirs
    )
