"""One record on its way through a batch, and small pure functions between Kafka records and our own types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from classifiers.decisions import TopicDecision
from stream.errors import Reason, RejectedEvent, Stage
from stream.schema import DeadLetter, Event, Header
from stream.tables import Judgement

__all__ = ["Item", "check_key", "dead_letter", "origin", "record_time"]

RESENT_HEADERS = ("resent_times", "resent_from")
"""What `stancewatch dead-letters resend` writes on a record: how often it was sent, and from which letter."""

TIME_END = 253_402_300_800.0
"""POSIX seconds of the year 10000. What is beyond was meant otherwise, and would age the whole state."""


@dataclass(slots=True)
class Item:
    """One record on its way through the batch; each step fills its part."""

    source: Any
    """The Faust event: ``message`` with topic, partition, offset, key, value; ``ack()``."""
    event: Event | None = None
    rejection: RejectedEvent | None = None
    judgement: Judgement | None = None
    counted: bool = False
    """Delivered again: what became of it was sent before it was counted."""
    decisions: Sequence[TopicDecision] = ()
    language: str = "en"
    day: int = 0
    """Of the log, with this record."""
    kept_from: int = 0
    """First hour that is kept, with this record."""

    @property
    def partition(self) -> int:
        """Kafka partition."""
        return int(self.source.message.partition)

    @property
    def offset(self) -> int:
        """Kafka offset."""
        return int(self.source.message.offset)

    @property
    def written_at(self) -> float:
        """Kafka's time stamp in POSIX seconds; 0 without one, or with one that cannot be."""
        seconds = float(self.source.message.timestamp or 0)
        return seconds if seconds < TIME_END else 0.0

    def kept(self, hour: int) -> int | None:
        """The hour, if its bucket is kept."""
        return hour if hour >= self.kept_from else None

    @property
    def is_new(self) -> bool:
        """Judged, and neither a duplicate nor accepted before."""
        judgement = self.judgement
        return judgement is not None and not judgement.duplicate and judgement.redelivered is None

    @property
    def needs_classifier(self) -> bool:
        """Accepted for the first time, with a vote to cast."""
        return self.is_new and self.event is not None and self.rejection is None and not self.event.retracted


def check_key(key: bytes | None, event_id: str) -> None:
    """Insist that the record's key is the event id.

    Raises
    ------
    RejectedEvent
        When there is no key or another one.
    """
    if not key:
        detail = f"the record has no key; expected the event id {event_id!r} (it decides the partition)"
        raise RejectedEvent(Reason.MISSING_KEY, Stage.VALIDATE, detail)
    if key != event_id.encode():
        detail = f"the record's key is {key[:100]!r}, expected the event id {event_id!r}"
        raise RejectedEvent(Reason.KEY_MISMATCH, Stage.VALIDATE, detail)


def record_time(message: Any) -> datetime:
    """When the record was written, by its Kafka timestamp (seconds); now for one without.

    Raises
    ------
    RejectedEvent
        When there is no such time.
    """
    if (message.timestamp or 0) >= TIME_END:
        detail = f"the record's Kafka time stamp is {message.timestamp * 1000:.0f}: expected milliseconds"
        raise RejectedEvent(Reason.INVALID_DATE, Stage.VALIDATE, detail)
    return (
        datetime.fromtimestamp(message.timestamp, UTC) if (message.timestamp or 0) > 0 else datetime.now(UTC)
    )


def dead_letter(message: Any, rejection: RejectedEvent, now: datetime) -> DeadLetter:
    """Dead letter of a record, with the bytes as they came."""
    return DeadLetter(
        key=message.key,
        value=message.value,
        reason=rejection.reason,
        stage=rejection.stage,
        detail=rejection.detail,
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        failed_at=now,
        resent=[(name, value) for name, value in message.headers or () if name in RESENT_HEADERS and value],
    )


def origin(message: Any) -> list[Header]:
    """Headers of an assessment: where the event stood, so that a publisher can follow its own records."""
    return [("partition", str(message.partition).encode()), ("offset", str(message.offset).encode())]
