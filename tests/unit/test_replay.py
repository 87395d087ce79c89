"""Pace and bookkeeping of a replay, without a broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.replay import Pace, Replay
from stream.schema import Event, encode, make_assessment
from stream.settings import load_settings
from stream.sources import Record, read_paths
from tests.conftest import SEEDS

NOON = datetime(2024, 9, 16, 12, tzinfo=UTC)


def record(name: str, hours: float | None = None) -> Record:
    """A record of so many hours after noon; without, one that is no event."""
    moment = None if hours is None else NOON + timedelta(hours=hours)
    return Record(name.encode(), b"", name, moment, name, 1)


class TestPace:
    """When which record is due."""

    def test_gaps_are_kept_from_the_earliest_on(self) -> None:
        """Files come by name; what is no event stays behind the record that it stands behind."""
        records = [record("late", 3), record("torn"), record("first", 0), record("same", 3), record("mid", 1)]
        due = Pace(speedup=3600).schedule(records)
        assert [(seconds, each.origin) for seconds, each in due] == [
            (0, "first"),
            (1, "mid"),
            (3, "late"),
            (3, "torn"),
            (3, "same"),
        ]

    def test_the_seeds_keep_their_gaps(self) -> None:
        """Each event is due its time after the earliest one."""
        records = read_paths([SEEDS])
        due = Pace(speedup=60).schedule(records)
        earliest = min(each.published_at for each in records if each.published_at)
        for seconds, each in due:
            if each.published_at:
                assert seconds == pytest.approx((each.published_at - earliest).total_seconds() / 60)

    @given(st.lists(st.none() | st.integers(-50, 50)), st.floats(0.01, 1000))
    def test_nothing_is_lost_and_time_goes_forward(self, hours: list[int | None], speedup: float) -> None:
        """Any order, with and without times."""
        records = [record(str(at), hour) for at, hour in enumerate(hours)]
        due = Pace(speedup=speedup).schedule(records)
        assert sorted(each.origin for _, each in due) == sorted(each.origin for each in records)
        seconds = [second for second, _ in due]
        assert seconds == sorted(seconds)
        assert all(second >= 0 for second in seconds)

    def test_a_rate_or_none_leaves_the_order_alone(self) -> None:
        """Evenly, or at once."""
        records = [record("b", 5), record("a", 1)]
        assert Pace(rate=4).schedule(records) == [(0, records[0]), (0.25, records[1])]
        assert Pace().schedule(records) == [(0, records[0]), (0, records[1])]


def answer(offset: int, event_id: str) -> Any:
    """An assessment as the worker writes it."""
    found = make_assessment(Event(id=event_id, published_at=NOON, title="t"), (), "m", NOON)
    headers = [("partition", b"0"), ("offset", b"%d" % offset), ("topic", b"news.events")]
    return SimpleNamespace(topic="news.assessments", headers=headers, value=encode(found))


async def messages(*found: Any) -> AsyncIterator[Any]:
    """What a consumer gives."""
    for each in found:
        yield each


class Producer:
    """Confirms a record when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[Any]] = []

    async def send(self, *_: Any, **__: Any) -> asyncio.Future[Any]:
        """Under way until confirmed."""
        self.waiting.append(asyncio.get_running_loop().create_future())
        return self.waiting[-1]

    async def confirm(self, offset: int) -> None:
        """The oldest one stands at this offset."""
        self.waiting.pop(0).set_result(SimpleNamespace(partition=0, offset=offset))
        await asyncio.sleep(0)  # the callbacks run


class TestAnswers:
    """On a shared broker most answers belong to somebody else."""

    async def test_an_answer_that_overtakes_the_confirmation_counts(self) -> None:
        """The worker may be quicker than the broker's word to us."""
        replay, producer = Replay(load_settings(broker="b:1"), progress=lambda _: None), Producer()
        await replay._publish(producer, [record("a"), record("b")], Pace())
        await replay._follow(messages(answer(6, "x"), answer(7, "a"), answer(8, "b")))
        assert replay.tally.assessed == 0
        await producer.confirm(7)
        await producer.confirm(8)
        assert replay.tally.assessed == replay.tally.published == 2
        assert set(replay.tally.decisions) == {"a", "b"}

    async def test_answers_to_others_are_not_kept(self) -> None:
        """Neither while nothing of ours is under way, nor longer than something is; a refusal ends it too."""
        replay, producer = Replay(load_settings(broker="b:1"), progress=lambda _: None), Producer()
        await replay._follow(messages(*(answer(at, "x") for at in range(50))))
        assert not replay._early
        await replay._publish(producer, [record("a"), record("b")], Pace())
        await replay._follow(messages(*(answer(at, "x") for at in range(50))))
        await producer.confirm(99)
        producer.waiting.pop().set_exception(ConnectionError("gone"))
        await asyncio.sleep(0)
        assert not replay._early
        assert replay.tally.refused == ["b: gone"]
