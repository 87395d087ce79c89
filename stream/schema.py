"""The records of the stream: event, assessment, dead letter (DESIGN section 2).

All times are UTC with a time zone; all offsets are Kafka offsets; probabilities run from 0 to 1.
Decoding is pure: :func:`decode_event` returns an :class:`Event` or raises :class:`RejectedEvent`,
nothing else, for whatever bytes arrive.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import msgspec

from classifiers.decisions import StanceLabel, TopicDecision
from classifiers.language import SUPPORTED
from stream.errors import Reason, RejectedEvent, Stage

__all__ = [
    "Assessment",
    "DeadLetter",
    "Event",
    "Evidence",
    "Header",
    "TopicAssessment",
    "content_id",
    "decode_assessment",
    "decode_event",
    "encode",
    "make_assessment",
]

ID_CHARACTERS_MAX = 512
VERSION_MAX = 2**63 - 1
Header = tuple[str, bytes]


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A news event as published to ``news.events``.

    Attributes
    ----------
    id : str
        Identity of the article, 1 to 512 characters; also the Kafka key.
    title, text : str
        Plain text; at least one of the two holds more than white space.
    published_at : datetime
        RFC 3339 in JSON, any offset; converted to UTC on decoding. Its hour is the event-time bucket.
    source, url, language : str
        Name of the outlet, address of the article, BCP 47 tag; empty when not given.
    version : int
        1 to 2**63 - 1. A higher version of the same id corrects the earlier one.
    retracted : bool
        Withdraws the vote of the article.
    """

    id: str
    published_at: datetime
    title: str = ""
    text: str = ""
    source: str = ""
    url: str = ""
    language: str = ""
    version: int = 1
    retracted: bool = False


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """A sentence that decided, with its place in the event.

    ``start`` and ``end`` count characters (Unicode code points) within the event's own ``field``
    ("title" or "text"), end excluded, so that ``getattr(event, field)[start:end] == text``.
    """

    text: str
    start: int
    end: int
    field: Literal["title", "text"] = "text"


class TopicAssessment(msgspec.Struct, frozen=True, kw_only=True):
    """One assigned topic and the stance toward it; probabilities in 0 to 1."""

    topic: str
    probability: float
    stance: StanceLabel
    stance_probability: float
    evidence: Sequence[Evidence] = ()


class Assessment(msgspec.Struct, frozen=True, kw_only=True):
    """What the classifier decided about one version of one event (``news.assessments``).

    ``assessed_at`` is the wall clock of the worker in UTC; everything else follows from the event and
    the model, so a record that is written twice after a crash says the same twice.
    An empty ``topics`` list means off topic, withdrawn when ``retracted`` is true, or not judged when
    ``unsupported_language`` is true; ``language`` is the primary subtag, given or detected.
    """

    event_id: str
    version: int
    published_at: datetime
    assessed_at: datetime
    source: str
    url: str
    title: str
    model: str
    topics: Sequence[TopicAssessment] = ()
    retracted: bool = False
    language: str = ""
    unsupported_language: bool = False


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A rejected record: the bytes as received, the reason in the headers.

    Attributes
    ----------
    key, value : bytes or None
        Exactly what arrived.
    reason : Reason
    stage : Stage
    detail : str
        For people; cut to 500 characters.
    topic, partition, offset
        Where the record stood.
    failed_at : datetime
        Wall clock of the worker, UTC.
    resent : sequence of Header
        Of a record that was a dead letter before and was sent again: how often and from where.
    """

    key: bytes | None
    value: bytes | None
    reason: Reason
    stage: Stage
    detail: str
    topic: str
    partition: int
    offset: int
    failed_at: datetime
    resent: Sequence[Header] = ()

    def headers(self) -> list[Header]:
        """Kafka headers, values UTF-8."""
        fields = {
            "reason": self.reason,
            "stage": self.stage,
            "detail": self.detail[:500],
            "topic": self.topic,
            "partition": str(self.partition),
            "offset": str(self.offset),
            "failed_at": self.failed_at.isoformat(),
        }
        own = [(name, value.encode("utf-8", "backslashreplace")) for name, value in fields.items()]
        return [*own, *self.resent]


class _WireEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event as producers write it: optional fields may be null, unknown fields are passed over."""

    id: str
    published_at: Annotated[datetime, msgspec.Meta(tz=True)]
    title: str | None = None
    text: str | None = None
    source: str | None = None
    url: str | None = None
    language: str | None = None
    version: int | None = None
    retracted: bool | None = None


class _CloudEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The attributes that CloudEvents 1.0 (section 3.1) requires, and the JSON format's ``data``."""

    id: str
    source: str
    specversion: str
    type: str
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _EnvelopeProbe(msgspec.Struct, frozen=True):
    specversion: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_wire_decoder = msgspec.json.Decoder(_WireEvent)
_cloud_decoder = msgspec.json.Decoder(_CloudEvent)
_probe_decoder = msgspec.json.Decoder(_EnvelopeProbe)
_assessment_decoder = msgspec.json.Decoder(Assessment)
_encoder = msgspec.json.Encoder()


def encode(record: msgspec.Struct) -> bytes:
    """JSON bytes of a record, UTF-8, times in RFC 3339."""
    return _encoder.encode(record)


def decode_event(
    value: bytes | None,
    *,
    now: datetime,
    bytes_max: int = 1_048_576,
    future_tolerance: timedelta = timedelta(hours=24),
) -> Event:
    """Decode and validate the value of one record of ``news.events``.

    Parameters
    ----------
    value : bytes or None
        The record's value: an event or a structured CloudEvents 1.0 envelope around one.
    now : datetime
        Wall clock, for the check of dates that lie ahead.
    bytes_max : int
        Largest value accepted, in bytes.
    future_tolerance : timedelta
        How far ``published_at`` may lie after `now`.

    Returns
    -------
    Event
        With ``published_at`` in UTC.

    Raises
    ------
    RejectedEvent
        For every value that is not an event; no other error leaves this function.
    """
    if not value:
        raise RejectedEvent(Reason.EMPTY_RECORD, Stage.RECEIVE, "the record has no value")
    if len(value) > bytes_max:
        detail = f"the record has {len(value)} bytes, at most {bytes_max} are accepted"
        raise RejectedEvent(Reason.TOO_LARGE, Stage.RECEIVE, detail)
    try:
        value.decode("utf-8")  # msgspec does not look into fields that it passes over
        wire = _decode_wire(value)
    except UnicodeDecodeError as error:
        detail = f"not UTF-8 at byte {error.start}: {error.reason}"
        raise RejectedEvent(Reason.INVALID_UTF8, Stage.DECODE, detail) from None
    except RecursionError:
        raise RejectedEvent(Reason.TOO_DEEP, Stage.DECODE, "the JSON is nested too deeply") from None
    except msgspec.ValidationError as error:
        raise RejectedEvent(_reason_of(error), Stage.VALIDATE, str(error)) from None
    except msgspec.DecodeError as error:
        raise RejectedEvent(Reason.INVALID_JSON, Stage.DECODE, str(error)) from None
    return _validate(wire, latest=now + future_tolerance)


def _decode_wire(value: bytes) -> _WireEvent:
    if b'"specversion"' in value and _probe_decoder.decode(value).specversion is not msgspec.UNSET:
        try:
            envelope = _cloud_decoder.decode(value)
        except msgspec.ValidationError as error:
            raise RejectedEvent(Reason.INVALID_ENVELOPE, Stage.DECODE, f"CloudEvent: {error}") from None
        if envelope.specversion != "1.0" or envelope.data is msgspec.UNSET:
            detail = f"expected CloudEvents 1.0 with JSON `data`, got specversion {envelope.specversion!r}"
            raise RejectedEvent(Reason.INVALID_ENVELOPE, Stage.DECODE, detail)
        return _wire_decoder.decode(envelope.data)
    return _wire_decoder.decode(value)


def _reason_of(error: msgspec.ValidationError) -> Reason:
    message = str(error)
    if "missing required field" in message:
        return Reason.MISSING_FIELD
    if "published_at" in message and "got `" not in message:
        return Reason.INVALID_DATE
    return Reason.WRONG_TYPE


def _validate(wire: _WireEvent, *, latest: datetime) -> Event:
    def reject(reason: Reason, detail: str) -> RejectedEvent:
        return RejectedEvent(reason, Stage.VALIDATE, detail)

    if not wire.id.strip() or len(wire.id) > ID_CHARACTERS_MAX:
        raise reject(
            Reason.INVALID_ID, f"`id` must have 1 to {ID_CHARACTERS_MAX} characters, got {len(wire.id)}"
        )
    fields = {name: getattr(wire, name) or "" for name in ("title", "text", "source", "url", "language")}
    for name, content in {"id": wire.id, **fields}.items():
        if "\0" in content:
            raise reject(Reason.INVALID_CHARACTERS, f"`{name}` holds a NUL character")
        try:
            content.encode("utf-8")
        except UnicodeEncodeError:
            raise reject(Reason.INVALID_CHARACTERS, f"`{name}` holds a lone surrogate") from None
    retracted = bool(wire.retracted)
    if not retracted and not fields["title"].strip() and not fields["text"].strip():
        raise reject(Reason.EMPTY_CONTENT, "both `title` and `text` are empty; at least one is needed")
    version = 1 if wire.version is None else wire.version
    if not 1 <= version <= VERSION_MAX:
        raise reject(Reason.OUT_OF_RANGE, f"`version` must be 1 to 2**63-1, got {str(version)[:40]}")
    try:
        published_at = wire.published_at.astimezone(UTC)
    except OverflowError:
        raise reject(
            Reason.INVALID_DATE, f"`published_at` {wire.published_at} is not a date in UTC"
        ) from None
    if published_at > latest:
        detail = f"`published_at` {published_at.isoformat()} lies after {latest.isoformat()}"
        raise reject(Reason.FUTURE_DATE, detail)
    return Event(id=wire.id, published_at=published_at, version=version, retracted=retracted, **fields)


def make_assessment(
    event: Event, decisions: Sequence[TopicDecision], model: str, now: datetime, *, language: str = "en"
) -> Assessment:
    """Put an event and the decisions on it together into an output record."""
    return Assessment(
        event_id=event.id,
        version=event.version,
        published_at=event.published_at,
        assessed_at=now,
        source=event.source,
        url=event.url,
        title=event.title,
        model=model,
        topics=[
            TopicAssessment(
                topic=decision.topic,
                probability=decision.probability,
                stance=decision.stance,
                stance_probability=decision.stance_probability,
                evidence=[
                    Evidence(text=sentence.text, start=sentence.start, end=sentence.end, field=sentence.field)
                    for sentence in decision.evidence
                ],
            )
            for decision in decisions
        ],
        retracted=event.retracted,
        language=language,
        unsupported_language=language not in SUPPORTED,
    )


def decode_assessment(value: bytes | None) -> Assessment | None:
    """An assessment that can be stored, or nothing: others may write to the topic too."""
    try:
        assessment = _assessment_decoder.decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    whole = assessment.published_at.tzinfo and assessment.assessed_at.tzinfo
    return assessment if whole and 0 < assessment.version <= VERSION_MAX else None


def content_id(content: str) -> str:
    """Identity of a text without an id of its own: the same content always gets the same one."""
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:24]
