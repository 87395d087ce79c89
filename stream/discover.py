"""The process of ``stancewatch discover``: follow the stream, look for topics on schedule, publish them.

1. Topics are restored from ``news.emerging-topics``: ids, names, vocabulary, history, and their documents.
2. The tail of ``news.events`` and ``news.assessments`` is read anew, so much as fills the window; then both
   are followed. All partitions are assigned to this one process; its consumer group holds the offsets that it
   has come to, so that its lag can be watched like any other's. Run one of it.
3. Every interval the window goes to a child process, which fits and matches. Reading goes on meanwhile. A
   child that dies (out of memory, say) is counted and replaced; the registry stays as it was.
4. What came back is written to the compacted topic, key = topic id; then the offsets are committed.

A crash between any two steps costs at most the last refit. The child gets its work by :mod:`multiprocessing`;
nothing pickled is ever kept or read from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from prometheus_client import CollectorRegistry

from classifiers.discovery.pipeline import Refit, refit
from classifiers.discovery.registry import Registry
from classifiers.discovery.signals import SignalOptions
from classifiers.discovery.window import Document
from stream.clients import (
    client_options,
    create_emerging_topic,
    create_topics,
    isolation_level,
    started,
    topic_partitions,
)
from stream.discover_metrics import DiscoverMetrics
from stream.discover_window import TAIL, Window
from stream.embedded import die_with_parent
from stream.emerging import encode_topic, read_topics
from stream.reading import FETCH_BYTES, producer, ranges
from stream.settings import Settings
from stream.web import WebServer, listen

__all__ = ["Follower", "bound", "follow"]

BATCH = 1000
NICENESS = 10
LAG_SECONDS = 5.0

log = logging.getLogger("stancewatch.discover")


def bound(settings: Settings) -> socket.socket:
    """The port of the metrics, taken before anything starts."""
    setting = "STANCEWATCH_DISCOVER_PORT or --metrics-port"
    return listen(settings.metrics_host, settings.discover_port, setting)


def _prepare_child() -> None:
    """A child that ends with its parent, leaves Ctrl-C to it, and gives way to everything else."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)


def _refit(
    registry: Registry, documents: Sequence[Document], end: float, options: SignalOptions
) -> tuple[Registry, Refit]:
    result = refit(registry, documents, end, signals=options)
    result.model, result.assigned = None, {}  # large, and of no use to the parent
    return registry, result


class Follower:
    """Follows the stream with one consumer; see the module's four steps.

    Parameters
    ----------
    settings : Settings
    metrics : DiscoverMetrics

    Attributes
    ----------
    registry : Registry
        As it was published last.
    """

    def __init__(self, settings: Settings, metrics: DiscoverMetrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.registry = Registry()
        self.window = Window(
            settings.discover_hours,
            settings.discover_documents,
            off_topic_only=settings.discover_off_topic_only,
        )
        self.options = SignalOptions(recent_hours=settings.discover_recent_hours)
        self.caught_up = False
        self._changed = False
        self._pool: ProcessPoolExecutor | None = None

    def not_ready(self) -> str:
        """Why topics cannot be looked for yet; empty when they can."""
        return "" if self.caught_up else "reading the window from the log"

    async def run(self) -> None:
        """Follow for ever."""
        settings = self.settings
        if settings.create_topics:
            await create_topics(settings)
            await create_emerging_topic(settings)
        self.registry = Registry(await read_topics(settings))
        self.metrics.slots.show(self.registry.living)
        log.info("%d topics live, of %d known", len(self.registry.living), len(self.registry.topics))
        places = await topic_partitions(settings, settings.events_topic, settings.assessments_topic)
        consumer = AIOKafkaConsumer(
            **client_options(settings),
            group_id=f"{settings.group}-discover",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level=isolation_level(settings),
            max_partition_fetch_bytes=FETCH_BYTES,
        )
        try:
            async with started(consumer, settings), producer(settings) as sender:
                goal = await self._seek(consumer, places)
                await self._follow(consumer, sender, goal)
        finally:
            self._drop_pool()

    async def _seek(
        self, consumer: AIOKafkaConsumer, places: Sequence[TopicPartition]
    ) -> dict[TopicPartition, int]:
        """Stand at the tail of each partition; gives their ends."""
        consumer.assign(places)
        share = -(-TAIL * self.settings.discover_documents * 2 // len(places))
        goal = {}
        for place, (begin, end) in (await ranges(consumer, places)).items():
            consumer.seek(place, max(begin, end - share))
            goal[place] = end
        return goal

    async def _follow(
        self, consumer: AIOKafkaConsumer, sender: AIOKafkaProducer, goal: dict[TopicPartition, int]
    ) -> None:
        looked, due = 0.0, 0.0
        looking: asyncio.Task[tuple[Registry, Refit]] | None = None
        try:
            while True:
                batches = await consumer.getmany(timeout_ms=500, max_records=BATCH)
                for place, records in batches.items():
                    self._take(place, records)
                if time.monotonic() - looked > LAG_SECONDS or not self.caught_up:
                    looked = time.monotonic()
                    await self._look_at_lag(consumer, goal)
                if looking is not None and looking.done():
                    await self._finish(looking, consumer, sender)
                    looking = None
                if looking is None and self.caught_up and self._changed and time.monotonic() >= due:
                    due = time.monotonic() + self.settings.discover_interval_seconds
                    looking = asyncio.create_task(self._look())
        finally:
            if looking is not None:
                looking.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await looking

    def _take(self, place: TopicPartition, records: Sequence[Any]) -> None:
        add = (
            self.window.add_event if place.topic == self.settings.events_topic else self.window.add_assessment
        )
        for record in records:
            add(record.value)
        self._changed = self._changed or bool(records)

    async def _look_at_lag(self, consumer: AIOKafkaConsumer, goal: dict[TopicPartition, int]) -> None:
        at = {place: await consumer.position(place) for place in goal}
        self.caught_up = self.caught_up or all(at[place] >= end for place, end in goal.items())
        ends = await consumer.end_offsets(list(goal)) if self.caught_up else goal
        self.metrics.lag.set(sum(max(0, ends[place] - at[place]) for place in goal))
        self.metrics.window.set(len(self.window.documents))

    # look for topics

    async def _look(self) -> tuple[Registry, Refit]:
        """One refit, in the child process."""
        documents, end = self.window.slide(), self.window.end
        self._changed = False
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                1, mp_context=multiprocessing.get_context("spawn"), initializer=_prepare_child
            )
        work = (self.registry, documents, end, self.options)
        return await asyncio.get_running_loop().run_in_executor(self._pool, _refit, *work)

    async def _finish(
        self,
        looking: asyncio.Task[tuple[Registry, Refit]],
        consumer: AIOKafkaConsumer,
        sender: AIOKafkaProducer,
    ) -> None:
        try:
            registry, result = looking.result()
        except Exception as error:
            self.metrics.failures.inc()
            self._changed = True  # once more when it is due
            log.exception("looking for topics failed; the topics stay as they were")
            if isinstance(error, BrokenProcessPool):
                self._drop_pool()
            return
        await self._publish(sender, result)
        self.registry = registry
        await consumer.commit()
        self._show(result)

    async def _publish(self, sender: AIOKafkaProducer, result: Refit) -> None:
        values = {topic.id: encode_topic(topic) for topic in result.topics}
        values |= dict.fromkeys(result.forgotten)  # type: ignore[arg-type]  # None is a tombstone
        sent = [
            await sender.send(self.settings.emerging_topic, key=name.encode(), value=value)
            for name, value in values.items()
        ]
        await asyncio.gather(*sent)

    def _show(self, result: Refit) -> None:
        metrics = self.metrics
        metrics.slots.show(self.registry.living)
        metrics.refit_seconds.observe(result.seconds)
        metrics.outliers.set(result.outliers / max(1, result.documents))
        metrics.last_refit.set_to_current_time()
        for event in result.events:
            metrics.events.labels(event.kind).inc()
        rising = [topic.label for topic in self.registry.living if topic.signal == "strong"]
        log.info(
            "%d topics in %d documents (%d copies) after %.1f s; strong: %s",
            len(self.registry.living),
            result.documents,
            result.copies,
            result.seconds,
            "; ".join(rising) or "none",
        )

    def _drop_pool(self) -> None:
        if self._pool is not None:
            for process in list((self._pool._processes or {}).values()):  # noqa: SLF001 - no public way to end one
                process.kill()
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


async def follow(settings: Settings, listener: socket.socket) -> None:
    """Follow the stream until SIGTERM or SIGINT.

    Raises
    ------
    BrokerError
        When the broker does not answer, or goes away.
    """
    registry = CollectorRegistry()
    metrics = DiscoverMetrics(registry, settings.discover_slots)
    follower = Follower(settings, metrics)
    server = WebServer(registry, follower.not_ready, listener)
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    log.info("settings: %s", settings.model_dump(mode="json", exclude_defaults=True))
    async with server:
        working = asyncio.create_task(follower.run())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in (working, stopping):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
