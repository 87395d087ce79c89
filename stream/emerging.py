"""``news.emerging-topics``: how topics are written to it, and the list that the API and commands give."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from classifiers.discovery.topic import Topic
from stream.reading import partitions_of, ranges, read, reader
from stream.settings import Settings

__all__ = ["decode_topic", "encode_topic", "listed", "plain_topic", "read_topics", "take"]

ORDER = {"strong": 0, "weak": 1, "fading": 2, "noise": 3}

_decoder = msgspec.json.Decoder(Topic)
_encoder = msgspec.json.Encoder()


def encode_topic(topic: Topic) -> bytes:
    """JSON of a topic, for the compacted Kafka topic."""
    return _encoder.encode(topic)


def decode_topic(value: bytes | None) -> Topic | None:
    """A topic, or nothing: a tombstone, or not ours."""
    try:
        return _decoder.decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def take(topics: dict[str, Topic], key: bytes | None, value: bytes | None) -> None:
    """Apply a record to the topics by id: a topic, or a tombstone."""
    name = (key or b"").decode(errors="replace")
    topic = decode_topic(value)
    if topic is not None and topic.id == name:
        topics[name] = topic
    else:
        topics.pop(name, None)


async def read_topics(settings: Settings) -> list[Topic]:
    """All topics as they were published last, by id; none when there is no such Kafka topic."""
    places = await partitions_of(settings, settings.emerging_topic)
    found: dict[str, Topic] = {}
    async with reader(settings) as consumer:
        async for record in read(consumer, await ranges(consumer, places)):
            take(found, record.key, record.value)
    return [found[name] for name in sorted(found)]


def listed(topics: Iterable[Topic]) -> list[Topic]:
    """The living ones: by signal, then size."""
    living = [topic for topic in topics if topic.state == "living"]
    return sorted(living, key=lambda topic: (ORDER[topic.signal], -topic.documents, topic.id))


def plain_topic(topic: Topic, *, examples: bool = False) -> dict[str, Any]:
    """What ``GET /api/v1/emerging`` tells of a topic."""
    plain: dict[str, Any] = {
        "id": topic.id,
        "label": topic.label,
        "words": topic.words,
        "signal": topic.signal,
        "documents": topic.documents,
        "growth": topic.growth,
    }
    if examples:
        plain |= {
            "recent": topic.recent,
            "copies": topic.copies,
            "q_value": topic.q_value,
            "born": topic.born,
            "examples": [{"id": id_, "text": text} for id_, text in topic.examples],
        }
    return plain
