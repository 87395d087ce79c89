"""Seconds that a worker with an empty data folder needs to recover its state, on real Apache Kafka.

A number of event ids is written to the changelog as a worker writes them; then two workers are started, one
after the other, each with a group and a changelog of its own: one finds an empty changelog, one that number.
Printed is `stancewatch_recovery_seconds` of both: from the assignment of the partitions to working.

Command: ``.venv/bin/python -m benchmarks.recovery --ids 250000`` (Java 17 and Maven are needed).
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import uuid
from pathlib import Path

from aiokafka.admin import NewTopic

from stream.app import OWNER_HEADER
from stream.clients import create_topics
from stream.reading import admin_client, producer
from stream.settings import Settings
from stream.tables import Accepted, Identity, identity_key, stored
from tests.kafka_server import KafkaServer
from tests.stack import samples, settings_for, wait_until, worker

PARTITIONS = 4


async def remember(settings: Settings, count: int) -> None:
    """Write so many ids, each with one vote, to the changelog."""
    await create_topics(settings)
    changelogs = [f"{settings.group}-{name}-changelog" for name in ("identities", "counts")]
    async with admin_client(settings) as admin:
        compact = {"cleanup.policy": "compact"}
        topics = [NewTopic(name, PARTITIONS, 1, topic_configs=compact) for name in changelogs]
        await admin.create_topics(topics)
    async with producer(settings) as client:
        for number in range(count):
            partition = number % PARTITIONS
            entry = Accepted(1, number, 472_222, {"cloud": "favor"}, day=19_675)
            await client.send(
                changelogs[0],
                key=identity_key(partition, f"{(number * 2_654_435_761) % 2**32:024x}"),
                value=stored(Identity([entry])),
                partition=partition,
                headers=[(OWNER_HEADER, b"1")],
            )


def recover(folder: Path, broker: str, count: int) -> float:
    """Seconds of the recovery of so many ids by a worker that is started for it."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    names = {"topic_prefix": f"{name}.", "group": name, "partitions": PARTITIONS}
    asyncio.run(remember(settings_for(broker, **names), count))
    with worker(folder / name, broker, **names) as process:
        wait_until(process.is_ready, "the worker is ready", process, seconds=600)
        ((_, seconds),) = samples(process.metrics_url, "stancewatch_recovery_seconds")
    return seconds


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ids", type=int, default=250_000)
    count = parser.parse_args().ids
    with tempfile.TemporaryDirectory() as name:
        server = KafkaServer(Path(name) / "kafka")
        server.start()
        try:
            empty, full = (recover(Path(name), server.bootstrap, number) for number in (0, count))
        finally:
            server.stop()
    print(f"recovery of {count} ids {full:.1f} s, of none {empty:.1f} s")


if __name__ == "__main__":
    main()
