"""Real Prometheus and Alertmanager as plain processes on free ports of 127.0.0.1, for the tests (no Docker).

Both come with Debian (``apt-get install prometheus prometheus-alertmanager``). The configuration is the one
that ships (``monitoring/``), with other addresses and shorter intervals: :func:`shipped_config`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import pytest
import yaml

from stream.embedded import _Child
from tests.conftest import ROOT
from tests.kafka_server import free_port

MONITORING = ROOT / "monitoring"
RULES = sorted((MONITORING / "prometheus/rules").glob("*.yml"))


class PrometheusUnavailable(RuntimeError):  # noqa: N818
    """The program is not installed; the message says which, for a test's skip."""


class Sample(NamedTuple):
    """One series of an answer, at one moment."""

    labels: Mapping[str, str]
    value: float


def program(name: str) -> str:
    """Path of a program of Debian's packages.

    Raises
    ------
    PrometheusUnavailable
        When it is not installed.
    """
    path = shutil.which(name)
    if path is None:
        reason = f"{name} is not on PATH (Debian: apt-get install prometheus prometheus-alertmanager)"
        raise PrometheusUnavailable(reason)
    return path


def shipped_config(
    *workers: str,
    rules: Sequence[Path] = RULES,
    alertmanager: str = "",
    scrape_seconds: float = 1.0,
    evaluation_seconds: float = 0.5,
) -> dict[str, Any]:
    """``monitoring/prometheus/prometheus.yml`` for a test.

    Parameters
    ----------
    *workers : str
        ``host:port`` of each worker to scrape, in place of those that Docker's DNS names.
    rules : sequence of Path
        Rule files; those that ship by default.
    alertmanager : str
        ``host:port``; none by default.
    scrape_seconds, evaluation_seconds : float
        A rule group that has an interval of its own keeps it.
    """
    config: dict[str, Any] = yaml.safe_load((MONITORING / "prometheus/prometheus.yml").read_text())
    scrape = f"{round(scrape_seconds * 1000)}ms"
    evaluation = f"{round(evaluation_seconds * 1000)}ms"
    config["global"] |= {
        "scrape_interval": scrape,
        "scrape_timeout": scrape,
        "evaluation_interval": evaluation,
    }
    (job,) = [job for job in config["scrape_configs"] if job["job_name"] == "stancewatch"]
    del job["dns_sd_configs"]
    config["scrape_configs"] = [job | {"static_configs": [{"targets": list(workers)}]}]
    config["rule_files"] = [str(path) for path in rules]
    config.pop("alerting", None)
    if alertmanager:
        config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
    return config


def shortened_rules(folder: Path) -> list[Path]:
    """Copies of the rule files that do not wait: same expressions, ``for: 0s``, no interval of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    copies = []
    for path in RULES:
        content = yaml.safe_load(path.read_text())
        for group in content["groups"]:
            group.pop("interval", None)
            for rule in group["rules"]:
                if "alert" in rule:
                    rule["for"] = "0s"
        copy = folder / path.name
        copy.write_text(yaml.safe_dump(content, sort_keys=False))
        copies.append(copy)
    return copies


def shipped_alertmanager_config(receiver: str) -> str:
    """``alertmanager.yml`` for a test: it does not wait, and tells `receiver` (``host:port``)."""
    config = yaml.safe_load((MONITORING / "alertmanager/alertmanager.yml").read_text())
    for route in (config["route"], *config["route"]["routes"]):
        route["group_wait"] = "0s"
    for each in config["receivers"]:
        for webhook in each["webhook_configs"]:
            webhook["url"] = urllib.parse.urlsplit(webhook["url"])._replace(netloc=receiver).geturl()
    return yaml.safe_dump(config)


def blocks_of(file: Path, folder: Path) -> None:
    """Have promtool make blocks of an export, as ``stancewatch export --help`` says."""
    command = [program("promtool"), "tsdb", "create-blocks-from", "--max-block-duration=744h"]
    done = subprocess.run(
        [*command, "openmetrics", str(file), str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


class WebhookReceiver:
    """Listens on 127.0.0.1 and keeps what is posted; a context manager.

    Attributes
    ----------
    posts : list of (str, Any)
        Path and JSON of each request.
    """

    def __init__(self) -> None:
        posts: list[tuple[str, Any]] = []
        self.posts = posts

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                posts.append((self.path, json.loads(self.rfile.read(length))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"127.0.0.1:{self._server.server_port}"

    def alerts(self, path: str, name: str) -> list[dict[str, Any]]:
        """Alerts of a name that were posted to a path."""
        sent = [alert for where, post in list(self.posts) if where == path for alert in post["alerts"]]
        return [alert for alert in sent if alert["labels"]["alertname"] == name]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server:
    """A program with an HTTP API, its files in a folder."""

    name = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{free_port()}"
        self._child: _Child | None = None

    def _command(self) -> list[str]:
        raise NotImplementedError

    @property
    def url(self) -> str:
        """``http://127.0.0.1:port``."""
        return f"http://{self.address}"

    @property
    def output(self) -> str:
        """Last lines that it logged."""
        return self._child.tail() if self._child else ""

    def start(self) -> None:
        """Start and wait until it answers."""
        command = [program(self.name), *self._command()]
        self._child = _Child(command, {}, self.folder / f"{self.name}.log")
        self._child.wait_until(self._ready, self.name)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:  # noqa: S310 - ours
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        """End it with SIGTERM."""
        if self._child is not None:
            self._child.process.terminate()
            self._child.process.wait(20)

    def get(self, path: str, **parameters: str) -> Any:
        """The JSON that a path of its API answers; an HTTP error becomes an AssertionError with its text."""
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}{path}?{query}", timeout=30) as answer:  # noqa: S310 - ours
                return json.load(answer)
        except urllib.error.HTTPError as error:
            message = f"{path} {parameters}: {error.code} {error.read().decode(errors='replace')}"
            raise AssertionError(message) from None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


class PrometheusServer(_Server):
    """A Prometheus.

    Parameters
    ----------
    folder : Path
        For its configuration, log and data; made when missing. Blocks that lie in ``folder/data`` are served.
    config : mapping
        See :func:`shipped_config`.
    *arguments : str
        Further command line arguments.
    """

    name = "prometheus"

    def __init__(self, folder: Path, config: Mapping[str, Any], *arguments: str) -> None:
        super().__init__(folder)
        self.data = folder / "data"
        self.arguments = arguments
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(dict(config)))

    def _command(self) -> list[str]:
        return [
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.data}",
            "--storage.tsdb.retention.time=100y",  # seeds and back-filled blocks are years old
            f"--web.listen-address={self.address}",
            "--enable-feature=exemplar-storage",
            "--log.level=warn",
            *self.arguments,
        ]

    def query(self, expression: str, at: float | str | None = None) -> list[Sample]:
        """An instant query; `at` is a moment (POSIX seconds or RFC 3339), now by default."""
        parameters = {"query": expression} | ({} if at is None else {"time": str(at)})
        data = self.get("/api/v1/query", **parameters)["data"]
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        return [Sample(row["metric"], float(row["value"][1])) for row in data["result"]]

    def rules(self) -> list[dict[str, Any]]:
        """Every loaded rule with its health, last error and alerts."""
        groups = self.get("/api/v1/rules")["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]


class AlertmanagerServer(_Server):
    """An Alertmanager without a cluster.

    Parameters
    ----------
    folder : Path
        For its configuration, log and data; made when missing.
    config : str
        Its configuration file.
    """

    name = "prometheus-alertmanager"

    def __init__(self, folder: Path, config: str) -> None:
        super().__init__(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "alertmanager.yml").write_text(config)

    def _command(self) -> list[str]:
        return [
            f"--config.file={self.folder / 'alertmanager.yml'}",
            f"--storage.path={self.folder / 'data'}",
            f"--web.listen-address={self.address}",
            "--cluster.listen-address=",
            "--log.level=warn",
        ]

    def alerts(self) -> list[dict[str, Any]]:
        """What it has been told and not silenced."""
        found: list[dict[str, Any]] = self.get("/api/v2/alerts")
        return found


Server = TypeVar("Server", bound=_Server)


@contextmanager
def required() -> Iterator[None]:
    """Skip where a program is missing, or fail if STANCEWATCH_REQUIRE_PROMETHEUS is set (CI)."""
    try:
        yield
    except PrometheusUnavailable as reason:
        if os.environ.get("STANCEWATCH_REQUIRE_PROMETHEUS"):
            raise
        pytest.skip(f"no Prometheus: {reason}")


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Start a server, stop it; skip or fail where it is missing (:func:`required`)."""
    with required():
        server.start()
    try:
        yield server
    finally:
        server.stop()
