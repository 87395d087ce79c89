"""The command line: it parses, calls and prints. Heavy modules are imported by the commands that use them."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from classifiers.errors import ClassifierError
from stream.audit_command import audit
from stream.dead_letters_command import dead_letters
from stream.discover_command import discover
from stream.errors import ConfigurationError, StancewatchError
from stream.evaluate_command import evaluate
from stream.export_command import export
from stream.options import AccurateOption, BrokerOption, DebugOption, TextsOption, run, setup_logging
from stream.serve_command import serve
from stream.settings import Settings, load_settings
from stream.startup import load_assessor
from stream.suggest_command import emerging, suggest
from stream.topics import TaxonomyOption, topics_app
from stream.view import ReplayView, err, out, report, shows

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Topic and stance monitoring of news streams.\n\nExample: stancewatch replay seeds",
)
app.add_typer(topics_app, name="topics")
topics_app.command()(emerging)
topics_app.command()(suggest)
app.command()(audit)
app.command()(discover)
app.command()(evaluate)
app.command()(export)
app.command()(serve)
app.add_typer(dead_letters)


def _show_version(wanted: bool) -> None:
    if wanted:
        out.print(f"stancewatch {version('stancewatch')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point: errors that a user can act on become one line and exit code 1."""
    debug = "--debug" in sys.argv
    try:
        app()
    except (StancewatchError, ClassifierError) as error:
        if debug:
            raise
        err.print(f"error: {error}", style="red", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


@app.command()
def replay(
    paths: Annotated[list[Path], typer.Argument(help=".txt articles, .jsonl events, or folders of both")],
    broker: BrokerOption = None,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Records per second.")] = None,
    speedup: Annotated[
        float | None,
        typer.Option(min=0.001, help="Earliest first; gaps of published_at divided by this."),
    ] = None,
    loop: Annotated[
        bool, typer.Option(help="Again and again with new ids (#2, #3, ...) until Ctrl-C.")
    ] = False,
    keep: Annotated[
        bool, typer.Option(help="Keep the embedded worker and its metrics until Ctrl-C.")
    ] = False,
    stall_seconds: Annotated[
        float, typer.Option(help="Give up when nothing comes back for this long.")
    ] = 120.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    debug: DebugOption = False,
) -> None:
    """Publish files as a test stream, follow every record to its end, print the counts.

    Without a broker it starts an embedded one and a worker; then nothing is kept.
    Exit code 0 only when every record was assessed, dead-lettered or recognised as a duplicate.

    Example: stancewatch replay seeds --rate 20
    """
    from stream.replay import Pace, Replay, metrics_counts  # noqa: PLC0415 - keeps --help fast
    from stream.sources import read_paths  # noqa: PLC0415

    setup_logging(debug=debug)
    if rate and speedup:
        message = "--rate and --speedup exclude each other"
        raise typer.BadParameter(message)
    records = read_paths(paths)
    settings = load_settings(broker=broker)
    interactive = err.is_terminal
    with ExitStack() as stack:
        check, metrics_url = (lambda: None), ""
        if not settings.broker:
            settings, worker = _embedded(stack, settings)
            metrics_url = worker.metrics_url

            def check() -> None:
                if worker.process.poll() is not None:
                    message = f"the worker ended with code {worker.process.returncode}:\n{worker.output}"
                    raise StancewatchError(message)

        _announce(records, rate, speedup)
        view = ReplayView(len(records) if not loop else None, metrics_url, show=interactive)
        running = Replay(settings, progress=view.update, check_worker=check, stall_seconds=stall_seconds)
        started = time.monotonic()
        with view:
            tally = run(_follow(running, _rounds(records, loop=loop), Pace(rate, speedup), loop=loop))
        seconds = time.monotonic() - started
        exact = not metrics_url or shows(metrics_counts, metrics_url, tally.counts())
        report(tally, seconds, metrics_url, exact=exact, as_json=as_json)
        if keep and metrics_url:
            err.print("the worker goes on until Ctrl-C")
            if settings.page:
                err.print(f"page: {metrics_url.removesuffix('metrics')}")
            try:
                while worker.process.poll() is None:
                    time.sleep(0.5)
            except KeyboardInterrupt:
                pass
    if not tally.complete or not exact:
        raise typer.Exit(1)


async def _follow(running: Any, rounds: AsyncIterator[Sequence[Any]], pace: Any, *, loop: bool) -> Any:
    """Run the replay; with `loop`, the first Ctrl-C ends the publishing and the rest is still followed."""
    if loop:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, running.stop)
    return await running.run(rounds, pace)


def _announce(records: Sequence[Any], rate: float | None, speedup: float | None) -> None:
    """Tell how long the publishing takes when it takes minutes."""
    times = [record.published_at for record in records if record.published_at is not None]
    seconds = len(records) / rate if rate else 0.0
    if speedup and times:
        seconds = max(0.0, (max(times) - min(times)).total_seconds() / speedup)
    if seconds > 60:  # noqa: PLR2004 - a minute
        err.print(f"publishing will take about {timedelta(seconds=round(seconds))}")


async def _rounds(records: Sequence[Any], *, loop: bool) -> AsyncIterator[Sequence[Any]]:
    yield records
    for number in itertools.count(2) if loop else ():
        suffix = f"#{number}"
        yield [_renamed(record, suffix) for record in records]


def _renamed(record: Any, suffix: str) -> Any:
    """The same event under a new id; what cannot be read is sent as it is."""
    try:
        value = json.loads(record.value)
        event = value["data"] if "specversion" in value else value
        event["id"] = f"{event['id']}{suffix}"
        changed = {"key": event["id"].encode(), "value": json.dumps(value).encode(), "event_id": event["id"]}
    except (ValueError, KeyError, TypeError, RecursionError):
        return record
    return replace(record, **changed)


def _embedded(stack: ExitStack, settings: Settings) -> tuple[Settings, Any]:
    from stream.embedded import EmbeddedBroker, WorkerProcess, temporary_folder  # noqa: PLC0415

    err.print("no broker is set: starting an embedded broker and a worker; nothing will be kept")
    folder = Path(stack.enter_context(temporary_folder()))
    broker = stack.enter_context(EmbeddedBroker(folder))
    settings = settings.model_copy(
        update={
            "broker": broker.address,
            "security_protocol": "PLAINTEXT",
            "embedded": True,
            "replication": 1,
            "store": "memory",
        }
    )
    environment = {
        "STANCEWATCH_BROKER": broker.address,
        "STANCEWATCH_EMBEDDED": "true",
        "STANCEWATCH_SECURITY_PROTOCOL": "PLAINTEXT",
        "STANCEWATCH_STORE": "memory",
        "STANCEWATCH_REPLICATION": "1",
        "STANCEWATCH_COMMIT_INTERVAL_SECONDS": "0.3",
        "STANCEWATCH_SESSION_TIMEOUT_SECONDS": "2",
        "STANCEWATCH_BATCH_SECONDS": "0.1",
        "STANCEWATCH_WINDOW_CLOCK": "event",
        **({"STANCEWATCH_MODEL": str(settings.model)} if settings.model else {}),
        **({"STANCEWATCH_TAXONOMY": str(settings.taxonomy)} if settings.taxonomy else {}),
        "STANCEWATCH_METRICS_PORT": os.environ.get("STANCEWATCH_METRICS_PORT", "0"),
    }
    worker = stack.enter_context(WorkerProcess(folder / "worker", environment, keep_nothing=True))
    worker.wait_until_ready()
    err.print(f"metrics: {worker.metrics_url}")
    return settings, worker


@app.command()
def worker(
    broker: BrokerOption = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the local state, one per worker.")] = None,
    metrics_host: Annotated[str | None, typer.Option(help="Address that /metrics binds to.")] = None,
    metrics_port: Annotated[int | None, typer.Option(min=0, max=65535, help="0 takes a free port.")] = None,
    debug: DebugOption = False,
) -> None:
    """Run the stream processor until SIGTERM.

    Example: STANCEWATCH_BROKER=127.0.0.1:9092 stancewatch worker --metrics-port 9464
    """
    setup_logging(debug=debug)  # the Kafka client is silent at first: a refusal is told in one line by us
    settings = load_settings(
        broker=broker, data_dir=data_dir, metrics_host=metrics_host, metrics_port=metrics_port
    )
    from stream.clients import check_broker, check_partitions, create_topics  # noqa: PLC0415
    from stream.reading import need_broker  # noqa: PLC0415
    from stream.worker import run_worker  # noqa: PLC0415

    need_broker(settings)
    assessor = load_assessor(settings)
    run(create_topics(settings) if settings.create_topics else check_broker(settings))
    run(check_partitions(settings))
    setup_logging(debug=debug, level=logging.INFO)
    run_worker(settings, assessor)


@app.command()
def classify(
    file: Annotated[Path, typer.Argument(help="JSON lines of events; - reads standard input")] = Path("-"),
    text: Annotated[bool, typer.Option("--text", help="The input is one plain article.")] = False,
    taxonomy: TaxonomyOption = None,
    accurate: AccurateOption = False,
    debug: DebugOption = False,
) -> None:
    """Print the assessment of each event as JSON lines: the worker's model without a broker.

    With --text the input is judged as one text as it stands, and offsets count in it; replay reads headline
    and metadata lines of an article file first, which may change a decision.

    Example: echo "Chip curbs backfire, suppliers say" | stancewatch classify --text
    """
    from stream.offline import classify_lines, classify_text  # noqa: PLC0415

    setup_logging(debug=debug)
    try:
        content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        message = f"cannot read {file}: {error.strerror}"
        raise ConfigurationError(message) from None
    assessor = load_assessor(load_settings(taxonomy=taxonomy), accurate=accurate)
    if text and not content.strip():
        message = "the text is empty: give a FILE or pipe an article into standard input"
        raise ConfigurationError(message)
    if text:
        results: Iterator[bytes] = iter([classify_text(content, assessor)])
        rejected: list[str] = []
    else:
        results, rejected = classify_lines(content, assessor)
    for line in results:
        sys.stdout.write(line.decode() + "\n")
    for message in rejected:
        err.print(message, style="red", markup=False)
    if rejected:
        raise typer.Exit(1)


@app.command()
def train(
    data: Annotated[
        list[Path] | None, typer.Option(help="JSON lines of labelled texts instead of the shipped ones.")
    ] = None,
    texts: TextsOption = None,
    into: Annotated[Path, typer.Option(help="Folder for the model.")] = Path("model"),
    debug: DebugOption = False,
) -> None:
    """Train a model; the worker uses it when STANCEWATCH_MODEL names its folder.

    The model that comes with the package is made of the shipped passages and of real rows whose texts are not
    ours to ship: with --texts pointing to them it is made again, without it the passages alone are used.

    Example: stancewatch train --data my_labels.jsonl --into my-model
    """
    from classifiers.storage import train_and_save  # noqa: PLC0415
    from classifiers.training import load_examples, real_examples, shipped_examples  # noqa: PLC0415

    setup_logging(debug=debug)
    if into.exists() and not into.is_dir():
        message = f"--into {into}: expected a folder, it is a file"
        raise ConfigurationError(message)
    texts = texts or load_settings().texts
    if data:
        examples = [example for path in data for example in load_examples(path)]
        origin = ", ".join(path.name for path in data)
    else:
        examples, origin = shipped_examples(), "passages written for the project"
        if texts:
            examples += real_examples(texts, "train")
            origin += ", real rows labelled by us"
        else:
            err.print("no --texts: the real rows are left out (see the README for what that costs)")
    with Progress(
        TextColumn("{task.description}"), TimeElapsedColumn(), console=err, transient=True
    ) as shown:
        task = shown.add_task(f"training on {len(examples)} texts", total=None)
        assessor = train_and_save(
            into,
            examples,
            data_origin=origin,
            progress=lambda step: shown.update(
                task, description=f"training on {len(examples)} texts: {step}"
            ),
        )
    out.print(f"{assessor.name} in {into} (model card: {into / 'MODEL_CARD.md'})")
    out.print(f"to use it: STANCEWATCH_MODEL={into}")


@app.command()
def doctor(broker: BrokerOption = None, debug: DebugOption = False) -> None:
    """Say whether broker, topics, model, data folder and port are fine; exit code 1 when one is not.

    Example: stancewatch doctor --broker 127.0.0.1:9092
    """
    from stream.doctor import examine  # noqa: PLC0415

    setup_logging(debug=debug, level=logging.CRITICAL)
    findings = list(examine(load_settings(broker=broker)))
    for finding in findings:
        said = "NOTE " if finding.note else "fine " if finding.fine else "WRONG"
        out.print(f"{said}  {finding.what:12} {finding.detail}", markup=False)
    if not all(finding.fine for finding in findings):
        raise typer.Exit(1)


if __name__ == "__main__":
    main()
