"""From labelled texts to scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score, precision_recall_fscore_support

from classifiers.assessor import Assessor
from classifiers.baselines import most_frequent, rules
from classifiers.calibration import calibration_error, risk_coverage
from classifiers.decisions import TopicDecision
from classifiers.training import STANCES, Example

__all__ = ["evaluate", "lines"]


def evaluate(
    assessor: Assessor,
    examples: Sequence[Example],
    decided: Sequence[Sequence[TopicDecision]] | None = None,
) -> dict[str, Any]:
    """Score an assessor.

    Stance is scored where the topic was rightly found, and once more with a missed topic as a miss.

    Parameters
    ----------
    assessor : Assessor
    examples : sequence of Example
    decided : sequence of sequences of TopicDecision, optional
        What the assessor says about the examples, when it was asked already.

    Returns
    -------
    dict
        ``topics`` (per topic precision, recall, f1, support), ``topics_micro_f1``, ``stance`` (per class
        f1 and support), ``stance_macro_f1``, ``stance_macro_f1_with_misses``,
        ``stance_calibration_error`` (None without stances), ``stance_risk_coverage``, ``baselines``,
        ``rows``. All scores 0 to 1. An ``unclear`` stance counts as wrong.
    """
    if decided is None:
        decided = assessor.assess([("", example.text) for example in examples])
    names = sorted({*assessor.topics, *(topic for example in examples for topic in example.topics)})
    gold = np.array([[name in example.topics for name in names] for example in examples])
    found = np.array([[name in {d.topic for d in row} for name in names] for row in decided])
    scores = [
        precision_recall_fscore_support(gold[:, i], found[:, i], average="binary", zero_division=0)
        for i in range(len(names))
    ]
    pairs = []
    misses = []
    for example, row in zip(examples, decided, strict=True):
        by_topic = {decision.topic: decision for decision in row}
        for topic in example.topics:
            if topic in by_topic:
                decision = by_topic[topic]
                pairs.append((example.stance[topic], decision.stance, decision.stance_probability))
            else:
                misses.append(example.stance[topic])
    truth = [pair[0] for pair in pairs]
    guess = [pair[1] for pair in pairs]
    labels = list(STANCES)
    per_class = (
        f1_score(truth, guess, labels=labels, average=None, zero_division=0)
        if truth
        else np.zeros(len(labels))
    )
    missed = guess + ["missed"] * len(misses)
    with_misses = _score(f1_score, truth + misses, missed, labels=labels, average="macro")
    confidence = np.array([pair[2] for pair in pairs])
    correct = np.array([pair[0] == pair[1] for pair in pairs])
    return {
        "rows": len(examples),
        "model": assessor.name,
        "topics": {
            name: {
                "precision": round(float(scores[i][0]), 4),
                "recall": round(float(scores[i][1]), 4),
                "f1": round(float(scores[i][2]), 4),
                "support": int(gold[:, i].sum()),
            }
            for i, name in enumerate(names)
        },
        "topics_micro_f1": round(float(f1_score(gold.ravel(), found.ravel(), zero_division=0)), 4),
        "stance": {
            label: {"f1": round(float(per_class[i]), 4), "support": truth.count(label)}
            for i, label in enumerate(labels)
        },
        "stance_macro_f1": round(float(np.mean(per_class)), 4),
        "stance_macro_f1_with_misses": with_misses,
        "stance_calibration_error": round(calibration_error(confidence, correct), 4) if pairs else None,
        "stance_risk_coverage": risk_coverage(confidence, correct) if pairs else [],
        "baselines": _baselines(examples, names, gold),
    }


def _baselines(examples: Sequence[Example], names: Sequence[str], gold: NDArray[np.bool_]) -> dict[str, Any]:
    """What no training gives on the same rows.

    The taxonomy's strong terms for topics; for stance, given the topic, the most frequent class, and the sum
    of the polarities of lexicon and frames.
    """
    ruled = rules(examples, names)
    frequent = most_frequent(examples)
    by_terms = np.array([[name in found for name in names] for found in ruled.found])
    truth = [e.stance[topic] for e in examples for topic in e.topics]
    by_rule = [given[topic] for e, given in zip(examples, ruled.given, strict=True) for topic in e.topics]
    most = [given[topic] for e, given in zip(examples, frequent.given, strict=True) for topic in e.topics]
    return {
        "topics_micro_f1_strong_terms": _score(f1_score, gold.ravel(), by_terms.ravel()),
        "stance_macro_f1_most_frequent": _score(f1_score, truth, most, average="macro", labels=list(STANCES)),
        "stance_macro_f1_rule": _score(f1_score, truth, by_rule, average="macro", labels=list(STANCES)),
    }


def _score(score: Any, truth: Any, guess: Any, **options: Any) -> float:
    """A score rounded to four places; 0 without rows."""
    return round(float(score(truth, guess, zero_division=0, **options)), 4) if len(truth) else 0.0


def lines(report: dict[str, Any]) -> Iterator[str]:
    """The report for people."""
    yield f"{report['rows']} texts, model {report['model']}"
    yield f"{'topic':18}{'precision':>10}{'recall':>8}{'f1':>8}{'support':>9}"
    for name, row in report["topics"].items():
        yield f"{name:18}{row['precision']:10.3f}{row['recall']:8.3f}{row['f1']:8.3f}{row['support']:9}"
    yield f"topics, micro F1: {report['topics_micro_f1']:.3f}"
    yield f"{'stance':18}{'f1':>8}{'support':>9}"
    for label, row in report["stance"].items():
        yield f"{label:18}{row['f1']:8.3f}{row['support']:9}"
    yield (
        f"stance, macro F1 where the topic was found: {report['stance_macro_f1']:.3f};"
        f" with missed topics as misses: {report['stance_macro_f1_with_misses']:.3f}"
    )
    if report["stance_calibration_error"] is not None:
        yield f"stance, expected calibration error: {report['stance_calibration_error']:.3f}"
    yield "without training, on the same rows:"
    yield f"  topics by strong terms, micro F1: {report['baselines']['topics_micro_f1_strong_terms']:.3f}"
    yield (
        f"  stance given the topic, macro F1: most frequent"
        f" {report['baselines']['stance_macro_f1_most_frequent']:.3f},"
        f" lexicon and frames {report['baselines']['stance_macro_f1_rule']:.3f}"
    )
