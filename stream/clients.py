"""Kafka client options from settings, and creation of topics; for everything outside of the worker."""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaConnectionError, KafkaError, TopicAlreadyExistsError, for_code

from stream.errors import BrokerError
from stream.settings import Settings

__all__ = ["client_options", "create_topics", "topic_partitions", "unreachable"]


def client_options(settings: Settings) -> dict[str, Any]:
    """Keyword arguments that every aiokafka client takes."""
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers,
        "security_protocol": settings.security_protocol,
    }
    if settings.security_protocol.endswith("SSL"):
        cafile = str(settings.ssl_cafile) if settings.ssl_cafile else None
        options["ssl_context"] = ssl.create_default_context(cafile=cafile)
    if settings.security_protocol.startswith("SASL"):
        options["sasl_mechanism"] = settings.sasl_mechanism
        options["sasl_plain_username"] = settings.sasl_username
        options["sasl_plain_password"] = settings.sasl_password.get_secret_value()
    return options


def unreachable(settings: Settings, error: Exception) -> BrokerError:
    """What to tell when no broker answers."""
    message = (
        f"no Kafka broker answers at {settings.broker} ({error})."
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
    admin = AIOKafkaAdminClient(**client_options(settings))
    try:
        await admin.start()
    except (KafkaConnectionError, OSError) as error:
        raise unreachable(settings, error) from None
    try:
        existing = set(await admin.list_topics())
        missing = [topic for topic in wanted if topic.name not in existing]
        if missing:
            answer = await admin.create_topics(missing)
            for name, code, *detail in answer.topic_errors:
                if code not in (0, TopicAlreadyExistsError.errno):
                    message = f"cannot create the Kafka topic {name}: {for_code(code).__name__} {detail}"
                    raise BrokerError(message)
    except KafkaError as error:
        message = f"cannot create the Kafka topics: {error!r}"
        raise BrokerError(message) from None
    finally:
        await admin.close()


def _new_topic(settings: Settings, name: str, bytes_max: str) -> NewTopic:
    return NewTopic(
        name,
        num_partitions=settings.partitions,
        replication_factor=settings.replication,
        topic_configs={"max.message.bytes": bytes_max},
    )


async def topic_partitions(settings: Settings, *topics: str) -> list[TopicPartition]:
    """All partitions of topics that were just created; waits until the brokers have agreed on them.

    Raises
    ------
    BrokerError
        When a topic does not appear within 30 seconds.
    """
    admin = AIOKafkaAdminClient(**client_options(settings))
    await admin.start()
    try:
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
    finally:
        await admin.close()
