"""Who may import whom, and what is imported when."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def imported(file: Path) -> set[str]:
    """Top-level names of all packages that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("file", sorted((ROOT / "classifiers").rglob("*.py")), ids=lambda file: file.name)
def test_classifiers_know_no_stream(file: Path) -> None:
    """The classifiers can be used without Kafka, Faust or Prometheus."""
    forbidden = {"stream", "faust", "mode", "aiokafka", "prometheus_client", "aiohttp"}
    assert not imported(file) & forbidden


def test_help_loads_no_heavy_package() -> None:
    """The start of a command must not wait for what it does not use."""
    code = "import sys, stream.cli; print(*sorted(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert not {"sklearn", "scipy", "faust", "aiokafka", "numpy"} & set(loaded.stdout.split())


def test_no_module_is_longer_than_it_should_be() -> None:
    """STYLE: reasons are needed past 400 lines."""
    lengths = {
        str(file.relative_to(ROOT)): len(file.read_text().splitlines())
        for folder in ("stream", "classifiers")
        for file in (ROOT / folder).rglob("*.py")
    }
    assert {name: length for name, length in lengths.items() if length > 420} == {}
