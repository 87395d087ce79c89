"""Which part of the training data brings what, and whether more of it would help.

The data has three parts: single passages, paragraphs of articles (both written for the project) and real rows
(with ``--texts``). Two questions are asked, each over shares of a part:

``alone``  the model is trained on a share of one part only, or of all together
``beside`` the model is trained on a share of one part and the whole of the others; share 0 is without it

Every model is trained without one batch of paragraphs, and measured on it and on the real development rows.
Topics: micro F1 of whole texts. Stance: macro F1 given the true topic, so that every model is asked the same;
``stance_macro_f1_with_misses`` wants the topic found as well. Intervals: 95 %, bootstrap over the test's
texts; what the choice of training rows adds is not in them. Smaller shares lie within larger ones.

Writes ``learning_curve.json``, ``.md`` and two pictures (which need matplotlib), all at the end.
28 trainings: 21 minutes of a core.

Example: ``OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.learning_curve --texts FOLDER --into learning``
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from threadpoolctl import threadpool_limits

from classifiers.assessor import Assessor
from classifiers.errors import ClassifierError, DataError
from classifiers.intervals import interval, macro_f1, micro_f1, resampled
from classifiers.mistakes import FOUND, Row, stance_counts, topic_counts
from classifiers.pictures import COLOURS, MARKERS, draw_with, figure, require_matplotlib
from classifiers.training import STANCES, Example, real_examples, shipped_examples, train_models

SHARES = (0.125, 0.25, 0.5, 1.0)
SEED = 11
TICKS = (125, 250, 500, 1000, 2000, 4000, 8000, 16000)
ALL = "all together"
PARTS = ("passages", "paragraphs", "real rows")
FIGURES = {
    "topics_micro_f1": "topics, micro F1",
    "stance_macro_f1": "stance given the topic, macro F1",
    "stance_macro_f1_with_misses": "stance with missed topics as misses, macro F1",
}


class Plan(NamedTuple):
    """A model to train: what is asked, the part, its share, and the examples."""

    question: str
    part: str
    share: float
    examples: Sequence[Example]


def part_of(example: Example) -> str:
    """Name of the part that an example belongs to."""
    return PARTS[2] if example.source else PARTS[1] if example.batch else PARTS[0]


def split(
    examples: Sequence[Example], batch: str, seed: int
) -> tuple[dict[str, list[Example]], list[Example]]:
    """Parts in random order, without the batch; and the batch.

    Raises
    ------
    DataError
        When there is no such batch, or a part is empty.
    """
    batches = sorted({example.batch for example in examples if example.batch})
    if batch not in batches:
        message = f"there is no batch {batch!r} of paragraphs; there are {batches}"
        raise DataError(message)
    chooser = np.random.default_rng(seed)
    parts = {}
    for name in sorted({part_of(example) for example in examples}, key=PARTS.index):
        own = [example for example in examples if part_of(example) == name and example.batch != batch]
        parts[name] = [own[i] for i in chooser.permutation(len(own))]
    return parts, [example for example in examples if example.batch == batch]


def plans(parts: dict[str, list[Example]], shares: Sequence[float]) -> Iterator[Plan]:
    """All models that answer the two questions; the one of everything is trained once."""
    for share in shares:
        for name, part in parts.items():
            yield Plan("alone", name, share, part[: round(len(part) * share)])
        everything = [e for part in parts.values() for e in part[: round(len(part) * share)]]
        yield Plan("alone", ALL, share, everything)
    for name, part in parts.items():
        others = [e for other, rows in parts.items() if other != name for e in rows]
        for share in (0.0, *(share for share in shares if share < 1)):
            yield Plan("beside", name, share, [*others, *part[: round(len(part) * share)]])


def measure(assessor: Assessor, examples: Sequence[Example]) -> dict[str, Any]:
    """Figures with their intervals on one set of texts."""
    pairs = [(e.text, topic) for e in examples for topic in e.topics]
    told = iter(assessor.stance_model.predict([text for text, _ in pairs], [topic for _, topic in pairs]))
    counts = []
    decided = assessor.assess([("", e.text) for e in examples])
    for example, decisions in zip(examples, decided, strict=True):
        row = Row(example.id, example.stance, {d.topic: d.stance for d in decisions})
        given = {topic: str(next(told)) for topic in example.topics}
        blocks = [stance_counts(example.stance, found).ravel() for found in (given, row.found)]
        counts.append(np.concatenate([topic_counts(row), *blocks]))
    table = np.array(counts)
    exact, drawn = _scores(table.sum(axis=0, keepdims=True)), _scores(resampled(table))
    return {
        name: {"value": round(float(exact[name][0]), 4), "interval": interval(drawn[name])}
        for name in FIGURES
    }


def _scores(sums: Any) -> dict[str, Any]:
    shape = (-1, len(STANCES), len(FOUND))
    cut = 3 + len(STANCES) * len(FOUND)
    scores = (
        micro_f1(sums[:, :3]),
        macro_f1(sums[:, 3:cut].reshape(shape)),
        macro_f1(sums[:, cut:].reshape(shape)),
    )
    return dict(zip(FIGURES, scores, strict=True))


def run(
    parts: dict[str, list[Example]],
    tests: dict[str, list[Example]],
    shares: Sequence[float],
    console: Console,
) -> list[dict[str, Any]]:
    """Train and measure all models.

    Returns
    -------
    list of dict
        ``question``, ``part``, ``share``, ``texts`` (trained on) and ``scores`` by test set and figure.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    todo = list(plans(parts, shares))
    points = []
    with Progress(*columns, console=console) as progress, threadpool_limits(limits=1):
        task = progress.add_task("training", total=len(todo))
        for question, part, share, examples in todo:
            progress.update(task, description=f"{part} {question}, share {share:g}, {len(examples)} texts")
            topic_model, stance_model = train_models(examples)
            assessor = Assessor(topic_model, stance_model, name="curve", content_hash="")
            scores = {name: measure(assessor, rows) for name, rows in tests.items()}
            points.append(
                {"question": question, "part": part, "share": share, "texts": len(examples), "scores": scores}
            )
            progress.advance(task)
    whole = next(point for point in points if point["part"] == ALL and point["share"] == 1)
    points += [{**whole, "question": "beside", "part": name} for name in parts]
    return points


def markdown(found: dict[str, Any]) -> str:
    """Both questions as tables."""
    lines = [
        "# Learning curve",
        "",
        f"Trained without batch {found['held_out_batch']}; seed {found['seed']}.",
    ]
    titles = {
        "alone": "A share of one part alone",
        "beside": "A share of one part beside the whole of the others",
    }
    for question, title in titles.items():
        lines += ["", f"## {title}"]
        for test, size in found["tests"].items():
            lines += ["", f"Measured on {test} ({size:,} texts), with 95 % intervals:", ""]
            lines.append("| part | share | trained on | " + " | ".join(FIGURES.values()) + " |")
            lines.append("| --- | ---: | ---: | " + " | ".join(["---"] * len(FIGURES)) + " |")
            lines += [
                f"| {point['part']} | {point['share']:g} | {point['texts']:,} | "
                + " | ".join(_cell(point["scores"][test][name]) for name in FIGURES)
                + " |"
                for point in _ordered(found["points"], question)
            ]
    return "\n".join(lines) + "\n"


def _cell(score: dict[str, Any]) -> str:
    low, high = score["interval"]
    return f"{score['value']:.3f} ({low:.3f} to {high:.3f})"


def _ordered(points: Sequence[dict[str, Any]], question: str) -> list[dict[str, Any]]:
    order = [*PARTS, ALL]
    chosen = [point for point in points if point["question"] == question]
    return sorted(chosen, key=lambda point: (order.index(point["part"]), point["share"]))


def picture(found: dict[str, Any], question: str) -> Any:
    """Curves of one question: test sets side by side, topics above stance."""
    points = _ordered(found["points"], question)
    drawn = figure(6.2)
    panels = drawn.subplots(2, len(found["tests"]), squeeze=False, sharex=True, sharey="row")
    for row, name in enumerate(list(FIGURES)[:2]):
        for column, test in enumerate(found["tests"]):
            panel = panels[row, column]
            for part, colour, marker in zip([*PARTS, ALL], COLOURS, MARKERS, strict=False):
                own = [point for point in points if point["part"] == part]
                if not own:
                    continue
                x = [point["texts" if question == "alone" else "share"] for point in own]
                scores = [point["scores"][test][name] for point in own]
                panel.plot(x, [score["value"] for score in scores], color=colour, marker=marker, label=part)
                low, high = zip(*(score["interval"] for score in scores), strict=True)
                panel.fill_between(x, low, high, color=colour, alpha=0.1, linewidth=0)
            panel.set_title(test if row == 0 else "")
            if column == 0:
                panel.set_ylabel(FIGURES[name].replace(", ", ",\n"))
    for panel in panels[-1]:
        if question == "alone":
            panel.set_xscale("log", base=2)
            most = max(point["texts"] for point in points)
            ticks = [tick for tick in TICKS if tick <= most]
            panel.set_xticks(ticks, [f"{tick:,}" for tick in ticks], minor=False)
            panel.set_xlabel("training texts (log scale)")
        else:
            panel.set_xlabel("share of the part, beside all of the others")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside upper left", ncols=4)
    return drawn


def main() -> int:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=Path, help="folder of the texts of the real rows; else without them")
    parser.add_argument("--batch", default="w8", help="paragraphs that are held out (default w8)")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="default 0.125 0.25 0.5 1")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the order of rows (default {SEED})")
    parser.add_argument("--into", type=Path, default=Path("learning"), help="folder for the files")
    parser.add_argument("--no-pictures", action="store_true", help="without matplotlib")
    options = parser.parse_args()
    console = Console(stderr=True)
    shares = sorted({*options.shares, 1.0})
    if shares[0] <= 0 or shares[-1] > 1:
        parser.error("--shares must lie above 0 and at most at 1")
    try:
        if not options.no_pictures:
            require_matplotlib()
        examples, tests = shipped_examples(), {}
        if options.texts:
            examples += real_examples(options.texts, "train")
            tests["development rows"] = real_examples(options.texts, "dev")
        parts, held_out = split(examples, options.batch, options.seed)
        tests[f"paragraphs of batch {options.batch}"] = held_out
        points = run(parts, tests, shares, console)
    except ClassifierError as error:
        console.print(f"error: {error}", style="red", markup=False)
        return 1
    found = {
        "held_out_batch": options.batch,
        "seed": options.seed,
        "parts": {name: len(part) for name, part in parts.items()},
        "tests": {name: len(rows) for name, rows in tests.items()},
        "points": points,
    }
    options.into.mkdir(parents=True, exist_ok=True)
    (options.into / "learning_curve.json").write_text(json.dumps(found, indent=2) + "\n")
    (options.into / "learning_curve.md").write_text(markdown(found))
    if not options.no_pictures:
        for question in ("alone", "beside"):
            content = draw_with(picture, found, question)
            (options.into / f"learning_curve_{question}.png").write_bytes(content)
    print(markdown(found), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
