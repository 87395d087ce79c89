"""Shared fixtures: a trained model once a session, and the brokers."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from classifiers.assessor import Assessor
from classifiers.storage import load_shipped
from stream.embedded import EmbeddedBroker

ROOT = Path(__file__).resolve().parent.parent
SEEDS = ROOT / "seeds"
REQUIRED = {f"STANCEWATCH_REQUIRE_{name}" for name in ("KAFKA", "PROMETHEUS", "CHROMIUM")}
pytest.register_assert_rewrite("tests.aging", "tests.stack", "tests.dashboards", "tests.discovering")
KEPT = {"STANCEWATCH_TEXTS", *REQUIRED}
LONGEST_FIRST = ("chaos", "broker", "agents", "browser", "contract")

# How long an example takes, or takes to be made, is no property of what is tested; machines of CI are shared.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_configure() -> None:
    """Keep the developer's own settings out of the tests."""
    for name in [name for name in os.environ if name.startswith("STANCEWATCH_")]:
        if name not in KEPT:
            del os.environ[name]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that none of them is left to one process at the end."""
    places = {folder: place for place, folder in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.parent.name, len(places)))


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
