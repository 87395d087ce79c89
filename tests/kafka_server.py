"""Real Apache Kafka brokers as plain processes, for the tests (no Docker).

The jars come through Maven by the coordinates in ``tests/kafka/pom.xml``, once per machine, into
``~/.cache/stancewatch``. Afterwards neither Maven nor a network is needed, only Java 17 or newer.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TypeVar

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

POM = Path(__file__).parent / "kafka" / "pom.xml"
JARS_TIME_LIMIT = 300.0
_PORTS = iter(random.SystemRandom().sample(range(15000, 32000), 17000))

_JVM = ["-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]
_SETTINGS = """\
process.roles=broker,controller
node.id={node_id}
controller.quorum.voters={voters}
listeners=PLAINTEXT://{bootstrap},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://{bootstrap}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/data
auto.create.topics.enable=false
num.partitions=4
message.max.bytes=16777216
replica.fetch.max.bytes=16777216
group.initial.rebalance.delay.ms=0
# Records carry the time of their event, years ago: none is refused or deleted for its age, and
# segments do not end because the time stamps in them are far apart.
log.retention.hours=-1
log.roll.hours=876000
log.message.timestamp.before.max.ms=9223372036854775807
log.message.timestamp.after.max.ms=9223372036854775807
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# A killed broker is let in again only when its old session has ended (9 s by default).
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# A small process: by default the cleaner alone takes 128 MiB.
log.cleaner.dedupe.buffer.size=8388608
num.io.threads=2
num.network.threads=2
background.threads=2
"""
_LOG4J = """\
<Configuration status="WARN" shutdownHook="disable">
  <Appenders><Console name="out"><PatternLayout pattern="[%d] %p %m (%c)%n"/></Console></Appenders>
  <Loggers>
    <Root level="WARN"><AppenderRef ref="out"/></Root>
    <Logger name="kafka.server.KafkaRaftServer" level="INFO"/>
  </Loggers>
</Configuration>
"""


class KafkaUnavailable(RuntimeError):  # noqa: N818
    """No broker can be run on this machine; the message says why, for a test's skip."""


def _java() -> str:
    """Return the path of a ``java`` of version 17 or newer, or raise `KafkaUnavailable`."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    said = "there is none"
    if java is not None:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
        version = re.search(r'version "(\d+)', said)
        if version is not None and int(version[1]) >= 17:
            return java
    reason = f"Kafka needs Java 17 or newer: {said.strip()}"
    raise KafkaUnavailable(reason)


def kafka_jars() -> Path:
    """Return the folder with the broker's jars, which Maven fetches the first time.

    The folder is named after the version of Kafka and the contents of ``pom.xml``. Several
    processes may call this at once: one fetches, the others wait for it.

    Raises
    ------
    KafkaUnavailable
        If the jars are not there and Maven is missing, fails, or takes longer than 300 s.
    """
    pom = POM.read_bytes()
    version = re.findall(rb"<kafka.version>(.+)</kafka.version>", pom)[0].decode()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stancewatch"
    jars = cache / f"kafka-{version}" / hashlib.sha256(pom).hexdigest()[:12]
    complete = jars / "complete"
    deadline = time.monotonic() + JARS_TIME_LIMIT
    jars.parent.mkdir(parents=True, exist_ok=True)
    while not complete.exists():
        with (jars.parent / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    reason = f"Kafka's jars: another process holds {lock.name}"
                    raise KafkaUnavailable(reason) from None
                time.sleep(0.1)
                continue
            if not complete.exists():
                shutil.rmtree(jars, ignore_errors=True)
                _fetch_jars(jars, deadline - time.monotonic())
                complete.touch()
    return jars


def _fetch_jars(folder: Path, timeout: float) -> None:
    """Copy the jars that ``pom.xml`` names, and those they need, into `folder`."""
    command = ["mvn", "-q", "-B", "-Dstyle.color=never", "-f", str(POM), "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
    if shutil.which("mvn") is None:
        reason = "Kafka's jars are not cached and there is no mvn to fetch them"
        raise KafkaUnavailable(reason)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, text=True, process_group=0) as mvn:
        try:
            output, _ = mvn.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            reason = f"mvn did not fetch Kafka's jars in {JARS_TIME_LIMIT:.0f} s"
            raise KafkaUnavailable(reason) from None
        finally:
            if mvn.poll() is None:
                os.killpg(mvn.pid, signal.SIGKILL)
    if mvn.returncode != 0:
        errors = [line for line in output.splitlines() if "ERROR" in line]
        reason = f"mvn could not fetch Kafka's jars: {(errors or [output])[0]}"
        raise KafkaUnavailable(reason)


def free_port() -> int:
    """Return a free port below the range that the kernel gives to outgoing connections.

    A port in that range could be taken by any client while its broker is down. No port is given twice.
    """
    for port in _PORTS:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    reason = "no free port between 15000 and 32000"
    raise KafkaUnavailable(reason)


def _new_cluster_id() -> str:
    """Return an id of the form that Kafka makes; the letter keeps it from looking like an option."""
    return "k" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]


class KafkaServer:
    """One broker on 127.0.0.1 that is its own controller, with all its files in one folder.

    Parameters
    ----------
    folder : Path
        Where configuration, data and ``kafka.log`` go; made if it is missing.
    properties : Mapping[str, str], optional
        Broker settings that are added to, or replace, those made here.
    format_options : Sequence[str], optional
        For the formatting of the storage, such as ``--add-scram``.
    client : Mapping[str, str], optional
        What librdkafka needs to reach a broker that is no longer open to everybody.
    node_id, cluster_id
        For `KafkaCluster`; a broker alone is node 1 of a cluster of its own.
    """

    def __init__(
        self,
        folder: Path,
        properties: Mapping[str, str] | None = None,
        *,
        format_options: Sequence[str] = (),
        client: Mapping[str, str] | None = None,
        node_id: int = 1,
        cluster_id: str | None = None,
    ) -> None:
        self.folder = folder.resolve()
        self.log = self.folder / "kafka.log"
        self.properties = dict(properties or {})
        self.format_options = format_options
        self.client = dict(client or {})
        self.node_id = node_id
        self.cluster_id = cluster_id or _new_cluster_id()
        self.port = free_port()
        self.controller_port = free_port()
        self.voters = self.voter = f"{node_id}@127.0.0.1:{self.controller_port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """The broker's address, ``127.0.0.1:port``."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """The process id of the broker, None if it does not run."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def _command(self, *program: str) -> list[str]:
        """Return the command for one of Kafka's programs, which keeps its files in the folder."""
        options = [f"-Dlog4j2.configurationFile={self.folder}/log4j2.xml"]
        options += [f"-Djava.io.tmpdir={self.folder / 'tmp'}", f"-XX:ErrorFile={self.folder}/hs_err.log"]
        return [_java(), *_JVM, *options, "-cp", f"{kafka_jars()}/*", *program]

    def spawn(self) -> None:
        """Start the process without waiting for it; format its storage the first time."""
        if self.pid is not None:
            reason = f"the broker at {self.bootstrap} runs already"
            raise RuntimeError(reason)
        self.kill()
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        (self.folder / "log4j2.xml").write_text(_LOG4J)
        config = self.folder / "server.properties"
        # Of a setting that is there twice, Kafka takes the last.
        added = "".join(f"{name}={value}\n" for name, value in self.properties.items())
        config.write_text(_SETTINGS.format(**vars(self), bootstrap=self.bootstrap) + added)
        with self.log.open("ab") as log:
            if not (self.folder / "data" / "meta.properties").exists():
                tool = ("kafka.tools.StorageTool", "format", "-t", self.cluster_id, "-c", str(config))
                if (
                    subprocess.run(
                        self._command(*tool, *self.format_options), stdout=log, stderr=log, check=False
                    ).returncode
                    != 0
                ):
                    reason = f"Kafka's storage could not be formatted:\n{self.tail()}"
                    raise RuntimeError(reason)
            command = self._command("kafka.Kafka", str(config))
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        # Should this process end in whatever way and leave the broker running, the guard's pipe closes.
        guard = ("sh", "-c", f"read line || kill -s KILL -- -{self._process.pid}")
        self._guard = subprocess.Popen(guard, stdin=subprocess.PIPE, start_new_session=True)

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait until the broker answers a metadata request and names itself in the answer."""
        deadline = time.monotonic() + timeout
        # Level 0, or librdkafka reports each refused connection on stderr.
        admin = AdminClient(
            {
                "bootstrap.servers": self.bootstrap,
                "log_level": 0,
                "reconnect.backoff.max.ms": 200,
                **self.client,
            }
        )
        while True:
            if self.pid is None:
                reason = f"Kafka ended while it started:\n{self.tail()}"
                raise RuntimeError(reason)
            try:
                if self.node_id in admin.list_topics(timeout=1).brokers:
                    return
            except KafkaException:
                pass
            if time.monotonic() > deadline:
                self.kill()
                reason = f"Kafka was not ready in {timeout:.0f} s:\n{self.tail()}"
                raise TimeoutError(reason)
            time.sleep(0.05)

    def start(self, timeout: float = 60.0) -> None:
        """Start the broker and wait until it answers; an error carries the end of its log."""
        self.spawn()
        self.wait_ready(timeout)

    def tail(self, lines: int = 30) -> str:
        """Return the last lines of the broker's log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the broker's own process group, if the broker runs."""
        if (pid := self.pid) is not None:
            os.killpg(pid, number)

    def stop(self, timeout: float = 30.0) -> bool:
        """End the broker with SIGTERM, then SIGKILL; return whether SIGTERM was enough."""
        self.signal(signal.SIGTERM)
        self.resume()
        try:
            if self._process is not None:
                self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        else:
            return True
        finally:
            self.kill()

    def kill(self) -> None:
        """End the broker with SIGKILL, as a crash would; its data stays."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        if self._guard is not None:
            self._guard.communicate(b"\n")
            self._guard = None

    def restart(self, timeout: float = 60.0) -> None:
        """Start again, with the same ports and data; stop first if it still runs."""
        self.stop()
        self.start(timeout)

    def pause(self) -> None:
        """Freeze the broker (SIGSTOP): its connections stay open and nothing is answered."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused broker run on (SIGCONT)."""
        self.signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


class KafkaCluster:
    """Brokers that are all controllers too: topics of 3 replicas, 2 of them in sync to write.

    Stop, kill, restart or pause one with the methods of the `KafkaServer` in ``nodes``.

    Parameters
    ----------
    folder : Path
        Each node has a folder in it.
    size : int, optional
        The number of nodes, 3 or more.
    properties : Mapping[str, str], optional
        Broker settings for all nodes.
    """

    def __init__(self, folder: Path, size: int = 3, properties: Mapping[str, str] | None = None) -> None:
        settings = {"default.replication.factor": "3", "min.insync.replicas": "2"}
        settings["offsets.topic.replication.factor"] = "3"
        for topic in ("transaction.state.log", "share.coordinator.state.topic"):
            settings |= {f"{topic}.replication.factor": "3", f"{topic}.min.isr": "2"}
        settings |= properties or {}
        cluster_id = _new_cluster_id()
        self.nodes = [
            KafkaServer(folder / f"node{number}", settings, node_id=number, cluster_id=cluster_id)
            for number in range(1, size + 1)
        ]
        for node in self.nodes:
            node.voters = ",".join(each.voter for each in self.nodes)

    @property
    def bootstrap(self) -> str:
        """The addresses of all brokers, separated by commas."""
        return ",".join(node.bootstrap for node in self.nodes)

    def start(self, timeout: float = 120.0) -> None:
        """Start all nodes and wait until each of them answers requests."""
        for node in self.nodes:
            node.spawn()
        for node in self.nodes:
            node.wait_ready(timeout)

    def stop(self, timeout: float = 30.0) -> bool:
        """End all nodes at once; return whether SIGTERM was enough for all of them."""
        for node in self.nodes:
            node.signal(signal.SIGTERM)
            node.resume()
        ended = [node.stop(timeout) for node in self.nodes]
        return all(ended)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


Server = TypeVar("Server", KafkaServer, KafkaCluster)


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Start a broker or cluster, stop it; without Kafka skip, or fail if STANCEWATCH_REQUIRE_KAFKA is set."""
    try:
        server.start()
    except KafkaUnavailable as reason:
        if os.environ.get("STANCEWATCH_REQUIRE_KAFKA"):
            raise
        pytest.skip(f"no Apache Kafka: {reason}")
    yield server
    server.stop()
