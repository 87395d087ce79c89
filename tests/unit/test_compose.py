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
import typer
import yaml

from stream.cli import app
from stream.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parents[2]
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool (Debian package prometheus) is not on PATH"
)

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


def targets() -> dict[str, list[tuple[str, str]]]:
    """Return the Dockerfile's stages by name, each behind the instructions of those it is built on."""
    found: dict[str, list[tuple[str, str]]] = {}
    for word, rest in instructions():
        if word == "FROM":
            base, _, stage = rest.partition(" AS ")
            found[stage] = list(found.get(base, []))
        found[stage].append((word, rest))
    return found


def runtime() -> list[tuple[str, str]]:
    """Return the instructions of what is built without a target: the Dockerfile's last stage."""
    return list(targets().values())[-1]


def image_environment() -> dict[str, str]:
    """Return the variables that the image sets, over all stages."""
    return {
        key: value
        for word, rest in instructions()
        if word == "ENV"
        for key, _, value in (pair.partition("=") for pair in rest.split())
    }


def our_services() -> dict[str, Any]:
    """Return the services that run our images."""
    return {
        name: service for name, service in services().items() if service["image"].startswith("stancewatch")
    }


def jobs() -> dict[str, Any]:
    """Return what Prometheus scrapes, by job."""
    config = load("monitoring/prometheus/prometheus.yml")
    return {job["job_name"]: job for job in config["scrape_configs"]}


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
        """The pipeline and its monitoring start by default, emerging topics and the replay only on demand."""
        assert {name: service.get("profiles", []) for name, service in services().items()} == {
            "kafka": [],
            "worker": [],
            "api": [],
            "discover": ["discover"],
            "prometheus": [],
            "alertmanager": [],
            "grafana": [],
            "replay": ["replay"],
        }

    @pytest.mark.parametrize("name", ["kafka", "prometheus", "alertmanager", "grafana"])
    def test_pins_foreign_images(self, name: str) -> None:
        """An image from a registry carries an exact version."""
        assert EXACT_TAG.fullmatch(services()[name]["image"])

    def test_never_pulls_our_own_image(self) -> None:
        """Each image of ours is built by one service here and never looked for in a registry."""
        assert {
            name: (service["image"], service["pull_policy"], service.get("build"))
            for name, service in our_services().items()
        } == {
            "worker": ("stancewatch:local", "build", {"context": ".", "target": "worker"}),
            "api": ("stancewatch:local", "never", None),
            "discover": ("stancewatch-discover:local", "build", {"context": ".", "target": "discover"}),
            "replay": ("stancewatch:local", "never", None),
        }

    def test_builds_what_the_dockerfile_has(self) -> None:
        """Every build names a stage of the Dockerfile."""
        named = {service["build"]["target"] for service in services().values() if "build" in service}
        assert named
        assert named <= targets().keys()

    def test_sets_only_what_there_is_to_set(self) -> None:
        """Every variable of ours, here and in the images, is one that stream/settings.py takes."""
        set_by_us = [image_environment(), *(service["environment"] for service in our_services().values())]
        for environment in set_by_us:
            values = {
                name.removeprefix("STANCEWATCH_").lower(): re.sub(r"\$\{\w+:-(.*)\}", r"\1", value)
                for name, value in environment.items()
                if name.startswith("STANCEWATCH_")
            }
            assert values
            assert values.keys() <= Settings.model_fields.keys()
            load_settings(**values)

    @pytest.mark.parametrize("name", our_services())
    def test_runs_a_command_that_there_is(self, name: str) -> None:
        """Every container of ours runs a command of `stancewatch`."""
        assert services()[name]["command"][0] in typer.main.get_command(app).commands  # type: ignore[attr-defined]

    def test_publishes_on_loopback_only(self) -> None:
        """Every published port names 127.0.0.1."""
        ports = [port for service in services().values() for port in service.get("ports", [])]
        assert [port["host_ip"] for port in ports] == ["127.0.0.1"] * 5

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

    def test_grafana_fetches_one_pinned_plugin(self) -> None:
        """The plugin of the tables of articles has an exact version, and bundled ones are left alone."""
        environment = services()["grafana"]["environment"]
        assert re.fullmatch(
            r"yesoreyeram-infinity-datasource@\d+\.\d+\.\d+", environment["GF_PLUGINS_PREINSTALL_SYNC"]
        )
        # Where preinstalling is disabled, Grafana reads no list at all.
        assert "GF_PLUGINS_PREINSTALL_DISABLED" not in environment
        assert environment["GF_PLUGINS_PREINSTALL_AUTO_UPDATE"] == "false"
        assert all(name.endswith("-app") for name in environment["GF_PLUGINS_DISABLE_PLUGINS"].split(","))

    def test_articles_are_served_once(self) -> None:
        """Workers keep no articles of their own where `api` does."""
        assert services()["worker"]["environment"]["STANCEWATCH_PAGE"] == "false"
        assert services()["api"]["command"] == ["serve"]

    def test_windows_end_at_the_same_time(self) -> None:
        """Counts and articles agree on what the last 24 hours are."""
        clocks = {services()[name]["environment"]["STANCEWATCH_WINDOW_CLOCK"] for name in ("worker", "api")}
        assert len(clocks) == 1

    def test_worker_can_be_scaled(self) -> None:
        """Nothing in the worker is unique on the host, and its state folder is private to each replica."""
        worker = services()["worker"]
        assert not {"container_name", "ports", "hostname", "network_mode"} & worker.keys()
        assert worker["volumes"] == [worker["environment"]["STANCEWATCH_DATA_DIR"]]

    @pytest.mark.parametrize("name", our_services())
    def test_own_containers_are_read_only(self, name: str) -> None:
        """Our processes write to their volume and to a temporary file system only."""
        service = services()[name]
        assert service["read_only"] is True
        assert service["tmpfs"][0].startswith("/tmp:")  # noqa: S108 - a path in the container

    @pytest.mark.parametrize("name", services())
    def test_drops_privileges(self, name: str) -> None:
        """No container has capabilities or a way to gain privileges, and none asks to be root."""
        service = services()[name]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"cap_add", "privileged", "user"} & service.keys()

    @pytest.mark.parametrize("name", sorted(services().keys() - {"replay"}))
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

    @pytest.mark.parametrize(("name", "port"), [("api", "SERVE_PORT"), ("discover", "DISCOVER_PORT")])
    def test_is_the_same_for_the_others(self, name: str, port: str) -> None:
        """They are asked the same, at their own ports."""
        worker, other = (services()[name]["healthcheck"]["test"] for name in ("worker", name))
        assert [part.replace("METRICS_PORT", port) for part in worker] == other

    @pytest.mark.parametrize("name", ["worker", "discover"])
    def test_is_the_same_in_the_image(self, name: str) -> None:
        """The image checks itself with the very command of the compose file."""
        rest = dict(targets()[name])["HEALTHCHECK"]  # the last one counts
        assert json.loads(rest[rest.index("[") :]) == services()[name]["healthcheck"]["test"][1:]


class TestDockerfile:
    """The images of the worker and of `stancewatch discover`."""

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

    @pytest.mark.parametrize("name", ["worker", "discover"])
    def test_runs_as_an_unprivileged_fixed_user(self, name: str) -> None:
        """The last USER is a number other than 0, and the data folder, a volume, belongs to it."""
        steps = targets()[name]
        users = [rest for word, rest in steps if word == "USER"]
        assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", users[-1])
        uid, gid = users[-1].split(":")
        (folder,) = services()[name]["volumes"]
        assert any(re.search(rf"install -d -o {uid} -g {gid} -m 07\d0 {folder}$", rest) for _, rest in steps)

    def test_discover_compiles_into_its_volume(self) -> None:
        """The root file system is read-only: what numba compiles goes to the volume."""
        (folder,) = services()["discover"]["volumes"]
        assert Path(image_environment()["NUMBA_CACHE_DIR"]).is_relative_to(folder)

    def test_installs_only_what_the_lock_names(self) -> None:
        """Dependencies come from the lock with hashes; our own package brings no others."""
        installs = [rest for word, rest in instructions() if word == "RUN" and "pip install" in rest]
        assert installs == [
            "pip install --require-hashes -r requirements.lock",
            "pip install --no-deps --no-build-isolation .",
            "pip install --no-cache-dir --no-deps --require-hashes -r /src/requirements-discover.lock",
        ]

    def test_discover_adds_to_the_worker(self) -> None:
        """The two locks, installed one over the other, name the same versions of what is in both."""
        worker, discover = (
            dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE))
            for name in ("requirements.lock", "requirements-discover.lock")
        )
        shared = worker.keys() & discover.keys()
        assert {name: worker[name] for name in shared} == {name: discover[name] for name in shared}
        assert discover.keys() - worker.keys() >= {"bertopic", "umap-learn"}
        assert not [name for name in discover if name == "torch" or name.startswith("nvidia")]

    def test_names_no_registry(self) -> None:
        """Neither the Dockerfile nor the compose file ties the build to a registry host."""
        text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
        images = [rest for word, rest in instructions() if word == "FROM"]
        images += [service["image"] for service in services().values()]
        assert not re.search(r"https?://(?!127\.0\.0\.1)|--(extra-)?index-url|--trusted-host", text)
        assert not [image for image in images if "." in image.split("/")[0] and "/" in image]

    @pytest.mark.parametrize("name", ["worker", "discover"])
    def test_starts_its_command(self, name: str) -> None:
        """The image starts `stancewatch`, which signals reach, with the command of the compose file."""
        words = dict(targets()[name])
        assert words["ENTRYPOINT"] == '["stancewatch"]'
        assert json.loads(words["CMD"]) == services()[name]["command"]

    def test_builds_the_worker_by_default(self) -> None:
        """Without a target, the image is the worker's, and BERTopic is not in it."""
        assert runtime() == targets()["worker"]
        assert "discover" not in str(runtime())

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

    @pytest.mark.parametrize(
        ("job", "name", "port"),
        [
            ("stancewatch", "worker", "STANCEWATCH_METRICS_PORT"),
            ("stancewatch-discover", "discover", "STANCEWATCH_DISCOVER_PORT"),
        ],
    )
    def test_finds_every_replica_by_dns(self, job: str, name: str, port: str) -> None:
        """The job asks the container network for all addresses of the service, on the metrics port."""
        (discovery,) = jobs()[job]["dns_sd_configs"]
        assert discovery["names"] == [name]
        assert discovery["type"] == "A"
        assert [str(discovery["port"])] == services()[name]["expose"]
        assert services()[name]["expose"] == [services()[name]["environment"][port]]
        assert image_environment()[port] == dict(targets()[name])["EXPOSE"] == str(discovery["port"])

    def test_scrapes_all_that_runs(self) -> None:
        """Every long-running service of ours is a target, and every target is a service."""
        targets = [
            name
            for job in jobs().values()
            for found in job.get("dns_sd_configs", [])
            for name in found["names"]
        ] + [
            target.partition(":")[0]
            for job in jobs().values()
            for group in job.get("static_configs", [])
            for target in group["targets"]
        ]
        running = [name for name, service in our_services().items() if service["restart"] != "no"]
        assert sorted(targets) == sorted([*running, "127.0.0.1"])

    def test_keeps_exemplars(self) -> None:
        """Exemplars, which carry event ids, are stored."""
        assert "--enable-feature=exemplar-storage" in services()["prometheus"]["command"]

    def test_scrapes_the_api(self) -> None:
        """The API has a job of its own: rules about workers ask for job `stancewatch`."""
        (target,) = jobs()["stancewatch-api"]["static_configs"][0]["targets"]
        assert target == f"api:{services()['api']['environment']['STANCEWATCH_SERVE_PORT']}"

    def test_finds_its_rules_and_alertmanager(self) -> None:
        """Rules lie where the mounted configuration looks, and alerts go to the service of that name."""
        config = load("monitoring/prometheus/prometheus.yml")
        assert config["rule_files"] == ["rules/*.yml"]
        assert "./monitoring/prometheus:/etc/prometheus:ro" in services()["prometheus"]["volumes"]
        (manager,) = config["alerting"]["alertmanagers"]
        assert manager["static_configs"] == [{"targets": ["alertmanager:9093"]}]
        assert services()["alertmanager"]["ports"][0]["target"] == 9093

    @needs_promtool
    def test_promtool_accepts_the_configuration(self) -> None:
        """Promtool finds nothing wrong in prometheus.yml."""
        promtool("check", "config", ROOT / "monitoring/prometheus/prometheus.yml")
