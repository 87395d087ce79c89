"""Promises that only a real broker can prove: recovery, rebalancing, kill -9, broker restart."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from classifiers.assessor import Assessor
from stream.sources import read_paths
from tests.conftest import SEEDS
from tests.kafka_server import KafkaServer
from tests.stack import (
    expected_votes,
    handled,
    multiplied,
    outcomes,
    publish,
    read_all,
    samples,
    settings_for,
    stancewatch,
    votes,
    wait_until,
    worker,
)

pytestmark = pytest.mark.kafka


def skipped(process: Any) -> int:
    """Redelivered records that this worker recognised."""
    return int(
        sum(value for _, value in samples(process.metrics_url, "stancewatch_redelivered_skipped_total"))
    )


def replay(broker: str, names: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """`stancewatch replay` against a broker."""
    environment = {f"STANCEWATCH_{name.upper()}": value for name, value in names.items()}
    return stancewatch("replay", "seeds", "--broker", broker, "--json", *arguments, **environment)


def test_replaying_the_seeds_gives_the_expected_counts_and_a_second_time_only_duplicates(
    kafka: KafkaServer, names: dict[str, str], tmp_path: Path
) -> None:
    """On real Kafka the counts are those of the file; sent again, every event is recognised."""
    expected = json.loads((SEEDS / "expected_counts.json").read_text())
    with worker(tmp_path / "w", kafka.bootstrap, **names) as process:
        first = replay(kafka.bootstrap, names)
        assert first.returncode == 0, first.stderr + process.output
        assert json.loads(first.stdout) == expected
        second = replay(kafka.bootstrap, names)
        assert second.returncode == 0, second.stderr
        again = json.loads(second.stdout)
        assert (again["published"], again["assessed"], again["duplicates"]) == (93, 0, 92)
        assert votes(process) == expected["counts"]


async def test_two_workers_share_the_partitions(
    kafka: KafkaServer, names: dict[str, str], tmp_path: Path, assessor: Assessor
) -> None:
    """Each partition has one owner, both work, and the sum is exact."""
    records = multiplied(read_paths([SEEDS]), 6)
    settings = settings_for(kafka.bootstrap, **names)
    await publish(settings, records[: len(records) // 2])
    with (
        worker(tmp_path / "a", kafka.bootstrap, **names) as one,
        worker(tmp_path / "b", kafka.bootstrap, **names) as two,
    ):
        one.wait_until_ready()
        two.wait_until_ready()

        def owned(process: Any) -> set[str]:
            return {
                labels["partition"]
                for labels, _ in samples(process.metrics_url, "stancewatch_assessments_total")
            }

        wait_until(
            lambda: min(len(owned(one)), len(owned(two))) > 0 and len(owned(one) | owned(two)) == 4,
            "four partitions shared",
        )
        await publish(settings, records[len(records) // 2 :])
        wait_until(lambda: handled(one, two) == len(records), "all handled", one, two)
        assert not owned(one) & owned(two)
        assert votes(one, two) == expected_votes(records, assessor)


async def test_kill_9_in_mid_stream_leaves_exact_counts(
    kafka: KafkaServer, names: dict[str, str], tmp_path: Path, assessor: Assessor
) -> None:
    """Killed between two commits, twice; what is delivered again is skipped, and it is delivered again."""
    records = multiplied(read_paths([SEEDS]), 25)
    settings = settings_for(kafka.bootstrap, **names)
    await publish(settings, records)
    options = {**names, "commit_interval_seconds": 4, "batch_events": 64}
    redelivered = 0
    reached = 0
    for _ in range(2):
        with worker(tmp_path / "w", kafka.bootstrap, **options) as process:
            process.wait_until_ready()
            wait_until(lambda: handled(process) >= reached + 300, "some handled", process, seconds=30)  # noqa: B023
            redelivered += skipped(process)
            reached = handled(process)
            process.process.send_signal(signal.SIGKILL)
            process.process.wait()
        assert reached < len(records)
    with worker(tmp_path / "w", kafka.bootstrap, **options) as process:
        process.wait_until_ready()
        wait_until(lambda: handled(process) == len(records), "all handled", process, seconds=90)
        redelivered += skipped(process)
        assert votes(process) == expected_votes(records, assessor)
        assert handled(process) == len(records)
    assert redelivered > 0
    found: list[Any] = await read_all(settings, settings.assessments_topic)
    assert len({message.key for message in found}) == len({record.key for record in records})


@pytest.mark.parametrize("keep_folder", [True, False], ids=["from RocksDB", "from the changelog"])
async def test_state_is_recovered_after_a_restart(
    kafka: KafkaServer, names: dict[str, str], tmp_path: Path, assessor: Assessor, *, keep_folder: bool
) -> None:
    """After SIGTERM the next worker shows the same counts at once and goes on from there."""
    records = multiplied(read_paths([SEEDS]), 3)
    half = len(records) // 2
    settings = settings_for(kafka.bootstrap, **names)
    await publish(settings, records[:half])
    with worker(tmp_path / "w", kafka.bootstrap, **names) as process:
        process.wait_until_ready()
        wait_until(lambda: handled(process) == half, "first half", process)
        before = votes(process)
        process.process.terminate()
        assert process.process.wait(15) == 0
    assert list((tmp_path / "w" / "state").rglob("*.sst")) or list((tmp_path / "w" / "state").rglob("*.log"))
    if not keep_folder:
        shutil.rmtree(tmp_path / "w" / "state")
    with worker(tmp_path / "w", kafka.bootstrap, **names) as process:
        process.wait_until_ready()
        wait_until(lambda: handled(process) == half, "recovered", process, seconds=20)
        assert votes(process) == before == expected_votes(records[:half], assessor)
        await publish(settings, records[half:])
        wait_until(lambda: handled(process) == len(records), "second half", process)
        assert votes(process) == expected_votes(records, assessor)
        seen = {(record.event_id, record.version) for record in records}
        assert outcomes(process)["duplicate"] == len(records) - len(seen)


async def test_a_broker_restart_is_survived(
    tmp_path: Path, names: dict[str, str], kafka: KafkaServer, assessor: Assessor
) -> None:
    """The broker is killed in mid-stream and comes back; the worker goes on by itself."""
    records = multiplied(read_paths([SEEDS]), 12)
    half = len(records) // 2
    settings = settings_for(kafka.bootstrap, **names)
    await publish(settings, records[:half])
    with worker(tmp_path / "w", kafka.bootstrap, **names, batch_events=32) as process:
        process.wait_until_ready()
        wait_until(lambda: handled(process) > 50, "some handled", process)
        kafka.kill()
        kafka.restart()
        await publish(settings, records[half:])
        wait_until(lambda: handled(process) == len(records), "all handled", process, seconds=120)
        assert votes(process) == expected_votes(records, assessor)
        assert process.process.poll() is None


async def test_a_recreated_topic_stops_the_worker_with_the_reason(
    kafka: KafkaServer, names: dict[str, str], tmp_path: Path
) -> None:
    """State ahead of the log would skip new events in silence; the worker must refuse."""
    records = read_paths([SEEDS])
    settings = settings_for(kafka.bootstrap, **names)
    await publish(settings, records)
    with worker(tmp_path / "w", kafka.bootstrap, **names) as process:
        process.wait_until_ready()
        wait_until(lambda: handled(process) == len(records), "all handled", process)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([settings.events_topic])
        while settings.events_topic in await admin.list_topics():
            pass
        await admin.create_topics([NewTopic(settings.events_topic, settings.partitions, 1)])
    finally:
        await admin.close()
    with worker(tmp_path / "w", kafka.bootstrap, **names) as process:
        assert process.process.wait(60) == 70
        assert "the topic was deleted and created again" in process.output


async def test_sigterm_commits_what_was_acknowledged(
    kafka: KafkaServer, names: dict[str, str], tmp_path: Path
) -> None:
    """A clean stop within 10 seconds leaves nothing to be delivered again."""
    records = read_paths([SEEDS])
    settings = settings_for(kafka.bootstrap, **names)
    await publish(settings, records)
    with worker(tmp_path / "w", kafka.bootstrap, **names, commit_interval_seconds=60) as process:
        process.wait_until_ready()
        wait_until(lambda: handled(process) == len(records), "all handled", process)
        process.process.terminate()
        assert process.process.wait(10) == 0
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        places = [TopicPartition(settings.events_topic, number) for number in range(4)]
        committed = await admin.list_consumer_group_offsets(names["group"], partitions=places)
    finally:
        await admin.close()
    assert sum(max(0, at.offset) for at in committed.values()) == len(records)


def test_doctor_finds_a_broker_fine_and_names_what_is_wrong(kafka: KafkaServer, tmp_path: Path) -> None:
    """Everything fine is exit code 0; a silent broker is named with the setting."""
    environment = {"STANCEWATCH_DATA_DIR": str(tmp_path), "STANCEWATCH_METRICS_PORT": "0"}
    well = stancewatch("doctor", "--broker", kafka.bootstrap, **environment)
    assert (well.returncode, well.stdout.count("fine "), "WRONG" in well.stdout) == (0, 5, False), well.stdout
    ill = stancewatch("doctor", "--broker", "127.0.0.1:9", **environment)
    assert ill.returncode == 1
    assert "WRONG  broker       no Kafka broker answers at 127.0.0.1:9" in ill.stdout
