"""Seeded random events, and what must come of them, told from the log by plain code."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from classifiers.storage import load_shipped
from tests.stack import Votes

TITLES = (
    "Cloud revenue rose strongly, and customers praised the cloud service",
    "The cloud provider's outage angered customers, who call its cloud unreliable",
    "Lawmakers welcomed the new export controls on advanced chips as a success",
    "Chipmakers criticise the export controls on chips as harmful and useless",
    "The foundry's home-grown chip programme is a triumph for domestic chips",
    "Subsidies for domestic chipmaking were wasted, critics say, and the plan has failed",
    "The parliament met on Tuesday to talk about the export controls on chips",
)
OFF_TOPIC = ("The team won the cup", "Heavy rain is expected in the north", "A new play opened in town")
GERMAN = "Die Regierung verschärft die Regeln für die Ausfuhr von Chips nach China deutlich"

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Planned:
    """A record to be published; ``row`` is None when it is to be a dead letter."""

    key: bytes | None
    value: bytes | None
    row: Row | None
    moment: datetime


@dataclass(frozen=True, slots=True)
class Logged:
    """A record as the broker has confirmed it."""

    partition: int
    offset: int
    row: Row | None


@dataclass
class Feed:
    """An endless stream of events, the same for the same seed.

    First versions, corrections, retractions (some before what they retract), versions out of order,
    duplicates, other languages, and records that cannot be read.

    Parameters
    ----------
    seed : int
    clock : callable
        Moment of the n-th record: its Kafka time stamp; it was published up to six hours before.
    name : str
        Put before the ids.
    """

    seed: int
    clock: Callable[[int], datetime] = lambda _number: datetime.now(UTC)
    name: str = "event"
    count: int = 0
    _known: list[Row] = field(default_factory=list)
    _later: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)  # noqa: S311 - repeatable, not secret

    def next(self) -> Planned:
        """Make the next record."""
        moment = self.clock(self.count)
        self.count += 1
        kind = self.random.choices(
            ("new", "duplicate", "correct", "retract", "retract first", "out of order", "later", "bad"),
            (60, 8, 9, 5, 4, 4, 5, 5),
        )[0]
        if kind == "bad":
            return self.bad(moment)
        row = self._row(kind, moment)
        self._known = [*self._known[-499:], row]
        return Planned(row["id"].encode(), json.dumps(row).encode(), row, moment)

    def _row(self, kind: str, moment: datetime) -> Row:
        if kind == "later" and self._later:
            return self._later.pop(0)
        if kind in {"duplicate", "correct", "retract"} and self._known:
            old = self.random.choice(self._known)
            if kind == "duplicate":
                return old
            fresh = self._new(moment, old["version"] + 1)
            return {**fresh, "id": old["id"], "retracted": kind == "retract"}
        if kind in {"retract first", "out of order"}:
            row = self._new(moment, 3)
            self._later.append({**self._new(moment, 2), "id": row["id"]})
            return {**row, "retracted": kind == "retract first"}
        return self._new(moment, 1)

    def _new(self, moment: datetime, version: int) -> Row:
        pool = self.random.choices((TITLES, OFF_TOPIC, (GERMAN,)), (55, 40, 5))[0]
        published = moment - timedelta(seconds=self.random.randrange(6 * 3600))
        return {
            "id": f"{self.name}-{self.count}",
            "title": self.random.choice(pool),
            "version": version,
            "published_at": published.isoformat(),
            "retracted": False,
        }

    def bad(self, moment: datetime) -> Planned:
        """Make a record that becomes a dead letter."""
        key = f"{self.name}-bad-{self.count}"
        good = {"id": key, "title": "Rain", "published_at": moment.isoformat()}
        far = (datetime.now(UTC) + timedelta(days=400)).isoformat()
        value = self.random.choice(
            [
                b"{no json",
                b"\xff\xfe",
                None,
                b"",
                json.dumps({**good, "id": "another"}).encode(),
                json.dumps({**good, "published_at": far}).encode(),
                json.dumps({**good, "title": " "}).encode(),
                json.dumps({"id": key, "title": "Rain"}).encode(),
            ]
        )
        return Planned(key.encode(), value, None, moment)


def event(name: str, title: str, published: datetime, version: int = 1) -> Planned:
    """One event, as wanted."""
    row = {
        "id": name,
        "title": title,
        "version": version,
        "published_at": published.isoformat(),
        "retracted": False,
    }
    return Planned(name.encode(), json.dumps(row).encode(), row, datetime.now(UTC))


@lru_cache(maxsize=64)
def _votes(title: str) -> tuple[tuple[str, str], ...]:
    """Topics and stances of a title; German is not judged."""
    if title == GERMAN:
        return ()
    return tuple((decision.topic, decision.stance) for decision in load_shipped().assess([(title, "")])[0])


def expectation(log: Iterable[Logged]) -> tuple[Votes, dict[str, int]]:
    """Votes and outcomes of one undisturbed run over the log; nothing has expired."""
    accepted: dict[str, Row] = {}
    outcomes: Counter[str] = Counter()
    for record in sorted(log, key=lambda record: (record.partition, record.offset)):
        row = record.row
        if row is None:
            outcomes["dead_letter"] += 1
            continue
        before = accepted.get(row["id"])
        if before is not None and row["version"] <= before["version"]:
            outcomes["duplicate"] += 1
            continue
        accepted[row["id"]] = row
        if row["retracted"]:
            outcomes["retracted"] += 1
        elif before is not None:
            outcomes["corrected"] += 1
        elif row["title"] == GERMAN:
            outcomes["unsupported_language"] += 1
        else:
            outcomes["assessed" if _votes(row["title"]) else "off_topic"] += 1
    counts: dict[str, Counter[str]] = {}
    for row in accepted.values():
        for topic, stance in () if row["retracted"] else _votes(row["title"]):
            counts.setdefault(topic, Counter())[stance] += 1
    return {topic: dict(sorted(counts[topic].items())) for topic in sorted(counts)}, dict(outcomes)
