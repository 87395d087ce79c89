"""Says in plain words whether everything that a worker needs is there."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from aiohttp import ClientError, ClientSession, ClientTimeout
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from classifiers.errors import ClassifierError
from stream.clients import client_options, partition_fault, retentions, started, unreachable
from stream.data_folder import holder
from stream.errors import ConfigurationError, StancewatchError
from stream.settings import Settings
from stream.startup import load_assessor
from stream.web import listen

__all__ = ["Finding", "examine"]

ANSWER_SECONDS = 3.0
ANYWHERE = {"", "0.0.0.0"}  # noqa: S104 - compared only


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: fine or not, and what to do if not; a note may be meant so."""

    what: str
    fine: bool
    detail: str
    note: bool = False


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at broker, topics, model, data folder and port, in this order."""
    yield from asyncio.run(_broker(settings))
    yield _model(settings)
    yield _data_dir(settings)
    yield _port(settings)


async def _broker(settings: Settings) -> list[Finding]:
    if not settings.broker:
        return [Finding("broker", False, "none is set: STANCEWATCH_BROKER=host:port (replay brings its own)")]
    try:
        admin = AIOKafkaAdminClient(**client_options(settings), request_timeout_ms=5000)
        async with started(admin, settings):
            existing = set(await admin.list_topics())
            fault = await partition_fault(settings, admin)
            wanted = {settings.events_topic, settings.assessments_topic, settings.dead_letters_topic}
            there = sorted(wanted & existing)
            kept = {}
            with contextlib.suppress(KafkaError):  # the embedded broker does not tell
                kept = await retentions(admin, there) if there else {}
    except StancewatchError as error:
        return [Finding("broker", False, str(error))]
    except (KafkaError, TimeoutError) as error:
        return [Finding("broker", False, str(await unreachable(settings, error)))]
    missing = ", ".join(sorted(wanted - existing))
    found = [Finding("broker", True, settings.broker)]
    if missing and settings.create_topics:
        found.append(Finding("topics", True, f"{missing} will be created by the worker"))
    else:
        found.append(Finding("topics", not missing, f"missing: {missing}" if missing else "all there"))
    if fault:
        found.append(Finding("partitions", False, fault))
    for topic, milliseconds in kept.items():
        if milliseconds != "-1":
            days = f"{int(milliseconds) / 86_400_000:.3g} days (retention.ms={milliseconds})"
            what = f"{topic} keeps its records for {days}: audit and export need all of them (-1)"
            found.append(Finding("retention", True, what, note=True))
    return found


def _model(settings: Settings) -> Finding:
    try:
        assessor = load_assessor(settings)
        return Finding("model", True, f"{assessor.name}: {', '.join(assessor.topics)}")
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
    elif writable and (process := holder(settings.data_dir)):
        detail += f" is in use by a running worker (process {process}); one more needs a folder of its own"
    return Finding("data folder", writable, detail)


def _port(settings: Settings) -> Finding:
    try:
        listen(settings.metrics_host, settings.metrics_port).close()
    except ConfigurationError as error:
        found = asyncio.run(_worker_at(settings.metrics_host, settings.metrics_port))
        return found or Finding("port", False, str(error))
    return Finding("port", True, f"{settings.metrics_host}:{settings.metrics_port} is free")


async def _worker_at(host: str, port: int) -> Finding | None:
    """The worker that answers there; None when something else has the port, or does not answer."""
    # Who listens everywhere is asked here.
    base = f"http://{host if host not in ANYWHERE else '127.0.0.1'}:{port}"
    try:
        async with ClientSession(timeout=ClientTimeout(ANSWER_SECONDS)) as session:
            async with session.get(f"{base}/metrics") as answer:
                figures = await answer.read()
            async with session.get(f"{base}/readyz") as answer:
                reason, ready = (await answer.read()).decode(errors="replace").strip(), answer.ok
    except (ClientError, OSError):  # TimeoutError is an OSError
        return None
    if b"\nstancewatch_ready " not in figures:
        return None
    worker = f"a worker runs at {host}:{port}"
    if not ready:
        return Finding("port", False, f"{worker} but is not ready: {reason}")
    return Finding("port", True, f"{worker} and is ready; one more needs another STANCEWATCH_METRICS_PORT")
