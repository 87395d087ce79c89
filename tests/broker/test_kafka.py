"""Promises that only a real broker can prove: recovery, rebalancing, kill -9, broker restart."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from classifiers.assessor import Assessor
from stream.clients import create_topics, retentions
from stream.reading import admin_client
from stream.settings import Settings
from stream.sources import read_paths
from tests.agents.test_article_feed import counted, get, listed
from tests.conftest import SEEDS
from tests.kafka_server import KafkaServer
from tests.stack import (
    at_rest,
    expected_votes,
    handled,
    multiplied,
    outcomes,
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


def skipped(process: Any) -> int:
    """Redelivered records that this worker recognised."""
    return int(
        sum(value for _, value in samples(process.metrics_url, "stancewatch_redelivered_skipped_total"))
    )


async def committed(settings: Settings) -> int:
    """Records that the group has committed."""
    places = [TopicPartition(settings.events_topic, number) for number in range(settings.partitions)]
    async with admin_client(settings) as admin:
        found = await admin.list_consumer_group_offsets(settings.group, partitions=places)
    return sum(max(0, at.offset) for at in found.values())


def replay(broker: str, names: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """`stancewatch replay` against a broker."""
    return stancewatch("replay", "seeds", "--broker", broker, "--json", *arguments, **variables(names))


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
        page = process.metrics_url.removesuffix("/metrics")
        assert get(page, "counts")["basis"] == "state"
        assert counted(page) == expected["counts"]
        wait_until(lambda: listed(page) == expected["counts"], "the articles behind the counts", process)


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
    options = {**names, "commit_interval_seconds": 4}
    redelivered = 0
    reached = 0
    for _ in range(2):
        # Small batches: it must not be through the log before the test has looked and killed it.
        with worker(tmp_path / "w", kafka.bootstrap, **options, batch_events=8) as process:
            process.wait_until_ready()
            wait_until(lambda: handled(process) >= reached + 300, "some handled", process, seconds=30)  # noqa: B023
            redelivered += skipped(process)
            reached = handled(process)
            process.process.send_signal(signal.SIGKILL)
            process.process.wait()
        assert reached < len(records)
    with worker(tmp_path / "w", kafka.bootstrap, **options, batch_events=64) as process:
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
    kafka: KafkaServer, names: dict[str, str], tmp_path: Path, assessor: Assessor
) -> None:
    """State ahead of the log would skip new events in silence; the worker refuses, and its advice helps."""
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
    await publish(settings, records)
    anew = {**names, "group": f"{names['group']}-anew"}
    with worker(tmp_path / "w", kafka.bootstrap, **anew) as process:
        process.wait_until_ready()
        wait_until(lambda: handled(process) == len(records), "all handled anew", process)
        assert votes(process) == expected_votes(records, assessor)


async def test_a_deleted_changelog_of_identities_stops_the_worker_with_the_reason(
    kafka: KafkaServer, names: dict[str, str], tmp_path: Path
) -> None:
    """The counts know of events whose duplicates could no longer be told."""
    settings = settings_for(kafka.bootstrap, **names)
    records = read_paths([SEEDS])
    await publish(settings, records)
    with worker(tmp_path / "w", kafka.bootstrap, **names) as process:
        process.wait_until_ready()
        wait_until(lambda: handled(process) == len(records), "all handled", process)
        deadline = (
            time.monotonic() + 30
        )  # what is not committed is delivered again, and its ids are known anew
        while await committed(settings) < len(records):
            assert time.monotonic() < deadline, process.output
    async with admin_client(settings) as admin:
        await admin.delete_topics([f"{names['group']}-identities-changelog"])
        while f"{names['group']}-identities-changelog" in await admin.list_topics():
            pass
    with worker(tmp_path / "other", kafka.bootstrap, **names) as process:
        assert process.process.wait(60) == 70
        assert "duplicates of them can no longer be told" in process.output


async def test_sigterm_commits_what_was_acknowledged(
    kafka: KafkaServer, names: dict[str, str], tmp_path: Path
) -> None:
    """A clean stop within 10 seconds leaves nothing to be delivered again."""
    records = read_paths([SEEDS])
    settings = settings_for(kafka.bootstrap, **names)
    await publish(settings, records)
    with worker(tmp_path / "w", kafka.bootstrap, **names, commit_interval_seconds=60) as process:
        process.wait_until_ready()
        wait_until(lambda: handled(process) == len(records) and at_rest(process), "acknowledged", process)
        process.process.terminate()
        assert process.process.wait(10) == 0
    assert await committed(settings) == len(records)


async def test_topics_are_created_to_keep_everything_and_the_doctor_says_where_one_does_not(
    kafka: KafkaServer, names: dict[str, str], tmp_path: Path
) -> None:
    """Audit and export need the whole log; Kafka's default is a week. A shorter time may be meant."""
    settings = settings_for(kafka.bootstrap, **names)
    topics = [settings.events_topic, settings.assessments_topic, settings.dead_letters_topic]
    environment = {f"STANCEWATCH_{name.upper()}": value for name, value in names.items()}
    environment |= {"STANCEWATCH_DATA_DIR": str(tmp_path), "STANCEWATCH_METRICS_PORT": "0"}
    await create_topics(settings)
    async with admin_client(settings) as admin:
        assert await retentions(admin, topics) == dict.fromkeys(topics, "-1")
        done = stancewatch("doctor", "--broker", kafka.bootstrap, **environment)
        assert (done.returncode, "NOTE" in done.stdout) == (0, False)
        shorter = ConfigResource(ConfigResourceType.TOPIC, topics[1], {"retention.ms": "604800000"})
        await admin.alter_configs([shorter])
        done = stancewatch("doctor", "--broker", kafka.bootstrap, **environment)
    assert done.returncode == 0
    line = f"NOTE   retention    {topics[1]} keeps its records for 7 days (retention.ms=604800000): audit and"
    assert line in done.stdout


def test_doctor_finds_a_broker_fine_and_names_what_is_wrong(kafka: KafkaServer, tmp_path: Path) -> None:
    """Everything fine is exit code 0; a silent broker is named with the setting."""
    environment = {"STANCEWATCH_DATA_DIR": str(tmp_path), "STANCEWATCH_METRICS_PORT": "0"}
    well = stancewatch("doctor", "--broker", kafka.bootstrap, **environment)
    assert (well.returncode, well.stdout.count("fine "), "WRONG" in well.stdout) == (0, 5, False), well.stdout
    ill = stancewatch("doctor", "--broker", "127.0.0.1:9", **environment)
    assert ill.returncode == 1
    assert "WRONG  broker       no Kafka broker answers at 127.0.0.1:9" in ill.stdout
