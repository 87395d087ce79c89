"""Doubles of what the processor touches: tables that lose writes in a crash, records, topics."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry

from classifiers.decisions import Sentence, TopicDecision
from stream.agents import EventProcessor
from stream.metrics import Metrics
from stream.order import LogOrder
from stream.settings import load_settings


class CrashError(Exception):
    """Stands for kill -9."""


class Table(dict[bytes, bytes]):
    """A table whose unconfirmed writes may be lost."""

    def __init__(self) -> None:
        super().__init__()
        self.confirmed: dict[bytes, bytes] = {}
        self.pending: list[tuple[bytes, bytes | None]] = []
        self.crash_on_confirm = False
        self.owners: dict[int, int] = {}
        self._round: Iterator[bytes] = iter(())

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self.pending.append((key, value))
        super().__setitem__(key, value)

    def __delitem__(self, key: bytes) -> None:
        self.pending.append((key, None))
        super().__delitem__(key)

    def next_entries(self, partition: int, limit: int) -> list[tuple[bytes, bytes]]:
        """As StateTable: the next entries of a partition, round and round."""
        keys = list(islice(self._round, limit))
        if not keys:
            self._round = iter(key for key in list(self) if key.startswith(b"%d|" % partition))
            keys = list(islice(self._round, limit))
        return [(key, self[key]) for key in keys if key in self]

    async def wait_for_changelog(self) -> dict[int, list[int]]:
        """Confirm everything, or crash."""
        if self.crash_on_confirm:
            raise CrashError
        self.confirmed = dict(self)
        self.pending.clear()
        return {}

    def crash(self, survives: Collection[int]) -> None:
        """Come back with the confirmed writes and those of the pending ones that survived (by index)."""
        state: dict[bytes, bytes | None] = dict(self.confirmed)
        state.update(write for index, write in enumerate(self.pending) if index in survives)
        self.clear()
        self.update((key, value) for key, value in state.items() if value is not None)
        self.confirmed = dict(self)
        self.pending.clear()
        self.crash_on_confirm = False

    @staticmethod
    @contextmanager
    def partition_of(_event: Any) -> Iterator[None]:
        """Keys carry their partition already."""
        yield


_CLOCK = itertools.count()


class OutputTopic:
    """Keeps what is sent to it."""

    def __init__(self) -> None:
        self.records: list[SimpleNamespace] = []

    async def send(
        self, *, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]
    ) -> asyncio.Future[None]:
        """As Faust: a future of the broker's confirmation."""
        self.records.append(
            SimpleNamespace(key=key, value=value, headers=dict(headers), timestamp=next(_CLOCK))
        )
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


class SourceEvent:
    """A record as Faust hands it over."""

    def __init__(
        self,
        offset: int,
        key: bytes | None,
        value: bytes | None,
        *,
        partition: int = 0,
        timestamp: float = 1.8e9,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> None:
        self.message = SimpleNamespace(
            topic="news.events",
            partition=partition,
            offset=offset,
            key=key,
            value=value,
            generation_id=1,
            timestamp=timestamp,
            headers=headers,
        )
        self.acknowledged = False

    def ack(self) -> None:
        """Mark as done."""
        self.acknowledged = True


class WordAssessor:
    """Decides by words of the form ``topic:stance`` in the text; the word ``crash`` breaks it."""

    topics = ("chips", "cloud")
    name = "words@0"

    def assess(self, documents: Sequence[tuple[str, str]]) -> list[list[TopicDecision]]:
        """Decide on each document."""
        return [self._one(text) for _, text in documents]

    def assess_supported(
        self, documents: Sequence[tuple[str, str]], languages: Sequence[str]
    ) -> list[list[TopicDecision]]:
        """Decide on those in English."""
        return [
            self._one(text) if lang == "en" else []
            for (_, text), lang in zip(documents, languages, strict=True)
        ]

    @staticmethod
    def _one(text: str) -> list[TopicDecision]:
        if "crash" in text:
            message = "the model broke"
            raise RuntimeError(message)
        decisions = []
        for word in text.split():
            topic, _, stance = word.partition(":")
            if stance in {"favor", "against", "neutral"}:
                evidence = (Sentence(word, text.index(word), text.index(word) + len(word), "text"),)
                decisions.append(TopicDecision(topic, 0.9, stance, 0.8, evidence))  # type: ignore[arg-type]
        return decisions


class Bench:
    """A processor with doubles around it."""

    def __init__(self, **values: object) -> None:
        self.counts = Table()
        self.identities = Table()
        self.assessments = OutputTopic()
        self.dead_letters = OutputTopic()
        self.sought: list[tuple[int, int]] = []
        self.commits: dict[int, int] = {}
        self.faust = SimpleNamespace(consumer_generation_id=1)
        self.holes: set[int] = set()
        """Offsets at which the log holds no record."""
        self.metrics = Metrics.create(CollectorRegistry(), model={"name": "words"})
        settings = load_settings(**values)
        self.processor = EventProcessor(self, WordAssessor(), self.metrics, settings)  # type: ignore[arg-type]

        self.processor.order = LogOrder(self.processor._seek, self.missing)
        self.processor.order.start_at(1, {})

    def committed(self, partition: int) -> int:
        """As StreamApp."""
        return self.commits.get(partition, 0)

    async def missing(self, _place: Any, begin: int, end: int, known: Collection[int]) -> int | None:
        """As stream.reading: the first record that is not known."""
        return next((at for at in range(begin, end) if at not in self.holes and at not in known), None)

    async def seek(self, offsets: dict[Any, int]) -> None:
        """As StreamApp: read again from there."""
        self.sought.extend((place.partition, offset) for place, offset in offsets.items())

    def sample(self, name: str, **labels: str) -> float | None:
        """Value of a metric of this process."""
        return self.metrics.registry.get_sample_value(name, labels)
