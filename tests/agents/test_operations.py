"""Dead letters and audit on the embedded broker: what needs no Java to be shown."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import NewTopic

from stream.clients import check_partitions, create_topics
from stream.embedded import EmbeddedBroker, WorkerProcess
from stream.errors import ConfigurationError
from stream.reading import admin_client, producer
from stream.replay import Pace, Replay, Tally
from stream.settings import Settings, load_settings
from stream.sources import Record, read_paths
from tests.agents.test_embedded import EMBEDDED
from tests.conftest import SEEDS
from tests.stack import at_rest, handled, outcomes, stancewatch, votes, wait_until, worker

pytestmark = pytest.mark.embedded


async def publish_one_by_one(settings: Settings, records: list[tuple[bytes, bytes]]) -> None:
    """The embedded broker tells a wrong log end for batches of several records."""
    await create_topics(settings)
    async with producer(settings) as client:
        for key, value in records:
            await client.send_and_wait(settings.events_topic, key=key, value=value)


def call(broker: EmbeddedBroker, *arguments: str) -> tuple[int, Any, str]:
    """Exit code, the JSON object, standard error."""
    done = stancewatch(*arguments, "--json", "--broker", broker.address, STANCEWATCH_EMBEDDED="true")
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


def seeds_and(*more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """The seed records and others."""
    return [(record.key, record.value) for record in read_paths([SEEDS])] + list(more)


async def test_seeds_are_audited_and_a_tampered_changelog_is_found(
    tmp_path: Path, embedded_broker: EmbeddedBroker
) -> None:
    """Equal after the seeds; a state that someone wrote over is not."""
    settings = load_settings(broker=embedded_broker.address, embedded=True)
    records = seeds_and()
    await publish_one_by_one(settings, records)
    with worker(tmp_path / "w", embedded_broker.address, **EMBEDDED) as process:
        process.wait_until_ready()
        wait_until(lambda: handled(process) == len(records), "all handled", process)
        code, told, said = call(embedded_broker, "audit", "--metrics", process.metrics_url)
        assert (code, said) == (0, ""), told
        assert (told["equal"], told["records"], told["dead_letters"]) == (True, 93, {"invalid_json": 1})
        async with producer(settings) as client:
            wrong = json.dumps({"offset": 500, "votes": {"cloud": {"favor": 1}}}).encode()
            changelog = f"{settings.group}-counts-changelog"
            await client.send_and_wait(changelog, key=b"1|475000", value=wrong, partition=1)
        code, told, said = call(embedded_broker, "audit")
    assert code == 1
    (difference,) = told["differences"]
    assert difference == {
        "where": "state",
        "partition": 1,
        "hour": "2024-03-09T16:00Z",
        "topic": "cloud",
        "stance": "favor",
        "log": 0,
        "found": 1,
        "difference": 1,
    }


async def test_letters_are_listed_shown_and_resent_once(
    tmp_path: Path, embedded_broker: EmbeddedBroker
) -> None:
    """What could not be classified is an event after all, once the cause is mended."""
    settings = load_settings(broker=embedded_broker.address, embedded=True)
    ahead = {"id": "ahead", "title": "Cloud revenue rose strongly, customers praised it"}
    ahead["published_at"] = "2031-01-01T00:00:00Z"
    value = json.dumps(ahead).encode()
    await publish_one_by_one(settings, [(b"ahead", value), (b"broken", b"{")])
    with worker(tmp_path / "w", embedded_broker.address, **EMBEDDED) as process:
        process.wait_until_ready()
        # What is not acknowledged comes again, to a worker that judges it in another way.
        wait_until(lambda: handled(process) == 2 and at_rest(process), "all acknowledged", process)
    _, told, _ = call(embedded_broker, "dead-letters", "list")
    assert {row["key"]: row["reason"] for row in told["letters"]} == {
        "ahead": "future_date",
        "broken": "invalid_json",
    }
    _, told, _ = call(embedded_broker, "dead-letters", "show", "ahead")
    assert told["letters"][0]["value"] == value.decode()

    def patient(folder: str) -> WorkerProcess:
        options = {**EMBEDDED, "future_tolerance_hours": 1_000_000}
        return worker(tmp_path / folder, embedded_broker.address, **options)

    resend = ("dead-letters", "resend", "--yes", "--reason", "future_date")
    with patient("v") as process:
        process.wait_until_ready()
        assert call(embedded_broker, *resend)[1]["sent"] == 1
        wait_until(lambda: outcomes(process).get("assessed") == 1, "resent", process)
        once = votes(process)
        assert call(embedded_broker, *resend)[1]["sent"] == 0
        assert call(embedded_broker, *resend, "--again")[1]["sent"] == 1
        wait_until(lambda: outcomes(process).get("duplicate") == 1, "resent again", process)
        assert votes(process) == once
        code, told, said = call(embedded_broker, "audit", "--metrics", process.metrics_url)
        assert (code, said) == (0, ""), told


async def test_a_replay_creates_no_topics_where_that_is_forbidden(embedded_broker: EmbeddedBroker) -> None:
    """It names the one that is missing; with all of them there it goes on."""
    settings = load_settings(broker=embedded_broker.address, create_topics=False)

    async def rounds() -> AsyncIterator[Sequence[Record]]:
        yield []

    async def play() -> Tally:
        return await Replay(settings, progress=lambda _: None).run(rounds(), Pace())

    with pytest.raises(ConfigurationError, match=r"no Kafka topic news\.events .*CREATE_TOPICS"):
        await play()
    async with admin_client(settings) as admin:
        assert await admin.list_topics() == []
    await create_topics(settings)
    assert (await play()).complete


async def test_topics_with_other_partitions_than_set_are_refused_in_one_line(
    tmp_path: Path, embedded_broker: EmbeddedBroker
) -> None:
    """The worker does not start into errors of its parts; it and the doctor name the setting."""
    settings = load_settings(broker=embedded_broker.address, embedded=True)
    async with admin_client(settings) as admin:
        await admin.create_topics([NewTopic(settings.events_topic, 6, 1)])
        await check_partitions(settings.model_copy(update={"partitions": 6}))
        told = "news.events has 6 partitions, STANCEWATCH_PARTITIONS is 4: set STANCEWATCH_PARTITIONS=6"
        for command, line in (("worker", f"error: {told}"), ("doctor", f"WRONG  partitions   {told}")):
            done = stancewatch(
                *(command, "--broker", embedded_broker.address),
                STANCEWATCH_DATA_DIR=str(tmp_path),
                STANCEWATCH_METRICS_PORT="0",
            )
            assert done.returncode == 1
            assert line in (done.stdout + done.stderr).splitlines()
        await admin.create_topics([NewTopic(settings.changelog_topic("identities"), 2, 1)])
    for partitions in (2, 4, 6):
        with pytest.raises(ConfigurationError, match=r"was written for 2 .*_PARTITIONS=6"):
            await check_partitions(settings.model_copy(update={"partitions": partitions}))


def test_beside_a_running_worker(tmp_path: Path, embedded_broker: EmbeddedBroker) -> None:
    """A second one on its data folder ends at once with what to do; the doctor finds all fine."""
    with worker(tmp_path, embedded_broker.address, **{**EMBEDDED, "store": "rocksdb"}) as process:
        process.wait_until_ready()
        shared = {"STANCEWATCH_DATA_DIR": str(tmp_path / "state"), "STANCEWATCH_EMBEDDED": "true"}
        command = ("worker", "--broker", embedded_broker.address)
        second = stancewatch(*command, STANCEWATCH_METRICS_PORT="0", **shared)
        assert second.returncode == 70
        (line,) = second.stderr.splitlines()  # before Faust began: it would try for half a minute
        assert f"another worker (process {process.process.pid}) runs with its state in" in line
        assert process.is_ready()
        found = stancewatch(
            "doctor",
            *command[1:],
            STANCEWATCH_METRICS_PORT=str(process.port),
            **shared,
        )
        assert (found.returncode, "WRONG" in found.stdout) == (0, False), found.stdout
        assert f"fine   port         a worker runs at 127.0.0.1:{process.port} and is ready" in found.stdout
        assert f"is in use by a running worker (process {process.process.pid})" in found.stdout
