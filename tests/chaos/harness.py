"""Runs workers on a cluster under a stream of events while faults are injected, then checks every count."""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from stream.audit import Audit
from stream.audit_report import Report
from stream.clients import create_topics
from stream.embedded import WorkerProcess
from stream.errors import StancewatchError
from stream.settings import Settings
from tests.chaos.feed import Feed, Logged, Planned, expectation
from tests.kafka_server import KafkaCluster, KafkaServer
from tests.stack import Votes, outcomes, settings_for, votes, worker

CLUSTER = {"group.min.session.timeout.ms": "1000"}
"""Broker settings for short sessions: a crashed worker's partitions are free after 5 s, not 6 or more."""
SESSION_SECONDS = 5.0
OFFSETS_PARTITIONS = 4
"""As ``tests/kafka_server.py`` sets it."""
REDELIVERED = re.compile(rb"^stancewatch_redelivered_skipped_total (\S+)", re.MULTILINE)


class Sentinel(WorkerProcess):
    """A worker that kills or stops itself at a step."""

    module = "tests.chaos.sentinel"


@dataclass
class Result:
    """What a run did and found.

    Attributes
    ----------
    seed : int
    events : int
        Records in the log.
    faults : dict
        Faults injected, by kind.
    redelivered : int
        Records that workers recognised as delivered again (what a worker skipped after the last look at it,
        less than half a second before its end, is not in it).
    exits : list of str
        Workers that ended by themselves, with code and last line; they were started again.
    differences : int
        Figures that differ: in the audit, and between the workers' pages and the expectation.
    found : list of str
        Those, described.
    """

    seed: int
    events: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    redelivered: int = 0
    exits: list[str] = field(default_factory=list)
    differences: int = 0
    found: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return json.dumps(asdict(self), indent=2)


class Publisher(threading.Thread):
    """Publishes planned records, a number of them or until stopped; each once and in order (idempotent)."""

    def __init__(
        self, settings: Settings, log: list[Logged], records: Iterator[Planned], rate: float
    ) -> None:
        super().__init__(daemon=True)
        self.settings = settings
        self.log = log
        self.records = records
        self.rate = rate
        self.ended = threading.Event()
        self.errors: list[KafkaError] = []

    def run(self) -> None:
        """Publish at the rate; return when the brokers have confirmed everything."""
        producer = Producer(
            {
                "bootstrap.servers": self.settings.broker,
                "enable.idempotence": True,
                "linger.ms": 5,
                "log_level": 0,  # brokers come and go here
            }
        )
        begin = time.monotonic()
        for number, planned in enumerate(self.records):
            producer.produce(
                self.settings.events_topic,
                key=planned.key,
                value=planned.value,
                timestamp=int(planned.moment.timestamp() * 1000),
                on_delivery=self._note(planned),
            )
            producer.poll(0)
            if self.ended.wait(max(0.0, begin + (number + 1) / self.rate - time.monotonic())):
                break
        left = producer.flush(120)
        if left:
            self.errors.append(KafkaError(KafkaError._MSG_TIMED_OUT, f"{left} records were not confirmed"))

    def _note(self, planned: Planned) -> Callable[[KafkaError | None, Any], None]:
        def note(error: KafkaError | None, message: Any) -> None:
            if error is not None:
                self.errors.append(error)
            else:
                self.log.append(Logged(message.partition(), message.offset(), planned.row))

        return note

    def finish(self) -> None:
        """Wait until all is published and confirmed.

        Raises
        ------
        KafkaException
            When a record could not be published.
        """
        self.join()
        if self.errors:
            raise KafkaException(self.errors[0])


class Chaos:
    """A cluster, workers by name, a log with its expectation; a context manager.

    Parameters
    ----------
    cluster : KafkaCluster
    folder : Path
        For logs and state of the workers.
    names : mapping
        Topic prefix and group, as settings.
    seed : int
        Of the events and of every choice of a fault.
    rate : float
        Events per second.
    feed : Feed, optional
        The events; by default of `seed`, published now.
    environment : object
        Other settings of the workers.
    """

    def __init__(
        self,
        cluster: KafkaCluster,
        folder: Path,
        names: dict[str, str],
        seed: int,
        *,
        rate: float = 60.0,
        feed: Feed | None = None,
        **environment: object,
    ) -> None:
        self.cluster = cluster
        self.folder = folder
        self.environment = {
            "replication": 3,
            "session_timeout_seconds": SESSION_SECONDS,
            "commit_interval_seconds": 3,
            "batch_events": 32,
            **names,
            **environment,
        }
        self.settings = settings_for(cluster.bootstrap, **self.environment)
        self.rate = rate
        self.random = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self.feed = feed or Feed(seed)
        self.log: list[Logged] = []
        self.workers: dict[str, WorkerProcess] = {}
        self.resting: set[str] = set()
        """Workers that are not to be started again when they end."""
        self.result = Result(seed)
        self.faults: Counter[str] = Counter()
        self.refused = ""
        """Why the last audit could not be done."""
        self._skipped: dict[int, int] = {}
        """Records skipped by each worker process so far."""
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        asyncio.run(create_topics(self.settings))
        self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._sampler.join()
        for process in self.workers.values():
            process.keep_nothing = True
            process.__exit__(kind, error, trace)

    def _sample(self) -> None:
        while not self._over.wait(0.4):
            self._look()

    def _look(self) -> None:
        for process in list(self.workers.values()):
            try:
                pid = process.process.pid
                with urllib.request.urlopen(process.metrics_url, timeout=1) as page:  # noqa: S310 - our own worker
                    found = REDELIVERED.search(page.read())
            except (OSError, StancewatchError):
                continue  # it starts, ends or is frozen
            if found:
                self._skipped[pid] = int(float(found[1]))

    @property
    def redelivered(self) -> int:
        """Records delivered again and skipped, as far as they have been seen."""
        return sum(self._skipped.values())

    # workers

    def start(self, name: str, *, ready: bool = True, **environment: object) -> WorkerProcess:
        """Start a worker, again if it was there: same folder, port of its own."""
        self.workers[name] = worker(
            self.folder / name, self.cluster.bootstrap, **{**self.environment, **environment}
        ).__enter__()
        self.resting.discard(name)
        if ready:
            self.wait(self.workers[name].is_ready, f"worker {name} is ready")
        return self.workers[name]

    def start_sentinel(self, name: str, **hooks: object) -> WorkerProcess:
        """Start a worker with hooks of ``tests.chaos.sentinel``; it is not started again when it ends.

        One that gets a signal at a `step` has to be armed.
        """
        plain = worker(self.folder / name, self.cluster.bootstrap, **self.environment)
        hooks = {"visit": 1, "signal": "SIGKILL", "armed": self._armed(name), **hooks}
        self._armed(name).unlink(missing_ok=True)
        hook = {f"CHAOS_{key.upper()}": str(value) for key, value in hooks.items()}
        self.workers[name] = Sentinel(plain.folder, plain.environment | hook).__enter__()
        self.resting.add(name)
        return self.workers[name]

    def arm(self, name: str) -> None:
        """Let a sentinel count its visits from now on."""
        self._armed(name).touch()

    def _armed(self, name: str) -> Path:
        return self.folder / f"{name} is armed"

    def kill(self, name: str) -> None:
        """End a worker with SIGKILL."""
        self.resting.add(name)
        self.workers[name].process.kill()
        self.workers[name].process.wait()

    def terminate(self, name: str, seconds: float = 10.0) -> int:
        """End a worker with SIGTERM; its exit code."""
        self.resting.add(name)
        self.workers[name].process.terminate()
        return self.workers[name].process.wait(seconds)

    def choose(self) -> str:
        """One of the running workers, by chance."""
        return self.random.choice(sorted(name for name in self.workers if name not in self.resting))

    def live(self) -> list[WorkerProcess]:
        """Workers whose process runs."""
        return [process for process in self.workers.values() if process.process.poll() is None]

    def supervise(self) -> None:
        """Start workers again that ended by themselves, as an orchestrator does."""
        for name, process in list(self.workers.items()):
            if name not in self.resting and (code := process.process.poll()) is not None:
                last = (process.output.splitlines() or [""])[-1]
                self.result.exits.append(f"worker {name} ended with code {code}: {last}")
                self.start(name, ready=False)

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 90.0) -> None:
        """Poll until the condition holds, while workers are supervised."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                logs = "\n".join(f"{name}:\n{each.output}" for name, each in self.workers.items())
                told = f"{what} (handled {self.handled()}) {self.refused}"
                message = f"not within {seconds:.0f} s: {told}\n{logs}"
                raise AssertionError(message)
            self.supervise()
            self._over.wait(0.05)

    def pause(self, seconds: float) -> None:
        """Let time pass, while workers are supervised."""
        until = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() >= until, "the end of a pause", seconds + 60)

    def shown(self) -> tuple[Votes, dict[str, int]]:
        """Votes and outcomes on the pages of the workers; of those that answer."""
        answering = []
        for process in self.live():
            try:
                urllib.request.urlopen(process.metrics_url, timeout=2).close()  # noqa: S310 - our own worker
            except OSError:
                continue
            answering.append(process)
        return votes(*answering), outcomes(*answering)

    def handled(self) -> int:
        """Records that the state knows, as far as workers answer."""
        try:
            return sum(self.shown()[1].values())
        except OSError:
            return -1  # it ended while it was asked

    def wait_handled(self, count: int, seconds: float = 90.0) -> None:
        """Wait until so many records are counted."""
        self.wait(lambda: self.handled() >= count, f"{count} records handled", seconds)

    # brokers

    def admin(self) -> AdminClient:
        """A client for the administration of the cluster."""
        return AdminClient({"bootstrap.servers": self.cluster.bootstrap, "log_level": 0})

    def node(self, number: int) -> KafkaServer:
        """A broker by its number."""
        return next(node for node in self.cluster.nodes if node.node_id == number)

    def leader(self, partition: int = 0, topic: str = "") -> KafkaServer:
        """The broker that leads a partition, of the events if no other topic is named."""
        topic = topic or self.settings.events_topic
        found: list[int] = []

        def is_known() -> bool:
            try:
                described = self.admin().list_topics(topic, timeout=10).topics[topic]
            except KafkaException:
                return False
            found.append(described.partitions[partition].leader)
            return found[-1] > 0

        self.wait(is_known, f"{topic} {partition} has a leader")
        return self.node(found[-1])

    def coordinator(self) -> KafkaServer:
        """The broker that coordinates the workers' group: it leads the partition with the group's offsets.

        Which that is, Kafka tells by Java's hash of the group's name.
        """
        code = 0
        for letter in self.settings.group:
            code = (31 * code + ord(letter)) & 0xFFFFFFFF
        return self.leader((code & 0x7FFFFFFF) % OFFSETS_PARTITIONS, "__consumer_offsets")

    # events

    def publish(self, records: Iterable[Planned]) -> None:
        """Publish these as fast as they go; return when they are in the log."""
        publisher = Publisher(self.settings, self.log, iter(records), 10_000)
        publisher.start()
        publisher.finish()

    @contextmanager
    def flowing(self, records: Iterable[Planned] | None = None) -> Iterator[Publisher]:
        """While the block runs, events flow in at the rate: these, or those of the feed."""
        publisher = Publisher(self.settings, self.log, iter(records or iter(self.feed.next, None)), self.rate)
        publisher.start()
        try:
            yield publisher
            publisher.ended.set()
            publisher.finish()
        finally:
            publisher.ended.set()
            publisher.join()

    # the end

    def check(self, seconds: float = 120.0) -> Result:
        """Wait until everything is handled; compare log, state, pages and expectation."""
        expected = expectation(self.log)
        pages: list[tuple[Votes, dict[str, int]]] = []

        def are_complete() -> bool:
            """Twice: not in the middle of a rebalance, and votes that were read when all was counted."""
            with suppress(OSError):
                pages.append(self.shown())
            return len(pages) > 1 and all(sum(page[1].values()) == len(self.log) for page in pages[-2:])

        self.wait(are_complete, f"the pages show {len(self.log)} records", seconds)
        self._look()
        found = []
        for side, wanted in zip(pages[-1], expected, strict=True):
            if side != wanted:
                found.append(f"the pages show {side}, expected {wanted}")
        records, audited = self.audit()
        if records != len(self.log):
            found.append(f"the audit counted {records} of {len(self.log)} records")
        return self.note([*found, *audited])

    def audit(self) -> tuple[int, list[str]]:
        """What `stancewatch audit` counts and finds now; events may flow meanwhile."""
        reports: list[Report] = []

        def is_done() -> bool:
            live = self.live()
            if not all(process.is_ready() for process in live):
                return False
            urls = [process.metrics_url for process in live]
            try:
                reports.append(asyncio.run(Audit(self.settings, metrics_urls=urls, wait_seconds=60).run()))
            except StancewatchError as error:
                self.refused = str(error)  # workers come, go or lag: they are asked again
            return bool(reports)

        self.wait(is_done, "the audit", 180)
        (report,) = reports
        found = [
            f"{each.where}: {each.describe()}: log {each.log}, found {each.found}"
            for each in report.differences
        ]
        found += [f"{kind}: {each}" for kind, listed in report.findings.items() for each in listed]
        return report.records, found

    def note(self, found: Sequence[str]) -> Result:
        """Add what a check has found to the result."""
        result = self.result
        result.events, result.faults, result.redelivered = len(self.log), dict(self.faults), self.redelivered
        result.differences += len(found)
        result.found += found
        return result


def freeze(process: WorkerProcess) -> None:
    """SIGSTOP."""
    process.process.send_signal(signal.SIGSTOP)


def wake(process: WorkerProcess) -> None:
    """SIGCONT."""
    process.process.send_signal(signal.SIGCONT)


def is_frozen(process: WorkerProcess) -> bool:
    """Whether a process is stopped by a signal."""
    state = Path(f"/proc/{process.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "T"
