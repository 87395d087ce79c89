"""Faults that a running system survives: each injects one, and leaves everything running again.

:func:`in_turn` runs them under load and checks every count after each.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from stream.embedded import WorkerProcess
from tests.chaos.feed import Feed
from tests.chaos.harness import Chaos, freeze, is_frozen, wake
from tests.chaos.sentinel import STEPS
from tests.kafka_server import KafkaServer

__all__ = ["FAULTS", "can_mount", "in_turn"]


def kill_worker(chaos: Chaos) -> None:
    """SIGKILL for a worker at a random moment; it starts again with its folder."""
    name = chaos.choose()
    chaos.pause(chaos.random.uniform(0.5, 2.0))
    chaos.kill(name)
    chaos.start(name)


def crash_at_step(chaos: Chaos, step: str = "") -> None:
    """A worker dies at one step between decoding and committing, and starts again."""
    step = step or chaos.random.choice(sorted(STEPS))
    # A batch of 32 writes about 35 keys: anywhere in the second to fourth batch.
    visit = chaos.random.randrange(40, 130) if step == "between two writes" else chaos.random.randrange(2, 8)
    name = chaos.choose()
    chaos.terminate(name)
    process = chaos.start_sentinel(name, step=step, visit=visit)
    chaos.arm(name)
    chaos.wait(lambda: process.process.poll() is not None, f"the crash at {step!r}")
    chaos.start(name)


def worker_joins_and_leaves(chaos: Chaos) -> None:
    """One worker more, and after a while it is told to stop: two rebalances."""
    chaos.start("guest")
    chaos.pause(chaos.random.uniform(1.0, 3.0))
    leave(chaos, "guest")


def worker_restarts(chaos: Chaos) -> None:
    """SIGTERM for a worker, as in a deployment: it commits, leaves within 10 s, and comes back."""
    name = chaos.choose()
    leave(chaos, name)
    chaos.start(name)


def leave(chaos: Chaos, name: str) -> None:
    """SIGTERM; exit code 0 within 10 s."""
    code = chaos.terminate(name)
    if code:
        message = f"worker {name} ended with code {code} on SIGTERM:\n{chaos.workers[name].output}"
        raise AssertionError(message)


def state_is_deleted(chaos: Chaos) -> None:
    """A killed worker comes back without its folder."""
    name = chaos.choose()
    chaos.kill(name)
    shutil.rmtree(chaos.folder / name / "state")
    chaos.start(name)


def worker_freezes(chaos: Chaos) -> None:
    """SIGSTOP for a worker, longer than its session, at a random moment; then it wakes."""
    name = chaos.choose()
    process = chaos.workers[name]
    freeze(process)
    chaos.pause(chaos.settings.session_timeout_seconds + chaos.random.uniform(2.0, 4.0))
    wake(process)


def worker_freezes_with_writes_in_hand(chaos: Chaos) -> None:
    """The same where it hurts: state counted, nothing sent to the changelog yet."""
    name = chaos.choose()
    chaos.terminate(name)
    process = chaos.start_sentinel(name, step="counted", visit=chaos.random.randrange(2, 8), signal="SIGSTOP")
    chaos.arm(name)
    chaos.wait(lambda: is_frozen(process), "the worker freezes")
    chaos.pause(chaos.settings.session_timeout_seconds + chaos.random.uniform(2.0, 4.0))
    wake(process)
    chaos.pause(2.0)
    if process.process.poll() is None:
        chaos.kill(name)
    chaos.start(name)


def _broker_dies(chaos: Chaos, node: KafkaServer) -> None:
    node.kill()
    chaos.pause(chaos.random.uniform(1.0, 4.0))
    node.start()


def leader_dies(chaos: Chaos) -> None:
    """SIGKILL for the broker that leads a partition of the events."""
    _broker_dies(chaos, chaos.leader(chaos.random.randrange(chaos.settings.partitions)))


def coordinator_dies(chaos: Chaos) -> None:
    """SIGKILL for the broker that coordinates the group."""
    _broker_dies(chaos, chaos.coordinator())


def broker_restarts(chaos: Chaos) -> None:
    """A clean stop of a broker, and its start."""
    node = chaos.random.choice(chaos.cluster.nodes)
    node.stop()
    node.start()


def broker_freezes(chaos: Chaos) -> None:
    """SIGSTOP for the leader of a partition, longer than the controller waits for it."""
    node = chaos.leader(chaos.random.randrange(chaos.settings.partitions))
    node.pause()
    try:
        chaos.pause(chaos.random.uniform(4.0, 7.0))
    finally:
        node.resume()
    node.wait_ready()


def bad_records_arrive(chaos: Chaos) -> None:
    """A burst of records that cannot be read."""
    burst = Feed(chaos.random.randrange(10**9))
    chaos.publish(burst.bad(chaos.feed.clock(chaos.feed.count)) for _ in range(40))


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 8 MiB for a folder; gives a file that fills it when it is written."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], check=True, capture_output=True
    )
    try:
        yield folder / "filler"
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@lru_cache(maxsize=1)
def can_mount() -> bool:
    """Whether this user may mount a tmpfs."""
    try:
        with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder) / "disk"):
            return True
    except (subprocess.CalledProcessError, OSError):
        return False


def disk_fills(chaos: Chaos) -> None:
    """The disk of the only worker's state is full: it stops with the reason, and again when it is started."""
    others = sorted(name for name in chaos.workers if name not in chaos.resting)
    for name in others:  # beside them it may have no partition, and nothing to write
        leave(chaos, name)
    with small_disk(chaos.folder / "small disk" / "state") as filler:
        process = chaos.start("small disk")
        chaos.resting.add("small disk")
        _fill(filler)
        _stops_for_want_of_space(chaos, process, 70)
        _fill(filler)  # RocksDB may have deleted files of its own
        process = chaos.start("small disk", ready=False)
        chaos.resting.add("small disk")
        _stops_for_want_of_space(chaos, process, 1)
        filler.unlink()
        chaos.start("small disk")
        chaos.pause(1.0)
        leave(chaos, "small disk")
    for name in others:
        chaos.start(name)


def _fill(filler: Path) -> None:
    with suppress(OSError), filler.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def _stops_for_want_of_space(chaos: Chaos, process: WorkerProcess, code: int) -> None:
    chaos.wait(lambda: process.process.poll() is not None, "it stops")
    assert process.process.returncode == code
    assert "(STANCEWATCH_DATA_DIR) is full" in process.output


def in_turn(chaos: Chaos, faults: Iterable[Callable[[Chaos], None]]) -> None:
    """Inject faults while events flow; after each, everything must be counted and every count exact.

    Raises
    ------
    AssertionError
        After the first fault with differences.
    """
    for fault in faults:
        chaos.faults[fault.__name__] += 1
        with chaos.flowing():
            chaos.pause(chaos.random.uniform(0.5, 1.5))
            fault(chaos)
        result = chaos.check()
        assert result.found == [], f"after {fault.__name__}: {result}"


FAULTS: dict[str, Callable[[Chaos], None]] = {
    fault.__name__: fault
    for fault in (
        kill_worker,
        crash_at_step,
        worker_joins_and_leaves,
        worker_restarts,
        state_is_deleted,
        worker_freezes,
        worker_freezes_with_writes_in_hand,
        leader_dies,
        coordinator_dies,
        broker_restarts,
        broker_freezes,
        bad_records_arrive,
        disk_fills,
    )
}
