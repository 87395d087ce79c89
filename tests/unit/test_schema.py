"""Events as bytes: what is accepted, what is rejected and why."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import Reason, RejectedEvent
from stream.metrics import REJECTIONS
from stream.schema import DeadLetter, Event, decode_event, encode

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GOOD = {"id": "a", "title": "Headline", "published_at": "2024-09-16T06:00:00Z"}


def decode(value: bytes | None) -> Event:
    """Decode with the test's clock."""
    return decode_event(value, now=NOW)


def event_bytes(**changes: Any) -> bytes:
    """JSON of a good event with changes; None removes a field."""
    row = {**GOOD, **changes}
    return json.dumps({name: value for name, value in row.items() if value is not ...}).encode()


BAD = {
    "nothing": (None, Reason.EMPTY_RECORD),
    "empty": (b"", Reason.EMPTY_RECORD),
    "5 MB": (event_bytes(text="x" * 5_000_000), Reason.TOO_LARGE),
    "invalid UTF-8": (b'{"id":"a","title":"\xff"}', Reason.INVALID_UTF8),
    "invalid UTF-8 in an unknown field": (event_bytes()[:-1] + b',"x":"\xff"}', Reason.INVALID_UTF8),
    "no JSON": (b"hello", Reason.INVALID_JSON),
    "cut JSON": (event_bytes()[:20], Reason.INVALID_JSON),
    "two values": (event_bytes() + b"{}", Reason.INVALID_JSON),
    "a raw NUL byte": (b'{"id":"a\0"}', Reason.INVALID_JSON),
    "deep nesting": (event_bytes()[:-1] + b',"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}", Reason.TOO_DEEP),
    "an array": (b"[]", Reason.WRONG_TYPE),
    "null": (b"null", Reason.WRONG_TYPE),
    "a number as id": (event_bytes(id=7), Reason.WRONG_TYPE),
    "a list as title": (event_bytes(title=["x"]), Reason.WRONG_TYPE),
    "a number as date": (event_bytes(published_at=1726466400), Reason.WRONG_TYPE),
    "no id": (event_bytes(id=...), Reason.MISSING_FIELD),
    "no date": (event_bytes(published_at=...), Reason.MISSING_FIELD),
    "empty id": (event_bytes(id=""), Reason.INVALID_ID),
    "blank id": (event_bytes(id=" \t"), Reason.INVALID_ID),
    "long id": (event_bytes(id="x" * 513), Reason.INVALID_ID),
    "no title and no text": (event_bytes(title=...), Reason.EMPTY_CONTENT),
    "blank title and text": (event_bytes(title=" ", text="\n"), Reason.EMPTY_CONTENT),
    "an escaped NUL": (event_bytes(title="a\0b"), Reason.INVALID_CHARACTERS),
    "unparsable date": (event_bytes(published_at="yesterday"), Reason.INVALID_DATE),
    "date without zone": (event_bytes(published_at="2024-09-16T06:00:00"), Reason.INVALID_DATE),
    "a date without UTC": (event_bytes(published_at="0001-01-01T00:00:00+05:00"), Reason.INVALID_DATE),
    "far future": (event_bytes(published_at="2031-01-01T00:00:00Z"), Reason.FUTURE_DATE),
    "version zero": (event_bytes(version=0), Reason.OUT_OF_RANGE),
    "version beyond 64 bits": (event_bytes(version=2**70), Reason.OUT_OF_RANGE),
    "a fraction as version": (event_bytes(version=1.5), Reason.WRONG_TYPE),
    "CloudEvent without data": (
        b'{"specversion":"1.0","id":"x","source":"s","type":"t"}',
        Reason.INVALID_ENVELOPE,
    ),
    "CloudEvent of another version": (
        b'{"specversion":"0.3","id":"x","source":"s","type":"t","data":{}}',
        Reason.INVALID_ENVELOPE,
    ),
    "CloudEvent without source": (b'{"specversion":"1.0","id":"x","type":"t"}', Reason.INVALID_ENVELOPE),
}


@pytest.mark.parametrize(("value", "reason"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_rejected_with_its_reason(value: bytes | None, reason: Reason) -> None:
    """Each kind of bad input has one reason of the closed set."""
    with pytest.raises(RejectedEvent, match=reason) as caught:
        decode(value)
    assert caught.value.reason is reason
    assert caught.value.stage is REJECTIONS[reason]
    assert caught.value.detail


@pytest.mark.parametrize("surrogate", [b"\\ud800", b"\\udc00", b"\\ud800x", b"x\\udfff\\ud800"])
def test_lone_surrogates_are_rejected(surrogate: bytes) -> None:
    """Half a surrogate pair is no character, so the text could never be written again as UTF-8."""
    with pytest.raises(RejectedEvent, match=r"invalid_(json|characters)"):
        decode(b'{"id":"a","published_at":"2024-09-16T06:00:00Z","title":"' + surrogate + b'"}')


def test_unknown_fields_and_huge_numbers_in_them_are_passed_over() -> None:
    """Fields that we do not know never reject an event."""
    event = decode(event_bytes(extra={"deep": [1, 2]}, number=10**400))
    assert event == Event(id="a", title="Headline", published_at=datetime(2024, 9, 16, 6, tzinfo=UTC))


def test_optional_fields_may_be_null() -> None:
    """Null stands for not given."""
    event = decode(event_bytes(text=None, source=None, url=None, language=None, version=None, retracted=None))
    assert (event.text, event.version, event.retracted) == ("", 1, False)


def test_published_at_is_converted_to_utc() -> None:
    """An offset changes the text, not the moment."""
    event = decode(event_bytes(published_at="2024-09-16T08:30:00+02:30"))
    assert event.published_at == datetime(2024, 9, 16, 6, tzinfo=UTC)
    assert event.published_at.utcoffset() == timedelta(0)


def test_a_retraction_needs_no_content() -> None:
    """A withdrawal names the article; it does not have to repeat it."""
    assert decode(event_bytes(title=..., retracted=True, version=2)).retracted


def test_a_structured_cloud_event_is_unwrapped() -> None:
    """CloudEvents 1.0 in structured mode carries the event in `data`."""
    envelope = {"specversion": "1.0", "id": "ce-1", "source": "/feed", "type": "news.event", "data": GOOD}
    assert decode(json.dumps(envelope).encode()) == decode(event_bytes())


def test_the_word_specversion_in_a_text_is_no_envelope() -> None:
    """Only a field of that name at the top makes a CloudEvent."""
    assert decode(event_bytes(text='they wrote "specversion" there')).id == "a"


@given(st.binary(max_size=300))
def test_decoding_raises_nothing_but_a_rejection(value: bytes) -> None:
    """Whatever bytes arrive, the agent sees an event or a rejection."""
    try:
        event = decode(value)
    except RejectedEvent:
        return
    assert event.id


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(
    ["id", "title", "text", "published_at", "version", "retracted", "specversion", "data", "x"]
)


@given(st.dictionaries(names, json_values, max_size=6))
def test_objects_of_any_types_raise_nothing_but_a_rejection(row: dict[str, Any]) -> None:
    """Right names with wrong types are rejections too."""
    rejected: RejectedEvent | None = None
    try:
        decode(json.dumps({**GOOD, **row}).encode("utf-8", "surrogatepass"))
    except RejectedEvent as rejection:
        rejected = rejection
    assert rejected is None or rejected.stage is REJECTIONS[rejected.reason]


clean_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
moments = st.datetimes(
    min_value=datetime(1990, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(2025, 12, 31),  # noqa: DTZ001
    timezones=st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)


@given(
    st.builds(
        Event,
        id=clean_text.filter(lambda text: text.strip()),
        published_at=moments,
        title=clean_text.filter(lambda text: text.strip()),
        text=clean_text,
        source=clean_text,
        url=clean_text,
        language=clean_text,
        version=st.integers(1, 2**63 - 1),
        retracted=st.booleans(),
    )
)
def test_an_event_survives_the_way_to_bytes_and_back(event: Event) -> None:
    """Encoding and decoding keep every field; the moment stays the same."""
    assert decode(encode(event)) == event


def test_dead_letter_headers_name_the_origin() -> None:
    """The headers say why, at which step, and where the record stood."""
    letter = DeadLetter(
        key=b"k",
        value=b"v",
        reason=Reason.INVALID_JSON,
        stage=REJECTIONS[Reason.INVALID_JSON],
        detail="x" * 900,
        topic="news.events",
        partition=3,
        offset=42,
        failed_at=NOW,
    )
    headers = {name: value.decode() for name, value in letter.headers()}
    assert headers == {
        "reason": "invalid_json",
        "stage": "decode",
        "detail": "x" * 500,
        "topic": "news.events",
        "partition": "3",
        "offset": "42",
        "failed_at": "2026-01-01T00:00:00+00:00",
    }
