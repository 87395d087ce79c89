"""Insists that records are handled in the order of the log, without gaps.

Faust drops records that it fetched before a rebalance or a recovery was over, and reads on behind them when
nothing has been committed yet (aiokafka's ``seek_to_committed`` does not move without a committed offset).
Counting what follows would raise the applied offset over records that were never seen: they would be lost.
So each partition has an expected offset; what lies behind a gap is left alone and read again. A gap that is
still there after reading again several times is one of the log itself (compaction, transactions) and is
accepted.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from aiokafka.errors import IllegalStateError
from faust.types import TP

__all__ = ["LogOrder"]

# One look proves little: a record that Faust had in hand when it was told to go back may still come.
LOOKS_MIN = 3
LOOKING_SECONDS = 2.0


@dataclass(slots=True)
class _Gap:
    expected: int
    found: int
    since: float
    looks: int = 0


log = logging.getLogger("stancewatch.order")


class LogOrder:
    """Expected offsets of the partitions of one generation of the consumer group.

    Parameters
    ----------
    seek : callable
        ``await seek(TP(topic, partition), offset)``: read from there again.
    clock : callable
        Seconds; replaced in tests.
    """

    def __init__(
        self, seek: Callable[[TP, int], Awaitable[None]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seek = seek
        self._clock = clock
        self._generation = -1
        self._expected: dict[int, int] = {}
        self._gaps: dict[int, _Gap] = {}

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
            if message.offset > expected and not self._is_in_the_log(partition, expected, message):
                with contextlib.suppress(IllegalStateError):  # moved away meanwhile: its new owner reads it
                    await self._seek(TP(message.topic, partition), expected)
                return members[:index]
            self._expected[partition] = max(expected, message.offset + 1)
        return members

    def _is_in_the_log(self, partition: int, expected: int, message: Any) -> bool:
        """Whether the same gap was found often and long enough to be one of the log."""
        gap = self._gaps.get(partition)
        if gap is None or (gap.expected, gap.found) != (expected, message.offset):
            log.warning(
                "%s[%d]: expected %d, got %d; reading again",
                message.topic,
                partition,
                expected,
                message.offset,
            )
            gap = self._gaps[partition] = _Gap(expected, message.offset, self._clock())
        gap.looks += 1
        return gap.looks > LOOKS_MIN and self._clock() - gap.since >= LOOKING_SECONDS
