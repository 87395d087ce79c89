"""What the HTTP API answers; ``/api/openapi.json`` is made from these classes, so it cannot say otherwise.

All times are UTC (RFC 3339). An hour is told by its beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from classifiers.decisions import StanceLabel
from stream.schema import Evidence

__all__ = [
    "Article",
    "Articles",
    "Counts",
    "Figures",
    "Health",
    "Point",
    "Problem",
    "Source",
    "Sources",
    "TopicFigures",
    "Trend",
]

Count = Annotated[int, Meta(ge=0)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Basis = Annotated[
    Literal["state", "articles"],
    Meta(
        description="`state`: the worker's exact counts, those of /metrics."
        " `articles`: counted in the store of the latest articles."
    ),
]


class Article(msgspec.Struct, frozen=True, kw_only=True):
    """One article under one of its topics."""

    event_id: str
    title: Annotated[str, Meta(description="Plain text of strangers: escape it. Cut to 300 characters.")]
    url: Annotated[str, Meta(description="http or https; empty when the event had no such address.")]
    source: str
    published_at: datetime
    assessed_at: datetime
    topic: str
    stance: StanceLabel
    probability: Annotated[Probability, Meta(description="Of the topic.")]
    stance_probability: Probability
    evidence: Annotated[
        Sequence[Evidence],
        Meta(description="Deciding sentences; start and end count characters in the field of the event."),
    ]
    model: str


class Articles(msgspec.Struct, frozen=True, kw_only=True):
    """A page of articles, the newest first."""

    articles: Sequence[Article]
    next: Annotated[str | None, Meta(description="The `cursor` of the next page; null on the last one.")]


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Articles by stance."""

    favor: Count
    against: Count
    neutral: Count
    unclear: Count
    total: Count
    net_stance: Annotated[
        Annotated[float, Meta(ge=-1, le=1)] | None,
        Meta(description="(favor - against) / (favor + against); null without either."),
    ]


class TopicFigures(Figures, frozen=True, kw_only=True):
    """A topic in a window, and in the window before."""

    topic: str
    previous: Annotated[
        Figures | None,
        Meta(description="The window of the same length before; null when it is not kept whole."),
    ]


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Articles by topic and stance in a window of whole hours, the running one included."""

    window: str
    since: Annotated[datetime | None, Meta(description="First hour of the window; null for `all`.")]
    until: Annotated[datetime, Meta(description="End of its last hour.")]
    basis: Basis
    complete: Annotated[bool, Meta(description="Whether no article of the window is missing.")]
    explanation: Annotated[str, Meta(description="What the figures cover, for people.")]
    topics: Sequence[TopicFigures]


class Point(Figures, frozen=True, kw_only=True):
    """A topic in one hour."""

    time: datetime
    topic: str


class Trend(msgspec.Struct, frozen=True, kw_only=True):
    """Articles by hour, topic and stance; hours without articles are there, with zeros."""

    window: str
    since: datetime
    until: datetime
    basis: Basis
    complete: bool
    explanation: str
    points: Sequence[Point]


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A source with its articles on topic."""

    source: str
    articles: Count
    last_published_at: datetime


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """Sources, the most active first, up to 500."""

    sources: Sequence[Source]


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How the process and its store of articles are."""

    process: Literal["worker", "serve"]
    ready: bool
    reason: Annotated[str, Meta(description="Why it is not ready; empty when it is.")]
    window_clock: Literal["wall", "event"]
    lag_records: Annotated[
        Count | None, Meta(description="Events that wait to be assessed; null where it is not measured.")
    ]
    last_event_at: Annotated[
        datetime | None, Meta(description="When the last record was handled here; null before any.")
    ]
    last_published_at: Annotated[datetime | None, Meta(description="Newest `published_at` seen.")]
    dead_letters: Annotated[Count | None, Meta(description="Records rejected so far; null if not known.")]
    articles: Annotated[Count, Meta(description="Articles in the store.")]
    articles_max: Count
    articles_since: Annotated[
        datetime | None, Meta(description="From here on no article is missing; null: none is missing at all.")
    ]
    articles_lag_records: Annotated[Count, Meta(description="Assessments that the store has yet to read.")]
    fault: Annotated[str, Meta(description="What is wrong with the store; empty when nothing is.")]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A request that cannot be answered (RFC 9457, application/problem+json)."""

    title: str
    status: int
    detail: Annotated[str, Meta(description="What was expected.")]
