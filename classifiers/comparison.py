"""The model beside simpler methods on the same rows, with intervals from the same resamples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifiers.baselines import System
from classifiers.intervals import interval, macro_f1, micro_f1, resampled
from classifiers.mistakes import FOUND, Row, stance_counts, topic_counts
from classifiers.training import STANCES

__all__ = ["compare"]

Scores = dict[str, NDArray[np.float64]]
SHAPE = (len(STANCES), len(FOUND))


def compare(rows: Sequence[Row], systems: Sequence[System]) -> list[dict[str, Any]]:
    """Score systems on the same rows.

    Parameters
    ----------
    rows : sequence of Row
        As the model judged them: what it found decides which stances are scored.
    systems : sequence of System
        The model first.

    Returns
    -------
    list of dict
        Of each system its ``name`` and three figures: ``topics_micro_f1``; ``stance_macro_f1``, where the
        model (not the system) rightly found the topic, so that all are asked the same; and
        ``stance_macro_f1_with_misses``, where the system must find the topic itself. Each with ``value``,
        ``interval`` (95 %, bootstrap over texts), and but for the model ``model_minus``, the model's lead
        with its own interval: one that holds 0 is no proven lead.
    """
    if not rows:
        return []
    blocks = [_counts(rows, system) for system in systems]
    counts = np.hstack(blocks)
    exact = np.split(counts.sum(axis=0, keepdims=True), len(systems), axis=1)
    drawn = np.split(resampled(counts), len(systems), axis=1)
    values, samples = [_scores(sums) for sums in exact], [_scores(sums) for sums in drawn]
    table = []
    for i, system in enumerate(systems):
        line: dict[str, Any] = {"name": system.name}
        for figure in values[i]:
            line[figure] = _with_interval(values[i][figure], samples[i][figure])
            if i:
                line[figure]["model_minus"] = _with_interval(
                    values[0][figure] - values[i][figure], samples[0][figure] - samples[i][figure]
                )
        table.append(line)
    return table


def _with_interval(value: NDArray[np.float64], samples: NDArray[np.float64]) -> dict[str, Any]:
    return {"value": round(float(value[0]), 4), "interval": interval(samples)}


def _counts(rows: Sequence[Row], system: System) -> NDArray[np.int64]:
    """Counts of each text: of topics, of stance where the model found the topic, of stance by itself."""
    lines = []
    for row, found, given in zip(rows, system.found, system.given, strict=True):
        judged = {topic: stance for topic, stance in row.truth.items() if topic in row.found}
        own = Row(row.id, row.truth, found)
        lines.append(
            np.concatenate(
                [
                    topic_counts(own),
                    stance_counts(judged, given).ravel(),
                    stance_counts(row.truth, found).ravel(),
                ]
            )
        )
    return np.array(lines, dtype=np.int64)


def _scores(sums: NDArray[np.float64]) -> Scores:
    """Figures of each line of sums, as :func:`_counts` orders them."""
    cut = 3 + SHAPE[0] * SHAPE[1]
    return {
        "topics_micro_f1": micro_f1(sums[:, :3]),
        "stance_macro_f1": macro_f1(sums[:, 3:cut].reshape(-1, *SHAPE)),
        "stance_macro_f1_with_misses": macro_f1(sums[:, cut:].reshape(-1, *SHAPE)),
    }
