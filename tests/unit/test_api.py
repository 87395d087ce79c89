"""The HTTP API and the page over a real socket: answers, parameters, and a description that is kept true."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from multidict import MultiDict
from prometheus_client import CollectorRegistry

from classifiers.discovery.topic import Topic
from stream.api import Api, HostHealth, State
from stream.article_feed import WAITING_MAX, ArticleFeed
from stream.articles import Place
from stream.emerging import encode_topic, take
from stream.emerging_feed import EmergingFeed
from stream.figures import window_of
from stream.metrics import StateCollector
from stream.parameters import ParameterError, cursor_of, read_query
from stream.settings import load_settings
from stream.tables import Change, Outcome, apply_changes, decode_counts, split_counts_key
from stream.web import WebServer, listen
from tests.unit.test_articles import CHIPS, CLOUD, NOON, assessment
from tests.unit.test_web import ask

JSON = "application/json"


@dataclass
class FakeHost:
    """A process with a state that tests set."""

    topics: Sequence[str] = ("chips", "cloud", "other_topic")
    entries: State | None = None
    told: HostHealth = field(default_factory=lambda: HostHealth("worker", ""))

    def health(self) -> HostHealth:
        """As set."""
        return self.told

    def state(self) -> State | None:
        """As set."""
        return self.entries


class Client:
    """Asks a running server."""

    def __init__(self, address: tuple[str, int], feed: ArticleFeed, host: FakeHost) -> None:
        self.address = address
        self.feed = feed
        self.host = host

    async def text(self, path: str, method: str = "GET") -> tuple[int, dict[str, str], str]:
        """Status, headers, body."""
        return await ask(self.address, method, path)

    async def json(self, path: str, status: int = 200, /, **query: str) -> Any:
        """A JSON answer, which must have this status and be what the description says."""
        target = f"/api/v1/{path}" + (f"?{urlencode(query)}" if query else "")
        told, headers, body = await self.text(target)
        assert told == status, body
        kind = headers["content-type"].split(";")[0]
        described = json.loads((await self.text("/api/openapi.json"))[2])
        content = described["paths"][f"/api/v1/{path}"]["get"]["responses"][str(status)]["content"]
        answer = json.loads(body)
        schema = {**content[kind]["schema"], "components": described["components"]}
        Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(answer)
        return answer


@asynccontextmanager
async def api(
    host: FakeHost | None = None, emerging: EmergingFeed | None = None, **values: object
) -> AsyncIterator[Client]:
    """The API on a free port, with an empty store that nobody feeds."""
    host = host or FakeHost()
    settings = load_settings(broker="localhost:9", store="memory", window_clock="event", **values)
    feed = ArticleFeed(settings)
    feed.caught_up = True
    web = WebServer(
        CollectorRegistry(),
        lambda: "",
        listen("127.0.0.1", 0),
        add_routes=Api(settings, feed, host, emerging or EmergingFeed(settings)).add_to,
    )
    try:
        async with web:
            yield Client(web.listener.getsockname()[:2], feed, host)
    finally:
        await feed.stop()


def hours_ago(hours: float, event_id: str = "a", *votes: tuple[str, str], **values: Any) -> Any:
    """An assessment of an event that was published so long before noon."""
    return assessment(event_id, *votes, published_at=NOON - timedelta(hours=hours), **values)


async def test_articles_have_what_the_contract_names() -> None:
    """All fields, newest first; next is null on the last page."""
    async with api() as client:
        client.feed.store.apply([hours_ago(1, "old", CHIPS), hours_ago(0, "new", CLOUD)])
        page = await client.json("articles")
    assert page["next"] is None
    assert [entry["event_id"] for entry in page["articles"]] == ["new", "old"]
    assert page["articles"][0] == {
        "event_id": "new",
        "title": "A title",
        "url": "https://example.org/a",
        "source": "Wire",
        "published_at": "2024-09-30T12:00:00Z",
        "assessed_at": "2024-09-30T13:00:00Z",
        "topic": "cloud",
        "stance": "favor",
        "probability": 0.9,
        "stance_probability": 0.8,
        "evidence": [{"text": "A sentence.", "start": 3, "end": 14, "field": "text"}],
        "model": "words@0",
    }


async def test_pages_lead_through_everything_once() -> None:
    """By `next`, while articles come in."""
    async with api() as client:
        client.feed.store.apply([hours_ago(number / 10, f"e{number}", CLOUD, CHIPS) for number in range(11)])
        whole = (await client.json("articles", limit="500"))["articles"]
        read: list[Any] = []
        cursor: str | None = ""
        while cursor is not None:
            page = await client.json("articles", limit="4", cursor=cursor)
            read += page["articles"]
            cursor = page["next"]
            client.feed.store.apply(
                [assessment(f"late-{len(read)}", CLOUD, published_at=NOON + timedelta(hours=1))]
            )
    assert len(whole) == 22
    assert read == whole


async def test_articles_are_filtered() -> None:
    """By each parameter; Grafana puts several topics into one value, and leaves out none as an empty one."""
    async with api() as client:
        client.feed.store.apply(
            [
                hours_ago(0, "a", CLOUD),
                hours_ago(2, "b", CHIPS, source="The Gazette, Ltd."),
                hours_ago(30, "c", ("other_topic", "neutral")),
            ]
        )

        async def ids(**query: str) -> str:
            return "".join(
                entry["event_id"] for entry in (await client.json("articles", **query))["articles"]
            )

        assert await ids() == "abc"
        assert await ids(topic="cloud,chips") == "ab"
        assert await ids(topic="", stance="", window="", source="") == "abc"
        assert await ids(stance="neutral,against") == "bc"
        assert await ids(source="The Gazette, Ltd.") == "b"
        assert await ids(window="1h") == "a"
        assert await ids(window="24h") == "ab"
        assert await ids(window="7d") == await ids(window="all") == "abc"
        assert await ids(window="24h", until="2024-09-30T12:00:00+01:00") == "b"
        assert await ids(since="2024-09-30T11:00:00.000Z") == "a"
        assert await ids(window="24h", since="2024-09-30T11:00:00Z") == "a"
        assert await ids(event_id="c") == "c"
        assert await ids(topic="nobody_knows") == ""
        assert len((await client.json("articles", limit="1"))["articles"]) == 1
        _, _, body = await client.text("/api/v1/articles?topic=cloud&topic=chips")
        assert len(json.loads(body)["articles"]) == 2


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        ("articles", {"window": "2h"}, "window: got '2h', expected 1h, 24h, 7d, all"),
        ("articles", {"stance": "pro"}, "stance: got 'pro', expected favor, against, neutral or unclear"),
        ("articles", {"limit": "0"}, "limit: got '0', expected a number from 1 to 500"),
        ("articles", {"limit": "501"}, "limit: got '501', expected a number from 1 to 500"),
        ("articles", {"limit": "٣"}, "limit: got '٣', expected a number from 1 to 500"),
        ("articles", {"since": "yesterday"}, "since: got 'yesterday', expected a time like"),
        (
            "articles",
            {"until": "2024-09-30T06:00:00"},
            "until: got '2024-09-30T06:00:00', expected a time like",
        ),
        ("articles", {"cursor": "x"}, "cursor: got 'x', expected `next` of an earlier answer"),
        ("articles", {"cursor": cursor_of(Place(2**62, "a", "b"))}, "expected `next` of an earlier answer"),
        ("articles", {"topics": "cloud"}, "unknown parameter 'topics', expected topic, stance, window"),
        ("counts", {"stance": "favor"}, "unknown parameter 'stance', expected window, topic, source"),
        ("trend", {"step": "day"}, "step: got 'day', expected hour"),
        ("trend", {"topic": ",".join(map(str, range(21)))}, "topic: got 21 topics, expected up to 20"),
        ("sources", {"window": "1"}, "window: got '1', expected"),
        ("health", {"x": "1"}, "unknown parameter 'x', expected none"),
    ],
)
async def test_a_wrong_parameter_is_told_with_what_was_expected(
    path: str, query: dict[str, str], expected: str
) -> None:
    """400 and a problem in JSON, never a traceback."""
    async with api() as client:
        problem = await client.json(path, 400, **query)
    assert problem["status"] == 400
    assert expected in problem["detail"]


async def test_a_parameter_that_is_given_twice_where_one_is_wanted_is_told() -> None:
    """Not silently the first or the last."""
    async with api() as client:
        status, _, body = await client.text("/api/v1/counts?window=1h&window=7d")
    assert (status, json.loads(body)["detail"]) == (400, "window: given more than once, expected one value")


@pytest.mark.parametrize("raw", ["%ff", "%00", "%ed%a0%80", "%F0%9F%98%80", "'%20OR%201=1--", "%2525"])
async def test_any_bytes_in_a_parameter_are_only_a_name(raw: str) -> None:
    """Nothing is found, nothing breaks."""
    async with api() as client:
        client.feed.store.apply([hours_ago(0, "a", CLOUD)])
        status, _, body = await client.text(f"/api/v1/articles?source={raw}")
    assert (status, json.loads(body)["articles"]) == (200, [])


@given(st.text(max_size=40))
@hypothesis_settings(max_examples=60)
def test_whatever_stands_in_a_parameter_it_is_read_or_refused(value: str) -> None:
    """No other error."""
    for name in ("window", "since", "limit", "cursor", "stance", "topic"):
        with suppress(ParameterError):
            read_query(MultiDict({name: value}), (name,))


def state_of(*votes: tuple[int, float, str, str], latest: datetime = NOON) -> State:
    """A worker's state after events (partition, hours before `latest`, topic, stance), by the real code."""
    table: dict[bytes, bytes] = {}
    for offset, (partition, hours, topic, stance) in enumerate(votes):
        published = (latest - timedelta(hours=hours)).timestamp()
        cast = (int(published // 3600), {topic: stance}, 1)
        apply_changes(table, partition, [Change(offset, Outcome.ASSESSED, published, [cast], published)])
    return [(*split_counts_key(key), decode_counts(value)) for key, value in table.items()]


async def test_counts_of_a_whole_state_are_those_of_the_metrics() -> None:
    """Summed over partitions, the same windows, the store is not asked."""
    entries = state_of(
        (0, 0, "cloud", "favor"),
        (1, 0.5, "cloud", "against"),
        (0, 3, "cloud", "favor"),
        (1, 23.5, "chips", "neutral"),
        (0, 24, "chips", "unclear"),
        (1, 150, "chips", "favor"),
    )
    registry = CollectorRegistry()
    registry.register(StateCollector(lambda: entries, FakeHost.topics, "event"))
    async with api(FakeHost(entries=entries)) as client:
        for window in ("1h", "24h", "7d"):
            counts = await client.json("counts", window=window)
            assert (counts["basis"], counts["complete"], counts["window"]) == ("state", True, window)
            for figures in counts["topics"]:
                for stance in ("favor", "against", "neutral", "unclear"):
                    labels = {"topic": figures["topic"], "stance": stance, "window": window}
                    by_partition = [
                        registry.get_sample_value(
                            "stancewatch_window_assessments", {**labels, "partition": number}
                        )
                        for number in "01"
                    ]
                    assert figures[stance] == sum(filter(None, by_partition)), labels
        totals = await client.json("counts", window="all")
        trend = await client.json("trend", window="24h", topic="cloud", step="hour")
        day = await client.json("counts")
    assert [figures["topic"] for figures in day["topics"]] == ["chips", "cloud", "other_topic"]
    assert {figures["topic"]: figures["total"] for figures in totals["topics"]} == {
        "chips": 3,
        "cloud": 3,
        "other_topic": 0,
    }
    assert (totals["since"], totals["topics"][0]["previous"]) == (None, None)
    assert "same figures as /metrics" in day["explanation"]
    by_hour = {point["time"]: (point["favor"], point["against"]) for point in trend["points"]}
    assert len(by_hour) == 24
    assert {time: votes for time, votes in by_hour.items() if any(votes)} == {
        "2024-09-30T12:00:00Z": (1, 0),
        "2024-09-30T11:00:00Z": (0, 1),
        "2024-09-30T09:00:00Z": (1, 0),
    }


async def test_net_stance_and_the_window_before() -> None:
    """(favor - against) / (favor + against); null without either; the window before has the same length."""
    entries = state_of(
        (0, 0, "cloud", "favor"),
        (0, 0, "cloud", "favor"),
        (0, 0, "cloud", "against"),
        (0, 0, "cloud", "neutral"),
        (0, 1, "cloud", "against"),
        (0, 2, "cloud", "favor"),
    )
    async with api(FakeHost(entries=entries)) as client:
        counts = await client.json("counts", window="1h", topic="cloud,chips")
    cloud, chips = counts["topics"]
    assert (cloud["topic"], cloud["total"], cloud["net_stance"]) == ("cloud", 4, 0.3333)
    assert cloud["previous"] == {
        "favor": 0,
        "against": 1,
        "neutral": 0,
        "unclear": 0,
        "total": 1,
        "net_stance": -1.0,
    }
    assert (chips["total"], chips["net_stance"], chips["previous"]["total"]) == (0, None, 0)


async def test_a_window_before_that_is_not_kept_whole_is_not_told() -> None:
    """Two windows of 7 days do not fit into 8 days."""
    entries = state_of((0, 0, "cloud", "favor"))
    async with api(FakeHost(entries=entries), bucket_days=8) as client:
        week = await client.json("counts", window="7d")
        day = await client.json("counts", window="24h")
    assert week["complete"]
    assert [figures["previous"] for figures in week["topics"]] == [None] * 3
    assert day["topics"][0]["previous"] is not None


@pytest.mark.parametrize(("days", "complete"), [(8, False), (14, True)])
async def test_a_trend_of_all_says_whether_its_hours_are_kept(days: int, complete: bool) -> None:
    """Totals are kept for ever and hours are not: 14 days of hours do not fit into 8."""
    async with api(FakeHost(entries=state_of((0, 0, "cloud", "favor"))), bucket_days=days) as client:
        trend = await client.json("trend", window="all")
        counts = await client.json("counts", window="all")
    assert (trend["basis"], trend["complete"]) == ("state", complete)
    assert (counts["basis"], counts["complete"]) == ("state", True)


async def test_without_a_whole_state_the_articles_are_counted() -> None:
    """As in a process of its own or one of several workers; the answer says so, and what is not covered."""
    async with api(articles_max=2) as client:
        client.feed.store.apply(
            [hours_ago(0, "a", CLOUD), hours_ago(2, "b", CLOUD), hours_ago(30, "c", CHIPS)]
        )
        day = await client.json("counts", window="24h")
        week = await client.json("counts", window="7d")
        client.feed.caught_up = False
        early = await client.json("counts", window="1h")
    assert (day["basis"], day["complete"], day["topics"][1]["favor"]) == ("articles", False, 2)
    assert "published since 2024-09-30 10:00 UTC" in day["explanation"]
    assert (week["complete"], week["topics"][0]["previous"]) == (False, None)
    assert early["complete"] is False
    assert "still being read" in early["explanation"]


async def test_a_source_is_counted_from_the_articles_even_beside_a_state() -> None:
    """The state knows no sources."""
    async with api(FakeHost(entries=state_of((0, 0, "cloud", "favor"), (0, 0, "cloud", "favor")))) as client:
        client.feed.store.apply([hours_ago(0, "a", CLOUD), hours_ago(0, "b", CLOUD, source="Gazette")])
        all_sources = await client.json("counts", window="24h", topic="cloud")
        one = await client.json("counts", window="24h", topic="cloud", source="Gazette")
        sources = await client.json("sources", window="24h")
        everything = await client.json("counts", window="all", topic="cloud", source="Gazette")
    assert (all_sources["basis"], all_sources["topics"][0]["favor"]) == ("state", 2)
    assert (one["basis"], one["complete"], one["topics"][0]["favor"]) == ("articles", True, 1)
    assert everything["topics"][0]["total"] == 1
    assert [(source["source"], source["articles"]) for source in sources["sources"]] == [
        ("Gazette", 1),
        ("Wire", 1),
    ]


async def test_a_trend_without_topics_shows_the_largest() -> None:
    """Up to 20, so that an answer stays small."""
    votes = [(0, 0.0, f"t{topic:02d}", "favor") for topic in range(30) for _ in range(topic)]
    async with api(FakeHost(entries=state_of(*votes), topics=())) as client:
        trend = await client.json("trend", window="1h")
    assert [point["topic"] for point in trend["points"]] == [f"t{topic:02d}" for topic in range(10, 30)]


def test_windows_of_the_wall_clock_end_now() -> None:
    """Whatever was published last."""
    window = window_of("24h", "wall", NOON.timestamp())
    assert window.until > datetime.now(UTC) > window.until - timedelta(hours=1)
    assert window.until - window.since == timedelta(hours=24)


async def test_health_is_told() -> None:
    """From the process and from the store."""
    told = HostHealth("worker", "recovering", lag=7, last_event=NOON.timestamp(), dead_letters=3)
    async with api(FakeHost(told=told), articles_max=5) as client:
        client.feed.store.apply([hours_ago(0, "a", CLOUD)])
        client.feed.fault = "articles: database or disk is full"
        health = await client.json("health")
        client.host.told = HostHealth("serve", "")
        nothing_known = await client.json("health")
    assert health == {
        "process": "worker",
        "ready": False,
        "reason": "recovering",
        "window_clock": "event",
        "lag_records": 7,
        "last_event_at": "2024-09-30T12:00:00Z",
        "last_published_at": "2024-09-30T12:00:00Z",
        "dead_letters": 3,
        "articles": 1,
        "articles_max": 5,
        "articles_since": None,
        "articles_lag_records": 0,
        "fault": "articles: database or disk is full",
    }
    assert (nothing_known["ready"], nothing_known["lag_records"]) == (True, None)
    assert nothing_known["last_event_at"] is None


async def test_an_empty_store_answers() -> None:
    """Nothing has arrived yet."""
    async with api() as client:
        assert await client.json("articles") == {"articles": [], "next": None}
        assert await client.json("sources") == {"sources": []}
        assert [figures["total"] for figures in (await client.json("counts"))["topics"]] == [0, 0, 0]
        assert (await client.json("health"))["last_published_at"] is None


async def test_emerging_topics_are_those_of_the_kafka_topic() -> None:
    """Strongest first, with the fields that the page shows."""
    emerging = EmergingFeed(load_settings())
    for name, signal in (("e1", "noise"), ("e2", "strong")):
        topic = Topic(id=name, label="a, b", words=["a", "b"], born=0, seen=0, signal=signal, documents=4)  # type: ignore[arg-type]
        take(emerging.topics, name.encode(), encode_topic(topic))
    async with api(emerging=emerging) as client:
        told = (await client.json("emerging"))["topics"]
    assert [topic["id"] for topic in told] == ["e2", "e1"]
    assert told[0] == {
        "id": "e2",
        "label": "a, b",
        "words": ["a", "b"],
        "signal": "strong",
        "documents": 4,
        "growth": 1.0,
    }


async def test_every_route_is_described_and_nothing_else() -> None:
    """The document names all paths and their parameters; it is valid OpenAPI 3.1 in its outline."""
    async with api() as client:
        described = json.loads((await client.text("/api/openapi.json"))[2])
        for path, item in described["paths"].items():
            names = [parameter["name"] for parameter in item["get"]["parameters"]]
            status, _, body = await client.text(f"{path}?nonsense=1")
            told = re.findall(r"expected (.*)", json.loads(body)["detail"])
            assert (status, told) == (400, [", ".join(names) or "none"])
    assert described["openapi"] == "3.1.0"
    expected = ("articles", "counts", "emerging", "health", "sources", "trend")
    assert {f"/api/v1/{name}" for name in expected} <= set(described["paths"])
    references = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(described)))
    assert references == set(described["components"]["schemas"])
    for schema in described["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
async def test_nothing_can_be_changed(method: str) -> None:
    """Only GET and HEAD, on the page too."""
    async with api() as client:
        for path in ("/", "/api/v1/articles", "/api/openapi.json", "/api/v1/health"):
            status, headers, _ = await client.text(path, method)
            assert (status, headers["allow"]) == (405, "GET,HEAD")
            assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"


async def test_head_has_the_headers_alone() -> None:
    """As GET, without the body."""
    async with api() as client:
        status, headers, body = await client.text("/api/v1/articles", "HEAD")
        assert (status, body, headers["content-type"]) == (200, "", JSON)
        assert (await client.text("/", "HEAD"))[::2] == (200, "")


async def test_the_page_may_run_its_own_script_and_nothing_else() -> None:
    """The policy names the hashes of what the file holds; other headers as everywhere."""
    async with api() as client:
        status, headers, page = await client.text("/?topic=cloud&window=24h")
        other = (await client.text("/api/v1/health"))[1]
    policy = headers["content-security-policy"]
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/]{43}=';", policy)
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert other["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    outside = [link for link in re.findall(r"https?://[^\s\"'<)]+", page) if "www.w3.org" not in link]
    assert outside == []
    assert " style=" not in page


async def test_a_store_that_fails_is_told_and_the_rest_goes_on() -> None:
    """503, without what is inside."""
    async with api(FakeHost(entries=state_of((0, 0, "cloud", "favor")))) as client:
        client.feed.store.close()
        problem = await client.json("articles", 503)
        counts = await client.json("counts")
        assert (await client.json("health"))["articles"] == 0
    assert problem["title"] == "no articles now"
    assert counts["basis"] == "state"


async def test_too_many_waiting_requests_are_turned_away() -> None:
    """So that a store that is slow does not pile them up; afterwards all is well."""
    async with api() as client:
        gate = threading.Event()
        blocked = [asyncio.create_task(client.feed.ask(gate.wait)) for _ in range(WAITING_MAX)]
        await asyncio.sleep(0)
        try:
            status, headers, body = await client.text("/api/v1/articles")
        finally:
            gate.set()
        await asyncio.gather(*blocked)
        assert (status, headers["retry-after"], json.loads(body)["title"]) == (503, "1", "busy")
        assert await client.json("articles") == {"articles": [], "next": None}


async def test_a_slow_question_does_not_hold_up_the_loop() -> None:
    """It runs in the store's own thread: probes and metrics answer meanwhile."""
    async with api() as client:
        gate = threading.Event()
        slow = asyncio.create_task(client.feed.ask(gate.wait))
        begun = time.monotonic()
        try:
            assert (await client.text("/healthz"))[0] == 200
            assert (await client.text("/metrics"))[0] == 200
            assert not slow.done()
        finally:
            gate.set()
        await slow
    assert time.monotonic() - begun < 10
