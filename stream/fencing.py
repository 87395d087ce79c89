"""Keeps what a former owner of a partition writes late from becoming the state.

A worker that stands still for longer than the session timeout (SIGSTOP, a frozen machine) loses its
partitions. When it wakes up it does not know, and what it had in hand still goes out: old values behind the
newer ones of the new owner. Kafka takes them, and who recovers from that changelog would believe them. So:

1. Each ownership of a partition has a token: the generation of the consumer group (or a higher number if the
   state has seen one; the group was deleted meanwhile). Every changelog record carries the token of its
   writer in the header ``owner``. The new owner recovers the state and **claims** the partition: it writes a
   record into each changelog, recovers what else stands before it, and writes its token into the total.
2. A changelog to which one worker writes has no gaps between the offsets that the broker confirms to it.
   Where there is one, somebody else wrote: **what stands there is read**. With a lower token it was late:
   each such key is written once more, as our state has it. With a higher token the late one is us: the
   worker stops before it acknowledges anything. While no news comes, the ends of the changelogs tell it.
3. **Recovery passes over** records with a lower token than the highest before them, should the owner have
   died before it could write those keys once more; the next owner does. Each table remembers the highest
   token beside its state: recovery reads on where the state ends, and may not meet that token again.

The local store counts as filled up to where it was recovered without a gap, then up to where the changelog
is known to be ours.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition
from faust.types import TP

from stream.app import StateTable, StreamApp, owner_of
from stream.errors import StateError
from stream.metrics import Metrics
from stream.reading import Range, read, reader
from stream.tables import TOTAL, counts_key, stored

__all__ = ["Fence"]

log = logging.getLogger("stancewatch.fencing")

RECOVERY_BATCH = 2000
PROGRESS_SECONDS = 5.0

CLAIM = b"%d"
"""Key of an owner's first record, by partition: it deletes what no state has (keys of that have a bar)."""


class Fence:
    """Of one worker.

    Parameters
    ----------
    app : StreamApp
    metrics : Metrics
    """

    def __init__(self, app: StreamApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics
        self._next: dict[TP, int] = {}
        """Where the next write to each owned changelog partition must land."""

    @property
    def _tables(self) -> tuple[StateTable, StateTable]:
        return self.app.identities, self.app.counts

    def release(self) -> None:
        """Forget all partitions; a rebalance is over, and :meth:`claim` follows."""
        self._next = {}

    async def recover(self, partitions: Iterable[TP]) -> None:
        """Bring the state of partitions of ``news.events`` up to the ends that the brokers tell.

        A broker that has just become the leader tells an older end until its followers have asked again
        (KIP-207): the rest comes with the claim.
        """
        tables = {TP(t.changelog_topic_name, tp.partition): t for t in self._tables for tp in partitions}
        ends = await self.app.faust.consumer.highwaters(*tables)
        stretches = {place: (table.filled(place.partition), ends[place]) for place, table in tables.items()}
        started = time.monotonic()
        records = await self._recover(tables, stretches)
        if records:
            log.info("recovered the state: %d records in %.1f s", records, time.monotonic() - started)
        self._next = {place: table.filled(place.partition) for place, table in tables.items()}

    async def _recover(self, tables: Mapping[TP, StateTable], stretches: Mapping[TP, Range]) -> int:
        """Apply stretches of changelogs to their tables; how many records that were."""
        waiting: dict[StateTable, list[Any]] = {table: [] for table in tables.values()}
        records = 0
        told = time.monotonic()
        async for record in self._read(stretches):
            records += 1
            table = tables[TP(record.topic, record.partition)]
            waiting[table].append(_recovered(record))
            if len(waiting[table]) == RECOVERY_BATCH:
                table.apply_changelog_batch(waiting[table])
                waiting[table] = []
            if time.monotonic() - told > PROGRESS_SECONDS:
                told = time.monotonic()
                offsets = sum(end - begin for begin, end in stretches.values())
                log.info("recovering the state: %d records of at most %d", records, offsets)
        for table, rest in waiting.items():
            table.apply_changelog_batch(rest)
        for place, (begin, end) in stretches.items():
            if begin < end:
                tables[place].fill(place.partition, end)
        return records

    async def claim(self, generation: int, partitions: Iterable[TP]) -> None:
        """Take partitions whose state was recovered.

        Parameters
        ----------
        generation : int
            Of the consumer group.
        partitions : iterable of TP
            Of ``news.events``.

        Raises
        ------
        StateError
            When a changelog holds less than the state.
        """
        for place in partitions:
            await self._claim(place.partition, generation)

    async def _claim(self, partition: int, generation: int) -> None:
        seen = max(self.app.total(partition).owner, *(t.highest_owner(partition)[0] for t in self._tables))
        owner = max(generation, seen + 1)
        for table in self._tables:
            table.owners[partition] = owner
            table.note_owner(partition, owner, await self._complete_recovery(table, partition))
        total = self.app.total(partition)
        total.owner = owner
        counts, key = self.app.counts, counts_key(partition, TOTAL)
        counts.put_at(partition, key, stored(total))
        await self._account(counts, partition, await counts.send_stored(partition, [key]))
        for table in self._tables:
            late = table.late.pop(partition, set())
            await self._account(table, partition, await self._put_right(table, partition, late))

    async def _complete_recovery(self, table: StateTable, partition: int) -> int:
        """Recover what stands (confirmed) before our first record; tell where our next one must land."""
        place = TP(table.changelog_topic_name, partition)
        begin = table.filled(partition)
        (end,) = await table.send_stored(partition, [CLAIM % partition])
        _insist(place, end, begin)
        missed = await self._recover({place: table}, {place: (begin, end)})
        if missed:
            log.warning("%s[%d]: recovery missed %d records; completed", table.name, partition, missed)
        if table.highest_owner(partition)[0] > table.owners[partition]:
            raise _taken_over(partition)
        table.fill(partition, end + 1)
        if place in self._next:  # no rebalance meanwhile
            self._next[place] = end + 1
        return end + 1

    async def confirm(self) -> None:
        """Wait until the changelogs have what the batch wrote, and nothing late of others behind our state.

        Raises
        ------
        StateError
            When another worker has taken a partition over and wrote to its changelog: this one stood still.
        """
        for table in self._tables:
            for partition, offsets in (await table.wait_for_changelog()).items():
                await self._account(table, partition, offsets)

    async def ends(self) -> Mapping[TP, int]:
        """Where the changelogs that we own end."""
        places = list(self._next)
        return await self.app.faust.consumer.highwaters(*places) if places else {}

    async def look(self, ends: Mapping[TP, int]) -> None:
        """Put right what was written late while no events came, below ends of a moment ago."""
        for table in self._tables:
            for place, expected in dict(self._next).items():
                if place.topic == table.changelog_topic_name and ends.get(place, 0) > expected:
                    with contextlib.suppress(StateError):  # taken over; nothing was done yet that is wrong
                        await self._account(table, place.partition, [], ends[place])

    async def _account(self, table: StateTable, partition: int, offsets: Sequence[int], end: int = 0) -> None:
        """Note our writes at these offsets; put right what stands between them and below the `end`."""
        place = TP(table.changelog_topic_name, partition)
        if offsets:
            _insist(place, min(offsets), self._next.get(place, 0))
        while place in self._next and (end or offsets):
            end = max([end - 1, *offsets]) + 1
            late: set[bytes] = set()
            for gap in _gaps(self._next[place], offsets, end):
                late |= await self._written_late(table, place, gap)
            if place in self._next:
                self._next[place] = max(end, self._next[place])
                table.fill(partition, self._next[place])
            offsets, end = await self._put_right(table, partition, late), 0

    async def _written_late(self, table: StateTable, place: TP, gap: Range) -> set[bytes]:
        """Keys that others wrote in a stretch of a changelog."""
        late = set()
        async for record in self._read({place: gap}):
            if owner_of(record.headers) > table.owners[place.partition]:
                raise _taken_over(place.partition)
            late.add(record.key)
        return late

    async def _read(self, stretches: Mapping[TP, Range]) -> AsyncIterator[Any]:
        """Records in stretches of changelogs."""
        wanted = {TopicPartition(*place): gap for place, gap in stretches.items() if gap[0] < gap[1]}
        if wanted:
            async with reader(self.app.settings) as consumer:
                async for record in read(consumer, wanted):
                    yield record

    async def _put_right(self, table: StateTable, partition: int, keys: set[bytes]) -> list[int]:
        """Write keys once more as our state has them; the offsets."""
        if not keys:
            return []
        log.warning("%s[%d]: %d keys were written late; put right", table.name, partition, len(keys))
        self.metrics.late_writes.inc(len(keys))
        return await table.send_stored(partition, sorted(keys))


def _insist(place: TP, offset: int, expected: int) -> None:
    """See that what we wrote landed behind what stood before."""
    if offset < expected:
        message = (
            f"{place.topic}[{place.partition}] holds less than was confirmed: it was deleted and created"
            " again, or its brokers lost it. To count anew from the log, use another STANCEWATCH_GROUP"
        )
        raise StateError(message)


def _taken_over(partition: int) -> StateError:
    return StateError(
        f"partition {partition} was taken over while this worker stood still for longer"
        " than STANCEWATCH_SESSION_TIMEOUT_SECONDS; stopping: the new owner has its events"
    )


def _recovered(record: Any) -> Any:
    """A record of a changelog in the form that tables of Faust take."""
    message = SimpleNamespace(
        tp=TP(record.topic, record.partition),
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        value=record.value,
        headers=record.headers,
    )
    return SimpleNamespace(message=message, key=record.key, value=record.value)


def _gaps(begin: int, offsets: Iterable[int], end: int) -> Iterator[Range]:
    """Stretches (first, end) between `begin` and `end` that are not among the offsets."""
    for offset in [*sorted(offsets), end]:
        if begin < offset:
            yield begin, offset
        begin = max(begin, offset + 1)
