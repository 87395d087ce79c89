"""Training on labels as people have them: two stances, one, a topic of a single text, no text without it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax

from classifiers.errors import DataError
from classifiers.stance import StanceClassifier
from classifiers.storage import load, train_and_save
from classifiers.topic import TopicClassifier
from classifiers.training import Example, data_hash, load_examples, train_models

WORDS = {
    "favor": ["welcome", "success"],
    "against": ["failure", "harm"],
    "neutral": ["report", "meeting"],
}
FILL = ["bread", "harvest", "game", "match", "team", "city", "street", "house", "music", "garden", "winter"]


def labelled(topic: str, stance: str, count: int, batch: str = "") -> Iterator[Example]:
    """Texts about a topic whose words tell the stance."""
    chooser = random.Random(f"{topic} {stance}")  # noqa: S311 - the same words each time
    for _ in range(count):
        words = [*chooser.choices(FILL, k=8), topic, *WORDS[stance]]
        chooser.shuffle(words)
        yield Example(" ".join(words), (topic,), {topic: stance}, batch=batch)


def off_topic(count: int, batch: str = "") -> list[Example]:
    """Texts about nothing."""
    chooser = random.Random(count)  # noqa: S311
    return [Example(" ".join(chooser.choices(FILL, k=10)), batch=batch) for _ in range(count)]


TWO = [*labelled("solar", "favor", 30), *labelled("solar", "against", 30), *off_topic(30)]
THREE = [*TWO, *labelled("solar", "neutral", 30)]
BATCHES = [row for batch in "abcdefghij" for row in off_topic(20, batch)]
JUDGED = [example for example in THREE if example.topics]


def test_a_model_tells_the_two_stances_that_it_was_trained_on(tmp_path: Path) -> None:
    """Written, loaded and asked, as the worker does: a column a class, and both are found."""
    train_and_save(tmp_path, TWO, data_origin="a test")
    assessor = load(tmp_path)
    articles = [("", "Solar is a welcome success."), ("", "Solar is a failure and does harm.")]
    assert [decisions[0].stance for decisions in assessor.assess(articles)] == ["favor", "against"]
    model, judged = assessor.stance_model, [row for row in TWO if row.topics]
    texts, topics = [row.text for row in judged], ["solar"] * len(judged)
    found = model.predict_proba(texts, topics)
    assert model.classes_.tolist() == ["against", "favor"]
    assert found.shape == (len(texts), 2)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert model.predict(texts, topics).tolist() == [row.stance["solar"] for row in judged]
    assert assessor.expected is not None
    assert assessor.expected.stance_probability > 0.8


def test_two_stances_have_the_probability_of_scikit_learn() -> None:
    """The difference of the scores is the logit that logistic regression means."""
    texts, stances = ["record growth", "an outage"] * 4, ["favor", "against"] * 4
    model = StanceClassifier(balance=0).fit(texts, ["cloud"] * 8, stances)
    scores = model.decision_function(texts, ["cloud"] * 8)
    assert scores.shape == (8, 2)
    logit = scores[:, 1] - scores[:, 0]
    np.testing.assert_allclose(
        model.predict_proba(texts, ["cloud"] * 8)[:, 1], 1 / (1 + np.exp(-logit)), rtol=1e-5
    )
    assert set(np.sign(logit[:2])) == {1, -1}


def test_a_row_may_hold_any_separator_of_lines(tmp_path: Path) -> None:
    """JSON allows U+2028 and U+0085 in a string; rows end with a line feed."""
    file = tmp_path / "rows.jsonl"
    text = "One line\u2028and\u2029the\u0085next"
    row = json.dumps({"text": text, "topics": [], "stance": {}}, ensure_ascii=False)
    file.write_text(f"{row}\r\n{row}\n", encoding="utf-8", newline="")
    assert [example.text for example in load_examples(file)] == [text] * 2


def test_a_file_that_is_no_utf_8_is_named(tmp_path: Path) -> None:
    """As spreadsheets write it; one line says where and what to do."""
    file = tmp_path / "latin.jsonl"
    file.write_bytes(b'{"text": "x", "topics": [], "stance": {}}\n{"text": "Caf\xe9"}\n')
    with pytest.raises(DataError, match=r"latin\.jsonl:2: .* UTF-8"):
        load_examples(file)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*labelled("solar", "favor", 30), *off_topic(30)], "stance favor: at least two stances"),
        (JUDGED, "too few labelled texts without the topic solar: 0"),
        ([*THREE, *labelled("wind", "favor", 1)], "too few labelled texts with the topic wind: 1"),
        ([*TWO, *labelled("solar", "neutral", 1)], "too few labelled texts of the stance neutral: 1"),
        ([*JUDGED, *off_topic(1)], "too few labelled texts without the topic solar: 1"),
        ([*THREE, *labelled("wind", "favor", 20, batch="one")], "texts with the topic wind: 20; .*by batch"),
        ([*THREE, *BATCHES, *labelled("wind", "favor", 20)], "with the topic (solar|wind) has a batch"),
        ([replace(row, batch="one") for row in THREE], "of 1 batches or sources"),
    ],
    ids=["one stance", "all", "rare", "rare stance", "rarely off", "one batch", "other rows", "few groups"],
)
def test_what_the_labels_lack_is_said(rows: list[Example], message: str) -> None:
    """Before anything is trained, instead of a model that knows one answer."""
    with pytest.raises(DataError, match=message):
        train_models(rows)


def test_a_weight_calibrates_as_so_many_rows() -> None:
    """Real rows count more than written ones: six times as much is as if each stood there six times."""
    labels: list[list[str]] = [["a"], []] * 100
    scores = np.random.default_rng(0).normal([[1.0 if row else -1.0] for row in labels], 1.2)
    weight = np.array([1, 6] * 100)

    def calibrated(times: NDArray[np.int_], weights: NDArray[np.int_] | None = None) -> TopicClassifier:
        model = TopicClassifier(min_df=1).fit(["x word", "y word"] * 100, labels)
        rows = [row for row, n in zip(labels, times, strict=True) for _ in range(n)]
        return model.calibrate(np.repeat(scores, times, axis=0), rows, weights)

    once = np.ones(len(labels), dtype=int)
    weighted, repeated, plain = calibrated(once, weight), calibrated(weight), calibrated(once)
    for name in ("slopes_", "shifts_", "thresholds_"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(repeated, name), rtol=1e-3)
    assert abs(plain.shifts_ - weighted.shifts_).max() > 0.1
    assert plain.thresholds_ != weighted.thresholds_


def real(count: int, *, unread: bool) -> Iterator[Example]:
    """Texts of ten outlets; of those that no author has read, half have a stance that no word tells."""
    for number, row in enumerate(labelled("solar", "favor", count)):
        stance = "against" if unread and number % 2 else "favor"
        yield replace(row, stance={"solar": stance}, source=f"s{number % 10}", unread=unread)


def test_training_weighs_real_rows_in_calibration_and_asks_unread_ones_how_sure_to_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What only the estimators' own tests would see, were it not handed on."""
    rows = [*THREE, *BATCHES, *real(220, unread=False), *real(120, unread=True)]
    topics, stances = train_models(rows)
    _, surer = train_models([replace(row, unread=False) for row in rows])
    assert stances.temperature_ > 1.1 * surer.temperature_
    assert data_hash(rows) != data_hash([replace(row, unread=False) for row in rows])
    monkeypatch.setattr("classifiers.training.REAL_WEIGHT_TOPIC_CALIBRATION", 1.0)
    even, _ = train_models(rows)
    assert abs(even.shifts_ - topics.shifts_).max() > 0.01
    monkeypatch.setattr("classifiers.training.NEAR_MISS_WEIGHT_TOPIC", 1.0)
    milder, _ = train_models(rows)
    assert (milder.intercept_ > even.intercept_ + 0.1).all()


@pytest.mark.parametrize("unread_rows", [400, 60])
def test_confidence_is_that_of_rows_which_no_author_has_read(unread_rows: int) -> None:
    """Right in 60 % of the unread rows and in nearly all others; too few unread ones tell nothing."""
    model = StanceClassifier(min_df=1).fit(["good", "bad"] * 20, ["a"] * 40, ["favor", "against"] * 20)
    chooser = np.random.default_rng(5)
    unread = np.arange(1000) < unread_rows
    truth = chooser.integers(0, 2, 1000)
    right = chooser.random(1000) < np.where(unread, 0.6, 0.99)
    scores = np.where(np.eye(2)[np.where(right, truth, 1 - truth)] > 0, 2.0, -2.0)
    model.calibrate(scores, model.classes_[truth].tolist(), unread)
    found = softmax(scores / model.temperature_ + model.bias_, axis=1).max(axis=1)
    expected = right[unread].mean() if unread_rows == 400 else right.mean()
    assert found.mean() == pytest.approx(expected, abs=0.01)
