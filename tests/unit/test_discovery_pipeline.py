"""One look from documents to signals, with the clusters given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from classifiers.discovery import pipeline
from classifiers.discovery.model import Described, TopicModel, Vectors
from classifiers.discovery.pipeline import refit
from classifiers.discovery.registry import Registry
from classifiers.discovery.window import Document

DAY = 86400.0
END = 20 * DAY
WORDS = [f"word{letter}" for letter in "abcdefghij"]
PLACES = {"old": (1.0, 0.0, 0.0), "new": (0.7, 0.7, 0.0), "other": (0.0, 0.0, 1.0)}


def vectors_of(texts: Sequence[str]) -> Vectors:
    """New ones lie halfway between the old ones and nowhere."""
    return np.asarray([PLACES[text.split()[0]] for text in texts], dtype=np.float32)


class OneCluster(TopicModel):
    """Clusters the documents of one kind; all topics have the same words."""

    kind = "old"

    def fit(self, texts: Sequence[str], vectors: Vectors) -> TopicModel:
        """Label 0 for the kind, -1 for the others."""
        self.texts_, self.vectors_ = list(texts), vectors
        self.labels_ = np.asarray([0 if text.startswith(self.kind) else -1 for text in texts])
        return self

    def describe(self, labels: Sequence[int] | NDArray[np.intp]) -> dict[int, Described]:
        """Words that say nothing."""
        numbers = {int(label) for label in labels} - {-1}
        return {number: Described(dict.fromkeys(WORDS, 10**-0.5), WORDS, [0]) for number in numbers}


def written(kind: str, days: Sequence[float], number: int) -> list[Document]:
    """So many documents on each of some days before END, no two alike."""
    return [
        Document(f"{kind}-{day}-{n}", END - day * DAY - (n + 1) * 60, f"{kind} {kind}-{day}-{n} x", f"p{n}")
        for day in days
        for n in range(number)
    ]


def test_a_theme_under_an_old_id_grows_from_its_own_past(monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents that the topic had before, and that are no longer in its cluster, are not its baseline."""
    monkeypatch.setattr(pipeline, "TopicModel", OneCluster)
    monkeypatch.setattr(pipeline, "embed", vectors_of)
    stream = [*written("other", range(10), 20), *written("old", range(2, 10), 1), *written("new", [0], 7)]
    stream.sort(key=lambda document: document.time)
    registry = Registry()
    refit(registry, [document for document in stream if document.time < END - DAY], END - DAY)
    (topic,) = registry.living
    assert (topic.documents, topic.signal) == (8, "noise")
    monkeypatch.setattr(OneCluster, "kind", "new")
    refit(registry, stream, END)
    assert registry.living == [topic]
    assert (topic.documents, topic.recent, topic.signal) == (15, 7, "strong")
    assert sum(own for own, _ in topic.history.values()) == 0
