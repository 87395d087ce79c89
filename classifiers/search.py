"""Search for many words at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ahocorasick_rs

__all__ = ["WordBits", "WordSearch"]

BEFORE_WORD = " \n\t\"'“”‘’(-/[—–>"


class WordSearch:
    """Finds words and beginnings of words by one pass over a text.

    A. Aho and M. Corasick, "Efficient String Matching", CACM 1975.

    Parameters
    ----------
    words : sequence of str
        In lower case; `x*` is any word that begins with x.

    Attributes
    ----------
    owners : list of int
        Index in `words` of the word that each pattern is for.

    Examples
    --------
    >>> search = WordSearch(["ban", "chip*"])
    >>> [(search.owners[pattern], start, end) for pattern, start, end in search.find(" urban chips, a ban ")]
    [(1, 6, 11), (0, 15, 19)]
    """

    def __init__(self, words: Sequence[str]) -> None:
        # One pattern for each character that a word can follow: the search itself rules out "ban" in "urban".
        self.owners = [index for index in range(len(words)) for _ in BEFORE_WORD]
        self._whole = [not word.endswith("*") for word in words for _ in BEFORE_WORD]
        self._automaton = ahocorasick_rs.AhoCorasick(
            [mark + word.removesuffix("*") for word in words for mark in BEFORE_WORD]
        )

    def find(self, text: str) -> list[tuple[int, int, int]]:
        """Pattern of each match, and where it starts (at the character before the word) and ends.

        Parameters
        ----------
        text : str
            In lower case, with a blank at both ends.
        """
        whole = self._whole
        return [
            match
            for match in self._automaton.find_matches_as_indexes(text, overlapping=True)
            if not whole[match[0]] or not text[match[2] : match[2] + 1].isalnum()
        ]


class WordBits:
    """What the words in a text stand for, without their places: in two thirds of the time.

    Searches bytes, of which only ASCII need be put in lower case.

    Parameters
    ----------
    words : mapping of str to int
        Bit set of each word, as :class:`WordSearch` takes them, of ASCII characters.

    Examples
    --------
    >>> WordBits({"ban": 1, "chip*": 2, "chips": 4}).join("Urban chips")
    6
    """

    def __init__(self, words: Mapping[str, int]) -> None:
        plain = [word.removesuffix("*").encode("ascii") for word in words]
        marks = [mark.encode() for mark in BEFORE_WORD]
        self._automaton = ahocorasick_rs.BytesAhoCorasick(
            [mark + word for word in plain for mark in marks],
            # Two thirds of the default's time; it takes 15 MiB, which would not pay for many more words.
            implementation=ahocorasick_rs.Implementation.DFA,
        )
        self._bits = [bits for bits in words.values() for _ in marks]
        self._whole = [not word.endswith("*") for word in words for _ in marks]

    def join(self, text: str) -> int:
        """Bit sets of the words that a text holds, in any case, joined by ``|``."""
        if "\u0130" in text or "\u212a" in text:  # İ and the kelvin sign: in lower case they hold ASCII
            text = text.lower()
        raw = f" {text} ".encode().lower()
        joined = 0
        bits, whole = self._bits, self._whole
        for pattern, _, end in self._automaton.find_matches_as_indexes(raw, overlapping=True):
            own = bits[pattern]
            if own | joined != joined and not (whole[pattern] and _is_alnum(raw, end)):
                joined |= own
        return joined


def _is_alnum(raw: bytes, start: int) -> bool:
    """Whether the character that begins at this byte of UTF-8 is a letter or digit."""
    if raw[start : start + 1].isascii():
        return raw[start : start + 1].isalnum()
    return raw[start : start + 4].decode(errors="ignore")[:1].isalnum()
