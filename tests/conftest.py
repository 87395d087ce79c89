"""Shared fixtures: a trained model once a session, and the brokers."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from classifiers.assessor import Assessor
from classifiers.storage import load_shipped
from stream.embedded import EmbeddedBroker

ROOT = Path(__file__).resolve().parent.parent
SEEDS = ROOT / "seeds"
REQUIRED = {f"STANCEWATCH_REQUIRE_{name}" for name in ("KAFKA", "PROMETHEUS", "CHROMIUM")}
pytest.register_assert_rewrite("tests.aging", "tests.stack", "tests.dashboards", "tests.discovering")
KEPT = {"STANCEWATCH_TEXTS", *REQUIRED}


def pytest_configure() -> None:
    """Keep the developer's own settings out of the tests."""
    for name in [name for name in os.environ if name.startswith("STANCEWATCH_")]:
        if name not in KEPT:
            del os.environ[name]


@pytest.fixture(scope="session")
def assessor() -> Assessor:
    """The model that the command line uses."""
    return load_shipped()


@pytest.fixture
def embedded_broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    """A fresh embedded broker."""
    with EmbeddedBroker(tmp_path) as broker:
        yield broker


@pytest.fixture
def names() -> dict[str, str]:
    """Topic prefix and group of one test, so that tests share the broker and nothing else."""
    token = uuid.uuid4().hex[:8]
    return {"topic_prefix": f"{token}.", "group": f"group-{token}"}
