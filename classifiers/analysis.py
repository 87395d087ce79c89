"""An evaluation with all that explains its scores: intervals, curves, errors by kind, simpler methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from classifiers import mistakes
from classifiers.assessor import Assessor
from classifiers.baselines import System, linear_svm, most_frequent, rules
from classifiers.calibration import calibration_error, reliability, risk_curve
from classifiers.comparison import compare
from classifiers.evaluation import evaluate
from classifiers.intervals import LEVEL, RESAMPLES, SEED
from classifiers.training import STANCES, Example, data_hash

__all__ = ["Training", "analyse", "threshold_curve"]

THRESHOLDS = np.round(np.arange(0.02, 0.99, 0.02), 2)


@dataclass(frozen=True)
class Training:
    """Labelled texts that may be those of a model, and the hash of those that it was made of."""

    examples: Sequence[Example]
    expected_hash: str

    @property
    def reason_against(self) -> str:
        """Why these are not the model's training texts; empty when they are."""
        if not self.examples:
            return "the training texts are not at hand"
        found = data_hash(self.examples)
        if found == self.expected_hash:
            return ""
        return (
            f"the training texts are not at hand: the model was made of those with SHA-256"
            f" {self.expected_hash[:12]}, there are {len(self.examples)} with {found[:12]}"
        )


def analyse(
    assessor: Assessor,
    examples: Sequence[Example],
    training: Training,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Evaluate an assessor, and look closer.

    Parameters
    ----------
    assessor : Assessor
    examples : sequence of Example
    training : Training
        For the baseline that is trained on the same texts; left out when they are not the model's.
    progress : callable
        Told what is being done.

    Returns
    -------
    dict
        All of :func:`evaluate`, and ``intervals``, ``comparison`` (:func:`compare`), ``svm_left_out`` (why,
        or empty), ``rows_seen_in_training`` (None when that is not known), ``confusion``, ``reliability``,
        ``risk_curve`` and its area, ``thresholds`` (:func:`threshold_curve`), ``errors``
        (:mod:`classifiers.mistakes`). The same data gives the same content; no text is in it.
    """
    documents = [("", example.text) for example in examples]
    progress("assessing")
    decided = assessor.assess(documents)
    probabilities = assessor.topic_probabilities(documents)
    report = evaluate(assessor, examples, decided)
    names = list(report["topics"])
    rows = [
        mistakes.Row(
            id=example.id or f"row {number}",
            truth={topic: example.stance[topic] for topic in example.topics},
            found={decision.topic: decision.stance for decision in row},
            source=example.source,
            words=len(example.text.split()),
        )
        for number, (example, row) in enumerate(zip(examples, decided, strict=True), start=1)
    ]
    found = [row.found for row in rows]
    systems = [System("this model", found, found)]
    reason = training.reason_against
    if not reason:
        progress("training TF-IDF + linear SVM")
        with threadpool_limits(limits=1):
            systems.append(linear_svm(training.examples, examples))
    systems += [rules(examples, names), most_frequent(examples)]
    progress("resampling")
    comparison = compare(rows, systems)
    pairs = [
        (decision.stance_probability, decision.stance == example.stance[decision.topic])
        for example, row in zip(examples, decided, strict=True)
        for decision in row
        if decision.topic in example.topics
    ]
    confidence = np.array([pair[0] for pair in pairs], dtype=float)
    correct = np.array([pair[1] for pair in pairs], dtype=bool)
    curve, area = risk_curve(confidence, correct)
    seen = {example.text for example in training.examples}
    return {
        **report,
        "intervals": {
            "level": LEVEL,
            "resamples": RESAMPLES,
            "seed": SEED,
            **{
                figure: comparison[0][figure]["interval"] if comparison else None
                for figure in ("topics_micro_f1", "stance_macro_f1", "stance_macro_f1_with_misses")
            },
        },
        "comparison": comparison,
        "svm_left_out": reason,
        "rows_seen_in_training": None if reason else sum(example.text in seen for example in examples),
        "confusion": {
            "true": list(STANCES),
            "found": list(mistakes.FOUND),
            "stance": mistakes.stance_confusion(rows),
            "stance_by_topic": {name: mistakes.stance_confusion(rows, name) for name in names},
            "topics": mistakes.topic_confusion(rows, names),
        },
        "reliability": {
            "stance": {
                "calibration_error": report["stance_calibration_error"],
                "bins": reliability(confidence, correct),
            },
            "topics": _topic_reliability(assessor, rows, probabilities),
        },
        "risk_curve": curve,
        "risk_curve_area": area if curve else None,
        "thresholds": _thresholds(assessor, rows, probabilities),
        "errors": {
            "missed_topics": mistakes.missed_topics(rows),
            "by_combination": mistakes.by_combination(rows),
            "wrong_topics": mistakes.wrong_topics(rows),
            "stance": mistakes.stance_mistakes(rows),
            "by_source": mistakes.by_source(rows),
            "by_length": mistakes.by_length(rows),
        },
    }


def threshold_curve(probability: NDArray[Any], truth: NDArray[np.bool_]) -> list[dict[str, float | None]]:
    """Precision, recall and F1 of a topic at each threshold (Manning et al. 2008, sections 8.3 and 8.4).

    Returns
    -------
    list of dict
        ``threshold`` and the three, all 0 to 1; the precision is None where nothing is found, and the recall
        where nothing is true.
    """
    curve: list[dict[str, float | None]] = []
    for threshold in THRESHOLDS:
        found = probability >= threshold
        right = int((found & truth).sum())
        marks = int(found.sum() + truth.sum())
        curve.append(
            {
                "threshold": float(threshold),
                "precision": round(right / int(found.sum()), 4) if found.any() else None,
                "recall": round(right / int(truth.sum()), 4) if truth.any() else None,
                "f1": round(2 * right / marks, 4) if marks else 0.0,
            }
        )
    return curve


def _truth(rows: Sequence[mistakes.Row], topic: str) -> NDArray[np.bool_]:
    return np.array([topic in row.truth for row in rows], dtype=bool)


def _topic_reliability(
    assessor: Assessor, rows: Sequence[mistakes.Row], probabilities: NDArray[Any]
) -> dict[str, Any]:
    """Of each topic of the model: its probability against how often it is true, over all texts."""
    return {
        topic: {
            "calibration_error": round(calibration_error(probabilities[:, i], _truth(rows, topic)), 4)
            if rows
            else None,
            "bins": reliability(probabilities[:, i], _truth(rows, topic)),
        }
        for i, topic in enumerate(assessor.topics)
    }


def _thresholds(
    assessor: Assessor, rows: Sequence[mistakes.Row], probabilities: NDArray[Any]
) -> dict[str, Any]:
    """Of each topic of the model: the threshold in force and the curve."""
    return {
        topic: {
            "in_force": round(float(assessor.thresholds[i]), 4),
            "curve": threshold_curve(probabilities[:, i], _truth(rows, topic)),
        }
        for i, topic in enumerate(assessor.topics)
    }
