"""All metrics, declared once (DESIGN section 5).

The assessment counts are not counters of this process: a collector reads them from the state of the
partitions that this worker owns, so they survive restarts and move with their partition.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from classifiers.decisions import STANCES, Expected
from classifiers.language import SUPPORTED
from stream.errors import Reason, Stage
from stream.tables import TOTAL, Counts, Outcome

__all__ = ["OTHER", "TABLES", "WINDOW_HOURS", "Metrics", "StateCollector", "StateReader"]

WINDOW_HOURS = {"1h": 1, "24h": 24, "7d": 168}
OTHER = "other"
TOPICS_MAX = 200
TABLES = ("counts", "identities")

# From live minutes to replayed years: news ages between a feed's push and a back-fill.
AGE_BUCKETS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 86400, 7 * 86400, 30 * 86400, 365 * 86400)
# A batch of up to 256 articles takes milliseconds (a few headlines) to a second (long articles).
CLASSIFY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
# Of 93 to 256 articles of 500 words, on Kafka and on the embedded broker, on a quiet machine and on one with
# ten times the work it can do: decode 0.8 to 50 ms, judge 1 to 50 ms, count 20 to 250 ms, emit and confirm
# 0.2 to 2.5 s, classify 0.4 to 10 s.
STAGE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BATCH_SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
# Measured: 1 s on the embedded broker, 4 s to join on Kafka; after a crash the session timeout comes on top,
# after the loss of the data folder a recovery of minutes.
REBALANCE_BUCKETS = (0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 900)
# 0.4 is where `unclear` ends, so that its bucket is the share of unclear stances.
PROBABILITY_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
STAGES = ("decode", "judge", "classify", "emit", "count", "confirm")

StateReader = Callable[[], Iterable[tuple[int, str, Counts]]]
"""Gives ``(partition, bucket, counts)`` of every owned partition; bucket is an hour or ``total``."""


@dataclass(frozen=True)
class Metrics:
    """Handles of the metrics that this process feeds itself."""

    registry: CollectorRegistry
    events: Counter
    dead_letters: Counter
    redelivered: Counter
    swept: Counter
    late_writes: Counter
    languages: Counter
    event_age: Histogram
    classify_seconds: Histogram
    batch_seconds: Histogram
    stage_seconds: Histogram
    batch_events: Histogram
    stance_probability: Histogram
    lag: Gauge
    last_event: Gauge
    ready: Gauge
    commit_age: Gauge
    rebalances: Counter
    rebalance_seconds: Histogram
    recovery_seconds: Gauge
    state_bytes: Gauge
    source_last_event: Gauge
    other_sources: Gauge
    topics: frozenset[str]
    """Topics with a slot of their own in ``stance_probability``."""

    @classmethod
    def create(
        cls,
        registry: CollectorRegistry,
        *,
        model: Mapping[str, str],
        topics: Sequence[str] = (),
        expected: Expected | None = None,
    ) -> Metrics:
        """Declare everything in `registry`; closed label sets start at zero.

        Parameters
        ----------
        registry : CollectorRegistry
            Private to the process or to a test.
        model : mapping
            Labels of ``stancewatch_model_info``: name and content hash.
        topics : sequence of str
            Taxonomy; the first 200 have series of their own.
        expected : Expected, optional
            What the training of the model measured; NaN is shown without it.
        """
        disable_created_metrics()  # type: ignore[no-untyped-call]
        metrics = cls(
            registry=registry,
            topics=frozenset(topics[:TOPICS_MAX]),
            events=Counter(
                "stancewatch_events",
                "Records handled by this process, by outcome (redelivered ones excluded)",
                ["outcome"],
                registry=registry,
            ),
            dead_letters=Counter(
                "stancewatch_dead_letters",
                "Records sent to the dead-letter topic by this process",
                ["stage", "reason"],
                registry=registry,
            ),
            redelivered=Counter(
                "stancewatch_redelivered_skipped",
                "Records that Kafka delivered again and that were already counted",
                registry=registry,
            ),
            swept=Counter(
                "stancewatch_swept",
                "Entries of the state deleted by this process because they had expired",
                ["table"],
                registry=registry,
            ),
            late_writes=Counter(
                "stancewatch_late_state_writes",
                "Keys that a former owner of a partition wrote late, put right by this process",
                registry=registry,
            ),
            languages=Counter(
                "stancewatch_languages",
                "Accepted articles by language: those that the classifier knows, and other",
                ["language"],
                registry=registry,
            ),
            event_age=Histogram(
                "stancewatch_event_age_seconds",
                "Time from published_at to the decision",
                buckets=AGE_BUCKETS,
                registry=registry,
            ),
            classify_seconds=Histogram(
                "stancewatch_classify_seconds",
                "Time to classify one batch",
                buckets=CLASSIFY_BUCKETS,
                registry=registry,
            ),
            batch_seconds=Histogram(
                "stancewatch_batch_seconds",
                "Time from receiving a batch to acknowledging it",
                buckets=BATCH_SECONDS_BUCKETS,
                registry=registry,
            ),
            stage_seconds=Histogram(
                "stancewatch_stage_seconds",
                "Time that a batch spends in each stage",
                ["stage"],
                buckets=STAGE_BUCKETS,
                registry=registry,
            ),
            batch_events=Histogram(
                "stancewatch_batch_events",
                "Records handled together",
                buckets=BATCH_BUCKETS,
                registry=registry,
            ),
            stance_probability=Histogram(
                "stancewatch_stance_probability",
                "Probability of the most probable stance, below 0.4 the stance is unclear; without topics"
                " that have no model of stance",
                ["topic"],
                buckets=PROBABILITY_BUCKETS,
                registry=registry,
            ),
            lag=Gauge(
                "stancewatch_consumer_lag_records",
                "Records behind the end of the log",
                ["kafka_topic", "partition"],
                registry=registry,
            ),
            last_event=Gauge(
                "stancewatch_last_event_timestamp_seconds",
                "Wall clock when the last record was handled",
                registry=registry,
            ),
            ready=Gauge(
                "stancewatch_ready",
                "1 while the worker has partitions and their state, and commits: what /readyz answers",
                registry=registry,
            ),
            commit_age=Gauge(
                "stancewatch_commit_age_seconds",
                "How long acknowledged records have been waiting for their offsets to be committed",
                registry=registry,
            ),
            rebalances=Counter(
                "stancewatch_rebalances",
                "Times that partitions were taken from this worker to be assigned anew",
                registry=registry,
            ),
            rebalance_seconds=Histogram(
                "stancewatch_rebalance_seconds",
                "Time from the revocation of partitions to working again, recovery included",
                buckets=REBALANCE_BUCKETS,
                registry=registry,
            ),
            recovery_seconds=Gauge(
                "stancewatch_recovery_seconds",
                "Time that the running recovery of the state has taken so far, or that the last one took",
                registry=registry,
            ),
            state_bytes=Gauge(
                "stancewatch_state_bytes",
                "Size of the RocksDB files of the owned partitions; 0 with the state in memory",
                ["table"],
                registry=registry,
            ),
            source_last_event=Gauge(
                "stancewatch_source_last_event_timestamp_seconds",
                "Wall clock when the last event of a source was accepted; the first 100 sources, and other",
                ["source"],
                registry=registry,
            ),
            other_sources=Gauge(
                "stancewatch_other_sources",
                "Sources beyond the first 100, which share the slot other",
                registry=registry,
            ),
        )
        _declare_expected(registry, expected)
        Info("stancewatch_model", "Model that decides", registry=registry).info(dict(model))
        Info("stancewatch_build", "Version of this software", registry=registry).info(
            {"version": version("stancewatch")}
        )
        for outcome in Outcome:
            metrics.events.labels(outcome.value)
        for table in TABLES:
            metrics.swept.labels(table)
            metrics.state_bytes.labels(table)
        for stage in STAGES:
            metrics.stage_seconds.labels(stage)
        for language in (*sorted(SUPPORTED), OTHER):
            metrics.languages.labels(language)
        for topic in sorted(metrics.topics):
            metrics.stance_probability.labels(topic)
        for reason, stage in REJECTIONS.items():
            metrics.dead_letters.labels(stage.value, reason.value)
        return metrics

    def slot(self, topic: str) -> str:
        """The topic, or ``other`` when it has no slot of its own."""
        return topic if topic in self.topics else OTHER


def _declare_expected(registry: CollectorRegistry, expected: Expected | None) -> None:
    probability = Gauge(
        "stancewatch_expected_stance_probability_ratio",
        "Mean probability of the most probable stance that the training of the model measured",
        registry=registry,
    )
    unclear = Gauge(
        "stancewatch_expected_unclear_ratio",
        "Share of unclear stances that the training of the model measured",
        registry=registry,
    )
    probability.set(expected.stance_probability if expected else math.nan)
    unclear.set(expected.unclear if expected else math.nan)


REJECTIONS = {
    Reason.EMPTY_RECORD: Stage.RECEIVE,
    Reason.TOO_LARGE: Stage.RECEIVE,
    Reason.INVALID_UTF8: Stage.DECODE,
    Reason.INVALID_JSON: Stage.DECODE,
    Reason.TOO_DEEP: Stage.DECODE,
    Reason.INVALID_ENVELOPE: Stage.DECODE,
    Reason.WRONG_TYPE: Stage.VALIDATE,
    Reason.MISSING_FIELD: Stage.VALIDATE,
    Reason.INVALID_ID: Stage.VALIDATE,
    Reason.EMPTY_CONTENT: Stage.VALIDATE,
    Reason.INVALID_CHARACTERS: Stage.VALIDATE,
    Reason.INVALID_DATE: Stage.VALIDATE,
    Reason.FUTURE_DATE: Stage.VALIDATE,
    Reason.OUT_OF_RANGE: Stage.VALIDATE,
    Reason.MISSING_KEY: Stage.VALIDATE,
    Reason.KEY_MISMATCH: Stage.VALIDATE,
    Reason.UNCLASSIFIABLE: Stage.CLASSIFY,
}
"""The stage that each reason belongs to; every pair is a series from the start."""


class StateCollector(Collector):
    """Exposes the stored counts of the owned partitions at each scrape.

    Parameters
    ----------
    read : StateReader
        Reads the state; called once a scrape.
    topics : sequence of str
        Taxonomy: its series exist from the start. A topic that is in the state but no longer in the
        taxonomy is still shown, up to 200 topics; what is beyond goes to ``other``.
    window_clock : str
        ``wall``: windows end now. ``event``: at the latest ``published_at`` in the state.
    """

    def __init__(self, read: StateReader, topics: Iterable[str], window_clock: str) -> None:
        self.read = read
        self.topics = list(topics)
        self.window_clock = window_clock

    def describe(self) -> Iterable[Metric]:
        """Names without values, so that registering does not read the state."""
        yield from self._families()

    @staticmethod
    def _families() -> tuple[CounterMetricFamily, GaugeMetricFamily, CounterMetricFamily, GaugeMetricFamily]:
        return (
            CounterMetricFamily(
                "stancewatch_assessments",
                "Events by topic and stance, from the state: exact across restarts and rebalances",
                labels=["topic", "stance", "partition"],
            ),
            GaugeMetricFamily(
                "stancewatch_window_assessments",
                "Events by topic and stance whose published_at lies in the window (whole hours, with"
                " the running one)",
                labels=["topic", "stance", "window", "partition"],
            ),
            CounterMetricFamily(
                "stancewatch_stored_events",
                "Records by outcome, from the state: exact across restarts and rebalances",
                labels=["outcome", "partition"],
            ),
            GaugeMetricFamily(
                "stancewatch_other_topics",
                "Topics beyond the first 200, which share the slot other",
            ),
        )

    def collect(self) -> Iterator[Metric]:
        """Read the state once and fill the families."""
        assessments, windows, outcomes, others = self._families()
        totals: dict[int, Counts] = {}
        hours: dict[int, dict[int, Counts]] = {}
        for partition, bucket, counts in self.read():
            if bucket == TOTAL:
                totals[partition] = counts
            else:
                hours.setdefault(partition, {})[int(bucket)] = counts
        known = self._known_topics(totals.values())
        shown = set(known[:TOPICS_MAX])
        others.add_metric([], len(known) - len(shown))
        latest = max((counts.latest for counts in totals.values()), default=0.0)
        end_hour = int((time.time() if self.window_clock == "wall" else latest) // 3600)
        for partition, total in sorted(totals.items()):
            for (topic, stance), votes in self._sum([total], shown).items():
                assessments.add_metric([topic, stance, str(partition)], votes)
            for outcome in Outcome:
                outcomes.add_metric([outcome.value, str(partition)], total.outcomes.get(outcome, 0))
            by_hour = hours.get(partition, {})
            for window, length in WINDOW_HOURS.items():
                inside = [counts for hour, counts in by_hour.items() if end_hour - length < hour <= end_hour]
                for (topic, stance), votes in self._sum(inside, shown).items():
                    windows.add_metric([topic, stance, window, str(partition)], votes)
        yield from (assessments, windows, outcomes, others)

    def _known_topics(self, totals: Iterable[Counts]) -> list[str]:
        extra = sorted({topic for counts in totals for topic in counts.votes} - set(self.topics))
        return [*self.topics, *extra]

    @staticmethod
    def _sum(parts: Iterable[Counts], shown: set[str]) -> dict[tuple[str, str], int]:
        sums = {(topic, stance): 0 for topic in sorted(shown) for stance in STANCES}
        for counts in parts:
            for topic, by_stance in counts.votes.items():
                slot = topic if topic in shown else OTHER
                for stance, votes in by_stance.items():
                    sums[slot, stance] = sums.get((slot, stance), 0) + votes
        return sums
