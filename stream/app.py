"""Builds the Faust app: topics, tables, settings that keep Faust from losing or doubling events.

Read in faust-streaming 0.15.3; what is worked around here:

* A table key set outside of Faust's own iteration has no partition (``noack_take`` yields after the
  current event is reset), so :meth:`StateTable.partition_of` names the event whose partition applies.
* Table writes are sent to the changelog in the background and an offset commit can overtake them, so
  :class:`StateTable` keeps the futures and :meth:`StateTable.wait_for_changelog` awaits them.
* Faust compares partitions of events and changelog in metadata that may be older than the changelog.
* Faust's recovery believes whatever stands last, and its standbys pass over records that were fetched before
  it sought their place: ``stream.fencing`` recovers in its stead, and there are no standbys.
* The Prometheus sensor and the web views are not used (DESIGN section 5).
"""

from __future__ import annotations

import asyncio
import shutil
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, cast
from urllib.parse import quote

import faust
import msgspec
from faust import streams as faust_streams
from faust.stores import memory
from faust.tables import TableManager
from faust.tables.recovery import Recovery
from faust.tables.table import Table
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer
from faust.types import TP

from stream.clients import isolation_level
from stream.errors import ConfigurationError
from stream.security import tls_context
from stream.settings import Settings
from stream.tables import TOTAL, Counts, counts_key, decode_counts

__all__ = ["StateTable", "StreamApp", "build_app", "owner_of"]

CHANGELOG_TIMEOUT_SECONDS = 300.0
ROCKSDB = {"write_buffer_size": 524_288, "max_write_buffer_number": 2, "block_cache_size": 4_194_304}
"""For each partition of a table: at most 5 MiB. By default writes may fill 192 MiB, and reads 2 GiB."""
SPACE_BYTES_MIN = 1_048_576
FETCH_WAIT_MS = 200
OWNER_HEADER = "owner"


class StateTable(Table):
    """A Faust table whose changelog writes can be awaited, and that can be looked through bit by bit.

    Attributes
    ----------
    owners : dict of int to int
        By partition, the token of the ownership under which is written (``stream.fencing``).
    late : dict of int to set of bytes
        By partition, the keys that recovery found written late.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.owners: dict[int, int] = {}
        self.late: dict[int, set[bytes]] = {}
        self._highest: dict[int, tuple[int, int]] = {}
        self._filled: dict[int, int] = {}
        self._unconfirmed: list[asyncio.Future[Any]] = []
        self._rounds: dict[int, Iterator[bytes]] = {}
        self._places: dict[int, bytes] = {}

    def _verify_source_topic_partitions(self, source_topic: str) -> None:
        """As Faust, once its client knows the changelog: a new one has 0 partitions to it."""
        if self.app.consumer.topic_partitions(self.changelog_topic_name):
            super()._verify_source_topic_partitions(source_topic)

    def send_changelog(
        self, partition: int | None, key: bytes, value: bytes | None, *_: Any, **__: Any
    ) -> Any:
        """As Faust, and remember the future of the broker's confirmation."""
        self._unconfirmed.append(future := self._send(partition, key, value))
        return future

    def _send(self, partition: int | None, key: bytes, value: bytes | None) -> Any:
        return self.changelog_topic.send_soon(
            key=key,
            value=value,
            partition=partition,
            headers={OWNER_HEADER: b"%d" % self.owners.get(partition or 0, 0)},
            key_serializer="raw",
            value_serializer="raw",
            eager_partitioning=True,
        )

    async def wait_for_changelog(self) -> dict[int, list[int]]:
        """Wait until the broker has confirmed every write made so far.

        Returns
        -------
        dict of int to list of int
            Their offsets by partition of the changelog.

        Raises
        ------
        Exception
            Whatever the producer reports; the caller must not acknowledge then.
        TimeoutError
            After 300 seconds without confirmation.
        """
        unconfirmed, self._unconfirmed = self._unconfirmed, []
        return await self._confirmed(unconfirmed)

    @staticmethod
    async def _confirmed(unconfirmed: Sequence[asyncio.Future[Any]]) -> dict[int, list[int]]:
        offsets: dict[int, list[int]] = {}
        if unconfirmed:
            waiting = asyncio.gather(*unconfirmed)
            for written in await asyncio.wait_for(waiting, CHANGELOG_TIMEOUT_SECONDS):
                offsets.setdefault(written.topic_partition.partition, []).append(written.offset)
        return offsets

    async def send_stored(self, partition: int, keys: Iterable[bytes]) -> list[int]:
        """Write keys to the changelog as they are stored here (deleted, if they are not), and wait for it.

        Returns
        -------
        list of int
            Their offsets.
        """
        sent = [self._send(partition, key, self.value_at(partition, key)) for key in keys]
        return (await self._confirmed(sent)).get(partition, [])

    def value_at(self, partition: int, key: bytes) -> bytes | None:
        """What is stored under a key of a partition; outside of :meth:`partition_of`."""
        store = self.data
        found = store.data.get(key) if _in_memory(store) else store._db_for_partition(partition).get(key)  # noqa: SLF001
        return cast("bytes | None", found)

    def put_at(self, partition: int, key: bytes, value: bytes) -> None:
        """Store a value here alone; outside of :meth:`partition_of`."""
        if _in_memory(self.data):
            self.data.data[key] = value
        else:
            self.data._db_for_partition(partition).put(key, value)  # noqa: SLF001

    def filled(self, partition: int) -> int:
        """Offset of the changelog up to which this store has it all."""
        stored = self.data.persisted_offset(TP(self.changelog_topic_name, partition))
        return self._filled.get(partition, 0 if stored is None else stored + 1)

    def fill(self, partition: int, end: int) -> None:
        """Note that this store has the changelog up to an offset."""
        self._filled[partition] = end
        self.data.set_persisted_offset(TP(self.changelog_topic_name, partition), end - 1)

    def apply_changelog_batch(self, batch: Iterable[Any]) -> None:
        """In recovery: as Faust, without what a former owner of the partition wrote late; notes how far."""
        timely = []
        ends: dict[int, int] = {}
        for event in batch:
            message = event.message
            ends[message.partition] = message.offset + 1
            owner = owner_of(message.headers)
            highest, since = self.highest_owner(message.partition)
            if owner < highest and message.offset >= since:
                self.late.setdefault(message.partition, set()).add(message.key)
                continue
            if owner > highest:
                self.note_owner(message.partition, owner, message.offset)
            timely.append(event)
        super().apply_changelog_batch(timely)
        for partition, end in ends.items():  # what is late as well: read again, it would be believed
            self.fill(partition, end)

    async def on_recovery_completed(self, *_: Any) -> None:
        """Keep in memory, as RocksDB does, what has moved away: :meth:`filled` tells where it ends."""

    def highest_owner(self, partition: int) -> tuple[int, int]:
        """The highest token that this table knows of, and the offset from which on lower ones are late."""
        if partition not in self._highest:
            known = self.value_at(partition, _highest_owner_key(partition))
            self._highest[partition] = msgspec.json.decode(known, type=tuple[int, int]) if known else (0, 0)
        return self._highest[partition]

    def note_owner(self, partition: int, owner: int, since: int) -> None:
        """Remember the highest token beside the state: recovery may begin behind its first record."""
        self._highest[partition] = (owner, since)
        self.put_at(partition, _highest_owner_key(partition), msgspec.json.encode((owner, since)))

    def next_entries(self, partition: int, limit: int) -> list[tuple[bytes, bytes]]:
        """The next entries of a partition, round and round; fewer where a round ends.

        In RocksDB by the order of keys, without an iterator that is kept: that would hold the files of the
        partition when it moves away. In memory by a list of the keys at the beginning of each round.
        """
        if _in_memory(self.data):
            return self._next_in_memory(partition, limit)
        found: list[tuple[bytes, bytes]] = []
        prefix = b"%d|" % partition
        entries = self.data._db_for_partition(partition).iter()  # noqa: SLF001 - Faust reads one key or all
        entries.seek(self._places.get(partition, prefix))
        while entries.valid() and entries.key().startswith(prefix) and len(found) < limit:
            found.append((entries.key(), entries.value()))
            entries.next()
        self._places[partition] = found[-1][0] + b"\0" if len(found) == limit else prefix
        return found

    def _next_in_memory(self, partition: int, limit: int) -> list[tuple[bytes, bytes]]:
        values = self.data.data
        keys = list(islice(self._rounds.get(partition, iter(())), limit))
        if not keys:
            prefix = b"%d|" % partition
            self._rounds[partition] = iter([key for key in values if key.startswith(prefix)])
            keys = list(islice(self._rounds[partition], limit))
        return [(key, values[key]) for key in keys if key in values]

    @staticmethod
    @contextmanager
    def partition_of(event: Any) -> Iterator[None]:
        """Within this block, reads and writes belong to the partition of `event`."""
        token = faust_streams._current_event.set(weakref.ref(event))  # noqa: SLF001 - see the module docstring
        try:
            yield
        finally:
            faust_streams._current_event.reset(token)  # noqa: SLF001


def owner_of(headers: Any) -> int:
    """Token of the ownership under which a record of a changelog was written; 0 without one.

    Parameters
    ----------
    headers : mapping or sequence of (str, bytes), or None
        Of the record, as Faust or aiokafka gives them.
    """
    return int(dict(headers or {}).get(OWNER_HEADER, 0))


def _highest_owner_key(partition: int) -> bytes:
    """Of what a table remembers here alone: under a partition that nobody has, as no part of the state."""
    return counts_key(-1 - partition, "owner")


def _in_memory(store: Any) -> bool:
    return isinstance(store, memory.Store)


class Recovered(Recovery):
    """Faust's recovery, to which nothing is left to recover: ``stream.fencing`` does when it claims."""

    def need_recovery(self) -> bool:
        """Never."""
        return False


class Tables(TableManager):
    """Faust's manager of tables, which it tells of each commit that the broker has taken."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._recovery = Recovered(self.app, self, beacon=self.beacon, loop=self.loop)
        self.committed: dict[TP, int] = {}

    def on_commit(self, offsets: Mapping[TP, int]) -> None:
        """As Faust, and note the offsets."""
        super().on_commit(offsets)
        self.committed.update(offsets)


class CommittedReads(AIOKafkaConsumerThread):
    """Faust's client without what is of open or aborted transactions, and with short fetches."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"  # noqa: SLF001 - taken up when it starts
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS  # noqa: SLF001 - Faust: 1.5 s, for what is asked behind, too
        return consumer


class CommittedConsumer(Consumer):
    """Faust's consumer on that client."""

    def _new_consumer_thread(self) -> AIOKafkaConsumerThread:
        return CommittedReads(self, loop=self.loop, beacon=self.beacon)


class StreamApp:
    """The Faust app with its Kafka topics and tables, by name."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.faust = _faust_app(settings)
        if isolation_level(settings) == "read_committed":
            self.faust.transport.Consumer = CommittedConsumer
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
            options=dict(ROCKSDB),
        )
        self.faust.tables.add(table)
        return table

    def total(self, partition: int) -> Counts:
        """Stored total of one partition."""
        value = self.counts.value_at(partition, counts_key(partition, TOTAL))
        return Counts() if value is None else decode_counts(value)

    def committed(self, partition: int) -> int:
        """Offset of ``news.events`` below which nothing is delivered again; 0 while it is not known."""
        return int(self.faust.tables.committed.get(TP(self.settings.events_topic, partition), 0))

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
        Without a broker, or without space for the state.
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
    if shutil.disk_usage(settings.data_dir).free < SPACE_BYTES_MIN:
        message = f"the disk of {settings.data_dir} (STANCEWATCH_DATA_DIR) is full: free some space"
        raise ConfigurationError(message)
    session = settings.session_timeout_seconds
    record_bytes = settings.record_bytes_max + 65_536  # headers of a dead letter come on top
    return faust.App(
        settings.group,
        broker=[f"kafka://{address}" for address in settings.bootstrap_servers],
        broker_credentials=_credentials(settings),
        store="memory://" if settings.store == "memory" else "rocksdb://",
        datadir=str(settings.data_dir / quote(settings.group, safe="")),  # the state is that of one group
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
        producer_max_batch_size=1 if settings.embedded else 65_536,  # or it tells wrong log ends
        # Faust stalls for a second whenever this fills up (DESIGN section 7).
        stream_buffer_maxsize=32_768,
        stream_wait_empty=False,
        table_cleanup_interval=3600.0,
        table_standby_replicas=0,
        recovery_consistency_check=False,  # a new leader may tell an older end (stream.fencing)
        TableManager=Tables,
        reply_create_topic=False,
    )


def _credentials(settings: Settings) -> Any:
    context = tls_context(settings)
    if settings.security_protocol.startswith("SASL"):
        return faust.SASLCredentials(
            username=settings.sasl_username,
            password=settings.sasl_password.get_secret_value(),
            ssl_context=context,
            mechanism=settings.sasl_mechanism,
        )
    return faust.SSLCredentials(context=context) if context else None
