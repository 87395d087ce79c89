"""Settings: order of sources, messages, secrets."""

from __future__ import annotations

import pytest

from stream.errors import ConfigurationError
from stream.settings import load_settings


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
    monkeypatch.setenv("STANCEWATCH_SASL_PASSWORD", "hunter2")
    settings = load_settings()
    assert settings.sasl_password.get_secret_value() == "hunter2"
    assert "hunter2" not in f"{settings!r} {settings.model_dump(mode='json')}"


def test_topics_take_the_prefix() -> None:
    """One prefix for all Kafka topics."""
    settings = load_settings(topic_prefix="team-a.")
    assert settings.events_topic == "team-a.news.events"
    assert settings.dead_letters_topic == "team-a.news.dead-letters"
