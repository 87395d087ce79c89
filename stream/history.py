"""The log told at event time: what Prometheus would have recorded, had it scraped when the news came out.

Every event of the log is counted anew (``stream.recount``, with hours that are kept for ever), by the
decisions of the workers: a correction or a retraction changes the hour in which the event was published, so
history shows what is known now. At the end of the last hour the totals are those of the state; while that
hour is under way, its events are not told yet. Prometheus refuses whatever is older than the newest block,
so one sample of a moment to come would keep it from scraping until then.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TextIO

from classifiers.decisions import STANCES
from stream.errors import StancewatchError
from stream.outputs import Progress, quiet, read_outputs, steps
from stream.reading import partitions_of, ranges, read, reader
from stream.recount import PartitionCount
from stream.settings import Settings

__all__ = ["History", "read_history", "write_openmetrics"]

WINDOW_HOURS = {"1h": 1, "24h": 24, "7d": 168}
FOR_EVER_DAYS = 1_000_000
SIDES = ("favor", "against")


@dataclass(slots=True)
class History:
    """Votes by hour of ``published_at`` (hours since 1970), topic and stance.

    Attributes
    ----------
    hours : dict of int to Counter
        Votes by (topic, stance).
    records : int
        How many records of the log were counted.
    unassessed : int
        Events that no worker has decided yet; they are not in the history.
    begins_late : list of str
        Partitions whose first records were deleted.
    """

    hours: dict[int, Counter[tuple[str, str]]] = field(default_factory=dict)
    records: int = 0
    unassessed: int = 0
    begins_late: list[str] = field(default_factory=list)


async def read_history(settings: Settings, progress: Progress = quiet) -> History:
    """Count the whole log by hour.

    Raises
    ------
    StancewatchError
        When there is no log.
    """
    history = History()
    async with reader(settings) as consumer:
        events = await partitions_of(settings, settings.events_topic)
        if not events:
            message = (
                f"there is no Kafka topic {settings.events_topic} on {settings.broker}: check"
                " STANCEWATCH_TOPIC_PREFIX, or `stancewatch doctor`"
            )
            raise StancewatchError(message)
        log = await ranges(consumer, events)
        outputs = [
            await ranges(consumer, await partitions_of(settings, topic))
            for topic in (settings.assessments_topic, settings.dead_letters_topic)
        ]
        decisions, letters, _ = await read_outputs(
            consumer, outputs[0], outputs[1], log, settings.events_topic, progress
        )
        for place, (begin, end) in log.items():
            if begin:
                history.begins_late.append(f"{place.topic}[{place.partition}] at offset {begin}")
            counted = PartitionCount(
                place.partition,
                decisions,
                letters,
                noted=end - 1,
                total_offset=-1,
                hour_offsets={},
                shown_records=0,
                bucket_days=FOR_EVER_DAYS,
                identity_days=settings.identity_days,
            )
            step = f"counting {place.topic} {place.partition}"
            async for record in read(consumer, {place: (begin, end)}, steps(progress, step, end - begin)):
                counted.take(record.offset, record.value, record.timestamp / 1000)
            for hour, votes in counted.hours.items():
                history.hours.setdefault(hour, Counter()).update(votes)
            history.records += counted.records
            history.unassessed += len(counted.unassessed)
    return history


def write_openmetrics(
    history: History,
    into: TextIO,
    *,
    begin: float | None = None,
    end: float | None = None,
    step_minutes: int = 60,
) -> int:
    """Write the recorded series of the dashboards, one sample a step; the number of samples.

    A sample at T tells of the events published before the last full hour at T; steps within it repeat it.

    Parameters
    ----------
    history : History
    into : text file
    begin, end : float, optional
        First and last moment (POSIX seconds); by default from the first hour with a vote to the end of the
        last, never later than now. Totals hold what was before `begin`.
    step_minutes : int
        A divisor of 60.
    """
    written = 0
    voted = [hour for hour, votes in history.hours.items() if +votes]
    if voted:
        series = _Series(history, min(voted), max(voted))
        now = time.time()
        until = min((max(voted) + 1) * 3600, now if end is None else min(end, now))
        steps_of = [
            (moment, hour)
            for hour in range(min(voted), max(voted) + 1)
            for moment in range((hour + 1) * 3600, (hour + 2) * 3600, step_minutes * 60)
            if (begin is None or moment >= begin) and moment <= until
        ]
        for name, text, rows in series.families():
            into.write(f"# TYPE {name} gauge\n# HELP {name} {text}\n")
            for labels, values in rows:
                for moment, hour in steps_of:
                    value = values[hour - series.first]
                    if value is not None:
                        into.write(f"{name}{{{labels}}} {value:.10g} {moment}\n")
                        written += 1
    into.write("# EOF\n")
    return written


Values = list[float | None]
Row = tuple[str, Values]


class _Series:
    """Values by hour, from the first one on."""

    def __init__(self, history: History, first: int, last: int) -> None:
        self.first = first
        self.topics = sorted({topic for votes in history.hours.values() for topic, _ in votes})
        spread = range(first, last + 1)
        self.totals = {
            (topic, stance): list(accumulate(history.hours.get(h, Counter())[topic, stance] for h in spread))
            for topic in self.topics
            for stance in STANCES
        }

    def families(self) -> Iterator[tuple[str, str, Iterable[Row]]]:
        """Name, help and rows of each family; names as in ``monitoring/prometheus/rules/recording.yml``."""
        yield (
            "stancewatch:assessments:sum",
            "Events published so far by topic and stance",
            [(f'topic="{t}",stance="{s}"', list(values)) for (t, s), values in self.totals.items()],
        )
        inside = {
            (window, topic): {stance: self._window(topic, stance, hours) for stance in STANCES}
            for window, hours in WINDOW_HOURS.items()
            for topic in self.topics
        }
        yield (
            "stancewatch:window_assessments:sum",
            "Events published in the window by topic and stance",
            [
                (f'topic="{t}",stance="{s}",window="{w}"', list(values))
                for (w, t), by_stance in inside.items()
                for s, values in by_stance.items()
            ],
        )
        sums = {key: _sum(by_stance.values()) for key, by_stance in inside.items()}
        sided = {key: _sum(by_stance[side] for side in SIDES) for key, by_stance in inside.items()}
        for name, text, totals in (
            ("stancewatch:window_topic:sum", "Events published in the window by topic", sums),
            ("stancewatch:window_sided:sum", "The same, of those that take a side", sided),
        ):
            yield name, text, [(f'topic="{t}",window="{w}"', list(v)) for (w, t), v in totals.items()]
        yield (
            "stancewatch:window_stance:ratio",
            "Share of a stance in the window",
            [
                (f'topic="{t}",stance="{s}",window="{w}"', _ratio(values, sums[w, t]))
                for (w, t), by_stance in inside.items()
                for s, values in by_stance.items()
            ],
        )
        yield (
            "stancewatch:window_net_stance:ratio",
            "(favor - against) / (favor + against) in the window",
            [
                (
                    f'topic="{t}",window="{w}"',
                    _ratio([f - a for f, a in zip(v["favor"], v["against"], strict=True)], sided[w, t]),
                )
                for (w, t), v in inside.items()
            ],
        )

    def _window(self, topic: str, stance: str, hours: int) -> list[int]:
        totals = self.totals[topic, stance]
        return [total - (totals[at - hours] if at >= hours else 0) for at, total in enumerate(totals)]


def _sum(columns: Iterable[list[int]]) -> list[int]:
    return [sum(values) for values in zip(*columns, strict=True)]


def _ratio(parts: Iterable[int], wholes: Iterable[int]) -> Values:
    return [part / whole if whole else None for part, whole in zip(parts, wholes, strict=True)]
