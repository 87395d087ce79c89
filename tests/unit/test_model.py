"""Random histories of two workers on two partitions, against a plain model of the counts.

All but Kafka and the classifier is the real thing: the processor, the tables (in memory), the fence, and what
begins after a rebalance. Kafka is lists: a log and two changelogs for each partition.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import pytest
from faust.types import TP
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from prometheus_client import CollectorRegistry

from stream import fencing
from stream.agents import EventProcessor
from stream.app import OWNER_HEADER, StateTable, StreamApp
from stream.errors import StateError
from stream.metrics import Metrics
from stream.tables import Counts, stored
from stream.worker import WorkerState
from tests.doubles import OutputTopic, WordAssessor
from tests.stack import settings_for
from tests.unit.test_processor import Planned, planned, reference, stored_votes

PARTITIONS = 2
PARTITION = st.integers(0, PARTITIONS - 1)
ROWS = st.lists(planned, min_size=1, max_size=4)
BATCH = 6
LOST = st.one_of(st.just(set[int]()), st.sets(st.integers(0, 3 * BATCH)))
"""Which of the writes in hand never arrive, by their order; often none."""
EVENTS = "news.events"


class Written(NamedTuple):
    """A record of a changelog."""

    key: bytes
    value: bytes | None
    owner: int


class Brokers:
    """Logs, changelogs and committed offsets."""

    def __init__(self) -> None:
        self.log: dict[int, list[Planned]] = {number: [] for number in range(PARTITIONS)}
        self.changelogs: dict[TP, list[Written]] = {}
        self.committed: dict[int, int] = {}
        self.untold: dict[TP, int] = {}
        """How many of a changelog's last records its new leader does not tell of yet."""

    def end(self, place: TP) -> int:
        """Where a partition ends."""
        return len(self.log[place.partition] if place.topic == EVENTS else self.changelog(place))

    def changelog(self, place: TP) -> list[Written]:
        """One partition of a changelog."""
        return self.changelogs.setdefault(place, [])

    @asynccontextmanager
    async def reader(self, _settings: object) -> AsyncIterator[Brokers]:
        """As stream.reading."""
        yield self

    async def read(self, _consumer: object, wanted: Mapping[Any, tuple[int, int]]) -> AsyncIterator[Any]:
        """As stream.reading; it takes a while."""
        for _ in range(10):
            await asyncio.sleep(0)
        for place, (begin, end) in wanted.items():
            for record in self.records(TP(*place), begin, end):
                yield record

    async def missing(self, _place: TP, begin: int, end: int, known: Collection[int]) -> int | None:
        """As stream.reading: these logs have no holes."""
        return next((offset for offset in range(begin, end) if offset not in known), None)

    def records(self, place: TP, begin: int, end: int) -> list[Any]:
        """A stretch of a changelog, as a consumer gives it."""
        return [
            SimpleNamespace(
                topic=place.topic,
                partition=place.partition,
                offset=offset,
                key=record.key,
                value=record.value,
                headers=[(OWNER_HEADER, b"%d" % record.owner)],
            )
            for offset, record in enumerate(self.changelog(place)[begin:end], begin)
        ]


class Consumer:
    """What the worker asks of Faust's consumer."""

    def __init__(self, brokers: Brokers) -> None:
        self.brokers = brokers
        self.places: set[TP] = set()
        self.position: dict[int, int] = {}
        self._gap: dict[TP, Any] = {}

    def assignment(self) -> set[TP]:
        """Partitions of the log."""
        return self.places

    async def seek_to_committed(self) -> dict[TP, int | None]:
        """The committed offsets."""
        return {place: self.brokers.committed.get(place.partition) for place in self.places}

    async def highwaters(self, *places: TP) -> dict[TP, int]:
        """Where partitions end, as far as their leaders tell."""
        return {place: self.brokers.end(place) - self.brokers.untold.pop(place, 0) for place in places}

    async def earliest_offsets(self, *places: TP) -> dict[TP, int]:
        """Where partitions begin."""
        return dict.fromkeys(places, 0)

    def topic_partitions(self, _topic: str) -> int:
        """How many there are."""
        return PARTITIONS

    async def seek_wait(self, offsets: Mapping[TP, int]) -> None:
        """Read from there."""
        self.position |= {place.partition: offset for place, offset in offsets.items()}


class Confirmation(asyncio.Future[Any]):
    """Of a write; Faust asks it for the partition at once."""

    def __init__(self, partition: int) -> None:
        super().__init__()
        self.message = SimpleNamespace(partition=partition)


class Write(NamedTuple):
    """A write on its way to a changelog."""

    place: TP
    record: Written
    confirmed: Confirmation


class Process:
    """A worker process.

    Parameters
    ----------
    brokers : Brokers
    before : Process, optional
        One that had the same folder: what it stored is found again.
    """

    def __init__(self, brokers: Brokers, before: Process | None = None) -> None:
        self.brokers = brokers
        self.held: list[Write] | None = None
        """Writes that are held up on their way; None: they arrive at once."""
        self.confirming = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.app = StreamApp(settings_for("127.0.0.1:9", store="memory"))
        self.app.assessments = self.app.dead_letters = OutputTopic()
        self.app.faust._consumer = self.consumer = Consumer(brokers)
        self.faust = self.app.faust = SimpleNamespace(
            consumer=self.consumer,
            consumer_generation_id=0,
            producer=SimpleNamespace(buffer=SimpleNamespace()),
            tables=SimpleNamespace(
                committed={},
                recovery=SimpleNamespace(completed=SimpleNamespace(is_set=lambda: True)),
            ),
            started=True,
            rebalancing=False,
            in_recovery=False,
            flow_control=SimpleNamespace(is_active=lambda: True),
            topics=[SimpleNamespace(queue=asyncio.Queue())],
        )
        self.tables = (self.app.identities, self.app.counts)
        self.stored: dict[TP, int] = dict(before.stored) if before else {}
        """What of the changelogs is known to be stored here."""
        for number, table in enumerate(self.tables):
            table._send = partial(self._send, table)  # type: ignore[method-assign]
            table.data.set_persisted_offset = self.stored.__setitem__
            table.data.persisted_offset = self.stored.get
            if before:
                table.data.data.update(before.tables[number].data.data)
        metrics = Metrics.create(CollectorRegistry(), model={"name": "words"})
        self.processor = EventProcessor(self.app, WordAssessor(), metrics, self.app.settings)  # type: ignore[arg-type]
        self.processor.order._missing = brokers.missing
        self.state = WorkerState(self.app, self.processor)

    def _send(self, table: StateTable, partition: int, key: bytes, value: bytes | None) -> Any:
        place = TP(table.changelog_topic_name, partition)
        confirmed = Confirmation(partition)
        write = Write(place, Written(key, value, table.owners.get(partition, 0)), confirmed)
        if self.held is None:
            self.arrive(write)
        else:
            self.held.append(write)
            self.confirming.set()
        return confirmed

    def arrive(self, write: Write) -> None:
        """A write is in the changelog."""
        log = self.brokers.changelog(write.place)
        log.append(write.record)
        if not write.confirmed.done():
            write.confirmed.set_result(SimpleNamespace(topic_partition=write.place, offset=len(log) - 1))

    async def take(self, partitions: Iterable[int], generation: int) -> None:
        """Recover partitions and begin with them."""
        self.faust.consumer_generation_id = generation
        self.consumer.places = {TP(self.app.settings.events_topic, number) for number in partitions}
        await self.state.begin()
        for table in self.tables:  # as Faust
            places = {TP(table.changelog_topic_name, place.partition) for place in self.consumer.places}
            await table.on_recovery_completed(places, set())

    async def process(self, partition: int, count: int) -> None:
        """Take the next records of a partition from bytes to acknowledged."""
        position = self.consumer.position[partition]
        batch = []
        for offset, row in enumerate(self.brokers.log[partition][position : position + count], position):
            event = row.at(offset)
            event.message.partition = partition
            event.message.generation_id = self.faust.consumer_generation_id
            batch.append(event)
        self.consumer.position[partition] += len(batch)
        await self.processor.process(batch)


def expected_outcomes(log: Iterable[Planned]) -> Counter[str]:
    """What becomes of each record, in one plain pass."""
    known: dict[str, int] = {}
    outcomes: Counter[str] = Counter()
    for row in log:
        duplicate = row.version <= known.get(row.event_id, 0)
        if row.text == "bad" or (row.text == "crash" and not row.retracted and not duplicate):
            outcomes["dead_letter"] += 1
        elif duplicate:
            outcomes["duplicate"] += 1
        else:
            corrects = row.event_id in known
            known[row.event_id] = row.version
            voted = "assessed" if ":" in row.text else "off_topic"
            outcomes["retracted" if row.retracted else "corrected" if corrects else voted] += 1
    return outcomes


class Model(RuleBasedStateMachine):
    """Two workers of one group; whoever is not frozen shares the partitions."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.brokers = Brokers()
        self.patches = ExitStack()
        for name in ("reader", "read"):
            self.patches.enter_context(mock.patch.object(fencing, name, getattr(self.brokers, name)))
        self.generation = 0
        self.workers = [self.do(self._start, None) for _ in range(2)]
        self.owners: dict[int, int] = {}

    def do(self, function: Any, *arguments: Any) -> Any:
        """Run to the end on the loop of this history."""
        return self.loop.run_until_complete(function(*arguments))

    async def _start(self, before: Process | None) -> Process:
        return Process(self.brokers, before)

    def rebalance(self, owners: Mapping[int, int]) -> None:
        """Another generation: who is awake takes its partitions; the others do not know."""
        self.generation += 1
        self.owners = dict(owners)
        for number, process in enumerate(self.workers):
            if process.task is None:
                own = [partition for partition, owner in owners.items() if owner == number]
                self.do(process.take, own, self.generation)

    def awake(self) -> list[int]:
        """Workers that are not frozen."""
        return [number for number, process in enumerate(self.workers) if process.task is None]

    def teardown(self) -> None:
        """In the end all is handled, and every count is right: here, and for who recovers from scratch."""
        try:
            self.settle()
        finally:
            self.close()

    def close(self) -> None:
        """Leave nothing behind."""
        self.patches.close()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def settle(self) -> None:
        """Wake who is frozen, deliver all, let the owners look; compare."""
        for number, process in enumerate(self.workers):
            if process.task is not None:
                self.do(self._go_on, process, process.held or [])
                self.workers[number] = self.do(self._start, process)
        for partition, owner in self.owners.items():
            self.do(self.workers[owner].process, partition, 1000)
        self.brokers.untold.clear()  # a look at what is told comes too early; the next one sees it
        for process in self.workers:
            self.do(process.state.look)
        self.compare()
        self.workers = [self.do(self._start, None), self.workers[1]]
        self.rebalance(dict.fromkeys(range(PARTITIONS), 0))
        self.compare()

    def compare(self) -> None:
        """State of the owners against one plain pass over the log."""
        for partition, owner in self.owners.items():
            counts = self.workers[owner].app.counts.data.data
            log = self.brokers.log[partition]
            assert stored_votes(counts, partition) == reference(log), partition
            assert self.workers[owner].app.total(partition).outcomes == expected_outcomes(log)
            for table in self.workers[owner].tables:
                written = self.brokers.changelog(TP(table.changelog_topic_name, partition))
                last = {record.key: record.value for record in written}
                assert last == {key: table.value_at(partition, key) for key in last}  # as an audit reads it

    @initialize()
    def join(self) -> None:
        """The first generation."""
        self.rebalance({0: 0, 1: 1})

    def publish(self, partition: int, rows: Sequence[Planned]) -> None:
        """First versions, corrections, retractions, duplicates, poison: what a few ids and versions give."""
        self.brokers.log[partition] += rows

    @rule(partition=PARTITION, rows=ROWS, count=st.integers(1, BATCH), commits=st.booleans())
    def deliver(self, partition: int, rows: list[Planned], count: int, commits: bool) -> None:
        """A batch, from bytes to acknowledged, and perhaps committed; some may be left for later."""
        self.publish(partition, rows)
        process = self.workers[self.owners[partition]]
        if process.task is None:
            self.do(process.process, partition, count)
            if commits:
                offset = process.processor.acknowledged.waiting(partition, 0)[0] + 1
                self.brokers.committed[partition] = offset
                process.faust.tables.committed[TP(process.app.settings.events_topic, partition)] = offset

    @rule(data=st.data())
    def move(self, data: st.DataObject) -> None:
        """A rebalance among those that are awake; what is not committed is delivered again."""
        awake = self.awake()
        if awake:
            self.rebalance({partition: data.draw(st.sampled_from(awake)) for partition in range(PARTITIONS)})

    @rule(data=st.data(), steps=st.integers(0, 60))
    def move_twice(self, data: st.DataObject, steps: int) -> None:
        """A rebalance before the recovery of another is over: Faust cancels that, and does not wait."""
        awake = self.awake()
        if awake:
            self.do(self._begin_and_cancel, self.workers[data.draw(st.sampled_from(awake))], steps)
            self.move(data)

    async def _begin_and_cancel(self, process: Process, steps: int) -> None:
        self.generation += 1
        begun = asyncio.ensure_future(process.take(range(PARTITIONS), self.generation))
        for _ in range(steps):
            await asyncio.sleep(0)
        begun.cancel()
        await asyncio.gather(begun, return_exceptions=True)

    @rule(partition=PARTITION, untold=st.integers(1, 3), table=st.integers(0, 1))
    def change_leader(self, partition: int, untold: int, table: int) -> None:
        """The next recovery of a changelog ends early: its new leader does not tell all yet."""
        place = TP(self.workers[0].tables[table].changelog_topic_name, partition)
        self.brokers.untold[place] = untold

    @rule(partition=PARTITION)
    def mend(self, partition: int) -> None:
        """What is a dead letter could be read from now on: it stays one until it is sent again."""
        process = self.workers[self.owners[partition]]
        if process.task is None:
            log = self.brokers.log[partition]
            for offset in range(process.consumer.position[partition]):
                if log[offset].text in {"bad", "crash"}:
                    log[offset] = replace(log[offset], mended=True)

    @rule(data=st.data())
    def set_back(self, data: st.DataObject) -> None:
        """Somebody set the committed offsets back: what was counted comes again."""
        for partition, offset in list(self.brokers.committed.items()):
            self.brokers.committed[partition] = data.draw(st.integers(0, offset))
        self.rebalance(self.owners)

    @precondition(lambda self: len(self.awake()) == len(self.workers))
    @rule(partition=PARTITION, rows=ROWS, more=ROWS)
    def freeze(self, partition: int, rows: list[Planned], more: list[Planned]) -> None:
        """A worker stands still with a batch in hand, counted, not in the changelog; the other goes on."""
        self.publish(partition, rows)
        number = self.owners[partition]
        if self._hold(number, partition):
            self.rebalance(dict.fromkeys(range(PARTITIONS), 1 - number))
            self.deliver(partition, more, BATCH, commits=True)

    def _hold(self, number: int, partition: int) -> bool:
        """Let a worker take a batch up to where it waits for the changelog; whether there was one."""
        process = self.workers[number]
        process.held = []

        async def until_it_waits() -> None:
            process.confirming.clear()
            process.task = asyncio.ensure_future(process.process(partition, BATCH))
            waits = asyncio.ensure_future(process.confirming.wait())
            await asyncio.wait({process.task, waits}, return_when=asyncio.FIRST_COMPLETED)
            waits.cancel()

        self.do(until_it_waits)
        if process.task is not None and process.task.done():  # nothing to do for it
            process.task.result()
            process.task = process.held = None
        return process.task is not None

    @precondition(lambda self: len(self.awake()) == len(self.workers))
    @rule(partition=PARTITION, rows=ROWS, data=st.data(), steps=st.integers(0, 40))
    def move_during_a_batch(
        self, partition: int, rows: list[Planned], data: st.DataObject, steps: int
    ) -> None:
        """A rebalance while a batch is being confirmed, of a partition that stays or moves away.

        In the second case its worker may take itself for one that stood still.
        """
        self.publish(partition, rows)
        number = self.owners[partition]
        process = self.workers[number]
        if self._hold(number, partition):
            owners = {place: data.draw(st.integers(0, 1)) for place in range(PARTITIONS)}
            self.rebalance(owners)  # of the others: it is busy
            own = [place for place in owners if owners[place] == number]
            try:
                self.do(self._take_while_busy, process, own, steps)
            except StateError:
                assert partition not in own
                self.workers[number] = self.do(self._start, process)
                self.rebalance(owners)

    async def _take_while_busy(self, process: Process, own: Iterable[int], steps: int) -> None:
        """After some steps; its writes arrive in the order in which it makes them."""
        assert process.task is not None
        taking: asyncio.Task[None] | None = None
        while not (taking and taking.done() and process.task.done()):
            if steps == 0:
                taking = asyncio.ensure_future(process.take(own, self.generation))
            steps -= 1
            await asyncio.sleep(0)
            if process.held:
                process.arrive(process.held.pop(0))
        ended, process.task, process.held = process.task, None, None
        await asyncio.gather(ended, taking)

    @precondition(lambda self: len(self.awake()) < len(self.workers))
    @rule(killed=st.booleans(), lost=LOST)
    def wake(self, killed: bool, lost: set[int]) -> None:
        """What the frozen has in hand goes out: all, and it notices that it is late; or some: it is killed.

        Its next process has no partitions until the next rebalance.
        """
        number = next(number for number, process in enumerate(self.workers) if process.task is not None)
        process = self.workers[number]
        writes, process.held = process.held or [], None
        if killed:
            self.do(self._end, process, writes, lost)
        else:
            self.do(self._go_on, process, writes)
        self.workers[number] = self.do(self._start, process)

    @staticmethod
    async def _go_on(process: Process, writes: Sequence[Write]) -> None:
        for write in writes:
            process.arrive(write)
        assert process.task is not None
        with pytest.raises(StateError, match="was taken over"):
            await process.task

    @rule(partition=PARTITION, rows=ROWS, keeps=st.booleans(), lost=LOST)
    def crash(self, partition: int, rows: list[Planned], keeps: bool, lost: set[int]) -> None:
        """SIGKILL with a batch in hand: any subset of its writes arrives; the folder is kept or lost."""
        self.publish(partition, rows)
        number = self.owners[partition]
        process = self.workers[number]
        if process.task is not None or not self._hold(number, partition):
            return
        writes, process.held = process.held or [], []
        self.do(self._end, process, writes, lost)
        self.workers[number] = self.do(self._start, process if keeps else None)
        self.rebalance(self.owners)

    @staticmethod
    async def _end(process: Process, writes: Sequence[Write], lost: set[int]) -> None:
        assert process.task is not None
        process.task.cancel()
        with suppress(asyncio.CancelledError):
            await process.task
        for number, write in enumerate(writes):
            if number not in lost:
                process.arrive(write)

    @rule()
    def look(self) -> None:
        """The owners look at the ends of the changelogs."""
        for process in self.workers:
            if process.task is None:
                self.do(process.state.look)


Model.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
test_random_histories_leave_the_counts_of_one_plain_pass = Model.TestCase


@pytest.fixture
def model() -> Iterator[Model]:
    """Two workers that have joined, for a history that is written out."""
    model = Model()
    try:
        model.join()
        yield model
    finally:
        model.close()


def test_a_log_that_ends_before_what_was_counted_stops_a_running_worker(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A topic that was created again under it."""
    monkeypatch.setattr("stream.worker.END_RESTS", (0.0,))
    row = Planned("a", 1, 0, "cloud:favor", retracted=False)
    model.deliver(partition=0, rows=[row], count=1, commits=True)
    state = model.workers[0].state
    model.do(state.look)
    model.brokers.log[0].clear()
    with pytest.raises(StateError, match="was deleted and created again"):
        model.do(state.look)


def test_late_writes_of_a_worker_that_then_died_are_not_believed_when_partitions_move(model: Model) -> None:
    """Without the total among them nothing is counted anew: hour and identity would stay as they were."""
    first = Planned("a", 1, 0, "cloud:favor", retracted=False)
    more = [replace(first, event_id="b"), replace(first, version=2, text="cloud:against")]
    model.freeze(partition=0, rows=[first], more=more)
    held = model.workers[0].held or []
    totals = {index for index, write in enumerate(held) if write.record.key.endswith(b"total")}
    assert (len(held), len(totals)) == (3, 1)
    model.wake(killed=True, lost=totals)
    model.move(mock.Mock(draw=mock.Mock(side_effect=[1, 1])))
    model.settle()


@pytest.mark.parametrize("kept", [0, 1])
def test_what_changelogs_have_lost_is_counted_again(model: Model, kept: int) -> None:
    """Their last batches are gone, though committed: reading begins where the state ends."""
    row = Planned("a", 1, 0, "cloud:favor", retracted=False)
    ends = [{place: len(log) for place, log in model.brokers.changelogs.items()}]
    for event_id in "ab":
        model.deliver(partition=0, rows=[replace(row, event_id=event_id)], count=1, commits=True)
        ends.append({place: len(log) for place, log in model.brokers.changelogs.items()})
    for place, log in model.brokers.changelogs.items():
        del log[ends[kept].get(place, 0) :]
    model.workers = [model.do(model._start, None) for _ in model.workers]
    model.rebalance(model.owners)
    begin = model.workers[0].consumer.position[0]
    model.settle()
    assert (model.brokers.committed[0], begin) == (2, kept)


@pytest.mark.parametrize("table", [0, 1], ids=["identities", "counts"])
def test_recovery_that_ended_early_is_completed(model: Model, table: int) -> None:
    """What a new leader did not tell was confirmed and committed: it is neither lost nor put right."""
    row = Planned("a", 1, 0, "cloud:favor", retracted=False)
    model.deliver(partition=0, rows=[row, replace(row, event_id="b")], count=2, commits=True)
    model.change_leader(partition=0, untold=1, table=table)
    model.workers = [model.do(model._start, None) for _ in model.workers]
    model.rebalance(model.owners)
    model.deliver(partition=0, rows=[row, replace(row, event_id="b")], count=2, commits=True)
    assert model.workers[0].app.total(0).outcomes == {"assessed": 2, "duplicate": 2}
    model.settle()


@pytest.mark.parametrize("table", [0, 1], ids=["identities", "counts"])
def test_a_changelog_that_was_created_again_stops_a_running_worker(model: Model, table: int) -> None:
    """What it goes on to write would be all that the next owner finds."""
    row = Planned("a", 1, 0, "cloud:favor", retracted=False)
    model.deliver(partition=0, rows=[row], count=1, commits=True)
    model.brokers.changelogs[TP(model.workers[0].tables[table].changelog_topic_name, 0)].clear()
    with pytest.raises(StateError, match="it was deleted and created again"):
        model.deliver(partition=0, rows=[replace(row, event_id="b")], count=1, commits=True)


@pytest.mark.parametrize("steps", range(0, 40, 2))
def test_a_rebalance_during_a_batch_is_not_taken_for_a_changelog_that_was_created_again(
    model: Model, steps: int
) -> None:
    """It comes while the batch reads what was written late: the claim must wait for the batch."""
    row = Planned("a", 1, 0, "cloud:favor", retracted=False)
    model.freeze(partition=0, rows=[row], more=[replace(row, event_id="b")])
    model.wake(killed=True, lost=set())
    draw = mock.Mock(return_value=1)
    model.move_during_a_batch(0, [replace(row, event_id="c")], mock.Mock(draw=draw), steps)
    model.settle()


def test_a_changelog_that_was_created_again_stops_a_worker_that_kept_its_folder(model: Model) -> None:
    """Its next owner would find less than this one has."""
    row = Planned("a", 1, 0, "cloud:favor", retracted=False)
    model.deliver(partition=0, rows=[row], count=1, commits=True)
    model.brokers.changelogs[TP(model.workers[0].app.counts.changelog_topic_name, 0)].clear()
    model.workers[0] = model.do(model._start, model.workers[0])
    with pytest.raises(StateError, match="it was deleted and created again"):
        model.rebalance(model.owners)


def test_a_recovery_that_is_cut_off_goes_on_where_it_stood(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read again, late writes before a token that is known would be believed, and written once more."""
    monkeypatch.setattr(fencing, "RECOVERY_BATCH", 1)
    row = Planned("a", 1, 0, "cloud:favor", retracted=False)
    model.deliver(partition=0, rows=[row], count=1, commits=True)
    table = model.workers[0].tables[1]
    changelog = model.brokers.changelog(TP(table.changelog_topic_name, 0))
    hour = next(record for record in changelog if not record.key.endswith((b"total", b"0")))
    model.rebalance({0: 1, 1: 1})
    changelog.append(hour._replace(value=stored(Counts(offset=0, votes={"cloud": {"against": 7}}))))
    model.generation += 1
    changelog.append(Written(b"0", None, model.generation))  # who claimed it died before it put that right

    async def stall(consumer: object, wanted: Mapping[Any, tuple[int, int]]) -> AsyncIterator[Any]:
        async for record in model.brokers.read(consumer, wanted):
            yield record
        await asyncio.Event().wait()

    with mock.patch.object(fencing, "read", stall):
        model.do(model._begin_and_cancel, model.workers[0], 60)
    assert table.late
    model.rebalance({0: 0, 1: 0})
    model.settle()


def test_what_moved_away_and_came_back_is_still_known(model: Model) -> None:
    """Faust would drop from memory what was recovered; recovery goes on where our state ends."""
    rows = [Planned(event_id, 1, 0, "cloud:favor", retracted=False) for event_id in "ab"]
    model.deliver(partition=1, rows=rows, count=2, commits=True)
    for owner in (0, 1, 0):
        model.rebalance({0: 0, 1: owner})
    model.deliver(partition=1, rows=rows, count=2, commits=True)
    model.settle()


def test_a_worker_is_not_ready_before_it_has_begun(model: Model) -> None:
    """Also where Faust takes the rebalance for over: one that began while the recovery before it ended."""
    state = model.workers[0].state
    told: list[str] = []
    recover = state.processor.fence.recover

    async def tell(partitions: Iterable[TP]) -> None:
        await recover(partitions)
        told.append(state.recovering())

    with mock.patch.object(state.processor.fence, "recover", tell):
        model.rebalance({0: 0, 1: 0})
    assert (told, state.recovering()) == (["recovering state from the changelog"], "")
    model.rebalance({0: 1, 1: 1})
    assert state.recovering() == ""


def test_records_that_wait_in_faust_are_not_read_again(model: Model) -> None:
    """Those of other partitions stand before them, for minutes when there is much to catch up on."""
    process = model.workers[0]
    (waiting,) = process.faust.topics
    model.publish(0, [Planned("a", 1, 0, "cloud:favor", retracted=False)])
    with mock.patch.object(process.app, "seek") as seek:
        waiting.queue.put_nowait("of another partition")
        for _ in range(3):
            model.do(process.state.look)
        waiting.queue.get_nowait()
        model.do(process.state.look)
        seek.assert_not_awaited()
        model.do(process.state.look)
        seek.assert_awaited_once_with({TP(EVENTS, 0): 0})
