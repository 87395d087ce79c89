"""Every query of every dashboard, on a real Prometheus and a real API, while seeds are replayed."""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from classifiers.assessor import Assessor
from stream.embedded import EmbeddedBroker, _Child, free_port
from stream.sources import Record, read_paths
from tests.conftest import SEEDS
from tests.dashboards import API, Query, Value, address, all_queries, filled, table
from tests.prometheus_server import PrometheusServer, blocks_of, required, shipped_config
from tests.stack import handled, publish, settings_for, wait_until, worker

pytestmark = pytest.mark.embedded

EXPECTED = json.loads((SEEDS / "expected_counts.json").read_text())
COUNTS = EXPECTED["counts"]
ALL_TOPICS = sorted(COUNTS)
STANCES = ["favor", "against", "neutral", "unclear"]
WEEK = 7 * 86400
QUICK = {"embedded": "true", "session_timeout_seconds": 2, "commit_interval_seconds": 0.3}

# Queries that may bring nothing, and why. Everything else must bring data.
MAY_BE_EMPTY = {
    ("topics-and-stance", "Documents of emerging topics"): "`stancewatch discover` does not run here",
    ("topics-and-stance", "Emerging topics now"): "`stancewatch discover` does not run here",
    ("topics-and-stance", "Emerging topics by signal"): "`stancewatch discover` does not run here",
    ("topics-and-stance", "Firing alerts"): "nothing is alarming",
    ("pipeline", "Events waiting"): "the embedded broker does not tell the lag",
    ("pipeline", "Events waiting by partition"): "the embedded broker does not tell the lag",
    ("topics-and-stance", "annotation Alerts"): "nothing is alarming",
    ("articles", "annotation Alerts"): "nothing is alarming",
    ("pipeline", "annotation Alerts"): "nothing is alarming",
    ("model", "annotation Alerts"): "nothing is alarming",
}


@dataclass
class Stack:
    """What runs: two workers, the API in one process, Prometheus with the shipped rules."""

    prometheus: PrometheusServer
    api: str
    started: float

    def values(self, **chosen: Value) -> dict[str, Value]:
        """Grafana's variables: everything chosen, unless told otherwise."""
        now = time.time()
        return {
            "topic": ALL_TOPICS,
            "stance": STANCES,
            "window": "7d",
            "source": "",
            "event_id": "",
            "__rate_interval": "30s",
            "__range": "10m",
            "__from": "2020-01-01T00:00:00.000Z",
            "__to": datetime.fromtimestamp(now, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            **chosen,
        }

    def run(self, query: Query, **chosen: Value) -> list[Any]:
        """What a query brings: series of Prometheus, or rows of the API."""
        values, target = self.values(**chosen), query.target
        if query.source == API:
            return table(target, self.ask(address(target, values)))
        if "query" in target:
            return self._label_values(target["query"])
        expression = filled(target["expr"], values, default="regex")
        if target.get("instant"):
            return list(self.prometheus.query(expression))
        now = time.time()
        step = {"1h": 3600, "60s": 60}.get(target.get("interval") or target.get("step") or "", 5)
        span = 3 * 3600 if step == 3600 else now - self.started + 60
        first = now - math.ceil(span / step) * step  # the last point is now
        found: list[Any] = self.prometheus.get(
            "/api/v1/query_range", query=expression, start=str(first), end=str(now), step=str(step)
        )["data"]["result"]
        return found

    def _label_values(self, query: str) -> list[Any]:
        metric, label = query.removeprefix("label_values(").removesuffix(")").split(", ")
        path = f"/api/v1/label/{label}/values"
        found: list[Any] = self.prometheus.get(path, **{"match[]": metric})["data"]
        return found

    def ask(self, path: str) -> Any:
        """The JSON of the API; an HTTP error is an error."""
        with urllib.request.urlopen(f"{self.api}{path}", timeout=20) as answer:  # noqa: S310 - our own server
            return json.load(answer)


def brought_forward(records: Sequence[Record]) -> list[Record]:
    """The same articles as if the newest had come out in this hour; whole hours, so what is late stays so."""
    newest = max(record.published_at for record in records if record.published_at is not None)
    hours = timedelta(hours=time.time() // 3600 - newest.timestamp() // 3600)
    moved = []
    for record in records:
        if record.published_at is None:
            moved.append(record)
            continue
        value = json.loads(record.value) | {"published_at": (record.published_at + hours).isoformat()}
        moved.append(replace(record, value=json.dumps(value).encode()))
    return moved


def before(folder: Path) -> None:
    """Put what the rules recorded a week ago into Prometheus's data: ten articles a topic, net stance 0.5."""
    now = int(time.time())
    lines = []
    for name, labels, value in (
        ("stancewatch:window_topic:sum", 'topic="{}",window="7d"', 10),
        ("stancewatch:window_net_stance:ratio", 'topic="{}",window="7d"', 0.5),
    ):
        lines.append(f"# TYPE {name} gauge")
        lines += [
            f"{name}{{{labels.format(topic)}}} {value} {moment}"
            for topic in ALL_TOPICS
            for moment in range(now - WEEK - 600, now - WEEK + 600, 60)
        ]
    file = folder / "before.txt"
    file.write_text("\n".join([*lines, "# EOF", ""]))
    blocks_of(file, folder / "data")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Half of the seeds before Prometheus looks, half while it does: rates have something to show."""
    folder = tmp_path_factory.mktemp("dashboards")
    records = brought_forward(read_paths([SEEDS]))
    rejected = min(place for place, record in enumerate(records) if not record.event_id)
    half = min(len(records) // 2, rejected)
    with ExitStack() as running_now, required():
        prometheus_folder = folder / "prometheus"
        prometheus_folder.mkdir()
        before(prometheus_folder)
        broker = running_now.enter_context(EmbeddedBroker(folder))
        settings = settings_for(broker.address)
        asyncio.run(publish(settings, records[:half]))
        workers = [
            running_now.enter_context(worker(folder / name, broker.address, page="false", **QUICK))
            for name in ("one", "two")
        ]
        port = free_port()
        serve = _Child(
            [sys.executable, "-m", "stream.cli", "serve", "--port", str(port), "--broker", broker.address],
            {"STANCEWATCH_STORE": "memory"},
            folder / "serve.log",
        )
        running_now.callback(serve.process.wait, 10)
        running_now.callback(serve.process.terminate)
        for process in workers:
            process.keep_nothing = True
            process.wait_until_ready()
        wait_until(lambda: handled(*workers) == half, "first half", *workers)
        targets = [f"127.0.0.1:{process.port}" for process in workers]
        prometheus = PrometheusServer(prometheus_folder, shipped_config(*targets))
        started = time.time()
        running_now.enter_context(prometheus)
        found = Stack(prometheus, f"http://127.0.0.1:{port}", started)
        total = "sum(stancewatch:stored_events:sum)"
        wait_until(lambda: values(prometheus, total) == [half], "Prometheus saw the first half")
        asyncio.run(publish(settings, records[half:]))
        wait_until(lambda: values(prometheus, total) == [len(records)], "and the second", *workers)
        rate = "sum(rate(stancewatch_stance_probability_count[30s]))"
        wait_until(lambda: values(prometheus, rate) > [0], "a rate of the second half")
        articles = "/api/v1/articles?window=all&limit=500"
        pairs = sum(sum(by_stance.values()) for by_stance in COUNTS.values())
        wait_until(lambda: len(found.ask(articles)["articles"]) == pairs, "the API has read everything")
        yield found


def values(prometheus: PrometheusServer, expression: str) -> list[float]:
    """The values of an instant query."""
    return [sample.value for sample in prometheus.query(expression)]


def query_of(dashboard: str, place: str, ref_id: str = "A") -> Query:
    """One query by its place."""
    (found,) = [
        query
        for query in all_queries()
        if (query.dashboard, query.place, query.target.get("refId")) == (dashboard, place, ref_id)
    ]
    return found


CHOICES: Sequence[dict[str, Value]] = (
    {},
    {"topic": ["cloud"], "stance": ["against"], "window": "24h"},
    {"topic": ["export_controls"], "window": "1h"},
)


class TestEveryQuery:
    """Nothing that a user may click gives an error, and nothing is empty without a reason."""

    @pytest.mark.parametrize("query", all_queries(), ids=str)
    def test_brings_data(self, stack: Stack, query: Query) -> None:
        """With everything chosen each query brings data, but for the few listed above."""
        found = stack.run(query)
        if (query.dashboard, query.place) not in MAY_BE_EMPTY:
            assert found, query.target

    @pytest.mark.parametrize("chosen", CHOICES[1:], ids=str)
    def test_understands_other_choices(self, stack: Stack, chosen: dict[str, Value]) -> None:
        """With one topic, stance and window chosen no query is an error."""
        for query in all_queries():
            stack.run(query, **chosen)

    def test_exemplars_lead_to_articles(self, stack: Stack) -> None:
        """Queries that show exemplars find events, and the API knows their articles."""
        shown = [query for query in all_queries() if query.target.get("exemplar")]
        assert len(shown) == 2
        for query in shown:
            expression = filled(query.target["expr"], stack.values(), default="regex")
            found = stack.prometheus.get(
                "/api/v1/query_exemplars", query=expression, start=str(stack.started), end=str(time.time())
            )["data"]
            events = {item["labels"]["event_id"] for series in found for item in series["exemplars"]}
            assert events
            on_topic = query_of("articles", "Articles in the window")
            known = {row["event"] for row in stack.run(on_topic, window="all")}
            assert events & known

    def test_reasons_are_of_queries_that_exist(self) -> None:
        """The list of what may be empty names nothing that has gone."""
        assert set(MAY_BE_EMPTY) <= {(query.dashboard, query.place) for query in all_queries()}


class TestKnownValues:
    """Chosen queries show the figures of seeds/expected_counts.json."""

    def test_totals(self, stack: Stack) -> None:
        """The number on the drill-down is the exact count, for everything and for one choice."""
        number = query_of("articles", "Articles counted")
        (total,) = stack.run(number, window="all")
        assert total.value == sum(sum(counts.values()) for counts in COUNTS.values())
        (one,) = stack.run(number, window="all", topic=["cloud"], stance=["against"])
        assert one.value == COUNTS["cloud"]["against"]

    @pytest.mark.parametrize("window", ["1h", "24h", "7d"])
    def test_counts_agree_with_articles(self, stack: Stack, window: str) -> None:
        """In each window: the number, the table of what it is made of, and the articles listed."""

        def agree() -> bool:
            (number,) = stack.run(query_of("articles", "Articles counted"), window=window)
            made_of = stack.run(query_of("articles", "What it is made of"), window=window)
            listed = stack.run(query_of("articles", "Articles in the window"), window=window)
            return bool(number.value == sum(row["articles"] for row in made_of) == len(listed) > 0)

        wait_until(agree, f"the same figure thrice for {window}", seconds=10)  # an hour may just end

    def test_volume_and_net_stance(self, stack: Stack) -> None:
        """The newest points of the main panels are the counts of the window, topic by topic."""
        expected = {
            row["topic"]: row for row in stack.ask("/api/v1/counts?window=7d")["topics"] if row["total"]
        }
        assert set(expected) == set(ALL_TOPICS)
        volume = {
            series["metric"]["topic"]: float(series["values"][-1][1])
            for series in stack.run(query_of("topics-and-stance", "Articles by topic"))
        }
        assert volume == {topic: row["total"] for topic, row in expected.items()}
        net = {
            series["metric"]["topic"]: float(series["values"][-1][1])
            for series in stack.run(query_of("topics-and-stance", "Net stance by topic"))
        }
        # The API rounds to four places.
        assert net == pytest.approx({topic: row["net_stance"] for topic, row in expected.items()}, abs=1e-4)

    def test_change_against_the_week_before(self, stack: Stack) -> None:
        """Against ten articles and net stance 0.5 a week ago."""
        panel = "Change against the week before"
        now = {row.labels["topic"]: row.value for row in stack.run(query_of("topics-and-stance", panel))}
        change = stack.run(query_of("topics-and-stance", panel, "C"))
        assert {row.labels["topic"]: row.value for row in change} == pytest.approx(
            {topic: (count - 10) / 10 for topic, count in now.items()}
        )
        moved = stack.run(query_of("topics-and-stance", panel, "D"))
        counts = stack.ask("/api/v1/counts?window=7d")["topics"]
        assert {row.labels["topic"]: row.value for row in moved} == pytest.approx(
            {row["topic"]: row["net_stance"] - 0.5 for row in counts if row["total"]}, abs=1e-4
        )

    def test_shares(self, stack: Stack) -> None:
        """Shares over time end at 1 in all."""
        found = stack.run(query_of("topics-and-stance", "Stance shares over time, window of $window"))
        assert {series["metric"]["stance"] for series in found} == set(STANCES)
        assert math.fsum(float(series["values"][-1][1]) for series in found) == pytest.approx(1)

    def test_outcomes(self, stack: Stack) -> None:
        """The pipeline's records by outcome are those of the replay."""
        found = {
            row.labels["outcome"]: row.value
            for row in stack.run(query_of("pipeline", "All records by outcome"))
        }
        assert sum(found.values()) == EXPECTED["published"]
        assert (found["dead_letter"], found["duplicate"], found["off_topic"]) == (
            EXPECTED["dead_lettered"],
            EXPECTED["duplicates"],
            EXPECTED["off_topic"],
        )
        (rejected,) = stack.run(query_of("pipeline", "Rejected by reason, time range"))
        assert rejected.labels["reason"] == "invalid_json"
        (ready,) = stack.run(query_of("pipeline", "Workers ready"))
        assert ready.value == 2

    def test_latencies_are_numbers(self, stack: Stack) -> None:
        """Quantiles and means of what was just handled are seconds, not NaN."""

        def is_shown(place: str) -> bool:
            found = stack.run(query_of("pipeline", place, "B"))
            return any(0 < float(value) < 60 for _, value in found[0]["values"])

        # Events are counted before their batch ends, and a rate needs a scrape behind that.
        for place in ("Time of a batch", "Time to classify a batch"):
            wait_until(partial(is_shown, place), place)

    def test_articles(self, stack: Stack) -> None:
        """Rows have everything that the table shows, and the filters hold."""
        listed = query_of("articles", "Articles in the window")
        rows = stack.run(listed, window="all", topic=["cloud"], stance=["against"])
        assert len(rows) == COUNTS["cloud"]["against"]
        assert {(row["topic"], row["stance"]) for row in rows} == {("cloud", "against")}
        for row in rows:
            assert all(row[column] for column in ("published", "evidence", "title", "sure", "event")), row
        source = next(row["source"] for row in rows if row["source"])
        only = stack.run(listed, window="all", source=source)
        assert {row["source"] for row in only} == {source}
        event = rows[0]["event"]
        assert {row["event"] for row in stack.run(listed, window="all", event_id=event)} == {event}

    def test_trend_and_sources(self, stack: Stack) -> None:
        """Hours of publication and sources add up to the articles."""
        hours = stack.run(query_of("articles", "When they were published"), window="7d")
        listed = stack.run(query_of("articles", "Articles in the window"), window="7d")
        assert sum(row[stance] for row in hours for stance in STANCES) == len(listed)
        sources = stack.run(query_of("articles", "Sources"), window="7d")
        assert sum(row["articles"] for row in sources) == len({row["event"] for row in listed})

    def test_topics_to_choose(self, stack: Stack) -> None:
        """The topic variable offers the taxonomy."""
        (variable,) = [
            query
            for query in all_queries()
            if (query.dashboard, query.place) == ("topics-and-stance", "variable topic")
        ]
        assert stack.run(variable) == ALL_TOPICS

    def test_model(self, stack: Stack, assessor: Assessor) -> None:
        """What training measured is shown (nothing for a model without it), and the model is named."""
        (unclear,) = stack.run(query_of("model", "Unclear share by topic against expected", "B"))
        expected = assessor.expected.unclear if assessor.expected else math.nan
        assert float(unclear["values"][-1][1]) == pytest.approx(expected, nan_ok=True)
        found = stack.run(query_of("model", "Models that decide"))
        assert {row.labels["sha256"] for row in found} == {assessor.content_hash}
        assert len(found) == 2
