"""Articles on the embedded broker: a worker and ``stancewatch serve`` beside it, and what can go wrong."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from stream.article_feed import TAIL, ArticleFeed
from stream.articles import Wanted, moment
from stream.clients import create_topics
from stream.embedded import EmbeddedBroker, WorkerProcess, free_port
from stream.reading import producer
from stream.schema import decode_assessment, encode
from stream.settings import Settings, load_settings
from tests.agents.test_embedded import EMBEDDED
from tests.conftest import ROOT, SEEDS
from tests.stack import outcomes, samples, stancewatch, votes, wait_until, worker
from tests.unit.test_articles import CLOUD, NOON, assessment

pytestmark = pytest.mark.embedded
EXPECTED = json.loads((SEEDS / "expected_counts.json").read_text())


def get(base: str, path: str) -> Any:
    """A JSON answer."""
    with urllib.request.urlopen(f"{base}/api/v1/{path}", timeout=10) as answer:  # noqa: S310 - our own process
        return json.loads(answer.read())


def text(base: str, path: str) -> str:
    """A page."""
    with urllib.request.urlopen(base + path, timeout=10) as answer:  # noqa: S310 - our own process
        return str(answer.read().decode())


def counted(base: str, window: str = "all") -> dict[str, dict[str, int]]:
    """Votes of ``/api/v1/counts``; zeros left out."""
    stances = ("against", "favor", "neutral", "unclear")
    return {
        figures["topic"]: {stance: figures[stance] for stance in stances if figures[stance]}
        for figures in get(base, f"counts?window={window}")["topics"]
        if figures["total"]
    }


WITHDRAWN = 1
"""The seed whose last version has no topic any more: kept, so that an older version cannot come back."""


def entries(base: str) -> Iterator[dict[str, Any]]:
    """All articles by topic, read page by page."""
    cursor: str | None = ""
    while cursor is not None:
        page = get(base, f"articles?limit=40&cursor={cursor}")
        yield from page["articles"]
        cursor = page["next"]


def listed(base: str) -> dict[str, dict[str, int]]:
    """Votes of all articles."""
    found: dict[str, Counter[str]] = {}
    for entry in entries(base):
        found.setdefault(entry["topic"], Counter())[entry["stance"]] += 1
    return {topic: dict(sorted(found[topic].items())) for topic in sorted(found)}


@contextmanager
def serving(folder: Path, broker: EmbeddedBroker) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """``stancewatch serve`` as a process."""
    port = free_port()
    environment = {
        "STANCEWATCH_EMBEDDED": "true",
        "STANCEWATCH_WINDOW_CLOCK": "event",
        "STANCEWATCH_DATA_DIR": str(folder / "serve"),
    }
    command = [sys.executable, "-m", "stream.cli", "serve", "--broker", broker.address, "--port", str(port)]
    with (folder / "serve.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.terminate()
        process.wait(20)


def ready(base: str) -> bool:
    """Whether ``/readyz`` says so; False while nobody listens."""
    try:
        return text(base, "/readyz") == "ready\n"
    except OSError:
        return False


def test_a_worker_and_serve_show_the_articles_behind_the_counts(
    tmp_path: Path, embedded_broker: EmbeddedBroker
) -> None:
    """While seeds are replayed: counts of state, store, list and /metrics are one; also with two workers.

    The second one serves metrics alone (``STANCEWATCH_PAGE=false``).
    """
    environment = {**EMBEDDED, "window_clock": "event"}
    with (
        worker(tmp_path / "w", embedded_broker.address, **environment) as process,
        serving(tmp_path, embedded_broker) as (separate, service),
    ):
        process.wait_until_ready()
        base = process.metrics_url.removesuffix("/metrics")
        assert "<title>Stancewatch</title>" in text(base, "/")
        assert get(base, "articles") == {"articles": [], "next": None}
        done = stancewatch(
            "replay", "seeds", "--json", "--broker", embedded_broker.address, STANCEWATCH_EMBEDDED="true"
        )
        assert json.loads(done.stdout)["counts"] == EXPECTED["counts"] == votes(process)
        wait_until(lambda: counted(base) == EXPECTED["counts"], "counted", process)
        assert get(base, "counts")["basis"] == "state"
        for window in ("1h", "24h", "7d"):
            shown: dict[str, Counter[str]] = {}
            for labels, value in samples(process.metrics_url, "stancewatch_window_assessments"):
                if labels["window"] == window and value:
                    shown.setdefault(labels["topic"], Counter())[labels["stance"]] += int(value)
            assert counted(base, window) == shown
        wait_until(lambda: listed(base) == EXPECTED["counts"], "listed", process)

        wait_until(lambda: ready(separate), "serve is ready")
        wait_until(lambda: counted(separate) == EXPECTED["counts"], "counted by serve")
        assert listed(separate) == EXPECTED["counts"]
        week = get(separate, "counts?window=7d")
        assert (week["basis"], week["complete"]) == ("articles", True)
        assert week["topics"] == get(base, "counts?window=7d")["topics"]
        assert get(separate, "trend?window=7d")["points"] == get(base, "trend?window=7d")["points"]
        wait_until(lambda: get(separate, "health")["dead_letters"] == 1, "dead letters are seen")
        assert get(base, "health")["dead_letters"] == 1
        assert get(separate, "health")["process"] == "serve"
        visible = {entry["event_id"] for entry in entries(base)}
        stored = f"stancewatch_articles_stored {len(visible) + WITHDRAWN}.0"
        assert stored in text(separate, "/metrics")
        assert stored in text(base, "/metrics")
        assert text(separate, "/healthz") == "ok\n"
        # The retracted and the corrected article of the seeds.
        assert get(base, "articles?event_id=seed-0032")["articles"] == []
        corrected = get(base, "articles?event_id=seed-0024")["articles"]
        title = "Correction: Tax Office's Move to Cloud Is Late and 47 Million Over Budget"
        assert [(entry["topic"], entry["title"]) for entry in corrected] == [("cloud", title)]

        with worker(tmp_path / "w2", embedded_broker.address, **environment, page="false") as second:
            wait_until(lambda: get(base, "counts")["basis"] == "articles", "shared", process, second)
            assert counted(base) == EXPECTED["counts"]
            without = second.metrics_url.removesuffix("/metrics")
            for path in ("/", "/api/v1/articles", "/api/openapi.json"):
                with pytest.raises(urllib.error.HTTPError, match="404"):
                    text(without, path)
            assert "stancewatch_articles" not in text(without, "/metrics")
        service.send_signal(signal.SIGTERM)
        assert service.wait(20) == 0
    assert list((tmp_path / "serve").iterdir()) == []


def test_a_store_that_fails_does_not_stop_the_worker(
    tmp_path: Path, embedded_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is counted, it stays ready, and the page can say what is wrong."""
    monkeypatch.setattr(WorkerProcess, "module", "tests.agents.broken_articles")
    with worker(tmp_path / "w", embedded_broker.address, **EMBEDDED) as process:
        process.wait_until_ready()
        base = process.metrics_url.removesuffix("/metrics")
        done = stancewatch(
            "replay", "seeds", "--json", "--broker", embedded_broker.address, STANCEWATCH_EMBEDDED="true"
        )
        assert json.loads(done.stdout) == EXPECTED
        assert sum(outcomes(process).values()) == EXPECTED["published"]
        wait_until(lambda: "disk is full" in get(base, "health")["fault"], "the fault is told", process)
        assert text(base, "/readyz") == "ready\n"
        assert counted(base) == EXPECTED["counts"]
        assert samples(process.metrics_url, "stancewatch_articles_faults_total")[0][1] >= 1


async def until(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait for it in the event loop."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.02)


async def send(settings: Settings, *values: bytes) -> None:
    """Write to news.assessments, one record a batch."""
    async with producer(settings) as client:
        for number, value in enumerate(values):
            await client.send_and_wait(
                settings.assessments_topic, value=value, partition=number % settings.partitions
            )


async def test_a_feed_reads_a_bounded_tail_and_says_what_it_does_not_cover(
    embedded_broker: EmbeddedBroker,
) -> None:
    """And passes over what is no assessment."""
    settings = load_settings(
        broker=embedded_broker.address, embedded=True, store="memory", articles_max=2, partitions=1
    )
    async with ArticleFeed(settings) as early:
        await until(lambda: "there is no Kafka topic" in early.fault, "the missing topic is told")
        await create_topics(settings)
        await until(lambda: early.caught_up, "nothing to read")
        garbage = [b"", b"{", b"[]", b'{"event_id": 1}', encode(assessment("z", CLOUD, version=0))]
        good = [
            encode(assessment(str(number), CLOUD, published_at=NOON + timedelta(minutes=number)))
            for number in range(TAIL * 2 + 1)
        ]
        await send(settings, *garbage, *good)
        # Any two that came before are two as well.
        newest = NOON + timedelta(minutes=7)
        await until(lambda: moment(early.store.complete_from or 0) == newest, "all are read")
        assert [row.event_id for row in await early.ask(early.store.find, Wanted(), 9)] == ["8", "7"]
        await until(lambda: early.not_ready() == "", "ready")
    async with ArticleFeed(settings) as late:
        await until(lambda: late.caught_up, "read")
        covered = moment(late.store.complete_from or 0)
    # The first record that was read is of now; what was written before may be dated a day ahead.
    assert covered > NOON + timedelta(days=365)


async def test_a_feed_starts_anew_after_a_fault(
    embedded_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault is told, the store is made again from the topic, and the fault is over."""
    settings = load_settings(broker=embedded_broker.address, embedded=True, store="memory")
    await create_topics(settings)
    monkeypatch.setattr("stream.article_feed.RETRY_SECONDS", (0.2,))
    async with ArticleFeed(settings) as running:
        await send(settings, encode(assessment("a", CLOUD)))
        await until(lambda: running.store.articles == 1, "the first article")
        first = running.store

        def full(_assessments: object) -> None:
            message = "database or disk is full"
            raise sqlite3.OperationalError(message)

        monkeypatch.setattr(first, "apply", full)
        await send(settings, encode(assessment("b", CLOUD)))
        await until(lambda: running.fault == "articles: database or disk is full", "the fault is told")
        await until(lambda: running.store.articles == 2, "made anew")
        await until(lambda: running.not_ready() == "", "the fault is over")
        assert (running.faults, running.store is first) == (1, False)


async def test_a_broker_that_is_away_is_told(tmp_path: Path) -> None:
    """At the start, and nothing is raised."""
    settings = load_settings(broker=f"127.0.0.1:{free_port()}", data_dir=tmp_path)
    async with ArticleFeed(settings) as running:
        await until(lambda: "no Kafka broker answers" in running.not_ready(), "told")


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\xff",
        b"[" * 100_000,
        encode(assessment("a", CLOUD)).replace(b"2024-09-30T12:00:00Z", b"2024-09-30T12:00:00"),
        encode(assessment("a", CLOUD, version=2**63)),
        encode(assessment("a", ("cloud", "hostile"))),
    ],
)
def test_what_is_no_assessment_is_passed_over(value: bytes | None) -> None:
    """Others may write to the topic."""
    assert decode_assessment(value) is None
