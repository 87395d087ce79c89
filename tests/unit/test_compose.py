"""The files for containers and monitoring: checked without a Docker engine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = sorted((ROOT / "monitoring/grafana/dashboards").glob("*.json"))
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool (Debian package prometheus) is not on PATH"
)

# The metrics that the design promises; dashboards may use these and what Prometheus itself adds.
CONTRACT = {
    "stancewatch_assessments_total",
    "stancewatch_window_assessments",
    "stancewatch_events_total",
    "stancewatch_dead_letters_total",
    "stancewatch_event_age_seconds",
    "stancewatch_classify_seconds",
    "stancewatch_batch_events",
    "stancewatch_consumer_lag_records",
    "stancewatch_last_event_timestamp_seconds",
    "stancewatch_model_info",
    "stancewatch_build_info",
}
EXACT_TAG = re.compile(r"[a-z0-9./-]+:v?\d+\.\d+\.\d+(?:-[a-z0-9.-]+)?(?:@sha256:[0-9a-f]{64})?")


@cache
def load(path: str) -> Any:
    """Parse one YAML or JSON file of the repository."""
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def services() -> dict[str, Any]:
    """Return the services of the compose file, merge keys resolved."""
    found: dict[str, Any] = load("docker-compose.yml")["services"]
    return found


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile as (instruction, arguments), continuation lines joined and comments left out."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#")).replace("\\\n", " ")
    return [
        (word.upper(), rest.strip())
        for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)
    ]


def runtime() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile's last stage."""
    steps = instructions()
    last = max(index for index, (word, _) in enumerate(steps) if word == "FROM")
    return steps[last:]


def image_environment() -> dict[str, str]:
    """Return the variables that the image sets, over all stages."""
    return {
        key: value
        for word, rest in instructions()
        if word == "ENV"
        for key, _, value in (pair.partition("=") for pair in rest.split())
    }


def panels(path: Path) -> list[dict[str, Any]]:
    """Return all panels of a dashboard, those inside rows included."""
    found = []
    for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
        found += [panel, *panel.get("panels", [])]
    return found


def expressions(path: Path) -> list[str]:
    """Return the PromQL of a dashboard with Grafana's variables filled in."""
    found = [target["expr"] for panel in panels(path) for target in panel.get("targets", [])]
    found = [re.sub(r"\$__(rate_interval|interval|range)", "5m", expr) for expr in found]
    return [re.sub(r"\$(\{\w+\}|\w+)", "1h", expr) for expr in found]


def promtool(*arguments: str | Path) -> None:
    """Run promtool and show what it says when it refuses."""
    done = subprocess.run([PROMTOOL or "promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


class TestComposeFile:
    """docker-compose.yml."""

    def test_follows_the_compose_specification(self) -> None:
        """The file validates against the JSON schema of the Compose Specification."""
        jsonschema.Draft202012Validator(load("tests/data/compose-spec.json")).validate(
            load("docker-compose.yml")
        )

    def test_has_the_promised_services(self) -> None:
        """Kafka, worker, Prometheus and Grafana start by default, the replay only on demand."""
        assert {name: service.get("profiles", []) for name, service in services().items()} == {
            "kafka": [],
            "worker": [],
            "prometheus": [],
            "grafana": [],
            "replay": ["replay"],
        }

    @pytest.mark.parametrize("name", ["kafka", "prometheus", "grafana"])
    def test_pins_foreign_images(self, name: str) -> None:
        """An image from a registry carries an exact version."""
        assert EXACT_TAG.fullmatch(services()[name]["image"])

    def test_never_pulls_our_own_image(self) -> None:
        """Our image is built by one service here and never looked for in a registry."""
        ours = {
            name: service
            for name, service in services().items()
            if service["image"].startswith("stancewatch:")
        }
        assert {name: (service["pull_policy"], "build" in service) for name, service in ours.items()} == {
            "worker": ("build", True),
            "replay": ("never", False),
        }

    def test_publishes_on_loopback_only(self) -> None:
        """Every published port names 127.0.0.1."""
        ports = [port for service in services().values() for port in service.get("ports", [])]
        assert [port["host_ip"] for port in ports] == ["127.0.0.1"] * 3

    def test_advertises_the_published_kafka_port(self) -> None:
        """Programs on the host are sent back to the address and port on which they reached Kafka."""
        kafka = services()["kafka"]
        advertised = dict(
            item.split("://") for item in kafka["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")
        )
        assert advertised["EXTERNAL"] == f"127.0.0.1:{kafka['ports'][0]['published']}"
        assert advertised["INTERNAL"] == services()["worker"]["environment"]["STANCEWATCH_BROKER"]

    def test_contains_no_password(self) -> None:
        """Secrets come from the environment, are required, and have no default."""
        secrets = [
            value
            for service in services().values()
            for key, value in service.get("environment", {}).items()
            if re.search(r"PASSWORD|SECRET|TOKEN|CREDENTIAL", key)
        ]
        assert secrets == ["${GRAFANA_ADMIN_PASSWORD:?set it in .env}"]

    def test_keeps_strangers_out_of_grafana(self) -> None:
        """Grafana admits neither anonymous visitors nor self-made accounts."""
        environment = services()["grafana"]["environment"]
        assert (environment["GF_AUTH_ANONYMOUS_ENABLED"], environment["GF_USERS_ALLOW_SIGN_UP"]) == (
            "false",
            "false",
        )

    def test_worker_can_be_scaled(self) -> None:
        """Nothing in the worker is unique on the host, and its state folder is private to each replica."""
        worker = services()["worker"]
        assert not {"container_name", "ports", "hostname", "network_mode"} & worker.keys()
        assert worker["volumes"] == [worker["environment"]["STANCEWATCH_DATA_DIR"]]

    @pytest.mark.parametrize("name", ["worker", "replay"])
    def test_own_containers_are_read_only(self, name: str) -> None:
        """Our processes write to their volume and to a temporary file system only."""
        service = services()[name]
        assert service["read_only"] is True
        assert service["tmpfs"][0].startswith("/tmp:")  # noqa: S108 - a path in the container

    @pytest.mark.parametrize("name", ["kafka", "worker", "prometheus", "grafana", "replay"])
    def test_drops_privileges(self, name: str) -> None:
        """No container has capabilities or a way to gain privileges, and none asks to be root."""
        service = services()[name]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"cap_add", "privileged", "user"} & service.keys()

    @pytest.mark.parametrize("name", ["kafka", "worker", "prometheus", "grafana"])
    def test_long_running_services_are_watched(self, name: str) -> None:
        """Every long-running service has a health check and comes back after a crash."""
        service = services()[name]
        assert service["healthcheck"]["test"][0] == "CMD"
        assert service["restart"] == "unless-stopped"

    def test_waits_for_healthy_services(self) -> None:
        """Nothing starts on a service that is merely started."""
        waits = [
            wait["condition"]
            for service in services().values()
            for wait in service.get("depends_on", {}).values()
        ]
        assert set(waits) == {"service_healthy"}

    def test_mounts_exist_and_are_read_only(self) -> None:
        """Every file or folder mounted from the repository is there and cannot be changed from inside."""
        mounts = [
            item
            for service in services().values()
            for item in service.get("volumes", [])
            if item.startswith("./")
        ]
        assert mounts
        for mount in mounts:
            source, _, mode = mount.split(":")
            assert (ROOT / source).exists(), source
            assert mode == "ro", mount

    def test_declares_every_named_volume(self) -> None:
        """The volumes used and the volumes declared are the same."""
        used = {
            item.split(":")[0]
            for service in services().values()
            for item in service.get("volumes", [])
            if not item.startswith((".", "/"))
        }
        assert used == set(load("docker-compose.yml")["volumes"])

    def test_broker_takes_large_records(self) -> None:
        """The broker takes records of 8 MiB and creates no topic by accident."""
        environment = services()["kafka"]["environment"]
        assert int(environment["KAFKA_MESSAGE_MAX_BYTES"]) == 8 * 1024**2
        assert int(environment["KAFKA_REPLICA_FETCH_MAX_BYTES"]) == 8 * 1024**2
        assert environment["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"

    def test_example_environment_is_complete(self) -> None:
        """.env.example lists just the variables of the compose file: same defaults, no password."""
        text = (ROOT / ".env.example").read_text(encoding="utf-8")
        example = dict(re.findall(r"^(\w+)=(.*)$", text, flags=re.MULTILINE))
        compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
        used = {
            name: default
            for name, kind, default in re.findall(r"\$\{(\w+):([-?])([^}]*)\}", compose)
            if kind == "-"
        }
        assert example == {**used, "GRAFANA_ADMIN_PASSWORD": ""}
        assert len(re.findall(r"\$\{?\w", compose)) == len(re.findall(r"\$\{\w+:[-?]", compose))


class TestHealthCheck:
    """The health check of the worker, run as the container would run it."""

    @pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (None, False)])
    def test_reports_what_the_worker_answers(self, status: int | None, *, healthy: bool) -> None:
        """The check passes on 200 only: not on another answer, and not when nothing listens."""

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status if self.path == "/healthz" and status else 404)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        port = server.server_port
        if status:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
        else:
            server.server_close()
        try:
            command = services()["worker"]["healthcheck"]["test"][1:]
            assert command[:2] == ["python", "-c"]
            # The proxy leads nowhere: a check that obeyed it could not pass.
            environment = {
                **os.environ,
                "STANCEWATCH_METRICS_PORT": str(port),
                "http_proxy": "http://127.0.0.1:9",
            }
            done = subprocess.run(
                [sys.executable, *command[1:]], env=environment, capture_output=True, check=False, timeout=30
            )
        finally:
            if status:
                server.shutdown()
                thread.join()
                server.server_close()
        assert (done.returncode == 0) is healthy, done.stderr

    def test_is_the_same_in_the_image(self) -> None:
        """The image checks itself with the very command of the compose file."""
        (rest,) = [rest for word, rest in runtime() if word == "HEALTHCHECK"]
        assert json.loads(rest[rest.index("[") :]) == services()["worker"]["healthcheck"]["test"][1:]


class TestDockerfile:
    """The image of the worker."""

    def test_pins_its_base(self) -> None:
        """Each stage starts from an exact Python 3.11 image or from an earlier stage."""
        bases, stages = [], set()
        for word, rest in instructions():
            if word == "FROM":
                base, _, stage = rest.partition(" AS ")
                bases += [] if base in stages else [base]
                stages.add(stage)
        assert len(bases) == 1
        assert EXACT_TAG.fullmatch(bases[0])
        assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm(@.*)?", bases[0])

    def test_runs_as_an_unprivileged_fixed_user(self) -> None:
        """The last USER is a number other than 0, and the state folder belongs to it."""
        users = [rest for word, rest in runtime() if word == "USER"]
        assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", users[-1])
        uid, gid = users[-1].split(":")
        folder = services()["worker"]["environment"]["STANCEWATCH_DATA_DIR"]
        assert any(
            re.search(rf"install -d -o {uid} -g {gid} -m 07\d0 {folder}$", rest) for _, rest in runtime()
        )

    def test_installs_only_what_the_lock_names(self) -> None:
        """Dependencies come from the lock with hashes; our own package brings no others."""
        installs = [rest for word, rest in instructions() if word == "RUN" and "pip install" in rest]
        assert installs == [
            "pip install --require-hashes -r requirements.lock",
            "pip install --no-deps --no-build-isolation .",
        ]

    def test_names_no_registry(self) -> None:
        """Neither the Dockerfile nor the compose file ties the build to a registry host."""
        text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
        images = [rest for word, rest in instructions() if word == "FROM"]
        images += [service["image"] for service in services().values()]
        assert not re.search(r"https?://(?!127\.0\.0\.1)|--(extra-)?index-url|--trusted-host", text)
        assert not [image for image in images if "." in image.split("/")[0] and "/" in image]

    def test_starts_the_worker(self) -> None:
        """The image starts `stancewatch worker`, and signals reach it."""
        words = dict(runtime())
        assert (words["ENTRYPOINT"], words["CMD"]) == ('["stancewatch"]', '["worker"]')

    def test_agrees_with_the_compose_file(self) -> None:
        """Image and compose file set the same worker settings, and Prometheus scrapes the port exposed."""
        image = image_environment()
        compose = services()["worker"]["environment"]
        assert {key: image[key] for key in compose.keys() & image.keys()} == {
            "STANCEWATCH_DATA_DIR": "/var/lib/stancewatch",
            "STANCEWATCH_METRICS_HOST": "0.0.0.0",  # noqa: S104 - inside the container
            "STANCEWATCH_METRICS_PORT": "9464",
            "STANCEWATCH_STORE": "rocksdb",
        }
        assert all(compose[key] == image[key] for key in compose.keys() & image.keys())
        assert dict(runtime())["EXPOSE"] == image["STANCEWATCH_METRICS_PORT"]
        assert services()["worker"]["expose"] == [image["STANCEWATCH_METRICS_PORT"]]

    def test_copies_what_exists_and_is_not_ignored(self) -> None:
        """Every COPY from the repository has a source that .dockerignore lets through."""
        allowed = {
            line[1:]
            for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
            if line.startswith("!")
        }
        sources = [
            source
            for word, rest in instructions()
            if word == "COPY" and not rest.startswith("--from")
            for source in rest.split()[:-1]
        ]
        assert set(sources) == allowed
        missing = [source for source in sources if "*" not in source and not (ROOT / source).exists()]
        assert not missing


class TestPrometheus:
    """monitoring/prometheus."""

    def test_finds_every_replica_by_dns(self) -> None:
        """The worker job asks the container network for all addresses of the service, on the metrics port."""
        jobs = {
            job["job_name"]: job for job in load("monitoring/prometheus/prometheus.yml")["scrape_configs"]
        }
        (discovery,) = jobs["stancewatch"]["dns_sd_configs"]
        assert discovery["names"] == ["worker"]
        assert "worker" in services()
        assert (discovery["type"], str(discovery["port"])) == (
            "A",
            image_environment()["STANCEWATCH_METRICS_PORT"],
        )

    def test_keeps_exemplars(self) -> None:
        """Exemplars, which carry event ids, are stored."""
        assert "--enable-feature=exemplar-storage" in services()["prometheus"]["command"]

    @needs_promtool
    def test_promtool_accepts_the_configuration(self) -> None:
        """Promtool finds nothing wrong in prometheus.yml."""
        promtool("check", "config", ROOT / "monitoring/prometheus/prometheus.yml")


class TestGrafana:
    """monitoring/grafana."""

    def test_data_source_points_at_prometheus(self) -> None:
        """The one data source is the Prometheus of the compose file, with its scrape interval."""
        (source,) = load("monitoring/grafana/provisioning/datasources/prometheus.yml")["datasources"]
        assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
        assert "prometheus" in services()
        scrape = load("monitoring/prometheus/prometheus.yml")["global"]["scrape_interval"]
        assert source["jsonData"]["timeInterval"] == scrape

    def test_provider_reads_the_mounted_folder(self) -> None:
        """The dashboards are mounted where the provider looks, and the home dashboard is one of them."""
        (provider,) = load("monitoring/grafana/provisioning/dashboards/stancewatch.yml")["providers"]
        folder = provider["options"]["path"]
        assert f"./monitoring/grafana/dashboards:{folder}:ro" in services()["grafana"]["volumes"]
        home = services()["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
        assert home in {f"{folder}/{path.name}" for path in DASHBOARDS}

    def test_dashboards_have_unique_names(self) -> None:
        """Every dashboard has a title and a uid of its own."""
        boards = [json.loads(path.read_text(encoding="utf-8")) for path in DASHBOARDS]
        assert boards
        assert all(board["title"] and re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", board["uid"]) for board in boards)
        assert (
            len({board["uid"] for board in boards})
            == len({board["title"] for board in boards})
            == len(boards)
        )
        assert not [board["title"] for board in boards if board.get("id") is not None]

    @pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
    def test_panels_are_complete(self, path: Path) -> None:
        """Every panel has a unique id, title, description, unit, and targets with unique refIds."""
        ids = [panel["id"] for panel in panels(path)]
        assert len(set(ids)) == len(ids)
        for panel in panels(path):
            assert panel["title"]
            if panel["type"] in {"row", "text"}:
                continue
            assert panel["description"].endswith("."), panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            references = [target["refId"] for target in panel["targets"]]
            assert references
            assert len(set(references)) == len(references), panel["title"]
            assert all(target["expr"].strip() for target in panel["targets"]), panel["title"]

    @pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
    def test_panels_do_not_overlap(self, path: Path) -> None:
        """Panels share no cell of the grid and stay within its 24 columns."""
        cells: set[tuple[int, int]] = set()
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            x, y, width, height = (panel["gridPos"][key] for key in "xywh")
            assert x + width <= 24, panel["title"]
            own = {(column, row) for column in range(x, x + width) for row in range(y, y + height)}
            assert not own & cells, panel["title"]
            cells |= own

    @pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
    def test_panels_use_the_provisioned_data_source(self, path: Path) -> None:
        """Every panel and every query names the uid of the provisioned data source."""
        (source,) = load("monitoring/grafana/provisioning/datasources/prometheus.yml")["datasources"]
        for panel in panels(path):
            if panel["type"] in {"row", "text"}:
                continue
            for item in [panel, *panel["targets"]]:
                assert item["datasource"] == {"type": "prometheus", "uid": source["uid"]}, panel["title"]

    @pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
    def test_queries_use_promised_metrics(self, path: Path) -> None:
        """Queries ask for promised metrics only, and take counts of state once a partition."""
        for expression in expressions(path):
            names = set(re.findall(r"\bstancewatch_\w+", expression))
            assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in names} <= CONTRACT, expression
            for match in re.finditer(r"stancewatch_(assessments_total|window_assessments)", expression):
                assert re.search(r"max by \([^)]*\bpartition\) \($", expression[: match.start()]), expression

    @needs_promtool
    @pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
    def test_promtool_accepts_the_queries(self, path: Path, tmp_path: Path) -> None:
        """Promtool parses every query, wrapped in a recording rule that any promtool can check."""
        rules = [
            {"record": f"dashboard:query:{index}", "expr": expr}
            for index, expr in enumerate(expressions(path))
        ]
        assert rules
        file = tmp_path / "rules.yml"
        file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
        promtool("check", "rules", "--lint=none", file)
