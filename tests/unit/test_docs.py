"""The README and the help texts are part of the product."""

from __future__ import annotations

import doctest
import importlib
import json
import re
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from stream.cli import app
from tests.conftest import ROOT, SEEDS

README = (ROOT / "README.md").read_text()
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
        figures = [str(by_stance.get(stance, 0)) for stance in ("favor", "against", "neutral", "unclear")]
        assert re.search(rf"^{topic}\s+" + r"\s+".join(figures) + "$", README, re.MULTILINE)
    assert f"published      {expected['published']} in" in README
    assert f"assessed       {expected['assessed']}, of these off topic {expected['off_topic']}" in README


def test_every_path_that_the_readme_links_exists() -> None:
    """Links into the project lead somewhere."""
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_number_of_passages_in_the_readme_is_right() -> None:
    """The training data grows; the text must follow."""
    passages = len((ROOT / "classifiers/data/passages.jsonl").read_text().splitlines())
    assert f"{passages:,} labelled passages" in README


@pytest.mark.parametrize("file", sorted((ROOT / "classifiers").glob("*.py")), ids=lambda file: file.stem)
def test_examples_in_docstrings_run(file: Path) -> None:
    """What a docstring shows is what happens."""
    module = importlib.import_module(f"classifiers.{file.stem}")
    assert doctest.testmod(module).failed == 0
