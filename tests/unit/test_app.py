"""What of Faust is worked around."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
from faust.exceptions import PartitionsMismatch

from stream.app import StreamApp
from tests.stack import settings_for


@pytest.mark.parametrize(("known", "refused"), [(0, False), (4, False), (2, True)])
def test_a_changelog_that_the_client_does_not_know_yet_is_no_mismatch(*, known: int, refused: bool) -> None:
    """Just created, it is one of 0 partitions to Faust, which would end the worker in its first batch."""
    app = StreamApp(settings_for("127.0.0.1:9", store="memory"))
    numbers = {app.settings.events_topic: 4, app.settings.changelog_topic("counts"): known}
    app.faust._consumer = mock.Mock(topic_partitions=numbers.get)
    if refused:
        with pytest.raises(PartitionsMismatch, match="has 2 partitions"):
            app.counts._verify_source_topic_partitions(app.settings.events_topic)
    else:
        app.counts._verify_source_topic_partitions(app.settings.events_topic)
        assert not known or app.settings.events_topic in app.counts._verified_source_topics_for_partitions


def test_a_changelog_that_the_consumer_does_not_know_yet_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The consumer's metadata may still say 0 partitions; the first event must not fail."""
    app = StreamApp(settings_for("127.0.0.1:9", data_dir=str(tmp_path)))
    known = {app.settings.events_topic: 4, app.counts.changelog_topic_name: 0}
    app.faust.consumer = SimpleNamespace(topic_partitions=known.get)
    send = mock.Mock()
    monkeypatch.setattr(app.counts, "_send", send)
    event = mock.Mock(message=SimpleNamespace(topic=app.settings.events_topic, partition=2))
    with app.counts.partition_of(event):
        app.counts[b"2|1000"] = b"{}"
    send.assert_called_once_with(2, b"2|1000", b"{}")
