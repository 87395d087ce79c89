"""The plan of the learning curve; its trainings are a matter of the benchmark."""

from __future__ import annotations

import pytest

from benchmarks.learning_curve import ALL, markdown, plans, split
from classifiers.errors import DataError
from classifiers.training import Example

EXAMPLES = [
    *(Example(f"passage {i}") for i in range(8)),
    *(Example(f"paragraph {i}", batch="w1" if i < 4 else "w2") for i in range(8)),
    *(Example(f"real {i}", source="x.com") for i in range(8)),
]


def test_the_held_out_batch_is_never_trained_on() -> None:
    """Nor lost: every other row is in one part."""
    parts, held_out = split(EXAMPLES, "w2", seed=1)
    assert [e.batch for e in held_out] == ["w2"] * 4
    assert {name: len(rows) for name, rows in parts.items()} == {
        "passages": 8,
        "paragraphs": 4,
        "real rows": 8,
    }
    texts = {e.text for e in held_out}
    assert not any(texts & {e.text for e in plan.examples} for plan in plans(parts, [0.5, 1.0]))


def test_both_questions_are_planned_with_the_right_number_of_rows() -> None:
    """Half of a part alone; half of it beside all others; nothing of it beside all others."""
    parts, _ = split(EXAMPLES, "w2", seed=1)
    sizes = {(p.question, p.part, p.share): len(p.examples) for p in plans(parts, [0.5, 1.0])}
    assert sizes == {
        ("alone", "passages", 0.5): 4,
        ("alone", "paragraphs", 0.5): 2,
        ("alone", "real rows", 0.5): 4,
        ("alone", ALL, 0.5): 10,
        ("alone", "passages", 1.0): 8,
        ("alone", "paragraphs", 1.0): 4,
        ("alone", "real rows", 1.0): 8,
        ("alone", ALL, 1.0): 20,
        ("beside", "passages", 0.0): 12,
        ("beside", "passages", 0.5): 16,
        ("beside", "paragraphs", 0.0): 16,
        ("beside", "paragraphs", 0.5): 18,
        ("beside", "real rows", 0.0): 12,
        ("beside", "real rows", 0.5): 16,
    }


def test_smaller_shares_lie_within_larger_ones_and_the_seed_fixes_them() -> None:
    """A curve must not mix growth with another draw."""
    parts, _ = split(EXAMPLES, "w2", seed=1)
    assert split(EXAMPLES, "w2", seed=1)[0] == parts
    alone = {p.share: p.examples for p in plans(parts, [0.5, 1.0]) if (p.question, p.part) == ("alone", ALL)}
    assert {e.text for e in alone[0.5]} < {e.text for e in alone[1.0]}


def test_an_unknown_batch_is_told_with_those_that_exist() -> None:
    """A typo would measure on nothing."""
    with pytest.raises(DataError, match=r"'w9' of paragraphs; there are \['w1', 'w2'\]"):
        split(EXAMPLES, "w9", seed=1)


def test_the_table_has_a_line_a_point() -> None:
    """By part, then share."""
    score = {"value": 0.5, "interval": [0.4, 0.6]}
    figures = ("topics_micro_f1", "stance_macro_f1", "stance_macro_f1_with_misses")
    point = {
        "question": "alone",
        "share": 1.0,
        "texts": 1234,
        "scores": {"dev": dict.fromkeys(figures, score)},
    }
    points = [{**point, "part": ALL}, {**point, "part": "passages"}]
    text = markdown({"held_out_batch": "w2", "seed": 1, "tests": {"dev": 9}, "points": points})
    cell = "0.500 (0.400 to 0.600)"
    first = f"| passages | 1 | 1,234 | {cell} | {cell} | {cell} |"
    assert f"{first}\n{first.replace('passages', ALL)}" in text
