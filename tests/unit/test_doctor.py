"""What the doctor says of port and data folder where something is running already."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from stream import doctor
from stream.data_folder import hold, holder
from stream.doctor import Finding, examine
from stream.errors import ConfigurationError, StateError
from stream.settings import load_settings
from tests.conftest import ROOT

WORKER = "# TYPE stancewatch_ready gauge\nstancewatch_ready 1.0\n"


def findings(folder: Path, port: int) -> dict[str, Finding]:
    """By what was looked at; without a broker."""
    settings = load_settings(data_dir=folder, metrics_port=port)
    return {finding.what: finding for finding in examine(settings)}


@contextmanager
def serving(metrics: str, ready: tuple[int, str]) -> Iterator[int]:
    """A process that answers on a port like a worker, or like something else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = ready if self.path == "/readyz" else (200, metrics)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("metrics", "ready", "fine", "detail"),
    [
        (WORKER, (200, "ready\n"), True, "a worker runs at 127.0.0.1:{} and is ready"),
        (
            WORKER,
            (503, "recovering state\n"),
            False,
            "a worker runs at 127.0.0.1:{} but is not ready: recovering",
        ),
        (
            "stancewatch_articles 3\n",
            (200, "ready\n"),
            False,
            "cannot serve metrics on 127.0.0.1:{}: Address already",
        ),
    ],
    ids=["ready", "not ready", "another server"],
)
def test_a_taken_port_is_fine_where_a_ready_worker_answers(
    tmp_path: Path, metrics: str, ready: tuple[int, str], fine: bool, detail: str
) -> None:
    """Beside a healthy worker all is well; what else has the port is wrong."""
    with serving(metrics, ready) as port:
        found = findings(tmp_path, port)["port"]
    assert found.fine is fine
    assert detail.format(port) in found.detail


def test_a_port_that_says_nothing_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not answer is not taken for a worker, and is not waited for."""
    monkeypatch.setattr(doctor, "ANSWER_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = findings(tmp_path, silent.getsockname()[1])["port"]
    assert not found.fine
    assert "Set STANCEWATCH_METRICS_PORT to a free port" in found.detail


HOLDING = """
import sys, time
from pathlib import Path
from stream.data_folder import hold
hold(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def test_a_folder_is_one_worker_s_until_its_process_ends(tmp_path: Path) -> None:
    """A second one is refused in a second, the doctor says who has it; kill -9 gives it back."""
    assert holder(tmp_path) == ""
    command = [sys.executable, "-c", HOLDING, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            assert holder(tmp_path) == str(process.pid)
            expected = rf"another worker \(process {process.pid}\) .* STANCEWATCH_DATA_DIR of its own"
            with pytest.raises(StateError, match=expected):
                hold(tmp_path)
            found = findings(tmp_path, 0)["data folder"]
            assert found.fine
            assert f"{tmp_path} is in use by a running worker (process {process.pid})" in found.detail
        finally:
            process.send_signal(signal.SIGKILL)
    assert holder(tmp_path) == ""
    assert findings(tmp_path, 0)["data folder"].detail == str(tmp_path)
    os.close(hold(tmp_path))


def test_a_folder_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    """With the setting; here the lock is in the way, so that it fails for root too."""
    (tmp_path / "worker.lock").mkdir()
    with pytest.raises(
        ConfigurationError, match=r"cannot be written \(Is a directory\).*STANCEWATCH_DATA_DIR"
    ):
        hold(tmp_path)
