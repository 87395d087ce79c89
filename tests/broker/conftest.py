"""A real Apache Kafka broker for the session; skips with the reason where it cannot be had."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from tests.kafka_server import KafkaServer, KafkaUnavailable


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """One broker in KRaft mode; required when STANCEWATCH_REQUIRE_KAFKA is set (CI)."""
    server = KafkaServer(tmp_path_factory.mktemp("kafka"))
    try:
        server.start()
    except KafkaUnavailable as reason:
        if os.environ.get("STANCEWATCH_REQUIRE_KAFKA"):
            raise
        pytest.skip(f"no Apache Kafka: {reason}")
    yield server
    server.stop()


@pytest.fixture
def names() -> dict[str, str]:
    """Topic prefix and group of one test, so that tests share the broker and nothing else."""
    token = uuid.uuid4().hex[:8]
    return {"topic_prefix": f"{token}.", "group": f"group-{token}"}
