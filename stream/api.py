"""The HTTP API of the articles behind the numbers, and the page: GET and HEAD only.

A :class:`Host` is the process around it: a worker, whose own state gives exact counts, or ``stancewatch
serve``. Routes stand in one table from which the paths are registered, the parameters read and
``/api/openapi.json`` written.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, Literal, Protocol

import msgspec
from aiohttp import web

from stream.answers import Articles, Counts, Health, Problem, Sources, Trend
from stream.article_feed import ArticleFeed, BusyError
from stream.articles import HOUR, Place, Wanted, microseconds, moment
from stream.emerging_feed import Emerging, EmergingFeed
from stream.figures import (
    ALL,
    TREND_TOPICS,
    Hourly,
    Window,
    as_time,
    counts,
    from_articles,
    from_state,
    trend,
    window_of,
)
from stream.page import PAGE, PAGE_POLICY
from stream.parameters import LIMIT, PARAMETERS, ParameterError, cursor_of, read_query
from stream.settings import Settings
from stream.tables import TOTAL
from stream.tables import Counts as StateCounts

__all__ = ["Api", "Host", "HostHealth", "Route"]

WINDOW = "24h"
State = Sequence[tuple[int, str, StateCounts]]

log = logging.getLogger("stancewatch.api")


@dataclass(frozen=True, slots=True)
class HostHealth:
    """What a process knows of itself; None where it does not."""

    process: Literal["worker", "serve"]
    reason: str
    lag: int | None = None
    last_event: float = 0.0
    dead_letters: int | None = None


class Host(Protocol):
    """The process that the API runs in."""

    topics: Sequence[str]

    def health(self) -> HostHealth:
        """Asked at each request of ``/api/v1/health``."""

    def state(self) -> State | None:
        """The stored counts, if they are those of all partitions."""


@dataclass(frozen=True, slots=True)
class Route:
    """A path of the API: its parameters, and what it answers."""

    path: str
    summary: str
    parameters: tuple[str, ...]
    answer: type[msgspec.Struct]
    handle: Callable[[dict[str, Any]], Awaitable[msgspec.Struct]]


class Api:
    """Answers from a feed's store and a host's state.

    Parameters
    ----------
    settings : Settings
    feed : ArticleFeed
    host : Host
    emerging : EmergingFeed
        Its path is there only where a process follows the emerging topics.
    """

    def __init__(
        self, settings: Settings, feed: ArticleFeed, host: Host, emerging: EmergingFeed | None = None
    ) -> None:
        self.settings = settings
        self.feed = feed
        self.host = host
        self.routes = [
            Route(
                "/api/v1/articles",
                "Latest articles with the deciding sentences; one entry for each topic of an article",
                ("topic", "stance", "window", "source", "event_id", "since", "until", "limit", "cursor"),
                Articles,
                self.articles,
            ),
            Route(
                "/api/v1/counts",
                "Articles by topic and stance in a window, and in the one before",
                ("window", "topic", "source"),
                Counts,
                self.counts,
            ),
            Route(
                "/api/v1/trend",
                f"Articles by hour, topic and stance; without `topic` of the {TREND_TOPICS} largest topics",
                ("topic", "window", "step", "source"),
                Trend,
                self.trend,
            ),
            Route(
                "/api/v1/sources",
                "Sources and how many articles on topic they brought",
                ("window", "topic"),
                Sources,
                self.sources,
            ),
            Route("/api/v1/health", "How the process and its store are", (), Health, self.health),
        ]
        if emerging is not None:
            summary = "Themes that `stancewatch discover` found, the strongest signals first"
            self.routes.append(Route("/api/v1/emerging", summary, (), Emerging, emerging.answer))

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Register every path."""
        for route in self.routes:
            router.add_get(route.path, _answering(route))
        router.add_get("/api/openapi.json", self._openapi)
        router.add_get("/", self._page)

    # routes

    async def articles(self, asked: dict[str, Any]) -> Articles:
        """The newest first; one more is read than shown, to know whether there is a next page."""
        limit = asked.get("limit", LIMIT)
        found = await self.feed.ask(self._find, asked, limit + 1)
        shown = found[:limit]
        following = None
        if len(found) > limit:
            last = shown[-1]
            following = cursor_of(Place(microseconds(last.published_at), last.event_id, last.topic))
        return Articles(articles=shown, next=following)

    def _find(self, asked: dict[str, Any], limit: int) -> Sequence[Any]:
        return self.feed.store.find(self._wanted(asked), limit, asked.get("cursor"))

    def _wanted(self, asked: dict[str, Any]) -> Wanted:
        wanted = Wanted(
            topics=asked.get("topic", ()),
            stances=asked.get("stance", ()),
            sources=asked.get("source", ()),
            event_id=asked.get("event_id", ""),
            since=asked.get("since"),
            until=asked.get("until"),
        )
        if "window" not in asked:
            return wanted
        if asked["window"] == ALL:
            return wanted
        window = self._window(asked["window"])
        since, until = window.first * HOUR, (window.last + 1) * HOUR
        return replace(
            wanted,
            since=max(since, wanted.since or since),
            until=until if wanted.until is None else min(until, wanted.until),
        )

    def _window(self, name: str) -> Window:
        return window_of(name, self.settings.window_clock, self.feed.store.latest / 1e6)

    async def counts(self, asked: dict[str, Any]) -> Counts:
        """Exact from the state where that is whole, otherwise counted in the store."""
        hourly, window = await self._hourly(asked)
        return counts(hourly, window, asked.get("topic", ()))

    async def trend(self, asked: dict[str, Any]) -> Trend:
        """Likewise."""
        topics = asked.get("topic", ())
        if len(topics) > TREND_TOPICS:
            message = f"topic: got {len(topics)} topics, expected up to {TREND_TOPICS}"
            raise ParameterError(message)
        hourly, window = await self._hourly(asked)
        return trend(hourly, window, topics)

    async def _hourly(self, asked: dict[str, Any]) -> tuple[Hourly, Window]:
        name = asked.get("window", WINDOW)
        state = None if "source" in asked else self.host.state()  # the state knows no sources
        if state is None:
            return await self.feed.ask(self._from_articles, name, asked)
        latest = max((counted.latest for _, bucket, counted in state if bucket == TOTAL), default=0.0)
        window = window_of(name, self.settings.window_clock, latest)
        return await self.feed.ask(from_state, state, window, self.host.topics, self.settings), window

    def _from_articles(self, name: str, asked: dict[str, Any]) -> tuple[Hourly, Window]:
        window = self._window(name)
        wanted = Wanted(topics=asked.get("topic", ()), sources=asked.get("source", ()))
        return from_articles(
            self.feed.store, window, wanted, self.host.topics, whole=self.feed.caught_up
        ), window

    async def sources(self, asked: dict[str, Any]) -> Sources:
        """Of all stored articles, or of those in a window."""
        return Sources(sources=await self.feed.ask(lambda: self.feed.store.sources(self._wanted(asked))))

    async def health(self, _asked: dict[str, Any]) -> Health:
        """What the page shows at its top."""
        about, store = self.host.health(), self.feed.store
        return Health(
            process=about.process,
            ready=not about.reason,
            reason=about.reason,
            window_clock=self.settings.window_clock,
            lag_records=about.lag,
            last_event_at=as_time(about.last_event),
            last_published_at=moment(store.latest) if store.latest else None,
            dead_letters=about.dead_letters,
            articles=store.articles,
            articles_max=self.settings.articles_max,
            articles_since=None if store.complete_from is None else moment(store.complete_from),
            articles_lag_records=self.feed.lag,
            fault=self.feed.fault,
        )

    async def _openapi(self, _request: web.Request) -> web.Response:
        return web.json_response(openapi(self.routes))

    async def _page(self, _request: web.Request) -> web.Response:
        return web.Response(
            text=PAGE, content_type="text/html", headers={"Content-Security-Policy": PAGE_POLICY}
        )


def _answering(route: Route) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        try:
            found = await route.handle(read_query(request.query, route.parameters))
        except ParameterError as error:
            return _problem("parameter not understood", 400, str(error))
        except BusyError:
            return _problem("busy", 503, "too many requests wait for the articles; ask again in a second")
        except sqlite3.Error as error:
            log.warning("the store of articles cannot answer: %s", error)
            return _problem("no articles now", 503, "the store of articles is being made anew")
        return web.Response(body=msgspec.json.encode(found), content_type="application/json")

    return answer


def _problem(title: str, status: int, detail: str) -> web.Response:
    problem = Problem(title=title, status=status, detail=detail)
    headers = {"Retry-After": "1"} if status == 503 else {}  # noqa: PLR2004
    return web.Response(
        body=msgspec.json.encode(problem),
        status=status,
        content_type="application/problem+json",
        headers=headers,
    )


def openapi(routes: Sequence[Route]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these routes."""
    types = [*(route.answer for route in routes), Problem]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    by_type = dict(zip(types, schemas, strict=True))

    def content(answer: type[msgspec.Struct], kind: str = "application/json") -> dict[str, Any]:
        return {kind: {"schema": by_type[answer]}}

    problem = content(Problem, "application/problem+json")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Stancewatch",
            "version": version("stancewatch"),
            "description": "The articles behind the numbers. Read-only.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            route.path: {
                "get": {
                    "operationId": route.path.rpartition("/")[2],
                    "summary": route.summary,
                    "parameters": [_parameter(name) for name in route.parameters],
                    "responses": {
                        "200": {"description": "As asked.", "content": content(route.answer)},
                        "400": {"description": "A parameter is not as expected.", "content": problem},
                        "503": {"description": "Not now.", "content": problem},
                    },
                }
            }
            for route in routes
        },
        "components": {"schemas": components},
    }


def _parameter(name: str) -> dict[str, Any]:
    parameter = PARAMETERS[name]
    one = dict(parameter.schema)
    schema = {"type": "array", "items": one} if parameter.several else one
    return {"name": name, "in": "query", "description": parameter.description, "schema": schema}
