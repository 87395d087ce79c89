"""The whole stream on the embedded broker: replay as a user runs it, and bad input."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from classifiers.assessor import Assessor
from classifiers.decisions import STANCES, UNCLEAR, UNCLEAR_BELOW
from classifiers.storage import load_shipped
from stream.embedded import EmbeddedBroker
from stream.sources import read_paths
from tests.conftest import ROOT, SEEDS
from tests.stack import (
    expected_votes,
    handled,
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
from tests.unit.test_schema import BAD, event_bytes

pytestmark = pytest.mark.embedded

EMBEDDED = {
    "embedded": "true",
    "store": "memory",
    "session_timeout_seconds": 2,
    "commit_interval_seconds": 0.3,
}


def test_replaying_the_seeds_gives_the_expected_counts(assessor: Assessor) -> None:
    """One command on a fresh machine; the counts are those of the file and those of plain code."""
    done = stancewatch("replay", "seeds", "--json")
    assert (done.returncode, done.stderr.count("error")) == (0, 0), done.stderr
    counted = json.loads(done.stdout)
    assert counted == json.loads((SEEDS / "expected_counts.json").read_text())
    assert counted["counts"] == expected_votes(read_paths([SEEDS]), assessor)
    assert "nothing will be kept" in done.stderr


def test_replay_prints_a_table_for_people() -> None:
    """Without --json: figures by topic and stance, and where the metrics were."""
    done = stancewatch("replay", SEEDS / "articles", "--rate", "200")
    assert done.returncode == 0, done.stderr
    assert "published      16" in done.stdout
    assert "export_controls" in done.stdout
    assert "showed the same counts" in done.stdout


def test_a_record_that_the_broker_refuses_is_reported(tmp_path: Path) -> None:
    """What cannot be published is not lost silently: it is named and the exit code says so."""
    (tmp_path / "big.jsonl").write_bytes(event_bytes(text="x" * 9_000_000) + b"\n" + event_bytes(id="b"))
    done = stancewatch("replay", tmp_path, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["published"] == 1
    assert "big.jsonl:1" in done.stderr
    assert "9000" in done.stderr


def test_a_wrong_path_is_one_line_and_exit_code_1() -> None:
    """No traceback for what the user can mend."""
    done = stancewatch("replay", "no/such/folder")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: no/such/folder does not exist\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["replay", "seeds", "--broker", ""], "--broker is empty: expected host:port"),
        (["replay", "seeds", "--broker", "foo"], "STANCEWATCH_BROKER: got 'foo': 'foo' is not host:port"),
        (["train", "--into", "README.md"], "--into README.md: expected a folder, it is a file"),
        (["worker"], "no Kafka broker is set: give --broker HOST:PORT or STANCEWATCH_BROKER"),
    ],
)
def test_what_the_user_can_mend_is_one_line(arguments: list[str], told: str) -> None:
    """No traceback, nothing on standard output, exit code 1."""
    done = stancewatch(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith(f"error: {told}")
    assert len(done.stderr.splitlines()) == 1


def test_without_a_broker_behind_the_address_replay_says_so() -> None:
    """The message names the address and the setting."""
    done = stancewatch("replay", "seeds", "--broker", "127.0.0.1:9")
    assert done.returncode == 1
    assert "no Kafka broker answers at 127.0.0.1:9" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


async def test_bad_input_is_kept_counted_and_never_stops_the_stream(
    tmp_path: Path, embedded_broker: EmbeddedBroker
) -> None:
    """Every kind of bad input, between good events: original bytes in the dead letter, nothing lost."""
    settings = settings_for(embedded_broker.address)
    bad: list[tuple[bytes | None, bytes | None]] = [
        (f"bad-{i}".encode(), value) for i, (value, _) in enumerate(BAD.values())
    ]
    bad.append((None, event_bytes(id="no-key")))
    records = []
    for number, record in enumerate(bad):
        good_id = f"good-{number}"
        records += [record, (good_id.encode(), event_bytes(id=good_id))]
    await publish(settings, records)
    with worker(tmp_path / "w", embedded_broker.address, **EMBEDDED) as process:
        process.wait_until_ready()
        wait_until(lambda: handled(process) == len(records), "all handled", process)
        counted = outcomes(process)
    assert counted["dead_letter"] == len(bad)
    assert sum(counted.values()) == len(records)
    letters: list[Any] = await read_all(settings, settings.dead_letters_topic)
    assert sorted((m.key or b"", m.value or b"") for m in letters) == sorted(
        (k or b"", v or b"") for k, v in bad
    )
    reasons = {message.key: dict(message.headers)["reason"].decode() for message in letters}
    expected: dict[bytes | None, str] = {
        f"bad-{i}".encode(): str(reason) for i, (_, reason) in enumerate(BAD.values())
    }
    assert reasons == {**expected, None: "missing_key"}
    places = {(dict(m.headers)["partition"], dict(m.headers)["offset"]) for m in letters}
    assert len(places) == len(letters)


async def test_assessments_follow_the_contract(
    tmp_path: Path, embedded_broker: EmbeddedBroker, assessor: Assessor
) -> None:
    """Fields, evidence that can be found in the event, model name; one record an accepted version."""
    records = read_paths([SEEDS / "articles"])
    settings = settings_for(embedded_broker.address)
    started = datetime.now(UTC)
    await publish(settings, records)
    with worker(tmp_path / "w", embedded_broker.address, **EMBEDDED) as process:
        process.wait_until_ready()
        wait_until(lambda: handled(process) == len(records), "all handled", process)
        assert votes(process) == expected_votes(records, assessor)
    found: list[Any] = await read_all(settings, settings.assessments_topic)
    events = {record.event_id: json.loads(record.value) for record in records}
    assert {message.key.decode() for message in found} == set(events)
    for message in found:
        row = json.loads(message.value)
        event = events[row["event_id"]]
        assert row["published_at"] == event["published_at"]
        assert row["model"] == assessor.name
        assert datetime.fromisoformat(row["assessed_at"]) >= started
        assert row["retracted"] is False
        for topic in row["topics"]:
            assert topic["stance"] in STANCES
            assert 0 <= topic["stance_probability"] <= 1
            assert (topic["stance"] == UNCLEAR) == (topic["stance_probability"] < UNCLEAR_BELOW)
            assert topic["evidence"]
            for sentence in topic["evidence"]:
                assert event[sentence["field"]][sentence["start"] : sentence["end"]] == sentence["text"]


@pytest.mark.skipif(find_spec("wordllama") is None, reason="wordllama is not installed: make lock")
async def test_a_topic_of_the_user_reaches_the_metrics(
    tmp_path: Path, embedded_broker: EmbeddedBroker
) -> None:
    """Its series are there from the start, its counts are those of plain code, the hash is its own."""
    taxonomy = ROOT / "classifiers" / "example_topics.yaml"
    (tmp_path / "laws.jsonl").write_bytes(
        event_bytes(id="a", title="", text="Critics condemned the AI Act as an unworkable disaster.")
        + b"\n"
        + event_bytes(id="b", title="", text="The parliament debates a bill on artificial intelligence.")
    )
    records = read_paths([tmp_path / "laws.jsonl", SEEDS / "articles"])
    await publish(settings_for(embedded_broker.address), records)
    expected = load_shipped(taxonomy)
    with worker(tmp_path / "w", embedded_broker.address, **EMBEDDED, taxonomy=taxonomy) as process:
        process.wait_until_ready()
        wait_until(lambda: handled(process) == len(records), "all handled", process)
        counted = votes(process)
        stances = {
            labels["stance"]
            for labels, _ in samples(process.metrics_url, "stancewatch_assessments_total")
            if labels["topic"] == "ai_regulation"
        }
        (model,) = [labels for labels, _ in samples(process.metrics_url, "stancewatch_model_info")]
    assert counted == expected_votes(records, expected)
    assert sum(counted["ai_regulation"].values()) >= 2
    assert stances == {"favor", "against", "neutral", "unclear"}
    assert (model["name"], model["sha256"]) == (expected.name, expected.content_hash)
