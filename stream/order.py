"""Insists that records are handled in the order of the log, without gaps.

Faust drops records that it fetched before a rebalance or a recovery was over, and reads on behind them when
nothing has been committed yet (aiokafka's ``seek_to_committed`` does not move without a committed offset).
Counting what follows would raise the applied offset over records that were never seen: they would be lost.
So each partition has an expected offset; what lies behind a gap is left alone and read again. A gap that
is still there after reading again is one of the log itself (compaction, transactions) and is accepted.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

from aiokafka.errors import IllegalStateError
from faust.types import TP

__all__ = ["LogOrder"]

log = logging.getLogger("stancewatch.order")


class LogOrder:
    """Expected offsets of the partitions of one generation of the consumer group.

    Parameters
    ----------
    seek : callable
        ``await seek(TP(topic, partition), offset)``: read from there again.
    """

    def __init__(self, seek: Callable[[TP, int], Awaitable[None]]) -> None:
        self._seek = seek
        self._generation = -1
        self._expected: dict[int, int] = {}
        self._gaps: dict[int, tuple[int, int]] = {}

    def start_at(self, generation: int, positions: Mapping[int, int]) -> None:
        """Set where each owned partition begins in a new generation."""
        self._generation = generation
        self._expected = dict(positions)
        self._gaps = {}

    async def keep(self, batch: Sequence[Any], generation: int) -> list[Any]:
        """Records (Faust events) of this generation by partition and offset, up to the first gap of each.

        Nothing while the start of the generation is not known: those records are read again from it.
        """
        if self._generation != generation:
            return []
        current = [event for event in batch if event.message.generation_id == generation]
        current.sort(key=lambda event: (event.message.partition, event.message.offset))
        kept: list[Any] = []
        for partition, members in groupby(current, key=lambda event: event.message.partition):
            kept.extend(await self._up_to_gap(partition, list(members)))
        return kept

    async def _up_to_gap(self, partition: int, members: Sequence[Any]) -> Sequence[Any]:
        for index, event in enumerate(members):
            message = event.message
            expected = self._expected.get(partition, message.offset)
            gap = (expected, message.offset)
            if message.offset > expected and self._gaps.get(partition) != gap:
                log.warning("%s[%d]: expected %d, got %d; reading again", message.topic, partition, *gap)
                self._gaps[partition] = gap
                with contextlib.suppress(IllegalStateError):  # moved away meanwhile: its new owner reads it
                    await self._seek(TP(message.topic, partition), expected)
                return members[:index]
            self._expected[partition] = max(expected, message.offset + 1)
        return members
