"""The audit: recounts the log by ``stream.recount`` and compares it with the state and the workers' pages.

It works beside running workers. In this order, so that everything that is compared can be counted:

1. note the end of ``news.events``;
2. read the state from the changelog of the table ``counts`` until its totals have passed that end and the
   workers have committed it (then every key of the state has it: they commit behind the changelog's
   confirmation), then on to the changelog's present end;
3. read the workers' pages;
4. note the ends of assessments, dead letters and, again, events: what state and pages had counted by then
   is in them (workers write output before state);
5. read assessments and dead letters, then partition by partition the events.

Events that came after 1 are counted in a figure just so far as the figure has them: each key of the state
tells its applied offset, each page how many records it accounts for.
"""

from __future__ import annotations

import asyncio
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPException
from typing import TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from stream.audit_report import Report
from stream.comparison import (
    Page,
    StoredCounts,
    StoredPartition,
    read_page,
    read_state,
)
from stream.errors import ConfigurationError, StancewatchError, StateError
from stream.outputs import Progress, quiet, read_outputs, steps
from stream.reading import Range, admin_client, partitions_of, ranges, read, reader
from stream.recount import Decisions, Letters, PartitionCount
from stream.settings import Settings

__all__ = ["Audit"]

Value = TypeVar("Value")
Result = TypeVar("Result")


class Audit:
    """One audit.

    Parameters
    ----------
    settings : Settings
        Broker, names of topics, consumer group of the workers.
    metrics_urls : sequence of str
        ``/metrics`` of every worker; none: log and state only.
    wait_seconds : float
        How long to wait for workers that lag.
    progress : callable
        Called with the step, offsets done and offsets in all.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        metrics_urls: Sequence[str] = (),
        wait_seconds: float = 60.0,
        progress: Progress = quiet,
    ) -> None:
        self.settings = settings
        self.metrics_urls = [_metrics_address(url) for url in metrics_urls]
        self.wait_seconds = wait_seconds
        self.progress = progress
        self.changelog_topic = settings.changelog_topic("counts")
        self._consumer: AIOKafkaConsumer
        self._changelog: dict[bytes, bytes | None] = {}
        self._changelog_read: dict[TopicPartition, int] = {}

    async def run(self) -> Report:
        """Recount and compare.

        Raises
        ------
        StancewatchError
            When the workers lag, the log has no beginning any more, or something cannot be read.
        """
        started = time.monotonic()
        async with reader(self.settings) as consumer:
            self._consumer = consumer
            events = await self._partitions(self.settings.events_topic)
            noted = await ranges(consumer, events)
            self._check_beginning(noted)
            ends = await self._data_ends(noted)
            state = await self._read_state(ends)
            pages = await self._read_pages([number for number, end in ends.items() if end])
            report = Report(noted=ends, with_metrics=bool(self.metrics_urls))
            outputs = [
                await ranges(consumer, await partitions_of(self.settings, topic))
                for topic in (self.settings.assessments_topic, self.settings.dead_letters_topic)
            ]
            log = await ranges(consumer, events)
            decisions, letters, report.stray_assessments = await read_outputs(
                consumer, outputs[0], outputs[1], log, self.settings.events_topic, self.progress
            )
            for place, stretch in log.items():
                number = place.partition
                counted = self._counter(number, decisions, letters, ends[number] - 1, state, pages)
                total = stretch[1] - stretch[0]
                step = f"counting {self.settings.events_topic} {number}"
                async for record in read(consumer, {place: stretch}, self._steps(step, total)):
                    counted.take(record.offset, record.value, record.timestamp / 1000)
                report.add(counted, state.get(number, StoredPartition()), pages.get(number))
            report.stray_letters += [
                f"a letter names {self.settings.events_topic} {number}:{offset}, where no record is"
                for number, offset in letters.left()
                if offset < report.counted.get(number, offset + 1)
            ]
            report.foreign_letters = letters.foreign
        report.seconds = time.monotonic() - started
        return report

    async def _partitions(self, topic: str) -> list[TopicPartition]:
        found = await partitions_of(self.settings, topic)
        if not found:
            message = (
                f"there is no Kafka topic {topic} on {self.settings.broker}: has a worker of this"
                " STANCEWATCH_TOPIC_PREFIX and STANCEWATCH_GROUP run there?"
            )
            raise StancewatchError(message)
        return found

    @staticmethod
    def _check_beginning(log: Mapping[TopicPartition, Range]) -> None:
        for place, (begin, _) in log.items():
            if begin:
                message = (
                    f"{place.topic}[{place.partition}] begins at offset {begin}: earlier events were deleted,"
                    " they are in the state but cannot be recounted. Audit needs the whole log"
                    " (retention.ms=-1)"
                )
                raise StateError(message)

    async def _data_ends(self, log: Mapping[TopicPartition, Range]) -> dict[int, int]:
        """Offset behind the last record of each partition: transactions end in marks that nobody counts."""
        ends = dict.fromkeys((place.partition for place in log), 0)
        back = 1
        left = {place: stretch for place, stretch in log.items() if stretch[1]}
        while left:
            tails = {place: (max(0, end - back), end) for place, (_, end) in left.items()}
            async for record in read(self._consumer, tails):
                ends[record.partition] = record.offset + 1
            left = {
                place: left[place] for place in left if not ends[place.partition] and back < left[place][1]
            }
            back *= 10
        return ends

    def _steps(self, step: str, total: int) -> Callable[[int], None]:
        return steps(self.progress, step, total)

    # 2. state

    async def _read_state(self, ends: Mapping[int, int]) -> dict[int, StoredPartition]:
        """Follow the changelog until it holds everything below `ends`."""
        partitions = await self._partitions(self.changelog_topic)
        await self._advance_changelog(partitions)
        deadline = time.monotonic() + self.wait_seconds
        while True:
            counted = {number: self._applied(number) + 1 for number in ends}
            behind = {number: at for number, at in counted.items() if at < ends[number]}
            if not behind and await self._committed(ends):
                # What was confirmed before the commit may have come after our look at the changelog.
                await self._advance_changelog(partitions)
                return self._decoded(read_state, self._changelog)
            if time.monotonic() > deadline:
                raise StancewatchError(self._lag_message(behind, ends))
            await asyncio.sleep(0.3)
            await self._advance_changelog(partitions)

    async def _advance_changelog(self, partitions: Sequence[TopicPartition]) -> None:
        """Read on to the present end; the last value of a key is the state."""
        now = await ranges(self._consumer, partitions)
        stretches = {
            place: (max(begin, self._changelog_read.get(place, 0)), end)
            for place, (begin, end) in now.items()
        }
        total = sum(end - begin for begin, end in stretches.values())
        step = "waiting for the state" if self._changelog_read else "reading the state"
        async for record in read(self._consumer, stretches, self._steps(step, total)):
            self._changelog[bytes(record.key)] = record.value
        self._changelog_read = {place: end for place, (_, end) in stretches.items()}

    def _applied(self, partition: int) -> int:
        """Offset that the state's total has reached."""
        value = self._changelog.get(f"{partition}|total".encode())
        return -1 if value is None else self._decoded(StoredCounts.read, value).offset

    def _decoded(self, decode: Callable[[Value], Result], value: Value) -> Result:
        try:
            return decode(value)
        except ValueError as error:
            message = f"{self.changelog_topic} holds what is no state of this version ({error})"
            raise StateError(message) from None

    async def _committed(self, ends: Mapping[int, int]) -> bool:
        """Whether the workers have committed everything below `ends`."""
        topic = self.settings.events_topic
        places = [TopicPartition(topic, number) for number, end in ends.items() if end]
        if not places:
            return True
        try:
            async with admin_client(self.settings) as admin:
                committed = await admin.list_consumer_group_offsets(self.settings.group, partitions=places)
        except KafkaError:
            return False  # the coordinator moves
        return all(committed[place].offset >= ends[place.partition] for place in places)

    def _lag_message(self, behind: Mapping[int, int], ends: Mapping[int, int]) -> str:
        where = "; ".join(
            f"partition {number} is counted up to {at} of {ends[number]}" for number, at in behind.items()
        )
        where = where or "everything is counted, but not committed"
        return (
            f"the state lags: {where}. Is a worker of group {self.settings.group!r} running? Wait until it"
            f" has caught up, or longer than {self.wait_seconds:g} s with --wait-seconds"
        )

    # 3. metrics

    async def _read_pages(self, partitions: Sequence[int]) -> dict[int, Page]:
        """One page a partition: where two workers show it (rebalance), the one that has more records."""
        if not self.metrics_urls:
            return {}
        deadline = time.monotonic() + self.wait_seconds
        while True:
            pages: dict[int, Page] = {}
            for text in await asyncio.gather(*(asyncio.to_thread(_fetch, url) for url in self.metrics_urls)):
                for number, page in _pages(text, self.metrics_urls).items():
                    if number not in pages or page.records > pages[number].records:
                        pages[number] = page
            missing = sorted(set(partitions) - set(pages))
            if not missing:
                return pages
            if time.monotonic() > deadline:
                message = (
                    f"none of {', '.join(self.metrics_urls)} shows partition {', '.join(map(str, missing))}:"
                    " give --metrics for every worker of the group"
                )
                raise StancewatchError(message)
            await asyncio.sleep(0.3)

    def _counter(
        self,
        number: int,
        decisions: Decisions,
        letters: Letters,
        noted: int,
        state: Mapping[int, StoredPartition],
        pages: Mapping[int, Page],
    ) -> PartitionCount:
        stored = state.get(number, StoredPartition())
        return PartitionCount(
            number,
            decisions,
            letters,
            noted=noted,
            total_offset=stored.total.offset,
            hour_offsets={hour: counts.offset for hour, counts in stored.hours.items()},
            shown_records=pages[number].records if number in pages else 0,
            bucket_days=self.settings.bucket_days,
            identity_days=self.settings.identity_days,
        )


def _metrics_address(url: str) -> str:
    """Complete ``host:port`` and ``http://host:port`` to the page."""
    try:
        parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number
        usable = False
    if not usable:
        message = f"--metrics {url}: expected http://HOST:PORT/metrics"
        raise ConfigurationError(message)
    return urllib.parse.urlunsplit(parts._replace(path=parts.path.rstrip("/") or "/metrics"))


def _fetch(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - http or https, checked above
            return str(answer.read().decode())
    except (OSError, ValueError, HTTPException) as error:
        message = f"no metrics at {url} ({error}): give --metrics the address that the worker logs"
        raise StancewatchError(message) from None


def _pages(text: str, urls: Sequence[str]) -> dict[int, Page]:
    try:
        return read_page(text)
    except (ValueError, KeyError) as error:
        message = f"{', '.join(urls)}: not the metrics of a worker ({error})"
        raise StancewatchError(message) from None
