"""Small pure functions between Kafka records and our own types."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from stream.errors import Reason, RejectedEvent, Stage
from stream.schema import DeadLetter, Header

__all__ = ["check_key", "dead_letter", "origin", "record_time"]


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
    """When the record was written, by its Kafka timestamp (seconds); now for one without."""
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
    )


def origin(message: Any) -> list[Header]:
    """Headers of an assessment: where the event stood, so that a publisher can follow its own records."""
    return [("partition", str(message.partition).encode()), ("offset", str(message.offset).encode())]
