"""What is measured around the processing: commits, rebalances, recovery, the size of the state, the sources.

Faust's Prometheus sensor is not used (DESIGN section 5): its clock of a rebalance starts when that is over.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from faust.sensors.base import Sensor

from stream.metrics import OTHER, Metrics
from stream.schema import Event

__all__ = ["CommitClock", "RebalanceMonitor", "SourceClock", "StateSize", "exemplar"]

SOURCES_MAX = 100
SOURCE_CHARACTERS_MAX = 80
OTHER_SOURCES_MAX = 10_000
MARKS_MAX = 3600
SIZE_SECONDS = 30.0


def exemplar(event: Event) -> dict[str, str] | None:
    """Labels that lead from a figure to an event; none where OpenMetrics would not take the id."""
    return {"event_id": event.id[:64]} if event.id.isascii() else None


class CommitClock:
    """Tells how long the oldest acknowledged record has been waiting for a commit.

    Acknowledgements of one second share a mark; in a stall of more than an hour the last mark takes them all.

    Parameters
    ----------
    clock : callable
        Seconds; replaced in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._marks: dict[int, deque[tuple[int, float]]] = {}
        """By partition: highest offset of a mark, and when its first record was acknowledged."""

    def note(self, partition: int, offset: int) -> None:
        """A record was acknowledged."""
        marks = self._marks.setdefault(partition, deque())
        now = self._clock()
        if marks and (now - marks[-1][1] < 1.0 or len(marks) >= MARKS_MAX):
            marks[-1] = (max(offset, marks[-1][0]), marks[-1][1])
        else:
            marks.append((offset, now))

    def waiting(self, partition: int, committed: int) -> tuple[int, float]:
        """Highest acknowledged offset, and for how many seconds the oldest one at or above `committed` waits.

        (-1, 0) when everything is committed.
        """
        marks = self._marks.get(partition, deque())
        while marks and marks[0][0] < committed:
            marks.popleft()
        return (marks[-1][0], self._clock() - marks[0][1]) if marks else (-1, 0.0)

    def clear(self) -> None:
        """Forget everything: what is not committed is delivered again."""
        self._marks.clear()


class RebalanceMonitor(Sensor):
    """Measures rebalances from the revocation to working again, and recovery from the assignment on.

    A rebalance that is overtaken by the next one goes on; its time is counted once, as one.

    Parameters
    ----------
    metrics : Metrics
    clock : callable
        Seconds; replaced in tests.
    """

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._metrics = metrics
        self._clock = clock
        self._revoked: float | None = None
        self._assigned: float | None = None
        self._recovered_in = 0.0
        metrics.recovery_seconds.set_function(self.recovery_seconds)

    def recovery_seconds(self) -> float:
        """Of the running recovery so far, or of the last one."""
        return self._recovered_in if self._assigned is None else self._clock() - self._assigned

    def on_rebalance_start(self, _app: Any) -> dict[str, Any]:
        """Partitions are revoked (Faust calls this in the consumer's thread)."""
        self._metrics.rebalances.inc()
        self._assigned = None
        if self._revoked is None:
            self._revoked = self._clock()
        return {}

    def on_rebalance_return(self, _app: Any, _state: dict[str, Any]) -> None:
        """New partitions are assigned; their state is recovered next."""
        if self._revoked is not None:
            self._assigned = self._clock()

    def on_rebalance_end(self, _app: Any, _state: dict[str, Any]) -> None:
        """Recovered; the worker works again."""
        now = self._clock()
        if self._assigned is not None:
            self._recovered_in = now - self._assigned
        if self._revoked is not None:
            self._metrics.rebalance_seconds.observe(now - self._revoked)
        self._revoked = self._assigned = None


class StateSize:
    """Bytes of RocksDB's files, looked up at most every 30 seconds.

    Parameters
    ----------
    folders : callable
        Gives the folders of the owned partitions of a table.
    clock : callable
        Seconds; replaced in tests.
    """

    def __init__(
        self, folders: Callable[[], Iterable[Path]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folders = folders
        self._clock = clock
        self._looked = -SIZE_SECONDS
        self._bytes = 0

    def __call__(self) -> float:
        """Size in bytes."""
        folders = list(self._folders())
        if not folders:
            return 0  # nothing is owned now; the next look comes as soon as something is
        now = self._clock()
        if now - self._looked >= SIZE_SECONDS:
            self._looked = now
            self._bytes = sum(map(_folder_bytes, folders))
        return self._bytes


def _folder_bytes(folder: Path) -> int:
    total = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    total += entry.stat().st_size
                except FileNotFoundError:  # compacted away meanwhile
                    continue
    except FileNotFoundError:  # nothing is stored yet
        return 0
    return total


class SourceClock:
    """When each source was last heard; the first 100 sources keep their slot as long as the process lives.

    Parameters
    ----------
    metrics : Metrics
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._shown: set[str] = set()
        self._others: set[int] = set()

    def saw(self, source: str) -> None:
        """An event of a source was accepted now."""
        name = source[:SOURCE_CHARACTERS_MAX] or "unknown"
        if name not in self._shown:
            if name != OTHER and len(self._shown) < SOURCES_MAX:
                self._shown.add(name)
            else:
                if len(self._others) < OTHER_SOURCES_MAX:
                    self._others.add(hash(name))
                    self._metrics.other_sources.set(len(self._others))
                name = OTHER
        self._metrics.source_last_event.labels(name).set_to_current_time()
