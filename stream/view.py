"""What the commands show: tables, progress, and the live table and report of replay."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from classifiers.decisions import STANCES

__all__ = ["ReplayView", "err", "out", "print_table", "progress_bar", "report", "shows"]

out = Console(soft_wrap=True, highlight=False, emoji=False)
err = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)

PIPE_WIDTH = 250


def print_table(table: Table) -> None:
    """A table as wide as the terminal allows; into a file or pipe nothing is cut."""
    (out if out.is_terminal else Console(width=PIPE_WIDTH, highlight=False, emoji=False)).print(table)


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """One bar for the step that runs, on a terminal only; told of (step, done, total)."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bars:
        task = bars.add_task(title, total=None)

        def advance(step: str, done: int, total: int) -> None:
            bars.update(task, description=step, completed=done, total=max(total, 1))

        yield advance


class ReplayView:
    """Progress bar and live table on a terminal; silent elsewhere."""

    def __init__(self, total: int | None, metrics_url: str, *, show: bool) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=err,
        )
        self.published = self.progress.add_task("published", total=total)
        self.settled = self.progress.add_task("settled", total=total)
        self.metrics_url = metrics_url
        self.live = Live(console=err, refresh_per_second=8, transient=True) if show else None
        self._drawn = 0.0

    def update(self, tally: Any) -> None:
        """Draw at most eight times a second; counting thousands of decisions takes time."""
        if self.live is None or time.monotonic() - self._drawn < 1 / 8:
            return
        self._drawn = time.monotonic()
        self.progress.update(self.published, completed=tally.published)
        done = tally.assessed + tally.dead_lettered + tally.duplicates
        self.progress.update(self.settled, completed=done)
        footer = f"metrics: {self.metrics_url}" if self.metrics_url else ""
        self.live.update(Group(self.progress, _counts_table(tally.counts()), footer))

    def __enter__(self) -> Self:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()


def _counts_table(counts: dict[str, dict[str, int]]) -> Table:
    table = Table("topic", box=None, pad_edge=False)
    for stance in STANCES:
        table.add_column(stance, justify="right")
    for topic, by_stance in counts.items():
        table.add_row(topic, *(str(by_stance.get(stance, 0)) for stance in STANCES))
    return table


def report(tally: Any, seconds: float, metrics_url: str, *, exact: bool, as_json: bool) -> None:
    """Print figures by topic and stance, or one JSON object; what went wrong goes to standard error."""
    if as_json:
        out.print_json(json.dumps(tally.as_json()), indent=None)
    else:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(tally.reasons.items()))
        out.print(f"published      {tally.published} in {seconds:.1f} s")
        out.print(f"assessed       {tally.assessed}, of these off topic {tally.off_topic()}")
        out.print(f"dead-lettered  {tally.dead_lettered}{f' ({reasons})' if reasons else ''}")
        out.print(f"duplicates     {tally.duplicates}")
        out.print()
        out.print(_counts_table(tally.counts()))
        if metrics_url:
            verdict = "the same counts" if exact else "OTHER COUNTS"
            out.print(f"\n{metrics_url} showed {verdict}")
    for origin in tally.refused:
        err.print(f"refused by the broker: {origin}", style="red", markup=False)
    for origin in tally.lost:
        err.print(f"lost: {origin}", style="red", markup=False)
    if not exact:
        err.print("error: the worker's metrics differ from its assessments", style="red")


def shows(read: Callable[[str], Any], url: str, counts: Any) -> bool:
    """Whether the metrics show these counts within some seconds: they are counted after they are sent."""
    deadline = time.monotonic() + 5
    while read(url) != counts:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
