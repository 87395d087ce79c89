"""Settings: one frozen object, read once. Order: command-line flag, environment variable, default.

Every field has an environment variable ``STANCEWATCH_<NAME>``; units stand in the name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

import platformdirs
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from stream.errors import ConfigurationError

__all__ = ["Settings", "load_settings"]

Positive = Annotated[float, Field(gt=0)]


class Settings(BaseSettings):
    """What is in force in this process; immutable after start-up."""

    model_config = SettingsConfigDict(env_prefix="STANCEWATCH_", frozen=True, extra="ignore")

    # Kafka
    broker: str = Field(
        "", description="host:port list of the Kafka brokers; empty: embedded broker (replay only)"
    )
    topic_prefix: str = Field("", description="put before every Kafka topic name")
    group: str = Field("stancewatch", description="consumer group; also names the changelog topics")
    partitions: int = Field(4, ge=1, le=1000, description="partitions of topics that are created here")
    replication: int = Field(1, ge=1, le=9, description="replication factor of topics that are created here")
    create_topics: bool = Field(True, description="create missing topics at start-up")
    commit_interval_seconds: Positive = Field(3.0, description="how often offsets are committed")
    session_timeout_seconds: Positive = Field(
        10.0, description="a silent worker loses its partitions after this"
    )
    embedded: bool = Field(
        False, description="set by replay: the broker is the embedded one, avoid what it lacks"
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    sasl_username: str = ""
    sasl_password: SecretStr = SecretStr("")
    ssl_cafile: Path | None = Field(
        None, description="certificate authority file (PEM); default: the system's"
    )

    # State
    store: Literal["rocksdb", "memory"] = Field("rocksdb", description="local copy of the state")
    data_dir: Path = Field(
        default_factory=lambda: platformdirs.user_state_path("stancewatch") / "worker",
        description="folder of the local state; one per worker",
    )

    # Events
    event_bytes_max: int = Field(1_048_576, ge=1024, description="a larger record is a dead letter")
    record_bytes_max: int = Field(8_388_608, ge=1024, description="largest record that the topics take")
    future_tolerance_hours: Positive = Field(24.0, description="published_at may lie this far ahead")
    batch_events: int = Field(256, ge=1, le=10_000, description="most events in one classification batch")
    batch_seconds: Positive = Field(0.2, description="longest wait for a batch to fill")
    window_clock: Literal["wall", "event"] = Field(
        "wall", description="end of the 1h/24h/7d windows: now, or the latest published_at seen"
    )

    # Model
    model: Path | None = Field(
        None,
        description="use the model in this folder (`stancewatch train --into`) instead of the shipped one",
    )
    texts: Path | None = Field(
        None, description="folder of the texts of the labelled real rows, for training"
    )

    # HTTP
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(9464, ge=0, le=65535, description="0 takes a free port")

    @field_validator("broker")
    @classmethod
    def _broker_has_ports(cls, value: str) -> str:
        for address in filter(None, value.split(",")):
            host, _, port = address.strip().rpartition(":")
            if not host or not port.isdigit():
                message = f"{address!r} is not host:port"
                raise ValueError(message)
        return value

    @model_validator(mode="after")
    def _records_hold_events(self) -> Self:
        if self.record_bytes_max < 2 * self.event_bytes_max:
            message = (
                "record_bytes_max must be at least twice event_bytes_max (an assessment repeats the title)"
            )
            raise ValueError(message)
        return self

    @property
    def events_topic(self) -> str:
        """Kafka topic of incoming events."""
        return f"{self.topic_prefix}news.events"

    @property
    def assessments_topic(self) -> str:
        """Kafka topic of decisions."""
        return f"{self.topic_prefix}news.assessments"

    @property
    def dead_letters_topic(self) -> str:
        """Kafka topic of rejected records."""
        return f"{self.topic_prefix}news.dead-letters"

    @property
    def bootstrap_servers(self) -> list[str]:
        """Addresses as Kafka clients take them."""
        return [address.strip() for address in self.broker.split(",") if address.strip()]


def load_settings(**flags: object) -> Settings:
    """Read flags (those not None), environment and defaults.

    Raises
    ------
    ConfigurationError
        With the variable, what it held and what was expected.
    """
    if flags.get("broker") == "":
        message = "--broker is empty: expected host:port (leave it out for the embedded broker)"
        raise ConfigurationError(message)
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        why = first["msg"].removeprefix("Value error, ")
        message = f"STANCEWATCH_{name}: got {first.get('input')!r}: {why}"
        raise ConfigurationError(message) from None
