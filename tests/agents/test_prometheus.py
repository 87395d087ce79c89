"""Real Prometheus and Alertmanager beside a worker: rules answer, totals are exact, an alert arrives."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stream.embedded import EmbeddedBroker, WorkerProcess, free_port
from stream.history import History, write_openmetrics
from stream.settings import Settings
from stream.sources import read_paths
from tests.conftest import SEEDS
from tests.prometheus_server import (
    AlertmanagerServer,
    PrometheusServer,
    WebhookReceiver,
    blocks_of,
    required,
    running,
    shipped_alertmanager_config,
    shipped_config,
    shortened_rules,
)
from tests.stack import Votes, handled, publish, settings_for, wait_until, worker
from tests.unit.test_rules import ALERTS, RECORDS

pytestmark = pytest.mark.embedded

EXPECTED = json.loads((SEEDS / "expected_counts.json").read_text())
NOT_ON_THE_EMBEDDED_BROKER = {"stancewatch:consumer_lag_records:sum"}
"""Its log ends are not reliable, so the worker shows no lag there."""


@dataclass
class Stack:
    """What runs."""

    settings: Settings
    worker: WorkerProcess
    prometheus: PrometheusServer
    alertmanager: AlertmanagerServer
    receiver: WebhookReceiver


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The seeds are replayed while Prometheus scrapes."""
    folder = tmp_path_factory.mktemp("prometheus")
    with (
        WebhookReceiver() as receiver,
        running(
            AlertmanagerServer(folder / "alertmanager", shipped_alertmanager_config(receiver.address))
        ) as alertmanager,
        EmbeddedBroker(folder) as broker,
        worker(
            folder / "worker",
            broker.address,
            embedded="true",
            session_timeout_seconds=2,
            commit_interval_seconds=0.3,
            window_clock="event",
        ) as process,
    ):
        settings = settings_for(broker.address, embedded=True)
        process.wait_until_ready()
        config = shipped_config(
            f"127.0.0.1:{process.port}",
            rules=shortened_rules(folder / "rules"),
            alertmanager=alertmanager.address,
        )
        with running(PrometheusServer(folder / "prometheus", config)) as prometheus:
            wait_until(
                lambda: bool(prometheus.query("stancewatch_ready == 1")), "the worker is scraped", process
            )
            asyncio.run(publish(settings, read_paths([SEEDS])))
            wait_until(lambda: handled(process) == EXPECTED["published"], "all handled", process)
            seen = f"sum(stancewatch_events_total) == {EXPECTED['published']}"
            wait_until(lambda: bool(prometheus.query(seen)), "all handled, as Prometheus sees it", process)
            yield Stack(settings, process, prometheus, alertmanager, receiver)


def counted(prometheus: PrometheusServer, query: str) -> Votes:
    """Votes by topic and stance, zeros left out."""
    found: Votes = {}
    for labels, value in prometheus.query(query):
        if value:
            found.setdefault(labels["topic"], {})[labels["stance"]] = int(value)
    return found


def told(stack: Stack, query: str) -> list[Any]:
    """Samples of a query that has some: a scrape that was missed leaves a moment without any."""
    found: list[Any] = []

    def has_samples() -> bool:
        found[:] = stack.prometheus.query(query)
        return bool(found)

    wait_until(has_samples, query, stack.worker)
    return found


def test_the_recorded_totals_are_those_of_the_seeds(stack: Stack) -> None:
    """What a dashboard shows is what was counted."""
    query = "stancewatch:assessments:sum"
    wait_until(lambda: counted(stack.prometheus, query) == EXPECTED["counts"], query, stack.worker)
    stored = {
        sample.labels["outcome"]: sample.value for sample in told(stack, "stancewatch:stored_events:sum")
    }
    assert stored.pop("dead_letter") >= EXPECTED["dead_lettered"]  # another test sends more of them
    assert sum(stored.values()) == EXPECTED["published"] - EXPECTED["dead_lettered"]
    assert stored["duplicate"] == EXPECTED["duplicates"]


def test_every_rule_answers_and_every_recorded_figure_has_data(stack: Stack) -> None:
    """Each is evaluated by Prometheus without an error, and asked once more as a query."""
    prometheus = stack.prometheus
    wait_until(lambda: {rule["health"] for rule in prometheus.rules()} == {"ok"}, "all rules evaluated")
    rules = prometheus.rules()
    assert len(rules) == len(ALERTS) + len(RECORDS)
    for rule in rules:
        prometheus.query(rule["query"])  # an error of the server fails the test
    recorded = set(RECORDS) - NOT_ON_THE_EMBEDDED_BROKER
    wait_until(lambda: all(map(prometheus.query, recorded)), "every recorded figure has data", stack.worker)


def test_what_the_worker_measures_is_scraped(stack: Stack) -> None:
    """The state on disk, the time of each stage, the rebalance at the start, languages and sources."""
    ask = stack.prometheus.query
    # Events are counted before their batch is confirmed; a scrape in between has not seen it end.
    timed = {"decode", "judge", "classify", "emit", "count", "confirm"}
    wait_until(
        lambda: {sample.labels["stage"] for sample in ask("stancewatch_stage_seconds_sum > 0")} == timed,
        "every stage was timed",
        stack.worker,
    )
    wait_until(
        lambda: [sample.value for sample in ask("stancewatch_commit_age_seconds")] == [0],
        "everything committed",
        stack.worker,
    )
    assert told(stack, "stancewatch_rebalances_total")[0].value >= 1
    assert told(stack, "stancewatch_rebalance_seconds_count > 0 and stancewatch_rebalance_seconds_sum > 0")
    wait_until(
        lambda: len(ask("stancewatch_state_bytes > 0")) == 2,
        "RocksDB files are seen",
        stack.worker,
        seconds=45,
    )
    read_or_retracted = (
        'sum(stancewatch_languages_total) + sum(stancewatch_events_total{outcome="retracted"})'
    )
    assert told(stack, read_or_retracted)[0].value == EXPECTED["assessed"]
    assert len(told(stack, "stancewatch_source_last_event_timestamp_seconds > 0")) > 50
    assert told(stack, "stancewatch_other_topics")[0].value == 0


def test_exemplars_lead_to_events(stack: Stack) -> None:
    """Prometheus keeps the event id beside an age and beside the time of a batch."""
    for metric in ("stancewatch_event_age_seconds_bucket", "stancewatch_classify_seconds_bucket"):
        data = stack.prometheus.get("/api/v1/query_exemplars", query=metric, start="0", end="4e9")["data"]
        labels = [exemplar["labels"] for series in data for exemplar in series["exemplars"]]
        assert labels, metric
        assert all(label["event_id"] for label in labels)


def test_dead_letters_are_told_to_on_call(stack: Stack) -> None:
    """Worker, Prometheus, Alertmanager, webhook: the alert arrives, with its figures and its runbook."""
    bad = [(b"bad-%d" % number, b"{") for number in range(12)]
    asyncio.run(publish(stack.settings, bad))
    name = "StancewatchDeadLetters"
    wait_until(
        lambda: bool(stack.receiver.alerts("/oncall", name)),
        "the webhook is called",
        stack.worker,
        seconds=90,
    )
    alert = stack.receiver.alerts("/oncall", name)[0]
    assert alert["status"] == "firing"
    assert alert["labels"] | {"audience": "oncall", "severity": "warning"} == alert["labels"]
    assert "invalid_json (stage decode)" in alert["annotations"]["description"]
    assert alert["annotations"]["runbook_url"] == "README.md#on-call-stancewatchdeadletters"
    assert stack.receiver.alerts("/analysts", name) == []


def test_an_export_in_the_middle_of_an_hour_leaves_room_for_scraping(tmp_path: Path) -> None:
    """Prometheus refuses what is older than its newest block, so that must not end later than now."""
    hour = int(time.time() // 3600)
    votes = {when: Counter({("cloud", "favor"): 1}) for when in (hour - 1, hour)}
    file = tmp_path / "history.om"
    with file.open("w") as into:
        assert write_openmetrics(History(votes), into)
    with required():
        blocks_of(file, tmp_path / "data")
    # `up` is recorded of a target that is down, too.
    config = shipped_config(f"127.0.0.1:{free_port()}", rules=[])
    with running(PrometheusServer(tmp_path, config)) as prometheus:
        wait_until(lambda: bool(prometheus.query("up")), "a scrape is recorded", prometheus, seconds=10)
        (told,) = prometheus.query("stancewatch:assessments:sum > 0", at=hour * 3600)
        assert told.value == 1
