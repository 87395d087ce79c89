"""The audit's own counting against the processor on random logs, and against plain code."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiokafka import TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from stream.audit import Audit
from stream.comparison import Difference, Page, StoredPartition, differences, read_page, read_state
from stream.errors import StateError
from stream.metrics import StateCollector
from stream.recount import Decisions, Letters, PartitionCount, Place, moment, read_assessment, read_letter
from stream.tables import TOTAL, Counts, counts_key, decode_counts, split_counts_key, stored
from tests.doubles import Bench, CrashError, SourceEvent
from tests.unit.test_processor import DAY, Planned, planned, record, reference

EVENTS = "news.events"


def decided(bench: Bench, size: int) -> tuple[Decisions, Letters]:
    """What the processor wrote, read as the audit reads it."""
    decisions, letters = Decisions({0: (0, size)}), Letters(EVENTS)
    for row in bench.dead_letters.records:
        found_letter = read_letter(row.headers)
        assert found_letter is not None
        letters.put(*found_letter, row.value, moment(row.headers, row.timestamp))
    for row in bench.assessments.records:
        found = read_assessment(row.headers, row.value)
        assert found is not None
        if not letters.keep_if_later(found[0], moment(row.headers, row.timestamp)):
            decisions.put(*found)
    return decisions, letters


def count(bench: Bench, log: list[SourceEvent], noted: int, page: Page | None = None) -> PartitionCount:
    """The audit's count of the log at the points where the state and the page stand."""
    state = state_of(bench.counts)
    counted = PartitionCount(
        0,
        *decided(bench, len(log)),
        noted=noted,
        total_offset=state.total.offset,
        hour_offsets={hour: counts.offset for hour, counts in state.hours.items()},
        shown_records=page.records if page else 0,
        bucket_days=14,
        identity_days=30,
    )
    for event in log:
        counted.take(event.message.offset, event.message.value, event.message.timestamp)
    return counted


def state_of(table: dict[bytes, bytes]) -> StoredPartition:
    """Partition 0 of a state."""
    return read_state(dict(table)).get(0, StoredPartition())


def page_of(table: dict[bytes, bytes]) -> Page:
    """What a worker with this state shows."""
    total = decode_counts(table[counts_key(0, TOTAL)]) if table else Counts()
    page = Page(topics={"cloud", "chips"})
    page.outcomes.update(total.outcomes)
    for topic, by_stance in total.votes.items():
        page.votes.update({(topic, stance): votes for stance, votes in by_stance.items()})
    return page


def process(bench: Bench, log: list[SourceEvent], cuts: list[int]) -> list[dict[bytes, bytes]]:
    """Handle the log in batches that end at these offsets; the state after each."""
    bench.processor.order.start_at(1, {0: 0})
    states = [dict(bench.counts)]
    start = 0
    for end in [*cuts, len(log)]:
        asyncio.run(bench.processor.process(log[start:end]))
        states.append(dict(bench.counts))
        start = end
    return states


def draw_cuts(data: st.DataObject, size: int) -> list[int]:
    """Some batch ends."""
    return sorted(data.draw(st.sets(st.integers(1, size - 1)))) if size > 1 else []


@settings(max_examples=300)
@given(data=st.data(), plan=st.lists(planned, min_size=1, max_size=14))
def test_the_recount_equals_state_and_page_wherever_they_stand(
    data: st.DataObject, plan: list[Planned]
) -> None:
    """State beyond the noted end, some of its keys further than others, and a page further still."""
    bench = Bench()
    log = [row.at(offset) for offset, row in enumerate(plan)]
    cuts = draw_cuts(data, len(log))
    states = process(bench, log, cuts)
    ends = [0, *cuts, len(log)]
    reached = data.draw(st.integers(1, len(states) - 1))
    noted = data.draw(st.integers(0, ends[reached])) - 1
    # The changelog was read while the next batch was being written: some keys are ahead.
    following = states[min(reached + 1, len(states) - 1)]
    ahead = data.draw(st.sets(st.sampled_from(sorted(following))))
    bench.counts.update(states[reached])
    for key in [key for key in bench.counts if key not in states[reached]]:
        del bench.counts[key]
    bench.counts.update({key: following[key] for key in ahead})
    page = page_of(states[data.draw(st.integers(reached, len(states) - 1))])
    counted = count(bench, log, noted, page)
    assert differences(counted, state_of(bench.counts), page) == []
    assert (counted.unassessed, counted.unlettered, counted.altered) == ([], [], [])
    assert counted.decisions.left(0, counted.upto) == []


@settings(max_examples=200)
@given(plan=st.lists(planned, min_size=1, max_size=14))
def test_the_recount_equals_a_brute_force_model(plan: list[Planned]) -> None:
    """Votes in total and by hour are those of the final versions, told by another plain pass."""
    bench = Bench()
    log = [row.at(offset) for offset, row in enumerate(plan)]
    process(bench, log, [])
    counted = count(bench, log, len(log) - 1)
    totals, hours = reference(plan)
    assert +counted.total.votes == totals
    by_hour = {
        (hour, *vote): votes for hour, sums in counted.hours.items() for vote, votes in sums.items() if votes
    }
    first = int(DAY.timestamp() // 3600)
    assert by_hour == {(first + hour, topic, stance): n for (hour, topic, stance), n in hours.items()}


@settings(max_examples=200)
@given(data=st.data(), plan=st.lists(planned, min_size=1, max_size=10))
def test_any_vote_or_outcome_that_is_off_by_one_is_found(data: st.DataObject, plan: list[Planned]) -> None:
    """Whatever single figure of the state is changed, the comparison names it."""
    bench = Bench()
    log = [row.at(offset) for offset, row in enumerate(plan)]
    process(bench, log, [])
    key = data.draw(st.sampled_from(sorted(bench.counts)))
    counts = decode_counts(bench.counts[key])
    by = data.draw(st.sampled_from([-1, 1]))
    if key == counts_key(0, TOTAL) and data.draw(st.booleans()):
        name: dict[str, str] = {"outcome": data.draw(st.sampled_from(["assessed", "duplicate"]))}
        counts.outcomes[name["outcome"]] = counts.outcomes.get(name["outcome"], 0) + by
    else:
        name = {"topic": "cloud", "stance": "favor"}
        by_stance = counts.votes.setdefault("cloud", {})
        by_stance["favor"] = by_stance.get("favor", 0) + by
    bench.counts[key] = stored(counts)
    (found,) = differences(count(bench, log, len(log) - 1), state_of(bench.counts), None)
    assert (found.where, found.found - found.log) == ("state", by)
    assert {**found.as_json(), **name} == found.as_json()
    assert (found.hour is None) == (key == counts_key(0, TOTAL))


def simple() -> tuple[Bench, list[SourceEvent]]:
    """Two events and a malformed record, handled."""
    bench = Bench()
    log = [record(0, "a"), record(1, "b", "chips:against"), SourceEvent(2, b"x", b"{")]
    process(bench, log, [])
    return bench, log


def test_an_event_without_an_assessment_is_named() -> None:
    """Lost output is found though the state counted the event."""
    bench, log = simple()
    del bench.assessments.records[1]
    counted = count(bench, log, 2)
    assert counted.unassessed == [(1, "b", 1)]
    assert {(d.outcome, d.topic) for d in differences(counted, state_of(bench.counts), None)} == {
        ("assessed", None),
        ("unassessed", None),
        (None, "chips"),
    }


def test_an_assessment_without_an_event_is_left_over() -> None:
    """Forged, or written for a record that is not there under this id and version."""
    bench, log = simple()
    forged = bench.assessments.records[0]
    forged.value = json.dumps({**json.loads(forged.value), "event_id": "z"}).encode()
    counted = count(bench, log, 2)
    assert counted.unassessed == [(0, "a", 1)]
    assert counted.decisions.left(0, counted.upto) == [0]


def test_the_last_assessment_of_an_event_counts() -> None:
    """Written twice after a crash, the second says what was counted."""
    bench, log = simple()
    first = bench.assessments.records[0]
    bench.assessments.records.append(first)
    assert differences(count(bench, log, 2), state_of(bench.counts), None) == []
    other = json.loads(first.value)
    other["topics"][0]["stance"] = "against"
    bench.assessments.records[-1].value = json.dumps(other).encode()
    found = differences(count(bench, log, 2), state_of(bench.counts), None)
    assert {(d.topic, d.stance, d.log, d.found) for d in found} == {
        ("cloud", "favor", 0, 1),
        ("cloud", "against", 1, 0),
    }


@pytest.mark.parametrize("texts", [("crash", "cloud:favor"), ("cloud:favor", "crash")])
async def test_a_record_judged_twice_with_a_crash_in_between_is_what_was_counted(
    texts: tuple[str, str],
) -> None:
    """Letter and assessment of the same place: the first was sent, and lost before it was counted."""
    bench = Bench()
    first, second = (record(0, "a", text) for text in texts)
    bench.identities.crash_on_confirm = True
    with pytest.raises(CrashError):
        await bench.processor.process([first])
    for table in (bench.counts, bench.identities):
        table.crash(set())
    bench.processor.order.start_at(1, {0: 0})
    await bench.processor.process([second])
    assert len(bench.assessments.records) == len(bench.dead_letters.records) == 1
    counted = count(bench, [second], 0)
    assert differences(counted, state_of(bench.counts), None) == []
    assert counted.decisions.left(0, counted.upto) == []
    assert counted.letters.left() == []


@pytest.mark.parametrize("verdict", ["letter", "assessment"])
async def test_what_a_worker_sent_that_had_lost_its_partition_does_not_count(verdict: str) -> None:
    """It stood still, and its output came after that of its successor, which judged otherwise."""
    bench, late = Bench(), Bench()
    texts = ["cloud:favor", "crash"] if verdict == "letter" else ["crash", "cloud:favor"]
    bench.counts.owners[0], late.counts.owners[0] = 4, 3
    for each, text in zip((bench, late), texts, strict=True):
        await each.processor.process([record(0, "a", text)])
    for output in ("assessments", "dead_letters"):
        getattr(bench, output).records += getattr(late, output).records
    counted = count(bench, [record(0, "a", texts[0])], 0)
    assert differences(counted, state_of(bench.counts), None) == []
    assert counted.decisions.left(0, counted.upto) == []
    assert counted.letters.left() == []


def test_a_record_that_was_dropped_without_a_letter_is_named() -> None:
    """Nothing is lost in silence."""
    bench, log = simple()
    bench.dead_letters.records.clear()
    assert count(bench, log, 2).unlettered == [2]


def test_a_letter_with_other_bytes_is_named() -> None:
    """Dead letters are kept byte for byte."""
    bench, log = simple()
    bench.dead_letters.records[0].value = b"["
    assert count(bench, log, 2).altered == [2]


def test_a_letter_of_another_log_is_passed_over() -> None:
    """The topic may serve several logs."""
    letters = Letters(EVENTS)
    letters.put("other", Place(0, 1), "invalid_json", b"{", (0, 0.0))
    assert letters.left() == []
    assert letters.foreign == 1


def test_an_hour_that_was_dropped_before_its_time_is_a_difference() -> None:
    """The audit knows how long hours are kept; that there is a tombstone is no excuse."""
    bench, log = simple()
    hour = next(key for key in bench.counts if not key.endswith(b"total"))
    kept = dict(bench.counts)
    tombstone: dict[bytes, bytes | None] = {**kept, hour: None}
    counted = count(bench, log, 2)
    state = read_state(tombstone)[0]
    assert len(state.dropped) == 1
    assert {d.hour for d in differences(counted, state, None)} == {int(hour.split(b"|")[1])}
    del kept[hour]
    assert {d.hour for d in differences(counted, read_state(dict(kept))[0], None)} == {
        int(hour.split(b"|")[1])
    }


def test_a_state_that_claims_more_than_the_log_holds_is_a_difference() -> None:
    """An applied offset behind the end of the log cannot be right."""
    bench, log = simple()
    key = counts_key(0, TOTAL)
    total = decode_counts(bench.counts[key])
    total.offset = 99
    bench.counts[key] = stored(total)
    found = differences(count(bench, log, 2), state_of(bench.counts), None)
    assert [(d.where, d.name, d.log, d.found) for d in found] == [("state", "last offset", 2, 99)]


def test_an_hour_that_only_the_state_has_is_a_difference() -> None:
    """Votes in an hour for which the log has no event."""
    bench, log = simple()
    bench.counts[counts_key(0, 7)] = stored(Counts(1, {"cloud": {"favor": 3}}))
    (found,) = differences(count(bench, log, 2), state_of(bench.counts), None)
    assert (found.hour, found.topic, found.log, found.found) == (7, "cloud", 0, 3)


def test_a_retraction_casts_no_vote_whatever_its_assessment_says() -> None:
    """The rule stands above what is written."""
    bench = Bench()
    log = [record(0, "a", retracted=True)]
    process(bench, log, [])
    told = bench.assessments.records[0]
    topics = [{"topic": "cloud", "stance": "favor"}]
    told.value = json.dumps({**json.loads(told.value), "topics": topics}).encode()
    assert count(bench, log, 0).total.votes == {}


def test_topics_beyond_the_cap_of_the_page_stand_under_other() -> None:
    """The page sums what it does not show by name."""
    bench, log = simple()
    page = page_of(bench.counts)
    page.topics = {"cloud", "other"}
    page.votes["other", "against"] = page.votes.pop(("chips", "against"))
    assert differences(count(bench, log, 2, page), state_of(bench.counts), page) == []
    page.votes["other", "against"] += 1
    assert [
        (d.where, d.topic, d.log, d.found)
        for d in differences(count(bench, log, 2, page), state_of(bench.counts), page)
    ] == [("metrics", "other", 1, 2)]


@pytest.mark.parametrize("wrap", [False, True], ids=["plain", "CloudEvent"])
def test_both_forms_of_events_are_read(wrap: bool) -> None:
    """The envelope's own id is not the event's."""
    bench = Bench()
    row: dict[str, Any] = {"id": "a", "text": "cloud:favor", "published_at": DAY.isoformat(), "version": 3}
    if wrap:
        row = {"specversion": "1.0", "id": "e", "source": "s", "type": "t", "data": row}
    log = [SourceEvent(0, b"a", json.dumps(row).encode())]
    process(bench, log, [])
    counted = count(bench, log, 0)
    assert counted.total.outcomes == {"assessed": 1}
    assert differences(counted, state_of(bench.counts), None) == []


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        ({}, b'{"event_id": "a", "version": 1, "topics": []}'),
        ({"partition": b"x", "offset": b"1"}, b'{"event_id": "a", "version": 1, "topics": []}'),
        ({"partition": b"0", "offset": b"1"}, b"{"),
        ({"partition": b"0", "offset": b"1"}, None),
    ],
)
def test_an_assessment_that_names_no_place_is_none(headers: dict[str, bytes], value: bytes | None) -> None:
    """The audit lists it as stray."""
    assert read_assessment(headers, value) is None


def test_a_place_that_the_log_does_not_have_is_refused() -> None:
    """A forged offset must not reserve memory."""
    decisions = Decisions({0: (0, 3)})
    found = read_assessment(
        {"partition": b"0", "offset": b"999999999999"}, b'{"event_id": "a", "version": 1, "topics": []}'
    )
    assert found is not None
    assert not decisions.put(*found)


@settings(max_examples=50)
@given(plan=st.lists(planned, min_size=1, max_size=8))
def test_a_page_is_read_as_the_worker_writes_it(plan: list[Planned]) -> None:
    """Votes, outcomes and topics come back by partition; the page accounts for every record."""
    bench = Bench()
    log = [row.at(offset) for offset, row in enumerate(plan)]
    process(bench, log, [])
    parts = [(*split_counts_key(key), decode_counts(value)) for key, value in bench.counts.items()]
    registry = CollectorRegistry()
    registry.register(StateCollector(lambda: parts, ["cloud", "chips"], "wall"))
    pages = read_page(generate_latest(registry).decode())
    assert set(pages) == {0}
    assert pages[0].records == len(plan)
    assert +pages[0].votes == +page_of(bench.counts).votes
    assert pages[0].topics == {"cloud", "chips"}
    assert differences(count(bench, log, len(log) - 1, pages[0]), state_of(bench.counts), pages[0]) == []


def test_a_log_without_its_beginning_cannot_be_audited() -> None:
    """What retention deleted is in the state; the message says what the topic needs."""
    place = TopicPartition("news.events", 2)
    with pytest.raises(StateError, match=r"news.events\[2\] begins at offset 5: .*retention.ms=-1"):
        Audit._check_beginning({place: (5, 9)})
    Audit._check_beginning({place: (0, 9)})


def test_a_difference_says_what_it_is() -> None:
    """One line for people."""
    difference = Difference("state", 2, log=3, found=4, topic="cloud", stance="favor", hour=0)
    assert difference.describe() == "partition 2, 1970-01-01T00:00Z, cloud favor"
