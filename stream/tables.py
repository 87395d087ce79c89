"""The state: what is stored under which key, and the pure functions that change it.

Two Faust tables, both bytes to bytes (JSON), each key prefixed by its Kafka partition:

``counts``
    ``<partition>|total`` and ``<partition>|<hour>`` hold :class:`Counts`: votes by topic and stance, and
    the highest offset applied. A change at an offset that is not above it is skipped, so every key is
    idempotent on its own and no transaction across keys is needed. The total also tells how far the log
    has come in time, which decides how long hours and identities are kept (``stream.retention``).
``identities``
    ``<partition>|<event id>`` holds :class:`Identity`: the accepted versions with their offsets and votes, as
    far back as a record may be delivered that is judged by them (:func:`trim`).
    What an event means (first, duplicate, correction) is decided from the entries *below* its offset
    only. The decision therefore depends on the log and not on how far the state had got before a crash:
    a redelivered event is judged as it was the first time.

Hours count from 1970-01-01T00:00Z.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import msgspec

__all__ = [
    "Accepted",
    "Change",
    "Counts",
    "Identity",
    "Judgement",
    "Outcome",
    "apply_changes",
    "hour_of",
    "judge",
]

Votes = dict[str, str]
"""Stance by topic, as one event casts them; empty for off topic."""

TOTAL = "total"
DAY_SECONDS = 86_400


class Outcome(StrEnum):
    """What became of one record; label of ``stancewatch_events_total``."""

    ASSESSED = "assessed"
    OFF_TOPIC = "off_topic"
    DUPLICATE = "duplicate"
    CORRECTED = "corrected"
    RETRACTED = "retracted"
    UNSUPPORTED_LANGUAGE = "unsupported_language"
    DEAD_LETTER = "dead_letter"
    LATE = "late"
    """A first version whose hour is no longer kept: counted in the totals only, whatever was decided."""


class Accepted(msgspec.Struct, array_like=True):
    """One accepted version of an event: its place in the log, its hour, the vote it cast.

    ``day`` is that of the log at its offset, counted from 1970-01-01; 0: not known, never too old.
    """

    version: int
    offset: int
    hour: int
    votes: Votes
    unsupported: bool = False
    """In a language that the classifier does not know."""
    day: int = 0

    def is_older_than(self, day: int) -> bool:
        """Whether it was accepted before a day."""
        return 0 < self.day < day


class Identity(msgspec.Struct, array_like=True):
    """Accepted versions of one event id, by rising offset."""

    accepted: list[Accepted] = []


class Counts(msgspec.Struct):
    """Votes of one key; ``offset`` is the highest one applied, -1 before the first.

    Kept under the total only: ``outcomes``; ``latest``, the highest ``published_at`` accepted, in POSIX
    seconds; ``days``, the offsets from which on the log stood at a day (by Kafka's time stamps), the first
    being that of the committed offset; ``committed``, from which on records may be delivered again;
    ``rejected``, first and last of the offsets from there on that became dead letters; ``owner``, the token
    of the worker that has the partition (``stream.fencing``).
    """

    offset: int = -1
    votes: dict[str, dict[str, int]] = {}
    outcomes: dict[str, int] = {}
    latest: float = 0.0
    days: list[tuple[int, int]] = []
    committed: int = 0
    rejected: list[tuple[int, int]] = []
    owner: int = 0

    def pass_record(self, offset: int, written_at: float) -> None:
        """Move the day of the log on to that of a record (POSIX seconds; 0 or less: it has no time)."""
        day = int(max(0.0, written_at) // DAY_SECONDS)
        if day > self.day_at(offset):
            self.days = [*(self.days or [(0, 0)]), (offset, day)]

    def day_at(self, offset: int) -> int:
        """Day of the log with the record at an offset; 0 before any was known."""
        return max((day for first, day in self.days if first <= offset), default=0)

    def settle(self, committed: int) -> None:
        """Drop what lies before the committed offset."""
        while len(self.days) > 1 and self.days[1][0] <= committed:
            del self.days[0]
        if self.days and self.days[0][0] < committed:
            self.days[0] = (committed, self.days[0][1])
        self.committed = max(self.committed, committed)
        self.rejected = [(first, last) for first, last in self.rejected if last >= committed]

    def reject(self, offset: int) -> None:
        """Remember that the record after the one that was counted last became a dead letter."""
        if self.rejected and self.rejected[-1][1] == self.offset:  # offsets in between are of no record
            self.rejected[-1] = (self.rejected[-1][0], offset)
        else:
            self.rejected.append((offset, offset))

    def was_rejected(self, offset: int) -> bool:
        """Whether a record that may be delivered again was counted as a dead letter.

        It stays one, also when other settings or another model would take it now; sent again, it has another
        offset.
        """
        return any(first <= offset <= last for first, last in self.rejected)

    @property
    def settled(self) -> int:
        """Offset below which all is known to be committed; 0 while none is."""
        first = self.days[0][0] if self.days else 0  # all that earlier versions kept
        return max(self.committed, first)

    def is_settled(self, offset: int) -> bool:
        """Whether the record at an offset is known to be committed: it was counted."""
        return offset < self.settled

    def kept_from(self, bucket_days: int) -> int:
        """First hour whose bucket is kept."""
        newest = int(self.latest // 3600)
        if self.days:
            newest = min(newest, self.days[-1][1] * 24 + 23)
        return newest - 24 * bucket_days + 1


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an accepted or refused event means: the version it replaces, and whether it was seen before."""

    duplicate: bool
    prior: Accepted | None = None
    redelivered: Accepted | None = None


@dataclass(slots=True)
class Change:
    """Everything that the record at one offset does to the counts of its partition."""

    offset: int
    outcome: Outcome
    published_at: float = 0.0
    casts: list[tuple[int | None, Votes, int]] = field(default_factory=list)
    """``(hour, votes, +1 or -1)``: votes cast, and votes of a replaced version taken back.

    Hour None: the bucket is no longer kept.
    """
    written_at: float = 0.0


_counts_decoder = msgspec.json.Decoder(Counts)
_identity_decoder = msgspec.json.Decoder(Identity)
_encode = msgspec.json.Encoder().encode


def hour_of(moment: datetime) -> int:
    """Hour bucket of an aware datetime."""
    return int(moment.timestamp() // 3600)


def counts_key(partition: int, bucket: int | str) -> bytes:
    """Key of a bucket (hour number or ``total``) in ``counts``."""
    return f"{partition}|{bucket}".encode()


def split_counts_key(key: bytes) -> tuple[int, str]:
    """Inverse of :func:`counts_key`."""
    partition, _, bucket = key.decode().partition("|")
    return int(partition), bucket


def identity_key(partition: int, event_id: str) -> bytes:
    """Key of an event id in ``identities``."""
    return f"{partition}|{event_id}".encode()


def read_counts(table: Mapping[bytes, bytes], key: bytes) -> Counts:
    """Stored counts, or fresh ones."""
    value = table.get(key)
    return Counts() if value is None else _counts_decoder.decode(value)


def decode_counts(value: bytes) -> Counts:
    """Counts from their stored form."""
    return _counts_decoder.decode(value)


def decode_identity(value: bytes) -> Identity:
    """Identity from its stored form."""
    return _identity_decoder.decode(value)


def read_identity(table: Mapping[bytes, bytes], key: bytes) -> Identity:
    """Stored identity, or a fresh one."""
    value = table.get(key)
    return Identity() if value is None else _identity_decoder.decode(value)


def stored(value: Counts | Identity) -> bytes:
    """Stored form of a state value."""
    return _encode(value)


def judge(identity: Identity, version: int, offset: int, oldest_day: int = 0) -> Judgement:
    """Decide what a version of an event at an offset means.

    Parameters
    ----------
    identity : Identity
        What is known of the event id; entries at or above `offset` do not influence the decision.
    version, offset : int
        Of the record at hand.
    oldest_day : int
        Versions accepted before this day are forgotten.

    Returns
    -------
    Judgement
        ``duplicate`` when an earlier offset already brought this or a higher version; otherwise the
        highest earlier version as ``prior`` and, if this very offset was accepted before (redelivery),
        its entry.
    """
    earlier = [
        entry for entry in identity.accepted if entry.offset < offset and not entry.is_older_than(oldest_day)
    ]
    prior = max(earlier, key=lambda entry: entry.version, default=None)
    if prior is not None and version <= prior.version:
        return Judgement(duplicate=True)
    same = next((entry for entry in identity.accepted if entry.offset == offset), None)
    return Judgement(duplicate=False, prior=prior, redelivered=same)


def accept(identity: Identity, entry: Accepted) -> None:
    """Record an accepted version; recording the same offset again replaces it."""
    others = [known for known in identity.accepted if known.offset != entry.offset]
    identity.accepted = sorted([*others, entry], key=lambda known: known.offset)


def forget(identity: Identity, offset: int) -> None:
    """Take back what was accepted at an offset."""
    identity.accepted = [entry for entry in identity.accepted if entry.offset != offset]


def trim(identity: Identity, settled: int) -> None:
    """Drop versions that decide nothing any more; an id that is often corrected would grow for ever.

    :func:`judge` asks for the highest version below an offset that is not forgotten. Whatever was accepted
    later is higher, or came when the former was forgotten: so the last one answers for all before it, but not
    for those without a day, which are never forgotten; of these too the last one answers.

    Parameters
    ----------
    identity : Identity
    settled : int
        Only versions below are dropped: no record from there is judged again (:meth:`Counts.is_settled`).
    """
    below = [entry for entry in identity.accepted if entry.offset < settled]
    lasting = [entry for entry in below if not entry.day]
    identity.accepted = [
        *lasting[-1:],
        *(entry for entry in below[-1:] if entry.day),
        *(entry for entry in identity.accepted if entry.offset >= settled),
    ]


def entry_at(identity: Identity, offset: int) -> Accepted:
    """What was accepted at an offset."""
    return next(entry for entry in identity.accepted if entry.offset == offset)


def outcome_of(judgement: Judgement, entry: Accepted, *, retracted: bool, late: bool) -> Outcome:
    """What became of an accepted event; the first that applies."""
    if retracted:
        return Outcome.RETRACTED
    if judgement.prior is not None:
        return Outcome.CORRECTED
    if late:
        return Outcome.LATE
    if entry.unsupported:
        return Outcome.UNSUPPORTED_LANGUAGE
    return Outcome.ASSESSED if entry.votes else Outcome.OFF_TOPIC


def apply_changes(  # noqa: C901 - one rule, read in one place
    table: MutableMapping[bytes, bytes], partition: int, changes: Iterable[Change], committed: int = 0
) -> int:
    """Apply the changes of one batch to the counts of one partition.

    Each key that a change names is written back, also when it was skipped there: a local store that got
    ahead of its changelog before a crash would otherwise keep what the changelog never receives.

    Parameters
    ----------
    table : mutable mapping of bytes to bytes
        The ``counts`` table.
    partition : int
        Kafka partition of all changes.
    changes : iterable of Change
        By rising offset.
    committed : int
        Records below this offset are not delivered again.

    Returns
    -------
    int
        How many changes had been applied to the total before (redelivered and skipped).
    """
    loaded: dict[bytes, Counts] = {}
    skipped = 0

    def load(bucket: int | str) -> Counts:
        key = counts_key(partition, bucket)
        if key not in loaded:
            loaded[key] = read_counts(table, key)
        return loaded[key]

    for change in changes:
        total = load(TOTAL)
        if change.offset > total.offset:
            for _, votes, sign in change.casts:
                _cast(total, votes, sign)
            total.outcomes[change.outcome] = total.outcomes.get(change.outcome, 0) + 1
            total.latest = max(total.latest, change.published_at)
            total.pass_record(change.offset, change.written_at)
            if change.outcome is Outcome.DEAD_LETTER:
                total.reject(change.offset)
            total.offset = change.offset
        else:
            skipped += 1
        for hour in {hour for hour, _, _ in change.casts if hour is not None}:
            bucket = load(hour)
            if change.offset > bucket.offset:
                for cast_hour, votes, sign in change.casts:
                    if cast_hour == hour:
                        _cast(bucket, votes, sign)
                bucket.offset = change.offset
    load(TOTAL).settle(committed)
    for key, counts in loaded.items():
        table[key] = stored(counts)
    return skipped


def _cast(counts: Counts, votes: Votes, sign: int) -> None:
    for topic, stance in votes.items():
        by_stance = counts.votes.setdefault(topic, {})
        by_stance[stance] = by_stance.get(stance, 0) + sign
