"""Follows ``news.emerging-topics`` and gives what ``GET /api/v1/emerging`` answers.

A fault (no such topic yet, the broker is away) leaves the list as it was and is tried again: nothing else in
the process waits for it.
"""

from __future__ import annotations

import logging
from itertools import chain
from typing import Any

import msgspec
from mode import Service

from classifiers.discovery.topic import Signal, Topic
from stream.emerging import listed, plain_topic, take
from stream.reading import partitions_of, ranges, reader
from stream.settings import Settings

__all__ = ["Emerging", "EmergingFeed", "EmergingTopic"]

RETRY_SECONDS = 5.0
SHOWN_MAX = 50

log = logging.getLogger("stancewatch.emerging")


class EmergingTopic(msgspec.Struct, frozen=True, kw_only=True):
    """A theme that no topic of the taxonomy asks for; `growth` is the ratio of its shares now and before."""

    id: str
    label: str
    words: list[str]
    signal: Signal
    documents: int
    growth: float


class Emerging(msgspec.Struct, frozen=True, kw_only=True):
    """The strongest signals first, at most 50."""

    topics: list[EmergingTopic]


class EmergingFeed(Service):  # type: ignore[misc]  # mode ships no types
    """Keeps the topics as they were published last.

    Parameters
    ----------
    settings : Settings

    Attributes
    ----------
    topics : dict of str to Topic
    """

    def __init__(self, settings: Settings, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = settings
        self.topics: dict[str, Topic] = {}

    async def answer(self, _asked: dict[str, Any]) -> Emerging:
        """What lives now."""
        shown = listed(self.topics.values())[:SHOWN_MAX]
        return Emerging(topics=[EmergingTopic(**plain_topic(topic)) for topic in shown])

    @Service.task  # type: ignore[untyped-decorator]
    async def _follow_for_ever(self) -> None:
        while not self.should_stop:
            try:
                await self._follow()
            except Exception as error:  # noqa: BLE001 - whatever it is, the process goes on
                log.debug("cannot read emerging topics: %r", error)
            await self.sleep(RETRY_SECONDS)

    async def _follow(self) -> None:
        places = await partitions_of(self.settings, self.settings.emerging_topic)
        if not places:
            return  # `stancewatch discover` makes it
        async with reader(self.settings) as consumer:
            begins = await ranges(consumer, places)
            consumer.assign(places)
            for place, (begin, _) in begins.items():
                consumer.seek(place, begin)
            while True:
                batches = await consumer.getmany(timeout_ms=1000, max_records=500)
                for record in chain.from_iterable(batches.values()):
                    take(self.topics, record.key, record.value)
