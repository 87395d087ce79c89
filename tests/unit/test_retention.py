"""How long buckets and identities are kept: rules, sweeps, crashes, the audit's own count of it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from stream.comparison import differences
from stream.errors import ConfigurationError
from stream.metrics import WINDOW_HOURS, StateCollector
from stream.recount import PartitionCount
from stream.settings import load_settings
from stream.tables import (
    TOTAL,
    Accepted,
    Counts,
    Identity,
    counts_key,
    decode_counts,
    hour_of,
    identity_key,
    read_identity,
    split_counts_key,
    stored,
)
from tests.doubles import Bench, CrashError, SourceEvent
from tests.unit.test_recount import decided, state_of

FIRST = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
BUCKET_DAYS, IDENTITY_DAYS = 8, 10


def record(
    offset: int,
    event_id: str,
    day: float,
    text: str = "cloud:favor",
    *,
    written: float | None = None,
    **fields: object,
) -> SourceEvent:
    """An event published `day` days after the first, and written to Kafka then or on another day."""
    published = (FIRST + day * DAY).isoformat()
    row = {"id": event_id, "text": text, "published_at": published, **fields}
    at = FIRST + (day if written is None else written) * DAY
    return SourceEvent(offset, event_id.encode(), json.dumps(row).encode(), timestamp=at.timestamp())


def bench_of(**values: object) -> Bench:
    """A processor that keeps buckets for 8 days and identities for 10."""
    bench = Bench(**{"bucket_days": BUCKET_DAYS, "identity_days": IDENTITY_DAYS, **values})
    bench.processor.order.start_at(1, {0: 0})
    return bench


async def handle(bench: Bench, *batch: SourceEvent) -> None:
    """Process a batch and commit it."""
    await bench.processor.process(batch)
    bench.commits[0] = batch[-1].message.offset + 1


def total(bench: Bench) -> Counts:
    """Stored total of partition 0."""
    return decode_counts(bench.counts[counts_key(0, TOTAL)])


def hours(bench: Bench) -> set[int]:
    """Hours of the stored buckets, counted from the first event's."""
    buckets = {split_counts_key(key)[1] for key in bench.counts}
    return {int(bucket) - hour_of(FIRST) for bucket in buckets if bucket != TOTAL}


def ids(bench: Bench) -> set[str]:
    """Event ids in the state."""
    return {key.decode().partition("|")[2] for key in bench.identities}


@pytest.mark.parametrize("together", [True, False])
async def test_an_event_older_than_the_kept_hours_is_late(together: bool) -> None:
    """It counts in the totals and as late, never in a bucket; an hour younger, it is not late."""
    bench = bench_of()
    last_kept = 20 - BUCKET_DAYS + 1 / 24
    batch = [record(0, "a", 20), record(1, "b", last_kept), record(2, "c", last_kept - 1 / 24)]
    for part in [batch] if together else [[event] for event in batch]:
        await handle(bench, *part)
    assert total(bench).votes == {"cloud": {"favor": 3}}
    assert total(bench).outcomes == {"assessed": 2, "late": 1}
    assert hours(bench) == {20 * 24, 12 * 24 + 1}
    assert bench.sample("stancewatch_events_total", outcome="late") == 1
    assert len(bench.assessments.records) == 3


async def test_off_topic_and_unread_events_are_late_too() -> None:
    """Late is told of the hour, whatever the classifier says."""
    bench = bench_of()
    await handle(bench, record(0, "a", 20), record(1, "b", 0, "off"), record(2, "c", 0, language="de"))
    assert total(bench).outcomes == {"assessed": 1, "late": 2}


async def test_corrections_and_retractions_of_what_is_no_longer_in_a_bucket_change_the_totals() -> None:
    """The vote is taken back from the total only; a new version casts in its own hour if that is kept."""
    bench = bench_of()
    await handle(bench, record(0, "a", 0), record(1, "b", 0), record(2, "c", 9))
    await handle(
        bench,
        record(3, "a", 9, "cloud:against", version=2),
        record(4, "b", 0, version=2, retracted=True, written=9),
    )
    assert total(bench).votes == {"cloud": {"favor": 1, "against": 1}}
    assert total(bench).outcomes == {"assessed": 3, "corrected": 1, "retracted": 1}
    assert hours(bench) == {9 * 24}
    bucket = decode_counts(bench.counts[counts_key(0, hour_of(FIRST) + 9 * 24)])
    assert bucket.votes == {"cloud": {"favor": 1, "against": 1}}


async def test_an_event_dated_ahead_does_not_age_the_buckets_by_more_than_its_day() -> None:
    """The clock of the buckets never passes the day on which the newest record was written."""
    bench = bench_of(future_tolerance_hours=1e6)
    await handle(bench, record(0, "a", 3000, written=9), record(1, "b", 2, written=9))
    assert total(bench).outcomes == {"assessed": 2}
    assert hours(bench) == {3000 * 24, 2 * 24}


async def test_an_archive_is_counted_by_its_own_time() -> None:
    """Replayed years later, events are not late for it: the newest published_at counts."""
    bench = bench_of()
    await handle(bench, *(record(n, str(n), n, written=900) for n in range(6)))
    assert total(bench).outcomes == {"assessed": 6}


async def test_expired_hours_and_identities_are_swept() -> None:
    """They leave the tables by deletion; what is within its time stays."""
    bench = bench_of()
    await handle(bench, record(0, "a", 0), record(1, "b", 5))
    await handle(bench, record(2, "c", 9))
    await handle(bench, record(3, "d", 9))
    assert hours(bench) == {5 * 24, 9 * 24}
    assert ids(bench) == {"a", "b", "c", "d"}
    await handle(bench, record(4, "e", 11))
    await handle(bench, record(5, "f", 11))
    assert hours(bench) == {5 * 24, 9 * 24, 11 * 24}
    assert ids(bench) == {"b", "c", "d", "e", "f"}
    assert bench.sample("stancewatch_swept_total", table="counts") == 1
    assert bench.sample("stancewatch_swept_total", table="identities") == 1
    assert total(bench).votes == {"cloud": {"favor": 6}}


async def test_a_duplicate_of_a_forgotten_identity_is_a_new_event() -> None:
    """Whether it was swept already does not matter; a day earlier it is a duplicate."""
    for swept in (False, True):
        bench = bench_of()
        await handle(bench, record(0, "a", 0), record(1, "b", 0))
        await handle(bench, record(2, "a", 0, written=IDENTITY_DAYS))
        batch = [record(3, "x", IDENTITY_DAYS + 1), record(4, "a", 0, written=IDENTITY_DAYS + 1)]
        for part in [[event] for event in batch] if swept else [batch]:
            await handle(bench, *part)
        await handle(bench, record(5, "a", 0, written=IDENTITY_DAYS + 1))
        assert total(bench).outcomes == {"assessed": 3, "duplicate": 2, "late": 1}
        assert total(bench).votes == {"cloud": {"favor": 4}}


async def test_a_correction_keeps_the_identity_for_its_own_time() -> None:
    """Each accepted version is kept for the time from when it was written."""
    bench = bench_of()
    await handle(bench, record(0, "a", 0))
    await handle(bench, record(1, "a", 6, version=2))
    await handle(bench, record(2, "a", 6, written=16))
    assert total(bench).outcomes == {"assessed": 1, "corrected": 1, "duplicate": 1}


async def test_nothing_is_forgotten_that_an_uncommitted_record_may_ask_for() -> None:
    """Delivered again after the log's time has jumped, a duplicate is still one, and nothing is sent."""
    bench = bench_of()
    await handle(bench, record(0, "a", 0))
    again = [record(1, "a", 1), record(2, "x", 40), record(3, "y", 80), record(4, "z", 80)]
    for event in again:
        await bench.processor.process([event])  # never committed: the sweep must leave "a" alone
    sent = len(bench.assessments.records)
    assert "a" in ids(bench)
    before = (dict(bench.counts), dict(bench.identities))
    bench.processor.order.start_at(1, {0: 1})
    await bench.processor.process(again)
    assert (dict(bench.counts), dict(bench.identities)) == before
    assert len(bench.assessments.records) == sent
    bench.commits[0] = 5
    await bench.processor.process([record(5, "v", 80)])
    await bench.processor.process([record(6, "w", 80)])
    assert ids(bench) == {"v", "w", "x", "y", "z"} - {"x"}


async def test_a_record_from_before_what_is_remembered_is_not_judged_anew() -> None:
    """Someone set the group back: what was counted and committed is skipped, nothing is sent."""
    bench = bench_of()
    old = [record(0, "a", 0), record(1, "b", 0)]
    await handle(bench, *old)
    for offset, day in ((2, 20), (3, 20), (4, 40), (5, 40)):
        await handle(bench, record(offset, str(offset), day))
    assert "a" not in ids(bench)
    before = (dict(bench.counts), dict(bench.identities))
    sent = len(bench.assessments.records)
    bench.processor.order.start_at(1, {0: 0})
    bench.commits[0] = 0
    await bench.processor.process(old)
    assert (dict(bench.counts), dict(bench.identities)) == before
    assert len(bench.assessments.records) == sent


async def test_an_id_that_is_corrected_for_ever_stays_small() -> None:
    """Versions that decide nothing go; a late copy of any of them is a duplicate still."""
    bench = bench_of()
    sizes = set()
    for offset in range(60):
        await handle(bench, record(offset, "a", offset / 10, version=offset + 1))
        sizes.add(len(read_identity(bench.identities, identity_key(0, "a")).accepted))
    assert max(sizes) <= 3
    await handle(bench, *(record(60 + version, "a", 6, version=version + 1) for version in range(60)))
    assert total(bench).outcomes == {"assessed": 1, "corrected": 59, "duplicate": 60}


async def test_a_late_version_is_not_judged_anew_when_the_group_is_set_back() -> None:
    """By the version that would refuse it, which is no longer there: its hour would get a vote."""
    bench = bench_of()
    rows = [(3, 1), (1, 0.5), (4, 1), (5, 1), (6, 1)]
    log = [record(n, "a", day, written=1, version=version) for n, (version, day) in enumerate(rows)]
    for event in log:
        await handle(bench, event)
    left = read_identity(bench.identities, identity_key(0, "a")).accepted
    assert min(entry.offset for entry in left) > 1
    before = dict(bench.counts)
    bench.processor.order.start_at(1, {0: 1})
    bench.commits[0] = 1
    await bench.processor.process(copies(log, 1, len(log)))
    assert dict(bench.counts) == before


@pytest.mark.parametrize("seconds", [253_402_300_800.0, 1.7e12, 9.2e15])
def test_a_record_with_an_impossible_time_is_a_dead_letter_and_moves_no_clock(seconds: float) -> None:
    """Microseconds in the place of milliseconds: it would stop the worker, or all ids would be forgotten."""
    log = [record(0, "a", 1), record(1, "b", 1), record(2, "a", 1), record(3, "c", 1)]
    log[1].message.timestamp = seconds
    bench = undisturbed(log)
    assert total(bench).outcomes == {"assessed": 2, "dead_letter": 1, "duplicate": 1}
    (letter,) = bench.dead_letters.records
    assert letter.headers["reason"] == b"invalid_date"
    assert b"milliseconds" in letter.headers["detail"]
    assert differences(audited(bench, log), state_of(bench.counts), None) == []


async def test_a_sweep_looks_at_a_bounded_stretch() -> None:
    """Several batches make a round; each deletes no more than its stretch."""
    bench = bench_of()
    await handle(bench, *(record(n, f"old-{n:02}", 0) for n in range(40)))
    bench.processor.retention.stretch_min = 10
    bench.processor.retention.stretch_per_record = 1
    left = []
    for n in range(40, 48):
        await handle(bench, record(n, f"new-{n}", 30))
        left.append(sum(name.startswith("old") for name in ids(bench)))
    assert max(before - after for before, after in pairwise(left)) == 10
    assert left[-1] == 0


async def test_state_from_before_there_was_retention_is_kept() -> None:
    """An identity without a day is known for good: nothing is counted twice by an update."""
    bench = bench_of()
    bench.processor.order.start_at(1, {0: 1})
    old = {"offset": 0, "votes": {"cloud": {"favor": 1}}, "outcomes": {"assessed": 1}, "latest": 0.0}
    dict.__setitem__(bench.counts, counts_key(0, TOTAL), json.dumps(old).encode())
    dict.__setitem__(bench.identities, identity_key(0, "a"), b'[[[1, 0, 0, {"cloud": "favor"}]]]')
    await handle(bench, record(1, "b", 30))
    await handle(bench, record(2, "a", 60), record(3, "c", 60))
    assert total(bench).outcomes == {"assessed": 3, "duplicate": 1}


def test_the_days_of_the_log_can_be_told_of_any_offset_that_may_come_again() -> None:
    """Marks below the committed offset go, all but the one that holds there."""
    counts = Counts()
    for offset, day in ((3, 5), (4, 5), (7, 4), (8, 6), (9, 9)):
        counts.pass_record(offset, day * 86_400.0)
    assert [counts.day_at(offset) for offset in (0, 2, 3, 7, 8, 9, 99)] == [0, 0, 5, 5, 6, 9, 9]
    counts.settle(8)
    assert [counts.is_settled(offset) for offset in (7, 8, 9)] == [True, False, False]
    assert [counts.day_at(offset) for offset in (8, 9)] == [6, 9]
    counts.settle(12)
    assert [counts.is_settled(offset) for offset in (11, 12)] == [True, False]
    assert counts.day_at(12) == 9
    assert Counts().day_at(5) == 0
    assert not Counts().is_settled(0)


def test_records_without_a_time_move_no_clock() -> None:
    """Kafka says -1 for none."""
    counts = Counts()
    for offset, seconds in enumerate((-0.001, 0.0)):
        counts.pass_record(offset, seconds)
    assert counts.days == []


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"bucket_days": 7}, r"STANCEWATCH_BUCKET_DAYS: got 7: .*greater than or equal to 8"),
        ({"bucket_days": 40}, r"STANCEWATCH_IDENTITY_DAYS: got 30: .*STANCEWATCH_BUCKET_DAYS \(40\)"),
        ({"identity_days": 13}, r"STANCEWATCH_IDENTITY_DAYS: got 13: .*STANCEWATCH_BUCKET_DAYS \(14\)"),
    ],
)
def test_times_that_cannot_work_are_refused(values: dict[str, object], told: str) -> None:
    """Buckets must cover the longest window, identities the buckets whose votes they take back."""
    with pytest.raises(ConfigurationError, match=told):
        load_settings(**values)


@dataclass(frozen=True)
class Planned:
    """A record of a random history: days between records, and how long before it an event was published."""

    event_id: str
    version: int
    text: str
    retracted: bool
    step: float
    age: float

    def at(self, offset: int, day: float) -> SourceEvent:
        """The record at an offset, written on a day; the text ``bad`` makes it malformed."""
        if self.text == "bad":
            moment = (FIRST + day * DAY).timestamp()
            return SourceEvent(offset, self.event_id.encode(), b"{", timestamp=moment)
        fields = {"version": self.version, "retracted": self.retracted}
        return record(offset, self.event_id, day - self.age, self.text, written=day, **fields)


planned = st.builds(
    Planned,
    event_id=st.sampled_from("abc"),
    version=st.integers(1, 3),
    text=st.sampled_from(
        ["cloud:favor", "cloud:against", "chips:neutral cloud:neutral", "off", "bad", "crash"]
    ),
    retracted=st.sampled_from([False, False, False, True]),
    step=st.sampled_from([0, 0, 0, 0.25, 1, 3, 9, 11, 30, -1, -12]),
    age=st.sampled_from([0, 0, 0, 0.05, 2, 7, 7.95, 8, 12, 25, -0.9]),
)
histories = st.lists(planned, min_size=1, max_size=16)


def written(plan: list[Planned]) -> list[SourceEvent]:
    """The log of a plan."""
    log = []
    day = 50.0
    for offset, row in enumerate(plan):
        day = max(0.0, day + row.step)
        log.append(row.at(offset, day))
    return log


def copies(log: list[SourceEvent], start: int, end: int) -> list[SourceEvent]:
    """Delivered once more."""
    return [
        SourceEvent(
            event.message.offset, event.message.key, event.message.value, timestamp=event.message.timestamp
        )
        for event in log[start:end]
    ]


def undisturbed(log: list[SourceEvent]) -> Bench:
    """One pass without a crash, and without a sweep."""
    bench = bench_of()
    bench.processor.retention.sweep = lambda *_: (0, 0)  # type: ignore[method-assign]
    for offset in range(len(log)):
        asyncio.run(bench.processor.process(copies(log, offset, offset + 1)))
    return bench


def kept(
    bench: Bench, settled: int
) -> tuple[Counts, dict[int, Counts], dict[bytes, list[Accepted]], list[int]]:
    """What must be the same however it came about: total, kept hours, memory of ids and letters."""
    whole = total(bench)
    first = whole.kept_from(BUCKET_DAYS)
    buckets = {
        int(split_counts_key(key)[1]): decode_counts(value)
        for key, value in bench.counts.items()
        if split_counts_key(key)[1] != TOTAL
    }
    oldest = whole.day_at(whole.offset) - IDENTITY_DAYS
    entries = {
        key: [entry for entry in read_identity(bench.identities, key).accepted if entry.day >= oldest]
        for key in bench.identities
    }
    # Of the settled versions the last one is there; how many of the others are is how it came about.
    entries = {
        key: [
            entry
            for entry, then in pairwise([*accepted, None])
            if entry and (then is None or then.offset >= settled)
        ]
        for key, accepted in entries.items()
    }
    whole.days = [(0, whole.day_at(whole.offset))]
    rejected = [offset for offset in range(settled, whole.offset + 1) if whole.was_rejected(offset)]
    whole.rejected, whole.committed = [], 0
    return (
        whole,
        {hour: counts for hour, counts in buckets.items() if hour >= first},
        {key: accepted for key, accepted in entries.items() if accepted},
        rejected,
    )


def run_with_crashes(data: st.DataObject, log: list[SourceEvent], crashes: int) -> Bench:
    """Batches of any size; any may crash with any subset of its writes kept, and any commit may lag."""
    bench = bench_of()
    bench.processor.retention.stretch_min = data.draw(st.integers(1, 4))
    bench.processor.retention.stretch_per_record = 1
    committed = position = 0
    while position < len(log):
        end = min(len(log), position + data.draw(st.integers(1, 5)))
        batch = copies(log, position, end)
        if crashes and data.draw(st.booleans()):
            crashes -= 1
            data.draw(st.sampled_from([bench.counts, bench.identities])).crash_on_confirm = True
            with pytest.raises(CrashError):
                asyncio.run(bench.processor.process(batch))
            for table in (bench.counts, bench.identities):
                writes = range(len(table.pending))
                table.crash(data.draw(st.sets(st.sampled_from(writes))) if writes else set())
            position = bench.commits[0] = committed
            bench.processor.order.start_at(1, {0: committed})
        else:
            asyncio.run(bench.processor.process(batch))
            position = end
            if data.draw(st.booleans()):
                committed = position
            if data.draw(st.booleans()):
                bench.commits[0] = committed
    return bench


def audited(bench: Bench, log: list[SourceEvent]) -> PartitionCount:
    """The audit's count of the log."""
    state = state_of(bench.counts)
    counted = PartitionCount(
        0,
        *decided(bench, len(log)),
        noted=len(log) - 1,
        total_offset=state.total.offset,
        hour_offsets={hour: counts.offset for hour, counts in state.hours.items()},
        shown_records=0,
        bucket_days=BUCKET_DAYS,
        identity_days=IDENTITY_DAYS,
    )
    for event in log:
        counted.take(event.message.offset, event.message.value, event.message.timestamp)
    return counted


@settings(max_examples=400)
@given(data=st.data(), plan=histories)
def test_with_crashes_and_sweeps_the_state_is_that_of_one_undisturbed_pass(
    data: st.DataObject, plan: list[Planned]
) -> None:
    """Totals, outcomes, kept hours, identities and output; and the audit's own count agrees."""
    log = written(plan)
    reference, bench = undisturbed(log), run_with_crashes(data, log, crashes=4)
    settled = total(bench).settled
    assert kept(bench, settled) == kept(reference, settled)
    told = {row.headers["offset"]: json.loads(row.value)["topics"] for row in bench.assessments.records}
    assert told == {
        row.headers["offset"]: json.loads(row.value)["topics"] for row in reference.assessments.records
    }
    for each in (reference, bench):
        counted = audited(each, log)
        assert differences(counted, state_of(each.counts), None) == []
        assert (counted.unassessed, counted.unlettered, counted.altered) == ([], [], [])
        assert counted.decisions.left(0, counted.upto) == []


@settings(max_examples=150)
@given(data=st.data(), plan=histories)
def test_after_some_batches_nothing_expired_is_left(data: st.DataObject, plan: list[Planned]) -> None:
    """Sweeps end: each hour and identity beyond its time goes, and no other."""
    log = written(plan)
    bench = run_with_crashes(data, log, crashes=2)
    before = kept(bench, len(log))
    for _ in range(120):
        whole = total(bench)
        bench.processor.retention.sweep(0, whole, len(log), 1)
    assert kept(bench, len(log)) == before
    whole = total(bench)
    first = whole.kept_from(BUCKET_DAYS)
    assert all(
        int(split_counts_key(key)[1]) >= first for key in bench.counts if split_counts_key(key)[1] != TOTAL
    )
    assert set(bench.identities) == set(before[2])


def test_the_audit_names_a_kept_hour_that_is_missing_and_passes_over_an_expired_one() -> None:
    """A sweep may delete what has expired, and nothing else."""
    bench = bench_of()
    log = [record(0, "a", 0), record(1, "b", 5), record(2, "c", 9)]
    asyncio.run(bench.processor.process(copies(log, 0, 3)))
    first, second = (counts_key(0, hour_of(FIRST) + day * 24) for day in (0, 5))
    del bench.counts[first]
    assert differences(audited(bench, log), state_of(bench.counts), None) == []
    del bench.counts[second]
    (found,) = differences(audited(bench, log), state_of(bench.counts), None)
    assert (found.hour, found.topic, found.log, found.found) == (hour_of(FIRST) + 5 * 24, "cloud", 1, 0)


ZONES = ["UTC", "America/New_York", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe"]
moments = st.datetimes(
    min_value=datetime(2024, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(2025, 1, 1),  # noqa: DTZ001
    timezones=st.one_of(
        st.sampled_from(ZONES).map(ZoneInfo),
        st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
    ),
    allow_imaginary=True,
)


@given(moments)
def test_the_hour_of_a_moment_is_that_of_its_instant(moment: datetime) -> None:
    """Offsets, summer time, the hour that is there twice and the one that is not: only the instant counts."""
    utc = moment.astimezone(UTC)
    assert hour_of(moment) == hour_of(utc) == (utc - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(hours=1)


NEAR = [datetime(2024, 3, 31, 1, tzinfo=UTC), datetime(2024, 11, 3, 6, tzinfo=UTC)]
"""Clocks change: Berlin forward, New York back."""


@settings(max_examples=150)
@given(
    end=st.sampled_from(NEAR),
    ages=st.lists(st.integers(0, 12 * 24 * 60), min_size=1, max_size=12),
    zone=st.sampled_from(ZONES),
    data=st.data(),
)
def test_windows_count_instants_whatever_the_offset_they_are_written_with(
    end: datetime, ages: list[int], zone: str, data: st.DataObject
) -> None:
    """1h, 24h and 7d by the buckets equal a count of the instants themselves, after any sweeps."""
    bench = bench_of()
    instants = [end - timedelta(minutes=age) for age in ages]
    size = data.draw(st.integers(1, 4))
    events = []
    for offset, instant in enumerate(instants):
        row = {"id": str(offset), "text": "cloud:favor", "published_at": ""}
        row["published_at"] = instant.astimezone(ZoneInfo(zone)).isoformat()
        events.append(SourceEvent(offset, row["id"].encode(), json.dumps(row).encode()))
    for start in range(0, len(events), size):
        asyncio.run(handle(bench, *events[start : start + size]))
    parts = [(*split_counts_key(key), decode_counts(value)) for key, value in bench.counts.items()]
    registry = CollectorRegistry()
    registry.register(StateCollector(lambda: parts, ["cloud"], "event"))
    last = max(instants).replace(minute=0)
    for window, length in WINDOW_HOURS.items():
        labels = {"topic": "cloud", "stance": "favor", "window": window, "partition": "0"}
        shown = registry.get_sample_value("stancewatch_window_assessments", labels)
        assert shown == sum(instant >= last - timedelta(hours=length - 1) for instant in instants)


def test_an_empty_identity_is_swept() -> None:
    """It says nothing; a poison event leaves one behind."""
    bench = bench_of()
    bench.identities[identity_key(0, "p")] = stored(Identity())
    bench.processor.retention.sweep(0, Counts(), 0, 1)
    assert not bench.identities
