"""``stancewatch discover``: the command and what it shows."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream.errors import ConfigurationError
from stream.options import BrokerOption, DebugOption, JsonOption, run, setup_logging
from stream.settings import load_settings
from stream.suggest_command import print_topics
from stream.view import err, out, progress_bar

if TYPE_CHECKING:
    from classifiers.discovery.pipeline import Refit

__all__ = ["discover"]


def discover(
    files: Annotated[
        list[Path] | None, typer.Argument(help="JSON lines of events, articles, or folders; none: the stream")
    ] = None,
    broker: BrokerOption = None,
    hours: Annotated[float | None, typer.Option(min=1, help="Length of the window.")] = None,
    count: Annotated[int | None, typer.Option(min=50, help="Most documents in it.")] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Of the stream's process; 0 takes a free port (or STANCEWATCH_DISCOVER_PORT).",
        ),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="BERTopic's own charts, as one HTML file.")] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Find emerging topics: themes in the events that nobody asked for, and which of them grow.

    With files: one look at what they hold (with --hours, at the hours before the newest event).
    With a broker: a process of its own that follows news.events and news.assessments until SIGTERM, looks
    anew on schedule, and writes topics with lasting ids to news.emerging-topics. It never slows the workers.

    Needs BERTopic: the README says how to install it without torch.

    Example: stancewatch discover seeds

    Example: stancewatch discover --broker 127.0.0.1:9092
    """
    setup_logging(debug=debug)
    settings = load_settings(
        broker=broker, discover_hours=hours, discover_documents=count, discover_port=metrics_port
    )
    from classifiers.discovery.model import need_bertopic  # noqa: PLC0415 - keeps --help fast

    need_bertopic()
    if files:
        _batch(files, hours, settings.discover_documents, plot, as_json=as_json)
        return
    if plot or as_json:
        message = "--plot and --json go with files: of the stream, `stancewatch topics emerging --json` tells"
        raise typer.BadParameter(message)
    if not settings.broker:
        message = "give files to look at, or the stream's broker: --broker HOST:PORT or STANCEWATCH_BROKER"
        raise ConfigurationError(message)
    from stream.discover import bound, follow  # noqa: PLC0415

    with bound(settings) as listener:
        setup_logging(debug=debug, level=logging.INFO)
        run(follow(settings, listener))


def _batch(files: list[Path], hours: float | None, count: int, plot: Path | None, *, as_json: bool) -> None:
    from classifiers.discovery.charts import write_charts  # noqa: PLC0415
    from classifiers.discovery.pipeline import refit  # noqa: PLC0415
    from classifiers.discovery.registry import Registry  # noqa: PLC0415
    from classifiers.discovery.window import slide  # noqa: PLC0415
    from stream.discover_window import document_of  # noqa: PLC0415
    from stream.sources import read_paths  # noqa: PLC0415

    records = read_paths(files)
    found = {d.id: d for record in records if (d := document_of(record.value)) is not None}
    if not found:
        message = f"no events in {', '.join(map(str, files))}"
        raise ConfigurationError(message)
    end = max(document.time for document in found.values())
    window = slide(found.values(), end=end, hours=hours or 24.0 * 36_500, count=count)
    with progress_bar("looking for topics") as progress:
        result = refit(Registry(), window, end, progress=progress)
        if plot is not None:
            progress("drawing charts", 0, 1)
            charts = write_charts(result.model, plot)
    if as_json:
        out.print_json(json.dumps(as_plain(result)), indent=None)
    else:
        _print(result, len(window), len(found) - len(window))
    if plot is not None:
        err.print(f"{plot}: {', '.join(charts) if charts else 'no topics, no charts'}", markup=False)


def as_plain(result: Refit) -> dict[str, Any]:
    """What ``--json`` prints; the topics as ``GET /api/v1/emerging`` gives them, and their examples."""
    from stream.emerging import listed, plain_topic  # noqa: PLC0415

    return {
        "documents": result.documents,
        "copies": result.copies,
        "without_topic": result.outliers,
        "seconds": round(result.seconds, 1),
        "topics": [plain_topic(topic, examples=True) for topic in listed(result.topics)],
    }


def _print(result: Refit, size: int, left_out: int) -> None:
    from stream.emerging import listed  # noqa: PLC0415

    topics = listed(result.topics)
    print_topics(topics)
    outside = f", {left_out} older ones left out" if left_out else ""
    out.print(
        f"\n{len(topics)} topics in {size} documents ({result.copies} copies{outside});"
        f" {result.outliers} belong to none; {result.seconds:.1f} s"
    )
