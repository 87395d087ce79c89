"""Settings: order of sources, messages, secrets."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import pytest

from stream.errors import ConfigurationError
from stream.options import setup_logging
from stream.security import tls_context
from stream.settings import load_settings

SECRETS = {"SASL_PASSWORD": "hunter2-sasl", "SSL_KEY_PASSWORD": "hunter2-key"}


def test_a_flag_beats_the_environment_and_that_beats_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Command line, then environment, then default."""
    assert load_settings().metrics_port == 9464
    monkeypatch.setenv("STANCEWATCH_METRICS_PORT", "1234")
    assert load_settings().metrics_port == 1234
    assert load_settings(metrics_port=4321, broker=None).metrics_port == 4321


@pytest.mark.parametrize(
    ("name", "value"),
    [("BROKER", "localhost"), ("METRICS_PORT", "99999"), ("STORE", "disk"), ("PARTITIONS", "0")],
)
def test_a_bad_value_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """What arrived, where, and what was expected."""
    monkeypatch.setenv(f"STANCEWATCH_{name}", value)
    with pytest.raises(ConfigurationError, match=f"STANCEWATCH_{name}: got '{value}'"):
        load_settings()


def test_settings_cannot_be_changed() -> None:
    """What is in force at the start stays in force."""
    with pytest.raises(ValueError, match="frozen"):
        load_settings().broker = "x:1"


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """The start-up line prints the settings; passwords stay hidden there."""
    monkeypatch.setenv("STANCEWATCH_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("STANCEWATCH_SASL_USERNAME", "alice")
    for name, value in SECRETS.items():
        monkeypatch.setenv(f"STANCEWATCH_{name}", value)
    settings = load_settings()
    assert settings.sasl_password.get_secret_value() == "hunter2-sasl"
    assert settings.ssl_key_password.get_secret_value() == "hunter2-key"
    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump(mode='json')}"


def test_topics_and_group_take_the_prefix() -> None:
    """One prefix for all Kafka topics, and for the group and its changelogs where no group is set."""
    settings = load_settings(topic_prefix="team-a.")
    assert settings.events_topic == "team-a.news.events"
    assert settings.dead_letters_topic == "team-a.news.dead-letters"
    assert settings.group == "team-a.stancewatch"
    assert settings.changelog_topic("counts") == "team-a.stancewatch-counts-changelog"


@pytest.mark.parametrize(
    ("given", "group"),
    [
        ({}, "stancewatch"),
        ({"GROUP": "ours", "TOPIC_PREFIX": "team-a."}, "ours"),
        ({"GROUP": "", "TOPIC_PREFIX": "team-a."}, "team-a.stancewatch"),
    ],
)
def test_a_group_that_is_set_is_taken_as_it_is(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], group: str
) -> None:
    """Several groups may count the same topics."""
    for name, value in given.items():
        monkeypatch.setenv(f"STANCEWATCH_{name}", value)
    assert load_settings().group == group


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"RECORD_BYTES_MAX": "2048"}, "record_bytes_max must be at least twice"),
        ({"SECURITY_PROTOCOL": "SASL_TLS"}, "STANCEWATCH_SECURITY_PROTOCOL: got 'SASL_TLS'"),
        ({"SECURITY_PROTOCOL": "SASL_SSL"}, "STANCEWATCH_SASL_USERNAME"),
        ({"BROKER": "alice:hunter2-url@kafka:9092"}, "STANCEWATCH_BROKER: .*STANCEWATCH_SASL_USERNAME"),
        ({"BROKER": "kafka://hunter2-url@kafka"}, "STANCEWATCH_BROKER: .*STANCEWATCH_SASL_USERNAME"),
    ],
)
def test_messages_about_other_settings_hold_no_secret(
    monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str], told: str
) -> None:
    """A rule over several settings is told without what they held."""
    for name, value in {**SECRETS, **wrong}.items():
        monkeypatch.setenv(f"STANCEWATCH_{name}", value)
    with pytest.raises(ConfigurationError, match=told) as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"SECURITY_PROTOCOL": "SASL_SSL", "SASL_USERNAME": "alice"}, "STANCEWATCH_SASL_PASSWORD"),
        ({"SECURITY_PROTOCOL": "SASL_PLAINTEXT", "SASL_PASSWORD": "x"}, "STANCEWATCH_SASL_USERNAME"),
        ({"SASL_PASSWORD": "x"}, "STANCEWATCH_SECURITY_PROTOCOL"),
        ({"SECURITY_PROTOCOL": "SSL", "SASL_USERNAME": "alice"}, "STANCEWATCH_SECURITY_PROTOCOL"),
        ({"SSL_CAFILE": "ca.pem"}, "STANCEWATCH_SECURITY_PROTOCOL"),
        ({"SECURITY_PROTOCOL": "SSL", "SSL_KEYFILE": "key.pem"}, "STANCEWATCH_SSL_CERTFILE"),
    ],
)
def test_half_a_configuration_is_refused(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], told: str
) -> None:
    """Nobody believes that a connection is encrypted or authenticated when it is not."""
    for name, value in given.items():
        monkeypatch.setenv(f"STANCEWATCH_{name}", value)
    with pytest.raises(ConfigurationError, match=told):
        load_settings()


@pytest.mark.parametrize("name", ["SSL_CAFILE", "SSL_CERTFILE"])
@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_bad_certificate_file_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, content: str | None
) -> None:
    """Missing or not PEM: the setting and the file are told."""
    file = tmp_path / "some.pem"
    if content:
        file.write_text(content)
    monkeypatch.setenv("STANCEWATCH_SECURITY_PROTOCOL", "SSL")
    monkeypatch.setenv(f"STANCEWATCH_{name}", str(file))
    with pytest.raises(ConfigurationError, match=f"STANCEWATCH_{name}.*some.pem"):
        tls_context(load_settings())


def test_old_tls_is_not_spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS 1.2 or newer, with the broker's certificate and name checked."""
    monkeypatch.setenv("STANCEWATCH_SECURITY_PROTOCOL", "SSL")
    context = tls_context(load_settings())
    assert context is not None
    assert (context.minimum_version, context.verify_mode) == (ssl.TLSVersion.TLSv1_2, ssl.CERT_REQUIRED)
    assert context.check_hostname
    monkeypatch.setenv("STANCEWATCH_SECURITY_PROTOCOL", "PLAINTEXT")
    assert tls_context(load_settings()) is None


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_debug_logs_do_not_show_what_authenticates(
    capsys: pytest.CaptureFixture[str], mechanism: str
) -> None:
    """The Kafka client logs each request; with PLAIN one of them is the password."""
    from aiokafka.protocol.admin import SaslAuthenticateRequest_v1  # noqa: PLC0415

    kept = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        setup_logging(debug=True)
        request = SaslAuthenticateRequest_v1(f"\0alice\0hunter2-{mechanism}".encode())
        for _ in range(2):
            setup_logging(debug=True)
        logging.getLogger("aiokafka.conn").debug("Request to %s:%d %d: %s", "kafka", 9092, 1, request)
    finally:
        logging.getLogger().handlers[:], level = kept
        logging.getLogger().setLevel(level)
    said = capsys.readouterr().err
    assert "Request to kafka:9092 1: SaslAuthenticateRequest_v1 (not shown)" in said
    assert "hunter2" not in said
