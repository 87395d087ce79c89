"""Settings: one frozen object, read once. Order: command-line flag, environment variable, default.

Every field has an environment variable ``STANCEWATCH_<NAME>``; units stand in the name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

import platformdirs
from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
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
    group: str = Field(
        "",
        validate_default=True,
        description="consumer group; also names the changelog topics. Empty: the prefix and stancewatch",
    )
    partitions: int = Field(
        4, ge=1, le=1000, description="partitions of topics that are created here; those of an existing one"
    )
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
    ssl_certfile: Path | None = Field(
        None,
        description="our own certificate with its chain (PEM), where the broker asks for one (mutual TLS)",
    )
    ssl_keyfile: Path | None = Field(
        None, description="private key of ssl_certfile (PEM); default: it is in the same file"
    )
    ssl_key_password: SecretStr = Field(SecretStr(""), description="of an encrypted private key")

    # State
    store: Literal["rocksdb", "memory"] = Field("rocksdb", description="local copy of the state")
    data_dir: Path = Field(
        default_factory=lambda: platformdirs.user_state_path("stancewatch") / "worker",
        description="folder of the local state; one per worker",
    )

    # How long the state is kept, told by the time of the log (stream.retention)
    bucket_days: int = Field(
        14,
        ge=8,
        description="hour buckets are kept for this long; an older event is late: counted in totals only."
        " The longest window, 7 d, and a day for events dated ahead must fit in",
    )
    identity_days: int = Field(
        30,
        validate_default=True,
        description="event ids are known for this long; after that a duplicate counts as a new event."
        " At least bucket_days",
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
    taxonomy: Path | None = Field(
        None,
        description="YAML file of your own topics, added to those of the model (see `stancewatch topics`)",
    )
    texts: Path | None = Field(
        None, description="folder of the texts of the labelled real rows, for training"
    )

    # Emerging topics (`stancewatch discover`)
    discover_hours: float = Field(
        168.0, ge=1, le=24 * 366, description="length of the window of published_at that topics are sought in"
    )
    discover_documents: int = Field(
        5000, ge=50, le=50_000, description="most documents in that window; the newest are kept"
    )
    discover_interval_seconds: Positive = Field(900.0, description="from one look for topics to the next")
    discover_recent_hours: Positive = Field(24.0, description="what counts as now when growth is tested")
    discover_off_topic_only: bool = Field(
        False, description="leave out what has a monitored topic, and show only what has none"
    )
    discover_port: int = Field(
        9466,
        ge=0,
        le=65535,
        description="port of the metrics of `stancewatch discover` (at metrics_host); 0 takes a free one",
    )
    discover_slots: int = Field(10, ge=1, le=100, description="emerging topics that have series of their own")

    # HTTP
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(9464, ge=0, le=65535, description="0 takes a free port")
    page: bool = Field(True, description="the worker also serves the page and the API of articles")
    serve_host: str = Field("127.0.0.1", description="address of `stancewatch serve`")
    serve_port: int = Field(
        9465, ge=0, le=65535, description="port of `stancewatch serve`; 0 takes a free one"
    )

    # Articles behind the numbers: what the page and its API can show
    articles_max: int = Field(100_000, ge=1, le=5_000_000, description="so many of the newest are kept")
    articles_days: int = Field(
        15,
        ge=1,
        description="kept for this long, counted back from the newest published_at. Two windows of 7 d, and a"
        " day for events dated ahead, fit into 15",
    )

    @field_validator("broker")
    @classmethod
    def _broker_has_ports(cls, value: str) -> str:
        for address in filter(None, value.split(",")):
            host, _, port = address.strip().rpartition(":")
            if "@" in address:
                message = "expected host:port; who logs in is told by STANCEWATCH_SASL_USERNAME and _PASSWORD"
                raise ValueError(message)
            if not host or not port.isdigit():
                message = f"{address!r} is not host:port"
                raise ValueError(message)
        return value

    @field_validator("group")
    @classmethod
    def _group_goes_with_the_prefix(cls, value: str, info: ValidationInfo) -> str:
        return value or f"{info.data.get('topic_prefix', '')}stancewatch"

    @field_validator("identity_days")
    @classmethod
    def _identities_outlast_buckets(cls, value: int, info: ValidationInfo) -> int:
        bucket_days = info.data.get("bucket_days", 0)
        if value < bucket_days:
            message = (
                f"must be at least STANCEWATCH_BUCKET_DAYS ({bucket_days}):"
                " corrections take votes back from buckets"
            )
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

    @model_validator(mode="after")
    def _security_is_whole(self) -> Self:
        """Nobody is to believe in an encryption or a login that is not used."""
        protocol = self.security_protocol
        tls = [self.ssl_cafile, self.ssl_certfile, self.ssl_keyfile]
        login = bool(self.sasl_username), bool(self.sasl_password.get_secret_value())
        fault = ""
        if self.embedded:
            return self  # the environment may hold settings for another broker
        if protocol.startswith("SASL") and not all(login):
            fault = f"{protocol} needs STANCEWATCH_SASL_USERNAME and STANCEWATCH_SASL_PASSWORD"
        elif any(login) and not protocol.startswith("SASL"):
            fault = f"STANCEWATCH_SASL_* need STANCEWATCH_SECURITY_PROTOCOL=SASL_SSL, not {protocol}"
        elif any(tls) and not protocol.endswith("SSL"):
            wanted = "SASL_SSL" if protocol.startswith("SASL") else "SSL"
            fault = f"STANCEWATCH_SSL_* need STANCEWATCH_SECURITY_PROTOCOL={wanted}, not {protocol}"
        elif self.ssl_keyfile and not self.ssl_certfile:
            fault = "STANCEWATCH_SSL_KEYFILE needs its STANCEWATCH_SSL_CERTFILE"
        if fault:
            raise ValueError(fault)
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
    def emerging_topic(self) -> str:
        """Kafka topic of emerging topics; compacted, key = topic id."""
        return f"{self.topic_prefix}news.emerging-topics"

    def changelog_topic(self, table: str) -> str:
        """Kafka topic that keeps a table of the state, as Faust names it."""
        return f"{self.group}-{table}-changelog"

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
        raise ConfigurationError(_explained(error)) from None


def _explained(error: ValidationError) -> str:
    """Variable, what it held, what was expected; no value that may hold a secret."""
    first = error.errors()[0]
    why = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return why  # a rule over several settings: the input is all of them
    name = "_".join(str(part) for part in first["loc"]).upper()
    arrived = first.get("input")
    hidden = "PASSWORD" in name or "@" in str(arrived)
    return f"STANCEWATCH_{name}: {'' if hidden else f'got {arrived!r}: '}{why}"
