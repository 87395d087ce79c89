"""Dead letters: read what was rejected, and send it once more after the cause was mended.

Resending sends the original bytes under the original key to the partition of the origin topic in which they
stood: there, an id and version that was accepted before is recognised as a duplicate, so that a letter which
is sent twice counts once. That holds for records that could not be decoded, too: as soon as they can be, they
have an id.

**What was resent is remembered** in ``news.dead-letters.resent``, a compacted Kafka topic with one record a
letter (key: its partition and offset). It is as durable as the letters themselves, needs no further service,
and any tool can read it. The commit metadata of a consumer group would not do: Kafka forgets it after seven
days without members, and it can tell a position but not a choice. The record is written *after* the broker
has confirmed the resent event: a crash between the two sends the letter once more at the next resend, and the
event is recognised then. The other order could lose it.

**A letter that fails again** names the letter that it came from and how often it was sent: the resent record
carries the headers ``resent_from`` (``topic:partition:offset``) and ``resent_times``, the worker copies them
to the new letter. From then on the new letter stands for the old one, which is never resent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from stream.clients import topic_partitions
from stream.errors import BrokerError, ConfigurationError, StancewatchError
from stream.letters import Filter, Letter, Position, Resent, Status, remembered, status_of
from stream.reading import admin_client, partitions_of, producer, ranges, read, reader
from stream.settings import Settings

__all__ = ["DeadLetters"]

FLUSH_LETTERS = 100
FLUSH_BYTES = 8_388_608


class DeadLetters:
    """The dead letters of one broker, and what is remembered of them.

    Parameters
    ----------
    settings : Settings
        Broker and names of topics.
    progress : callable
        Called with the number of offsets read and in all.
    """

    def __init__(
        self, settings: Settings, progress: Callable[[int, int], None] = lambda _done, _total: None
    ) -> None:
        self.settings = settings
        self.progress = progress
        self.topic = settings.dead_letters_topic
        self.memory_topic = f"{self.topic}.resent"
        self.memory: dict[Position, Resent] = {}
        self.later: dict[Position, Position] = {}

    async def find(self, wanted: Filter) -> list[tuple[Letter, Status]]:
        """Letters that fit, without their bytes, by time, with what a resend makes of each.

        Raises
        ------
        StancewatchError
            When there is no such topic.
        """
        if not await partitions_of(self.settings, self.topic):
            message = (
                f"there is no Kafka topic {self.topic} on {self.settings.broker}:"
                " the first worker creates it; check STANCEWATCH_TOPIC_PREFIX"
            )
            raise StancewatchError(message)
        async with reader(self.settings) as consumer:
            self.memory = await self._read_memory(consumer)
            letters = []
            async for letter in self._read(consumer):
                if letter.resent_from is not None and letter.resent_from[0] == self.topic:
                    self.later[letter.resent_from[1:]] = (letter.partition, letter.offset)
                if wanted.fits(letter):
                    letters.append(letter)
        earliest = datetime.min.replace(tzinfo=UTC)
        letters.sort(key=lambda letter: (letter.failed_at or earliest, letter.partition, letter.offset))
        events_topic = self.settings.events_topic
        return [(each, status_of(each, events_topic, self.memory, self.later)) for each in letters]

    def times(self, letter: Letter) -> int:
        """How often the record of a letter was resent, this letter's own resends included."""
        known = remembered(letter, self.memory)
        return letter.resent_before + (known.times if known else 0)

    async def contents(self, letters: Sequence[Letter]) -> AsyncIterator[Letter]:
        """The same letters with their bytes and headers, partition by partition in order of offset."""
        async with reader(self.settings) as consumer:
            async for letter in self._read(consumer, letters):
                yield letter

    async def resend(self, letters: Sequence[Letter]) -> int:
        """Send letters back and remember each as soon as the broker has it; how many.

        Raises
        ------
        BrokerError
            When the broker does not take a record or the memory cannot be created.
        """
        if not letters:
            return 0
        await self._create_memory()
        events = await partitions_of(self.settings, self.settings.events_topic)
        targets = {place.partition for place in events}
        sent = 0
        batch: list[Letter] = []
        async with producer(self.settings) as client:
            async for letter in self.contents(letters):
                batch.append(letter)
                if len(batch) >= FLUSH_LETTERS or sum(each.size for each in batch) >= FLUSH_BYTES:
                    sent += await self._send(client, batch, targets)
                    self.progress(sent, len(letters))
                    batch = []
            sent += await self._send(client, batch, targets)
        self.progress(sent, len(letters))
        return sent

    async def _send(self, client: AIOKafkaProducer, batch: Sequence[Letter], targets: set[int]) -> int:
        """Send a batch, wait for the broker, remember it, wait again."""
        sending = []
        for letter in batch:
            partition = letter.origin[0] if letter.origin and letter.origin[0] in targets else None
            headers = [
                ("resent_from", f"{self.topic}:{letter.position}".encode()),
                ("resent_times", str(self.times(letter) + 1).encode()),
            ]
            arguments = {"key": letter.key, "value": letter.value, "partition": partition, "headers": headers}
            sending.append(await client.send(self.settings.events_topic, **arguments))
        confirmed = await asyncio.gather(*sending)
        remembering = []
        for letter, at in zip(batch, confirmed, strict=True):
            known = remembered(letter, self.memory)
            entry = Resent(
                failed_at=letter.failed_at.isoformat() if letter.failed_at else "",
                times=(known.times if known else 0) + 1,
                resent_at=datetime.now(UTC).isoformat(),
                to=f"{at.topic}:{at.partition}:{at.offset}",
            )
            self.memory[letter.partition, letter.offset] = entry
            written = msgspec.json.encode(entry)
            remembering.append(
                await client.send(self.memory_topic, key=letter.position.encode(), value=written)
            )
        await asyncio.gather(*remembering)
        return len(batch)

    async def _read(
        self, consumer: AIOKafkaConsumer, wanted: Sequence[Letter] | None = None
    ) -> AsyncIterator[Letter]:
        """All letters without bytes, or those `wanted` with them."""
        stretches = await ranges(consumer, await partitions_of(self.settings, self.topic))
        positions = {(letter.partition, letter.offset) for letter in wanted or ()}
        if wanted is not None:
            stretches = {
                place: (min(offsets), max(offsets) + 1)
                for place in stretches
                if (offsets := [offset for partition, offset in positions if partition == place.partition])
            }
        done, total = 0, sum(end - begin for begin, end in stretches.values())

        def advance(offsets: int) -> None:
            nonlocal done
            done += offsets
            if wanted is None:
                self.progress(done, total)

        async for record in read(consumer, stretches, advance):
            if wanted is None or (record.partition, record.offset) in positions:
                yield Letter.of(record, whole=wanted is not None)

    async def _read_memory(self, consumer: AIOKafkaConsumer) -> dict[Position, Resent]:
        """What was resent; the last record of a letter counts."""
        memory: dict[Position, Resent] = {}
        stretches = await ranges(consumer, await partitions_of(self.settings, self.memory_topic))
        async for record in read(consumer, stretches):
            try:
                partition, _, offset = (record.key or b"").decode().partition(":")
                entry = msgspec.json.decode(record.value or b"", type=Resent)
                memory[int(partition), int(offset)] = entry
            except ValueError:
                continue  # written by something else than us
        return memory

    async def _create_memory(self) -> None:
        if await partitions_of(self.settings, self.memory_topic):
            return
        if not self.settings.create_topics:
            message = (
                f"there is no Kafka topic {self.memory_topic}: create it with one partition and"
                " cleanup.policy=compact, or set STANCEWATCH_CREATE_TOPICS=true"
            )
            raise ConfigurationError(message)
        topic = NewTopic(
            self.memory_topic,
            num_partitions=1,
            replication_factor=self.settings.replication,
            topic_configs={"cleanup.policy": "compact"},
        )
        async with admin_client(self.settings) as admin:
            answer = await admin.create_topics([topic])
        for name, code, *detail in answer.topic_errors:
            if code not in (0, TopicAlreadyExistsError.errno):
                message = f"cannot create the Kafka topic {name}: {for_code(code).__name__} {detail}"
                raise BrokerError(message)
        await topic_partitions(self.settings, self.memory_topic)
