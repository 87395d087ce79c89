"""Retention on the embedded broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.embedded import EmbeddedBroker
from stream.settings import load_settings
from tests.agents.test_embedded import EMBEDDED
from tests.aging import KEPT, check_aging
from tests.stack import worker

pytestmark = pytest.mark.embedded


async def test_what_has_expired_goes_and_the_audit_stays_equal(
    tmp_path: Path, embedded_broker: EmbeddedBroker
) -> None:
    """Two months of log: late events, forgotten ids, tombstones, a crash, and difference 0."""
    address = embedded_broker.address
    settings = load_settings(broker=address, embedded=True)
    await check_aging(
        settings,
        lambda folder: worker(tmp_path / folder, address, **EMBEDDED, **KEPT),
        ("--broker", address),
        STANCEWATCH_EMBEDDED="true",
    )
