"""Pure state functions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from stream.tables import (
    Accepted,
    Change,
    Counts,
    Identity,
    Outcome,
    accept,
    apply_changes,
    counts_key,
    decode_counts,
    hour_of,
    judge,
    split_counts_key,
    stored,
    trim,
)


@given(st.integers(0, 999), st.one_of(st.just("total"), st.integers(0, 10**6)))
def test_counts_keys_can_be_taken_apart(partition: int, bucket: int | str) -> None:
    """The key of a bucket gives its partition and bucket back."""
    assert split_counts_key(counts_key(partition, bucket)) == (partition, str(bucket))


def test_an_hour_is_an_hour_of_utc() -> None:
    """Offsets and summer time do not move an event into another bucket."""
    utc = datetime(2024, 3, 31, 1, 59, tzinfo=UTC)
    assert hour_of(utc) == hour_of(utc.astimezone(timezone(timedelta(hours=5, minutes=45))))
    assert hour_of(utc + timedelta(minutes=1)) == hour_of(utc) + 1


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 30)), max_size=8, unique_by=lambda entry: entry[1]),
    st.integers(1, 4),
    st.integers(0, 30),
)
def test_a_judgement_depends_on_lower_offsets_only(
    entries: list[tuple[int, int]], version: int, offset: int
) -> None:
    """What the state learned from later records cannot change the decision on a redelivered one."""
    known = Identity([Accepted(v, o, 0, {}) for v, o in entries])
    before = Identity([entry for entry in known.accepted if entry.offset < offset])
    now, then = judge(known, version, offset), judge(before, version, offset)
    assert (now.duplicate, now.prior) == (then.duplicate, then.prior)


@given(
    st.lists(st.tuples(st.integers(1, 5), st.sampled_from([0, 0, 0, 1, 2, 4])), min_size=1, max_size=10),
    st.integers(0, 3),
    st.integers(0, 11),
    st.integers(0, 11),
)
def test_what_is_trimmed_decides_nothing(
    log: list[tuple[int, int]], unknown: int, first: int, second: int
) -> None:
    """Any version behind what is settled is judged the same, with ids forgotten meanwhile or undated."""
    keeps = 3
    days = [0] * unknown  # records without a time, or from before there was retention
    days += [100 + day for day in accumulate(step for _, step in log[unknown:])]
    days = [*days[: len(log)], *([days[-1]] * 12)]
    identity = Identity()
    for offset, (version, _) in enumerate(log):
        if not judge(identity, version, offset, days[offset] - keeps).duplicate:
            accept(identity, Accepted(version, offset, 0, {}, day=days[offset]))
    trimmed = Identity(list(identity.accepted))
    for settled in sorted((first, second)):
        trim(trimmed, settled)
        assert sum(entry.offset < settled for entry in trimmed.accepted) <= 2
        for offset in range(settled, 12):
            for version in range(1, 7):
                record = (version, offset, days[offset] - keeps)
                assert judge(trimmed, *record) == judge(identity, *record)


def test_accepting_the_same_offset_again_replaces_the_entry() -> None:
    """A redelivered record leaves one entry."""
    identity = Identity()
    for hour in (1, 2):
        accept(identity, Accepted(1, 7, hour, {}))
    assert [entry.hour for entry in identity.accepted] == [2]


@given(st.lists(st.sampled_from(["favor", "against"]), min_size=1, max_size=12), st.data())
def test_applying_any_prefix_twice_changes_nothing(stances: list[str], data: st.DataObject) -> None:
    """Counts are idempotent for every redelivered stretch of the log."""
    changes = [
        Change(offset, Outcome.ASSESSED, 0.0, [(offset % 2, {"cloud": stance}, 1)])
        for offset, stance in enumerate(stances)
    ]
    once: dict[bytes, bytes] = {}
    apply_changes(once, 0, changes)
    twice = dict(once)
    start = data.draw(st.integers(0, len(changes) - 1))
    skipped = apply_changes(twice, 0, changes[start:])
    assert twice == once
    assert skipped == len(changes) - start


def test_stored_counts_come_back() -> None:
    """State survives its stored form."""
    counts = Counts(9, {"cloud": {"favor": 2}}, {"assessed": 2}, 12.5)
    assert decode_counts(stored(counts)) == counts


def test_dead_letters_one_after_the_other_take_one_entry_also_over_holes_of_the_log() -> None:
    """Transaction marks and compaction leave offsets out; what is committed is dropped."""
    table: dict[bytes, bytes] = {}
    outcomes = {2: Outcome.DEAD_LETTER, 4: Outcome.DEAD_LETTER, 6: Outcome.ASSESSED, 8: Outcome.DEAD_LETTER}
    apply_changes(table, 0, [Change(offset, outcome) for offset, outcome in outcomes.items()])
    counts = decode_counts(table[counts_key(0, "total")])
    assert counts.rejected == [(2, 4), (8, 8)]
    assert [offset for offset in outcomes if counts.was_rejected(offset)] == [2, 4, 8]
    counts.settle(5)
    assert counts.rejected == [(8, 8)]
