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
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from classifiers.errors import ClassifierError
from stream.errors import ConfigurationError, StancewatchError
from stream.settings import Settings, load_settings
from stream.view import ReplayView, err, out, report, shows

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Topic and stance monitoring of news streams.\n\nExample: stancewatch replay seeds",
)

BrokerOption = Annotated[str | None, typer.Option(help="host:port of a Kafka broker (or STANCEWATCH_BROKER)")]
DebugOption = Annotated[bool, typer.Option(help="Full logs, and tracebacks of errors.")]


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
        float | None, typer.Option(min=0.001, help="Keep the gaps of published_at, divided by this.")
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

    _setup_logging(debug=debug)
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

        view = ReplayView(len(records) if not loop else None, metrics_url, show=interactive)
        running = Replay(settings, progress=view.update, check_worker=check, stall_seconds=stall_seconds)
        started = time.monotonic()
        with view:
            tally = asyncio.run(_follow(running, _rounds(records, loop=loop), Pace(rate, speedup), loop=loop))
        seconds = time.monotonic() - started
        exact = not metrics_url or shows(metrics_counts, metrics_url, tally.counts())
        report(tally, seconds, metrics_url, exact=exact, as_json=as_json)
        if keep and metrics_url:
            err.print("the worker goes on until Ctrl-C")
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
    _assessor(settings)  # trained here, where a person sees it, if it has to be
    folder = Path(stack.enter_context(temporary_folder()))
    broker = stack.enter_context(EmbeddedBroker(folder))
    settings = settings.model_copy(
        update={"broker": broker.address, "embedded": True, "replication": 1, "store": "memory"}
    )
    environment = {
        "STANCEWATCH_BROKER": broker.address,
        "STANCEWATCH_EMBEDDED": "true",
        "STANCEWATCH_STORE": "memory",
        "STANCEWATCH_REPLICATION": "1",
        "STANCEWATCH_COMMIT_INTERVAL_SECONDS": "0.3",
        "STANCEWATCH_SESSION_TIMEOUT_SECONDS": "2",
        "STANCEWATCH_BATCH_SECONDS": "0.1",
        "STANCEWATCH_WINDOW_CLOCK": "event",
        "STANCEWATCH_MODEL_DIR": str(settings.model_dir),
        **({"STANCEWATCH_MODEL": str(settings.model)} if settings.model else {}),
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
    _setup_logging(debug=debug, level=logging.INFO)
    settings = load_settings(
        broker=broker, data_dir=data_dir, metrics_host=metrics_host, metrics_port=metrics_port
    )
    if not settings.broker:
        message = "no Kafka broker is set: give --broker HOST:PORT or STANCEWATCH_BROKER"
        raise ConfigurationError(message)
    from stream.clients import create_topics  # noqa: PLC0415
    from stream.worker import run_worker  # noqa: PLC0415

    assessor = _assessor(settings, say=logging.getLogger("stancewatch").info)
    if settings.create_topics:
        asyncio.run(create_topics(settings))
    run_worker(settings, assessor)


@app.command()
def classify(
    file: Annotated[Path, typer.Argument(help="JSON lines of events; - reads standard input")] = Path("-"),
    text: Annotated[bool, typer.Option("--text", help="The input is one plain article.")] = False,
    debug: DebugOption = False,
) -> None:
    """Print the assessment of each event as JSON lines: the worker's model without a broker.

    Example: echo "Chip curbs backfire, suppliers say" | stancewatch classify --text
    """
    from stream.offline import classify_lines, classify_text  # noqa: PLC0415

    _setup_logging(debug=debug)
    try:
        content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        message = f"cannot read {file}: {error.strerror}"
        raise ConfigurationError(message) from None
    assessor = _assessor()
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
        list[Path] | None, typer.Option(help="JSON lines of labelled texts; default: shipped")
    ] = None,
    into: Annotated[
        Path | None, typer.Option(help="Folder for the model; default: where the worker looks")
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Train the classifier and keep it where the worker finds it.

    Example: stancewatch train --data my_labels.jsonl --into my-model
    """
    from classifiers.storage import default_folder, train_and_save  # noqa: PLC0415
    from classifiers.training import load_examples, shipped_examples  # noqa: PLC0415

    _setup_logging(debug=debug)
    if data and not into:
        message = "--data needs --into FOLDER; then set STANCEWATCH_MODEL=FOLDER for the worker"
        raise typer.BadParameter(message)
    examples = [e for path in data for e in load_examples(path)] if data else shipped_examples()
    folder = into or default_folder(load_settings().model_dir, examples)
    with _spinner(f"training on {len(examples)} passages"):
        origin = ", ".join(path.name for path in data) if data else "passages shipped with the package"
        assessor = train_and_save(folder, examples, data_origin=origin)
    out.print(f"{assessor.name} in {folder} (model card: {folder / 'MODEL_CARD.md'})")


@app.command()
def evaluate(
    data: Annotated[
        Path, typer.Option(help='JSON lines of {"text", "topics": [...], "stance": {topic: label}}')
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    debug: DebugOption = False,
) -> None:
    """Measure topics and stance on labelled texts.

    Example: stancewatch evaluate --data labelled.jsonl --json
    """
    from classifiers.evaluation import evaluate as measure  # noqa: PLC0415
    from classifiers.evaluation import lines  # noqa: PLC0415
    from classifiers.training import load_examples  # noqa: PLC0415

    _setup_logging(debug=debug)
    report = measure(_assessor(), load_examples(data))
    if as_json:
        out.print_json(json.dumps(report), indent=None)
    else:
        for line in lines(report):
            out.print(line)


@app.command()
def topics(debug: DebugOption = False) -> None:
    """List the topics that the model assigns and the stances of each.

    Example: stancewatch topics
    """
    from classifiers.taxonomy import TAXONOMY  # noqa: PLC0415

    _setup_logging(debug=debug)
    for topic in TAXONOMY:
        out.print(f"{topic.id:16} {topic.description}")
    out.print("\nstances: favor, against, neutral (toward the topic's object)")


@app.command()
def doctor(broker: BrokerOption = None, debug: DebugOption = False) -> None:
    """Say whether broker, topics, model, data folder and port are fine; exit code 1 when one is not.

    Example: stancewatch doctor --broker 127.0.0.1:9092
    """
    from stream.doctor import examine  # noqa: PLC0415

    _setup_logging(debug=debug, level=logging.CRITICAL)
    findings = list(examine(load_settings(broker=broker)))
    for finding in findings:
        out.print(f"{'fine ' if finding.fine else 'WRONG'}  {finding.what:12} {finding.detail}", markup=False)
    if not all(finding.fine for finding in findings):
        raise typer.Exit(1)


def _assessor(settings: Settings | None = None, say: Callable[[str], None] = err.print) -> Any:
    from classifiers.storage import load, load_or_train  # noqa: PLC0415

    settings = settings or load_settings()
    return load(settings.model) if settings.model else load_or_train(settings.model_dir, say=say)


@contextmanager
def _spinner(text: str) -> Iterator[None]:
    if err.is_terminal:
        with err.status(text):
            yield
    else:
        err.print(f"{text} ...")
        yield


def _setup_logging(*, debug: bool, level: int = logging.WARNING) -> None:
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
        force=True,
    )
    logging.getLogger("stancewatch").setLevel(logging.DEBUG if debug else level)


if __name__ == "__main__":
    main()
