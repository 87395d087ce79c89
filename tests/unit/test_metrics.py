"""What /metrics shows."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from typing import Any

import pytest
from aiohttp import ClientSession
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from stream.discover_metrics import DiscoverMetrics
from stream.errors import ConfigurationError, Reason
from stream.metrics import REJECTIONS, TOPICS_MAX, Metrics, StateCollector
from stream.tables import Counts, Outcome
from stream.web import WebServer, listen
from tests.conftest import ROOT

HOUR = 480_000
LATEST = HOUR * 3600 + 60.0


def collector(rows: Iterable[tuple[int, str, Counts]], clock: str = "event") -> CollectorRegistry:
    """A registry that shows these rows."""
    registry = CollectorRegistry()
    kept = list(rows)
    registry.register(StateCollector(lambda: kept, ["chips", "cloud"], clock))
    return registry


def test_counts_come_from_the_state_with_zeros_for_what_was_not_seen() -> None:
    """Every topic and stance of the taxonomy is a series from the start."""
    registry = collector([(2, "total", Counts(5, {"cloud": {"favor": 3}}, {"assessed": 3}, LATEST))])
    name = "stancewatch_assessments_total"
    assert registry.get_sample_value(name, {"topic": "cloud", "stance": "favor", "partition": "2"}) == 3
    assert registry.get_sample_value(name, {"topic": "chips", "stance": "against", "partition": "2"}) == 0
    stored = "stancewatch_stored_events_total"
    assert registry.get_sample_value(stored, {"outcome": "assessed", "partition": "2"}) == 3
    assert registry.get_sample_value(stored, {"outcome": "duplicate", "partition": "2"}) == 0


@pytest.mark.parametrize(("window", "expected"), [("1h", 1), ("24h", 2), ("7d", 3)])
def test_windows_count_whole_hours_up_to_the_latest_event(window: str, expected: int) -> None:
    """The running hour belongs to each window; an hour after its start does not."""
    rows = [(0, "total", Counts(9, {}, {}, LATEST))]
    rows += [(0, str(HOUR - back), Counts(1, {"cloud": {"favor": 1}})) for back in (0, 23, 167, 168)]
    value = collector(rows).get_sample_value(
        "stancewatch_window_assessments",
        {"topic": "cloud", "stance": "favor", "window": window, "partition": "0"},
    )
    assert value == expected


def test_windows_by_the_wall_clock_let_old_events_go() -> None:
    """In production an hour without news shows as zero."""
    now = int(time.time() // 3600)
    rows = [(0, "total", Counts(9, {}, {}, LATEST)), (0, str(now - 2), Counts(1, {"cloud": {"favor": 4}}))]
    registry = collector(rows, clock="wall")
    labels = {"topic": "cloud", "stance": "favor", "partition": "0"}
    name = "stancewatch_window_assessments"
    assert registry.get_sample_value(name, {**labels, "window": "1h"}) == 0
    assert registry.get_sample_value(name, {**labels, "window": "24h"}) == 4


def test_topics_beyond_the_cap_share_one_slot() -> None:
    """500 topics in the state do not become 500 series; nothing is lost from the sum."""
    votes = {f"t{number:03}": {"favor": 1} for number in range(500)}
    registry = collector([(0, "total", Counts(0, votes))])
    samples = [s for f in registry.collect() if f.name == "stancewatch_assessments" for s in f.samples]
    assert len({sample.labels["topic"] for sample in samples}) == TOPICS_MAX + 1
    assert sum(sample.value for sample in samples) == 500
    assert registry.get_sample_value("stancewatch_other_topics") == 500 + 2 - TOPICS_MAX


def full_registry() -> CollectorRegistry:
    """Everything that a worker shows."""
    registry = CollectorRegistry()
    metrics = Metrics.create(registry, model={"name": "m", "sha256": "0"}, topics=["cloud"])
    metrics.source_last_event.labels("Wire").set(LATEST)
    metrics.event_age.observe(3, {"event_id": "a"})
    metrics.lag.labels("news.events", "0").set(1)
    rows = [(0, "total", Counts(1, {}, {}, LATEST)), (0, str(HOUR), Counts(1, {"cloud": {"favor": 1}}))]
    registry.register(StateCollector(lambda: rows, ["cloud"], "event"))
    return registry


def test_closed_label_sets_exist_from_the_start() -> None:
    """A missing series means a fault, not that nothing has happened yet."""
    registry = CollectorRegistry()
    Metrics.create(registry, model={"name": "m"})
    for outcome in Outcome:
        assert registry.get_sample_value("stancewatch_events_total", {"outcome": outcome}) == 0
    for reason, stage in REJECTIONS.items():
        labels = {"reason": reason.value, "stage": stage.value}
        assert registry.get_sample_value("stancewatch_dead_letters_total", labels) == 0


def test_every_reason_has_a_stage() -> None:
    """The closed set of reasons is complete."""
    assert set(REJECTIONS) == set(Reason)


def test_openmetrics_parses_and_carries_the_event_id_as_exemplar() -> None:
    """The strict parser of the client library accepts the page."""
    page = generate_openmetrics(full_registry()).decode()  # type: ignore[no-untyped-call]
    families = list(text_string_to_metric_families(page))  # type: ignore[no-untyped-call]
    exemplars = [s.exemplar for f in families for s in f.samples if s.exemplar]
    assert [exemplar.labels for exemplar in exemplars] == [{"event_id": "a"}]


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool (Debian's prometheus) is not installed"
)
def test_promtool_finds_nothing_to_say() -> None:
    """Names, help texts and units follow the conventions."""
    check = subprocess.run(
        ["promtool", "check", "metrics"],
        input=generate_latest(full_registry()),
        capture_output=True,
        check=False,
    )
    assert (check.returncode, check.stdout + check.stderr) == (0, b"")


def test_every_metric_of_the_dashboards_exists() -> None:
    """A renamed metric must not leave an empty panel behind."""
    shown = {
        name
        for file in (ROOT / "monitoring").rglob("*.json")
        for name in re.findall(r"stancewatch_[a-z0-9_]+", _expressions(json.loads(file.read_text())))
    }
    exposed = set(
        re.findall(r"^(stancewatch_[a-z0-9_]+)", generate_latest(full_registry()).decode(), re.MULTILINE)
    )
    discover = CollectorRegistry()
    DiscoverMetrics(discover, slots=1)
    exposed |= {family.name for family in discover.collect()}
    assert shown
    assert shown <= exposed


def _expressions(node: Any) -> str:
    if isinstance(node, dict):
        return " ".join(
            v if k in {"expr", "query"} and isinstance(v, str) else _expressions(v) for k, v in node.items()
        )
    return " ".join(map(_expressions, node)) if isinstance(node, list) else ""


@pytest.fixture
async def server() -> Any:
    """A server that is not ready at first."""
    state = {"reason": "recovering"}
    web = WebServer(full_registry(), lambda: state["reason"], listen("127.0.0.1", 0))
    await web.start()
    yield web, state
    await web.stop()


async def test_the_format_is_negotiated(server: Any) -> None:
    """Prometheus asks for OpenMetrics and gets it; a browser gets plain text."""
    async with ClientSession() as session:
        plain = await session.get(f"{server[0].address}/metrics")
        assert plain.headers["Content-Type"].startswith("text/plain")
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        rich = await session.get(f"{server[0].address}/metrics", headers=accept)
        assert rich.headers["Content-Type"].startswith("application/openmetrics-text")
        assert (await rich.text()).endswith("# EOF\n")


async def test_probes_tell_alive_from_ready(server: Any) -> None:
    """Alive at once; ready only without a reason not to be."""
    web, state = server
    async with ClientSession() as session:
        assert (await session.get(f"{web.address}/healthz")).status == 200
        waiting = await session.get(f"{web.address}/readyz")
        assert (waiting.status, await waiting.text()) == (503, "recovering\n")
        state["reason"] = ""
        assert (await session.get(f"{web.address}/readyz")).status == 200


async def test_nothing_else_is_served_and_nothing_can_be_written(server: Any) -> None:
    """The surface is what is documented."""
    async with ClientSession() as session:
        assert (await session.get(f"{server[0].address}/")).status == 404
        assert (await session.post(f"{server[0].address}/metrics")).status == 405


def test_a_taken_port_is_told_with_the_setting() -> None:
    """The message names address and remedy."""
    with listen("127.0.0.1", 0) as taken, pytest.raises(ConfigurationError, match="STANCEWATCH_METRICS_PORT"):
        listen("127.0.0.1", taken.getsockname()[1])
