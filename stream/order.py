"""Insists that records are handled in the order of the log, without gaps.

Faust drops records that it fetched before a rebalance or a recovery was over, and reads on behind them when
nothing has been committed yet (aiokafka's ``seek_to_committed`` does not move without a committed offset).
Counting what follows would raise the applied offset over records that were never seen: they would be lost.
So each partition has an expected offset. Where records do not follow on each other, the log itself is asked
whether it holds one in between: behind that nothing is handled, and Faust reads from there again. A gap
without one is of the log (transactions, their marks, compaction) and is passed over at once. What was dropped
at the end of a partition shows in no gap: :meth:`LogOrder.look` asks every few seconds.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from itertools import groupby
from typing import Any

from aiokafka.errors import IllegalStateError, KafkaError
from faust.types import TP

from stream.errors import BrokerError

__all__ = ["LogOrder"]

log = logging.getLogger("stancewatch.order")

Missing = Callable[[TP, int, int, Collection[int]], Awaitable[int | None]]


class LogOrder:
    """Expected offsets of the partitions of one generation of the consumer group.

    Parameters
    ----------
    seek : callable
        ``await seek(TP(topic, partition), offset)``: read from there again.
    missing : callable
        ``await missing(TP(topic, partition), begin, end, known)``: offset of the first record that the log
        holds from `begin` and below `end`, but for those at `known` offsets; None without one.
    """

    def __init__(self, seek: Callable[[TP, int], Awaitable[None]], missing: Missing) -> None:
        self._seek = seek
        self._missing = missing
        self._generation = -1
        self._expected: dict[int, int] = {}
        self._waited: dict[int, int] = {}
        """Expected offsets of the partitions that had more at the last look."""

    def start_at(self, generation: int, positions: Mapping[int, int]) -> None:
        """Set where each owned partition begins in a new generation."""
        self._generation = generation
        self._expected = dict(positions)
        self._waited = {}

    async def keep(self, batch: Sequence[Any], generation: int) -> list[Any]:
        """Records (Faust events) of this generation by partition and offset, up to a missing one of each.

        Nothing while the start of the generation is not known: those records are read again from it.
        """
        if self._generation != generation:
            return []
        current = [event for event in batch if event.message.generation_id == generation]
        current.sort(key=lambda event: (event.message.partition, event.message.offset))
        kept: list[Any] = []
        for partition, members in groupby(current, key=lambda event: event.message.partition):
            kept.extend(await self._up_to_missing(partition, list(members)))
            if self._generation != generation:  # a rebalance while the log was asked
                return []
        return kept

    async def _up_to_missing(self, partition: int, members: Sequence[Any]) -> Sequence[Any]:
        place = TP(members[0].message.topic, partition)
        offsets = [event.message.offset for event in members]
        expected = self._expected.get(partition, offsets[0])
        generation = self._generation
        missing = await self._first_missing(place, expected, offsets)
        if self._generation != generation:
            return []
        self._expected[partition] = max(expected, offsets[-1] + 1) if missing is None else missing
        if missing is None:
            return members
        await self._read_again(place, missing)
        return [event for event in members if event.message.offset < missing]

    async def look(self, ends: Mapping[TP, int]) -> None:
        """Read again what was dropped at the end of partitions.

        Of those that had more than was handled at the last look, and of which nothing was handled since.

        Parameters
        ----------
        ends : mapping
            Where the partitions of this generation end.
        """
        before, self._waited = self._waited, {}
        for place, end in ends.items():
            expected = self._expected.get(place.partition, end)
            if expected >= end:
                continue
            self._waited[place.partition] = expected
            if before.get(place.partition) == expected:
                missing = await self._missing(place, expected, end, ())
                if self._expected.get(place.partition) != expected:  # it went on, or was taken anew
                    continue
                if missing is None:
                    self._expected[place.partition] = end
                else:
                    await self._read_again(place, missing)

    async def _read_again(self, place: TP, offset: int) -> None:
        log.warning("%s[%d]: %d is missing; reading again", *place, offset)
        with contextlib.suppress(IllegalStateError):  # moved away meanwhile: its new owner reads it
            await self._seek(place, offset)

    async def _first_missing(self, place: TP, expected: int, offsets: Sequence[int]) -> int | None:
        known = {offset for offset in offsets if offset >= expected}
        end = offsets[-1]
        if end < expected or len(known) == end + 1 - expected:
            return None
        try:
            return await self._missing(place, expected, end, known)
        except (BrokerError, KafkaError, TimeoutError) as error:
            log.warning("%s[%d]: cannot tell what is behind %d: %s", *place, expected, error)
            return next(offset for offset in range(expected, end) if offset not in known)
