"""``stancewatch evaluate``: the command, and the report that it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from stream.errors import ConfigurationError
from stream.options import AccurateOption, DebugOption, JsonOption, TextsOption, setup_logging
from stream.settings import load_settings
from stream.startup import load_assessor
from stream.view import err, out

if TYPE_CHECKING:
    from classifiers.training import Example

__all__ = ["evaluate"]


def evaluate(
    data: Annotated[
        Path | None, typer.Option(help='JSON lines of {"text", "topics": [...], "stance": {topic: label}}')
    ] = None,
    texts: TextsOption = None,
    report: Annotated[
        Path | None, typer.Option(help="Folder for report.md, report.json and pictures.")
    ] = None,
    pictures: Annotated[bool, typer.Option(help="Pictures in the report; they need matplotlib.")] = True,
    trained_on: Annotated[
        list[Path] | None,
        typer.Option(
            help="The --data files that your own model was trained on, for a baseline trained alike."
        ),
    ] = None,
    accurate: AccurateOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Measure topics and stance on labelled texts: a file of yours, or our development rows with --texts.

    --report and --json add 95 % intervals, calibration, errors by kind (ids of rows, never their texts) and
    simpler methods on the same rows. One of these is trained on the model's own training texts and left out
    when they are not at hand: for the shipped model they want --texts (or STANCEWATCH_TEXTS), for a model of
    your own --trained-on. The same data gives the same files.

    Example: stancewatch evaluate --data labelled.jsonl --report my-report
    """
    from classifiers.evaluation import evaluate as measure  # noqa: PLC0415 - keeps --help fast
    from classifiers.evaluation import lines  # noqa: PLC0415
    from classifiers.training import load_examples, real_examples  # noqa: PLC0415

    setup_logging(debug=debug)
    settings = load_settings()
    known_texts = texts or settings.texts
    texts = texts or (None if data else settings.texts)
    if (data is None) == (texts is None):
        message = "give either --data FILE or --texts FOLDER (or STANCEWATCH_TEXTS)"
        raise typer.BadParameter(message)
    if report:
        _check_folder(report, pictures=pictures)
    assessor = load_assessor(settings, accurate=accurate)
    examples = real_examples(texts, "dev") if texts else load_examples(data) if data else []
    if not (report or as_json):
        for line in lines(measure(assessor, examples)):
            out.print(line)
        return
    from classifiers.analysis import Training, analyse  # noqa: PLC0415
    from classifiers.storage import training_hash  # noqa: PLC0415

    training = Training(_training_texts(trained_on, known_texts), training_hash(settings.model))
    with Progress(
        TextColumn("{task.description}"), TimeElapsedColumn(), console=err, transient=True
    ) as shown:
        task = shown.add_task("evaluating", total=None)
        found = analyse(
            assessor,
            examples,
            training,
            progress=lambda step: shown.update(task, description=f"{len(examples)} texts: {step}"),
        )
        if report:
            shown.update(task, description="writing the report")
            _write(found, report, pictures=pictures)
    if as_json:
        out.print_json(json.dumps(found), indent=None)
    else:
        for line in lines(found):
            out.print(line)
    if report:
        err.print(f"report: {report / 'report.md'}")


def _training_texts(trained_on: list[Path] | None, texts: Path | None) -> list[Example]:
    """Files that the user names, or what the shipped model is made of, as far as it is at hand."""
    from classifiers.training import load_examples, real_examples, shipped_examples  # noqa: PLC0415

    if trained_on:
        return [example for path in trained_on for example in load_examples(path)]
    return [*shipped_examples(), *(real_examples(texts, "train") if texts else ())]


def _check_folder(folder: Path, *, pictures: bool) -> None:
    """What can be known before minutes of work are done."""
    from classifiers.pictures import require_matplotlib  # noqa: PLC0415

    if folder.exists() and not folder.is_dir():
        message = f"--report {folder}: expected a folder, it is a file"
        raise ConfigurationError(message)
    if pictures:
        require_matplotlib()


def _write(found: dict[str, object], folder: Path, *, pictures: bool) -> None:
    from classifiers.pictures import draw  # noqa: PLC0415
    from classifiers.report import markdown  # noqa: PLC0415

    drawn = draw(found) if pictures else {}
    files = {
        "report.md": markdown(found, drawn).encode(),
        "report.json": (json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(),
        **drawn,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        message = f"--report {folder}: cannot write: {error.strerror}"
        raise ConfigurationError(message) from None
