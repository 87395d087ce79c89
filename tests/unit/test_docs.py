"""The README and the help texts are part of the product."""

from __future__ import annotations

import doctest
import importlib
import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from classifiers.assessor import Assessor
from stream.cli import app
from stream.schema import decode_event
from stream.sources import read_paths
from tests.conftest import ROOT, SEEDS
from tests.stack import expected_votes

README = (ROOT / "README.md").read_text()
STANCES = ("favor", "against", "neutral", "unclear")
COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented_and_has_an_example(name: str) -> None:
    """In the README's table, and with an example in its own help."""
    assert f"stancewatch {name}" in README
    shown = CliRunner().invoke(app, [name, "--help"])
    assert shown.exit_code == 0
    assert "Example: " in shown.output


def test_the_counts_in_the_readme_are_those_of_the_seeds() -> None:
    """Pasted output must not drift from what the command prints."""
    expected = json.loads((SEEDS / "expected_counts.json").read_text())
    for topic, by_stance in expected["counts"].items():
        figures = [str(by_stance.get(stance, 0)) for stance in STANCES]
        assert re.search(rf"^{topic}\s+" + r"\s+".join(figures) + "$", README, re.MULTILINE)
    assert f"published      {expected['published']} in" in README
    assert f"assessed       {expected['assessed']}, of these off topic {expected['off_topic']}" in README


def test_the_answers_of_the_api_in_the_readme_are_those_of_the_seeds(assessor: Assessor) -> None:
    """Those of the model that ships: its name, what it says of the article, the counts of two weeks."""
    records = read_paths([SEEDS])
    shown = json.loads(re.findall(r'^{"articles":.*$', README, re.MULTILINE)[0])["articles"][0]
    found = next(record for record in records if record.event_id == shown["event_id"])
    event = decode_event(found.value, now=datetime.now(UTC))
    (decisions,) = assessor.assess([(event.title, event.text)])
    (decision,) = [decision for decision in decisions if decision.topic == shown["topic"]]
    assert (shown["model"], shown["stance"]) == (assessor.name, decision.stance)
    assert shown["probability"] == pytest.approx(decision.probability, abs=1e-4)
    assert shown["stance_probability"] == pytest.approx(decision.stance_probability, abs=1e-4)
    assert [sentence["text"] for sentence in shown["evidence"]] == [one.text for one in decision.evidence]

    counts = json.loads(re.findall(r'^{"favor":.*$', README, re.MULTILINE)[0])
    times = [record.published_at for record in records if record.published_at]
    end = max(times).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    for figures, until in ((counts, end), (counts["previous"], end - timedelta(days=7))):
        within = [
            record
            for record in records
            if record.published_at and until - timedelta(days=7) <= record.published_at < until
        ]
        votes = expected_votes(within, assessor)[counts["topic"]]
        assert votes == {stance: figures[stance] for stance in STANCES if figures[stance]}
        sided = figures["favor"] + figures["against"]
        assert figures["net_stance"] == round((figures["favor"] - figures["against"]) / sided, 4)


def test_every_path_that_the_readme_links_exists() -> None:
    """Links into the project lead somewhere."""
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_number_of_passages_in_the_readme_is_right() -> None:
    """The training data grows; the text must follow."""
    passages = len((ROOT / "classifiers/data/passages.jsonl").read_text().splitlines())
    assert f"{passages:,} labelled passages" in README


MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for package in ("classifiers", "stream")
    for file in (ROOT / package).rglob("*.py")
    if ">>> " in file.read_text()
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str) -> None:
    """What a docstring shows is what happens."""
    tried = doctest.testmod(importlib.import_module(name))
    assert tried.attempted
    assert tried.failed == 0


def test_examples_are_looked_for_in_packages_too() -> None:
    """Those of discovery were once passed over."""
    assert {"classifiers.stance", "classifiers.discovery.window"} <= set(MODULES)
