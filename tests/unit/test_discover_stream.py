"""The parts of `stancewatch discover` that need neither a broker nor BERTopic."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from classifiers.decisions import TopicDecision
from classifiers.discovery.suggestion import entry, slug
from classifiers.discovery.topic import Topic
from classifiers.user_taxonomy import load_user_taxonomy
from stream import discover_window
from stream.discover_metrics import DiscoverMetrics
from stream.discover_window import TAIL, Window
from stream.emerging import decode_topic, encode_topic, listed, plain_topic, take
from stream.emerging_feed import EmergingFeed
from stream.schema import Event, encode, make_assessment
from stream.settings import load_settings
from stream.web import listen
from tests.conftest import ROOT
from tests.headlines import RISING
from tests.stack import stancewatch

NOW = datetime.now(UTC)


def event(id_: str, *, age_hours: float = 1, **values: object) -> Event:
    """An event of some hours ago."""
    given_ = {"title": f"title of {id_}", **values}
    return Event(id=id_, published_at=NOW - timedelta(hours=age_hours), **given_)  # type: ignore[arg-type]


def assessment(of: Event, *topics: str, language: str = "en") -> bytes:
    """As the worker writes it."""
    decisions = [TopicDecision(name, 0.9, "favor", 0.9, ()) for name in topics]
    return encode(make_assessment(of, decisions, "test", NOW, language=language))


def topic(id_: str, signal: str = "noise", documents: int = 5, **values: object) -> Topic:
    """A living topic."""
    given_ = {"label": f"label of {id_}", "born": 0.0, "seen": 0.0, "signal": signal, "documents": documents}
    return Topic(id=id_, **{**given_, **values})  # type: ignore[arg-type]


class TestWindow:
    """Events and assessments are joined by id, in either order."""

    @given(st.permutations(["e1", "a1", "e2", "a2", "e1"]))
    def test_the_order_of_the_two_topics_does_not_matter(self, order: list[str]) -> None:
        """Kafka gives none between topics; a record that comes twice changes nothing."""
        window = Window(48, 100)
        events = {"1": event("1"), "2": event("2", age_hours=2)}
        for record in order:
            own = events[record[1]]
            if record[0] == "e":
                window.add_event(encode(own))
            else:
                window.add_assessment(assessment(own))
        assert [document.id for document in window.slide()] == ["2", "1"]

    def test_what_was_not_judged_is_no_document(self) -> None:
        """Without assessment (duplicates, dead letters), in another language, withdrawn."""
        window = Window(48, 100)
        for name in ("unjudged", "german", "gone"):
            window.add_event(encode(event(name)))
        window.add_assessment(assessment(event("german"), language="de"))
        window.add_assessment(assessment(event("gone")))
        assert [document.id for document in window.slide()] == ["gone"]
        withdrawn = event("gone", version=2, retracted=True)
        window.add_event(encode(withdrawn))
        window.add_assessment(assessment(withdrawn))
        assert window.slide() == []

    def test_a_correction_takes_the_place(self) -> None:
        """And the earlier version does not come back."""
        window = Window(48, 100)
        first, second = event("a", title="first"), event("a", title="second", version=2)
        for each in (second, first):
            window.add_event(encode(each))
            window.add_assessment(assessment(each))
        assert [document.text for document in window.slide()] == ["second"]

    def test_on_topic_events_can_be_left_out(self) -> None:
        """To hear only of what nobody asked for."""
        window = Window(48, 100, off_topic_only=True)
        for name, topics in (("on", ["cloud"]), ("off", [])):
            window.add_event(encode(event(name)))
            window.add_assessment(assessment(event(name), *topics))
        assert [document.id for document in window.slide()] == ["off"]

    def test_it_is_bounded(self) -> None:
        """In documents and in what waits; garbage is passed over."""
        window = Window(48, 50)
        for n in range(400):
            each = event(f"{n}", age_hours=1 + n / 1000)
            window.add_event(encode(each))
            window.add_assessment(assessment(each))
        window.add_event(b"\xff{")
        window.add_assessment(b"[1, 2")
        window.add_assessment(None)
        assert len(window.documents) <= 100
        assert [document.id for document in window.slide()] == [str(n) for n in range(49, -1, -1)]

    def test_one_topic_may_be_read_before_the_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A restart reads the tails in any order: as much as they hold may wait, cut to what is read."""
        monkeypatch.setattr(discover_window, "WAITING_MAX", 10)
        window = Window(48, 50)
        events = [event(f"{n}", age_hours=1 + n / 1000, text="word " * 20_000) for n in range(TAIL * 50)]
        tracemalloc.start()
        try:
            for each in events:
                window.add_event(encode(each))
            size, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert size < 1_000_000
        for each in events:
            window.add_assessment(assessment(each))
        assert [document.id for document in window.slide()] == [str(n) for n in range(49, -1, -1)]

    def test_an_event_dated_ahead_does_not_end_the_window(self) -> None:
        """Future dates are accepted by the worker up to a day; the clock is the wall's."""
        window = Window(2, 50)
        for each in (event("now"), event("ahead", age_hours=-20)):
            window.add_event(encode(each))
            window.add_assessment(assessment(each))
        assert [document.id for document in window.slide()] == ["now"]
        assert set(window.documents) == {"now", "ahead"}


class TestShown:
    """Metrics stay bounded; a topic keeps its slot."""

    def test_slots_stay_and_the_rest_is_other(self) -> None:
        """The strongest have slots of their own."""
        registry = CollectorRegistry()
        metrics = DiscoverMetrics(registry, 2)
        metrics.slots.show([topic("a", "weak"), topic("b", documents=9), topic("c", documents=4)])

        def held(id_: str) -> list[str]:
            family = next(f for f in registry.collect() if f.name == "stancewatch_emerging_info")
            return [sample.labels["slot"] for sample in family.samples if sample.labels["id"] == id_]

        def value(name: str, **labels: str) -> float | None:
            return registry.get_sample_value(f"stancewatch_emerging_{name}", labels)

        assert (held("a"), held("b"), held("c")) == (["1"], ["2"], [])
        assert value("documents", slot="other") == 4
        metrics.slots.show([topic("c", "strong", 4), topic("b", documents=9), topic("d", documents=1)])
        assert (held("b"), held("c")) == (["2"], ["1"])
        assert (value("documents", slot="1"), value("documents", slot="other")) == (4, 1)
        assert (value("signals", signal="strong"), value("signals", signal="weak")) == (1, 0)
        metrics.slots.show([])
        assert (value("documents", slot="1"), value("growth_ratio", slot="1")) == (0, 0)
        assert held("c") == []

    def test_a_topic_survives_its_record(self) -> None:
        """And what is none is nothing."""
        one = topic("e1", "strong", words=["a"], history={"3": [1, 2]}, weights={"a": 1.0})
        assert decode_topic(encode_topic(one)) == one
        assert [decode_topic(value) for value in (None, b"", b"{}", b"\xff", b'{"id": 3}')] == [None] * 5

    async def test_the_feed_answers_what_lives(self) -> None:
        """Strongest first; a tombstone and a dead topic are gone."""
        feed = EmergingFeed(load_settings())
        dead = topic("dead", state="died")
        for each in (topic("a"), topic("b", "strong"), topic("gone"), dead):
            take(feed.topics, each.id.encode(), encode_topic(each))
        take(feed.topics, b"gone", None)
        answer = await feed.answer({})
        assert [each.id for each in answer.topics] == ["b", "a"]
        assert [each.id for each in listed(feed.topics.values())] == ["b", "a"]


class TestSuggestion:
    """An emerging topic becomes a monitored one."""

    @given(st.text(min_size=0, max_size=60))
    def test_any_label_gives_an_id_that_is_taken(self, label: str) -> None:
        """By the rule of topics.yaml."""
        name = slug(label, {"topic", "cloud"})
        assert name[0].isalpha()
        assert len(name) <= 40
        assert name not in {"topic", "cloud"}

    @given(st.lists(st.text(max_size=30), max_size=3))
    def test_any_text_makes_an_entry_that_can_be_read(
        self, tmp_path_factory: pytest.TempPathFactory, texts: list[str]
    ) -> None:
        """Quotes, colons, line ends and emoji in headlines included."""
        file = tmp_path_factory.mktemp("s") / "topics.yaml"
        examples = [(text, f"Moon {text}: lander") for text in texts]
        file.write_text(entry("e1", 'moon, "x"', ["moon", "lander"], examples, {"cloud"}), encoding="utf-8")
        (read,) = load_user_taxonomy(file, {"cloud"})
        assert len(read.examples) == len(texts)

    def test_topics_check_accepts_it_and_it_detects(self, tmp_path: Path) -> None:
        """The whole way from the output of discover to an assessment."""
        found, file = tmp_path / "found.json", tmp_path / "topics.yaml"
        moon = topic("e12", label="lunar, lander, rover", words=["moon", "lunar", "lander", "rover", "ice"])
        moon.examples = [[f"moon-{n}", " ".join(text.split())] for n, text in enumerate(RISING[:9])]
        found.write_text(json.dumps({"topics": [plain_topic(moon, examples=True)]}))
        done = stancewatch("topics", "suggest", "e12", "--from", found, "--into", file)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert "# moon-3" in file.read_text()
        again = stancewatch("topics", "suggest", "e12", "--from", found, "--into", file)
        assert again.returncode == 0, again.stderr
        ids = [each.id for each in load_user_taxonomy(file, ())]
        assert ids == ["lunar_lander_rover", "lunar_lander_rover_2"]
        checked = stancewatch("topics", "check", "--taxonomy", file)
        assert checked.returncode == 0, checked.stdout
        assert "detected by 9 examples and the description" in checked.stdout
        lines = tmp_path / "events.jsonl"
        unseen = Event(id="new", published_at=NOW, title="Second lunar rover will look for ice on the moon")
        other = Event(id="other", published_at=NOW, title="Chef shares a recipe for onion soup")
        lines.write_bytes(encode(unseen) + b"\n" + encode(other))
        judged = stancewatch("classify", lines, "--taxonomy", file)
        topics = [[t["topic"] for t in json.loads(line)["topics"]] for line in judged.stdout.splitlines()]
        assert "lunar_lander_rover" in topics[0]
        assert topics[1] == []

    def test_an_unknown_topic_is_told_in_one_line(self, tmp_path: Path) -> None:
        """With what lists them; a file of another kind too."""
        found = tmp_path / "found.json"
        found.write_text('{"topics": []}')
        done = stancewatch("topics", "suggest", "e9", "--from", found)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "no emerging topic begins with 'e9'" in done.stderr
        found.write_text("[]")
        assert "expected the output of" in stancewatch("topics", "suggest", "e9", "--from", found).stderr


def test_its_port_is_not_the_port_of_a_worker() -> None:
    """It runs beside them on one machine, and Prometheus looks for it there."""
    ports = load_settings()
    assert len({ports.metrics_port, ports.serve_port, ports.discover_port}) == 3
    (job,) = (
        job
        for job in yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text())[
            "scrape_configs"
        ]
        if job["job_name"] == "stancewatch-discover"
    )
    assert job["dns_sd_configs"][0]["port"] == ports.discover_port


def test_a_port_that_is_taken_is_told_in_one_line() -> None:
    """With the option and the variable that set another."""
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        done = stancewatch("discover", "--broker", "127.0.0.1:1", "--metrics-port", str(port))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"127.0.0.1:{port}" in done.stderr
    assert "STANCEWATCH_DISCOVER_PORT or --metrics-port" in done.stderr


def test_without_bertopic_the_remedy_is_told() -> None:
    """One line; and no other command needs it."""
    code = (
        "import sys; sys.modules['bertopic'] = None\n"
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'bertopic' else real(name, *a)\n"
        "import stream.cli; sys.argv = ['stancewatch', 'discover', 'seeds']; stream.cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.startswith("error: `stancewatch discover` needs BERTopic: pip install")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("module", ["stream.worker", "stream.discover", "stream.emerging_feed"])
def test_no_process_that_serves_imports_bertopic(module: str) -> None:
    """It silences warnings and takes seconds: the child of `discover` alone imports it."""
    code = (
        "import sys, warnings; warnings.simplefilter('error', UserWarning); before = warnings.filters[0]\n"
        f"import {module}; assert before in warnings.filters\n"
        "print(*(m for m in ('bertopic', 'umap', 'numba', 'plotly') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
