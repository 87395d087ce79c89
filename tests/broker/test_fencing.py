"""What a former owner of a partition writes late does not become the state."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from classifiers.assessor import Assessor
from stream.app import OWNER_HEADER
from stream.embedded import WorkerProcess
from stream.reading import producer
from stream.settings import Settings
from stream.sources import read_paths
from stream.tables import Counts, decode_counts, stored
from tests.conftest import SEEDS
from tests.kafka_server import KafkaServer
from tests.stack import (
    expected_votes,
    handled,
    multiplied,
    publish,
    read_all,
    samples,
    settings_for,
    stancewatch,
    variables,
    votes,
    wait_until,
    worker,
)

pytestmark = pytest.mark.kafka


def put_right(process: WorkerProcess) -> float:
    """Keys that this worker wrote once more."""
    return sum(value for _, value in samples(process.metrics_url, "stancewatch_late_state_writes_total"))


async def write_late(settings: Settings, changelog: str, records: Sequence[Any], owner: int) -> None:
    """Write what a worker that stood still might still have in hand."""
    async with producer(settings) as client:
        for key, partition, value in records:
            headers = [(OWNER_HEADER, b"%d" % owner)]
            await client.send_and_wait(changelog, key=key, partition=partition, value=value, headers=headers)


async def stale(settings: Settings, changelog: str) -> list[tuple[bytes, int, bytes]]:
    """An older state for each key of the counts, an hour that never was, and the true keys' partitions."""
    found: list[Any] = await read_all(settings, changelog)
    old = stored(Counts(offset=0, votes={"cloud": {"against": 7}}))
    late = {record.key: (record.key, record.partition, old) for record in found}
    return [*late.values(), (b"1|1000", 1, old)]


def is_exact(broker: str, names: dict[str, str], *arguments: str) -> bool:
    """Whether `stancewatch audit` finds no difference."""
    return stancewatch("audit", "--broker", broker, *arguments, **variables(names)).returncode == 0


@pytest.mark.parametrize("news", [False, True], ids=["while no events come", "while events come"])
async def test_the_owner_puts_a_late_write_right(
    kafka: KafkaServer, names: dict[str, str], tmp_path: Path, assessor: Assessor, *, news: bool
) -> None:
    """Stale values of every key are written over; who recovers from the changelog has the true counts."""
    records = multiplied(read_paths([SEEDS]), 2)
    half = len(records) // 2 if news else len(records)
    settings = settings_for(kafka.bootstrap, **names)
    changelog = f"{names['group']}-counts-changelog"
    await publish(settings, records[:half])
    with worker(tmp_path / "w", kafka.bootstrap, **names) as process:
        process.wait_until_ready()
        wait_until(lambda: handled(process) == half, "first half", process)
        late = await stale(settings, changelog)
        await write_late(settings, changelog, late, owner=0)
        await publish(settings, records[half:])
        wait_until(lambda: put_right(process) >= len(late), "put right", process)
        wait_until(lambda: handled(process) == len(records), "all handled", process)
        assert is_exact(kafka.bootstrap, names, "--metrics", process.metrics_url)
        process.process.kill()
        process.process.wait()
    shutil.rmtree(tmp_path / "w" / "state")
    with worker(tmp_path / "w", kafka.bootstrap, **names) as process:
        process.wait_until_ready()
        assert votes(process) == expected_votes(records, assessor)
        assert handled(process) == len(records)


@pytest.mark.parametrize("keep_folder", [False, True], ids=["from the changelog", "behind RocksDB"])
async def test_recovery_passes_over_a_late_write(
    kafka: KafkaServer, names: dict[str, str], tmp_path: Path, assessor: Assessor, *, keep_folder: bool
) -> None:
    """Nobody was there to put it right: the next worker still does not believe it, and then puts it right."""
    records = read_paths([SEEDS])
    settings = settings_for(kafka.bootstrap, **names)
    changelog = f"{names['group']}-counts-changelog"
    await publish(settings, records)
    with worker(tmp_path / "w", kafka.bootstrap, **names) as process:
        process.wait_until_ready()
        wait_until(lambda: handled(process) == len(records), "all handled", process)
    late = await stale(settings, changelog)
    await write_late(settings, changelog, late, owner=0)
    assert not is_exact(kafka.bootstrap, names, "--wait-seconds", "1")
    if not keep_folder:
        shutil.rmtree(tmp_path / "w" / "state")
    with worker(tmp_path / "w", kafka.bootstrap, **names) as process:
        process.wait_until_ready()
        assert votes(process) == expected_votes(read_paths([SEEDS]), assessor)
        wait_until(lambda: is_exact(kafka.bootstrap, names), "put right", process)


async def test_a_worker_that_is_late_itself_stops(
    kafka: KafkaServer, names: dict[str, str], tmp_path: Path, assessor: Assessor
) -> None:
    """Another one has written under a higher token: it acknowledges nothing, and goes on after a restart."""
    records = multiplied(read_paths([SEEDS]), 2)
    half = len(records) // 2
    settings = settings_for(kafka.bootstrap, **names)
    changelog = f"{names['group']}-counts-changelog"
    await publish(settings, records[:half])
    with worker(tmp_path / "w", kafka.bootstrap, **names) as process:
        process.wait_until_ready()
        wait_until(lambda: handled(process) == half, "first half", process)
        found: list[Any] = await read_all(settings, changelog)
        truth = {r.key: (r.key, r.partition, r.value) for r in found if r.value is not None}
        totals = [row for row in truth.values() if decode_counts(row[2]).owner]
        assert len(totals) == 4
        await write_late(settings, changelog, totals, owner=1000)
        await publish(settings, records[half:])
        assert process.process.wait(30) == 70
        assert "was taken over while this worker stood still" in process.output
    with worker(tmp_path / "w", kafka.bootstrap, **names) as process:
        process.wait_until_ready()
        wait_until(lambda: handled(process) == len(records), "all handled", process)
        assert votes(process) == expected_votes(records, assessor)
        assert is_exact(kafka.bootstrap, names, "--metrics", process.metrics_url)
