"""Reads what the workers decided and rejected, for those who count the log anew (``stream.recount``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream.reading import Range, read
from stream.recount import Decisions, Letters, read_assessment, read_letter

__all__ = ["Progress", "quiet", "read_decisions", "read_letters", "steps"]

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


async def read_decisions(
    consumer: AIOKafkaConsumer,
    stretches: Mapping[TopicPartition, Range],
    log: Mapping[TopicPartition, Range],
    progress: Progress = quiet,
) -> tuple[Decisions, list[str]]:
    """Verdicts of ``news.assessments`` on that log, and assessments that name no event of it."""
    decisions = Decisions({place.partition: stretch for place, stretch in log.items()})
    stray = []
    async for record in read(consumer, stretches, steps(progress, "reading assessments", _total(stretches))):
        found = read_assessment(dict(record.headers), record.value)
        if found is None or not decisions.put(*found):
            stray.append(f"{record.topic} {record.partition}:{record.offset} names no event of the log")
    return decisions, stray


async def read_letters(
    consumer: AIOKafkaConsumer,
    stretches: Mapping[TopicPartition, Range],
    events_topic: str,
    progress: Progress = quiet,
) -> Letters:
    """Letters of these stretches of ``news.dead-letters``."""
    letters = Letters(events_topic)
    async for record in read(consumer, stretches, steps(progress, "reading dead letters", _total(stretches))):
        found = read_letter(dict(record.headers))
        if found is None:
            letters.foreign += 1
        else:
            letters.put(*found, record.value)
    return letters
