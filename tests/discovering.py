"""A stream with assessments, and `stancewatch discover` on it: what tests on both brokers share."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from stream.clients import create_topics
from stream.embedded import WorkerProcess, free_port
from stream.emerging import read_topics
from stream.reading import producer
from stream.schema import Event, encode, make_assessment
from stream.settings import Settings
from tests.stack import samples, variables

__all__ = ["DiscoverProcess", "assess", "emerging_ids", "refits", "value_of"]


class DiscoverProcess(WorkerProcess):
    """``stancewatch discover`` with quick looks, and `/metrics` like a worker's."""

    command = "discover"

    def __init__(self, folder: Path, settings: Settings, **environment: object) -> None:
        port = str(free_port())
        super().__init__(
            folder,
            {
                "STANCEWATCH_BROKER": settings.broker,
                "STANCEWATCH_TOPIC_PREFIX": settings.topic_prefix,
                "STANCEWATCH_GROUP": settings.group,
                "STANCEWATCH_EMBEDDED": str(settings.embedded),
                "STANCEWATCH_METRICS_PORT": port,  # where the base class looks
                "STANCEWATCH_DISCOVER_PORT": port,
                "STANCEWATCH_DISCOVER_INTERVAL_SECONDS": "1",
                **variables(environment),
            },
        )


async def assess(settings: Settings, events: Iterable[Event]) -> None:
    """Publish events with assessments as a worker writes them: English, off topic."""
    await create_topics(settings)
    async with producer(settings) as client:
        for event in events:
            found = make_assessment(event, (), "test", datetime.now(UTC))
            for topic, record in ((settings.events_topic, event), (settings.assessments_topic, found)):
                await client.send_and_wait(topic, key=event.id.encode(), value=encode(record))


def refits(process: WorkerProcess) -> int:
    """How many looks for topics have ended and were published."""
    return int(value_of(process, "stancewatch_emerging_refit_seconds_count"))


def value_of(process: WorkerProcess, name: str) -> float:
    """The single sample of a metric; 0 without one."""
    return next((value for _, value in samples(process.metrics_url, name)), 0.0)


async def emerging_ids(settings: Settings) -> dict[str, str]:
    """Which topic each event belongs to, as it was published."""
    return {
        member: topic.id
        for topic in await read_topics(settings)
        if topic.state == "living"
        for member in topic.members
    }
