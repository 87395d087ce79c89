"""What the page of a worker shows while its partitions come and go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest
from prometheus_client import CollectorRegistry

from stream.metrics import Metrics
from stream.settings import load_settings
from stream.tables import TOTAL, Counts
from stream.worker_host import WorkerHost


class Worker:
    """A worker of two partitions, with a letter in each."""

    def __init__(self) -> None:
        self.owned = [0, 1]
        self.reason = ""
        self.reads = 0

    def partitions(self) -> list[int]:
        """Owned ones."""
        return list(self.owned)

    def counts(self) -> Iterable[tuple[int, str, Counts]]:
        """Nothing while the state is recovered."""
        self.reads += 1
        owned = [] if self.reason else self.owned
        return [(partition, TOTAL, Counts(outcomes={"dead_letter": 1})) for partition in owned]

    def lag(self) -> Mapping[int, int]:
        """None."""
        return {}

    def not_ready(self) -> str:
        """As recovering."""
        return self.reason

    def recovering(self) -> str:
        """Why the state is not complete."""
        return self.reason

    def owns_all(self) -> bool:
        """There are two."""
        return self.owned == [0, 1]


@pytest.fixture
def worker() -> Worker:
    """Ready, with both partitions."""
    return Worker()


@pytest.fixture
def host(worker: Worker) -> WorkerHost:
    """On a clock that stands still: what was read a moment ago is still good."""
    metrics = Metrics.create(CollectorRegistry(), model={"name": "words"})
    return WorkerHost(load_settings(), worker, metrics, ["cloud"], clock=lambda: 100.0)


def test_what_was_seen_in_recovery_is_not_the_state(worker: Worker, host: WorkerHost) -> None:
    """Health is asked for all the time; the state right behind it is whole, or is not told."""
    worker.reason = "recovering"
    assert host.health().dead_letters is None
    assert host.state() is None
    worker.reason = ""
    assert len(host.state() or ()) == 2
    assert host.health().dead_letters == 2


def test_what_was_seen_with_fewer_partitions_is_not_the_state(worker: Worker, host: WorkerHost) -> None:
    """After a rebalance the state is read anew."""
    worker.owned = [1]
    assert host.health().dead_letters == 1
    worker.owned = [0, 1]
    assert len(host.state() or ()) == 2


def test_many_looks_in_a_moment_read_the_state_once(worker: Worker, host: WorkerHost) -> None:
    """However many look at the page."""
    for _ in range(5):
        host.health()
        host.state()
    assert worker.reads == 1
