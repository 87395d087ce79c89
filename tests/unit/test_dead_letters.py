"""Dead letters without a broker: what they say, which of them a resend takes, how they are shown."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import NotEnoughReplicasError

from stream.dead_letters import DeadLetters
from stream.dead_letters_command import shown_bytes
from stream.errors import ConfigurationError, Reason, RejectedEvent, Stage
from stream.letters import Filter, Letter, Resent, Status, parse_since, select, status_of
from stream.records import dead_letter
from stream.settings import load_settings
from tests.doubles import Bench, SourceEvent

NOW = datetime(2024, 9, 16, 12, tzinfo=UTC)


def letter(offset: int = 0, **values: Any) -> Letter:
    """A dead letter at this offset of partition 0."""
    origin = SourceEvent(7, values.pop("key", b"a"), b"{", headers=values.pop("resent", ()))
    rejection = RejectedEvent(
        values.pop("reason", Reason.INVALID_JSON), values.pop("stage", Stage.DECODE), "why"
    )
    headers = dead_letter(origin.message, rejection, values.pop("failed_at", NOW)).headers()
    record = SimpleNamespace(
        partition=0,
        offset=offset,
        key=origin.message.key,
        value=b"{",
        headers=values.pop("headers", tuple(headers)),
        timestamp=0,
    )
    assert not values
    return Letter.of(record)


def test_a_letter_tells_what_the_worker_wrote() -> None:
    """Every header comes back; a first letter was never resent."""
    read = letter(5)
    assert (read.position, read.reason, read.stage, read.detail) == ("0:5", "invalid_json", "decode", "why")
    assert (read.topic, read.origin, read.failed_at) == ("news.events", (0, 7), NOW)
    assert (read.key, read.size, read.resent_before, read.resent_from) == (b"a", 1, 0, None)


async def test_a_resent_record_that_fails_again_says_so_in_its_letter() -> None:
    """The worker passes on where the record came from; a record of a stranger's headers does no harm."""
    bench = Bench()
    again = (("resent_times", b"2"), ("resent_from", b"news.dead-letters:0:5"), ("trace", b"x"))
    strange = (("resent_times", b"many"), ("resent_from", None))
    batch = [SourceEvent(0, b"a", b"{", headers=again), SourceEvent(1, b"b", b"{", headers=strange)]
    await bench.processor.process(batch)
    written = [
        SimpleNamespace(partition=0, offset=i, key=b"a", value=b"{", headers=tuple(row.headers.items()))
        for i, row in enumerate(bench.dead_letters.records)
    ]
    first, second = (Letter.of(row) for row in written)
    assert (first.resent_before, first.resent_from) == (2, ("news.dead-letters", 0, 5))
    assert "trace" not in bench.dead_letters.records[0].headers
    assert (second.resent_before, second.resent_from) == (0, None)


@pytest.mark.parametrize("headers", [(), (("reason", b"x"),), (("partition", b"-"), ("offset", b"\xff"))])
def test_a_letter_that_is_none_of_ours_can_be_read_but_not_resent(headers: Any) -> None:
    """Nothing in the topic breaks the commands."""
    read = letter(headers=headers)
    assert (read.topic, read.origin, read.failed_at) == ("", None, None)
    assert status_of(read, "news.events", {}, {}) is Status.UNSENDABLE


def test_a_letter_is_resent_once_unless_again_is_said() -> None:
    """Open letters go; resent ones only again; what failed again goes by its newest letter."""
    resent_from = (("resent_times", b"1"), ("resent_from", b"news.dead-letters:0:1"))
    letters = {(0, i): letter(i) for i in range(3)} | {(0, 3): letter(3, resent=resent_from)}
    memory = {
        (0, 1): Resent(NOW.isoformat(), 1, NOW.isoformat(), "news.events:0:9"),
        (0, 2): Resent(NOW.isoformat(), 1, NOW.isoformat(), "news.events:0:10"),
    }
    later = {(0, 1): (0, 3)}
    states = [status_of(each, "news.events", memory, later) for each in letters.values()]
    assert states == [Status.OPEN, Status.FAILED_AGAIN, Status.RESENT, Status.OPEN]
    pairs = list(zip(letters.values(), states, strict=True))
    assert [each.offset for each in select(pairs, again=False)] == [0, 3]
    assert [each.offset for each in select(pairs, again=True)] == [0, 2, 3]


def test_the_memory_of_a_recreated_topic_is_not_believed() -> None:
    """The same position with another failed_at is another letter."""
    other = Resent((NOW - timedelta(days=1)).isoformat(), 1, NOW.isoformat(), "news.events:0:9")
    assert status_of(letter(1), "news.events", {(0, 1): other}, {}) is Status.OPEN


class RefusingProducer:
    """Confirms or refuses what is sent, and remembers it."""

    def __init__(self, refused: str = "") -> None:
        self.refused = refused
        self.sent: list[tuple[str, Any]] = []

    async def send(self, topic: str, **record: Any) -> asyncio.Future[Any]:
        """As aiokafka: a future of the broker's confirmation."""
        self.sent.append((topic, SimpleNamespace(**record)))
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if topic == self.refused:
            done.set_exception(NotEnoughReplicasError())
        else:
            done.set_result(SimpleNamespace(topic=topic, partition=0, offset=9))
        return done


async def test_a_letter_is_remembered_only_after_the_broker_has_its_event() -> None:
    """Refused, it stays open: sent twice counts once, not sent at all would be lost."""
    box = DeadLetters(load_settings(broker="127.0.0.1:9"))
    producer = RefusingProducer("news.events")
    with pytest.raises(NotEnoughReplicasError):
        await box._send(producer, [letter(5)], {0})
    assert [topic for topic, _ in producer.sent] == ["news.events"]
    assert box.memory == {}
    producer = RefusingProducer()
    assert await box._send(producer, [letter(5)], {0}) == 1
    (_, event), (memory_topic, entry) = producer.sent
    assert (event.key, event.partition) == (b"a", 0)
    assert dict(event.headers) == {"resent_from": b"news.dead-letters:0:5", "resent_times": b"1"}
    assert (memory_topic, entry.key) == ("news.dead-letters.resent", b"0:5")
    assert status_of(letter(5), "news.events", box.memory, {}) is Status.RESENT


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        (Filter(), True),
        (Filter(reason=Reason.INVALID_JSON, stage=Stage.DECODE), True),
        (Filter(reason=Reason.TOO_LARGE), False),
        (Filter(stage=Stage.CLASSIFY), False),
        (Filter(since=NOW), True),
        (Filter(since=NOW + timedelta(seconds=1)), False),
        (Filter(key=b"a"), True),
        (Filter(key=b"b"), False),
        (Filter(position=(0, 5)), True),
        (Filter(position=(1, 5)), False),
    ],
)
def test_filters(wanted: Filter, fits: bool) -> None:
    """Each narrows by what it names."""
    assert wanted.fits(letter(5)) is fits


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("15m", NOW - timedelta(minutes=15)),
        ("2h", NOW - timedelta(hours=2)),
        ("7d", NOW - timedelta(days=7)),
        ("2024-09-16T10:00:00+02:00", datetime(2024, 9, 16, 8, tzinfo=UTC)),
        ("2024-09-16", datetime(2024, 9, 16, tzinfo=UTC)),
    ],
)
def test_since_takes_an_age_or_a_moment(text: str, moment: datetime) -> None:
    """Without an offset, UTC."""
    assert parse_since(text, NOW) == moment


@pytest.mark.parametrize("text", ["yesterday", "999999d", "0001-01-01T00:00:00+14:00"])
def test_since_says_what_it_expects(text: str) -> None:
    """One line with the remedy, also for what no calendar holds."""
    with pytest.raises(ConfigurationError, match=r"--since '.*': expected an age such as 2h or 7d"):
        parse_since(text, NOW)


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (None, "(none)"),
        (b"", "(empty)"),
        ("Grüße\n\tzwei".encode(), "Grüße\n\tzwei"),
        (b"a\x1b[31mred\x07", "a\\x1b[31mred\\x07"),
        (b"\xff\x00\x01", "base64: /wAB"),
    ],
)
def test_bytes_are_shown_as_text_and_cannot_steer_the_terminal(content: bytes | None, shown: str) -> None:
    """Escape sequences of strangers are shown, not obeyed."""
    assert shown_bytes(content) == shown
