"""Kafka client options from settings, and creation of topics; for everything outside of the worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.conn import create_conn
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    TopicAlreadyExistsError,
    for_code,
)
from aiokafka.protocol.metadata import MetadataRequest

from stream.errors import BrokerError, ConfigurationError
from stream.security import refusal, tls_context
from stream.settings import Settings

__all__ = [
    "check_broker",
    "check_partitions",
    "client_options",
    "create_emerging_topic",
    "create_topics",
    "isolation_level",
    "partition_fault",
    "provide_topics",
    "retentions",
    "started",
    "topic_partitions",
    "unreachable",
]

CONNECT_TIMEOUT_MS = 5000

Client = TypeVar("Client", bound=Any)
"""Consumer, producer or administration client of aiokafka."""


def client_options(settings: Settings) -> dict[str, Any]:
    """Keyword arguments that every aiokafka client takes."""
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers,
        "security_protocol": settings.security_protocol,
    }
    if (context := tls_context(settings)) is not None:
        options["ssl_context"] = context
    if settings.security_protocol.startswith("SASL"):
        options["sasl_mechanism"] = settings.sasl_mechanism
        options["sasl_plain_username"] = settings.sasl_username
        options["sasl_plain_password"] = settings.sasl_password.get_secret_value()
    return options


def isolation_level(settings: Settings) -> str:
    """What a consumer sees of transactions: those that were committed. The embedded broker has none."""
    return "read_uncommitted" if settings.embedded else "read_committed"


@asynccontextmanager
async def started(client: Client, settings: Settings) -> AsyncIterator[Client]:
    """Start a Kafka client and stop it at the end.

    Raises
    ------
    BrokerError
        When it cannot connect; one line with the reason and the remedy.
    """
    stop = client.close if isinstance(client, AIOKafkaAdminClient) else client.stop
    try:
        await client.start()
    except (KafkaConnectionError, OSError) as error:
        await stop()
        raise await unreachable(settings, error) from None
    except BaseException:
        await stop()
        raise
    try:
        yield client
    finally:
        await stop()


async def check_broker(settings: Settings) -> None:
    """Connect and log in once.

    Raises
    ------
    BrokerError
        When that fails.
    """
    async with started(AIOKafkaAdminClient(**client_options(settings)), settings):
        pass


async def unreachable(settings: Settings, error: Exception) -> BrokerError:
    """What to tell when a client could not start, or waits in vain for a broker.

    The client logs why each broker failed and raises only that all of them did. So ask anew for the metadata
    to learn the reason, at the addresses that are set and then at those that the brokers give for themselves.
    """
    options = client_options(settings) | {"request_timeout_ms": CONNECT_TIMEOUT_MS}
    addresses: list[str] = options.pop("bootstrap_servers")
    for address in addresses:  # it grows meanwhile
        host, _, port = address.rpartition(":")
        try:
            connection = await create_conn(host.strip("[]"), int(port), **options)
            try:
                metadata = await connection.send(MetadataRequest([]))
            finally:
                await connection.close()
        except (KafkaError, OSError) as reason:
            error = reason
            if found := refusal(settings, reason):
                return BrokerError(f"the Kafka broker at {address} {found}")
        else:
            named = [f"{host}:{port}" for _, host, port, *_ in metadata.brokers]
            addresses += [other for other in named if other not in addresses]
    message = (
        f"no Kafka broker answers at {', '.join(addresses)} ({error})."
        " Check STANCEWATCH_BROKER or --broker, and that the broker runs"
    )
    return BrokerError(message)


async def create_topics(settings: Settings) -> None:
    """Create the three topics where they are missing.

    Raises
    ------
    BrokerError
        When the broker cannot be reached or refuses.
    """
    limit = str(settings.record_bytes_max)
    letters_limit = str(settings.record_bytes_max + 65_536)  # the headers come on top of the original bytes
    wanted = [
        _new_topic(settings, settings.events_topic, limit),
        _new_topic(settings, settings.assessments_topic, limit),
        _new_topic(settings, settings.dead_letters_topic, letters_limit),
    ]
    await _create(settings, wanted)


async def provide_topics(settings: Settings) -> None:
    """Create the three topics where they are missing, or where that is forbidden insist on them.

    Raises
    ------
    BrokerError
        When the broker cannot be reached or refuses.
    ConfigurationError
        When one is missing and must not be created.
    """
    if settings.create_topics or settings.embedded:
        await create_topics(settings)
        return
    async with started(AIOKafkaAdminClient(**client_options(settings)), settings) as admin:
        existing = set(await admin.list_topics())
    for topic in (settings.events_topic, settings.assessments_topic, settings.dead_letters_topic):
        if topic not in existing:
            message = (
                f"there is no Kafka topic {topic} on {settings.broker}, and STANCEWATCH_CREATE_TOPICS=false:"
                " create it, or set the STANCEWATCH_TOPIC_PREFIX of the workers"
            )
            raise ConfigurationError(message)


async def create_emerging_topic(settings: Settings) -> None:
    """Create the compacted topic of ``stancewatch discover`` where it is missing; it has one partition.

    Raises
    ------
    BrokerError
        When the broker cannot be reached or refuses.
    """
    topic = NewTopic(
        settings.emerging_topic,
        num_partitions=1,
        replication_factor=settings.replication,
        topic_configs={"cleanup.policy": "compact", "max.message.bytes": str(settings.record_bytes_max)},
    )
    await _create(settings, [topic])


async def _create(settings: Settings, wanted: Sequence[NewTopic]) -> None:
    async with started(AIOKafkaAdminClient(**client_options(settings)), settings) as admin:
        try:
            existing = set(await admin.list_topics())
            missing = [topic for topic in wanted if topic.name not in existing]
            answered = (await admin.create_topics(missing)).topic_errors if missing else ()
        except (KafkaConnectionError, NodeNotReadyError, TimeoutError) as error:
            raise await unreachable(settings, error) from None
        except KafkaError as error:
            message = f"cannot create the Kafka topics: {error!r}"
            raise BrokerError(message) from None
    for name, code, *detail in answered:
        if code not in (0, TopicAlreadyExistsError.errno):
            message = f"cannot create the Kafka topic {name}: {for_code(code).__name__} {detail}"
            raise BrokerError(message)


def _new_topic(settings: Settings, name: str, bytes_max: str) -> NewTopic:
    return NewTopic(
        name,
        num_partitions=settings.partitions,
        replication_factor=settings.replication,
        # Kafka keeps records for a week by default; audit and export need the whole log.
        topic_configs={"max.message.bytes": bytes_max, "retention.ms": "-1"},
    )


async def check_partitions(settings: Settings) -> None:
    """Insist that the events and the state of the group have the partitions that are set, where they exist.

    Raises
    ------
    ConfigurationError
        When they have others. Faust would end in an error of its own, or the worker in its first claim.
    """
    async with started(AIOKafkaAdminClient(**client_options(settings)), settings) as admin:
        fault = await partition_fault(settings, admin)
    if fault:
        raise ConfigurationError(fault)


async def partition_fault(settings: Settings, admin: AIOKafkaAdminClient) -> str:
    """What is wrong with the numbers of partitions, and the remedy; empty when nothing is."""
    state = [settings.changelog_topic(table) for table in ("counts", "identities")]
    existing = set(await admin.list_topics())  # a question for one that is missing could create it
    wanted = [topic for topic in (settings.events_topic, *state) if topic in existing]
    found: Mapping[str, int] = {
        topic["topic"]: len(topic["partitions"])
        for topic in (await admin.describe_topics(wanted) if wanted else [])
        if topic["error_code"] == 0
    }
    events = found.get(settings.events_topic, settings.partitions)
    for topic in state:
        if (written := found.get(topic, events)) != events:
            return (
                f"{settings.events_topic} has {events} partitions, but the state of group {settings.group!r}"
                f" was written for {written} ({topic}): set another STANCEWATCH_GROUP, which counts the log"
                f" anew, and STANCEWATCH_PARTITIONS={events}"
            )
    if events != settings.partitions:
        return (
            f"{settings.events_topic} has {events} partitions, STANCEWATCH_PARTITIONS is"
            f" {settings.partitions}: set STANCEWATCH_PARTITIONS={events}"
        )
    return ""


async def retentions(admin: AIOKafkaAdminClient, topics: Sequence[str]) -> dict[str, str]:
    """What ``retention.ms`` is in force for each topic that the broker tells it of."""
    asked = [ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": None}) for topic in topics]
    return {
        topic: value
        for answer in await admin.describe_configs(asked)
        for _, _, _, topic, entries in answer.resources
        for name, value, *_ in entries
        if name == "retention.ms"
    }


async def topic_partitions(settings: Settings, *topics: str) -> list[TopicPartition]:
    """All partitions of topics that were just created; waits until the brokers have agreed on them.

    Raises
    ------
    BrokerError
        When a topic does not appear within 30 seconds.
    """
    async with started(AIOKafkaAdminClient(**client_options(settings)), settings) as admin:
        deadline = time.monotonic() + 30
        while True:
            described = await admin.describe_topics(list(topics))
            found = [
                TopicPartition(topic["topic"], partition["partition"])
                for topic in described
                for partition in topic["partitions"]
                if topic["error_code"] == 0 and partition["leader"] >= 0
            ]
            missing = set(topics) - {place.topic for place in found}
            if not missing:
                return found
            if time.monotonic() > deadline:
                message = f"the Kafka topics {sorted(missing)} do not appear on the broker"
                raise BrokerError(message)
            await asyncio.sleep(0.1)
