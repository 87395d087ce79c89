"""Workers and brokers that crash, come and go: every count stays that of one undisturbed run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.chaos.faults import (
    bad_records_arrive,
    broker_restarts,
    can_mount,
    coordinator_dies,
    disk_fills,
    in_turn,
    kill_worker,
    leader_dies,
    state_is_deleted,
    worker_freezes,
    worker_joins_and_leaves,
    worker_restarts,
)
from tests.chaos.harness import Chaos
from tests.chaos.sentinel import STEPS

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]


def test_a_crash_at_each_step_leaves_exact_counts(chaos: Callable[..., Chaos]) -> None:
    """Once between every two steps from decoding to the commit, over one log, on one folder."""
    with chaos(rate=20) as run:
        with run.flowing():
            for step in STEPS:
                # A batch of 32 writes about 35 keys: anywhere in the second to fourth batch.
                visit = run.random.randrange(*((40, 130) if step == "between two writes" else (2, 8)))
                process = run.start_sentinel("a", step=step, visit=visit)
                run.arm("a")
                run.wait(lambda: process.process.poll() is not None, f"the crash at {step!r}")  # noqa: B023
                run.faults[step] += 1
            run.start("a")
        result = run.check()
    assert result.found == [], result
    assert result.redelivered > 0
    assert result.exits == []


def test_faults_of_workers_leave_exact_counts(chaos: Callable[..., Chaos]) -> None:
    """SIGKILL, a deleted folder, a worker more for a while, SIGTERM under load, bad records, SIGSTOP."""
    with chaos() as run:
        run.start("a", ready=False)
        run.start("b")
        in_turn(
            run, (kill_worker, state_is_deleted, worker_joins_and_leaves, worker_restarts, bad_records_arrive)
        )
        assert run.result.redelivered > 0
        assert run.result.exits == []
        in_turn(run, (worker_freezes,))


def test_faults_of_brokers_leave_exact_counts(chaos: Callable[..., Chaos]) -> None:
    """The leader of a partition and the group's coordinator are killed, one broker is stopped and started."""
    with chaos() as run:
        run.start("a")
        in_turn(run, (leader_dies, coordinator_dies, broker_restarts))


@pytest.mark.skipif(not can_mount(), reason="a full disk needs a tmpfs, and this user may not mount one")
def test_a_full_disk_stops_the_worker_with_the_reason_and_costs_no_event(chaos: Callable[..., Chaos]) -> None:
    """While it runs and when it is started; once there is space, it goes on, and another after it."""
    with chaos() as run:
        with run.flowing():
            disk_fills(run)
            run.faults[disk_fills.__name__] += 1
        run.start("a")
        result = run.check()
    assert result.found == [], result
