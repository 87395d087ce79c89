"""Rules of Prometheus and routes of Alertmanager: complete, tested by promtool, told to the right people."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from tests.conftest import ROOT
from tests.prometheus_server import MONITORING, RULES, program, required
from tests.unit.test_metrics import full_registry

TESTS = sorted((MONITORING / "prometheus/tests").glob("*.yml"))
CONFIG = MONITORING / "alertmanager/alertmanager.yml"


def rules() -> Iterator[dict[str, Any]]:
    """Every rule that ships."""
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDS = {rule["record"]: rule for rule in rules() if "record" in rule}


def expectations(kind: str) -> Iterator[dict[str, Any]]:
    """What the cases of promtool expect."""
    for path in TESTS:
        for case in yaml.safe_load(path.read_text())["tests"]:
            yield from case.get(kind, [])


def run(*command: object) -> str:
    """Output of a program of Debian's packages; skips where it is missing."""
    with required():
        done = subprocess.run(
            [program(str(command[0])), *map(str, command[1:])], capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_the_cases_of_promtool_hold(path: Any) -> None:
    """Each alert fires, and does not, where the cases say so; recorded figures are those worked by hand."""
    assert "SUCCESS" in run("promtool", "test", "rules", path)


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_has_a_case_that_fires_and_one_that_does_not(name: str) -> None:
    """An alert that was never seen firing may be one that cannot."""
    fired = {
        bool(case["exp_alerts"]) for case in expectations("alert_rule_test") if case["alertname"] == name
    }
    assert fired == {True, False}


@pytest.mark.parametrize("name", RECORDS)
def test_each_recorded_figure_has_a_case(name: str) -> None:
    """Worked by hand."""
    asked = [case["expr"] for case in expectations("promql_expr_test")]
    assert any(re.search(rf"{name}\b", expression) for expression in asked)


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_says_who_what_and_what_to_do(name: str) -> None:
    """Audience and severity, a summary, the figures, a runbook; analysts get the articles."""
    alert = ALERTS[name]
    notes = alert["annotations"]
    assert alert["labels"]["audience"] in {"analyst", "oncall"}
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert notes["summary"].strip()
    assert len(notes["description"]) > len(notes["summary"])
    assert notes["runbook_url"] == f"README.md#on-call-{name.lower()}"
    assert "for" in alert
    if alert["labels"]["audience"] == "analyst":
        assert re.match(
            r"/\?(topic|source)=\{\{ \$labels\.\1 \| urlquery \}\}&window=", notes["articles_url"]
        )


@pytest.mark.parametrize("name", ALERTS)
def test_each_runbook_is_in_the_readme(name: str) -> None:
    """GitHub makes the anchor of ``runbook_url`` from this heading."""
    assert re.search(rf"^#+ On call: {name}$", (ROOT / "README.md").read_text(), re.MULTILINE)


def test_recorded_names_say_level_metric_and_operation() -> None:
    """As in Prometheus' guide; the names are a contract with dashboards."""
    assert RECORDS
    assert [name for name in RECORDS if not re.fullmatch(r"stancewatch:[a-z_]+:[a-z0-9]+", name)] == []


def test_rules_ask_for_what_there_is() -> None:
    """A renamed metric must not leave an alert behind that never fires."""
    asked = " ".join(rule["expr"] for rule in rules())
    page = generate_latest(full_registry()).decode()
    exposed = set(re.findall(r"^(stancewatch_[a-z0-9_]+)", page, re.MULTILINE))
    metrics = set(re.findall(r"\bstancewatch_[a-z0-9_]+", asked))
    assert metrics
    assert metrics <= exposed
    assert set(re.findall(r"\bstancewatch:[a-z_]+:[a-z0-9]+", asked)) <= set(RECORDS)


def test_promtool_and_amtool_accept_the_files() -> None:
    """Syntax, and what the linters know to be wrong."""
    run("promtool", "check", "rules", *RULES)
    assert "SUCCESS" in run("amtool", "check-config", CONFIG)


@pytest.mark.parametrize("name", ALERTS)
def test_alertmanager_routes_by_audience(name: str) -> None:
    """Asked of Alertmanager's own matching."""
    labels = [f"{key}={value}" for key, value in ALERTS[name]["labels"].items()]
    routed = run(
        "amtool", "config", "routes", "test", f"--config.file={CONFIG}", f"alertname={name}", *labels
    )
    audience = ALERTS[name]["labels"]["audience"]
    assert routed.split() == [{"analyst": "analysts", "oncall": "oncall"}[audience]]


def test_what_inhibits_and_is_inhibited_exists() -> None:
    """A renamed alert must not leave a rule that never matches."""
    inhibitions = yaml.safe_load(CONFIG.read_text())["inhibit_rules"]
    matchers = [m for rule in inhibitions for side in ("source", "target") for m in rule[f"{side}_matchers"]]
    named = {name for matcher in matchers for name in re.findall(r"Stancewatch\w+", matcher)}
    assert named
    assert named <= set(ALERTS)
