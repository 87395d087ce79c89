"""The way of one event, from bytes to acknowledged, in the order in which it happens.

A batch of records goes through these steps:

1. **receive**: drop what belongs to a partition that has moved away (its new owner gets it again), and
   insist on the order of the log (``stream.order`` says why);
2. **decode**: bytes to :class:`Event`, or a dead letter;
3. **judge**: first version, correction, retraction or duplicate (``stream.tables.judge``);
4. **classify**: one vectorised call for the whole batch, in a thread;
5. **emit**: assessments and dead letters, and wait until the broker has them;
6. **count**: state of each partition, one write per touched key;
7. **confirm**: wait until the changelog has the state;
8. **acknowledge**.

Where a crash can hit, and what follows on redelivery:

* before 5 ends: nothing is stored; everything happens again, a part of the output may be written twice
  with the same content (consumers take the last record per event id and version);
* between 5 and 7: some keys are stored and some are not. Each key skips what it has applied (its offset
  says so) and takes what it lacks; decisions are the same because they depend on lower offsets only;
* after 7: everything is skipped, all touched keys are written once more, and the batch is acknowledged.

An error that nobody foresaw ends the process at once (:func:`give_up`): after ``noack_take`` Faust would
go on without ever committing again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from faust.types import TP

from classifiers.assessor import Assessor
from classifiers.decisions import TopicDecision
from classifiers.language import SUPPORTED, language_of
from stream.app import StreamApp
from stream.errors import Reason, RejectedEvent, Stage, StateError
from stream.metrics import Metrics
from stream.order import LogOrder
from stream.records import check_key, dead_letter, origin, record_time
from stream.schema import Event, decode_event, encode, make_assessment
from stream.settings import Settings
from stream.tables import (
    TOTAL,
    Accepted,
    Change,
    Identity,
    Judgement,
    Outcome,
    accept,
    apply_changes,
    counts_key,
    hour_of,
    identity_key,
    judge,
    read_counts,
    read_identity,
    stored,
)

__all__ = ["EventProcessor", "register_agent"]

log = logging.getLogger("stancewatch.agent")

EXIT_SOFTWARE = 70  # EX_SOFTWARE of sysexits.h: the supervisor restarts us


class UnclassifiableError(Exception):
    """The model failed on a batch of several events; they are taken one by one."""


@dataclass(slots=True)
class Item:
    """One record on its way through the batch; each step fills its part."""

    source: Any
    """The Faust event: ``message`` with topic, partition, offset, key, value; ``ack()``."""
    event: Event | None = None
    rejection: RejectedEvent | None = None
    judgement: Judgement | None = None
    decisions: Sequence[TopicDecision] = ()
    language: str = "en"

    @property
    def partition(self) -> int:
        """Kafka partition."""
        return int(self.source.message.partition)

    @property
    def offset(self) -> int:
        """Kafka offset."""
        return int(self.source.message.offset)

    @property
    def needs_classifier(self) -> bool:
        """Accepted for the first time, with a vote to cast."""
        return (
            self.event is not None
            and self.rejection is None
            and self.judgement is not None
            and not self.judgement.duplicate
            and self.judgement.redelivered is None
            and not self.event.retracted
        )


class EventProcessor:
    """The steps above, each a method; the Faust agent only calls :meth:`process`.

    Parameters
    ----------
    app : StreamApp
        Topics and tables.
    assessor : Assessor
        Topic and stance model.
    metrics : Metrics
        Of this process.
    settings : Settings
    """

    def __init__(self, app: StreamApp, assessor: Assessor, metrics: Metrics, settings: Settings) -> None:
        self.app = app
        self.assessor = assessor
        self.metrics = metrics
        self.settings = settings
        self.future_tolerance = timedelta(hours=settings.future_tolerance_hours)
        self.acknowledged: dict[int, tuple[int, float]] = {}
        """Highest acknowledged offset of each partition and when (monotonic seconds)."""
        self.order = LogOrder(self._seek)

    async def _seek(self, place: TP, offset: int) -> None:
        await self.app.seek({place: offset})

    async def process(self, batch: Sequence[Any]) -> None:
        """Take one batch of Faust events from bytes to acknowledged."""
        items = await self.receive(batch)
        if not items:
            return
        self.metrics.batch_events.observe(len(items))
        for item in items:
            self.decode(item)
        try:
            await self.handle(items)
        except UnclassifiableError:
            log.warning("a batch of %d events could not be classified; taking them one by one", len(items))
            for item in items:
                await self.handle([item])

    async def handle(self, items: Sequence[Item]) -> None:
        """Take decoded records through the steps from judging to acknowledging."""
        by_partition = _group(items, lambda item: item.partition)
        identities: dict[bytes, Identity] = {}
        for members in by_partition.values():
            self.judge(members, identities)
        await self.classify([item for item in items if item.needs_classifier], alone=len(items) == 1)
        await self.emit(items)
        if self.lost_partitions(items):
            return
        for members in by_partition.values():
            self.count(members, identities)
        await self.app.identities.wait_for_changelog()
        await self.app.counts.wait_for_changelog()
        self.acknowledge(items)
        self.metrics.last_event.set_to_current_time()

    # 1. receive

    async def receive(self, batch: Sequence[Any]) -> list[Item]:
        """Keep the records of this generation of the consumer group, in the order of the log."""
        return [Item(event) for event in await self.order.keep(batch, self.app.faust.consumer_generation_id)]

    def lost_partitions(self, items: Sequence[Item]) -> bool:
        """Whether a rebalance began while the batch was on its way; its records come again."""
        generation = self.app.faust.consumer_generation_id
        lost = any(item.source.message.generation_id != generation for item in items)
        if lost:
            log.warning("rebalance during a batch: %d records are left to be delivered again", len(items))
        return lost

    # 2. decode

    def decode(self, item: Item) -> None:
        """Bytes to event; a rejection is kept on the item."""
        message = item.source.message
        try:
            event = decode_event(
                message.value,
                # The time of the record, not of this attempt: delivered again, it must be judged the same.
                now=record_time(message),
                bytes_max=self.settings.event_bytes_max,
                future_tolerance=self.future_tolerance,
            )
            check_key(message.key, event.id)
            item.event = event
        except RejectedEvent as rejection:
            item.rejection = rejection

    # 3. judge

    def judge(self, members: Sequence[Item], identities: dict[bytes, Identity]) -> None:
        """Tell first versions, corrections and duplicates apart; `identities` collects what is read."""
        with self.app.identities.partition_of(members[0].source):
            for item in members:
                if item.event is None:
                    continue
                key = identity_key(item.partition, item.event.id)
                if key not in identities:
                    identities[key] = read_identity(self.app.identities, key)
                identity = identities[key]
                item.judgement = judge(identity, item.event.version, item.offset)
                if not item.judgement.duplicate and item.judgement.redelivered is None:
                    # The vote follows after classification; the entry already counts for the next record.
                    entry = Accepted(item.event.version, item.offset, hour_of(item.event.published_at), {})
                    accept(identity, entry)

    # 4. classify

    async def classify(self, items: Sequence[Item], *, alone: bool) -> None:
        """Decide on all new events at once.

        Raises
        ------
        UnclassifiableError
            When the model fails on a batch of several records: others in it were judged on the assumption
            that this one is accepted. An event that is `alone` in its batch becomes a dead letter instead.
        """
        if not items:
            return
        events = [item.event for item in items if item.event is not None]
        started = time.perf_counter()
        try:
            languages, decisions = await asyncio.to_thread(self._judge_texts, events)
        except Exception as error:
            if not alone:
                raise UnclassifiableError from error
            log.exception("event %r could not be classified", items[0].event and items[0].event.id)
            detail = f"{type(error).__name__}: {error}"
            items[0].rejection = RejectedEvent(Reason.UNCLASSIFIABLE, Stage.CLASSIFY, detail)
            return
        self.metrics.classify_seconds.observe(time.perf_counter() - started)
        for item, language, decided in zip(items, languages, decisions, strict=True):
            item.language, item.decisions = language, decided

    def _judge_texts(self, events: Sequence[Event]) -> tuple[list[str], list[list[TopicDecision]]]:
        """Language and topics of each event; runs in a thread."""
        languages = [language_of(event.title, event.text, event.language) for event in events]
        documents = [(event.title, event.text) for event in events]
        return languages, self.assessor.assess_supported(documents, languages)

    # 5. emit

    async def emit(self, items: Sequence[Item]) -> None:
        """Send assessments and dead letters; return when the broker has confirmed them all."""
        now = datetime.now(UTC)
        sent = []
        for item in items:
            message = item.source.message
            if item.rejection is not None:
                letter = dead_letter(message, item.rejection, now)
                topic, value, headers = self.app.dead_letters, message.value, letter.headers()
            elif item.event is not None and _is_new(item):
                assessment = make_assessment(
                    item.event, item.decisions, self.assessor.name, now, language=item.language
                )
                topic, value = self.app.assessments, encode(assessment)
                headers = origin(message)
            else:
                continue
            sent.append(await topic.send(key=message.key, value=value, headers=headers))
        await asyncio.gather(*sent)

    # 6. count

    def count(self, members: Sequence[Item], identities: dict[bytes, Identity]) -> None:
        """Write identities and counts of one partition; update the metrics of this process."""
        with self.app.counts.partition_of(members[0].source):
            counted = read_counts(self.app.counts, counts_key(members[0].partition, TOTAL)).offset
            changes = [self._change(item, identities) for item in members]
            for key in {identity_key(item.partition, item.event.id) for item in members if item.event}:
                self.app.identities[key] = stored(identities[key])
            skipped = apply_changes(self.app.counts, members[0].partition, changes)
        self.metrics.redelivered.inc(skipped)
        for item, change in zip(members, changes, strict=True):
            if item.offset > counted:
                self._observe(item, change.outcome)

    def _change(self, item: Item, identities: dict[bytes, Identity]) -> Change:
        event, judgement = item.event, item.judgement
        if item.rejection is not None or event is None or judgement is None:
            if event is not None and judgement is not None and not judgement.duplicate:
                _forget(identities[identity_key(item.partition, event.id)], item.offset)
            return Change(item.offset, Outcome.DEAD_LETTER)
        if judgement.duplicate:
            return Change(item.offset, Outcome.DUPLICATE)
        entry = judgement.redelivered
        if entry is None:
            votes: dict[str, str] = {decision.topic: decision.stance for decision in item.decisions}
            unsupported = item.language not in SUPPORTED
            entry = Accepted(event.version, item.offset, hour_of(event.published_at), votes, unsupported)
            accept(identities[identity_key(item.partition, event.id)], entry)
        change = Change(item.offset, _outcome(event, judgement, entry), event.published_at.timestamp())
        if judgement.prior is not None:
            # Looked up again: with both versions in one batch, the vote was not known at the judgement.
            prior = _entry_at(identities[identity_key(item.partition, event.id)], judgement.prior.offset)
            change.casts.append((prior.hour, prior.votes, -1))
        change.casts.append((entry.hour, entry.votes, 1))
        return change

    def _observe(self, item: Item, outcome: Outcome) -> None:
        exemplar = (
            {"event_id": item.event.id[:64]} if item.event is not None and item.event.id.isascii() else None
        )
        self.metrics.events.labels(outcome.value).inc()
        if item.rejection is not None:
            self.metrics.dead_letters.labels(item.rejection.stage.value, item.rejection.reason.value).inc()
        elif item.event is not None and outcome is not Outcome.DUPLICATE:
            age = max(0.0, time.time() - item.event.published_at.timestamp())
            self.metrics.event_age.observe(age, exemplar)

    # 8. acknowledge

    def acknowledge(self, items: Sequence[Item]) -> None:
        """Let Faust commit the offsets of these records."""
        for item in items:
            item.source.ack()
            self.acknowledged[item.partition] = (item.offset, time.monotonic())


def register_agent(app: StreamApp, processor: EventProcessor) -> None:
    """Attach the one agent that consumes ``news.events``."""
    settings = processor.settings

    async def assess(stream: Any) -> None:
        """Faust calls this once; the loop ends with the process."""
        try:
            async for batch in stream.noack_take(settings.batch_events, within=settings.batch_seconds):
                await processor.process(batch)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - see give_up
            give_up(error)

    app.faust.agent(app.events, name="assess", concurrency=1)(assess)


def give_up(error: Exception) -> NoReturn:
    """End the process without committing: what it had in hand is delivered again."""
    if isinstance(error, StateError):
        log.critical("%s", error)
    else:
        log.critical("unexpected error; stopping, events in hand will be delivered again", exc_info=error)
    logging.shutdown()
    os._exit(EXIT_SOFTWARE)


def _group(items: Iterable[Item], key: Callable[[Item], int]) -> dict[int, list[Item]]:
    groups: dict[int, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _is_new(item: Item) -> bool:
    return item.judgement is not None and not item.judgement.duplicate and item.judgement.redelivered is None


def _entry_at(identity: Identity, offset: int) -> Accepted:
    return next(entry for entry in identity.accepted if entry.offset == offset)


def _forget(identity: Identity, offset: int) -> None:
    identity.accepted = [entry for entry in identity.accepted if entry.offset != offset]


def _outcome(event: Event, judgement: Judgement, entry: Accepted) -> Outcome:
    if event.retracted:
        return Outcome.RETRACTED
    if judgement.prior is not None:
        return Outcome.CORRECTED
    if entry.unsupported:
        return Outcome.UNSUPPORTED_LANGUAGE
    return Outcome.ASSESSED if entry.votes else Outcome.OFF_TOPIC
