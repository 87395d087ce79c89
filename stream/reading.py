"""Reading what Kafka topics hold, up to ends noted before: for the commands that look into the log."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import chain
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from stream.clients import client_options, isolation_level, started
from stream.errors import BrokerError, ConfigurationError
from stream.settings import Settings

__all__ = [
    "Range",
    "admin_client",
    "first_missing",
    "partitions_of",
    "producer",
    "ranges",
    "read",
    "reader",
]

Range = tuple[int, int]
"""First offset, and the one behind the last."""

BATCH = 2000
FETCH_BYTES = 1_048_576
"""Of one partition at a time, so that memory stays small; a larger record comes whole (KIP-74)."""
STALL_SECONDS = 30.0


def need_broker(settings: Settings) -> None:
    """Insist on a broker.

    Raises
    ------
    ConfigurationError
        When none is set.
    """
    if not settings.broker:
        message = "no Kafka broker is set: give --broker HOST:PORT or STANCEWATCH_BROKER"
        raise ConfigurationError(message)


@asynccontextmanager
async def reader(settings: Settings, *, wait_ms: int = 100) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer outside of any group; like the worker, without what is of open or aborted transactions.

    Parameters
    ----------
    settings : Settings
    wait_ms : int
        The broker answers after this time at the latest when there is nothing to read.

    Raises
    ------
    BrokerError
        When the broker does not answer.
    """
    need_broker(settings)
    consumer = AIOKafkaConsumer(
        **client_options(settings),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level=isolation_level(settings),
        max_partition_fetch_bytes=FETCH_BYTES,
        fetch_max_wait_ms=wait_ms,
    )
    async with started(consumer, settings):
        yield consumer


@asynccontextmanager
async def producer(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    """A producer that waits for all replicas.

    Raises
    ------
    BrokerError
        When the broker does not answer.
    """
    need_broker(settings)
    client = AIOKafkaProducer(
        **client_options(settings),
        acks="all",
        max_request_size=settings.record_bytes_max + 65_536,
        # The embedded broker reports a wrong log end for batches of several records.
        max_batch_size=1 if settings.embedded else 65_536,
    )
    async with started(client, settings):
        yield client


@asynccontextmanager
async def admin_client(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """An administration client.

    Raises
    ------
    BrokerError
        When the broker does not answer.
    """
    need_broker(settings)
    client = AIOKafkaAdminClient(**client_options(settings))
    async with started(client, settings):
        yield client


async def partitions_of(settings: Settings, topic: str) -> list[TopicPartition]:
    """Partitions of a topic, in order; none when there is no such topic."""
    async with admin_client(settings) as admin:
        if topic not in await admin.list_topics():
            return []
        (described,) = await admin.describe_topics([topic])
    return sorted(TopicPartition(topic, partition["partition"]) for partition in described["partitions"])


async def ranges(
    consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition]
) -> dict[TopicPartition, Range]:
    """First offset and end of each partition, now."""
    if not partitions:
        return {}
    begins = await consumer.beginning_offsets(partitions)
    ends = await consumer.end_offsets(partitions)
    return {place: (begins[place], ends[place]) for place in partitions}


async def read(
    consumer: AIOKafkaConsumer,
    wanted: Mapping[TopicPartition, Range],
    progress: Callable[[int], None] = lambda _records: None,
) -> AsyncIterator[Any]:
    """Every record of these stretches of the log; by offset within a partition.

    Parameters
    ----------
    consumer : AIOKafkaConsumer
        Assigned anew here.
    wanted : mapping
        First offset and end by partition.
    progress : callable
        Called with the number of offsets that were passed since the last call.

    Raises
    ------
    BrokerError
        When nothing comes for 30 seconds.
    """
    at = {place: begin for place, (begin, end) in wanted.items() if begin < end}
    if not at:
        return
    consumer.assign(list(at))
    for place, begin in at.items():
        consumer.seek(place, begin)
    last_news = time.monotonic()
    while at:
        batches = await consumer.getmany(*at, timeout_ms=500, max_records=BATCH)
        for record in chain.from_iterable(batches.values()):
            if record.offset < wanted[TopicPartition(record.topic, record.partition)][1]:
                yield record
        for place in list(at):
            end = wanted[place][1]
            position = min(end, await consumer.position(place))
            if position > at[place]:
                last_news = time.monotonic()
                progress(position - at[place])
                at[place] = position
            if position == end:
                del at[place]
                consumer.pause(place)
        if time.monotonic() - last_news > STALL_SECONDS:
            message = f"nothing came from {min(at).topic} for {STALL_SECONDS:.0f} s, its end is not reached"
            raise BrokerError(message)


async def first_missing(
    settings: Settings, place: TopicPartition, begin: int, end: int, known: Collection[int]
) -> int | None:
    """Offset of the first record in a stretch of the log that is not at one of the `known` offsets.

    Raises
    ------
    BrokerError
        When the broker does not answer.
    """
    async with reader(settings) as consumer:
        async for record in read(consumer, {place: (begin, end)}):
            if record.offset not in known:
                return int(record.offset)
    return None
