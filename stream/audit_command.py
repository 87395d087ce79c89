"""``stancewatch audit``: the command and what it shows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from stream.options import BrokerOption, DebugOption, JsonOption, run, setup_logging
from stream.settings import load_settings
from stream.view import err, out, print_table, progress_bar

if TYPE_CHECKING:
    from stream.audit_report import Report

__all__ = ["audit"]

SHOWN_MAX = 20
LISTED_MAX = 1000


def audit(
    broker: BrokerOption = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(help="Address of a worker's /metrics; give it once for every worker."),
    ] = None,
    wait_seconds: Annotated[
        float, typer.Option(min=0, help="How long to wait for workers that lag behind the log.")
    ] = 60.0,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Recount the log independently and compare it with the state and the workers' metrics.

    Counts news.events anew, by the decisions in news.assessments and news.dead-letters, and compares votes by
    topic, stance and hour and records by outcome with the changelog of the workers' state and with their
    /metrics. It can run beside workers: everything in the log when it starts is in the comparison, and the
    offsets are told. Exit code 0 only when all are equal and every accepted event has an assessment and
    every assessment an event.

    The metrics of single processes (events, dead letters since their start) cannot be compared to the log.

    Example: stancewatch audit --broker 127.0.0.1:9092 --metrics http://127.0.0.1:9464/metrics

    Example: stancewatch audit --broker 127.0.0.1:9092 --json
    """
    from stream.audit import Audit  # noqa: PLC0415 - keeps --help fast

    setup_logging(debug=debug)
    settings = load_settings(broker=broker)
    with progress_bar("connecting") as progress:
        work = Audit(settings, metrics_urls=metrics or [], wait_seconds=wait_seconds, progress=progress)
        report = run(work.run())
    if as_json:
        out.print_json(json.dumps(_as_json(report)), indent=None)
    else:
        _print(report)
    if not report.equal:
        raise typer.Exit(1)


def _as_json(report: Report) -> dict[str, Any]:
    from stream.audit_report import summary  # noqa: PLC0415

    return {
        "equal": report.equal,
        "difference": sum(abs(each.found - each.log) for each in report.differences),
        "records": report.records,
        "offsets": {
            str(number): {"noted": noted, "counted": report.counted[number]}
            for number, noted in sorted(report.noted.items())
        },
        "figures": summary(report),
        "dead_letters": dict(sorted(report.reasons.items())),
        "differences": [each.as_json() for each in report.differences],
        **{kind: found[:LISTED_MAX] for kind, found in report.findings.items()},
        "finding_counts": {kind: len(found) for kind, found in report.findings.items()},
        "metrics_compared": report.with_metrics,
        "hours_no_longer_kept": report.dropped_hours,
        "seconds": round(report.seconds, 3),
    }


def _print(report: Report) -> None:
    offsets = ", ".join(f"{number}: {end}" for number, end in sorted(report.counted.items()))
    out.print(f"recounted {report.records} records in {report.seconds:.1f} s")
    out.print(f"up to offset (by partition) {offsets}")
    _print_figures(report)
    if report.reasons:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(report.reasons.items()))
        out.print(f"\ndead letters: {reasons}")
    if report.dropped_hours:
        out.print(f"{report.dropped_hours} hours are no longer kept in the state and were not compared")
    _print_differences(report)
    for kind, found in report.findings.items():
        for one in found[:SHOWN_MAX]:
            out.print(f"{kind.replace('_', ' ')}: {one}", style="red", markup=False)
        if len(found) > SHOWN_MAX:
            out.print(f"... and {len(found) - SHOWN_MAX} more {kind.replace('_', ' ')}", style="red")
    sides = "log, state and metrics" if report.with_metrics else "log and state"
    if report.equal:
        out.print(f"\n{sides} are equal: difference 0")
    else:
        figures = len(report.differences)
        err.print(f"error: {sides} are not equal: {figures} figures differ", style="red")


def _print_figures(report: Report) -> None:
    """Sums over all partitions; the log twice when the pages stood further than the state."""
    from stream.audit_report import summary  # noqa: PLC0415

    rows = summary(report)
    sides = ["log", "state"]
    if report.with_metrics:
        apart = any(row["log"] != row["log_at_metrics"] for row in rows)
        sides += ["log_at_metrics", "metrics"] if apart else ["metrics"]
    table = Table("", box=None, pad_edge=False)
    for side in sides:
        table.add_column(side.replace("_", " "), justify="right")
    for row in rows:
        name = row.get("outcome") or f"{row['topic']} {row['stance']}"
        table.add_row(name, *(str(row[side]) for side in sides))
    out.print()
    print_table(table)


def _print_differences(report: Report) -> None:
    if not report.differences:
        return
    table = Table("", "where", box=None, pad_edge=False)
    for name in ("log", "found", "difference"):
        table.add_column(name, justify="right")
    for each in report.differences[:SHOWN_MAX]:
        figures = (str(each.log), str(each.found), f"{each.found - each.log:+d}")
        table.add_row(each.describe(), each.where, *figures)
    out.print()
    print_table(table)
    if len(report.differences) > SHOWN_MAX:
        out.print(f"... and {len(report.differences) - SHOWN_MAX} more; --json lists them all")
