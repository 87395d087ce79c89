"""The way of a batch, with doubles for Kafka: order of the steps, decisions, crashes."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from unittest import mock

import pytest
from faust.types import TP
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.errors import BrokerError
from stream.tables import (
    TOTAL,
    Accepted,
    Counts,
    counts_key,
    decode_counts,
    hour_of,
    read_identity,
    split_counts_key,
)
from tests.doubles import Bench, CrashError, SourceEvent

DAY = datetime(2024, 9, 16, tzinfo=UTC)


def record(offset: int, event_id: str, text: str = "cloud:favor", **fields: object) -> SourceEvent:
    """A well-formed record."""
    row = {"id": event_id, "text": text, "published_at": DAY.isoformat(), **fields}
    return SourceEvent(offset, event_id.encode(), json.dumps(row).encode())


def total(bench: Bench) -> Counts:
    """Stored total of partition 0."""
    return decode_counts(bench.counts[counts_key(0, TOTAL)])


def outcomes(bench: Bench) -> dict[str, int]:
    """Stored outcomes of partition 0."""
    return total(bench).outcomes


async def test_an_event_is_assessed_counted_and_acknowledged() -> None:
    """The whole way of one event: output, both keys of the state, acknowledgement, metrics."""
    bench = Bench()
    bench.counts.owners[0] = 7
    event = record(5, "a", "cloud:favor chips:against")
    await bench.processor.process([event])
    assessment = json.loads(bench.assessments.records[0].value)
    assert assessment["event_id"] == "a"
    assert [(t["topic"], t["stance"]) for t in assessment["topics"]] == [
        ("cloud", "favor"),
        ("chips", "against"),
    ]
    assert assessment["topics"][0]["evidence"] == [
        {"text": "cloud:favor", "start": 0, "end": 11, "field": "text"}
    ]
    assert bench.assessments.records[0].headers == {
        "partition": b"0",
        "offset": b"5",
        "owner": b"7",
    }
    assert total(bench).votes == {"cloud": {"favor": 1}, "chips": {"against": 1}}
    bucket = decode_counts(bench.counts[counts_key(0, hour_of(DAY))])
    assert (bucket.votes, bucket.offset) == (total(bench).votes, 5)
    assert event.acknowledged
    assert bench.sample("stancewatch_events_total", outcome="assessed") == 1


async def test_a_duplicate_is_counted_but_not_assessed_again() -> None:
    """The same id and version at another offset changes no vote, in one batch or in a later one."""
    bench = Bench()
    await bench.processor.process([record(0, "a"), record(1, "a", "cloud:against")])
    await bench.processor.process([record(2, "a")])
    assert total(bench).votes == {"cloud": {"favor": 1}}
    assert outcomes(bench) == {"assessed": 1, "duplicate": 2}
    assert len(bench.assessments.records) == 1


@pytest.mark.parametrize("together", [True, False])
async def test_a_correction_replaces_the_earlier_vote(together: bool) -> None:
    """A higher version takes the old vote back in its own hour and casts the new one in its hour."""
    bench = Bench()
    later = DAY.replace(hour=7)
    batch = [record(0, "a"), record(1, "a", "chips:against", version=2, published_at=later.isoformat())]
    for part in [batch] if together else [[event] for event in batch]:
        await bench.processor.process(part)
    assert total(bench).votes == {"cloud": {"favor": 0}, "chips": {"against": 1}}
    assert decode_counts(bench.counts[counts_key(0, hour_of(DAY))]).votes == {"cloud": {"favor": 0}}
    assert decode_counts(bench.counts[counts_key(0, hour_of(later))]).votes == {"chips": {"against": 1}}
    assert outcomes(bench) == {"assessed": 1, "corrected": 1}


async def test_a_retraction_withdraws_the_vote_even_when_it_comes_first() -> None:
    """Retracted is retracted, whichever of the two arrives first."""
    bench = Bench()
    await bench.processor.process([record(0, "a"), record(1, "a", version=2, retracted=True)])
    await bench.processor.process([record(2, "b", version=2, retracted=True), record(3, "b")])
    assert total(bench).votes == {"cloud": {"favor": 0}}
    assert outcomes(bench) == {"assessed": 1, "retracted": 2, "duplicate": 1}
    withdrawn = [json.loads(r.value) for r in bench.assessments.records if json.loads(r.value)["retracted"]]
    assert [row["event_id"] for row in withdrawn] == ["a", "b"]


async def test_an_event_that_breaks_the_model_is_a_dead_letter_and_the_others_go_on() -> None:
    """One poison event in a batch costs only itself; sent again, it is not taken for a duplicate."""
    bench = Bench()
    poison = record(1, "p", "crash")
    await bench.processor.process([record(0, "a"), poison, record(2, "b"), record(3, "p", "cloud:neutral")])
    assert total(bench).votes == {"cloud": {"favor": 2, "neutral": 1}}
    assert outcomes(bench) == {"assessed": 3, "dead_letter": 1}
    letter = bench.dead_letters.records[0]
    assert (letter.value, letter.headers["reason"]) == (poison.message.value, b"unclassifiable")
    assert b"the model broke" in letter.headers["detail"]
    assert poison.acknowledged


@pytest.mark.parametrize(
    ("key", "reason"), [(None, b"missing_key"), (b"", b"missing_key"), (b"other", b"key_mismatch")]
)
async def test_a_record_under_a_wrong_key_is_a_dead_letter(key: bytes | None, reason: bytes) -> None:
    """The key decides the partition; without the id as key, duplicates could not be told."""
    bench = Bench()
    event = record(0, "a")
    event.message.key = key
    await bench.processor.process([event])
    assert bench.dead_letters.records[0].headers["reason"] == reason
    assert outcomes(bench) == {"dead_letter": 1}


async def test_redelivered_records_are_skipped_but_their_keys_are_written_again() -> None:
    """A local store that got ahead of its changelog must hand the missing writes in later."""
    bench = Bench()
    await bench.processor.process([record(0, "a"), record(1, "b")])
    stored = dict(bench.counts)
    sent = len(bench.assessments.records)
    await bench.processor.process([record(0, "a"), record(1, "b")])
    assert dict(bench.counts) == stored
    assert len(bench.assessments.records) == sent
    assert bench.sample("stancewatch_redelivered_skipped_total") == 2
    assert bench.sample("stancewatch_events_total", outcome="assessed") == 2
    assert {key for key, _ in bench.counts.pending} == set()  # confirmed
    bench.counts.crash_on_confirm = True
    with pytest.raises(CrashError):
        await bench.processor.process([record(0, "a")])
    assert {key for key, _ in bench.counts.pending} == set(stored)


async def test_a_dead_letter_that_comes_again_after_a_fix_stays_one_until_it_is_sent_again() -> None:
    """It was counted as one: a vote now would be in the hour alone, and the letter sent again a duplicate."""
    bench = Bench()
    batch = [("a", "crash"), ("b", "cloud:favor"), ("c", "crash")]
    await bench.processor.process([record(offset, *row) for offset, row in enumerate(batch)])
    before = dict(bench.counts)
    await bench.processor.process([record(offset, name) for offset, (name, _) in enumerate(batch)])
    assert dict(bench.counts) == before
    assert [row.key for row in bench.assessments.records] == [b"b"]
    assert len(bench.dead_letters.records) == 2
    await bench.processor.process([record(3, "a"), record(4, "c")])
    assert outcomes(bench) == {"dead_letter": 2, "assessed": 3}
    assert total(bench).votes == {"cloud": {"favor": 3}}


async def test_a_dead_letter_of_a_log_without_time_stamps_is_not_forgotten_when_it_is_committed() -> None:
    """Somebody sets the group back: it stays a dead letter, and what is sent again is no duplicate."""
    bench = Bench()
    bench.commits[0] = 1
    plan = ["crash", "off"]
    for repeated in (plan, ["cloud:favor", "off"]):
        log = [record(offset, f"event-{offset}", text) for offset, text in enumerate(repeated)]
        for row in log:
            row.message.timestamp = 0
            await bench.processor.process([row])
    await bench.processor.process([record(2, "event-0")])
    assert outcomes(bench) == {"dead_letter": 1, "off_topic": 1, "assessed": 1}
    assert total(bench).votes == {"cloud": {"favor": 1}}


async def test_what_was_counted_and_fails_when_it_comes_again_gets_no_letter() -> None:
    """The write of its identity was lost, and the model has no memory left: its vote stands."""
    bench = Bench()
    await bench.processor.process([record(0, "a")])
    bench.identities.clear()
    await bench.processor.process([record(0, "a", "crash")])
    await bench.processor.process([record(1, "a")])
    assert bench.dead_letters.records == []
    assert outcomes(bench) == {"assessed": 1, "duplicate": 1}


async def test_what_was_counted_and_cannot_be_read_any_more_gets_no_letter() -> None:
    """Its assessment is out, and its vote stands: a limit that was lowered since does not change that."""
    bench = Bench()
    await bench.processor.process([record(0, "a")])
    await bench.processor.process([SourceEvent(0, b"a", b"{"), record(1, "b")])
    assert bench.dead_letters.records == []
    assert outcomes(bench) == {"assessed": 2}


async def test_records_of_an_older_generation_are_left_to_the_new_owner() -> None:
    """After a rebalance, what the old assignment had fetched is neither counted nor acknowledged."""
    bench = Bench()
    stale = record(0, "a")
    bench.faust.consumer_generation_id = 2
    await bench.processor.process([stale])
    assert not bench.counts
    assert not stale.acknowledged


async def test_a_gap_is_read_again_before_anything_behind_it_counts() -> None:
    """Faust may skip what it fetched too early; the applied offset must not rise over it."""
    bench = Bench()
    bench.processor.order.start_at(1, {0: 0})
    early = record(2, "c")
    await bench.processor.process([record(0, "a"), early, record(3, "d")])
    assert bench.sought == [(0, 1)]
    assert total(bench).offset == 0
    assert not early.acknowledged
    await bench.processor.process([record(1, "b"), record(2, "c"), record(3, "d")])
    assert outcomes(bench) == {"assessed": 4}


async def test_a_gap_of_the_log_is_passed_over_at_once() -> None:
    """Compacted or transactional logs have holes, one after the other."""
    bench = Bench()
    bench.holes = {*range(5, 9), 10, 13}
    bench.processor.order.start_at(1, {0: 5})
    await bench.processor.process([record(offset, str(offset)) for offset in (9, 11, 12, 14)])
    assert (bench.sought, outcomes(bench)) == ([], {"assessed": 4})


async def test_a_record_in_a_gap_is_waited_for_however_often_the_gap_comes() -> None:
    """What the log holds is handled before what lies behind it; what lies before goes on."""
    bench = Bench()
    bench.holes = {5, 6, 8, 11}
    bench.processor.order.start_at(1, {0: 5})
    await bench.processor.process([record(7, "a"), record(9, "b"), record(12, "d")])
    for _ in range(5):
        assert total(bench).offset == 9
        assert set(bench.sought) == {(0, 10)}
        await bench.processor.process([record(12, "d"), record(13, "e")])
    await bench.processor.process([record(offset, str(offset)) for offset in (10, 12, 13)])
    assert outcomes(bench) == {"assessed": 5}


async def test_what_was_dropped_at_the_end_of_a_partition_is_read_again() -> None:
    """No later record shows it; at the second look, so that what is on its way can come."""
    bench = Bench()
    place = TP("news.events", 0)
    bench.holes = {6}
    bench.processor.order.start_at(1, {0: 5})
    await bench.processor.process([record(5, "a")])
    await bench.processor.order.look({place: 9})
    await bench.processor.process([record(7, "b")])
    await bench.processor.order.look({place: 9})
    assert bench.sought == []
    await bench.processor.order.look({place: 9})
    assert bench.sought == [(0, 8)]
    await bench.processor.process([record(8, "c")])
    assert outcomes(bench) == {"assessed": 3}


async def test_what_has_just_come_to_a_quiet_partition_is_not_read_again() -> None:
    """Between its broker and its batch: nothing waited there at the look before."""
    bench = Bench()
    place = TP("news.events", 0)
    bench.processor.order.start_at(1, {0: 5})
    for end in (5, 5, 6):
        await bench.processor.order.look({place: end})
    assert bench.sought == []
    await bench.processor.order.look({place: 6})
    assert bench.sought == [(0, 5)]


async def test_an_end_without_records_is_asked_for_once() -> None:
    """Marks of transactions stand behind the last record."""
    bench = Bench()
    place = TP("news.events", 0)
    bench.holes = {6, 7}
    bench.processor.order.start_at(1, {0: 6})
    bench.processor.order._missing = missing = mock.AsyncMock(side_effect=bench.missing)
    for _ in range(4):
        await bench.processor.order.look({place: 8})
    assert (missing.await_count, bench.sought) == (1, [])


async def test_a_gap_that_nobody_can_look_into_is_read_again() -> None:
    """A broker that does not answer proves nothing."""
    bench = Bench()
    bench.processor.order.start_at(1, {0: 5})
    bench.processor.order._missing = mock.AsyncMock(side_effect=BrokerError("away"))
    await bench.processor.process([record(5, "a"), record(7, "b")])
    assert (bench.sought, total(bench).offset) == ([(0, 6)], 5)


async def test_a_rebalance_while_the_log_is_asked_leaves_everything_to_the_new_generation() -> None:
    """Its own start is not moved by what was found for the former one."""
    bench = Bench()
    bench.processor.order.start_at(1, {0: 5})

    async def rebalances(*_: object) -> None:
        bench.faust.consumer_generation_id = 2
        bench.processor.order.start_at(2, {0: 3})

    bench.processor.order._missing = rebalances
    await bench.processor.process([record(7, "b")])
    assert (bench.sought, bench.counts) == ([], {})
    assert bench.processor.order._expected == {0: 3}


async def test_a_straggler_from_before_the_seek_is_no_proof_of_a_gap() -> None:
    """What Faust had in hand when it was told to go back may still come; nothing before is lost."""
    bench = Bench()
    bench.processor.order.start_at(1, {0: 0})
    await bench.processor.process([record(0, "a"), record(5, "f")])
    await bench.processor.process([record(5, "f")])
    await bench.processor.process(
        [record(offset, name) for offset, name in zip(range(1, 6), "bcdef", strict=True)]
    )
    assert outcomes(bench) == {"assessed": 6}


async def test_a_rebalance_in_mid_batch_leaves_the_state_to_the_new_owner() -> None:
    """While the batch was classified its partitions moved: nothing is counted, nothing acknowledged."""
    bench = Bench()
    assess = bench.processor.assessor.assess_supported

    def slow(documents: object, languages: object) -> object:
        bench.faust.consumer_generation_id = 2
        return assess(documents, languages)  # type: ignore[arg-type]

    bench.processor.assessor.assess_supported = slow  # type: ignore[method-assign, assignment]
    event = record(0, "a")
    await bench.processor.process([event])
    assert not bench.counts
    assert not bench.identities
    assert not event.acknowledged


async def test_a_language_that_the_classifier_cannot_read_is_counted_as_such() -> None:
    """No vote is guessed; the assessment says why."""
    bench = Bench()
    await bench.processor.process([record(0, "a", language="de-AT"), record(1, "b", language="en-GB")])
    assert total(bench).votes == {"cloud": {"favor": 1}}
    assert outcomes(bench) == {"unsupported_language": 1, "assessed": 1}
    told = json.loads(bench.assessments.records[0].value)
    assert (told["language"], told["unsupported_language"], told["topics"]) == ("de", True, [])


async def test_a_date_is_judged_by_the_time_of_the_record_not_of_the_attempt() -> None:
    """Delivered again a day later, an event from the future must be rejected again."""
    bench = Bench()
    soon = datetime(2024, 9, 18, tzinfo=UTC).isoformat()
    value = json.dumps({"id": "a", "title": "x", "published_at": soon}).encode()
    early = SourceEvent(0, b"a", value, timestamp=DAY.timestamp())
    await bench.processor.process([early])
    assert outcomes(bench) == {"dead_letter": 1}
    assert bench.dead_letters.records[0].headers["reason"] == b"future_date"


async def test_records_that_come_before_the_start_is_known_are_left() -> None:
    """Between assignment and the end of recovery nothing may be counted."""
    bench = Bench()
    bench.faust.consumer_generation_id = 2
    event = record(0, "a")
    event.message.generation_id = 2
    await bench.processor.process([event])
    assert not bench.counts
    bench.processor.order.start_at(2, {0: 0})
    await bench.processor.process([event])
    assert outcomes(bench) == {"assessed": 1}


async def test_nothing_is_acknowledged_before_the_changelog_has_it() -> None:
    """A failing confirmation leaves the batch unacknowledged."""
    bench = Bench()
    bench.counts.crash_on_confirm = True
    event = record(0, "a")
    with pytest.raises(CrashError):
        await bench.processor.process([event])
    assert not event.acknowledged


async def test_output_is_sent_before_state_is_written() -> None:
    """When sending fails, the state must not know the event, or its assessment would be lost."""
    bench = Bench()

    async def refuse(**_: object) -> None:
        raise CrashError

    bench.assessments.send = refuse  # type: ignore[assignment, method-assign]
    with pytest.raises(CrashError):
        await bench.processor.process([record(0, "a")])
    assert not bench.counts
    assert not bench.identities


@dataclass(frozen=True)
class Planned:
    """A record of the random log."""

    event_id: str
    version: int
    hour: int
    text: str
    retracted: bool
    mended: bool = False
    """Was counted as it is; is read without an error now."""

    def at(self, offset: int) -> SourceEvent:
        """The record at an offset; the text ``bad`` makes it malformed."""
        if self.text == "bad" and not self.mended:
            return SourceEvent(offset, self.event_id.encode(), b"{")
        moment = DAY.replace(hour=self.hour).isoformat()
        fields = {"version": self.version, "retracted": self.retracted, "published_at": moment}
        return record(offset, self.event_id, "cloud:favor" if self.mended else self.text, **fields)


planned = st.builds(
    Planned,
    event_id=st.sampled_from("abc"),
    version=st.integers(1, 3),
    hour=st.integers(0, 2),
    text=st.sampled_from(
        ["cloud:favor", "cloud:against", "chips:neutral cloud:neutral", "off", "bad", "crash"]
    ),
    retracted=st.booleans(),
    mended=st.just(value=False),
)


def reference(log: list[Planned]) -> tuple[Counter[tuple[str, str]], Counter[tuple[int, str, str]]]:
    """Votes in total and by hour, told from one plain pass over the log."""
    final: dict[str, Planned] = {}
    for row in log:
        breaks = row.text == "bad" or (row.text == "crash" and not row.retracted)
        if not breaks and (row.event_id not in final or row.version > final[row.event_id].version):
            final[row.event_id] = row
    totals: Counter[tuple[str, str]] = Counter()
    hours: Counter[tuple[int, str, str]] = Counter()
    for row in final.values():
        for word in row.text.split() if not row.retracted else []:
            topic, _, stance = word.partition(":")
            if stance:
                totals[topic, stance] += 1
                hours[row.hour, topic, stance] += 1
    return totals, hours


def stored_votes(
    counts: Mapping[bytes, bytes], partition: int = 0
) -> tuple[Counter[tuple[str, str]], Counter[tuple[int, str, str]]]:
    """The same from the state of a partition."""
    totals: Counter[tuple[str, str]] = Counter()
    hours: Counter[tuple[int, str, str]] = Counter()
    for key, value in counts.items():
        place, bucket = split_counts_key(key)
        for topic, by_stance in decode_counts(value).votes.items() if place == partition else ():
            for stance, votes in by_stance.items():
                if bucket == TOTAL:
                    totals[topic, stance] += votes
                else:
                    hours[int(bucket) - hour_of(DAY), topic, stance] += votes
    return +totals, +hours


def accepted(bench: Bench) -> list[tuple[bytes, Accepted]]:
    """Every accepted version that the state knows."""
    return [
        (key, entry) for key in bench.identities for entry in read_identity(bench.identities, key).accepted
    ]


@settings(max_examples=300)
@given(data=st.data(), log=st.lists(planned, min_size=1, max_size=14))
def test_counts_after_any_crashes_equal_one_undisturbed_pass(data: st.DataObject, log: list[Planned]) -> None:
    """Any batch may crash with any subset of its writes kept; any earlier commit may be redelivered from."""
    bench = Bench()
    bench.processor.order.start_at(1, {0: 0})
    committed = position = 0
    crashes = 0
    while position < len(log):
        end = min(len(log), position + data.draw(st.integers(1, 5)))
        batch = [log[offset].at(offset) for offset in range(position, end)]
        if crashes < 4 and data.draw(st.booleans()):
            crashes += 1
            crashing = data.draw(st.sampled_from([bench.counts, bench.identities]))
            crashing.crash_on_confirm = True
            with pytest.raises(CrashError):
                asyncio.run(bench.processor.process(batch))
            for table in (bench.counts, bench.identities):
                writes = range(len(table.pending))
                table.crash(data.draw(st.sets(st.sampled_from(writes))) if writes else set())
            position = committed
            bench.processor.order.start_at(1, {0: committed})
        else:
            asyncio.run(bench.processor.process(batch))
            position = end
            if data.draw(st.booleans()):
                committed = position
    assert stored_votes(bench.counts) == reference(log)
    assert sum(outcomes(bench).values()) == len(log)
    assert not bench.sought
    told = {
        (row["event_id"], row["version"]) for row in (json.loads(r.value) for r in bench.assessments.records)
    }
    kept = {(entry_id.decode().partition("|")[2], entry.version) for entry_id, entry in accepted(bench)}
    assert told == kept
