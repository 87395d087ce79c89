"""The articles behind the numbers: the latest assessments in an SQLite database, bounded by count and days.

It is a view of ``news.assessments`` and can be made again from it at any time, so nothing is synced and the
file has no name: it goes with the process, and two processes never share one. Of each event the highest
version stands; a retraction withdraws it. The bounds go by event time, like the hours that the state keeps:
the newest articles stay, and days count back from the newest ``published_at``.

Titles, addresses and sentences come from strangers. They are cut to a length and kept as they are; an address
that is not plain http or https is left out.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from stream.answers import Article, Source
from stream.schema import Assessment, Evidence

__all__ = ["ArticleStore", "Place", "Wanted", "microseconds", "moment", "plain_url"]

HOUR = 3_600_000_000
"""Microseconds: the unit of times in the database."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TITLE_CHARACTERS = 300
SOURCE_CHARACTERS = 200
URL_CHARACTERS = 2000
SENTENCE_CHARACTERS = 1000
SENTENCES = 5
SOURCES_SHOWN = 500
CACHE_KIB = 16_384

SCHEMA = """
PRAGMA journal_mode = MEMORY;
PRAGMA synchronous = OFF;
PRAGMA foreign_keys = ON;
CREATE TABLE articles (
    id INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL UNIQUE,
    version INTEGER NOT NULL,
    published INTEGER NOT NULL,
    assessed INTEGER NOT NULL,
    url TEXT NOT NULL,
    title TEXT NOT NULL,
    model TEXT NOT NULL
);
CREATE INDEX articles_by_time ON articles (published, event_id);
CREATE TABLE votes (
    article INTEGER NOT NULL REFERENCES articles (id) ON DELETE CASCADE,
    topic TEXT NOT NULL,
    stance TEXT NOT NULL,
    hour INTEGER NOT NULL,
    published INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    source TEXT NOT NULL,
    probability REAL NOT NULL,
    stance_probability REAL NOT NULL,
    evidence BLOB NOT NULL,
    PRIMARY KEY (article, topic)
) WITHOUT ROWID;
CREATE INDEX votes_by_time ON votes (published, event_id, topic);
CREATE INDEX votes_by_topic ON votes (topic, published, event_id);
CREATE INDEX votes_by_source ON votes (source, published, event_id, topic);
CREATE INDEX votes_by_hour ON votes (hour, topic, stance);
"""
FIND = """
SELECT votes.event_id, title, url, source, votes.published, assessed, topic, stance, probability,
    stance_probability, evidence, model
FROM votes JOIN articles ON articles.id = votes.article
"""
NEWEST_FIRST = "ORDER BY votes.published DESC, votes.event_id DESC, votes.topic DESC"
_evidence = msgspec.json.Decoder(list[Evidence])


class Place(NamedTuple):
    """Where a page of articles ended; the next one begins behind it, whatever was added meanwhile."""

    published: int
    event_id: str
    topic: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Filters; empty or None lets everything through. Times in microseconds, `until` excluded."""

    topics: tuple[str, ...] = ()
    stances: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    event_id: str = ""
    since: int | None = None
    until: int | None = None

    def sql(self) -> tuple[str, list[Any]]:
        """Condition on ``votes`` and its values."""
        parts, values = ["1"], list[Any]()
        for column, names in (("topic", self.topics), ("stance", self.stances), ("source", self.sources)):
            if names:
                parts.append(f"votes.{column} IN ({', '.join('?' * len(names))})")
                values += names
        if self.event_id:
            parts.append("votes.article = (SELECT id FROM articles WHERE event_id = ?)")
            values.append(self.event_id)
        for comparison, time in ((">=", self.since), ("<", self.until)):
            if time is not None:
                parts.append(f"votes.published {comparison} ?")
                values.append(time)
        return " AND ".join(parts), values


class ArticleStore:
    """Used by one thread at a time.

    Parameters
    ----------
    folder : Path or None
        Where the database is put; None keeps it in memory.
    articles_max : int
        So many of the newest are kept.
    days : int
        An article that is older than the newest by more is dropped.

    Attributes
    ----------
    articles : int
        How many are kept, those without a vote included that stand for a withdrawn one.
    latest : int
        Newest ``published_at`` seen, in microseconds since 1970; 0 before any.
    assessed : int
        Newest ``assessed_at``, likewise.
    complete_from : int or None
        From this time on nothing is missing; None: nothing is missing at all.
    """

    def __init__(self, folder: Path | None, *, articles_max: int, days: int) -> None:
        self.articles_max = articles_max
        self.days = days
        self.articles = 0
        self.latest = 0
        self.assessed = 0
        self.complete_from: int | None = None
        self._db = _open(folder)

    def close(self) -> None:
        """Give the database up; its file is gone."""
        self._db.close()

    # write

    def apply(self, assessments: Iterable[Assessment]) -> None:
        """Take assessments in the order of the log; one that was taken before changes nothing."""
        with self._db:
            for assessment in assessments:
                self._take(assessment)
            self._drop_old()

    def miss(self, until: datetime) -> None:
        """Note that articles before a time were never read."""
        self._lacks_before(microseconds(until))

    def _take(self, assessment: Assessment) -> None:
        published = microseconds(assessment.published_at)
        self.latest = max(self.latest, published)
        self.assessed = max(self.assessed, microseconds(assessment.assessed_at))
        known = self._db.execute(
            "SELECT id, version FROM articles WHERE event_id = ?", (assessment.event_id,)
        ).fetchone()
        if known is None and not assessment.topics:
            return  # off topic: nothing to show, and nothing to withdraw
        if known is not None:
            number, version = known
            if assessment.version < version:
                return
            self._delete("id = ?", number)
        self.articles += 1
        row = (
            assessment.event_id,
            assessment.version,
            published,
            microseconds(assessment.assessed_at),
            plain_url(assessment.url),
            assessment.title[:TITLE_CHARACTERS],
            assessment.model,
        )
        article = self._db.execute(
            "INSERT INTO articles (event_id, version, published, assessed, url, title, model)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            row,
        ).lastrowid
        self._db.executemany(
            "INSERT OR REPLACE INTO votes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    article,
                    topic.topic,
                    topic.stance,
                    published // HOUR,
                    published,
                    assessment.event_id,
                    assessment.source[:SOURCE_CHARACTERS],
                    topic.probability,
                    topic.stance_probability,
                    msgspec.json.encode([_cut(sentence) for sentence in topic.evidence[:SENTENCES]]),
                )
                for topic in assessment.topics
            ],
        )

    def _drop_old(self) -> None:
        self._drop_before((self.latest // HOUR - 24 * self.days + 1) * HOUR)
        if self.articles > self.articles_max:
            (oldest_kept,) = self._db.execute(
                "SELECT published FROM articles ORDER BY published DESC LIMIT 1 OFFSET ?",
                (self.articles_max - 1,),
            ).fetchone()
            self._drop_before(oldest_kept)
            if self.articles > self.articles_max:  # more of that one moment than there is room for
                self._drop_before(oldest_kept + 1)

    def _drop_before(self, time: int) -> None:
        if self._delete("published < ?", time):
            self._lacks_before(time)

    def _lacks_before(self, time: int) -> None:
        self.complete_from = time if self.complete_from is None else max(self.complete_from, time)

    def _delete(self, condition: str, value: int) -> int:
        gone = self._db.execute(f"DELETE FROM articles WHERE {condition}", (value,)).rowcount  # noqa: S608 - ours
        self.articles -= gone
        return gone

    # read

    def find(self, wanted: Wanted, limit: int, after: Place | None = None) -> list[Article]:
        """Articles by topic, the newest first; one entry for each topic that an article has."""
        condition, values = wanted.sql()
        if after is not None:
            condition += " AND (votes.published, votes.event_id, votes.topic) < (?, ?, ?)"
            values += after
        rows = self._db.execute(f"{FIND} WHERE {condition} {NEWEST_FIRST} LIMIT ?", [*values, limit])
        return [
            Article(
                event_id=row[0],
                title=row[1],
                url=row[2],
                source=row[3],
                published_at=moment(row[4]),
                assessed_at=moment(row[5]),
                topic=row[6],
                stance=row[7],
                probability=row[8],
                stance_probability=row[9],
                evidence=_evidence.decode(row[10]),
                model=row[11],
            )
            for row in rows
        ]

    def hourly(self, first: int | None, last: int, wanted: Wanted) -> dict[tuple[int, str, str], int]:
        """Articles by hour, topic and stance; both hours included, None: from the beginning."""
        condition, values = wanted.sql()
        rows = self._db.execute(
            f"SELECT hour, topic, stance, count(*) FROM votes WHERE hour BETWEEN ? AND ? AND {condition}"  # noqa: S608 - values are bound
            " GROUP BY hour, topic, stance",
            [-(2**62) if first is None else first, last, *values],
        )
        return {(hour, topic, stance): votes for hour, topic, stance, votes in rows}

    def topics(self) -> list[str]:
        """Every topic that an article has."""
        return [topic for (topic,) in self._db.execute("SELECT DISTINCT topic FROM votes ORDER BY topic")]

    def sources(self, wanted: Wanted) -> list[Source]:
        """Sources with their number of articles on topic, the most active first."""
        condition, values = wanted.sql()
        rows = self._db.execute(
            "SELECT source, count(DISTINCT article) AS articles, max(published) FROM votes"  # noqa: S608 - values are bound
            f" WHERE {condition} GROUP BY source ORDER BY articles DESC, source LIMIT {SOURCES_SHOWN}",
            values,
        )
        return [Source(source=row[0], articles=row[1], last_published_at=moment(row[2])) for row in rows]


def _open(folder: Path | None) -> sqlite3.Connection:
    """A database whose file has lost its name already: it cannot be left behind, nor be opened by others."""
    if folder is None:
        db = sqlite3.connect(":memory:", check_same_thread=False)
        db.executescript(SCHEMA)
        return db
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix="articles-", suffix=".sqlite3") as file:
        db = sqlite3.connect(file.name, check_same_thread=False)
        db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        db.execute("PRAGMA temp_store = MEMORY")
        db.executescript(SCHEMA)
    return db


def _cut(sentence: Evidence) -> Evidence:
    if len(sentence.text) <= SENTENCE_CHARACTERS:
        return sentence
    text = sentence.text[:SENTENCE_CHARACTERS]
    return Evidence(text=text, start=sentence.start, end=sentence.start + len(text), field=sentence.field)


def plain_url(url: str) -> str:
    """The address if it is safe to offer as a link, otherwise nothing.

    Only http and https with a host; no spaces, quotes or control characters, and no ``user@`` that would
    disguise the host.
    """
    if len(url) > URL_CHARACTERS or not url.isprintable() or any(sign in url for sign in " \"'<>`\\"):
        return ""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return ""
    return url if parts.scheme in {"http", "https"} and host and "@" not in parts.netloc else ""


def microseconds(time: datetime) -> int:
    """Microseconds since 1970 of an aware datetime."""
    return (time - EPOCH) // timedelta(microseconds=1)


def moment(time: int) -> datetime:
    """Inverse of :func:`microseconds`."""
    return EPOCH + timedelta(microseconds=time)
