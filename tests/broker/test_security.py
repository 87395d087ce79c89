"""Kafka behind TLS and a login: everything works over it, refusals are one line, no secret is ever shown."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import urllib.request
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from stream.clients import create_topics
from stream.doctor import examine
from stream.embedded import WorkerProcess
from stream.errors import BrokerError
from stream.settings import load_settings
from tests.certificates import Certificate, make_authority, make_certificate
from tests.conftest import SEEDS
from tests.kafka_server import KafkaServer, free_port, running
from tests.stack import handled, stancewatch, votes, wait_until

# A broker that refuses a handshake leaves aiokafka's socket to the garbage collector: it is collected here,
# and not in the middle of another test, where it would be an error.
pytestmark = [pytest.mark.kafka, pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning")]

PASSWORD = f"correct-{uuid.uuid4().hex}"
WRONG = f"wrong-{uuid.uuid4().hex}"
KEY_PASSWORD = f"key-{uuid.uuid4().hex}"
COMMANDS: dict[str, tuple[str | Path, ...]] = {
    "worker": ("worker", "--metrics-port", "0"),
    "worker that makes no topics": ("worker", "--metrics-port", "0"),
    "replay": ("replay", SEEDS, "--json"),
    "audit": ("audit", "--json"),
    "dead-letters": ("dead-letters", "list", "--json"),
    "doctor": ("doctor",),
}


@dataclass(frozen=True)
class Secured:
    """A broker with three listeners: two for logins over TLS, one that asks for the client's certificate."""

    kafka: KafkaServer
    mutual: str
    misnamed: str
    authority: Certificate
    stranger: Certificate
    client: Certificate

    def login(self, **changes: str) -> dict[str, str]:
        """Environment of somebody who may log in; changes by name, an empty value leaves the setting out."""
        settings = {
            "BROKER": self.kafka.bootstrap,
            "SECURITY_PROTOCOL": "SASL_SSL",
            "SASL_MECHANISM": "SCRAM-SHA-512",
            "SASL_USERNAME": "alice",
            "SASL_PASSWORD": PASSWORD,
            "SSL_CAFILE": str(self.authority.file),
        }
        return _environment(**{**settings, **changes})

    def certificate(self, **changes: str) -> dict[str, str]:
        """Environment of somebody with a certificate; the private key is encrypted."""
        settings = {
            "BROKER": self.mutual,
            "SECURITY_PROTOCOL": "SSL",
            "SSL_CAFILE": str(self.authority.file),
            "SSL_CERTFILE": str(self.client.file),
            "SSL_KEYFILE": str(self.client.key),
            "SSL_KEY_PASSWORD": KEY_PASSWORD,
        }
        return _environment(**{**settings, **changes})


def _environment(**settings: str) -> dict[str, str]:
    return {f"STANCEWATCH_{name}": value for name, value in settings.items() if value}


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Apache Kafka without any plain listener; the login is stored when its storage is formatted."""
    if shutil.which("openssl") is None:
        if os.environ.get("STANCEWATCH_REQUIRE_KAFKA"):
            pytest.fail("no openssl to make certificates with")
        pytest.skip("no openssl to make certificates with")
    folder = tmp_path_factory.mktemp("secured")
    authority, stranger = (make_authority(folder, name) for name in ("authority", "stranger"))
    server = make_certificate(authority, "broker", "IP:127.0.0.1")
    client = make_certificate(authority, "client", "DNS:client", KEY_PASSWORD)
    mutual, misnamed = (f"127.0.0.1:{free_port()}" for _ in range(2))
    kafka = KafkaServer(
        folder / "kafka",
        format_options=("--add-scram", f"SCRAM-SHA-512=[name=alice,password={PASSWORD}]"),
        client={
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": "alice",
            "sasl.password": PASSWORD,
            "ssl.ca.location": str(authority.file),
        },
    )
    places = f"LOGIN://{kafka.bootstrap},MUTUAL://{mutual},MISNAMED://{misnamed}"
    security = "org.apache.kafka.common.security"
    kafka.properties |= {
        "listeners": f"{places},CONTROLLER://127.0.0.1:{kafka.controller_port}",
        "advertised.listeners": places.replace("MISNAMED://127.0.0.1", "MISNAMED://localhost"),
        "listener.security.protocol.map": (
            "LOGIN:SASL_SSL,MUTUAL:SSL,MISNAMED:SASL_SSL,CONTROLLER:PLAINTEXT"
        ),
        "inter.broker.listener.name": "MUTUAL",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
        "listener.name.login.scram-sha-512.sasl.jaas.config": f"{security}.scram.ScramLoginModule required;",
        "listener.name.misnamed.scram-sha-512.sasl.jaas.config": (
            f"{security}.scram.ScramLoginModule required;"
        ),
        "listener.name.misnamed.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.login.plain.sasl.jaas.config": (
            f'{security}.plain.PlainLoginModule required user_bob="{PASSWORD}";'
        ),
        "listener.name.mutual.ssl.client.auth": "required",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(server.in_one_file()),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.file),
    }
    with running(kafka):
        yield Secured(kafka, mutual, misnamed, authority, stranger, client)


def run_commands(
    names: Iterable[str], environment: Mapping[str, str], folder: Path, *options: str
) -> dict[str, CompletedProcess[str]]:
    """Commands that talk to Kafka, two at a time."""

    def run(name: str) -> tuple[str, CompletedProcess[str]]:
        own = {"STANCEWATCH_DATA_DIR": str(folder / name), "STANCEWATCH_METRICS_PORT": "0"}
        if "no topics" in name:
            own["STANCEWATCH_CREATE_TOPICS"] = "false"
        return name, stancewatch(*COMMANDS[name], *options, **environment, **own)

    with ThreadPoolExecutor(2) as pool:
        return dict(pool.map(run, names))


def shown(done: CompletedProcess[str]) -> str:
    """All that a run printed."""
    return done.stdout + done.stderr


def listening_ports(pid: int) -> set[int]:
    """TCP ports that a process listens on."""
    links = {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and f"socket:[{rest[5]}]" in links:
                found.add(int(local.rpartition(":")[2], 16))
    return found


def secrets_in(text: str) -> set[str]:
    """Passwords that stand in a text."""
    return {secret for secret in (PASSWORD, WRONG, KEY_PASSWORD) if secret in text}


def examined(monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str], told: str) -> None:
    """Let the doctor look at the broker; it finds this, and tells no secret."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    finding = next(examine(load_settings()))
    assert (finding.what, finding.fine) == ("broker", False)
    assert told in finding.detail
    assert "\n" not in finding.detail
    assert not secrets_in(finding.detail)
    gc.collect()


def replayed(environment: Mapping[str, str], process: WorkerProcess) -> str:
    """Replay the seeds through a worker; what was printed."""
    expected = json.loads((SEEDS / "expected_counts.json").read_text())
    process.wait_until_ready()
    done = stancewatch("replay", SEEDS, "--json", "--debug", **environment)
    assert done.returncode == 0, shown(done)
    told = json.loads(done.stdout)
    assert (told["published"], told["dead_lettered"]) == (expected["published"], 1)
    wait_until(lambda: handled(process) == expected["published"], "all handled", process)
    assert votes(process) == told["counts"]
    return shown(done)


def test_all_commands_work_with_a_login_and_show_no_secret(
    secured: Secured, names: dict[str, str], tmp_path: Path
) -> None:
    """SCRAM over TLS, everything with --debug: nothing that is printed or served holds the password."""
    environment = secured.login(**{name.upper(): value for name, value in names.items()})
    with WorkerProcess(tmp_path / "w", environment, debug=True, keep_nothing=True) as process:
        printed = [replayed(environment, process)]
        done = run_commands(("doctor", "audit", "dead-letters"), environment, tmp_path, "--debug")
        done["resend"] = stancewatch("dead-letters", "resend", "--yes", "--json", "--debug", **environment)
        with urllib.request.urlopen(process.metrics_url, timeout=10) as answer:  # noqa: S310 - our own worker
            printed.append(answer.read().decode())
        assert listening_ports(process.process.pid) == {process.port}
    for each in done.values():
        assert each.returncode == 0, shown(each)
        printed.append(shown(each))
    assert "WRONG" not in done["doctor"].stdout
    assert json.loads(done["audit"].stdout)["equal"]
    assert len(json.loads(done["dead-letters"].stdout)["letters"]) == 1
    assert json.loads(done["resend"].stdout)["sent"] == 1
    printed.append((tmp_path / "w" / "worker.log").read_text())
    assert "SaslAuthenticateRequest_v1 (not shown)" in printed[-1]
    assert not secrets_in("".join(printed))


def test_a_client_certificate_is_enough(secured: Secured, names: dict[str, str], tmp_path: Path) -> None:
    """Mutual TLS with an encrypted private key, whose password is not shown either."""
    environment = secured.certificate(**{name.upper(): value for name, value in names.items()})
    with WorkerProcess(tmp_path / "w", environment, debug=True, keep_nothing=True) as process:
        printed = replayed(environment, process)
    assert not secrets_in(printed + (tmp_path / "w" / "worker.log").read_text())


def test_plain_shows_no_password_in_debug_logs(secured: Secured, tmp_path: Path) -> None:
    """With SASL PLAIN the password itself is in a request that the Kafka client logs."""
    environment = secured.login(SASL_MECHANISM="PLAIN", SASL_USERNAME="bob")
    (done,) = run_commands(("dead-letters",), environment, tmp_path, "--debug").values()
    assert "Authenticated as bob via PLAIN" in done.stderr
    assert "(not shown)" in done.stderr
    assert not secrets_in(shown(done))


@pytest.mark.parametrize(
    ("changes", "commands", "told"),
    [
        (
            {"SASL_PASSWORD": WRONG},
            COMMANDS,
            "refuses the login of 'alice' by SCRAM-SHA-512: check STANCEWATCH_SASL_USERNAME,",
        ),
        (
            {"SSL_CAFILE": "stranger.pem"},
            ("worker", "replay"),
            "shows a certificate that is not trusted",
        ),
    ],
    ids=["wrong password", "untrusted certificate"],
)
def test_a_refusal_is_one_line_with_the_remedy(
    secured: Secured, changes: dict[str, str], commands: Iterable[str], told: str, tmp_path: Path
) -> None:
    """From every command: exit code 1, no traceback, and no password."""
    if "SSL_CAFILE" in changes:
        changes = {"SSL_CAFILE": str(secured.stranger.file)}
    for name, done in run_commands(commands, secured.login(**changes), tmp_path).items():
        assert done.returncode == 1, name
        assert not secrets_in(shown(done)), name
        assert "Traceback" not in shown(done), name
        if name == "doctor":
            assert done.stderr == ""
            (line,) = [line for line in done.stdout.splitlines() if line.startswith("WRONG")]
        else:
            (line,) = done.stderr.splitlines()
        assert f"the Kafka broker at {secured.kafka.bootstrap} {told}" in line, name


def test_debug_shows_the_refusal_and_no_password(secured: Secured, tmp_path: Path) -> None:
    """Full logs and a traceback, without the password that was tried."""
    environment = secured.login(SASL_PASSWORD=WRONG)
    for done in run_commands(("audit",), environment, tmp_path, "--debug").values():
        assert done.returncode == 1
        assert "Traceback" in done.stderr
        assert "SaslAuthenticateRequest_v1 (not shown)" in done.stderr
        assert not secrets_in(shown(done))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"SECURITY_PROTOCOL": "SSL", "SASL_USERNAME": "", "SASL_PASSWORD": ""},
            "set STANCEWATCH_SECURITY_PROTOCOL",
        ),
        ({"SECURITY_PROTOCOL": "SASL_PLAINTEXT", "SSL_CAFILE": ""}, "set STANCEWATCH_SECURITY_PROTOCOL"),
        ({"SASL_MECHANISM": "SCRAM-SHA-256"}, "set STANCEWATCH_SASL_MECHANISM"),
        ({"BROKER": "localhost"}, "use a name that is in its certificate in STANCEWATCH_BROKER"),
        (
            {"SSL_CAFILE": "/nowhere/ca.pem"},
            "STANCEWATCH_SSL_CAFILE: cannot use /nowhere/ca.pem: No such file",
        ),
    ],
    ids=["no login", "no TLS", "mechanism", "name", "no file"],
)
def test_other_mistakes_of_a_login_are_told(
    secured: Secured, settings: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The doctor names the setting that is wrong."""
    if "BROKER" in settings:
        settings = {"BROKER": f"{settings['BROKER']}:{secured.kafka.port}"}
    examined(monkeypatch, secured.login(**settings), told)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"SSL_CERTFILE": "", "SSL_KEYFILE": "", "SSL_KEY_PASSWORD": ""}, "set STANCEWATCH_SSL_CERTFILE and"),
        ({"SSL_KEY_PASSWORD": WRONG}, "STANCEWATCH_SSL_CERTFILE: cannot use"),
        ({"SSL_KEY_PASSWORD": ""}, "STANCEWATCH_SSL_CERTFILE: cannot use"),
    ],
    ids=["no certificate", "wrong key password", "no key password"],
)
def test_mistakes_with_certificates_are_told(
    secured: Secured, settings: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutual TLS without our certificate, and a private key that cannot be read."""
    examined(monkeypatch, secured.certificate(**settings), told)


def test_plain_text_spoken_to_a_broker_with_tls_is_told(
    secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default settings on a secured broker."""
    examined(monkeypatch, _environment(BROKER=secured.kafka.bootstrap), "set STANCEWATCH_SECURITY_PROTOCOL")


def test_tls_spoken_to_a_plain_broker_is_told(kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the other way round."""
    environment = _environment(BROKER=kafka.bootstrap, SECURITY_PROTOCOL="SSL")
    examined(monkeypatch, environment, "set STANCEWATCH_SECURITY_PROTOCOL")


def test_an_address_that_the_broker_gives_for_itself_is_looked_at(
    secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first connection succeeds, and the name that clients are sent to is not in the certificate."""
    environment = secured.login(BROKER=secured.misnamed)
    name = secured.misnamed.replace("127.0.0.1", "localhost")
    examined(monkeypatch, environment, f"the Kafka broker at {name} shows a certificate of another name")
    with pytest.raises(BrokerError, match=f"{name} shows a certificate of another name"):
        asyncio.run(create_topics(load_settings()))
