"""Retention on Apache Kafka: RocksDB, kill -9, recovery from the folder and from the changelog."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.embedded import WorkerProcess
from tests.aging import KEPT, check_aging
from tests.kafka_server import KafkaServer
from tests.stack import settings_for, variables, worker

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize("keep_folder", [True, False], ids=["from RocksDB", "from the changelog"])
async def test_what_has_expired_goes_and_the_audit_stays_equal(
    kafka: KafkaServer, names: dict[str, str], tmp_path: Path, *, keep_folder: bool
) -> None:
    """Two months of log: late events, forgotten ids, tombstones, kill -9, and difference 0."""

    def start(folder: str) -> WorkerProcess:
        place = tmp_path / ("w" if keep_folder else folder)
        return worker(place, kafka.bootstrap, **names, **KEPT, batch_events=16)

    settings = settings_for(kafka.bootstrap, **names)
    await check_aging(settings, start, ("--broker", kafka.bootstrap), **variables(names))
