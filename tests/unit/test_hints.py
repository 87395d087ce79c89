"""Authored hints: which of them a sentence holds."""

from __future__ import annotations

import re

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from classifiers.errors import DataError
from classifiers.hints import REACH, Hints
from classifiers.topic import HINT_WEIGHT, TopicClassifier
from tests.conftest import ROOT

GROUPS = {"limit": ["curb*", "ban", "cut off"], "export": ["export*"], "both": ["ban", "exports"]}
ORDER = [["limit"], ["limit", "export"], ["both"], ["export", "both"]]
HINTS = Hints(GROUPS, ORDER)


def by_expressions(sentence: str) -> tuple[int, ...]:
    """The same without an automaton, by one regular expression a word."""

    def places(name: str) -> list[tuple[int, int]]:
        found = []
        for word in GROUPS[name]:
            end = "" if word.endswith("*") else r"(?![^\W_])"
            start = re.escape(word.rstrip("*"))
            found += [hit.span() for hit in re.finditer(rf"(?<![^ \n\t(-]){start}{end}", sentence.lower())]
        return found

    def near(one: str, other: str) -> bool:
        return any(
            0 <= start - to <= REACH or 0 <= since - end <= REACH
            for start, end in places(one)
            for since, to in places(other)
        )

    single = [i for i, names in enumerate(ORDER) if len(names) == 1 and places(names[0])]
    return (*single, *(i for i, names in enumerate(ORDER) if len(names) == 2 and near(*names)))


WORDS = ["Curbs", "urban", "ban", "bans", "cut off", "exports", "export", "re-exports", "(ban)", "x" * 30]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join))
def test_one_pass_finds_what_one_expression_a_word_finds(sentence: str) -> None:
    """Whole words, beginnings, phrases, groups that share a word, order and distance."""
    assert HINTS.found(sentence) == by_expressions(sentence)


@pytest.mark.parametrize(("between", "found"), [(38, (0, 1)), (39, (0,))])
def test_words_are_near_up_to_forty_characters(between: int, found: tuple[int, ...]) -> None:
    """The blanks on both sides count as well."""
    hints = Hints(GROUPS, ORDER[:2])
    assert hints.found(f"ban {'-' * between} exporters") == found


def test_a_word_is_not_near_itself() -> None:
    """A pair wants two words, also where its groups share one."""
    assert HINTS.found("exports") == (2,)
    assert HINTS.found("exports, ban") == (0, 2, 1, 3)


def test_a_hint_in_the_first_sentence_counts_apart() -> None:
    """A headline says more about a topic than an aside; how often a hint occurs says nothing more."""
    texts = ["Cloud growth. New rules.", "New rules. Cloud growth. Cloud growth."]
    model = TopicClassifier(min_df=1).fit(texts * 2, [["cloud"], []] * 2)
    size = model.hints_.size
    *_, anywhere, first = (block.toarray() for block in model._blocks([*texts[0].split(". ")], [range(2)]))
    assert anywhere.shape == first.shape == (1, size)
    assert set(np.unique(anywhere)) == {0, np.float32(HINT_WEIGHT)}
    there = model.hints_.found("Cloud growth")
    assert there
    assert (first[0, list(there)] > 0).all()
    _, later = (block.toarray() for block in model._blocks(texts[1].split(". "), [range(3)])[-2:])
    assert (later[0, list(there)] == 0).all()


def test_topics_of_ones_own_are_learned_without_them() -> None:
    """They are about the shipped topics: a model of other topics has no columns for them."""
    texts = ["the cup final", "the budget vote"] * 3
    assert TopicClassifier().fit(texts, [["sport"], ["politics"]] * 3).hints_.size == 0


def test_the_shipped_file_holds_no_group_in_vain() -> None:
    """Every group is used, every word is in lower case (others are never found), no hint is there twice."""
    content = yaml.safe_load((ROOT / "classifiers/data/hints.yaml").read_text())
    used = [name for hint in content["hints"] for name in hint.split(" + ")]
    assert set(used) == set(content["groups"])
    assert len(set(content["hints"])) == len(content["hints"]) == Hints.shipped().size
    words = [str(word) for group in content["groups"].values() for word in group]
    assert [word for word in words if word != word.lower().strip()] == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("groups: {a: [x]}\nhints: [a, b]", r"unknown groups \['b'\]"),
        ("groups: {a: [x]}\nhints: [a + a + a]", "more than two"),
        ("groups: [a]\nhints: [a]", "AttributeError"),
        ("hints: [a]", "KeyError"),
    ],
)
def test_a_mistake_in_the_file_is_told(text: str, told: str) -> None:
    """Which name, or where to read about the form."""
    with pytest.raises(DataError, match=told):
        Hints.from_yaml(text)
