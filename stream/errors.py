"""Errors of the stream: one base class, each subclass says what arrived and what to do."""

from __future__ import annotations

from enum import StrEnum

__all__ = [
    "BrokerError",
    "ConfigurationError",
    "Reason",
    "RejectedEvent",
    "Stage",
    "StancewatchError",
    "StateError",
]


class StancewatchError(Exception):
    """Base of all errors that a user of Stancewatch is meant to read."""


class ConfigurationError(StancewatchError):
    """A setting is missing or has a value that cannot work."""


class BrokerError(StancewatchError):
    """The Kafka broker cannot be reached or refused a request."""


class StateError(StancewatchError):
    """The stored state contradicts the log; going on would make the counts wrong."""


class Stage(StrEnum):
    """Where in the way of an event it was rejected (dead-letter header ``stage``)."""

    RECEIVE = "receive"
    DECODE = "decode"
    VALIDATE = "validate"
    CLASSIFY = "classify"


class Reason(StrEnum):
    """Why an event was rejected (dead-letter header ``reason``): a closed set, safe as a metric label."""

    EMPTY_RECORD = "empty_record"
    TOO_LARGE = "too_large"
    INVALID_UTF8 = "invalid_utf8"
    INVALID_JSON = "invalid_json"
    TOO_DEEP = "too_deep"
    INVALID_ENVELOPE = "invalid_envelope"
    WRONG_TYPE = "wrong_type"
    MISSING_FIELD = "missing_field"
    INVALID_ID = "invalid_id"
    EMPTY_CONTENT = "empty_content"
    INVALID_CHARACTERS = "invalid_characters"
    INVALID_DATE = "invalid_date"
    FUTURE_DATE = "future_date"
    OUT_OF_RANGE = "out_of_range"
    MISSING_KEY = "missing_key"
    KEY_MISMATCH = "key_mismatch"
    UNCLASSIFIABLE = "unclassifiable"


class RejectedEvent(StancewatchError):  # noqa: N818 - an event was rejected, the stream is fine
    """An event that cannot be processed and belongs into the dead-letter topic.

    Parameters
    ----------
    reason : Reason
        Machine-readable reason.
    stage : Stage
        Step that rejected it.
    detail : str
        What arrived and what was expected, for a person.
    """

    def __init__(self, reason: Reason, stage: Stage, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.stage = stage
        self.detail = detail
