"""Replay: publish files to Kafka, follow what the worker makes of them, account for every record.

A record is accounted for when an assessment or a dead letter names its partition and offset, or when the
worker has committed past it without either and an assessment of the same id with this or a higher version
exists: then it was a duplicate. Anything else is lost, and the replay says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from prometheus_client.parser import text_string_to_metric_families

from stream.clients import client_options, provide_topics, started, topic_partitions
from stream.errors import BrokerError, StancewatchError
from stream.schema import Assessment, decode_assessment
from stream.settings import Settings
from stream.sources import Record

__all__ = ["Pace", "Replay", "Tally", "metrics_counts"]

Place = tuple[int, int]
"""Partition and offset of a published record."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast to publish; all None means as fast as the broker takes it.

    Attributes
    ----------
    rate : float or None
        Records per second.
    speedup : float or None
        Earliest ``published_at`` first, with its gaps divided by this.
    """

    rate: float | None = None
    speedup: float | None = None

    def schedule(self, records: Sequence[Record]) -> list[tuple[float, Record]]:
        """Records in the order in which they are published, each with the seconds after the start.

        A record without ``published_at`` follows the one that it stands behind.
        """
        known = [record.published_at for record in records if record.published_at is not None]
        if not self.speedup or not known:
            return [(index / self.rate if self.rate else 0.0, record) for index, record in enumerate(records)]
        earliest = moment = min(known)
        due = []
        for record in records:
            moment = record.published_at or moment
            due.append(((moment - earliest).total_seconds() / self.speedup, record))
        return sorted(due, key=lambda pair: pair[0])


@dataclass
class Tally:
    """What became of the published records."""

    published: int = 0
    dead_lettered: int = 0
    duplicates: int = 0
    assessed: int = 0
    lost: list[str] = field(default_factory=list)
    """Origin of each record that nothing came back for."""
    refused: list[str] = field(default_factory=list)
    """Origin of each record that the broker did not take, with its reason."""
    reasons: Counter[str] = field(default_factory=Counter)
    decisions: dict[str, Assessment] = field(default_factory=dict)
    """Highest version by event id."""

    def take(self, assessment: Assessment) -> None:
        """Keep the decision when it is not older than the one known."""
        known = self.decisions.get(assessment.event_id)
        if known is None or assessment.version >= known.version:
            self.decisions[assessment.event_id] = assessment

    def counts(self) -> dict[str, dict[str, int]]:
        """Votes by topic and stance, of the final decisions."""
        counts: dict[str, Counter[str]] = {}
        for decision in self.decisions.values():
            for topic in decision.topics:
                counts.setdefault(topic.topic, Counter())[topic.stance] += 1
        return {topic: dict(sorted(counts[topic].items())) for topic in sorted(counts)}

    def off_topic(self) -> int:
        """Events whose final decision names no topic (withdrawn and unreadable ones excluded)."""
        return sum(
            not (decision.topics or decision.retracted or decision.unsupported_language)
            for decision in self.decisions.values()
        )

    def as_json(self) -> dict[str, Any]:
        """The object of ``--json``."""
        return {
            "published": self.published,
            "assessed": self.assessed,
            "dead_lettered": self.dead_lettered,
            "duplicates": self.duplicates,
            "counts": self.counts(),
            "off_topic": self.off_topic(),
        }

    @property
    def complete(self) -> bool:
        """Whether nothing was lost or refused."""
        return not self.lost and not self.refused


class Replay:
    """One replay run.

    Parameters
    ----------
    settings : Settings
        Broker, topic names and the worker's consumer group.
    progress : callable
        Called with the tally after every step.
    check_worker : callable
        Raises when the worker is known to have died.
    stall_seconds : float
        Give up when nothing has come back for this long.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        progress: Callable[[Tally], None],
        check_worker: Callable[[], None] = lambda: None,
        stall_seconds: float = 120.0,
    ) -> None:
        self.settings = settings
        self.progress = progress
        self.check_worker = check_worker
        self.stall_seconds = stall_seconds
        self.tally = Tally()
        self._open: dict[Place, Record] = {}
        self._early: dict[Place, Any] = {}
        """Answers that may have overtaken the confirmation of our own publishing, while we await one."""
        self._unconfirmed = 0
        self._stopped = False
        self._ends: dict[int, int] = {}
        self._last_news = time.monotonic()

    async def run(self, rounds: AsyncIterator[Sequence[Record]], pace: Pace) -> Tally:
        """Publish all rounds and wait until every record is accounted for.

        Raises
        ------
        BrokerError
            When the broker cannot be reached.
        StancewatchError
            When nothing comes back, or the worker died.
        """
        await provide_topics(self.settings)
        async with self._follower() as consumer, self._producer() as producer:
            following = asyncio.create_task(self._follow(consumer))
            try:
                async for records in rounds:
                    await self._publish(producer, records, pace)
                    await producer.flush()
                    await self._settle(consumer, following)
                    if self._open:
                        await self._account_for_silent()
                    if self._stopped:
                        break
            finally:
                following.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await following
        self.progress(self.tally)
        return self.tally

    def stop(self) -> None:
        """Publish nothing more; what was published is still followed to its end."""
        self._stopped = True

    # publish

    @contextlib.asynccontextmanager
    async def _producer(self) -> AsyncIterator[AIOKafkaProducer]:
        producer = AIOKafkaProducer(
            **client_options(self.settings),
            acks="all",
            max_request_size=self.settings.record_bytes_max + 65_536,
            linger_ms=5,
        )
        async with started(producer, self.settings):
            yield producer

    async def _publish(self, producer: AIOKafkaProducer, records: Sequence[Record], pace: Pace) -> None:
        started = time.monotonic()
        for seconds, record in pace.schedule(records):
            if (wait := started + seconds - time.monotonic()) > 0:
                self._last_news = time.monotonic() + wait
                await asyncio.sleep(wait)
            if self._stopped:
                return
            self._unconfirmed += 1
            try:
                sent = await producer.send(self.settings.events_topic, key=record.key, value=record.value)
            except MessageSizeTooLargeError:
                self._confirm()
                limit = self.settings.record_bytes_max
                self._refuse(record, f"{len(record.value)} bytes, the topic takes records of up to {limit}")
                continue
            sent.add_done_callback(lambda done, record=record: self._sent(done, record))

    def _sent(self, done: asyncio.Future[Any], record: Record) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            self._refuse(record, str(error) or type(error).__name__)
            self._confirm()
            return
        metadata = done.result()
        place = (metadata.partition, metadata.offset)
        self.tally.published += 1
        self._ends[place[0]] = max(self._ends.get(place[0], 0), place[1] + 1)
        self._open[place] = record
        if place in self._early:
            self._take(self._early.pop(place), place)
        self._confirm()
        self.progress(self.tally)

    def _confirm(self) -> None:
        """One send less is under way; with none, the answers that were kept belong to others."""
        self._unconfirmed -= 1
        if not self._unconfirmed:
            self._early.clear()

    def _refuse(self, record: Record, why: str) -> None:
        self.tally.refused.append(f"{record.origin}: {why}")
        self.progress(self.tally)

    # follow

    @contextlib.asynccontextmanager
    async def _follower(self) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(
            **client_options(self.settings),
            group_id=None,
            enable_auto_commit=False,
            max_partition_fetch_bytes=self.settings.record_bytes_max + 131_072,
            fetch_max_wait_ms=100,
            auto_offset_reset="earliest",
        )
        async with started(consumer, self.settings):
            partitions = await topic_partitions(
                self.settings, self.settings.assessments_topic, self.settings.dead_letters_topic
            )
            consumer.assign(partitions)
            await consumer.seek_to_end(*partitions)
            for partition in partitions:
                await consumer.position(partition)  # from here on; nothing published later is missed
            yield consumer

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        async for message in consumer:
            headers = {name: content.decode(errors="replace") for name, content in message.headers}
            try:
                place = (int(headers["partition"]), int(headers["offset"]))
            except (KeyError, ValueError):
                continue  # written by something else than our worker
            if headers.get("topic", self.settings.events_topic) != self.settings.events_topic:
                continue  # a dead letter of another topic
            if place in self._open:
                self._take(message, place)
            elif self._unconfirmed:
                self._early[place] = message

    def _take(self, message: Any, place: Place) -> None:
        """Count the answer to one of our records; a second answer to it (after a crash) says the same."""
        if message.topic == self.settings.dead_letters_topic:
            self.tally.dead_lettered += 1
            reason = dict(message.headers).get("reason", b"unknown")
            self.tally.reasons[reason.decode(errors="replace")] += 1
        else:
            assessment = decode_assessment(message.value)
            if assessment is None:
                return  # not one of ours, whatever its headers say
            self.tally.take(assessment)
            self.tally.assessed += 1
        del self._open[place]
        self._last_news = time.monotonic()
        self.progress(self.tally)

    # settle

    async def _settle(self, consumer: AIOKafkaConsumer, following: asyncio.Task[None]) -> None:
        """Wait until nothing is open, or the worker has committed past everything and its output is read."""
        async with started(AIOKafkaAdminClient(**client_options(self.settings)), self.settings) as admin:
            while self._open:
                self.check_worker()
                if following.done():
                    following.result()  # raises what ended it
                if await self._committed_past(admin):
                    await self._read_to_end(consumer)
                    return
                if time.monotonic() - self._last_news > self.stall_seconds:
                    message = (
                        f"nothing came back for {self.stall_seconds:.0f} s, {len(self._open)} records open:"
                        f" is a worker of group {self.settings.group!r} running on {self.settings.broker}?"
                    )
                    raise StancewatchError(message)
                await asyncio.sleep(0.1)

    async def _committed_past(self, admin: AIOKafkaAdminClient) -> bool:
        try:
            committed = await admin.list_consumer_group_offsets(
                self.settings.group,
                partitions=[
                    TopicPartition(self.settings.events_topic, partition) for partition in self._ends
                ],
            )
        except KafkaError:
            return False  # the group does not exist yet, or its coordinator moves
        offsets = {place.partition: at.offset for place, at in committed.items()}
        return all(offsets.get(partition, -1) >= end for partition, end in self._ends.items())

    async def _read_to_end(self, consumer: AIOKafkaConsumer) -> None:
        ends = await consumer.end_offsets(list(consumer.assignment()))
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            positions = {tp: await consumer.position(tp) for tp in ends}
            if all(positions[tp] >= end for tp, end in ends.items()):
                return
            await asyncio.sleep(0.05)
        message = "the assessments could not be read to their end within 30 s"
        raise BrokerError(message)

    async def _account_for_silent(self) -> None:
        """Records without output are duplicates when an earlier decision proves it, otherwise lost."""
        known = {event_id: decision.version for event_id, decision in self.tally.decisions.items()}
        silent = list(self._open.values())
        unknown = {r.event_id for r in silent if r.version > known.get(r.event_id, 0)}
        if unknown:
            async with self._follower() as consumer:
                known = await self._earlier_versions(consumer, unknown, known)
        for record in silent:
            if record.event_id and known.get(record.event_id, 0) >= record.version:
                self.tally.duplicates += 1
            else:
                self.tally.lost.append(record.origin)
        self._open.clear()

    async def _earlier_versions(
        self, consumer: AIOKafkaConsumer, wanted: set[str], known: dict[str, int]
    ) -> dict[str, int]:
        """Read the assessments from their beginning for ids that were decided before this run."""
        partitions = [tp for tp in consumer.assignment() if tp.topic == self.settings.assessments_topic]
        ends = await consumer.end_offsets(partitions)
        consumer.pause(*[tp for tp in consumer.assignment() if tp not in partitions])
        await consumer.seek_to_beginning(*partitions)
        found = dict(known)
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            batches = await consumer.getmany(timeout_ms=500)
            for message in (message for batch in batches.values() for message in batch):
                event_id = (message.key or b"").decode(errors="replace")
                assessment = decode_assessment(message.value) if event_id in wanted else None
                if assessment is not None:
                    found[event_id] = max(found.get(event_id, 0), assessment.version)
        return found


def metrics_counts(url: str) -> dict[str, dict[str, int]]:
    """Counts by topic and stance as a worker's ``/metrics`` gives them, zeros left out.

    Raises
    ------
    StancewatchError
        When the address does not answer.
    """
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own worker
            text = answer.read().decode()
    except OSError as error:
        message = f"no metrics at {url}: {error}"
        raise StancewatchError(message) from None
    counts: dict[str, Counter[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "stancewatch_assessments_total" and sample.value:
                counts.setdefault(sample.labels["topic"], Counter())[sample.labels["stance"]] += int(
                    sample.value
                )
    return {topic: dict(sorted(counts[topic].items())) for topic in sorted(counts)}
