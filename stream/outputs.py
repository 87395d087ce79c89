"""Reads what the workers decided and rejected, for those who count the log anew (``stream.recount``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream.reading import Range, read
from stream.recount import Decisions, Letters, moment, read_assessment, read_letter

__all__ = ["Progress", "quiet", "read_outputs", "steps"]

Progress = Callable[[str, int, int], None]
"""Called with the step, offsets done and offsets in all."""


def quiet(_step: str, _done: int, _total: int) -> None:
    """No progress is shown."""


def steps(progress: Progress, step: str, total: int) -> Callable[[int], None]:
    """For ``stream.reading.read``: adds up the offsets that were passed in one step."""
    done = 0

    def advance(offsets: int) -> None:
        nonlocal done
        done += offsets
        progress(step, done, total)

    progress(step, 0, total)
    return advance


def _total(stretches: Mapping[TopicPartition, Range]) -> int:
    return sum(end - begin for begin, end in stretches.values())


async def read_outputs(
    consumer: AIOKafkaConsumer,
    assessments: Mapping[TopicPartition, Range],
    dead_letters: Mapping[TopicPartition, Range],
    log: Mapping[TopicPartition, Range],
    events_topic: str,
    progress: Progress = quiet,
) -> tuple[Decisions, Letters, list[str]]:
    """Verdicts on the events of that log, its letters, and assessments that name no event of it.

    A record with both was judged twice, with a crash or another owner in between: the later one was counted.
    """
    letters = Letters(events_topic)
    advance = steps(progress, "reading dead letters", _total(dead_letters))
    async for record in read(consumer, dead_letters, advance):
        headers = dict(record.headers)
        letter = read_letter(headers)
        if letter is None:
            letters.foreign += 1
        else:
            letters.put(*letter, record.value, moment(headers, record.timestamp))
    decisions = Decisions({place.partition: stretch for place, stretch in log.items()})
    stray = []
    advance = steps(progress, "reading assessments", _total(assessments))
    async for record in read(consumer, assessments, advance):
        headers = dict(record.headers)
        found = read_assessment(headers, record.value)
        if found is not None and letters.keep_if_later(found[0], moment(headers, record.timestamp)):
            continue
        if found is None or not decisions.put(*found):
            stray.append(f"{record.topic} {record.partition}:{record.offset} names no event of the log")
    return decisions, letters, stray
