"""What is measured around the processing, and that no stream can make the page grow without end."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from classifiers.decisions import Expected
from stream.errors import StateError
from stream.metrics import OTHER, STAGES, TOPICS_MAX, Metrics
from stream.monitor import MARKS_MAX, SOURCES_MAX, CommitClock, RebalanceMonitor, SourceClock, StateSize
from stream.settings import load_settings
from stream.worker import WorkerState, _execute
from tests.doubles import Bench, SourceEvent
from tests.unit.test_schema import event_bytes


class Clock:
    """Time that a test moves on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def created(**values: object) -> Metrics:
    """Metrics in a registry of their own."""
    return Metrics.create(CollectorRegistry(), model={"name": "m"}, **values)  # type: ignore[arg-type]


class TestCommitClock:
    """Tells how long acknowledged records wait for a commit."""

    def test_a_steady_stream_does_not_hide_that_nothing_is_committed(self) -> None:
        """The oldest waiting record counts, not the newest."""
        clock = Clock()
        commits = CommitClock(clock)
        for offset in range(100):
            commits.note(3, offset)
            clock.now += 1
        assert commits.waiting(3, committed=0) == (99, 100)

    def test_nothing_waits_when_everything_is_committed(self) -> None:
        """Kafka's committed offset is the next one to read."""
        commits = CommitClock(Clock())
        commits.note(0, 7)
        assert commits.waiting(0, committed=7)[0] == 7
        assert commits.waiting(0, committed=8) == (-1, 0.0)
        assert commits.waiting(1, committed=0) == (-1, 0.0)

    def test_a_rebalance_forgets(self) -> None:
        """What was not committed is delivered again, perhaps to another worker."""
        commits = CommitClock(Clock())
        commits.note(0, 7)
        commits.clear()
        assert commits.waiting(0, committed=0) == (-1, 0.0)

    @given(
        gaps=st.lists(st.floats(0, 5), min_size=1, max_size=50),
        committed=st.integers(0, 60),
        after=st.floats(0, 100),
    )
    def test_the_age_is_that_of_the_oldest_within_a_second(
        self, gaps: list[float], committed: int, after: float
    ) -> None:
        """Compared with a plain list of all acknowledgements."""
        clock = Clock()
        commits = CommitClock(clock)
        when = []
        for offset, gap in enumerate(gaps):
            clock.now += gap
            commits.note(0, offset)
            when.append(clock.now)
        clock.now += after
        highest, age = commits.waiting(0, committed)
        oldest = clock.now - when[committed] if committed < len(when) else 0.0
        assert highest == (len(when) - 1 if committed < len(when) else -1)
        assert oldest <= age + 1e-6
        assert age <= oldest + 1.0

    def test_a_long_stall_takes_bounded_memory(self) -> None:
        """Readiness has failed long before."""
        clock = Clock()
        commits = CommitClock(clock)
        for offset in range(2 * MARKS_MAX):
            commits.note(0, offset)
            clock.now += 1
        assert len(commits._marks[0]) == MARKS_MAX
        assert commits.waiting(0, committed=0) == (2 * MARKS_MAX - 1, 2 * MARKS_MAX)


class TestRebalanceMonitor:
    """Faust calls it as a sensor."""

    def test_the_time_runs_from_revocation_to_working_again(self) -> None:
        """Recovery is the part behind the assignment."""
        clock, metrics = Clock(), created()
        monitor = RebalanceMonitor(metrics, clock)
        monitor.on_rebalance_start(None)
        clock.now += 2
        monitor.on_rebalance_return(None, {})
        clock.now += 5
        assert metrics.registry.get_sample_value("stancewatch_recovery_seconds") == 5  # still running
        clock.now += 1
        monitor.on_rebalance_end(None, {})
        clock.now += 60
        value = metrics.registry.get_sample_value
        assert value("stancewatch_rebalances_total") == 1
        assert value("stancewatch_rebalance_seconds_sum") == 8
        assert value("stancewatch_recovery_seconds") == 6

    def test_a_rebalance_that_is_overtaken_counts_its_time_once(self) -> None:
        """Two revocations, one way back to work."""
        clock, metrics = Clock(), created()
        monitor = RebalanceMonitor(metrics, clock)
        monitor.on_rebalance_start(None)
        clock.now += 1
        monitor.on_rebalance_return(None, {})
        clock.now += 1
        monitor.on_rebalance_start(None)
        assert monitor.recovery_seconds() == 0
        clock.now += 1
        monitor.on_rebalance_return(None, {})
        clock.now += 1
        monitor.on_rebalance_end(None, {})
        value = metrics.registry.get_sample_value
        assert value("stancewatch_rebalances_total") == 2
        assert (value("stancewatch_rebalance_seconds_count"), value("stancewatch_rebalance_seconds_sum")) == (
            1,
            4,
        )
        assert value("stancewatch_recovery_seconds") == 1


class TestStateSize:
    """Sums up RocksDB's files."""

    def test_files_are_summed_up_at_most_every_thirty_seconds(self, tmp_path: Path) -> None:
        """A scrape must not cost a walk each time; a folder that is not there yet is empty."""
        clock = Clock()
        size = StateSize(lambda: [tmp_path, tmp_path / "missing"], clock)
        (tmp_path / "a.sst").write_bytes(b"x" * 100)
        assert size() == 100
        (tmp_path / "b.sst").write_bytes(b"x" * 23)
        clock.now += 29
        assert size() == 100
        clock.now += 1
        assert size() == 123

    def test_the_first_look_does_not_wait_for_the_end_of_the_recovery(self, tmp_path: Path) -> None:
        """While nothing is owned the size is 0, and that is not remembered."""
        owned: list[Path] = []
        size = StateSize(lambda: owned, Clock())
        (tmp_path / "a.sst").write_bytes(b"x" * 100)
        assert size() == 0
        owned.append(tmp_path)
        assert size() == 100


class TestCardinality:
    """Labels come from closed sets."""

    def test_the_first_hundred_sources_keep_their_slots(self) -> None:
        """The others share one, and are told; what is shown does not change with what comes later."""
        metrics = created()
        sources = SourceClock(metrics)
        for number in [*range(500), *reversed(range(500))]:
            sources.saw(f"source-{number}")
        (family,) = metrics.source_last_event.collect()
        shown = {sample.labels["source"] for sample in family.samples}
        assert shown == {*(f"source-{number}" for number in range(SOURCES_MAX)), OTHER}
        assert metrics.registry.get_sample_value("stancewatch_other_sources") == 500 - SOURCES_MAX

    def test_odd_names_of_sources_are_taken(self) -> None:
        """None at all, one that is called like the slot of the others, and a very long one."""
        metrics = created()
        sources = SourceClock(metrics)
        for name in ("", OTHER, "x" * 500):
            sources.saw(name)
        (family,) = metrics.source_last_event.collect()
        assert {sample.labels["source"] for sample in family.samples} == {"unknown", OTHER, "x" * 80}
        assert metrics.registry.get_sample_value("stancewatch_other_sources") == 1

    def test_five_hundred_topics_do_not_become_five_hundred_histograms(self) -> None:
        """200 have one of their own, the rest share one."""
        metrics = created(topics=[f"t{number:03}" for number in range(500)])
        for number in range(500):
            metrics.stance_probability.labels(metrics.slot(f"t{number:03}")).observe(0.5)
        (family,) = metrics.stance_probability.collect()
        counted = {s.labels["topic"]: s.value for s in family.samples if s.name.endswith("_count")}
        assert (len(counted), sum(counted.values()), counted[OTHER]) == (TOPICS_MAX + 1, 500, 300)


class TestReadiness:
    """What /readyz and ``stancewatch_commit_age_seconds`` say of a worker."""

    def test_a_worker_that_takes_events_and_commits_nothing_is_not_ready(self) -> None:
        """However steadily it acknowledges; a commit makes it ready again."""
        clock, place = Clock(), TP("news.events", 0)
        committed = {place: 0}
        consumer = SimpleNamespace(assignment=lambda: {place}, _committed_offset=committed)
        done = SimpleNamespace(completed=SimpleNamespace(is_set=lambda: True))
        faust = SimpleNamespace(
            started=True,
            rebalancing=False,
            in_recovery=False,
            tables=SimpleNamespace(recovery=done),
            flow_control=SimpleNamespace(is_active=lambda: True),
            consumer=consumer,
            consumer_generation_id=1,
        )
        commits = CommitClock(clock)
        state = WorkerState(
            SimpleNamespace(faust=faust, settings=load_settings()),  # type: ignore[arg-type]
            SimpleNamespace(acknowledged=commits),  # type: ignore[arg-type]
        )
        assert state.not_ready() == "recovering state from the changelog"
        state._begun = 1
        assert (state.not_ready(), state.commit_age()) == ("", 0)
        for offset in range(100):
            commits.note(0, offset)
            clock.now += 1
        assert state.commit_age() == 100
        assert state.not_ready() == "partition 0: acknowledged up to 99 but not committed for 69 s"
        committed[place] = 100
        assert (state.not_ready(), state.commit_age()) == ("", 0)
        faust.rebalancing = True
        assert (state.commit_age(), bool(state.not_ready())) == (0, True)


class TestExpected:
    """What the training of the model measured."""

    def test_it_is_shown_beside_what_is_measured(self) -> None:
        """For the alerts on drift."""
        value = created(expected=Expected(0.71, 0.03)).registry.get_sample_value
        assert value("stancewatch_expected_stance_probability_ratio") == 0.71
        assert value("stancewatch_expected_unclear_ratio") == 0.03

    def test_a_model_without_it_shows_that_it_is_not_known(self) -> None:
        """NaN compares with nothing, so no alert fires."""
        value = created().registry.get_sample_value
        assert math.isnan(value("stancewatch_expected_unclear_ratio") or 0)
        assert math.isnan(value("stancewatch_expected_stance_probability_ratio") or 0)


class TestProcessor:
    """What the steps of a batch leave behind."""

    async def test_each_stage_is_timed_once_a_batch(self) -> None:
        """And the batch as a whole."""
        bench = Bench()
        await bench.processor.process([SourceEvent(0, b"a", event_bytes(id="a", text="cloud:favor"))])
        for stage in STAGES:
            assert bench.sample("stancewatch_stage_seconds_count", stage=stage) == 1, stage
        assert bench.sample("stancewatch_batch_seconds_count") == 1

    async def test_language_source_and_confidence_are_counted_once_an_event(self) -> None:
        """Not for duplicates, retractions, what Kafka delivers again, and what cannot be read."""
        bench = Bench()
        events = [
            SourceEvent(0, b"a", event_bytes(id="a", text="cloud:favor chips:against", source="Wire")),
            SourceEvent(1, b"a", event_bytes(id="a", text="cloud:favor", source="Wire")),
            SourceEvent(2, b"b", b"{"),
            SourceEvent(3, b"c", event_bytes(id="c", text="cloud:favor", language="de", source="")),
            SourceEvent(4, b"d", event_bytes(id="d", text="cloud:favor", retracted=True)),
        ]
        await bench.processor.process(events)
        bench.processor.order.start_at(1, {})
        await bench.processor.process(events)
        assert bench.sample("stancewatch_languages_total", language="en") == 1
        assert bench.sample("stancewatch_languages_total", language="other") == 1
        assert bench.sample("stancewatch_stance_probability_count", topic="other") == 2
        assert bench.sample("stancewatch_stance_probability_sum", topic="other") == 1.6
        for source in ("Wire", "unknown"):
            assert bench.sample("stancewatch_source_last_event_timestamp_seconds", source=source)

    async def test_the_slowest_article_of_a_batch_is_its_exemplar(self) -> None:
        """The longest text, as far as can be told."""
        bench = Bench()
        texts = {"short": "cloud:favor", "long": "cloud:favor " * 50, "middle": "cloud:favor " * 5}
        await bench.processor.process(
            [SourceEvent(n, i.encode(), event_bytes(id=i, text=t)) for n, (i, t) in enumerate(texts.items())]
        )
        (family,) = bench.metrics.classify_seconds.collect()
        assert [s.exemplar.labels for s in family.samples if s.exemplar] == [{"event_id": "long"}]


def test_a_page_stays_small_whatever_is_sent() -> None:
    """500 topics and 500 sources: the page of this process has fewer lines than 4,000."""
    metrics = created(topics=[f"t{number:03}" for number in range(500)])
    sources = SourceClock(metrics)
    for number in range(500):
        sources.saw(f"source-{number}")
    assert len(generate_latest(metrics.registry).splitlines()) < 4000


class TestLogEnds:
    """A log that ends before what was counted was created anew; or its leader has just changed."""

    async def look(self, monkeypatch: pytest.MonkeyPatch, ends: Iterable[int]) -> None:
        """Look at a partition that is counted up to 764, with the ends that its leader tells in turn."""
        monkeypatch.setattr("stream.worker.END_RESTS", (0.0, 0.0))
        told = iter(ends)

        async def highwaters(*places: TP) -> dict[TP, int]:
            return dict.fromkeys(places, next(told))

        faust = SimpleNamespace(consumer=SimpleNamespace(highwaters=highwaters))
        state = WorkerState(SimpleNamespace(faust=faust), SimpleNamespace())  # type: ignore[arg-type]
        await state._check_log_ends({TP("news.events", 3): 764})

    async def test_an_older_end_from_a_new_leader_is_asked_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It knows the end when its followers have asked it: no reason to stop."""
        await self.look(monkeypatch, [763, 763, 764])

    async def test_an_end_that_stays_behind_stops_the_worker(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every new event below 764 would be passed over in silence."""
        with pytest.raises(StateError, match=r"news.events\[3\] ends at offset 2, .* up to 764 were"):
            await self.look(monkeypatch, [0, 1, 2])


def test_what_ends_faust_itself_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that fills while Faust opens the state; the supervisor restarts us."""

    def crash() -> None:
        message = "IO error: No space left on device: While appending to file: 000008.sst"
        raise OSError(message)

    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr("os._exit", leave)
    monkeypatch.setattr("logging.shutdown", lambda: None)
    with pytest.raises(SystemExit, match="70"):
        _execute(SimpleNamespace(execute_from_commandline=crash))
    assert "(STANCEWATCH_DATA_DIR) is full" in caplog.text
    assert "Traceback" not in caplog.text
