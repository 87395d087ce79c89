"""A worker that sleeps through the loss of its partitions, with state in hand, and wakes up."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from stream.embedded import WorkerProcess
from tests.chaos.feed import TITLES, Planned, event
from tests.chaos.harness import Chaos, is_frozen, wake
from tests.stack import samples

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

NOW = datetime.now(UTC)
LATER_HOUR = NOW - timedelta(hours=2)
STEPS = ("classified", "between two writes", "counted")


def events(names: Iterable[object], version: int, hour: datetime) -> Iterator[Planned]:
    """One event of each name; another version has another title."""
    for number, name in enumerate(names):
        yield event(f"event-{name}", TITLES[(number + version) % len(TITLES)], hour, version)


def start(run: Chaos, number: int) -> WorkerProcess:
    """The worker that is to freeze at a step, once it is armed; behind the last step one that works on."""
    if number == len(STEPS):
        return run.start(str(number), ready=False)
    # A batch of 32 writes an identity for each record, an hour and the total.
    visit = 10 if STEPS[number] == "between two writes" else 1
    return run.start_sentinel(str(number), step=STEPS[number], visit=visit, signal="SIGSTOP")


def age_of_commits(process: WorkerProcess) -> float:
    """Seconds that what a worker acknowledged has been waiting for a commit; 0 when nothing waits."""
    ((_, age),) = samples(process.metrics_url, "stancewatch_commit_age_seconds")
    return age


def put_right(process: WorkerProcess) -> float:
    """Keys that a worker wrote once more."""
    page = samples(process.metrics_url, "stancewatch_late_state_writes_total")
    return sum(keys for _, keys in page)


def test_a_zombie_does_not_undo_what_its_successor_counted(chaos: Callable[..., Chaos]) -> None:
    """Frozen with a batch in hand, it wakes while its successor works on; its hour and ids never come again.

    Three times, at three steps: the successor is the next to freeze. Events of another hour flow meanwhile:
    with them the successor writes its total behind what the zombie writes late, so that the total tells
    nobody to count anew what the zombie has undone (without the fence hour and ids stay wrong).
    """
    with chaos(partitions=1, rate=100) as run:
        owner = start(run, 0)
        owner.wait_until_ready()
        for number in range(len(STEPS)):
            zombie, hour, first = owner, NOW - timedelta(hours=3 + number), 100 * number
            run.publish(events(range(first, first + 40), 1, hour))
            run.wait_handled(len(run.log))
            run.wait(lambda: age_of_commits(zombie) == 0, "the batch is committed")  # noqa: B023
            run.arm(str(number))
            run.publish(events(range(first + 20, first + 60), 2, hour))
            run.wait(lambda: is_frozen(zombie), "the zombie is frozen")  # noqa: B023
            owner = start(run, number + 1)
            run.publish(events(range(first, first + 80), 3, hour))
            run.wait_handled(before := len(run.log))
            with run.flowing(events(count(1000 * (number + 1)), 1, LATER_HOUR)):
                run.wait_handled(before + 40)
                wake(zombie)
                run.wait(lambda: zombie.process.poll() is not None, "the zombie notices and stops")  # noqa: B023
                run.wait(lambda: put_right(owner) > 0, "the successor puts right what came late")  # noqa: B023
            assert "was taken over while this worker stood still" in zombie.output
            assert zombie.process.returncode == 70
        beside = list(run.check().found)

        run.kill(str(len(STEPS)))
        for folder in run.folder.glob("*/state"):
            shutil.rmtree(folder)
        run.start("last")
        recovered = list(run.check().found)
        run.publish(events(range(100 * len(STEPS)), 4, LATER_HOUR))
        result = run.check()
    assert result.found == [], {"beside": beside, "recovered": recovered, "corrected": result.found}
