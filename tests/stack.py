"""Helpers that run the real thing: workers as processes, records on a broker, counts told independently."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from classifiers.assessor import Assessor
from stream.clients import create_topics
from stream.embedded import WorkerProcess
from stream.errors import RejectedEvent
from stream.schema import Event, decode_event
from stream.settings import Settings, load_settings
from stream.sources import Record
from tests.conftest import ROOT

Votes = dict[str, dict[str, int]]


class Logging(Protocol):
    """A worker, a Prometheus: what can tell what it logged."""

    @property
    def output(self) -> str:
        """Last lines that it logged."""


def variables(names: Mapping[str, object]) -> dict[str, str]:
    """Environment variables of settings by name."""
    return {f"STANCEWATCH_{name.upper()}": str(value) for name, value in names.items()}


def stancewatch(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line from the project's folder."""
    command = [sys.executable, "-m", "stream.cli", *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **environment},
        timeout=120,
    )


def wait_until(condition: Callable[[], bool], what: str, *servers: Logging, seconds: float = 60.0) -> None:
    """Poll until the condition holds; after the deadline fail with `what` and the logs of the servers."""
    deadline = time.monotonic() + seconds
    reason = f"not within {seconds:.0f} s"
    while True:
        try:
            if condition():
                return
        except OSError as error:  # a worker that went away
            reason, deadline = str(error), 0
        if time.monotonic() > deadline:
            logs = "\n".join(server.output for server in servers)
            message = f"{reason}: {what}\n{logs}"
            raise AssertionError(message)
        time.sleep(0.05)


def expected_votes(records: Iterable[Record], assessor: Assessor) -> Votes:
    """Counts of the final versions, told by plain code: decode, keep the highest version, classify."""
    final: dict[str, Event] = {}
    for record in records:
        try:
            event = decode_event(record.value, now=datetime.now(UTC))
        except RejectedEvent:
            continue
        if event.id not in final or event.version > final[event.id].version:
            final[event.id] = event
    counts: dict[str, Counter[str]] = {}
    kept = [event for event in final.values() if not event.retracted]
    for decisions in assessor.assess([(event.title, event.text) for event in kept]):
        for decision in decisions:
            counts.setdefault(decision.topic, Counter())[decision.stance] += 1
    return {topic: dict(sorted(counts[topic].items())) for topic in sorted(counts)}


def multiplied(records: Iterable[Record], times: int) -> list[Record]:
    """The same articles under new ids; only well-formed ones."""
    copies = []
    rows = [json.loads(record.value) for record in records if record.event_id]
    for number in range(times):
        for row in rows:
            event_id = f"{row['id']}-{number}"
            value = json.dumps({**row, "id": event_id}).encode()
            copies.append(Record(event_id.encode(), value, "copy", None, event_id, row.get("version", 1)))
    return copies


def settings_for(broker: str, **values: object) -> Settings:
    """Settings of a test."""
    return load_settings(broker=broker, **values)


def worker(folder: Path, broker: str, **environment: object) -> WorkerProcess:
    """A worker process on a broker, with quick failure detection; state under `folder`."""
    return WorkerProcess(
        folder,
        {
            "STANCEWATCH_BROKER": broker,
            "STANCEWATCH_SESSION_TIMEOUT_SECONDS": "6",
            "STANCEWATCH_COMMIT_INTERVAL_SECONDS": "1",
            **variables(environment),
        },
    )


async def publish(
    settings: Settings,
    records: Iterable[Record | tuple[bytes | None, bytes | None]],
    *,
    batch_bytes: int = 16384,
) -> None:
    """Create the topics and publish; tuples are raw key and value.

    The embedded broker tells the end of a log rightly only if each batch holds one record (`batch_bytes` 1).
    """
    await create_topics(settings)
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap_servers,
        acks="all",
        max_request_size=settings.record_bytes_max,
        max_batch_size=batch_bytes,
    )
    await producer.start()
    try:
        for record in records:
            key, value = record if isinstance(record, tuple) else (record.key, record.value)
            await producer.send(settings.events_topic, key=key, value=value)
        await producer.flush()
    finally:
        await producer.stop()


async def read_all(settings: Settings, topic: str) -> list[object]:
    """Every record of a topic, in order of partition and offset.

    Up to the ends of its partitions, however long a busy machine takes; and until nothing more comes, since
    the embedded broker tells ends that are too low.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap_servers,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=settings.record_bytes_max * 2,
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(settings.partitions)]
        consumer.assign(partitions)
        found: list[object] = []
        ends = await consumer.end_offsets(partitions)
        quiet, deadline = 0, time.monotonic() + 60
        while quiet < 3 or [place for place in partitions if await consumer.position(place) < ends[place]]:
            assert time.monotonic() < deadline, f"{topic}: {ends} not reached by {len(found)} records"
            batches = await consumer.getmany(timeout_ms=400)
            quiet = 0 if batches else quiet + 1
            found.extend(message for batch in batches.values() for message in batch)
        return sorted(found, key=lambda message: (message.partition, message.offset))  # type: ignore[attr-defined]
    finally:
        await consumer.stop()


def samples(url: str, name: str) -> list[tuple[Mapping[str, str], float]]:
    """Labels and values of one metric as a worker shows it now."""
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own worker
        families = text_string_to_metric_families(answer.read().decode())
        return [(s.labels, s.value) for family in families for s in family.samples if s.name == name]


def outcomes(*workers: WorkerProcess) -> dict[str, int]:
    """Stored outcomes of all partitions, each partition counted once; zeros left out."""
    highest: dict[tuple[str, str], float] = {}
    for process in workers:
        for labels, value in samples(process.metrics_url, "stancewatch_stored_events_total"):
            place = (labels["outcome"], labels["partition"])
            highest[place] = max(highest.get(place, 0), value)
    sums: Counter[str] = Counter()
    for (outcome, _), value in highest.items():
        sums[outcome] += int(value)
    return dict(+sums)


def votes(*workers: WorkerProcess) -> Votes:
    """``sum(max by (topic, stance, partition))`` over the workers' pages; zeros left out."""
    highest: dict[tuple[str, str, str], float] = {}
    for process in workers:
        for labels, value in samples(process.metrics_url, "stancewatch_assessments_total"):
            place = (labels["topic"], labels["stance"], labels["partition"])
            highest[place] = max(highest.get(place, 0), value)
    counts: dict[str, Counter[str]] = {}
    for (topic, stance, _), value in highest.items():
        if value:
            counts.setdefault(topic, Counter())[stance] += int(value)
    return {topic: dict(sorted(counts[topic].items())) for topic in sorted(counts)}


def handled(*workers: WorkerProcess) -> int:
    """Records that the state knows; their batch is yet to be confirmed and acknowledged (:func:`at_rest`)."""
    return sum(outcomes(*workers).values())


def at_rest(process: WorkerProcess) -> bool:
    """Whether no batch is on its way: what this worker counted, it has acknowledged."""
    # In this order: a batch that begins in between is one more of those that have begun.
    ended, begun = (
        samples(process.metrics_url, f"stancewatch_batch_{name}_count")[0][1]
        for name in ("seconds", "events")
    )
    return ended == begun
