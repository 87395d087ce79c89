"""What the metrics cost: per batch of the worker, and per scrape.

Command: ``.venv/bin/python -m benchmarks.metrics`` (half a minute, no broker).

* Per batch: everything that the worker notes of a batch of 256 new events with 1.1 topics each, alone; to be
  compared with the time that classifying such a batch takes.
* Per scrape: the page of a worker with four partitions and 14 days of hours, as OpenMetrics.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest

from classifiers.decisions import STANCES
from stream.metrics import STAGES, Metrics, StateCollector
from stream.monitor import CommitClock, SourceClock
from stream.tables import Counts, decode_counts, stored

EVENTS = 256
TOPICS = ("export_controls", "domestic_chips", "cloud")
HOURS = 14 * 24


def note_a_batch(metrics: Metrics, sources: SourceClock, commits: CommitClock) -> None:
    """As ``stream.agents`` does, without the work itself."""
    with metrics.batch_seconds.time():
        for stage in STAGES:
            with metrics.stage_seconds.labels(stage).time():
                pass
    metrics.batch_events.observe(EVENTS)
    metrics.classify_seconds.observe(0.4, {"event_id": "bench-1"})
    for number in range(EVENTS):
        event_id = {"event_id": "bench-1"}
        metrics.events.labels("assessed").inc()
        metrics.event_age.observe(number, event_id)
        metrics.languages.labels("en").inc()
        sources.saw(f"source-{number % 150}")
        for topic in TOPICS[: 2 if number % 10 == 0 else 1]:
            metrics.stance_probability.labels(metrics.slot(topic)).observe(0.7, event_id)
        commits.note(number % 4, number)


def median(work: Callable[[], object], times: int) -> float:
    """Milliseconds of processor time: other work on the machine does not count."""
    taken = []
    for _ in range(times):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return 1000 * statistics.median(taken)


def main() -> None:
    """Measure and print."""
    registry = CollectorRegistry()
    metrics = Metrics.create(registry, model={"name": "m"}, topics=TOPICS)
    sources, commits = SourceClock(metrics), CommitClock()
    votes = {topic: dict.fromkeys(STANCES, 3) for topic in TOPICS}
    rows = [(p, str(480_000 + h), stored(Counts(1, votes))) for p in range(4) for h in range(HOURS)]
    rows += [(p, "total", stored(Counts(1, votes, {}, (480_000 + HOURS) * 3600.0))) for p in range(4)]
    registry.register(StateCollector(lambda: _decoded(rows), TOPICS, "event"))
    batch = median(lambda: note_a_batch(metrics, sources, commits), 300)
    page = median(lambda: generate_latest(registry), 30)  # type: ignore[no-untyped-call]
    size = len(generate_latest(registry))  # type: ignore[no-untyped-call]
    print(f"a batch of {EVENTS} events: {batch:.2f} ms, {1000 * batch / EVENTS:.1f} microseconds an event")
    print(f"a scrape: {page:.1f} ms, {size / 1024:.0f} KiB")


def _decoded(rows: list[tuple[int, str, bytes]]) -> list[tuple[int, str, Counts]]:
    return [(partition, bucket, decode_counts(value)) for partition, bucket, value in rows]


if __name__ == "__main__":
    main()
