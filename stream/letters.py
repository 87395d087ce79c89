"""A dead letter as it stands in its topic, and what a resend makes of it; nothing here needs a broker."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec

from stream.errors import ConfigurationError, Reason, Stage

__all__ = [
    "Filter",
    "Letter",
    "Position",
    "Resent",
    "Status",
    "parse_since",
    "position_of",
    "remembered",
    "select",
    "status_of",
]

Position = tuple[int, int]
"""Partition and offset."""


class Status(StrEnum):
    """What a resend makes of a letter."""

    OPEN = "open"
    """Was not resent yet."""
    RESENT = "resent"
    """Taken by ``--again`` only."""
    FAILED_AGAIN = "failed_again"
    """A newer letter holds the same bytes and stands for it."""
    UNSENDABLE = "unsendable"
    """Not from this events topic, without the worker's headers, or with neither key nor bytes."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One record of ``news.dead-letters``.

    Attributes
    ----------
    partition, offset : int
        Where the letter stands.
    key : bytes or None
        Of the original record.
    size : int
        Bytes of the original record.
    reason, stage, detail : str
        Why, in which step, and for people; empty when the letter does not say.
    topic : str
        Origin topic.
    origin : tuple or None
        Partition and offset of the original record.
    failed_at : datetime or None
    resent_before : int
        How often the record had been resent when it failed.
    resent_from : tuple or None
        Topic, partition and offset of the letter that this one came from.
    value : bytes or None
        The original bytes; only where they were asked for.
    headers : tuple
        All headers, for `show`.
    """

    partition: int
    offset: int
    key: bytes | None
    size: int
    reason: str
    stage: str
    detail: str
    topic: str
    origin: Position | None
    failed_at: datetime | None
    resent_before: int = 0
    resent_from: tuple[str, int, int] | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, record: Any, *, whole: bool = False) -> Letter:
        """Read a Kafka record; what its headers do not say stays empty. `whole` keeps bytes and headers."""
        texts = {
            name: (value or b"").decode(errors="backslashreplace")
            for name, value in dict(record.headers).items()
        }
        times = _number(texts.get("resent_times"))
        origin = (_number(texts.get("partition")), _number(texts.get("offset")))
        return cls(
            partition=record.partition,
            offset=record.offset,
            key=record.key,
            size=len(record.value or b""),
            reason=texts.get("reason", ""),
            stage=texts.get("stage", ""),
            detail=texts.get("detail", ""),
            topic=texts.get("topic", ""),
            origin=None if origin[0] is None or origin[1] is None else (origin[0], origin[1]),
            failed_at=_moment(texts.get("failed_at", "")),
            resent_before=times or 0,
            resent_from=_source(texts.get("resent_from", "")),
            value=record.value if whole else None,
            headers=tuple(record.headers) if whole else (),
        )

    @property
    def position(self) -> str:
        """``partition:offset``."""
        return f"{self.partition}:{self.offset}"


class Resent(msgspec.Struct, frozen=True):
    """What is remembered of a resent letter.

    Attributes
    ----------
    failed_at : str
        Of the letter: the same position with another time is a letter of a recreated topic.
    times : int
        How often this letter was sent.
    resent_at : str
        When, the last time; RFC 3339.
    to : str
        ``topic:partition:offset`` of the last sent record.
    """

    failed_at: str
    times: int
    resent_at: str
    to: str


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters; what is None does not narrow."""

    reason: Reason | None = None
    stage: Stage | None = None
    since: datetime | None = None
    key: bytes | None = None
    position: Position | None = None

    def fits(self, letter: Letter) -> bool:
        """Whether the letter is one of them."""
        return (
            (self.reason is None or letter.reason == self.reason)
            and (self.stage is None or letter.stage == self.stage)
            and (self.since is None or (letter.failed_at is not None and letter.failed_at >= self.since))
            and (self.key is None or letter.key == self.key)
            and (self.position is None or (letter.partition, letter.offset) == self.position)
        )


_AGE = re.compile(r"^(\d{1,6})([smhd])$")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_since(text: str, now: datetime) -> datetime:
    """Moment that ``2h`` (ago), ``2024-09-16`` or ``2024-09-16T10:00:00+02:00`` means; UTC unless it says.

    Raises
    ------
    ConfigurationError
        When it is neither.
    """
    age = _AGE.match(text)
    try:
        moment = now - timedelta(**{_UNITS[age[2]]: int(age[1])}) if age else _moment(text)
    except OverflowError:  # before the year 1
        moment = None
    if moment is None:
        message = f"--since {text!r}: expected an age such as 2h or 7d, or a time such as 2024-09-16T10:00Z"
        raise ConfigurationError(message)
    return moment


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _number(text: str | None) -> int | None:
    return int(text) if text and len(text) < 20 and text.isascii() and text.isdigit() else None  # noqa: PLR2004 - of a 64-bit number


def _source(text: str) -> tuple[str, int, int] | None:
    topic, partition, offset = [*text.rsplit(":", 2), "", ""][:3]
    numbers = (_number(partition), _number(offset))
    return None if numbers[0] is None or numbers[1] is None else (topic, numbers[0], numbers[1])


def status_of(
    letter: Letter,
    events_topic: str,
    memory: Mapping[Position, Resent],
    later: Mapping[Position, Position],
) -> Status:
    """What a resend makes of a letter.

    Parameters
    ----------
    letter : Letter
    events_topic : str
        The only topic that letters are sent back to.
    memory : mapping
        What was resent, by position of the letter.
    later : mapping
        The letter that came of a letter when it was resent.
    """
    ours = letter.topic == events_topic and letter.origin is not None and letter.failed_at is not None
    if not ours or (letter.key is None and not letter.size):
        return Status.UNSENDABLE
    place = (letter.partition, letter.offset)
    if place in later:
        return Status.FAILED_AGAIN
    return Status.OPEN if remembered(letter, memory) is None else Status.RESENT


def remembered(letter: Letter, memory: Mapping[Position, Resent]) -> Resent | None:
    """What is known of the resends of a letter; of a letter that stood there before, nothing."""
    known = memory.get((letter.partition, letter.offset))
    same = known is not None and letter.failed_at == _moment(known.failed_at)
    return known if same else None


def select(letters: Iterable[tuple[Letter, Status]], *, again: bool) -> list[Letter]:
    """Letters that a resend takes: open ones, and with `again` those that were resent."""
    wanted = {Status.OPEN, Status.RESENT} if again else {Status.OPEN}
    return [letter for letter, status in letters if status in wanted]


def position_of(text: str) -> Position | None:
    """``partition:offset`` of a command's argument; None when it is something else."""
    partition, _, offset = text.partition(":")
    numbers = (_number(partition), _number(offset))
    return None if numbers[0] is None or numbers[1] is None else (numbers[0], numbers[1])
