"""Builds the Faust app: topics, tables, settings that keep Faust from losing or doubling events.

Read in faust-streaming 0.15.3; what is worked around here:

* A table key set outside of Faust's own iteration has no partition (``noack_take`` yields after the
  current event is reset), so :meth:`StateTable.partition_of` names the event whose partition applies.
* Table writes are sent to the changelog in the background and an offset commit can overtake them, so
  :class:`StateTable` keeps the futures and :meth:`StateTable.wait_for_changelog` awaits them.
* The Prometheus sensor and the web views are not used (DESIGN section 5).
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import faust
from faust import streams as faust_streams
from faust.tables.table import Table
from faust.types import TP

from stream.errors import ConfigurationError
from stream.settings import Settings

__all__ = ["StateTable", "StreamApp", "build_app"]

CHANGELOG_TIMEOUT_SECONDS = 300.0


class StateTable(Table):
    """A Faust table whose changelog writes can be awaited."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unconfirmed: list[asyncio.Future[Any]] = []

    def send_changelog(self, *args: Any, **kwargs: Any) -> Any:
        """Send as Faust does, and remember the future of the broker's confirmation."""
        future = super().send_changelog(*args, **kwargs)
        self._unconfirmed.append(future)
        return future

    async def wait_for_changelog(self) -> None:
        """Wait until the broker has confirmed every write made so far.

        Raises
        ------
        Exception
            Whatever the producer reports; the caller must not acknowledge then.
        TimeoutError
            After 300 seconds without confirmation.
        """
        unconfirmed, self._unconfirmed = self._unconfirmed, []
        if unconfirmed:
            await asyncio.wait_for(asyncio.gather(*unconfirmed), CHANGELOG_TIMEOUT_SECONDS)

    @staticmethod
    @contextmanager
    def partition_of(event: Any) -> Iterator[None]:
        """Within this block, reads and writes belong to the partition of `event`."""
        token = faust_streams._current_event.set(weakref.ref(event))  # noqa: SLF001 - see the module docstring
        try:
            yield
        finally:
            faust_streams._current_event.reset(token)  # noqa: SLF001


class StreamApp:
    """The Faust app with its Kafka topics and tables, by name."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.faust = _faust_app(settings)
        self.events = self._topic(settings.events_topic)
        self.assessments = self._topic(settings.assessments_topic)
        self.dead_letters = self._topic(settings.dead_letters_topic)
        self.counts = self._table("counts")
        self.identities = self._table("identities")

    def _topic(self, name: str) -> Any:
        return self.faust.topic(
            name,
            key_serializer="raw",
            value_serializer="raw",
            partitions=self.settings.partitions,
            replicas=self.settings.replication,
            allow_empty=True,
        )

    def _table(self, name: str) -> StateTable:
        table = StateTable(
            self.faust,
            name=name,
            key_type=bytes,
            value_type=bytes,
            partitions=self.settings.partitions,
        )
        self.faust.tables.add(table)
        return table

    async def seek(self, offsets: Mapping[TP, int]) -> None:
        """Read partitions again from these offsets.

        In the consumer's own thread, and with what Faust has noted of gaps dropped: it would otherwise commit
        over records that are yet to be read.
        """
        consumer = self.faust.consumer
        await consumer.seek_wait(offsets)
        for tp in offsets:
            consumer._gap.pop(tp, None)  # noqa: SLF001 - Faust has no public way


def build_app(settings: Settings) -> StreamApp:
    """Build the app from settings.

    Raises
    ------
    ConfigurationError
        Without a broker.
    """
    if not settings.broker:
        message = (
            "no Kafka broker is set: give --broker HOST:PORT or STANCEWATCH_BROKER"
            " (only `stancewatch replay` can start one by itself)"
        )
        raise ConfigurationError(message)
    return StreamApp(settings)


def _faust_app(settings: Settings) -> Any:
    if faust_streams._CStreamIterator is None:  # noqa: SLF001
        message = (
            "this build of faust-streaming has no compiled stream iterator; its Python twin acknowledges"
            " records that it skips. Install a wheel of faust-streaming, and unset NO_CYTHON"
        )
        raise ConfigurationError(message)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    session = settings.session_timeout_seconds
    record_bytes = settings.record_bytes_max + 65_536  # headers of a dead letter come on top
    return faust.App(
        settings.group,
        broker=[f"kafka://{address}" for address in settings.bootstrap_servers],
        broker_credentials=_credentials(settings),
        store="memory://" if settings.store == "memory" else "rocksdb://",
        datadir=str(settings.data_dir),
        web_enabled=False,
        autodiscover=False,
        topic_partitions=settings.partitions,
        topic_replication_factor=settings.replication,
        topic_allow_declare=settings.create_topics,
        topic_disable_leader=True,
        processing_guarantee="at_least_once",
        broker_commit_every=1_000_000_000,  # by time only
        broker_commit_interval=settings.commit_interval_seconds,
        broker_session_timeout=session,
        broker_heartbeat_interval=session / 5,
        broker_request_timeout=max(90.0, session),
        broker_max_poll_interval=1000.0,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=record_bytes,
        producer_acks=-1,
        producer_max_request_size=record_bytes,
        # The embedded broker reports a wrong log end for batches of several records; one record a batch
        # keeps the recovery of tables right there.
        producer_max_batch_size=1 if settings.embedded else 65_536,
        # Faust stalls for a second whenever this fills up (DESIGN section 7).
        stream_buffer_maxsize=32_768,
        stream_wait_empty=False,
        table_cleanup_interval=3600.0,
        reply_create_topic=False,
    )


def _credentials(settings: Settings) -> Any:
    if settings.security_protocol == "PLAINTEXT":
        return None
    import ssl  # noqa: PLC0415 - only when TLS is on

    context = None
    if settings.security_protocol.endswith("SSL"):
        context = ssl.create_default_context(cafile=str(settings.ssl_cafile) if settings.ssl_cafile else None)
    if settings.security_protocol == "SSL":
        return faust.SSLCredentials(context=context)
    return faust.SASLCredentials(
        username=settings.sasl_username,
        password=settings.sasl_password.get_secret_value(),
        ssl_context=context,
        mechanism=settings.sasl_mechanism,
    )
