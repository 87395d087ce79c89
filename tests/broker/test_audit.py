"""The audit on a real broker: equal after replay, beside a stream, after kill -9; finds what is wrong."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from stream.app import OWNER_HEADER
from stream.clients import create_topics
from stream.reading import producer
from stream.settings import Settings
from stream.sources import read_paths
from stream.tables import TOTAL, decode_counts, stored
from tests.conftest import SEEDS
from tests.kafka_server import KafkaServer
from tests.stack import (
    handled,
    multiplied,
    outcomes,
    publish,
    read_all,
    settings_for,
    stancewatch,
    variables,
    wait_until,
    worker,
)
from tests.unit.test_schema import event_bytes

pytestmark = pytest.mark.kafka


def audit(broker: str, names: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """`stancewatch audit` against a broker."""
    return stancewatch("audit", "--broker", broker, *arguments, **variables(names))


async def send(settings: Settings, topic: str, **record: Any) -> None:
    """Write one record behind everybody's back."""
    async with producer(settings) as client:
        await client.send_and_wait(topic, **record)


def test_log_state_and_metrics_are_equal_after_the_seeds(
    kafka: KafkaServer, names: dict[str, str], tmp_path: Path
) -> None:
    """All 93 records are recounted; the figures are those of the file, told by another way."""
    expected = json.loads((SEEDS / "expected_counts.json").read_text())
    with worker(tmp_path / "w", kafka.bootstrap, **names) as process:
        played = stancewatch("replay", "seeds", "--broker", kafka.bootstrap, **variables(names))
        assert played.returncode == 0, played.stderr + process.output
        done = audit(kafka.bootstrap, names, "--json", "--metrics", process.metrics_url)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        told = json.loads(done.stdout)
        shown = audit(kafka.bootstrap, names, "--metrics", process.metrics_url.removesuffix("/metrics"))
        assert shown.returncode == 0
        assert "log, state and metrics are equal: difference 0" in shown.stdout
    assert (told["equal"], told["difference"], told["differences"], told["records"]) == (True, 0, [], 93)
    assert sum(at["noted"] for at in told["offsets"].values()) == 93
    assert all(at["counted"] == at["noted"] for at in told["offsets"].values())
    counts: dict[str, dict[str, int]] = {}
    for row in told["figures"]:
        assert row["log"] == row["state"] == row["log_at_metrics"] == row["metrics"]
        if "topic" in row:
            counts.setdefault(row["topic"], {})[row["stance"]] = row["log"]
    assert counts == expected["counts"]
    outcomes = {row["outcome"]: row["log"] for row in told["figures"] if "outcome" in row}
    assert (outcomes["duplicate"], outcomes["dead_letter"]) == (4, 1)
    assert told["dead_letters"] == {"invalid_json": 1}
    # The worker has gone; its state can still be audited.
    alone = audit(kafka.bootstrap, names, "--json", "--wait-seconds", "5")
    assert (alone.returncode, json.loads(alone.stdout)["metrics_compared"]) == (0, False)


async def test_the_audit_works_beside_a_running_stream(
    kafka: KafkaServer, names: dict[str, str], tmp_path: Path
) -> None:
    """While events flow, two workers count and one of them joins late: every audit ends at difference 0."""
    records = multiplied(read_paths([SEEDS]), 24)
    settings = settings_for(kafka.bootstrap, **names)
    await publish(settings, records[:50])
    with (
        worker(tmp_path / "a", kafka.bootstrap, **names, batch_events=32) as one,
        worker(tmp_path / "b", kafka.bootstrap, **names, batch_events=32) as two,
    ):
        one.wait_until_ready()
        two.wait_until_ready()

        async def flow() -> None:
            for start in range(50, len(records), 25):
                await publish(settings, records[start : start + 25])
                await asyncio.sleep(0.1)

        flowing = asyncio.create_task(flow())
        looks: list[Any] = []
        while not flowing.done() or len(looks) < 2:
            addresses = ("--metrics", one.metrics_url, "--metrics", two.metrics_url)
            done = await asyncio.to_thread(audit, kafka.bootstrap, names, "--json", *addresses)
            assert done.returncode == 0, done.stdout + done.stderr
            looks.append(json.loads(done.stdout))
        await flowing
        wait_until(lambda: handled(one, two) == len(records), "all handled", one, two)
    noted = [sum(at["noted"] for at in look["offsets"].values()) for look in looks]
    assert noted == sorted(noted)
    assert 0 < noted[0] < len(records)
    # What came after the beginning of a look was counted with it, where a figure had it.
    assert any(at["counted"] > at["noted"] for look in looks for at in look["offsets"].values()), (
        "events did not flow during any look"
    )


async def test_after_kill_9_in_mid_stream_the_audit_finds_no_difference(
    kafka: KafkaServer, names: dict[str, str], tmp_path: Path
) -> None:
    """Output written twice, records delivered again: the recount is that of one undisturbed run."""
    records = multiplied(read_paths([SEEDS]), 12)
    settings = settings_for(kafka.bootstrap, **names)
    await publish(settings, records)
    options = {**names, "commit_interval_seconds": 4, "batch_events": 32}
    with worker(tmp_path / "w", kafka.bootstrap, **options) as process:
        process.wait_until_ready()
        wait_until(lambda: handled(process) >= 200, "some handled", process, seconds=30)
        process.process.send_signal(signal.SIGKILL)
        process.process.wait()
    halted = audit(kafka.bootstrap, names, "--wait-seconds", "1")
    assert halted.returncode == 1
    assert halted.stderr.startswith("error: the state lags: partition ")
    assert "--wait-seconds" in halted.stderr
    assert len(halted.stderr.splitlines()) == 1
    with worker(tmp_path / "w", kafka.bootstrap, **options) as process:
        process.wait_until_ready()
        done = audit(kafka.bootstrap, names, "--json", "--metrics", process.metrics_url)
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["records"] == len(records)


async def test_a_wrong_state_and_a_forged_assessment_are_found(  # noqa: PLR0915 - one stack for all
    kafka: KafkaServer, names: dict[str, str], tmp_path: Path
) -> None:
    """Whoever changes the changelog or the assessments is told on, figure by figure."""
    records = read_paths([SEEDS / "articles"])
    settings = settings_for(kafka.bootstrap, **names)
    await publish(settings, records)
    with worker(tmp_path / "w", kafka.bootstrap, **names) as process:
        process.wait_until_ready()
        wait_until(lambda: handled(process) == len(records), "all handled", process)
        page = process.metrics_url
        assert audit(kafka.bootstrap, names).returncode == 0

        changelog = f"{names['group']}-counts-changelog"
        found: list[Any] = await read_all(settings, changelog)
        truth = {message.key: message for message in found if message.value is not None}
        total = next(message for key, message in truth.items() if key.endswith(TOTAL.encode()))
        wrong = decode_counts(total.value)
        wrong.votes.setdefault("cloud", {})
        wrong.votes["cloud"]["favor"] = wrong.votes["cloud"].get("favor", 0) + 2
        # Claims to be the partition's owner, or the worker puts it right (stream.fencing).
        owner = [(OWNER_HEADER, b"999999")]
        where = {"key": total.key, "partition": total.partition, "headers": owner}
        await send(settings, changelog, value=stored(wrong), **where)
        done = audit(kafka.bootstrap, names, "--json", "--metrics", page)
        assert done.returncode == 1
        (difference,) = json.loads(done.stdout)["differences"]
        assert (difference["where"], difference["topic"], difference["stance"]) == ("state", "cloud", "favor")
        assert (difference["partition"], difference["difference"]) == (total.partition, 2)
        shown = audit(kafka.bootstrap, names)
        assert shown.returncode == 1
        assert f"partition {total.partition}, total, cloud favor" in shown.stdout
        assert "+2" in shown.stdout
        assert shown.stderr == "error: log and state are not equal: 1 figures differ\n"
        await send(settings, changelog, value=total.value, **where)

        hour = next(message for key, message in truth.items() if not key.endswith(TOTAL.encode()))
        wrong = decode_counts(hour.value)
        wrong.votes = {"cloud": {"against": 7}}
        where = {"key": hour.key, "partition": hour.partition, "headers": owner}
        await send(settings, changelog, value=stored(wrong), **where)
        told = json.loads(audit(kafka.bootstrap, names, "--json").stdout)
        assert {row["hour"] for row in told["differences"]} == {
            row["hour"] for row in told["differences"] if row["partition"] == hour.partition
        }
        assert ("cloud", "against") in {(row["topic"], row["stance"]) for row in told["differences"]}
        await send(settings, changelog, value=hour.value, **where)
        assert audit(kafka.bootstrap, names).returncode == 0

        assessments: list[Any] = await read_all(settings, settings.assessments_topic)
        real = next(message for message in assessments if json.loads(message.value)["topics"])
        row = json.loads(real.value)
        row["topics"] = [{**row["topics"][0], "topic": "golf"}]
        forged = {"key": real.key, "partition": real.partition, "headers": list(real.headers)}
        await send(settings, settings.assessments_topic, value=json.dumps(row).encode(), **forged)
        await send(settings, settings.assessments_topic, key=b"nobody", value=b"{}")
        done = audit(kafka.bootstrap, names, "--json", "--metrics", page)
        assert done.returncode == 1
        told = json.loads(done.stdout)
        assert {row["where"] for row in told["differences"]} == {"state", "metrics"}
        assert "golf" in {row.get("topic") for row in told["differences"]}
        assert told["finding_counts"]["stray_assessments"] == 1

        # The place of an assessment is taken by another id: as if the own one had never been written.
        lost = next(message for message in assessments if message.key != real.key)
        value = json.dumps({**json.loads(lost.value), "event_id": "else"}).encode()
        kept = {"key": lost.key, "partition": lost.partition, "headers": list(lost.headers)}
        await send(settings, settings.assessments_topic, value=value, **kept)
        told = json.loads(audit(kafka.bootstrap, names, "--json").stdout)
        assert (told["finding_counts"]["unassessed"], told["finding_counts"]["stray_assessments"]) == (1, 2)
        assert lost.key.decode() in told["unassessed"][0]


async def test_events_of_transactions_are_counted_and_their_marks_are_not(
    kafka: KafkaServer, names: dict[str, str], tmp_path: Path
) -> None:
    """The end of the log is then no record that anybody could have counted."""
    settings = settings_for(kafka.bootstrap, **names)
    await publish(settings, [(b"first", event_bytes(id="first"))])
    client = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=names["group"])
    await client.start()
    try:
        for number in range(8):
            async with client.transaction():
                key = f"event-{number}"
                await client.send(settings.events_topic, key=key.encode(), value=event_bytes(id=key))
    finally:
        await client.stop()
    with worker(tmp_path / "w", kafka.bootstrap, **names) as process:
        process.wait_until_ready()
        wait_until(lambda: handled(process) == 9, "all handled", process)
        done = audit(kafka.bootstrap, names, "--json", "--metrics", process.metrics_url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["records"] == 9


async def test_aborted_transactions_are_not_counted_and_many_small_ones_are_no_obstacle(
    kafka: KafkaServer, names: dict[str, str], tmp_path: Path
) -> None:
    """Committed events count once, in worker and audit, before, behind and between aborted ones."""
    settings = settings_for(kafka.bootstrap, **names)
    ids = [f"event-{number}" for number in range(120)]
    await create_topics(settings)
    client = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=names["group"])

    async def aborted(*events: str) -> None:
        await client.begin_transaction()
        for key in events:
            # What is aborted would win as a higher version.
            value = event_bytes(id=key, version=2, title="Cloud is a success", text="")
            await client.send(settings.events_topic, key=key.encode(), value=value)
        await client.flush()
        await client.abort_transaction()

    await client.start()
    try:
        await aborted(*ids[:20])
        for number, key in enumerate(ids):
            async with client.transaction():
                await client.send(settings.events_topic, key=key.encode(), value=event_bytes(id=key))
            if number == 60:
                await aborted(*ids[50:70])
        await aborted(*ids[-20:])
    finally:
        await client.stop()
    with worker(tmp_path / "w", kafka.bootstrap, **names, batch_events=16) as process:
        process.wait_until_ready()
        wait_until(lambda: handled(process) >= len(ids), "all handled", process, seconds=40)
        done = audit(kafka.bootstrap, names, "--json", "--metrics", process.metrics_url)
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["records"] == len(ids)
        counted = outcomes(process)
        assert (sum(counted.values()), set(counted) & {"corrected", "duplicate"}) == (len(ids), set())
        assert "is missing" not in process.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "error: there is no Kafka topic {prefix}news.events on {broker}: has a worker"),
        (["--metrics", "ftp://x"], "error: --metrics ftp://x: expected http://HOST:PORT/metrics"),
        (["--metrics", "host:x"], "error: --metrics host:x: expected http://HOST:PORT/metrics"),
    ],
)
def test_what_the_user_can_mend_is_one_line(
    kafka: KafkaServer, names: dict[str, str], arguments: list[str], told: str
) -> None:
    """Exit code 1, nothing on standard output."""
    done = audit(kafka.bootstrap, names, *arguments)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert done.stderr.startswith(told.format(prefix=names["topic_prefix"], broker=kafka.bootstrap))


def test_without_a_broker_the_audit_says_so() -> None:
    """The message names the address, or the setting."""
    silent = stancewatch("audit", "--broker", "127.0.0.1:9")
    assert (silent.returncode, len(silent.stderr.splitlines())) == (1, 1)
    assert "no Kafka broker answers at 127.0.0.1:9" in silent.stderr
    none = stancewatch("audit")
    assert (none.returncode, none.stderr) == (
        1,
        "error: no Kafka broker is set: give --broker HOST:PORT or STANCEWATCH_BROKER\n",
    )
