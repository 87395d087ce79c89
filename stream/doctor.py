"""Says in plain words whether everything that a worker needs is there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from classifiers.errors import ClassifierError
from classifiers.storage import load, load_shipped
from stream.clients import client_options, unreachable
from stream.errors import ConfigurationError
from stream.settings import Settings
from stream.web import listen

__all__ = ["Finding", "examine"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: fine or not, and what to do if not."""

    what: str
    fine: bool
    detail: str


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at broker, topics, model, data folder and port, in this order."""
    yield from asyncio.run(_broker(settings))
    yield _model(settings)
    yield _data_dir(settings)
    yield _port(settings)


async def _broker(settings: Settings) -> list[Finding]:
    if not settings.broker:
        return [Finding("broker", False, "none is set: STANCEWATCH_BROKER=host:port (replay brings its own)")]
    admin = AIOKafkaAdminClient(**client_options(settings), request_timeout_ms=5000)
    try:
        await admin.start()
        existing = set(await admin.list_topics())
    except (KafkaError, OSError) as error:
        return [Finding("broker", False, str(unreachable(settings, error)))]
    finally:
        await admin.close()
    wanted = {settings.events_topic, settings.assessments_topic, settings.dead_letters_topic}
    missing = ", ".join(sorted(wanted - existing))
    found = [Finding("broker", True, settings.broker)]
    if missing and settings.create_topics:
        found.append(Finding("topics", True, f"{missing} will be created by the worker"))
    else:
        found.append(Finding("topics", not missing, f"missing: {missing}" if missing else "all there"))
    return found


def _model(settings: Settings) -> Finding:
    try:
        assessor = load(settings.model) if settings.model else load_shipped()
        return Finding("model", True, assessor.name)
    except ClassifierError as error:
        return Finding("model", False, str(error))


def _data_dir(settings: Settings) -> Finding:
    place = settings.data_dir
    while not place.exists():
        place = place.parent
    writable = os.access(place, os.W_OK)
    detail = str(settings.data_dir) if writable else f"{place} cannot be written; set STANCEWATCH_DATA_DIR"
    if writable and place != settings.data_dir:
        detail += " (will be made)"
    return Finding("data folder", writable, detail)


def _port(settings: Settings) -> Finding:
    try:
        listen(settings.metrics_host, settings.metrics_port).close()
    except ConfigurationError as error:
        return Finding("port", False, str(error))
    return Finding("port", True, f"{settings.metrics_host}:{settings.metrics_port} is free")
