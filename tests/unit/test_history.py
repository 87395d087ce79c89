"""The log told at event time, as OpenMetrics text."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from stream.history import History, write_openmetrics
from tests.conftest import ROOT

FIRST = 480_000
FAVOR, AGAINST = ("cloud", "favor"), ("cloud", "against")


def written(
    votes: dict[int, dict[tuple[str, str], int]], **values: Any
) -> dict[tuple[str, str], dict[float, float]]:
    """Values by series and moment, read by the strict parser of the client library."""
    text = io.StringIO()
    count = write_openmetrics(History({hour: Counter(by) for hour, by in votes.items()}), text, **values)
    page = text.getvalue()
    assert page.endswith("# EOF\n")
    found: dict[tuple[str, str], dict[float, float]] = {}
    for family in text_string_to_metric_families(page):  # type: ignore[no-untyped-call]
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found.setdefault((sample.name, labels), {})[float(sample.timestamp)] = sample.value
    assert count == sum(map(len, found.values()))
    return found


TOTAL = ("stancewatch:assessments:sum", "stance=favor,topic=cloud")


def test_totals_rise_hour_by_hour_and_windows_let_go() -> None:
    """A sample at the end of an hour tells of what was published before it."""
    found = written({FIRST: {FAVOR: 2}, FIRST + 1: {AGAINST: 1}, FIRST + 3: {FAVOR: 1}})
    ends = [(FIRST + hour + 1) * 3600.0 for hour in range(4)]
    assert found[TOTAL] == dict(zip(ends, [2, 2, 2, 3], strict=True))
    hour = ("stancewatch:window_assessments:sum", "stance=favor,topic=cloud,window=1h")
    assert list(found[hour].values()) == [2, 0, 0, 1]
    day = ("stancewatch:window_topic:sum", "topic=cloud,window=24h")
    assert list(found[day].values()) == [2, 3, 3, 4]
    net = ("stancewatch:window_net_stance:ratio", "topic=cloud,window=24h")
    assert list(found[net].values()) == pytest.approx([1, 1 / 3, 1 / 3, 0.5])
    share = ("stancewatch:window_stance:ratio", "stance=favor,topic=cloud,window=1h")
    assert found[share] == {ends[0]: 1, ends[1]: 0, ends[3]: 1}  # no share of an empty hour


def test_the_range_is_cut_and_totals_hold_what_was_before() -> None:
    """Both ends belong to it."""
    votes = {FIRST + hour: {FAVOR: 1} for hour in range(10)}
    found = written(votes, begin=(FIRST + 3) * 3600, end=(FIRST + 5) * 3600)
    assert found[TOTAL] == {(FIRST + hour) * 3600.0: hour for hour in (3, 4, 5)}


def test_a_smaller_step_repeats_the_last_full_hour() -> None:
    """Prometheus draws a sample for five minutes only; nothing is told beyond the end of the last hour."""
    found = written({FIRST: {FAVOR: 1}, FIRST + 1: {FAVOR: 1}}, step_minutes=20)
    first, last = (FIRST + 1) * 3600.0, (FIRST + 2) * 3600.0
    assert found[TOTAL] == {first: 1, first + 1200: 1, first + 2400: 1, last: 2}


@pytest.mark.parametrize("after", [None, 7200])
def test_nothing_is_told_of_moments_to_come(after: int | None) -> None:
    """The hour under way is told when it is over; Prometheus would scrape nothing until its end."""
    hour = int(time.time() // 3600)
    votes: dict[int, dict[tuple[str, str], int]] = {hour - 1: {FAVOR: 1}, hour: {FAVOR: 2}}
    found = written(votes, step_minutes=5, end=after and time.time() + after)
    assert found[TOTAL][hour * 3600.0] == 1
    assert max(found[TOTAL]) <= time.time()


@pytest.mark.parametrize("votes", [{}, {FIRST: {FAVOR: 0}}])
def test_without_votes_there_is_only_the_end(votes: dict[int, dict[tuple[str, str], int]]) -> None:
    """Promtool takes that, too."""
    assert written(votes) == {}


@settings(max_examples=30)
@given(st.dictionaries(st.integers(0, 400), st.integers(0, 9), min_size=1))
def test_windows_are_sums_of_hours(by_hour: dict[int, int]) -> None:
    """Against plain sums."""
    found = written({FIRST + hour: {FAVOR: votes} for hour, votes in by_hour.items()})
    for window, hours in (("1h", 1), ("24h", 24), ("7d", 168)):
        series = found.get(
            ("stancewatch:window_assessments:sum", f"stance=favor,topic=cloud,window={window}"), {}
        )
        for moment, value in series.items():
            end = moment / 3600 - FIRST
            assert value == sum(votes for hour, votes in by_hour.items() if end - hours <= hour < end)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "give --openmetrics"),
        (["--openmetrics", "--step-minutes", "7"], "--step-minutes 7: expected one of 1, 2"),
        (["--openmetrics", "--from", "2024-02-01", "--to", "2024-01-01"], "is later than --to"),
        (["--openmetrics"], "no Kafka broker is set"),
        (["--openmetrics", "."], "cannot write .: it is a folder"),
        (["--openmetrics", "stream"], "cannot write stream: it is a folder"),
        (["--openmetrics", "no/such/file"], "cannot write no/such/file: there is no folder no/such"),
    ],
)
def test_what_the_user_can_mend_is_one_line(arguments: list[str], told: str) -> None:
    """Exit code 1, nothing on standard output."""
    command = [sys.executable, "-m", "stream.cli", "export", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (1, "")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
