"""``stancewatch export``: history for Prometheus."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from stream.errors import ConfigurationError
from stream.options import BrokerOption, DebugOption, run, setup_logging
from stream.settings import load_settings
from stream.view import err, progress_bar

__all__ = ["export"]

FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"]
STEPS = (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60)


def export(
    file: Annotated[Path, typer.Argument(help="File to write; - is standard output")] = Path("-"),
    openmetrics: Annotated[
        bool, typer.Option("--openmetrics", help="In OpenMetrics text, the one format there is.")
    ] = False,
    begin: Annotated[
        datetime | None, typer.Option("--from", formats=FORMATS, help="First moment, UTC.")
    ] = None,
    end: Annotated[datetime | None, typer.Option("--to", formats=FORMATS, help="Last moment, UTC.")] = None,
    step_minutes: Annotated[
        int, typer.Option(help="Minutes between samples; graphs that look closer than an hour need 5.")
    ] = 60,
    broker: BrokerOption = None,
    debug: DebugOption = False,
) -> None:
    """Write the history of the counts at event time, so that Prometheus shows news of months ago.

    Counts news.events anew by the workers' decisions, by the hour of published_at, and writes the recorded
    series of the dashboards (stancewatch:assessments:sum, stancewatch:window_*), ending with # EOF. Votes
    that were corrected or retracted later are shown as they are known now.

    Make blocks of it (without --max-block-duration one for every two hours) and move them into the data
    folder of Prometheus; a running one takes them up within minutes:

    promtool tsdb create-blocks-from --max-block-duration=744h openmetrics history.om blocks

    mv blocks/* PROMETHEUS_DATA/

    Prometheus deletes blocks older than its retention (15 days, in docker-compose.yml 30): set
    --storage.tsdb.retention.time to more than the age of the oldest news first. Leave out with --to the last
    three hours and the time since live scraping began: there the same series would have both figures. An hour
    is written when it is over, never a moment to come.

    Example: stancewatch export --openmetrics --to 2026-01-31 --broker 127.0.0.1:9092 history.om
    """
    setup_logging(debug=debug)
    if not openmetrics:
        message = "give --openmetrics, the one format there is"
        raise ConfigurationError(message)
    if step_minutes not in STEPS:
        message = f"--step-minutes {step_minutes}: expected one of {', '.join(map(str, STEPS))}"
        raise ConfigurationError(message)
    if begin and end and begin > end:
        message = f"--from {begin} is later than --to {end}"
        raise ConfigurationError(message)
    _check_target(file)
    from stream.history import read_history, write_openmetrics  # noqa: PLC0415 - keeps --help fast

    settings = load_settings(broker=broker)
    with progress_bar("connecting") as progress:
        history = run(read_history(settings, progress))
    partial = file.with_name(f"{file.name}.part")
    with ExitStack() as stack:
        try:
            into = sys.stdout if str(file) == "-" else stack.enter_context(partial.open("w"))
        except OSError as error:
            message = f"cannot write {partial}: {error.strerror}"
            raise ConfigurationError(message) from None
        samples = write_openmetrics(
            history, into, begin=_seconds(begin), end=_seconds(end), step_minutes=step_minutes
        )
    if into is not sys.stdout:
        partial.replace(file)
    err.print(f"{history.records} records counted, {samples} samples written")
    if history.unassessed:
        err.print(f"{history.unassessed} events are not decided yet and were left out", style="yellow")
    if history.begins_late:
        err.print(
            f"earlier records were deleted from the log and are not in the history:"
            f" {'; '.join(history.begins_late)}",
            style="yellow",
            markup=False,
        )


def _check_target(file: Path) -> None:
    """Before everything is counted; - (standard output) is in a folder that is always there."""
    if file.is_dir():
        message = f"cannot write {file}: it is a folder, give a file in it"
        raise ConfigurationError(message)
    if not file.parent.is_dir():
        message = f"cannot write {file}: there is no folder {file.parent}"
        raise ConfigurationError(message)


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.replace(tzinfo=UTC).timestamp()
