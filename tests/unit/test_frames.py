"""Authored frames: which of them a sentence holds, and what a text's figures are."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from classifiers.errors import DataError
from classifiers.features import Pairs
from classifiers.frames import REACH, FrameFeatures, Frames, read_frames, shipped_frames
from classifiers.taxonomy import load_taxonomy

FILE = Path(__file__).resolve().parents[2] / "classifiers/data/stance_frames.yaml"
GROUPS = {
    "hawk": ["lawmaker*", "hawks", "both"],
    "urge": ["urge", "urges", "call for"],
    "tight": ["tight*", "no-go", "both"],
    "not": ["not", "never", "mid-"],
}
LINES = ["++ hawk", "+ hawk > urge", "0 urge > tight > !not", "-- hawk > urge > tight", "- tight > hawk"]
FRAMES = Frames(GROUPS, LINES)


def by_expressions(sentence: str) -> tuple[int, ...]:
    """The same without an automaton: every way to choose a place for each group."""
    text = re.sub("[ \n\t\"'“”‘’(\\-/\\[—–>]", " ", f" {sentence.lower()} ")

    def places(name: str) -> list[tuple[int, int]]:
        found = []
        for word in GROUPS[name]:
            end = "" if word.endswith("*") else r"(?![^\W_])"
            start = re.escape(word.rstrip("*").replace("-", " "))
            found += [hit.span() for hit in re.finditer(rf"(?<= ){start}{end}", text)]
        return found

    def holds(names: list[str], begins: tuple[int, int] | None) -> bool:
        if not names:
            return True
        return any(
            holds(names[1:], (start, end))
            for start, end in places(names[0])
            if begins is None or 0 <= start - begins[1] <= REACH
        )

    found = []
    for column, line in enumerate(LINES):
        names = line.split(" ", 1)[1].split(" > ")
        needed = [name for name in names if not name.startswith("!")]
        forbidden = [name[1:] for name in names if name.startswith("!")]
        if holds(needed, None) and not any(places(name) for name in forbidden):
            found.append(column)
    return tuple(found)


WORDS = [
    "Lawmakers",
    "hawks",
    "both",
    "urge",
    "surge",
    "call for",
    "tighter",
    "no-go",
    "not",
    "mid",
    "x" * 30,
]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join))
def test_one_pass_finds_what_trying_every_place_finds(sentence: str) -> None:
    """Order, reach, whole words, beginnings, phrases, words of two groups, forbidden groups."""
    assert FRAMES.found(sentence) == by_expressions(sentence)


@pytest.mark.parametrize(("between", "found"), [(REACH - 2, (0, 1)), (REACH - 1, (0,))])
def test_words_follow_each_other_up_to_the_reach(between: int, found: tuple[int, ...]) -> None:
    """The blanks on both sides count as well."""
    assert FRAMES.found(f"hawks {'x' * between} urge") == found


def test_a_word_does_not_follow_itself() -> None:
    """Two groups may share a word; a frame of both wants it twice."""
    assert FRAMES.found("both") == (0,)
    assert FRAMES.found("both, both") == (0, 4)


def test_hyphens_and_quotes_are_blanks() -> None:
    """A phrase is found with and without them."""
    assert FRAMES.found("They urge a no go") == FRAMES.found("They urge a 'no-go'") == (2,)


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("+++ hawk", "polarity"),
        ("hawk > urge", "polarity"),
        ("+ hawk > dove", "dove"),
        ("+ !hawk", "one to 4"),
        ("+ hawk > urge > tight > not > hawk", "one to 4"),
    ],
)
def test_a_line_of_another_form_is_told(line: str, part: str) -> None:
    """With what was expected and what arrived."""
    with pytest.raises(DataError, match=re.escape(line)) as error:
        Frames(GROUPS, [line])
    assert part in str(error.value)


@pytest.mark.parametrize(
    "text", ["cloud: [", "cloud: {groups: {}}", "- cloud", "cloud: {groups: {a: 1}, frames: []}"]
)
def test_a_file_of_another_form_is_told(text: str) -> None:
    """With its name, not as a traceback of the reader of YAML."""
    with pytest.raises(DataError, match=r"(?s)own\.yaml: .*comments at its top"):
        read_frames("own.yaml", text)


def test_figures_of_a_text() -> None:
    """Sums by sign, those of the first sentence apart; columns of the other topic stay empty."""
    features = FrameFeatures({"b": FRAMES, "a": Frames({"x": ["x"]}, ["+ x", "0 x"])})
    text = ["Hawks urge.", "Lawmakers urge tighter rules."]
    pairs = Pairs.of([text, text, ["Nothing."], text], ["b", "a", "b", "other"])
    sums, columns = features.transform(pairs)
    # favor: ++ and + in both sentences; against: -- in the second; flat: one there
    root = np.sqrt([6, 2, 1, 3, 0, 0])
    expected = [*root, np.tanh((6 - 2) / 2), np.tanh(3 / 2), 0]
    np.testing.assert_allclose(sums[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(sums[1:, :], [[0] * 8 + [1], [0] * 8 + [1], [0] * 9])
    assert columns.toarray().tolist() == [[0, 0, 1, 1, 1, 1, 0], *[[0] * 7] * 3]


def test_shipped_frames_read_who_says_what() -> None:
    """Every topic has frames of both signs; near-identical sentences are told apart by who speaks."""
    shipped = shipped_frames()
    assert set(shipped) == {topic.id for topic in load_taxonomy()}
    assert all({-2, -1, 0, 1, 2} <= set(frames.polarities) for frames in shipped.values())
    own = shipped["export_controls"]
    assert own.net(["Lawmakers urge tighter export controls on chips"]) > 0
    assert own.net(["Chipmakers warn tighter export controls will hurt American firms"]) < 0


@pytest.mark.parametrize("topic", sorted(shipped_frames()))
def test_every_shipped_word_may_end_a_sentence(topic: str) -> None:
    """A word whose last character becomes a blank ("by mid-") ended the search behind the text."""
    groups = yaml.safe_load(FILE.read_text(encoding="utf-8"))[topic]["groups"]
    found = shipped_frames()[topic].found
    for word in {word.rstrip("*") for words in groups.values() for word in words}:
        assert found(word) == found(f"{word};")
