"""Authored frames: groups of words that follow each other in a sentence, with a polarity.

"Lawmakers urge tighter curbs" and "Chipmakers urge looser curbs" share their words; who urges what tells them
apart. A frame names the groups in their order (after C. J. Fillmore, "Frame semantics", 1982, in the plainest
form): ``lawmaker > urge > tighten``. How much each frame counts is learned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from typing import NamedTuple

import ahocorasick_rs
import numpy as np
import yaml
from numpy.typing import NDArray
from scipy import sparse

from classifiers.errors import DataError
from classifiers.features import Pairs, sum_groups
from classifiers.search import BEFORE_WORD

__all__ = ["FrameFeatures", "Frames", "read_frames", "shipped_frames"]

REACH = 45
GROUPS_MAX = 4
POLARITIES = {"++": 2, "+": 1, "0": 0, "-": -1, "--": -2}
_BLANKS = bytes(ord(" ") if chr(code) in BEFORE_WORD else code for code in range(256))
_Place = tuple[int, int, int]
"""Bits of the groups of a word that is there, where it starts and where it ends."""


class _Frame(NamedTuple):
    """Bits of the groups in their order; those it needs and those it forbids, together; its column."""

    order: tuple[int, ...]
    needed: int
    forbidden: int
    column: int


class Frames:
    """Which frames a sentence holds.

    Parameters
    ----------
    groups : mapping of str to sequence of str
        Words and phrases of each group, in lower case (`x*`: words that begin with x).
    frames : sequence of str
        ``"<polarity> <group> > <group> ..."``: polarity ``++`` to ``--``, one to four groups whose words
        follow each other at most 45 characters apart. ``!group``: no word of that group is in the sentence.

    Attributes
    ----------
    polarities : tuple of int
        -2 to 2 of each frame.

    Raises
    ------
    DataError
        With the line that does not have this form.

    Examples
    --------
    >>> groups = {"hawk": ["lawmaker*"], "firm": ["chipmaker*"], "urge": ["urge"], "tight": ["tighter"]}
    >>> frames = Frames(groups, ["++ hawk > urge > tight", "- firm > urge > !tight"])
    >>> frames.found("Lawmakers urge tighter curbs"), frames.found("Chipmakers urge looser curbs")
    ((0,), (1,))
    """

    def __init__(self, groups: Mapping[str, Sequence[str]], frames: Sequence[str]) -> None:
        bit = {name: 1 << place for place, name in enumerate(groups)}
        of_word: dict[str, int] = {}
        for name, words in groups.items():
            for word in words:
                plain = _with_blanks(word)
                of_word[plain] = of_word.get(plain, 0) | bit[name]
        self._bits = list(of_word.values())
        self._whole = [not word.endswith("*") for word in of_word]
        self._search = ahocorasick_rs.AhoCorasick([f" {word.removesuffix('*')}" for word in of_word])
        parsed = [_parse(line, bit, column) for column, line in enumerate(frames)]
        self.polarities = tuple(polarity for polarity, _ in parsed)
        uses = Counter(one for _, frame in parsed for one in frame.order)
        self._by_group: dict[int, list[_Frame]] = {}
        for _, frame in parsed:  # tried where its least used group is
            self._by_group.setdefault(min(frame.order, key=lambda one: (uses[one], one)), []).append(frame)
        self._possible = lru_cache(maxsize=16384)(self._find_possible)  # most sentences have few groups

    def found(self, sentence: str) -> tuple[int, ...]:
        """Columns of the frames in a sentence, in rising order."""
        text = f" {_with_blanks(sentence.lower())} "
        there = 0
        places: list[_Place] = []
        for pattern, start, end in self._search.find_matches_as_indexes(text, overlapping=True):
            if not (self._whole[pattern] and text[end : end + 1].isalnum()):
                own = self._bits[pattern]
                there |= own
                places.append((own, start + 1, end))
        possible = self._possible(there)
        if not possible:
            return ()
        return tuple([frame.column for frame in possible if _in_order(frame.order, places)])

    def _find_possible(self, there: int) -> tuple[_Frame, ...]:
        """Frames of which all groups are there and none that they forbid."""
        frames = (frame for one in self._by_group if one & there for frame in self._by_group[one])
        found = [frame for frame in frames if frame.needed & ~there == 0 == frame.forbidden & there]
        return tuple(sorted(found, key=lambda frame: frame.column))

    def net(self, text: Sequence[str]) -> int:
        """Sum of the polarities in a text, cut into sentences."""
        return sum(self.polarities[frame] for sentence in text for frame in self.found(sentence))


def _parse(line: str, bit: Mapping[str, int], column: int) -> tuple[int, _Frame]:
    """Polarity and frame of a line."""
    polarity, _, names = line.partition(" ")
    parts = names.split(" > ")
    needed = [name for name in parts if not name.startswith("!")]
    forbidden = [name[1:] for name in parts if name.startswith("!")]
    unknown = {*needed, *forbidden} - set(bit)
    if polarity not in POLARITIES or unknown or not 1 <= len(needed) <= GROUPS_MAX:
        message = (
            f"expected a polarity ({', '.join(POLARITIES)}) and one to {GROUPS_MAX} known groups joined by"
            f" ' > ', got {line!r}" + (f" with unknown groups {sorted(unknown)}" if unknown else "")
        )
        raise DataError(message)
    order = tuple(bit[name] for name in needed)
    both = [sum({bit[name] for name in names}) for names in (needed, forbidden)]
    return POLARITIES[polarity], _Frame(order, both[0], both[1], column)


def _with_blanks(text: str) -> str:
    """Text with a blank for each character that a word can follow."""
    if text.isascii():  # a fourth of the time
        return text.encode().translate(_BLANKS).decode()
    for mark in BEFORE_WORD:  # a tenth of the time of `str.translate`
        text = text.replace(mark, " ")
    return text


def _in_order(order: Sequence[int], places: Sequence[_Place]) -> bool:
    """Whether words of the groups follow each other, each at most 45 characters behind the one before."""
    ends = {end for bits, _, end in places if bits & order[0]}
    for one in order[1:]:
        own = [(start, end) for bits, start, end in places if bits & one]
        ends = {end for start, end in own for before in ends if 0 <= start - before <= REACH}
    return bool(ends)


def read_frames(name: str, text: str) -> dict[str, Frames]:
    """Read ``groups`` and ``frames`` of each topic.

    Raises
    ------
    DataError
        With the file's name when the text does not have the form that its first lines describe.
    """
    try:
        content = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
        return {topic: Frames(own["groups"], own["frames"]) for topic, own in content.items()}
    except (AttributeError, KeyError, TypeError, DataError, yaml.YAMLError) as error:
        message = f"{name}: {type(error).__name__}: {error}; see the comments at its top"
        raise DataError(message) from None


@lru_cache(maxsize=1)  # the model and the rules that it is compared with ask for them
def shipped_frames() -> Mapping[str, Frames]:
    """Those that come with the package, ``data/stance_frames.yaml``."""
    source = resources.files("classifiers.data").joinpath("stance_frames.yaml")
    return read_frames(source.name, source.read_text(encoding="utf-8"))


class FrameFeatures:
    """Figures of a text and a topic from the topic's frames: sums by sign, and one column a frame.

    Parameters
    ----------
    frames : mapping of str to Frames
        By topic; a topic without frames has none.
    """

    size = 9

    def __init__(self, frames: Mapping[str, Frames]) -> None:
        self._frames = dict(sorted(frames.items()))
        self._first: dict[str, int] = {}
        self.columns = 0
        for topic, own in self._frames.items():
            self._first[topic] = self.columns
            self.columns += len(own.polarities)

    @classmethod
    @lru_cache(maxsize=1)
    def shipped(cls) -> FrameFeatures:
        """Of those that come with the package."""
        return cls(shipped_frames())

    def transform(self, pairs: Pairs) -> tuple[NDArray[np.float32], sparse.csr_matrix]:
        """Features of texts and the topic that each is judged for.

        Returns
        -------
        (ndarray of shape (n_samples, 9), csr_matrix of shape (n_samples, columns))
            Square roots of the sums of polarities in favor, against, and of the number of flat frames: in the
            text, then in its first sentence; the squashed differences of both; whether a topic that has
            frames shows none. Then which frames there are.
        """
        read = [self._read(*pair) for pair in pairs.read]
        sums = np.array([sums for sums, _ in read], dtype=np.float32).reshape(len(read), 3)
        held = [sorted({column for pair in group for column in read[pair][1]}) for group in pairs.groups]
        f = np.zeros((len(pairs.texts), self.size), dtype=np.float32)
        f[:, :3] = pairs.summing @ sums
        f[:, 3:6] = pairs.first @ sums
        f[:, 8] = [topic in self._frames and not own for topic, own in zip(pairs.topics, held, strict=True)]
        f[:, 6], f[:, 7] = np.tanh((f[:, 0] - f[:, 1]) / 2), np.tanh((f[:, 3] - f[:, 4]) / 2)
        f[:, :6] = np.sqrt(f[:, :6])
        return f, sum_groups(held, self.columns)

    def _read(self, topic: str, sentence: str) -> tuple[tuple[int, int, int], Sequence[int]]:
        """Sums of polarities in favor and against, number of flat frames; columns of all."""
        found = self._frames[topic].found(sentence) if topic in self._frames else ()
        if not found:
            return (0, 0, 0), ()
        polarities = [self._frames[topic].polarities[frame] for frame in found]
        favor = sum(polarity for polarity in polarities if polarity > 0)
        sums = favor, favor - sum(polarities), polarities.count(0)
        return sums, [self._first[topic] + frame for frame in found]
