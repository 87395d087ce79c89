"""Texts that mark what they are judged about, as in ``They criticized [[Bolton]]'s comments``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

__all__ = ["MASK", "around", "mark", "split_mention", "tokens"]

MASK = "targetmention"  # a word that occurs nowhere else
_MARKED = re.compile(r"\[\[(.*?)\]\]", re.DOTALL)
_TOKEN = re.compile(r"\w[\w'&.-]*\w|\w|[%$€¥.,;:!?()\"“”]")
_WORD = re.compile(r"\w+")


def mark(text: str, start: int, end: int) -> str:
    """Text with the characters from `start` to `end` (excluded) marked.

    Examples
    --------
    >>> mark("They praised Bolton.", 13, 19)
    'They praised [[Bolton]].'
    """
    return f"{text[:start]}[[{text[start:end]}]]{text[end:]}"


def split_mention(text: str) -> tuple[str, str]:
    """Text with one word in the place of each marked mention, and the words of the mentions.

    Examples
    --------
    >>> split_mention("They praised [[John Bolton]].")
    ('They praised  targetmention .', 'm_john m_bolton')
    """
    named = " ".join(f"m_{word}" for found in _MARKED.findall(text) for word in _WORD.findall(found.lower()))
    return _MARKED.sub(f" {MASK} ", text), named


def tokens(text: str) -> list[str]:
    """Words and punctuation in lower case."""
    return _TOKEN.findall(text.lower())


def around(words: Sequence[str], reach: int, name: Callable[[str], str] = str) -> str:
    """Words at most `reach` from the first mention, marked by side; empty without a mention.

    Examples
    --------
    >>> around(tokens("They praised targetmention ."), 2)
    'l_they l_praised targetmention r_.'
    """
    if MASK not in words:
        return ""
    place = words.index(MASK)
    left = [f"l_{name(word)}" for word in words[max(0, place - reach) : place]]
    right = [f"r_{name(word)}" for word in words[place + 1 : place + 1 + reach]]
    return " ".join([*left, MASK, *right])
