"""The user's own topics: what the YAML may say, and how an error in it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from classifiers.errors import DataError
from classifiers.user_taxonomy import UserTopic, load_user_taxonomy

SHIPPED = ("cloud", "domestic_chips", "export_controls")


def written(folder: Path, text: str) -> Path:
    """A taxonomy file."""
    file = folder / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_an_id_and_a_description_are_enough(tmp_path: Path) -> None:
    """Everything else has a default."""
    file = written(tmp_path, "- id: ai_regulation\n  description: laws for artificial intelligence\n")
    (topic,) = load_user_taxonomy(file, SHIPPED)
    assert topic == UserTopic(id="ai_regulation", description="laws for artificial intelligence")
    assert (topic.label, topic.threshold, topic.examples) == ("", 0.5, ())


def test_examples_may_be_texts_or_texts_with_a_stance(tmp_path: Path) -> None:
    """The short form for detection, the long one for stance."""
    file = written(
        tmp_path,
        "- id: a\n  description: b\n  examples: [plain, {text: judged, stance: favor}]\n",
    )
    (topic,) = load_user_taxonomy(file, SHIPPED)
    assert [(example.text, example.stance) for example in topic.examples] == [
        ("plain", None),
        ("judged", "favor"),
    ]


def test_terms_may_be_one_group_or_several(tmp_path: Path) -> None:
    """One list of words, or lists of which each must be met."""
    file = written(
        tmp_path,
        "- {id: a, description: x, terms: [ai, law*]}\n- {id: b, description: x, terms: [[ai], [law*]]}",
    )
    assert [topic.terms for topic in load_user_taxonomy(file, SHIPPED)] == [
        (("ai", "law*"),),
        (("ai",), ("law*",)),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected a list of topics, got nothing"),
        ("id: a", "expected a list of topics, got a mapping"),
        ("- 3", r"entry 1: got 3: expected a mapping"),
        ("- {description: x}", r"entry 1: missing required field `id`"),
        ("- {id: a}", r"entry 1 \(a\): missing required field `description`"),
        ("- {id: A b, description: x}", r"entry 1 \(A b\): id: got 'A b': expected a string matching"),
        ("- {id: other, description: x}", r"entry 1 \(other\): id: got 'other': .*overflow"),
        ("- {id: cloud, description: x}", r"entry 1 \(cloud\): id: got 'cloud': .*shipped"),
        (
            "- {id: a, description: x}\n- {id: a, description: y}",
            r"entry 2 \(a\): id: got 'a': .*entry 1 has it",
        ),
        ("- {id: a, description: ' '}", r"entry 1 \(a\): description: got ' ': expected words"),
        ("- {id: a, description: x, treshold: 0.4}", r"entry 1 \(a\): unknown field `treshold`"),
        ("- {id: a, description: x, threshold: 4}", r"entry 1 \(a\): threshold: got 4: expected .*<= 1"),
        ("- {id: a, description: x, threshold: 0}", r"threshold: got 0: expected .*>= 0.01"),
        ("- {id: a, description: x, threshold: high}", r"threshold: got 'high': expected a number"),
        ("- {id: a, description: x, terms: ai}", r"terms: got 'ai': expected a list"),
        ("- {id: a, description: x, terms: [1]}", r"terms\[0\]: got 1: expected a string"),
        ("- {id: a, description: x, terms: [[a], b]}", r"terms\[1\]: got 'b': expected a list"),
        ("- {id: a, description: x, terms: [[a], []]}", r"terms: got an empty group"),
        ("- {id: a, description: x, terms: ['*']}", r"terms: got '\*': expected a word"),
        (
            "- {id: a, description: x, examples: [{text: t, stance: pro}]}",
            r"examples\[0\].stance: got 'pro': expected one of favor, against, neutral",
        ),
        ("- {id: a, description: x, examples: ['']}", r"examples\[0\]: got '': expected words"),
        ("- [", r"mine.yaml:1: .*YAML"),
    ],
)
def test_an_error_says_file_entry_what_arrived_and_what_is_expected(
    tmp_path: Path, text: str, told: str
) -> None:
    """One line that leads to the place."""
    with pytest.raises(DataError, match=told) as caught:
        load_user_taxonomy(written(tmp_path, text), SHIPPED)
    assert str(caught.value).startswith(str(tmp_path / "mine.yaml"))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    """With its name."""
    with pytest.raises(DataError, match=r"cannot read .*none\.yaml: No such file"):
        load_user_taxonomy(tmp_path / "none.yaml", SHIPPED)


def test_too_many_topics_are_refused(tmp_path: Path) -> None:
    """The metrics show 200 topics; more would share one slot unseen."""
    text = "\n".join(f"- {{id: t{number}, description: x}}" for number in range(101))
    with pytest.raises(DataError, match="101 topics: expected at most 100"):
        load_user_taxonomy(written(tmp_path, text), SHIPPED)


@pytest.mark.parametrize(
    "content",
    [
        "- !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [{proof}]]",
        "- id: mine\n  description: !!python/object/apply:os.system ['touch {proof}']",
        "- !!python/name:os.system",
    ],
)
def test_a_file_cannot_run_code(tmp_path: Path, content: str) -> None:
    """YAML tags that make Python objects are refused like any other fault of the file."""
    proof = tmp_path / "proof"
    file = written(tmp_path, content.format(proof=proof))
    with pytest.raises(DataError, match="could not determine a constructor"):
        load_user_taxonomy(file, SHIPPED)
    assert not proof.exists()
