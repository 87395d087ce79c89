"""Real texts for ``benchmarks.discovery``, and what is measured of topics."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from classifiers.discovery.model import TOKEN
from classifiers.discovery.window import Document, leaders

DATED = "technews-2023"
UNDATED = ("ag-news", "newsmtsc")
WINDOW_DAYS = 14


def dated(data: Path) -> list[Document]:
    """Real headlines with their dates, by time; empty where the folder is not there."""
    found = [
        Document.of(row["id"], day(row["date"]), [row["text"]], row.get("source") or "")
        for row in _rows(data / DATED)
        if row.get("date") and row.get("text")
    ]
    return sorted(found, key=lambda document: (document.time, document.id))


def undated(data: Path) -> list[Document]:
    """More news, only to have more documents: they get dates before all others."""
    rows = [row for name in UNDATED for row in _rows(data / name)]
    return [Document.of(row["id"], float(at), [row["text"]]) for at, row in enumerate(rows)]


def day(date: str) -> float:
    """POSIX seconds of an ISO date."""
    return datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp()


def distinct(documents: Sequence[Document]) -> list[Document]:
    """Without the copies."""
    first = leaders([document.text for document in documents])
    return [document for at, document in enumerate(documents) if first[at] == at]


def _rows(folder: Path) -> list[dict[str, Any]]:
    rows = []
    for file in sorted(folder.glob("*.jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            rows += [json.loads(line) for line in lines]
    return rows


def coherence(words: Sequence[Sequence[str]], texts: Sequence[str]) -> float:
    """C_NPMI: mean normalised pointwise mutual information of the word pairs of each topic.

    By document, not by sliding window: headlines are hardly longer than the usual window of ten words.
    """
    from sklearn.feature_extraction.text import CountVectorizer  # noqa: PLC0415

    known = sorted({word for topic in words for word in topic})
    if not known:
        return float("nan")
    place = {word: at for at, word in enumerate(known)}
    counter = CountVectorizer(vocabulary=known, binary=True, token_pattern=TOKEN)
    has = counter.transform(texts).astype(np.float64)
    both = np.asarray((has.T @ has).todense()) / len(texts)
    single = both.diagonal()
    scores = []
    for topic in words:
        at = [place[word] for word in topic]
        pairs = [(i, j) for n, i in enumerate(at) for j in at[:n]]
        scores += [
            -1.0
            if both[i, j] == 0
            else float(np.log(both[i, j] / (single[i] * single[j])) / -np.log(both[i, j]))
            for i, j in pairs
        ]
    return float(np.mean(scores)) if scores else 0.0


def diversity(words: Sequence[Sequence[str]]) -> float:
    """Share of different words among the ten of each topic."""
    every = [word for topic in words for word in topic]
    return len(set(every)) / max(1, len(every))


def agreement(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, float]:
    """Of two windows' topics by document (empty for none), for the documents that are in both.

    Returns
    -------
    dict
        ``kept``: of those with a topic before, the share with the same id after. ``ami``: adjusted mutual
        information of all. ``covered``: share with a topic after.
    """
    from sklearn.metrics import adjusted_mutual_info_score  # noqa: PLC0415

    shared = [id_ for id_ in before if id_ in after]
    assigned = [id_ for id_ in shared if before[id_]]
    pairs = [(before[id_], after[id_]) for id_ in shared]
    return {
        "kept": float(np.mean([before[id_] == after[id_] for id_ in assigned])) if assigned else 0.0,
        "ami": float(adjusted_mutual_info_score([a for a, _ in pairs], [b for _, b in pairs])),
        "covered": float(np.mean([bool(b) for _, b in pairs])),
    }
