"""A cluster of three brokers for the session; skips with the reason where it cannot be had."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos.harness import CLUSTER, Chaos
from tests.kafka_server import KafkaCluster, running

SEED = 20240916


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """Three brokers; required when STANCEWATCH_REQUIRE_KAFKA is set (CI)."""
    with running(KafkaCluster(tmp_path_factory.mktemp("cluster"), properties=CLUSTER)) as brokers:
        yield brokers


@pytest.fixture
def chaos(cluster: KafkaCluster, names: dict[str, str], tmp_path: Path) -> Callable[..., Chaos]:
    """Makes the harness of a test, with topics and group of its own."""

    def make(**options: object) -> Chaos:
        return Chaos(cluster, tmp_path, names, SEED, **options)  # type: ignore[arg-type]

    return make
