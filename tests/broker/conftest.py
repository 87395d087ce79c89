"""A real Apache Kafka broker for the session; skips with the reason where it cannot be had."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kafka_server import KafkaServer, running


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """One broker in KRaft mode; required when STANCEWATCH_REQUIRE_KAFKA is set (CI)."""
    with running(KafkaServer(tmp_path_factory.mktemp("kafka"))) as server:
        yield server
