"""What the state and the workers' pages say, and where that differs from the audit's own count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from stream.recount import PartitionCount

__all__ = ["Difference", "Page", "StoredCounts", "StoredPartition", "differences", "read_page", "read_state"]

OTHER = "other"
"""Label under which a page sums the topics beyond its cap."""


class StoredCounts(msgspec.Struct):
    """One value of the changelog of ``counts``."""

    offset: int = -1
    votes: dict[str, dict[str, int]] = {}
    outcomes: dict[str, int] = {}

    @classmethod
    def read(cls, value: bytes) -> StoredCounts:
        """Decode the stored form; of what is not known here, nothing is taken."""
        return msgspec.json.decode(value, type=cls)

    def by_vote(self) -> Counter[tuple[str, str]]:
        """Votes by topic and stance."""
        return Counter(
            {(topic, stance): n for topic, stances in self.votes.items() for stance, n in stances.items()}
        )


@dataclass(slots=True)
class StoredPartition:
    """The state of one partition."""

    total: StoredCounts = field(default_factory=StoredCounts)
    hours: dict[int, StoredCounts] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)
    """Hours that were in the state and were deleted."""


@dataclass(slots=True)
class Page:
    """One partition as ``/metrics`` shows it."""

    votes: Counter[tuple[str, str]] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    topics: set[str] = field(default_factory=set)
    """Topics that have their own label."""

    @property
    def records(self) -> int:
        """How many records the page accounts for: each has one outcome."""
        return self.outcomes.total()


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure that is not the same.

    Attributes
    ----------
    where : str
        ``state`` or ``metrics``.
    partition : int
    log, found : int
        The audit's own count, and what stands there.
    topic, stance, outcome, name : str or None
        What the figure counts: votes of a topic and stance, records of an outcome, or something else by name.
    hour : int or None
        Hours since 1970-01-01T00:00Z; None for the total.
    """

    where: Literal["state", "metrics"]
    partition: int
    log: int
    found: int
    topic: str | None = None
    stance: str | None = None
    outcome: str | None = None
    name: str | None = None
    hour: int | None = None

    def describe(self) -> str:
        """For people: what is counted here."""
        what = self.outcome or self.name or f"{self.topic} {self.stance}"
        place = "total" if self.hour is None else hour_text(self.hour)
        return f"partition {self.partition}, {place}, {what}"

    def as_json(self) -> dict[str, Any]:
        """Fields that apply, the hour in RFC 3339."""
        names = ("topic", "stance", "outcome", "name")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        hour = {} if self.hour is None else {"hour": hour_text(self.hour)}
        figures = {"log": self.log, "found": self.found, "difference": self.found - self.log}
        return {"where": self.where, "partition": self.partition, **hour, **given, **figures}


def hour_text(hour: int) -> str:
    """Beginning of an hour bucket."""
    try:
        return datetime.fromtimestamp(hour * 3600, UTC).strftime("%Y-%m-%dT%H:%MZ")
    except (ValueError, OverflowError):
        return f"hour {hour}"


def read_state(changelog: Mapping[bytes, bytes | None]) -> dict[int, StoredPartition]:
    """State by partition, of the last value of each key ``<partition>|<hour or total>``.

    A key without a bar is an owner's claim (``stream.fencing``).

    Raises
    ------
    ValueError
        When a key or value is not of that form.
    """
    state: dict[int, StoredPartition] = {}
    for key, value in changelog.items():
        number, bar, bucket = key.decode().partition("|")
        if not bar and value is None:
            continue
        partition = state.setdefault(int(number), StoredPartition())
        if value is None:
            if bucket != "total":
                partition.dropped.add(int(bucket))
            continue
        counts = StoredCounts.read(value)
        if bucket == "total":
            partition.total = counts
        else:
            partition.hours[int(bucket)] = counts
    return state


def read_page(text: str) -> dict[int, Page]:
    """Partitions that a worker's ``/metrics`` shows."""
    pages: dict[int, Page] = {}
    topics: set[str] = set()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sample.labels
            if sample.name == "stancewatch_assessments_total":
                page = pages.setdefault(int(labels["partition"]), Page())
                page.votes[labels["topic"], labels["stance"]] += int(sample.value)
                topics.add(labels["topic"])
            elif sample.name == "stancewatch_stored_events_total":
                page = pages.setdefault(int(labels["partition"]), Page())
                page.outcomes[labels["outcome"]] += int(sample.value)
    for page in pages.values():
        page.topics = topics
    return pages


def differences(count: PartitionCount, state: StoredPartition, page: Page | None) -> list[Difference]:
    """Every figure of the state and, if there is one, of the page that is not the audit's own."""
    partition = count.partition
    found: list[Difference] = []
    found += _votes("state", partition, count.total.votes, state.total.by_vote())
    found += _outcomes("state", partition, count.total.outcomes, Counter(state.total.outcomes))
    if state.total.offset > count.upto:
        found.append(
            Difference("state", partition, log=count.upto, found=state.total.offset, name="last offset")
        )
    expired = {hour for hour in count.hours if hour < count.kept_from}
    for hour in sorted((set(count.hours) | set(state.hours)) - expired):
        stored = state.hours[hour].by_vote() if hour in state.hours else Counter[tuple[str, str]]()
        found += _votes("state", partition, count.hours.get(hour, Counter()), stored, hour)
    if page is not None:
        log: Counter[tuple[str, str]] = Counter()
        for (topic, stance), votes in count.shown.votes.items():
            log[topic if topic in page.topics else OTHER, stance] += votes
        found += _votes("metrics", partition, log, page.votes)
        found += _outcomes("metrics", partition, count.shown.outcomes, page.outcomes)
    return found


def _votes(
    where: Literal["state", "metrics"],
    partition: int,
    log: Mapping[tuple[str, str], int],
    found: Mapping[tuple[str, str], int],
    hour: int | None = None,
) -> Iterable[Difference]:
    for topic, stance in sorted(set(log) | set(found)):
        ours, theirs = log.get((topic, stance), 0), found.get((topic, stance), 0)
        if ours != theirs:
            yield Difference(where, partition, log=ours, found=theirs, topic=topic, stance=stance, hour=hour)


def _outcomes(
    where: Literal["state", "metrics"], partition: int, log: Mapping[str, int], found: Mapping[str, int]
) -> Iterable[Difference]:
    for outcome in sorted(set(log) | set(found)):
        ours, theirs = log.get(outcome, 0), found.get(outcome, 0)
        if ours != theirs:
            yield Difference(where, partition, log=ours, found=theirs, outcome=outcome)
