"""`stancewatch discover` on the embedded broker: a theme rises, keeps its id, and outlives a kill."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.embedded import EmbeddedBroker
from stream.emerging import listed, read_topics
from stream.settings import load_settings
from tests.discovering import DiscoverProcess, assess, emerging_ids, refits
from tests.headlines import rising, steady, wire
from tests.stack import samples, wait_until

pytestmark = pytest.mark.embedded


async def test_a_theme_rises_and_keeps_its_id_over_a_kill(
    tmp_path: Path, embedded_broker: EmbeddedBroker
) -> None:
    """The planted theme is the one strong signal, forty copies of one story are none, ids outlive kill -9."""
    settings = load_settings(broker=embedded_broker.address, embedded=True, discover_slots=3)
    moon = rising()
    await assess(settings, [*steady(), *moon[:9], *wire()])
    with DiscoverProcess(tmp_path / "one", settings, discover_slots=3) as process:
        process.wait_until_ready()
        wait_until(lambda: refits(process) >= 1, "a look for topics", process, seconds=200)
        topics = {topic.id: topic for topic in await read_topics(settings)}
        before = await emerging_ids(settings)
        ids = {before.get(event.id, "") for event in moon[:9]}
        assert len(ids) == 1, topics
        (name,) = ids
        assert topics[name].signal == "strong"
        assert [topic.id for topic in topics.values() if topic.signal == "strong"] == [name]
        shown = samples(process.metrics_url, "stancewatch_emerging_info")
        assert [labels["id"] for labels, _ in shown if labels["slot"] == "1"] == [name]
        documents = samples(process.metrics_url, "stancewatch_emerging_documents")
        assert [labels["slot"] for labels, _ in documents] == ["1", "2", "3", "other"]
        assert signals(process)["strong"] == 1
        process.process.kill()
    await assess(settings, moon[9:])
    with DiscoverProcess(tmp_path / "two", settings) as process:
        process.wait_until_ready()
        wait_until(lambda: refits(process) >= 1, "a look after the restart", process, seconds=200)
        after = await emerging_ids(settings)
    assert {after[event.id] for event in moon} == {name}
    kept = [id_ for id_ in before if before[id_] == after.get(id_)]
    assert len(kept) >= 0.9 * len(before)
    known = {topic.id: topic for topic in await read_topics(settings)}
    assert known[name].label == topics[name].label
    assert listed(known.values())[0].id == name


def signals(process: DiscoverProcess) -> dict[str, float]:
    """Living topics by signal."""
    found = samples(process.metrics_url, "stancewatch_emerging_signals")
    return {labels["signal"]: value for labels, value in found}
