"""The worker process: app, model, metrics and HTTP put together and run until told to stop."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

from faust.types import TP
from faust.worker import Worker
from prometheus_client import CollectorRegistry

from classifiers.assessor import Assessor
from stream.agents import EventProcessor, give_up, register_agent
from stream.app import StreamApp, build_app
from stream.errors import StateError
from stream.metrics import Metrics, StateCollector
from stream.settings import Settings
from stream.tables import TOTAL, Counts, counts_key, decode_counts, read_counts, split_counts_key
from stream.web import WebServer, listen

__all__ = ["WorkerState", "run_worker"]

log = logging.getLogger("stancewatch.worker")

COMMIT_STALL_SECONDS = 60.0


class WorkerState:
    """What probes and metrics read from a running worker.

    Parameters
    ----------
    app : StreamApp
    processor : EventProcessor
    """

    def __init__(self, app: StreamApp, processor: EventProcessor) -> None:
        self.app = app
        self.processor = processor

    def partitions(self) -> list[int]:
        """Partitions of ``news.events`` that this worker owns."""
        consumer = self.app.faust.consumer
        topic = self.app.settings.events_topic
        return sorted(tp.partition for tp in consumer.assignment() if tp.topic == topic)

    def counts(self) -> Iterator[tuple[int, str, Counts]]:
        """Stored counts of the owned partitions; nothing while the state is being recovered."""
        if self.recovering():
            return
        owned = set(self.partitions())
        for key, value in self.app.counts.items():
            partition, bucket = split_counts_key(key)
            if partition in owned:
                yield partition, bucket, decode_counts(value)

    def total(self, partition: int) -> Counts:
        """Stored total of one partition."""
        wanted = counts_key(partition, TOTAL)
        if self.app.settings.store == "memory":
            return read_counts(self.app.counts, wanted)
        stored = self.app.counts.data._db_for_partition(partition).get(wanted)  # noqa: SLF001 - no current event here
        return Counts() if stored is None else decode_counts(stored)

    def lag(self) -> dict[int, int]:
        """Records behind the log end as of the last fetch, by partition."""
        topic = self.app.settings.events_topic
        lags = {}
        for partition in self.partitions():
            end = self.app.faust.consumer.highwater(TP(topic, partition))
            if end is not None:
                lags[partition] = max(0, end - self.total(partition).offset - 1)
        return lags

    def not_ready(self) -> str:
        """Why this worker does not process events now; empty when it does."""
        return self.recovering() or self._commit_stall()

    def recovering(self) -> str:
        """Why the state is not complete now; empty when it is."""
        app = self.app.faust
        if not app.started or app.rebalancing or not app.tables.recovery.completed.is_set():
            return "waiting for partitions and their state"
        if app.in_recovery or not app.flow_control.is_active():
            return "recovering state from the changelog"
        return ""

    def _commit_stall(self) -> str:
        topic = self.app.settings.events_topic
        committed = self.app.faust.consumer._committed_offset  # noqa: SLF001 - Faust has no public view of it
        limit = COMMIT_STALL_SECONDS + 3 * self.app.settings.commit_interval_seconds
        for partition in self.partitions():
            offset, when = self.processor.acknowledged.get(partition, (-1, 0.0))
            behind = (committed.get(TP(topic, partition)) or 0) <= offset
            if behind and time.monotonic() - when > limit:
                return (
                    f"partition {partition}: acknowledged up to {offset} but not committed for {limit:.0f} s"
                )
        return ""

    async def begin(self) -> None:
        """After partitions were assigned and recovered: set where each begins, and read from there.

        A partition begins at its committed offset or, without one, at the start of its log (Faust does not
        move back in the second case, see ``stream.order``); and never behind what the state has counted, so
        that a lost changelog is made good from the log.

        Raises
        ------
        StateError
            When offsets are ahead of the log: the topic was recreated, its events would be skipped.
        """
        faust = self.app.faust
        generation = faust.consumer_generation_id
        topic = self.app.settings.events_topic
        tps = [TP(topic, partition) for partition in self.partitions()]
        self.processor.acknowledged.clear()
        # Faust warns and waits above 100 table writes; ours are bounded by the batch, which waits for them.
        faust.producer.buffer.max_messages = 4 * self.app.settings.batch_events
        if not tps:
            return
        committed = await faust.consumer.seek_to_committed()
        if not self.app.settings.embedded:  # the embedded broker's log ends are not reliable
            self._check_log_end(await faust.consumer.highwaters(*tps), committed)
        earliest = await faust.consumer.earliest_offsets(*tps)
        starts = {}
        for tp in tps:
            known = min(committed.get(tp) or 0, self.total(tp.partition).offset + 1)
            starts[tp] = max(known, earliest.get(tp) or 0)
        await self.app.seek(starts)
        self.processor.order.start_at(generation, {tp.partition: offset for tp, offset in starts.items()})

    def _check_log_end(self, ends: Mapping[TP, int], committed: Mapping[TP, int | None]) -> None:
        for tp, end in ends.items():
            applied = self.total(tp.partition).offset + 1
            ahead = max(applied, committed.get(tp) or 0)
            if end is not None and ahead > end:
                message = (
                    f"{tp.topic}[{tp.partition}] ends at offset {end}, but offsets up to {ahead} were counted"
                    " or committed: the topic was deleted and created again. To start anew, use another"
                    " STANCEWATCH_GROUP"
                )
                raise StateError(message)


def run_worker(settings: Settings, assessor: Assessor) -> None:
    """Run until SIGTERM or SIGINT; never returns.

    Raises
    ------
    ConfigurationError
        When the settings cannot work.
    SystemExit
        With Faust's exit code.
    """
    app = build_app(settings)
    listener = listen(settings.metrics_host, settings.metrics_port)
    registry = CollectorRegistry()
    metrics = Metrics.create(registry, model={"name": assessor.name, "sha256": assessor.content_hash})
    processor = EventProcessor(app, assessor, metrics, settings)
    register_agent(app, processor)
    state = WorkerState(app, processor)
    registry.register(StateCollector(state.counts, assessor.topics, settings.window_clock))
    _watch_log(app, state, metrics)

    server = WebServer(registry, state.not_ready, listener)
    log.info("settings: %s", settings.model_dump(mode="json", exclude_defaults=True))
    Worker(
        app.faust, server, quiet=True, redirect_stdouts=False, override_logging=False
    ).execute_from_commandline()


def _watch_log(app: StreamApp, state: WorkerState, metrics: Metrics) -> None:
    """Begin whenever partitions were assigned and recovered; measure the lag every few seconds."""

    @app.faust.on_rebalance_complete.connect  # type: ignore[untyped-decorator]
    async def begin(_sender: Any, **_kwargs: Any) -> None:
        try:
            await state.begin()
        except StateError as error:
            give_up(error)

    if app.settings.embedded:
        return  # the embedded broker's log ends are not reliable

    @app.faust.timer(interval=2.0)  # type: ignore[untyped-decorator]
    async def measure_lag() -> None:
        metrics.lag.clear()
        for partition, records in state.lag().items():
            metrics.lag.labels(app.settings.events_topic, str(partition)).set(records)
