"""The way of one event, from bytes to acknowledged, in the order in which it happens.

A batch of records goes through these steps:

1. **receive**: drop what belongs to a partition that has moved away (its new owner gets it again), and
   insist on the order of the log (``stream.order`` says why);
2. **decode**: bytes to :class:`Event`, or a dead letter;
3. **judge**: first version, correction, retraction or duplicate (``stream.tables.judge``), by what is not
   too old to be kept (``stream.retention``);
4. **classify**: one vectorised call for the whole batch, in a thread;
5. **emit**: assessments and dead letters, and wait until the broker has them;
6. **count**: state of each partition, one write per touched key; sweep a stretch of what has expired;
7. **confirm**: wait until the changelog has the state, and nobody else's (``stream.fencing``);
8. **acknowledge**.

Where a crash can hit, and what follows on redelivery:

* before 5 ends: nothing is stored; everything happens again, a part of the output may be written twice
  with the same content (consumers take the last record per event id and version);
* between 5 and 7: some keys are stored and some are not. Each key skips what it has applied (its offset
  says so) and takes what it lacks; decisions are the same because they depend on lower offsets only;
* after 7: everything is skipped, all touched keys are written once more, and the batch is acknowledged;
* a worker that stands still anywhere for so long that its partitions move: what it writes when it wakes up is
  put right by the new owner (``stream.fencing``).

An error that nobody foresaw ends the process at once (:func:`give_up`): after ``noack_take`` Faust would
go on without ever committing again.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from aiokafka import TopicPartition
from faust.types import TP
from prometheus_client.context_managers import Timer

from classifiers.assessor import Assessor
from classifiers.decisions import TopicDecision
from classifiers.language import SUPPORTED, language_of
from stream.app import OWNER_HEADER, StreamApp
from stream.errors import Reason, RejectedEvent, Stage, StancewatchError
from stream.fencing import Fence
from stream.metrics import OTHER, Metrics
from stream.monitor import CommitClock, SourceClock, exemplar
from stream.order import LogOrder
from stream.reading import first_missing
from stream.records import Item, check_key, dead_letter, origin, record_time
from stream.retention import Retention
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
    entry_at,
    forget,
    hour_of,
    identity_key,
    judge,
    outcome_of,
    read_counts,
    read_identity,
    stored,
    trim,
)

__all__ = ["EventProcessor", "register_agent"]

log = logging.getLogger("stancewatch.agent")

EXIT_SOFTWARE = 70  # EX_SOFTWARE of sysexits.h: the supervisor restarts us


class UnclassifiableError(Exception):
    """The model failed on a batch of several events; they are taken one by one."""


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
        self.acknowledged = CommitClock()
        self.sources = SourceClock(metrics)
        self.order = LogOrder(self._seek, self._missing)
        self.retention = Retention(app.counts, app.identities, settings)
        self.fence = Fence(app, metrics)
        self.busy = asyncio.Lock()
        """Held while a batch is on its way from judging to acknowledging; so its writes are not in hand."""

    async def _seek(self, place: TP, offset: int) -> None:
        await self.app.seek({place: offset})

    async def _missing(self, place: TP, begin: int, end: int, known: Collection[int]) -> int | None:
        return await first_missing(self.settings, TopicPartition(*place), begin, end, known)

    async def process(self, batch: Sequence[Any]) -> None:
        """Take one batch of Faust events from bytes to acknowledged."""
        items = await self.receive(batch)
        if not items:
            return
        self.metrics.batch_events.observe(len(items))
        with self.metrics.batch_seconds.time():
            with self._timed("decode"):
                for item in items:
                    self.decode(item)
            async with self.busy:
                try:
                    await self.handle(items)
                except UnclassifiableError:
                    log.warning(
                        "a batch of %d events could not be classified; taking them one by one", len(items)
                    )
                    for item in items:
                        await self.handle([item])

    def _timed(self, stage: str) -> Timer:
        return self.metrics.stage_seconds.labels(stage).time()

    async def handle(self, items: Sequence[Item]) -> None:
        """Take decoded records through the steps from judging to acknowledging."""
        by_partition = _group(items, lambda item: item.partition)
        identities: dict[bytes, Identity] = {}
        with self._timed("judge"):
            for members in by_partition.values():
                self.judge(members, identities)
        with self._timed("classify"):
            await self.classify([item for item in items if item.needs_classifier], alone=len(items) == 1)
        with self._timed("emit"):
            await self.emit(items)
        if self.lost_partitions(items):
            return
        with self._timed("count"):
            for members in by_partition.values():
                self.count(members, identities)
        with self._timed("confirm"):
            await self.fence.confirm()
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
            clock = read_counts(self.app.counts, counts_key(members[0].partition, TOTAL))
            for item in members:
                item.counted = item.offset <= clock.offset
                if not item.counted:
                    clock.pass_record(item.offset, item.written_at)
                if item.event is None:
                    continue
                if item.counted and (clock.is_settled(item.offset) or clock.was_rejected(item.offset)):
                    item.judgement = Judgement(duplicate=True)  # counted, whatever it was: nothing follows
                    continue
                item.day = clock.day_at(item.offset)
                key = identity_key(item.partition, item.event.id)
                if key not in identities:
                    identities[key] = read_identity(self.app.identities, key)
                identity = identities[key]
                oldest = item.day - self.settings.identity_days
                item.judgement = judge(identity, item.event.version, item.offset, oldest)
                if not item.judgement.duplicate:
                    if not item.counted:
                        clock.latest = max(clock.latest, item.event.published_at.timestamp())
                    item.kept_from = clock.kept_from(self.settings.bucket_days)
                    if item.judgement.redelivered is None:
                        # The vote follows after classification; the entry already counts for the next record.
                        hour = hour_of(item.event.published_at)
                        accept(identity, Accepted(item.event.version, item.offset, hour, {}, day=item.day))

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
            if items[0].counted:  # its vote stands, and its id is known again
                items[0].judgement = Judgement(duplicate=True)
                return
            detail = f"{type(error).__name__}: {error}"
            items[0].rejection = RejectedEvent(Reason.UNCLASSIFIABLE, Stage.CLASSIFY, detail)
            return
        longest = max(events, key=lambda event: len(event.text))
        self.metrics.classify_seconds.observe(time.perf_counter() - started, exemplar(longest))
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
                if item.counted:  # a letter could only contradict what was sent then
                    continue
                letter = dead_letter(message, item.rejection, now)
                topic, value, headers = self.app.dead_letters, message.value, letter.headers()
            elif item.event is not None and item.is_new:
                assessment = make_assessment(
                    item.event, item.decisions, self.assessor.name, now, language=item.language
                )
                topic, value = self.app.assessments, encode(assessment)
                headers = origin(message)
            else:
                continue
            owner = (OWNER_HEADER, b"%d" % self.app.counts.owners.get(item.partition, 0))
            sent.append(await topic.send(key=message.key, value=value, headers=[*headers, owner]))
        await asyncio.gather(*sent)

    # 6. count

    def count(self, members: Sequence[Item], identities: dict[bytes, Identity]) -> None:
        """Write identities and counts of one partition; update the metrics of this process."""
        partition = members[0].partition
        committed = self.app.committed(partition)
        with self.app.counts.partition_of(members[0].source):
            before = read_counts(self.app.counts, counts_key(partition, TOTAL))
            changes = [self._change(item, identities) for item in members]
            touched = {identity_key(partition, item.event.id) for item in members if item.event}
            for key in touched & identities.keys():
                trim(identities[key], before.settled)
                self.app.identities[key] = stored(identities[key])
            skipped = apply_changes(self.app.counts, partition, changes, committed)
            swept = self.retention.sweep(partition, before, committed, len(members))
        self.metrics.redelivered.inc(skipped)
        for table, entries in zip(("counts", "identities"), swept, strict=True):
            self.metrics.swept.labels(table).inc(entries)
        for item, change in zip(members, changes, strict=True):
            if not item.counted:
                self._observe(item, change.outcome)

    def _change(self, item: Item, identities: dict[bytes, Identity]) -> Change:
        event, judgement = item.event, item.judgement
        if item.rejection is not None or event is None or judgement is None:
            if event is not None and judgement is not None and not judgement.duplicate:
                forget(identities[identity_key(item.partition, event.id)], item.offset)
            return Change(item.offset, Outcome.DEAD_LETTER, written_at=item.written_at)
        if judgement.duplicate:
            return Change(item.offset, Outcome.DUPLICATE, written_at=item.written_at)
        entry = judgement.redelivered
        if entry is None:
            votes: dict[str, str] = {decision.topic: decision.stance for decision in item.decisions}
            hour, unsupported = hour_of(event.published_at), item.language not in SUPPORTED
            entry = Accepted(event.version, item.offset, hour, votes, unsupported, item.day)
            accept(identities[identity_key(item.partition, event.id)], entry)
        bucket = item.kept(entry.hour)
        outcome = outcome_of(judgement, entry, retracted=event.retracted, late=bucket is None)
        change = Change(item.offset, outcome, event.published_at.timestamp(), written_at=item.written_at)
        if judgement.prior is not None:
            # Looked up again: with both versions in one batch, the vote was not known at the judgement.
            prior = entry_at(identities[identity_key(item.partition, event.id)], judgement.prior.offset)
            change.casts.append((item.kept(prior.hour), prior.votes, -1))
        change.casts.append((bucket, entry.votes, 1))
        return change

    def _observe(self, item: Item, outcome: Outcome) -> None:
        metrics = self.metrics
        metrics.events.labels(outcome.value).inc()
        if item.rejection is not None:
            metrics.dead_letters.labels(item.rejection.stage.value, item.rejection.reason.value).inc()
        elif item.event is not None and outcome is not Outcome.DUPLICATE:
            event_id = exemplar(item.event)
            age = max(0.0, time.time() - item.event.published_at.timestamp())
            metrics.event_age.observe(age, event_id)
            if item.needs_classifier:  # a retraction is not read
                metrics.languages.labels(item.language if item.language in SUPPORTED else OTHER).inc()
            self.sources.saw(item.event.source)
            for decision in item.decisions:
                if decision.stance_probability > 0:  # 0: the topic has no model of stance
                    probability = metrics.stance_probability.labels(metrics.slot(decision.topic))
                    probability.observe(decision.stance_probability, event_id)

    # 8. acknowledge

    def acknowledge(self, items: Sequence[Item]) -> None:
        """Let Faust commit the offsets of these records."""
        for item in items:
            item.source.ack()
            self.acknowledged.note(item.partition, item.offset)


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
    if isinstance(error, StancewatchError):
        log.critical("%s", error)
    elif os.strerror(errno.ENOSPC) in str(error):  # RocksDB raises bare exceptions
        log.critical(
            "the disk of the state (STANCEWATCH_DATA_DIR) is full; stopping, events in hand will be delivered"
            " again once there is space: %s",
            error,
        )
    else:
        log.critical("unexpected error; stopping, events in hand will be delivered again", exc_info=error)
    logging.shutdown()
    os._exit(EXIT_SOFTWARE)


def _group(items: Iterable[Item], key: Callable[[Item], int]) -> dict[int, list[Item]]:
    groups: dict[int, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
