"""`stancewatch discover` beside a worker on Apache Kafka: topics, restart, and the compacted Kafka topic."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from classifiers.discovery.registry import PATIENCE
from stream.emerging import read_topics
from stream.emerging_feed import EmergingFeed
from stream.reading import admin_client
from stream.schema import encode
from tests.discovering import DiscoverProcess, refits, value_of
from tests.headlines import rising, steady, wire
from tests.kafka_server import KafkaServer
from tests.stack import handled, publish, settings_for, wait_until, worker

pytestmark = pytest.mark.kafka


async def test_a_rising_theme_beside_a_worker(
    kafka: KafkaServer, names: dict[str, str], tmp_path: Path
) -> None:
    """Assessed by the worker, found as the strong one, kept in a compacted topic, offsets committed."""
    settings = settings_for(kafka.bootstrap, **names)
    events = [*steady(), *rising(), *wire()]
    await publish(settings, [(event.id.encode(), encode(event)) for event in events])
    with (
        worker(tmp_path / "w", kafka.bootstrap, **names) as running,
        DiscoverProcess(tmp_path / "d", settings, discover_interval_seconds=4) as process,
    ):
        running.wait_until_ready()
        wait_until(lambda: handled(running) == len(events), "all handled", running)
        process.wait_until_ready()

        def whole() -> bool:
            window = value_of(process, "stancewatch_emerging_window_documents")
            return window == len(events) and refits(process) >= 1

        wait_until(whole, "the window", process, seconds=200)
        for number in range(PATIENCE):  # what a look at a part of the window mixed up takes three to part
            seen, one_more = refits(process), b"one-more-%d" % number
            await publish(settings, [(one_more, encode(steady()[0]).replace(b"football-0", one_more))])
            wait_until(partial(_looked, process, seen), "a look at all", process, seconds=200)
            topics = {topic.id: topic for topic in await read_topics(settings)}
            if any(topic.signal == "strong" for topic in topics.values()):
                break
    (strong,) = [topic for topic in topics.values() if topic.signal == "strong"]
    moon = [member for member in strong.members if member.startswith("moon")]
    assert len(moon) >= 10
    assert len(strong.members) - len(moon) <= 2
    async with EmergingFeed(settings) as feed:
        await wait_for_topics(feed, len(topics))
        answer = await feed.answer({})
    assert answer.topics[0].id == strong.id
    async with admin_client(settings) as admin:
        wanted = ConfigResource(ConfigResourceType.TOPIC, settings.emerging_topic)
        (described,) = await admin.describe_configs([wanted])
        policy = [entry[1] for entry in described.resources[0][4] if entry[0] == "cleanup.policy"]
        committed = await admin.list_consumer_group_offsets(f"{settings.group}-discover")
    assert policy == ["compact"]
    offsets = {place: found.offset for place, found in committed.items()}
    assert sum(n for place, n in offsets.items() if place.topic == settings.events_topic) >= len(events)
    assert TopicPartition(settings.assessments_topic, 0) in offsets


def _looked(process: DiscoverProcess, seen: int) -> bool:
    return refits(process) > seen


async def wait_for_topics(feed: EmergingFeed, count: int) -> None:
    """Until the feed holds them."""
    async with asyncio.timeout(30):
        while len(feed.topics) < count:  # noqa: ASYNC110 - a condition with a deadline
            await asyncio.sleep(0.05)
