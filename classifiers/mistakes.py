"""Where a classifier errs, by kind: tables with the ids of rows, never their texts.

Texts may be their publishers'; an id leads everyone who has them to the row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifiers.decisions import UNCLEAR
from classifiers.intervals import micro_f1
from classifiers.training import STANCES

__all__ = [
    "FOUND",
    "Row",
    "by_combination",
    "by_length",
    "by_source",
    "missed_topics",
    "stance_confusion",
    "stance_counts",
    "stance_mistakes",
    "topic_confusion",
    "topic_counts",
    "wrong_topics",
]

Table = list[dict[str, Any]]

MISSED = "missed"
FOUND = (*STANCES, UNCLEAR, MISSED)  # columns of a stance confusion matrix
OFF_TOPIC = "off topic"
SOURCE_ROWS_MIN = 10
LENGTHS = (25, 50, 100, 200)  # words
SIDES = frozenset({"favor", "against"})


@dataclass(frozen=True, slots=True)
class Row:
    """What is true of a text and what was found: stance by topic. Not the text itself."""

    id: str
    truth: Mapping[str, str]
    found: Mapping[str, str]
    source: str = ""
    words: int = 0

    @property
    def missed(self) -> list[str]:
        """True topics that were not found."""
        return sorted(set(self.truth) - set(self.found))

    @property
    def wrongly_found(self) -> list[str]:
        """Found topics that are not true."""
        return sorted(set(self.found) - set(self.truth))

    @property
    def combination(self) -> str:
        """True topics as one word."""
        return " + ".join(sorted(self.truth)) or OFF_TOPIC


def topic_counts(row: Row) -> tuple[int, int, int]:
    """Topics rightly found, wrongly found and missed: the columns of :func:`micro_f1`."""
    return len(set(row.truth) & set(row.found)), len(row.wrongly_found), len(row.missed)


def stance_counts(truth: Mapping[str, str], found: Mapping[str, str]) -> NDArray[np.int64]:
    """Confusion matrix of a text: true stances by :data:`FOUND`, a topic that is not found as ``missed``."""
    counts = np.zeros((len(STANCES), len(FOUND)), dtype=np.int64)
    for topic, stance in truth.items():
        counts[STANCES.index(stance), FOUND.index(found.get(topic, MISSED))] += 1
    return counts


def topic_confusion(rows: Sequence[Row], names: Iterable[str]) -> dict[str, dict[str, int]]:
    """Of each topic: texts where it was rightly found, missed, wrongly found, and rightly left out."""
    return {
        name: {
            "found": sum(name in row.truth and name in row.found for row in rows),
            "missed": sum(name in row.truth and name not in row.found for row in rows),
            "wrongly_found": sum(name in row.found and name not in row.truth for row in rows),
            "left_out": sum(name not in row.found and name not in row.truth for row in rows),
        }
        for name in names
    }


def stance_confusion(rows: Sequence[Row], topic: str | None = None) -> list[list[int]]:
    """Confusion matrix of stances, of one topic or all: STANCES (true) by FOUND."""
    total = np.zeros((len(STANCES), len(FOUND)), dtype=np.int64)
    for row in rows:
        truth = {name: stance for name, stance in row.truth.items() if topic in {None, name}}
        total += stance_counts(truth, row.found)
    return [[int(count) for count in line] for line in total]


def missed_topics(rows: Sequence[Row]) -> Table:
    """Missed topics by topic, with the number of texts that have it."""
    names = sorted({name for row in rows for name in row.truth})
    table = []
    for name in names:
        having = [row for row in rows if name in row.truth]
        ids = [row.id for row in having if name not in row.found]
        table.append({"topic": name, "support": len(having), "count": len(ids), "ids": ids})
    return table


def wrong_topics(rows: Sequence[Row]) -> Table:
    """Wrongly found topics, by topic and by what the text is truly about."""
    ids = defaultdict(list)
    for row in rows:
        for name in row.wrongly_found:
            ids[name, row.combination].append(row.id)
    return [
        {"topic": topic, "truth": truth, "count": len(found), "ids": found}
        for (topic, truth), found in sorted(
            ids.items(), key=lambda item: (item[0][0], -len(item[1]), item[0])
        )
    ]


def by_combination(rows: Sequence[Row]) -> Table:
    """By the true combination of topics: texts all right, with a missed and with a wrongly found topic."""
    table = []
    for name, group in _grouped(rows, lambda row: row.combination):
        missed = [row.id for row in group if row.missed]
        table.append(
            {
                "truth": name,
                "rows": len(group),
                "right": sum(set(row.truth) == set(row.found) for row in group),
                "missed": len(missed),
                "wrongly_found": sum(bool(row.wrongly_found) for row in group),
                "ids_missed": missed,
            }
        )
    return sorted(table, key=lambda line: (-line["rows"], line["truth"]))


def stance_mistakes(rows: Sequence[Row]) -> Table:
    """Wrong stances of rightly found topics, by kind: flips, the two ways with neutral, doubt.

    ``flip`` is favor for against or the reverse; ``side for neutral`` a favor or against where neutral is
    true; ``neutral for side`` the reverse; ``unclear`` a withheld label. ``support`` counts the found topics
    of that true stance.
    """
    ids = defaultdict(list)
    support: dict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        for topic, truth in row.truth.items():
            if topic in row.found:
                support[topic, truth] += 1
                if row.found[topic] != truth:
                    ids[_kind(truth, row.found[topic]), truth, row.found[topic], topic].append(row.id)
    kinds = ("flip", "side for neutral", "neutral for side", "unclear")
    return [
        {
            "kind": kind,
            "truth": truth,
            "found": found,
            "topic": topic,
            "support": support[topic, truth],
            "count": len(wrong),
            "ids": wrong,
        }
        for (kind, truth, found, topic), wrong in sorted(
            ids.items(), key=lambda item: (kinds.index(item[0][0]), item[0][1:])
        )
    ]


def _kind(truth: str, found: str) -> str:
    if found == UNCLEAR:
        return "unclear"
    if {truth, found} == SIDES:
        return "flip"
    return "side for neutral" if truth == "neutral" else "neutral for side"


def by_source(rows: Sequence[Row]) -> Table:
    """Errors by source, the most frequent first; those with fewer than ten texts together, at the end."""
    real = [row for row in rows if row.source]
    groups = dict(_grouped(real, lambda row: row.source))
    few = sorted(name for name, group in groups.items() if len(group) < SOURCE_ROWS_MIN)
    table = [_summary(name, group) for name, group in groups.items() if name not in few]
    table.sort(key=lambda line: (-line["rows"], line["group"]))
    if few:
        table.append(_summary(f"{len(few)} others", [row for name in few for row in groups[name]]))
    return table


def by_length(rows: Sequence[Row]) -> Table:
    """Errors by the number of words."""
    edges = (-1, *LENGTHS, 10**9)
    table = []
    for low, high in pairwise(edges):
        group = [row for row in rows if low < row.words <= high]
        name = f"up to {high}" if low < 0 else f"over {low}" if high > LENGTHS[-1] else f"{low + 1} to {high}"
        if group:
            table.append(_summary(name, group))
    return table


def _summary(name: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Errors of a group; the accuracy of stance is of rightly found topics, None without any."""
    counts = np.array([topic_counts(row) for row in rows]).sum(axis=0)
    pairs = [
        (row.truth[topic], row.found[topic]) for row in rows for topic in row.truth if topic in row.found
    ]
    right = sum(truth == found for truth, found in pairs)
    return {
        "group": name,
        "rows": len(rows),
        "topics": int(counts[0] + counts[2]),
        "missed": int(counts[2]),
        "wrongly_found": int(counts[1]),
        "topics_micro_f1": round(float(micro_f1(counts)), 4) if counts.any() else None,
        "stances": len(pairs),
        "wrong_stances": len(pairs) - right,
        "flips": sum({truth, found} == SIDES for truth, found in pairs),
        "stance_accuracy": round(right / len(pairs), 4) if pairs else None,
    }


def _grouped(rows: Sequence[Row], key: Callable[[Row], str]) -> list[tuple[str, list[Row]]]:
    groups = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return sorted(groups.items())
