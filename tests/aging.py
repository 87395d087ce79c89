"""A log of 60 days for tests on brokers: what expires in it, is swept, and comes back after a crash."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from stream.clients import create_topics
from stream.embedded import WorkerProcess
from stream.reading import producer
from stream.settings import Settings
from stream.tables import TOTAL, hour_of, split_counts_key
from tests.stack import handled, outcomes, read_all, samples, stancewatch, variables, votes, wait_until

NOW = datetime.now(UTC)
COUNT = 40
KEPT = {"bucket_days": 8, "identity_days": 10}
TITLE = "Cloud revenue rose strongly, and customers praised the cloud service"


async def write(settings: Settings, days_ago: int, name: str, published: int | None = None) -> None:
    """Events `name`-0 to `name`-39, written to Kafka on one day and published then or on another."""
    moment = NOW - timedelta(days=days_ago if published is None else published)
    written = NOW - timedelta(days=days_ago)
    async with producer(settings) as client:
        for number in range(COUNT):
            event_id = f"{name}-{number}"
            row = {"id": event_id, "title": TITLE, "published_at": moment.isoformat()}
            await client.send_and_wait(
                settings.events_topic,
                key=event_id.encode(),
                value=json.dumps(row).encode(),
                timestamp_ms=int(written.timestamp() * 1000),
            )


def swept(process: WorkerProcess, table: str) -> int:
    """Entries that this worker deleted from a table."""
    found = samples(process.metrics_url, "stancewatch_swept_total")
    return int(sum(value for labels, value in found if labels["table"] == table))


async def live_keys(settings: Settings, table: str) -> set[bytes]:
    """Keys whose last record in the changelog is no tombstone."""
    last: dict[bytes, Any] = {}
    for message in await read_all(settings, f"{settings.group}-{table}-changelog"):
        last[message.key] = message.value  # type: ignore[attr-defined]
    return {key for key, value in last.items() if value is not None}


async def check_aging(
    settings: Settings, start: Callable[[str], WorkerProcess], audit: Sequence[str], **environment: str
) -> None:
    """Late events, forgotten identities, sweeps with tombstones, kill -9, recovery, audits in between."""

    def audited(process: WorkerProcess) -> None:
        arguments = ("audit", "--json", *audit, "--metrics", process.metrics_url)
        done = stancewatch(*arguments, **environment, **variables(KEPT))
        assert done.returncode == 0, done.stdout + done.stderr

    await create_topics(settings)
    await write(settings, 60, "old")
    await write(settings, 40, "mid")
    await write(settings, 40, "old", published=60)
    await write(settings, 0, "new")
    await write(settings, 0, "mid", published=40)
    await write(settings, 0, "new")
    expected = {"assessed": 3 * COUNT, "late": 2 * COUNT, "duplicate": COUNT}
    with start("a") as process:
        process.wait_until_ready()
        wait_until(lambda: handled(process) == 6 * COUNT, "all handled", process)
        assert outcomes(process) == expected
        rounds = 0
        deadline = time.monotonic() + 60
        # Sweeps go with batches, and wait for commits; an id of "old" may go twice, before it comes again.
        while any(b"|old-" in key for key in await live_keys(settings, "identities")):
            assert time.monotonic() < deadline, process.output
            await write(settings, 0, f"tick{rounds}")
            rounds += 1
            wait_until(lambda: handled(process) == (6 + rounds) * COUNT, "ticks handled", process)  # noqa: B023
        expected["assessed"] += rounds * COUNT
        assert outcomes(process) == expected
        assert swept(process, "identities") >= COUNT
        audited(process)
        before = votes(process)
        process.process.send_signal(signal.SIGKILL)
        process.process.wait()
    identities = {key.decode().partition("|")[2] for key in await live_keys(settings, "identities")}
    names = ["mid", "new", *(f"tick{number}" for number in range(rounds))]
    assert identities == {f"{name}-{number}" for name in names for number in range(COUNT)}
    buckets = {split_counts_key(key)[1] for key in await live_keys(settings, "counts")}
    assert buckets == {TOTAL, str(hour_of(NOW))}
    with start("b") as process:
        process.wait_until_ready()
        wait_until(lambda: handled(process) == (6 + rounds) * COUNT, "recovered", process)
        await write(settings, 0, "new")
        wait_until(lambda: handled(process) == (7 + rounds) * COUNT, "duplicates handled", process)
        expected["duplicate"] += COUNT
        assert (outcomes(process), votes(process)) == (expected, before)
        audited(process)
