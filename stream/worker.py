"""The worker process: app, model, metrics and HTTP put together and run until told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from aiokafka.errors import IllegalStateError, KafkaError
from faust.types import TP
from faust.worker import Worker
from prometheus_client import CollectorRegistry

from classifiers.assessor import Assessor
from stream.agents import EventProcessor, give_up, register_agent
from stream.api import Api
from stream.app import StateTable, StreamApp, build_app
from stream.article_feed import ArticleCollector, ArticleFeed
from stream.data_folder import hold
from stream.emerging_feed import EmergingFeed
from stream.errors import BrokerError, StateError
from stream.metrics import TABLES, Metrics, StateCollector
from stream.monitor import RebalanceMonitor, StateSize
from stream.settings import Settings
from stream.tables import Counts, Outcome, decode_counts, split_counts_key
from stream.web import WebServer, listen
from stream.worker_host import WorkerHost

__all__ = ["WorkerState", "run_worker"]

log = logging.getLogger("stancewatch.worker")

COMMIT_STALL_SECONDS = 60.0
LOOK_SECONDS = 3.0
END_RESTS = (0.5, 1.0, 2.0, 4.0)
"""Seconds between looks at a log that seems to end early: a broker that has just become the leader tells an
older end until its followers have asked again (KIP-207; what aiokafka sends gets no error for that)."""
ARTICLES_REST = 4.0
"""The store of articles takes a fifth of one processor at most."""


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
        self._had_partitions = False
        self._begun: int | None = None
        """Generation of the consumer group whose state is complete."""

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

    def owns_all(self) -> bool:
        """Whether every partition of ``news.events`` is owned by this worker."""
        known = self.app.faust.consumer.topic_partitions(self.app.settings.events_topic)
        return known is not None and len(self.partitions()) == known

    def lag(self) -> dict[int, int]:
        """Records behind the log end as of the last fetch, by partition."""
        topic = self.app.settings.events_topic
        lags = {}
        for partition in self.partitions():
            end = self.app.faust.consumer.highwater(TP(topic, partition))
            if end is not None:
                lags[partition] = max(0, end - self.app.total(partition).offset - 1)
        return lags

    def not_ready(self) -> str:
        """Why this worker does not process events now; empty when it does."""
        return self.recovering() or self._commit_stall()

    def recovering(self) -> str:
        """Why the state is not complete now; empty when it is."""
        app = self.app.faust
        if not app.started or app.rebalancing or not app.tables.recovery.completed.is_set():
            return "waiting for partitions and their state"
        # Faust takes a rebalance for over that began while the recovery before it ended.
        begun = self._begun == app.consumer_generation_id
        if not begun or app.in_recovery or not app.flow_control.is_active():
            return "recovering state from the changelog"
        return ""

    def _commit_stall(self) -> str:
        limit = COMMIT_STALL_SECONDS + 3 * self.app.settings.commit_interval_seconds
        for partition, (offset, seconds) in self._uncommitted().items():
            if seconds > limit:
                return (
                    f"partition {partition}: acknowledged up to {offset} but not committed for {limit:.0f} s"
                )
        return ""

    def _uncommitted(self) -> dict[int, tuple[int, float]]:
        """By partition: highest acknowledged offset, and for how long the oldest one waits for a commit."""
        topic = self.app.settings.events_topic
        committed = self.app.faust.consumer._committed_offset  # noqa: SLF001 - Faust has no public view of it
        return {
            partition: self.processor.acknowledged.waiting(
                partition, committed.get(TP(topic, partition)) or 0
            )
            for partition in self.partitions()
        }

    def commit_age(self) -> float:
        """Seconds that the oldest acknowledged record has been waiting for a commit; 0 when none is."""
        if self.recovering():
            return 0.0
        return max((seconds for _, seconds in self._uncommitted().values()), default=0.0)

    def state_folders(self, table: StateTable) -> list[Path]:
        """Folders of RocksDB with the owned partitions of a table; none with the state in memory."""
        if self.app.settings.store == "memory" or self.recovering():
            return []
        return [table.data.partition_path(partition) for partition in self.partitions()]

    async def begin(self) -> None:
        """After partitions were assigned: recover their state, set where each begins, and read from there.

        A partition begins at its committed offset or, without one, at the start of its log (Faust does not
        move back in the second case, see ``stream.order``); and never behind what the state has counted, so
        that a lost changelog is made good from the log.

        Raises
        ------
        StateError
            When offsets are ahead of the log: the topic was recreated, its events would be skipped. When the
            topic is gone, or what is known of the events that were counted.
        """
        faust = self.app.faust
        generation = faust.consumer_generation_id
        topic = self.app.settings.events_topic
        tps = [TP(topic, partition) for partition in self.partitions()]
        self.processor.acknowledged.clear()
        self.processor.fence.release()
        # Faust warns and waits above 100 table writes; ours, and what a sweep deletes, are bounded by the
        # batch, which waits for them.
        faust.producer.buffer.max_messages = 16 * self.app.settings.batch_events
        if not tps:
            if self._had_partitions and not self.app.settings.embedded:
                self._check_topic()
            self._begun = generation
            return
        self._had_partitions = True
        committed = await faust.consumer.seek_to_committed()
        async with self.processor.busy:
            await self.processor.fence.recover(tps)
            if not self.app.settings.embedded:  # the embedded broker's log ends are not reliable
                ahead = {tp: max(self._applied(tp), committed.get(tp) or 0) for tp in tps}
                await self._check_log_ends(ahead)
                await self._check_identities(tps, committed)
            await self.processor.fence.claim(generation, tps)
        earliest = await faust.consumer.earliest_offsets(*tps)
        starts = {}
        for tp in tps:
            known = min(committed.get(tp) or 0, self._applied(tp))
            starts[tp] = max(known, earliest.get(tp) or 0)
        faust.tables.committed = dict(starts)
        await self.app.seek(starts)
        self.processor.order.start_at(generation, {tp.partition: offset for tp, offset in starts.items()})
        self._begun = generation

    def _check_topic(self) -> None:
        """Without partitions: whether there are any. Faust would wait for the topic for ever."""
        topic = self.app.settings.events_topic
        if not self.app.faust.consumer.topic_partitions(topic):
            message = f"the topic {topic} was deleted; stopping: nothing more can be counted"
            raise StateError(message)

    async def _check_log_ends(self, ahead: Mapping[TP, int]) -> Mapping[TP, int]:
        """See that no partition ends before the offset up to which it was counted or committed; the ends."""
        for rest in (0.0, *END_RESTS):
            await asyncio.sleep(rest)
            ends = await self.app.faust.consumer.highwaters(*ahead) if ahead else {}
            beyond = [tp for tp, offset in ahead.items() if offset > ends[tp]]
            if not beyond:
                return ends
        tp = beyond[0]
        message = (
            f"{tp.topic}[{tp.partition}] ends at offset {ends[tp]}, but offsets up to {ahead[tp]} were"
            " counted or committed: the topic was deleted and created again. To start anew, use another"
            " STANCEWATCH_GROUP"
        )
        raise StateError(message)

    async def _check_identities(self, tps: Iterable[TP], committed: Mapping[TP, int | None]) -> None:
        """See that the ids of the events that were counted and committed are known, or once were.

        Lost counts are made good from the log. It need not have the ids any more, and without them duplicates
        would count twice.
        """
        places = {TP(self.app.identities.changelog_topic_name, tp.partition): tp for tp in tps}
        ends = await self.app.faust.consumer.highwaters(*places)
        for place, tp in places.items():
            outcomes = self.app.total(tp.partition).outcomes
            counted = sum(outcomes.values()) - outcomes.get(Outcome.DEAD_LETTER, 0)
            waiting = self._applied(tp) - (committed.get(tp) or 0)  # a crash may have lost the ids of so many
            if counted > max(0, waiting) and not ends[place]:
                message = (
                    f"{place.topic}[{place.partition}] is empty, but {counted} events of {tp.topic} were"
                    " counted: it was deleted, and duplicates of them can no longer be told. To count anew"
                    " from the log, use another STANCEWATCH_GROUP"
                )
                raise StateError(message)

    def _applied(self, tp: TP) -> int:
        return self.app.total(tp.partition).offset + 1

    async def look(self) -> None:
        """Every few seconds: put late writes right; see that the log is the one that was counted, to its end.

        Raises
        ------
        StateError
            When the topic was recreated while the worker ran: its events would be taken for old ones.
        """
        if self.recovering():
            return
        changelogs = await self.processor.fence.ends()  # first: later ones may be of a batch in hand
        tps = [TP(self.app.settings.events_topic, partition) for partition in self.partitions()]
        ends = await self._check_log_ends({tp: self._applied(tp) for tp in tps})
        async with self.processor.busy:
            await self.processor.fence.look(changelogs)
            # What waits in Faust behind records of other partitions, for minutes at times, was not dropped.
            waiting = any(not channel.queue.empty() for channel in self.app.faust.topics)
            await self.processor.order.look({} if waiting else ends)


def run_worker(settings: Settings, assessor: Assessor) -> None:
    """Run until SIGTERM or SIGINT; never returns.

    Raises
    ------
    ConfigurationError
        When the settings cannot work.
    SystemExit
        With Faust's exit code; with 70 where another worker has the folder of the state.
    """
    app = build_app(settings)
    if settings.store == "rocksdb":
        try:
            hold(settings.data_dir)
        except StateError as error:
            give_up(error)
    listener = listen(settings.metrics_host, settings.metrics_port)
    registry = CollectorRegistry()
    metrics = Metrics.create(
        registry,
        model={"name": assessor.name, "sha256": assessor.content_hash},
        topics=assessor.topics,
        expected=assessor.expected,
    )
    processor = EventProcessor(app, assessor, metrics, settings)
    register_agent(app, processor)
    state = WorkerState(app, processor)
    registry.register(StateCollector(state.counts, assessor.topics, settings.window_clock))
    _watch_log(app, state, metrics)
    _watch_worker(app, state, metrics)

    services: list[Any] = []
    add_routes: Callable[[Any], None] = lambda _router: None  # noqa: E731
    if settings.page:
        feed = ArticleFeed(settings, rest=ARTICLES_REST)
        registry.register(ArticleCollector(feed))
        host = WorkerHost(settings, state, metrics, assessor.topics)
        emerging = EmergingFeed(settings)
        services, add_routes = [feed, emerging], Api(settings, feed, host, emerging).add_to

    gc.freeze()  # the model's some 100,000 objects stay: the collector need not look through them
    server = WebServer(registry, state.not_ready, listener, add_routes=add_routes)
    log.info("settings: %s", settings.model_dump(mode="json", exclude_defaults=True))
    _execute(Worker(app.faust, server, *services, quiet=True, redirect_stdouts=False, override_logging=False))


def _execute(worker: Worker) -> None:
    """Run; tell in one line what ends Faust itself, such as a disk that fills while it opens the state."""
    try:
        worker.execute_from_commandline()
    except Exception as error:  # noqa: BLE001 - see give_up
        give_up(error)


def _watch_worker(app: StreamApp, state: WorkerState, metrics: Metrics) -> None:
    """Measure what Faust does; the gauges are asked at each scrape."""
    app.faust.sensors.add(RebalanceMonitor(metrics))
    metrics.ready.set_function(lambda: float(not state.not_ready()))
    metrics.commit_age.set_function(state.commit_age)
    for name, table in zip(TABLES, (app.counts, app.identities), strict=True):
        size = StateSize(partial(state.state_folders, table))
        metrics.state_bytes.labels(name).set_function(size)


def _watch_log(app: StreamApp, state: WorkerState, metrics: Metrics) -> None:
    """Begin whenever partitions were assigned; measure the lag every few seconds."""

    @app.faust.on_rebalance_complete.connect  # type: ignore[untyped-decorator]
    async def begin(_sender: Any, **_kwargs: Any) -> None:
        try:
            await state.begin()
        except Exception as error:
            if app.faust.should_stop or isinstance(error, IllegalStateError):  # Faust's: a rebalance again
                raise
            give_up(error)

    if app.settings.embedded:
        return  # the embedded broker's log ends are not reliable

    @app.faust.timer(interval=LOOK_SECONDS)  # type: ignore[untyped-decorator]
    async def look() -> None:
        try:
            await state.look()
        except StateError as error:
            give_up(error)
        except (BrokerError, KafkaError, TimeoutError) as error:  # the brokers are away; late stays late
            log.warning("could not look at the ends of the logs: %s", error)

    @app.faust.timer(interval=2.0)  # type: ignore[untyped-decorator]
    async def measure_lag() -> None:
        metrics.lag.clear()
        for partition, records in state.lag().items():
            metrics.lag.labels(app.settings.events_topic, str(partition)).set(records)
