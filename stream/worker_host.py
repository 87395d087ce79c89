"""What the page of a worker shows of its own state."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from stream.api import HostHealth, State
from stream.metrics import Metrics
from stream.settings import Settings
from stream.tables import TOTAL, Counts, Outcome

__all__ = ["WorkerHost"]

READ_SECONDS = 1.0
SHARE = 0.02
"""Reading the state may take this share of the event loop's time at most, however many look at the page."""


class Readable(Protocol):
    """What is needed of ``stream.worker.WorkerState``."""

    def partitions(self) -> Sequence[int]: ...
    def counts(self) -> Iterable[tuple[int, str, Counts]]: ...
    def lag(self) -> Mapping[int, int]: ...
    def not_ready(self) -> str: ...
    def recovering(self) -> str: ...
    def owns_all(self) -> bool: ...


class WorkerHost:
    """The :class:`stream.api.Host` of a worker.

    Parameters
    ----------
    settings : Settings
    state : WorkerState
    metrics : Metrics
    topics : sequence of str
        Taxonomy: shown from the start.
    clock : callable
        Seconds; replaced in tests.
    """

    def __init__(
        self,
        settings: Settings,
        state: Readable,
        metrics: Metrics,
        topics: Sequence[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.topics = topics
        self._state = state
        self._metrics = metrics
        self._clock = clock
        self._entries: State = ()
        self._read_again_at = 0.0
        self._partitions: Sequence[int] = ()
        """Those that were owned when the entries were read."""

    def health(self) -> HostHealth:
        """Of this worker: its partitions, the records that it handled."""
        ((last_event,),) = [family.samples for family in self._metrics.last_event.collect()]
        known = self._state.recovering() == ""
        letters = [
            counted.outcomes.get(Outcome.DEAD_LETTER, 0) for _, key, counted in self._read() if key == TOTAL
        ]
        return HostHealth(
            process="worker",
            reason=self._state.not_ready(),
            # The embedded broker's log ends are not reliable.
            lag=sum(self._state.lag().values()) if known and not self.settings.embedded else None,
            last_event=last_event.value,
            dead_letters=sum(letters) if known else None,
        )

    def state(self) -> State | None:
        """The stored counts when this worker has all partitions."""
        if self._state.recovering() or not self._state.owns_all():
            return None
        return self._read()

    def _read(self) -> State:
        """The stored counts of a moment ago; nothing while they are recovered, which is not remembered."""
        if self._state.recovering():
            return ()
        now, partitions = self._clock(), self._state.partitions()
        if now >= self._read_again_at or partitions != self._partitions:
            self._partitions = partitions
            self._entries = list(self._state.counts())
            took = self._clock() - now
            self._read_again_at = now + max(READ_SECONDS, took / SHARE)
        return self._entries
