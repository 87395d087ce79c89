"""The audit's own counting: DESIGN section 4 over the raw log, a second time and by other means.

Nothing of ``stream.tables`` or ``stream.agents`` is used here, on purpose: a fault there must show as a
difference. One pass in the order of offsets over one partition; for each record:

1. a dead letter names its place, and no later assessment does: it was rejected;
2. its id was accepted before with this or a higher version: a duplicate;
3. otherwise it is accepted, and takes the place of the version accepted before: votes of that one are taken
   back in its hour, those that the record's assessment names are cast in the hour of ``published_at``.
   A retraction casts none. What was accepted more than `identity_days` before, in whole days of the newest
   Kafka time stamp, is forgotten.

An hour is kept for `bucket_days` from the newest ``published_at`` accepted, or from the last hour of the day
of the newest Kafka time stamp if that is earlier. Votes of an hour that is not kept are cast and taken back
in the total alone; a first version with such an hour is late. An hour that had votes and is not kept at the
end is not compared: the workers delete it when its turn comes.

What the classifier decided is taken from ``news.assessments``, what was rejected from ``news.dead-letters``.

The state and the pages of the workers stand at other offsets than the log, and the keys of the state each at
their own: :class:`PartitionCount` sums up for each of them to where it stands.

Memory: 12 bytes for each offset (assessments), about 200 for each id of the partition in hand (ids are kept
as 64-bit hashes; two of a million ids fall together with a probability of 3 in 100 million).
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import msgspec

__all__ = [
    "Decisions",
    "Letters",
    "PartitionCount",
    "Place",
    "Sums",
    "Verdict",
    "moment",
    "read_assessment",
    "read_letter",
]

Votes = tuple[tuple[str, str], ...]
"""Topic and stance, by topic."""


Moment = tuple[int, float]


class Place(NamedTuple):
    """Partition and offset in ``news.events``."""

    partition: int
    offset: int


class Verdict(NamedTuple):
    """What one assessment says: votes, and whether the language could be read."""

    votes: Votes
    unsupported: bool


@dataclass(slots=True)
class Sums:
    """Votes by topic and stance, records by outcome."""

    votes: Counter[tuple[str, str]] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)


class _Topic(msgspec.Struct):
    topic: str
    stance: str


class _Assessment(msgspec.Struct):
    event_id: str
    version: int
    topics: list[_Topic]
    unsupported_language: bool = False


class _Envelope(msgspec.Struct):
    specversion: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Event(msgspec.Struct):
    id: str
    published_at: datetime
    version: int | None = None
    retracted: bool | None = None


_YEAR_10000 = 253_402_300_800

_assessment_decoder = msgspec.json.Decoder(_Assessment)
_envelope_decoder = msgspec.json.Decoder(_Envelope)
_event_decoder = msgspec.json.Decoder(_Event)


def _place(headers: Mapping[str, bytes]) -> Place | None:
    try:
        return Place(int(headers["partition"]), int(headers["offset"]))
    except (KeyError, ValueError):
        return None


def read_assessment(
    headers: Mapping[str, bytes], value: bytes | None
) -> tuple[Place, str, int, Verdict] | None:
    """Place of the event (of the headers), id, version and verdict; None when it is no assessment of ours."""
    place = _place(headers)
    try:
        row = _assessment_decoder.decode(value or b"")
    except (ValueError, RecursionError):  # of msgspec, and of bytes that are no UTF-8
        return None
    if place is None:
        return None
    votes = tuple(sorted({topic.topic: topic.stance for topic in row.topics}.items()))
    return place, row.event_id, row.version, Verdict(votes, row.unsupported_language)


def read_letter(headers: Mapping[str, bytes]) -> tuple[str, Place, str] | None:
    """Origin topic, place and reason of a dead letter; None when it is none of ours."""
    place = _place(headers)
    if place is None or "topic" not in headers:
        return None
    return headers["topic"].decode(), place, headers.get("reason", b"unknown").decode(errors="replace")


def moment(headers: Mapping[str, bytes], written_at: float) -> Moment:
    """When a worker judged: the token of its ownership, which rises with each owner; then Kafka's time."""
    try:
        return int(headers.get("owner", b"0")), written_at
    except ValueError:
        return 0, written_at


class Decisions:
    """Verdicts by place in the log; the last one of a place counts.

    Parameters
    ----------
    ranges : mapping
        First offset and end of each partition of the log.
    """

    def __init__(self, ranges: Mapping[int, tuple[int, int]]) -> None:
        self._begins = {partition: begin for partition, (begin, _) in ranges.items()}
        sizes = {partition: end - begin for partition, (begin, end) in ranges.items()}
        self._kinds = {partition: array("I", bytes(4 * size)) for partition, size in sizes.items()}
        self._prints = {partition: array("q", bytes(8 * size)) for partition, size in sizes.items()}
        self._verdicts: list[Verdict | None] = [None]
        self._numbers: dict[Verdict, int] = {}

    def put(self, place: Place, event_id: str, version: int, verdict: Verdict) -> bool:
        """Keep a verdict; False when the log has no such place."""
        kinds = self._kinds.get(place.partition)
        index = place.offset - self._begins.get(place.partition, 0)
        if kinds is None or not 0 <= index < len(kinds):
            return False
        number = self._numbers.setdefault(verdict, len(self._verdicts))
        if number == len(self._verdicts):
            self._verdicts.append(verdict)
        kinds[index] = number
        self._prints[place.partition][index] = hash((event_id, version))
        return True

    def take(self, place: Place, event_id: str, version: int) -> Verdict | None:
        """Give out the verdict on this version of this event at this place, if there is one."""
        index = place.offset - self._begins[place.partition]
        if self._prints[place.partition][index] != hash((event_id, version)):
            return None
        verdict = self._verdicts[self._kinds[place.partition][index]]
        self._kinds[place.partition][index] = 0
        return verdict

    def left(self, partition: int, upto: int) -> list[int]:
        """Offsets up to `upto` with a verdict that nobody took: no event was accepted there."""
        begin = self._begins[partition]
        kinds = self._kinds[partition][: max(0, upto + 1 - begin)]
        return [begin + index for index, number in enumerate(kinds) if number]


class Letters:
    """Reason and fingerprint of the dead letters of one log; the last one of a place counts."""

    def __init__(self, events_topic: str) -> None:
        self.events_topic = events_topic
        self.foreign = 0
        """Letters of other topics."""
        self._letters: dict[Place, tuple[str, int, Moment]] = {}

    def put(self, topic: str, place: Place, reason: str, value: bytes | None, when: Moment) -> None:
        """Keep a letter."""
        if topic == self.events_topic:
            self._letters[place] = (reason, hash(value), when)
        else:
            self.foreign += 1

    def keep_if_later(self, place: Place, when: Moment) -> bool:
        """Whether a letter of this place was written after that moment; one written before is dropped."""
        letter = self._letters.get(place)
        if letter is not None and letter[2] < when:
            del self._letters[place]
        return place in self._letters

    def take(self, place: Place) -> tuple[str, int] | None:
        """Give out reason and fingerprint of the letter of this place, if there is one."""
        found = self._letters.pop(place, None)
        return found and found[:2]

    def left(self) -> list[Place]:
        """Places of the letters that nobody took."""
        return list(self._letters)


class PartitionCount:
    """Counts of one partition, each up to where the state or the page that it is compared to stands.

    Parameters
    ----------
    partition : int
    decisions, letters
        What was assessed, what was rejected.
    noted : int
        Last offset that was in the log when the audit began: everything up to it must be counted everywhere.
    total_offset : int
        Applied offset of the state's total; where it is beyond `noted`, the total is counted up to it.
    hour_offsets : mapping of int to int
        The same for each hour of the state.
    shown_records : int
        How many records of the partition the workers' pages account for.
    bucket_days, identity_days : int
        The settings of the workers.

    Attributes
    ----------
    total : Sums
        To be compared with the total of the state.
    hours : dict
        Votes of each hour, to be compared with those of the state.
    shown : Sums
        To be compared with the page.
    records, upto : int
        Records counted in any of them, and the offset of the last one.
    unassessed : list
        Offset, id and version of accepted events without an assessment.
    unlettered, altered : list of int
        Offsets of records that cannot be read and have no letter, and of those whose letter has other bytes.
    reasons : Counter
        Records that have a letter, by its reason.
    kept_from : int
        First hour that is kept where the total of the state stands.
    """

    def __init__(
        self,
        partition: int,
        decisions: Decisions,
        letters: Letters,
        *,
        noted: int,
        total_offset: int,
        hour_offsets: Mapping[int, int],
        shown_records: int,
        bucket_days: int,
        identity_days: int,
    ) -> None:
        self.partition = partition
        self.decisions = decisions
        self.letters = letters
        self.noted = noted
        self.total_offset = max(noted, total_offset)
        self.hour_offsets = hour_offsets
        self.shown_records = shown_records
        self.total = Sums()
        self.shown = Sums()
        self.hours: dict[int, Counter[tuple[str, str]]] = {}
        self.records = 0
        self.upto = -1
        self.reasons: Counter[str] = Counter()
        self.unassessed: list[tuple[int, str, int]] = []
        self.unlettered: list[int] = []
        self.altered: list[int] = []
        self._last = max([self.total_offset, *hour_offsets.values()])
        self._bucket_hours = 24 * bucket_days
        self._identity_days = identity_days
        self._day = 0
        self._newest_hour = 0
        self.kept_from = self._first_kept_hour()
        self._accepted: dict[int, tuple[int, int, Votes, int]] = {}
        """Version, hour, votes and day of acceptance of the last version, by hash of the id."""

    def take(self, offset: int, value: bytes | None, written_at: float) -> None:
        """Count the next record of the log; one that nobody has counted yet is passed over.

        `written_at` is Kafka's time stamp in POSIX seconds; 0 or less for none, and one of no year up to 9999
        tells no time.
        """
        shown = offset <= self.noted or self.records < self.shown_records
        if offset > self._last and not shown:
            return
        self.records += 1
        self.upto = offset
        if written_at < _YEAR_10000:
            self._day = max(self._day, int(written_at // 86_400))
        outcome, casts = self._judge(Place(self.partition, offset), value)
        first_kept = self._first_kept_hour()
        if offset <= self.total_offset:
            _add(self.total, outcome, casts)
            self.kept_from = first_kept
        if shown:
            _add(self.shown, outcome, casts)
        for hour, votes, sign in casts:
            if hour >= first_kept and offset <= max(self.noted, self.hour_offsets.get(hour, -1)):
                _cast(self.hours.setdefault(hour, Counter()), votes, sign)

    def _first_kept_hour(self) -> int:
        newest = min(self._newest_hour, 24 * self._day + 23) if self._day else self._newest_hour
        return newest + 1 - self._bucket_hours

    def _judge(self, place: Place, value: bytes | None) -> tuple[str, list[tuple[int, Votes, int]]]:
        """Outcome, and votes to cast (+1) and to take back (-1) with their hours."""
        letter = self.letters.take(place)
        if letter is not None:
            reason, fingerprint = letter
            self.reasons[reason] += 1
            if fingerprint != hash(value):
                self.altered.append(place.offset)
            return "dead_letter", []
        event = _read_event(value)
        if event is None:
            self.unlettered.append(place.offset)
            return "dead_letter", []
        version = 1 if event.version is None else event.version
        before = self._accepted.get(hash(event.id))
        if before is not None and before[3] and self._day - before[3] > self._identity_days:
            before = None
        if before is not None and version <= before[0]:
            return "duplicate", []
        verdict = self.decisions.take(place, event.id, version)
        votes = () if verdict is None or event.retracted else verdict.votes
        hour = int(event.published_at.timestamp() // 3600)
        self._newest_hour = max(self._newest_hour, hour)
        self._accepted[hash(event.id)] = (version, hour, votes, self._day)
        casts = [(hour, votes, 1)]
        if before is not None:
            casts.append((before[1], before[2], -1))
        if verdict is None:
            self.unassessed.append((place.offset, event.id, version))
        late = hour < self._first_kept_hour()
        return _outcome(event, verdict, corrects=before is not None, late=late), casts


def _outcome(event: _Event, verdict: Verdict | None, *, corrects: bool, late: bool) -> str:
    """Name of what became of an accepted event; the first that applies."""
    names = {
        "unassessed": verdict is None,
        "retracted": bool(event.retracted),
        "corrected": corrects,
        "late": late,
        "unsupported_language": verdict is not None and verdict.unsupported,
        "assessed": verdict is not None and bool(verdict.votes),
        "off_topic": True,
    }
    return next(name for name, applies in names.items() if applies)


def _read_event(value: bytes | None) -> _Event | None:
    try:
        if b'"specversion"' in (value or b""):
            envelope = _envelope_decoder.decode(value or b"")
            if envelope.specversion is not msgspec.UNSET:
                return None if envelope.data is msgspec.UNSET else _event_decoder.decode(envelope.data)
        return _event_decoder.decode(value or b"")
    except (ValueError, RecursionError):
        return None


def _add(sums: Sums, outcome: str, casts: list[tuple[int, Votes, int]]) -> None:
    sums.outcomes[outcome] += 1
    for _, votes, sign in casts:
        _cast(sums.votes, votes, sign)


def _cast(sums: Counter[tuple[str, str]], votes: Votes, sign: int) -> None:
    for vote in votes:
        sums[vote] += sign
