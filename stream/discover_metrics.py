"""Metrics of ``stancewatch discover``: K slots and `other`; words stand on one info series a slot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from classifiers.discovery.topic import EventKind, Signal, Topic
from stream.emerging import listed

__all__ = ["DiscoverMetrics", "Slots"]

OTHER = "other"
# From a few hundred documents to the largest window.
REFIT_BUCKETS = (1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000)


class Slots(Collector):
    """The topics that matter most, each in a slot that it keeps while it is among them.

    Parameters
    ----------
    count : int
        Slots besides `other`.
    """

    def __init__(self, count: int) -> None:
        self.held: list[Topic | None] = [None] * count
        self.rest: list[Topic] = []
        self.signals = dict.fromkeys(get_args(Signal), 0)

    def show(self, topics: Sequence[Topic]) -> None:
        """Take the topics as of now."""
        ordered = listed(topics)
        chosen = {topic.id: topic for topic in ordered[: len(self.held)]}
        self.held = [chosen.pop(old.id, None) if old else None for old in self.held]
        waiting = iter(chosen.values())
        self.held = [topic or next(waiting, None) for topic in self.held]
        self.rest = ordered[len(self.held) :]
        self.signals = dict.fromkeys(self.signals, 0)
        for topic in ordered:
            self.signals[topic.signal] += 1

    def collect(self) -> Iterator[Metric]:
        """As of the last refit."""
        documents = GaugeMetricFamily(
            "stancewatch_emerging_documents", "Distinct documents of an emerging topic", labels=["slot"]
        )
        growth = GaugeMetricFamily(
            "stancewatch_emerging_growth_ratio",
            "Share of the topic in the recent documents over that before; 0 for an empty slot",
            labels=["slot"],
        )
        info = GaugeMetricFamily(
            "stancewatch_emerging_info",
            "Which topic a slot holds",
            labels=["slot", "id", "label", "words", "signal"],
        )
        for number, topic in enumerate(self.held, start=1):
            documents.add_metric([str(number)], topic.documents if topic else 0)
            growth.add_metric([str(number)], topic.growth if topic else 0)
            if topic:
                info.add_metric([str(number), topic.id, topic.label, " ".join(topic.words), topic.signal], 1)
        documents.add_metric([OTHER], sum(topic.documents for topic in self.rest))
        signals = GaugeMetricFamily(
            "stancewatch_emerging_signals", "Living emerging topics by signal", labels=["signal"]
        )
        for name, count in self.signals.items():
            signals.add_metric([name], count)
        yield from (documents, growth, info, signals)


class DiscoverMetrics:
    """Handles of what the process tells of itself.

    Parameters
    ----------
    registry : CollectorRegistry
    slots : int
    """

    def __init__(self, registry: CollectorRegistry, slots: int) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.slots = Slots(slots)
        registry.register(self.slots)
        self.refit_seconds = Histogram(
            "stancewatch_emerging_refit_seconds",
            "Time of one look for topics, in a process of its own",
            buckets=REFIT_BUCKETS,
            registry=registry,
        )
        self.failures = Counter(
            "stancewatch_emerging_refit_failures", "Looks for topics that failed", registry=registry
        )
        self.events = Counter(
            "stancewatch_emerging_events", "What happened to emerging topics", ["kind"], registry=registry
        )
        for kind in get_args(EventKind):
            if kind != "update":
                self.events.labels(kind)
        self.window = Gauge(
            "stancewatch_emerging_window_documents", "Documents in the window", registry=registry
        )
        self.outliers = Gauge(
            "stancewatch_emerging_outliers_ratio",
            "Share of the distinct documents that belong to no topic",
            registry=registry,
        )
        self.last_refit = Gauge(
            "stancewatch_emerging_last_refit_timestamp_seconds",
            "When the last look for topics ended; 0 before the first",
            registry=registry,
        )
        self.lag = Gauge(
            "stancewatch_emerging_lag_records", "Records that are yet to be read", registry=registry
        )
        Info("stancewatch_build", "Version of this software", registry=registry).info(
            {"version": version("stancewatch")}
        )
