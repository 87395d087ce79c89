"""Fills the store of articles from ``news.assessments``, all partitions, outside of any consumer group.

It begins at a bounded tail of the topic each time the process starts. Everything that touches the database
runs in one thread of its own: never in the event loop, and never in the threads that classify. Inside a
worker it rests after each batch for a multiple of the time that the batch took, so that it cannot take more
than a share of the processor away from the stream. A fault (the broker is away, the disk is full) is told,
not raised: the stream goes on without articles, and the store is made anew after a while.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, ParamSpec, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from mode import Service
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from stream.articles import ArticleStore
from stream.errors import StancewatchError
from stream.reading import partitions_of, ranges, reader
from stream.schema import decode_assessment
from stream.settings import Settings

__all__ = ["ArticleFeed", "BusyError"]

BATCH = 500
TAIL = 4
"""So many times the bound of articles is read of the log at most: a part of it is off topic."""
WAIT_MS = 500
TRICKLE_SECONDS = 0.25
LOOK_SECONDS = 5.0
ANSWER_SECONDS = 15.0
WAITING_MAX = 32
RETRY_SECONDS = (1.0, 2.0, 5.0, 15.0, 60.0)

log = logging.getLogger("stancewatch.articles")

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class BusyError(Exception):
    """Too many requests wait for the store."""


class ArticleFeed(Service):  # type: ignore[misc]  # mode ships no types
    """Keeps an :class:`ArticleStore` up to date.

    Parameters
    ----------
    settings : Settings
    rest : float
        Pause after each batch, as a multiple of the time that it took.

    Attributes
    ----------
    store : ArticleStore
        Empty until the topic is found, made anew after a fault; reached by :meth:`ask` only.
    lag : int
        Assessments that are yet to be read, as of the last look.
    fault : str
        What is wrong now; empty when nothing is.
    faults : int
        How often something went wrong.
    """

    def __init__(self, settings: Settings, *, rest: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = settings
        self.rest = rest
        self.lag = 0
        self.caught_up = False
        self.fault = ""
        self.faults = 0
        self.store = ArticleStore(None, articles_max=settings.articles_max, days=settings.articles_days)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="articles")
        self._waiting = 0
        self._gaps: set[TopicPartition] = set()

    async def on_shutdown(self) -> None:
        """Give the database up; reading has ended."""
        self._thread.shutdown(cancel_futures=True)
        self.store.close()

    def not_ready(self) -> str:
        """Why the store does not hold what it should; empty when it does."""
        return self.fault or ("" if self.caught_up else f"reading articles: {self.lag} assessments to go")

    async def ask(
        self, question: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Run a question to the store in its thread.

        Raises
        ------
        BusyError
            When too many wait already.
        """
        if self._waiting >= WAITING_MAX:
            raise BusyError
        self._waiting += 1
        try:
            return await self._in_thread(question, *args, **kwargs)
        finally:
            self._waiting -= 1

    async def _in_thread(
        self, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(*args, **kwargs))

    @Service.task  # type: ignore[untyped-decorator]
    async def _follow_for_ever(self) -> None:
        failed = 0
        while not self.should_stop:
            begun = time.monotonic()
            try:
                await self._follow()
            except Exception as error:  # noqa: BLE001 - whatever it is, the stream goes on
                failed = 0 if time.monotonic() - begun > RETRY_SECONDS[-1] else failed
                self._blame(error)
                await self.sleep(RETRY_SECONDS[min(failed, len(RETRY_SECONDS) - 1)])
                failed += 1

    def _blame(self, error: Exception) -> None:
        known = isinstance(error, (StancewatchError, KafkaError, sqlite3.Error, OSError))
        self.fault = f"articles: {str(error) or type(error).__name__}"
        self.faults += 1
        log.warning("the store of articles failed, it will be made anew: %s", error, exc_info=not known)

    # read

    async def _follow(self) -> None:
        """Fill an empty store from the tail of the topic and go on; returns never."""
        places = await self._partitions()
        await self._in_thread(self._renew)
        self.caught_up = False
        async with reader(self.settings, wait_ms=WAIT_MS) as consumer:
            goal = await self._assign(consumer, places)
            looked = 0.0
            while True:
                batches = await consumer.getmany(timeout_ms=WAIT_MS, max_records=BATCH)
                if records := list(chain.from_iterable(batches.values())):
                    begun = time.perf_counter()
                    await self._in_thread(self._apply, records)
                    rest = self.rest * (time.perf_counter() - begun)
                    # Of a stream that trickles, many records at once: each batch has a price of its own.
                    await asyncio.sleep(rest if len(records) == BATCH else max(rest, TRICKLE_SECONDS))
                at = {place: await consumer.position(place) for place in places}
                if not self.caught_up and all(at[place] >= end for place, end in goal.items()):
                    self.caught_up = True
                if time.monotonic() - looked > LOOK_SECONDS or (self.lag and not batches):
                    ends = await asyncio.wait_for(consumer.end_offsets(places), ANSWER_SECONDS)
                    self.lag = sum(max(0, ends[place] - at[place]) for place in places)
                    self.fault = ""
                    looked = time.monotonic()

    async def _partitions(self) -> list[TopicPartition]:
        while not (places := await partitions_of(self.settings, self.settings.assessments_topic)):
            self.fault = (
                f"articles: there is no Kafka topic {self.settings.assessments_topic} yet; a worker makes it"
            )
            await asyncio.sleep(1)
        return places

    def _renew(self) -> None:
        folder = None if self.settings.store == "memory" else self.settings.data_dir
        old = self.store
        self.store = ArticleStore(
            folder, articles_max=self.settings.articles_max, days=self.settings.articles_days
        )
        old.close()

    async def _assign(
        self, consumer: AIOKafkaConsumer, places: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, int]:
        """Take the tail of each partition; gives their ends."""
        consumer.assign(places)
        share = -(-TAIL * self.settings.articles_max // len(places))
        self._gaps.clear()
        goal, behind = {}, 0
        for place, (begin, end) in (await ranges(consumer, places)).items():
            start = max(begin, end - share)
            consumer.seek(place, start)
            goal[place] = end
            behind += end - start
            if start:
                self._gaps.add(place)
            if start == end > 0:
                ahead = timedelta(hours=self.settings.future_tolerance_hours)
                self.store.miss(datetime.now(UTC) + ahead)
        self.lag = behind
        return goal

    def _apply(self, records: Sequence[Any]) -> None:
        for record in records if self._gaps else ():
            place = TopicPartition(record.topic, record.partition)
            if place in self._gaps:
                # What was written before this record may be dated ahead of it by the tolerance at most.
                written = datetime.fromtimestamp(record.timestamp / 1000, UTC)
                self.store.miss(written + timedelta(hours=self.settings.future_tolerance_hours))
                self._gaps.discard(place)
        self.store.apply(filter(None, (decode_assessment(record.value) for record in records)))


class ArticleCollector(Collector):
    """Gauges of a feed, for ``/metrics``."""

    def __init__(self, feed: ArticleFeed) -> None:
        self.feed = feed

    def collect(self) -> Iterator[Metric]:
        """As of now."""
        yield GaugeMetricFamily(
            "stancewatch_articles_stored",
            "Articles that this process holds, withdrawn ones among them",
            value=self.feed.store.articles,
        )
        yield GaugeMetricFamily(
            "stancewatch_articles_lag_records",
            "Assessments that the store of articles has yet to read",
            value=self.feed.lag,
        )
        yield CounterMetricFamily(
            "stancewatch_articles_faults",
            "How often the store of articles failed and was made anew",
            value=self.feed.faults,
        )
