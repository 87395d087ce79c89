"""Parameters of the HTTP API: read from the query, and described in OpenAPI, by the same table."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import msgspec
from multidict import MultiMapping

from classifiers.decisions import STANCES
from stream.articles import Place, microseconds, moment
from stream.figures import WINDOWS

__all__ = ["PARAMETERS", "ParameterError", "cursor_of", "read_query"]

LIMIT_MAX = 500
LIMIT = 50


class ParameterError(ValueError):
    """A parameter that is not as expected; the message says what was."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter.

    Attributes
    ----------
    description : str
        For OpenAPI.
    schema : mapping
        JSON Schema of one value, for OpenAPI.
    read : callable
        From the values to what the route wants; raises ValueError with what was expected.
    several : bool
        May be given several times.
    """

    description: str
    schema: Mapping[str, Any]
    read: Callable[[Sequence[str]], Any]
    several: bool = False


AwareTime = Annotated[datetime, msgspec.Meta(tz=True)]


def _one_of(*allowed: str) -> Callable[[Sequence[str]], Any]:
    def read(values: Sequence[str]) -> tuple[str, ...]:
        if wrong := [value for value in values if value not in allowed]:
            message = f"got {wrong[0][:100]!r}, expected {', '.join(allowed[:-1])} or {allowed[-1]}"
            raise ValueError(message)
        return tuple(values)

    return read


def _single(read: Callable[[str], Any]) -> Callable[[Sequence[str]], Any]:
    def read_single(values: Sequence[str]) -> Any:
        if len(values) > 1:
            message = "given more than once, expected one value"
            raise ValueError(message)
        return read(values[0])

    return read_single


def _window(value: str) -> str:
    if value not in WINDOWS:
        message = f"got {value[:100]!r}, expected {', '.join(WINDOWS)}"
        raise ValueError(message)
    return value


def _step(value: str) -> str:
    if value != "hour":
        message = f"got {value[:100]!r}, expected hour"
        raise ValueError(message)
    return value


def _limit(value: str) -> int:
    if not (value.isascii() and value.isdigit() and 1 <= int(value[:9]) <= LIMIT_MAX):
        message = f"got {value[:100]!r}, expected a number from 1 to {LIMIT_MAX}"
        raise ValueError(message)
    return int(value)


def _time(value: str) -> int:
    try:
        # An unescaped + arrives as a space.
        return microseconds(msgspec.convert(value.strip().replace(" ", "+"), AwareTime))
    except (ValueError, OverflowError):
        message = f"got {value[:100]!r}, expected a time like 2024-09-30T06:00:00Z (RFC 3339, with an offset)"
        raise ValueError(message) from None


def _cursor(value: str) -> Place:
    try:
        packed = base64.urlsafe_b64decode(value.encode("ascii"))
        place = msgspec.json.decode(packed, type=Place)
        moment(place.published)  # a time at all
    except (binascii.Error, UnicodeError, ValueError, OverflowError):
        message = f"got {value[:100]!r}, expected `next` of an earlier answer"
        raise ValueError(message) from None
    return place


def cursor_of(place: Place) -> str:
    """Text form of a place in the list."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode("ascii")


TIME = {"type": "string", "format": "date-time"}
PARAMETERS: Mapping[str, Parameter] = {
    "topic": Parameter(
        "Only this topic; repeat it, or separate several by commas.", {"type": "string"}, tuple, several=True
    ),
    "stance": Parameter(
        "Only this stance; likewise.", {"enum": list(STANCES)}, _one_of(*STANCES), several=True
    ),
    "source": Parameter("Only this source; may be repeated.", {"type": "string"}, tuple, several=True),
    "window": Parameter(
        "Whole hours of `published_at`, the running one included, as on /metrics; `all`: since the beginning"
        " (a trend then shows the last 14 days that have articles).",
        {"enum": list(WINDOWS)},
        _single(_window),
    ),
    "event_id": Parameter("Only this event.", {"type": "string"}, _single(str)),
    "since": Parameter("Published at this time or later.", TIME, _single(_time)),
    "until": Parameter("Published before this time.", TIME, _single(_time)),
    "limit": Parameter(
        f"So many entries at most; default {LIMIT}.",
        {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX},
        _single(_limit),
    ),
    "cursor": Parameter("`next` of the page before.", {"type": "string"}, _single(_cursor)),
    "step": Parameter("Width of a point.", {"enum": ["hour"]}, _single(_step)),
}
WITH_COMMAS = ("topic", "stance")
"""Their names hold no comma, so several can be put into one value (Grafana does)."""


def read_query(query: MultiMapping[str], names: Sequence[str]) -> dict[str, Any]:
    """Parameters that are given; an empty value counts as not given.

    Raises
    ------
    ParameterError
        For one that is unknown here or not as expected.
    """
    if unknown := [name for name in query if name not in names]:
        message = f"unknown parameter {unknown[0][:100]!r}, expected {', '.join(names) or 'none'}"
        raise ParameterError(message)
    found = {}
    for name in names:
        values = query.getall(name, [])
        if name in WITH_COMMAS:
            values = [part for value in values for part in value.split(",")]
        values = [value for value in values if value]
        if values:
            try:
                found[name] = PARAMETERS[name].read(values)
            except ValueError as error:
                message = f"{name}: {error}"
                raise ParameterError(message) from None
    return found
