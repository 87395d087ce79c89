"""Dead letters on a real broker: list, show, resend; what is sent twice counts once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stream.embedded import WorkerProcess
from stream.settings import Settings
from tests.conftest import ROOT
from tests.kafka_server import KafkaServer
from tests.stack import (
    at_rest,
    handled,
    outcomes,
    publish,
    read_all,
    settings_for,
    stancewatch,
    variables,
    votes,
    wait_until,
    worker,
)
from tests.unit.test_schema import event_bytes

pytestmark = pytest.mark.kafka

CLOUD = "Cloud revenue rose strongly and customers praised the reliable new cloud region."
BROKEN = b'{"id": "broken" :x: [red]'
HUGE = b"x" * 3_000_000
BINARY = b"\xff\xfe\x00binary"


def letters(broker: str, names: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`stancewatch dead-letters` against a broker."""
    command, *rest = arguments
    return stancewatch("dead-letters", command, "--broker", broker, *rest, **variables(names))


def listed(broker: str, names: dict[str, str], *arguments: str) -> list[dict[str, Any]]:
    """Rows of `list --json`."""
    done = letters(broker, names, "list", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)["letters"]
    return rows


def resent(broker: str, names: dict[str, str], *arguments: str) -> dict[str, Any]:
    """What `resend --json --yes` told."""
    done = letters(broker, names, "resend", "--json", "--yes", *arguments)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def raw_bytes(broker: str, names: dict[str, str], which: str) -> bytes:
    """Standard output of `show --raw`."""
    command = [sys.executable, "-m", "stream.cli", "dead-letters", "show", which, "--raw", "--broker", broker]
    done = subprocess.run(
        command, capture_output=True, check=True, cwd=ROOT, env={**os.environ, **variables(names)}, timeout=60
    )
    return done.stdout


async def bad_records(settings: Settings, process: WorkerProcess) -> None:
    """Three records that are rejected, between two that are not."""
    process.wait_until_ready()
    await publish(
        settings,
        [
            (b"good", event_bytes(id="good", text=CLOUD)),
            (b"broken", BROKEN),
            (b"binary", BINARY),
            # Too large for this worker: an event that another setting accepts.
            (b"large", event_bytes(id="large", text=CLOUD + " " * 5000)),
            (b"also-good", event_bytes(id="also-good", text=CLOUD)),
        ],
    )
    # What is not acknowledged comes again, to a worker that judges it in another way.
    wait_until(lambda: handled(process) == 5 and at_rest(process), "all acknowledged", process)


async def test_letters_are_listed_and_shown(
    kafka: KafkaServer, names: dict[str, str], tmp_path: Path
) -> None:
    """Every letter with its reason and place; filters; the original bytes as text, base64 or raw."""
    settings = settings_for(kafka.bootstrap, **names)
    with worker(tmp_path / "w", kafka.bootstrap, **names, event_bytes_max=4096) as process:
        await bad_records(settings, process)
        await publish(settings, [(b"huge", HUGE)])
        wait_until(lambda: handled(process) == 6, "the huge one handled", process)
    broker = kafka.bootstrap
    rows = {row["key"]: row for row in listed(broker, names)}
    assert {key: (row["reason"], row["stage"]) for key, row in rows.items()} == {
        "broken": ("invalid_json", "decode"),
        "binary": ("invalid_utf8", "decode"),
        "large": ("too_large", "receive"),
        "huge": ("too_large", "receive"),
    }
    found: list[Any] = await read_all(settings, settings.dead_letters_topic)
    places = {message.key.decode(): (message.partition, message.offset) for message in found}
    assert {key: (row["partition"], row["offset"]) for key, row in rows.items()} == places
    events: list[Any] = await read_all(settings, settings.events_topic)
    stood = {message.key.decode(): (message.partition, message.offset) for message in events}
    for key, row in rows.items():
        assert row["origin"] == {
            "topic": settings.events_topic,
            "partition": stood[key][0],
            "offset": stood[key][1],
        }
        assert (row["status"], row["resent"]) == ("open", 0)
    assert rows["broken"]["size"] == len(BROKEN)

    assert [row["key"] for row in listed(broker, names, "--reason", "too_large")] == ["large", "huge"]
    assert [row["key"] for row in listed(broker, names, "--stage", "receive", "--id", "large")] == ["large"]
    assert len(listed(broker, names, "--since", "1h")) == 4
    assert listed(broker, names, "--since", "2099-01-01") == []
    newest = max(rows.values(), key=lambda row: (row["failed_at"], row["partition"], row["offset"]))
    assert listed(broker, names, "--limit", "1") == [newest]
    table = letters(broker, names, "list").stdout
    assert all(word in table for word in ("invalid_json", settings.events_topic, "broken", "open"))

    place = f"{rows['broken']['partition']}:{rows['broken']['offset']}"
    by_place, by_id = letters(broker, names, "show", place), letters(broker, names, "show", "broken")
    assert by_place.returncode == by_id.returncode == 0, by_place.stderr
    assert BROKEN.decode() in by_place.stdout
    assert by_place.stdout == by_id.stdout
    assert "invalid_json" in by_place.stdout
    assert "base64: //4AYmluYXJ5" in letters(broker, names, "show", "binary").stdout
    assert raw_bytes(broker, names, "binary") == BINARY
    assert raw_bytes(broker, names, "huge") == HUGE
    (whole,) = json.loads(letters(broker, names, "show", "binary", "--json").stdout)["letters"]
    assert (whole["value"], whole["value_base64"]) == (None, "//4AYmluYXJ5")
    missing = letters(broker, names, "show", "nobody")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr.startswith("error: no dead letter 'nobody': ")


async def test_after_a_fix_each_letter_counts_once_however_often_it_is_resent(
    kafka: KafkaServer, names: dict[str, str], tmp_path: Path
) -> None:
    """The second resend sends nothing; with --again the event is a duplicate; the audit agrees."""
    settings = settings_for(kafka.bootstrap, **names)
    broker = kafka.bootstrap
    with worker(tmp_path / "w", broker, **names, event_bytes_max=4096) as process:
        await bad_records(settings, process)
        before = votes(process)
        assert before["cloud"]

    asked = letters(broker, names, "resend", "--reason", "too_large")
    assert asked.returncode == 1
    assert "error: nobody to ask here: give --yes to resend" in asked.stderr
    tried = letters(broker, names, "resend", "--reason", "too_large", "--dry-run")
    assert (tried.returncode, "1 letter would be resent" in tried.stdout) == (0, True)
    with worker(tmp_path / "w", broker, **names) as process:  # the fix: it takes large events
        process.wait_until_ready()
        told = resent(broker, names, "--reason", "too_large")
        assert (told["selected"], told["sent"]) == (1, 1)
        wait_until(lambda: handled(process) == 6, "the resent event handled", process)
        once = votes(process)
        assert sum(once["cloud"].values()) == sum(before["cloud"].values()) + 1
        assert outcomes(process) == {"assessed": 3, "dead_letter": 3}

        told = resent(broker, names, "--id", "large")
        assert (told["sent"], told["skipped"]["resent"]) == (0, 1)
        told = resent(broker, names, "--id", "large", "--again")
        assert told["sent"] == 1
        wait_until(lambda: handled(process) == 7, "sent once more", process)
        assert votes(process) == once
        assert outcomes(process) == {"assessed": 3, "dead_letter": 3, "duplicate": 1}
        (row,) = listed(broker, names, "--id", "large")
        assert (row["status"], row["resent"]) == ("resent", 2)

        events: list[Any] = await read_all(settings, settings.events_topic)
        copies = [message for message in events if message.key == b"large"]
        assert len({message.value for message in copies}) == 1
        assert len({message.partition for message in copies}) == 1
        source = f"{settings.dead_letters_topic}:{row['partition']}:{row['offset']}".encode()
        assert [dict(message.headers) for message in copies] == [
            {},
            {"resent_from": source, "resent_times": b"1"},
            {"resent_from": source, "resent_times": b"2"},
        ]
        audit = stancewatch("audit", "--broker", broker, "--metrics", process.metrics_url, **variables(names))
        assert audit.returncode == 0, audit.stdout + audit.stderr


async def test_a_letter_that_fails_again_tells_how_often_it_was_resent(
    kafka: KafkaServer, names: dict[str, str], tmp_path: Path
) -> None:
    """Its newer letter stands for it, so that no resend multiplies records."""
    settings = settings_for(kafka.bootstrap, **names)
    broker = kafka.bootstrap
    with worker(tmp_path / "w", broker, **names) as process:
        process.wait_until_ready()
        await publish(settings, [(b"broken", BROKEN)])
        wait_until(lambda: handled(process) == 1, "rejected", process)
        (first,) = listed(broker, names)
        place = ("--partition", str(first["partition"]), "--offset", str(first["offset"]))
        assert resent(broker, names, *place)["sent"] == 1
        wait_until(lambda: handled(process) == 2, "rejected again", process)
        assert resent(broker, names)["sent"] == 1  # the new letter, not the old one
        wait_until(lambda: handled(process) == 3, "rejected a third time", process)
        told = resent(broker, names, "--again", "--id", "broken")
        assert (told["sent"], told["skipped"]["failed_again"]) == (1, 2)
        wait_until(lambda: handled(process) == 4, "rejected a fourth time", process)
        assert outcomes(process) == {"dead_letter": 4}
    rows = listed(broker, names)
    assert [(row["resent"], row["status"]) for row in rows] == [
        (1, "failed_again"),
        (2, "failed_again"),
        (3, "failed_again"),
        (3, "open"),
    ]
    assert rows[1]["resent_from"] == f"{settings.dead_letters_topic}:{first['partition']}:{first['offset']}"
    shown = letters(broker, names, "show", f"{rows[3]['partition']}:{rows[3]['offset']}").stdout
    assert "resent_times   3" in shown
    several = letters(broker, names, "show", "broken", "--raw")
    assert (several.returncode, several.stdout) == (1, "")
    assert several.stderr.startswith("error: 4 letters have the id 'broken': give --raw one of ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["list"], "error: there is no Kafka topic {prefix}news.dead-letters on {broker}"),
        (["list", "--since", "soon"], "error: --since 'soon': expected an age such as 2h or 7d"),
    ],
)
def test_what_the_user_can_mend_is_one_line(
    kafka: KafkaServer, names: dict[str, str], arguments: list[str], told: str
) -> None:
    """Exit code 1, nothing on standard output."""
    done = letters(kafka.bootstrap, names, *arguments)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert done.stderr.startswith(told.format(prefix=names["topic_prefix"], broker=kafka.bootstrap))


def test_wrong_usage_is_exit_code_2(kafka: KafkaServer, names: dict[str, str]) -> None:
    """A reason outside of the closed set, half a place."""
    assert letters(kafka.bootstrap, names, "list", "--reason", "unheard-of").returncode == 2
    assert letters(kafka.bootstrap, names, "resend", "--partition", "1").returncode == 2
