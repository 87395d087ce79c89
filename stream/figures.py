"""Counts by hour, from the worker's state or from the store of articles, and what is told of them.

Both give the same form, :class:`Hourly`, so a window, the one before it and a trend are made by the same
functions. A window ends with the running hour: that of the wall clock, or of the newest ``published_at``
(``window_clock``), as on ``/metrics``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from classifiers.decisions import STANCES
from stream.answers import Counts, Figures, Point, TopicFigures, Trend
from stream.articles import HOUR, ArticleStore, Wanted, moment
from stream.metrics import WINDOW_HOURS
from stream.settings import Settings
from stream.tables import TOTAL
from stream.tables import Counts as StateCounts

__all__ = [
    "ALL",
    "WINDOWS",
    "Hourly",
    "Window",
    "counts",
    "from_articles",
    "from_state",
    "trend",
    "window_of",
]

ALL = "all"
WINDOWS = (*WINDOW_HOURS, ALL)
ALL_HOURS = 14 * 24
TREND_TOPICS = 20

EXACT = (
    "Exact: every event counted by this worker, which owns all partitions. The same figures as /metrics."
    " Whole hours of published_at; the running one is included."
)


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of whole hours, numbered from 1970."""

    name: str
    first: int
    last: int

    @property
    def hours(self) -> int:
        """Its length."""
        return self.last - self.first + 1

    @property
    def before(self) -> Window:
        """The stretch of the same length before."""
        return Window(self.name, self.first - self.hours, self.first - 1)

    @property
    def since(self) -> datetime:
        """Its beginning."""
        return moment(self.first * HOUR)

    @property
    def until(self) -> datetime:
        """The end of its last hour."""
        return moment((self.last + 1) * HOUR)


@dataclass(frozen=True, slots=True)
class Hourly:
    """Articles by hour, topic and stance.

    Attributes
    ----------
    votes : mapping
        By (hour, topic, stance).
    topics : frozenset of str
        Those to show even without articles.
    complete_from : int or None
        First hour from which on nothing is missing; None: nothing is missing.
    totals : mapping or None
        By topic and stance since the beginning, where that was asked for.
    """

    basis: Literal["state", "articles"]
    explanation: str
    votes: Mapping[tuple[int, str, str], int]
    topics: frozenset[str]
    complete_from: int | None
    totals: Mapping[str, Mapping[str, int]] | None = None

    def covers(self, window: Window) -> bool:
        """Whether no hour of the window is missing."""
        return self.complete_from is None or self.complete_from <= window.first

    @property
    def totals_complete(self) -> bool:
        """Whether nothing since the beginning is missing in the totals."""
        return self.basis == "state" or self.complete_from is None


def window_of(name: str, clock: str, latest: float) -> Window:
    """The window that ends with the running hour.

    Parameters
    ----------
    name : str
        One of ``WINDOWS``.
    clock : str
        ``wall`` or ``event``.
    latest : float
        Newest ``published_at`` seen, in POSIX seconds.
    """
    if name == ALL:
        last = int(latest // 3600)
        return Window(name, last - ALL_HOURS + 1, last)
    last = int((time.time() if clock == "wall" else latest) // 3600)
    return Window(name, last - WINDOW_HOURS[name] + 1, last)


def from_state(
    entries: Iterable[tuple[int, str, StateCounts]], window: Window, topics: Iterable[str], settings: Settings
) -> Hourly:
    """Sum the state over partitions, for the window and the one before."""
    votes: Counter[tuple[int, str, str]] = Counter()
    totals: dict[str, Counter[str]] = {}
    shown, first_kept = set(topics), None
    for _, bucket, counted in entries:
        if bucket == TOTAL:
            shown |= set(counted.votes)
            for topic, by_stance in counted.votes.items():
                totals.setdefault(topic, Counter()).update(by_stance)
            kept = counted.kept_from(settings.bucket_days)
            first_kept = kept if first_kept is None else max(first_kept, kept)
        elif window.before.first <= int(bucket) <= window.last:
            for topic, by_stance in counted.votes.items():
                for stance, number in by_stance.items():
                    votes[int(bucket), topic, stance] += number
    return Hourly("state", EXACT, votes, frozenset(shown), first_kept, totals if window.name == ALL else None)


def from_articles(
    store: ArticleStore, window: Window, wanted: Wanted, topics: Iterable[str], *, whole: bool
) -> Hourly:
    """Count the stored articles, for the window and the one before; `whole`: once the store has caught up."""
    begin = store.complete_from
    complete_from = None if begin is None else -(-begin // HOUR)
    covered = (
        "every article in news.assessments"
        if begin is None
        else f"all articles published since {moment(begin):%Y-%m-%d %H:%M} UTC; older ones are not kept here"
    )
    waiting = "" if whole else " More are still being read."
    explanation = (
        f"Counted from {covered}.{waiting} Whole hours of published_at; the running one is included."
    )
    if not whole:
        complete_from = window.last + 1
    everything = window.name == ALL
    votes = store.hourly(None if everything else window.before.first, window.last, wanted)
    totals: dict[str, Counter[str]] = {}
    for (_, topic, stance), number in votes.items() if everything else ():
        totals.setdefault(topic, Counter())[stance] += number
    return Hourly(
        "articles",
        explanation,
        votes,
        frozenset({*topics, *store.topics()}),
        complete_from,
        totals if everything else None,
    )


def counts(hourly: Hourly, window: Window, topics: Sequence[str]) -> Counts:
    """Figures of each topic in the window and in the one before; `topics` empty: all."""
    now, before = _by_topic(hourly, window), _by_topic(hourly, window.before)
    compared = window.name != ALL and hourly.covers(window.before)
    if hourly.totals is not None:
        now = hourly.totals
    shown = topics or sorted(hourly.topics | set(now))
    # Totals are kept for ever in the state, hours are not.
    complete = hourly.covers(window) if hourly.totals is None else hourly.totals_complete
    return Counts(
        window=window.name,
        since=None if window.name == ALL else window.since,
        until=window.until,
        basis=hourly.basis,
        complete=complete,
        explanation=hourly.explanation,
        topics=[
            TopicFigures(
                topic=topic,
                previous=_figures(before.get(topic, {})) if compared else None,
                **_as_fields(now.get(topic, {})),
            )
            for topic in shown
        ],
    )


def trend(hourly: Hourly, window: Window, topics: Sequence[str]) -> Trend:
    """Figures of each hour; without `topics` of the 20 topics with most articles."""
    by_topic = _by_topic(hourly, window)
    shown = topics or sorted(
        hourly.topics | set(by_topic), key=lambda topic: (-sum(by_topic.get(topic, {}).values()), topic)
    )
    return Trend(
        window=window.name,
        since=window.since,
        until=window.until,
        basis=hourly.basis,
        complete=hourly.covers(window),
        explanation=hourly.explanation,
        points=[
            Point(
                time=moment(hour * HOUR),
                topic=topic,
                **_as_fields({stance: hourly.votes.get((hour, topic, stance), 0) for stance in STANCES}),
            )
            for topic in sorted(shown[:TREND_TOPICS])
            for hour in range(window.first, window.last + 1)
        ],
    )


def _by_topic(hourly: Hourly, window: Window) -> Mapping[str, Mapping[str, int]]:
    sums: dict[str, Counter[str]] = {}
    for (hour, topic, stance), votes in hourly.votes.items():
        if window.first <= hour <= window.last:
            sums.setdefault(topic, Counter())[stance] += votes
    return sums


def _figures(votes: Mapping[str, int]) -> Figures:
    return Figures(**_as_fields(votes))


def _as_fields(votes: Mapping[str, int]) -> dict[str, Any]:
    by_stance = {stance: votes.get(stance, 0) for stance in STANCES}
    favor, against = votes.get("favor", 0), votes.get("against", 0)
    sided = favor + against
    net = round((favor - against) / sided, 4) if sided else None
    return {**by_stance, "total": sum(votes.values()), "net_stance": net}


def as_time(seconds: float) -> datetime | None:
    """POSIX seconds as a time; None for 0, which stands for never."""
    return datetime.fromtimestamp(seconds, UTC) if seconds > 0 else None
