"""Search for words: the fast forms find what the plain ones find."""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import reduce
from operator import or_

from hypothesis import example, given
from hypothesis import strategies as st

from classifiers.features import words_of
from classifiers.search import BEFORE_WORD, WordBits, WordSearch

WORDS = {"ai": 1, "ban": 2, "chip*": 4, "chips": 8, "data cent*": 16, "k": 32, "a.i.": 64, "by ": 128}
PIECES = st.sampled_from(
    [
        *BEFORE_WORD,
        "AI",
        "ai",
        "Ban",
        "chip",
        "CHIPS",
        "data",
        "centre",
        "a.i.",
        "by",
        "é",
        "É",
        "中",
        "\u0130",
        "\u212a",
        "\u0307",
    ]
)


@example("by")
@given(st.lists(PIECES | st.text(max_size=2)).map("".join))
def test_bits_are_those_of_the_words_found(text: str) -> None:
    """Bytes are searched, in which only ASCII is put in lower case: no character makes a difference."""
    search = WordSearch(list(WORDS))
    bits = list(WORDS.values())
    found = [bits[search.owners[pattern]] for pattern, _, _ in search.find(f" {text.lower()} ")]
    assert WordBits(WORDS).join(text) == reduce(or_, found, 0)


def test_two_characters_hold_ascii_in_lower_case_only() -> None:
    """All others are told apart from ASCII, and letters from the rest, before and after."""
    every = [chr(number) for number in range(128, sys.maxunicode + 1)]
    assert [each for each in every if any(map(str.isascii, each.lower()))] == ["\u0130", "\u212a"]
    assert all(each.isalnum() == each.lower()[0].isalnum() for each in every)


@given(st.text() | st.text("aBé’'&.- %$€\u0301\u0130", max_size=60))
def test_words_are_those_of_the_plain_form(sentence: str) -> None:
    """Without accents, whichever characters are looked at, and however an expression goes about it."""
    plain = unicodedata.normalize("NFKD", sentence.lower())
    plain = "".join(character for character in plain if not unicodedata.combining(character))
    assert words_of(sentence) == tuple(re.findall(r"\w+(?:['&.-]+\w+)*|[%$€¥]", plain))
