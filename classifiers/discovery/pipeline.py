"""One refit from a window of documents to topics with identity and signal; the registry goes in and out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifiers.discovery.model import ModelOptions, TopicModel, embed
from classifiers.discovery.registry import Registry
from classifiers.discovery.signals import SignalOptions, classify
from classifiers.discovery.topic import Cluster, Event, Topic
from classifiers.discovery.window import Document, leaders

__all__ = ["Refit", "refit"]

Progress = Callable[[str, int, int], None]
STEPS = ("collapsing copies", "embedding", "fitting BERTopic", "matching", "describing")


@dataclass(slots=True)
class Refit:
    """What a refit gave.

    Attributes
    ----------
    topics : list of Topic
        All that live, and those that ended at this refit.
    forgotten : list of str
        Ids of topics that ended long ago.
    events : list of Event
    assigned : dict of str to str
        Topic id by document id, copies included; without those that have none.
    documents, copies, outliers : int
        Distinct documents, copies of them, and distinct ones without a topic.
    seconds : float
    model : TopicModel or None
        For charts.
    """

    topics: list[Topic]
    forgotten: list[str]
    events: list[Event]
    assigned: dict[str, str]
    documents: int
    copies: int
    outliers: int
    seconds: float
    model: Any = None


def refit(
    registry: Registry,
    documents: Sequence[Document],
    end: float,
    *,
    options: ModelOptions | None = None,
    signals: SignalOptions | None = None,
    progress: Progress = lambda _step, _done, _total: None,
) -> Refit:
    """Look for topics in a window and bring the registry up to date.

    Parameters
    ----------
    registry : Registry
        Changed in place.
    documents : sequence of Document
        The window, by time.
    end : float
        Now, in event time.
    options : ModelOptions
    signals : SignalOptions
    progress : callable
        Told of each step.
    """
    begun = time.perf_counter()

    def step(number: int) -> None:
        progress(STEPS[number], number, len(STEPS))

    step(0)
    leader = leaders([document.text for document in documents])
    distinct = [document for at, document in enumerate(documents) if leader[at] == at]
    step(1)
    texts = [document.text for document in distinct]
    vectors = embed(texts) if texts else np.zeros((0, 256), dtype=np.float32)
    step(2)
    model = TopicModel(options).fit(texts, vectors)
    step(3)
    clusters = _clusters(model)
    ids = [document.id for document in distinct]
    assigned, events = registry.assign(ids, vectors, clusters, end)
    step(4)
    names = sorted(set(assigned) - {""})
    rows = {name: row for row, name in enumerate(names)}
    described = model.describe([rows.get(name, -1) for name in assigned])
    pairs = [(document.id, document.text) for document in distinct]
    by_name = {names[row]: found for row, found in described.items()}
    events += registry.describe(pairs, vectors, assigned, by_name, end)
    living = registry.living
    classify(living, distinct, [registry.core.get(id_, "") for id_ in ids], end, signals)
    whole = _with_copies(documents, leader, dict(zip(ids, assigned, strict=True)))
    held = Counter(whole.values())
    for topic in living:
        topic.copies = held[topic.id] - topic.documents
    for topic in registry.topics.values():
        topic.event = "update"
    for event in events:
        registry.topics[event.topic].event = event.kind
    touched = {event.topic for event in events}
    return Refit(
        topics=[t for t in registry.topics.values() if t.state == "living" or t.id in touched],
        forgotten=registry.forget(end),
        events=events,
        assigned=whole,
        documents=len(distinct),
        copies=len(documents) - len(distinct),
        outliers=assigned.count(""),
        seconds=time.perf_counter() - begun,
        model=model,
    )


def _clusters(model: TopicModel) -> list[Cluster]:
    described = model.describe(model.labels_)
    return [
        Cluster(np.flatnonzero(model.labels_ == number).tolist(), found.weights, found.words)
        for number, found in described.items()
    ]


def _with_copies(
    documents: Sequence[Document], leader: NDArray[np.intp], assigned: dict[str, str]
) -> dict[str, str]:
    found = {document.id: assigned[documents[leader[at]].id] for at, document in enumerate(documents)}
    return {id_: name for id_, name in found.items() if name}
