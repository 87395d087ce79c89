"""Pictures of an evaluation, as PNG; needs matplotlib (``pip install 'stancewatch[report]'``).

Colours are those of M. Okabe and K. Ito, "Color Universal Design", 2008: the colour-blind tell them apart.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from classifiers.errors import ClassifierError

__all__ = ["COLOURS", "MARKERS", "PicturesError", "draw", "draw_with", "figure", "require_matplotlib"]

WIDTH = 8.3  # inches; 830 pixels of a README's column at 100 to the inch
DPI = 200
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#767676"
COLOURS = (BLUE, RED, GREEN, PURPLE, ORANGE, GREY)
MARKERS = ("o", "s", "^", "D", "v", "P")
COLUMNS = 2
DARK = 0.55  # share of a row from which its cell takes white letters
STYLE = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}


class PicturesError(ClassifierError):
    """Pictures are wanted and cannot be drawn."""


def require_matplotlib() -> Any:
    """The package.

    Raises
    ------
    PicturesError
        When it is not installed; one line with the command that installs it.
    """
    try:
        import matplotlib as found  # noqa: ICN001, PLC0415 - an optional extra
    except ImportError:
        message = (
            "pictures need matplotlib: pip install 'stancewatch[report]' (or leave them out: --no-pictures)"
        )
        raise PicturesError(message) from None
    return found


@contextmanager
def _style() -> Iterator[None]:
    """Our own looks, whatever the user's settings of matplotlib say: the same data gives the same file."""
    matplotlib = require_matplotlib()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def figure(height: float) -> Any:
    """An empty figure of README width and a height in inches."""
    require_matplotlib()
    from matplotlib.figure import Figure  # noqa: PLC0415

    return Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")


def _png(drawn: Any) -> bytes:
    """The file; without the version of the program that wrote it."""
    content = io.BytesIO()
    drawn.savefig(content, format="png", dpi=DPI, metadata={"Software": None})
    return content.getvalue()


def draw(report: dict[str, Any]) -> dict[str, bytes]:
    """All pictures of a report by file name; one that would be empty is left out.

    Parameters
    ----------
    report : dict
        As :func:`classifiers.analysis.analyse` gives it.

    Raises
    ------
    PicturesError
        Without matplotlib.
    """
    wanted: dict[str, tuple[Callable[[dict[str, Any]], Any], object]] = {
        "comparison.png": (_comparison, report["comparison"]),
        "confusion_topics.png": (_confusion_topics, report["topics"]),
        "thresholds.png": (_thresholds, report["thresholds"]),
        "confusion_stance.png": (_confusion_stance, np.any(report["confusion"]["stance"])),
        "reliability.png": (_reliability, report["rows"]),
        "risk_coverage.png": (_risk_coverage, report["risk_curve"]),
    }
    with _style():
        return {name: _png(drawing(report)) for name, (drawing, given) in wanted.items() if given}


def draw_with(drawing: Callable[..., Any], *arguments: Any) -> bytes:
    """A single picture, in the same looks; `drawing` makes a :func:`figure`."""
    with _style():
        return _png(drawing(*arguments))


def _comparison(report: dict[str, Any]) -> Any:
    """Scores of all methods with their intervals."""
    titles = {
        "topics_micro_f1": "Topics\nmicro F1",
        "stance_macro_f1": "Stance, where the model\nfound the topic, macro F1",
        "stance_macro_f1_with_misses": "Stance, missed topics\nas misses, macro F1",
    }
    lines = report["comparison"][::-1]
    drawn = figure(0.42 * len(lines) + 1.2)
    panels = drawn.subplots(1, len(titles), sharey=True)
    for panel, (key, title) in zip(panels, titles.items(), strict=True):
        for y, line in enumerate(lines):
            value, (low, high) = line[key]["value"], line[key]["interval"]
            colour = BLUE if y == len(lines) - 1 else GREY
            panel.barh(y, high - low, left=low, height=0.34, color=colour, alpha=0.45)
            panel.plot(
                [value, value], [y - 0.17, y + 0.17], color=colour, linewidth=2.5, solid_capstyle="butt"
            )
            panel.annotate(
                f"{value:.2f}", (value, y), (0, 9), textcoords="offset points", ha="center", fontsize=9
            )
        panel.set(title=title, xlim=(0, 1), ylim=(-0.5, len(lines) - 0.3), xticks=np.arange(0, 0.9, 0.2))
        panel.set_yticks(range(len(lines)), [textwrap.fill(line["name"], 22) for line in lines])
        panel.grid(visible=False, axis="y")
        panel.tick_params(axis="y", length=0)
    drawn.supxlabel("score, 0 to 1; bands: 95 % bootstrap interval", fontsize=10)
    return drawn


def _confusion_topics(report: dict[str, Any]) -> Any:
    """Texts of each topic: found, missed, wrongly found."""
    confusion = report["confusion"]["topics"]
    names = list(confusion)[::-1]
    drawn = figure(0.5 * len(names) + 1.3)
    panel = drawn.subplots()
    kinds = {
        "found": (BLUE, "rightly found"),
        "missed": (ORANGE, "missed"),
        "wrongly_found": (RED, "wrongly found"),
    }
    left = np.zeros(len(names))
    for kind, (colour, label) in kinds.items():
        counts = np.array([confusion[name][kind] for name in names])
        bars = panel.barh(names, counts, left=left, color=colour, label=label, height=0.62, edgecolor="white")
        letters = "black" if colour == ORANGE else "white"
        wide = max(1.0, 0.025 * sum(sum(confusion[name][k] for k in kinds) for name in names) / len(names))
        panel.bar_label(
            bars,
            [str(count) if count >= wide else "" for count in counts],
            label_type="center",
            color=letters,
        )
        left += counts
    panel.set_xlabel("texts")
    panel.grid(visible=False, axis="y")
    panel.tick_params(axis="y", length=0)
    drawn.legend(loc="outside upper left", ncols=3)
    return drawn


def _confusion_stance(report: dict[str, Any]) -> Any:
    """Share of each true stance by what was found, overall and by topic; counts in the cells."""
    confusion = report["confusion"]
    matrices = {"all topics": confusion["stance"], **confusion["stance_by_topic"]}
    matrices = {name: np.array(matrix) for name, matrix in matrices.items() if np.any(matrix)}
    drawn, panels = _grid(len(matrices), 2.35)
    for panel, (name, matrix) in zip(panels, matrices.items(), strict=False):
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        image = panel.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (y, x), count in np.ndenumerate(matrix):
            colour = "white" if shares[y, x] > DARK else "black"
            panel.text(x, y, str(count), ha="center", va="center", color=colour)
        panel.set(title=name, xlabel="found", ylabel="true")
        panel.set_xticks(range(matrix.shape[1]), confusion["found"])
        panel.set_yticks(range(matrix.shape[0]), confusion["true"])
        panel.tick_params(length=0)
        panel.grid(visible=False)
        panel.spines[:].set_visible(False)
    drawn.colorbar(image, ax=panels, label="share of the true stance", shrink=0.8, aspect=30)
    return drawn


def _reliability(report: dict[str, Any]) -> Any:
    """How often what has a probability is right; counts of each bin below."""
    found = report["reliability"]
    parts = {"stance (decided label)": found["stance"], **found["topics"]}
    parts = {name: part for name, part in parts.items() if part["bins"]}
    rows = -(-len(parts) // COLUMNS)
    drawn = figure(3.5 * rows)
    grid = drawn.subplots(2 * rows, COLUMNS, squeeze=False, gridspec_kw={"height_ratios": [3, 1.1] * rows})
    for i in range(rows * COLUMNS):
        upper, lower = grid[i // COLUMNS * 2, i % COLUMNS], grid[i // COLUMNS * 2 + 1, i % COLUMNS]
        if i >= len(parts):
            upper.remove()
            lower.remove()
            continue
        name, part = list(parts.items())[i]
        _reliability_panel(upper, lower, part["bins"])
        upper.set_title(f"{name}: ECE {part['calibration_error']:.3f}")
    return drawn


def _reliability_panel(upper: Any, lower: Any, bins: Sequence[dict[str, Any]]) -> None:
    confidence = [line["confidence"] for line in bins]
    middle = [(line["low"] + line["high"]) / 2 for line in bins]
    counts = [line["count"] for line in bins]
    upper.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1.2, label="perfect")
    accuracy = np.array([line["accuracy"] for line in bins])
    bounds = np.array([line["interval"] for line in bins]).T
    around = np.maximum(0, [accuracy - bounds[0], bounds[1] - accuracy])
    upper.errorbar(confidence, accuracy, around, fmt="o", color=BLUE, elinewidth=1.2, label="measured, 95 %")
    upper.set(xlim=(0, 1), ylim=(-0.03, 1.03), ylabel="share right", xticks=np.arange(0, 1.1, 0.2))
    upper.tick_params(labelbottom=False)
    upper.legend(loc="lower right", fontsize=9)
    bars = lower.bar(middle, counts, width=0.09, color=BLUE)
    lower.bar_label(bars, fontsize=8, padding=1)
    lower.set_yscale("symlog")
    lower.set(xlim=(0, 1), ylabel="count\n(log)", xlabel="probability", xticks=np.arange(0, 1.1, 0.2))
    lower.set_ylim(0, 12 * max(counts))
    lower.set_yticks([])
    lower.set_yticks([], minor=True)
    lower.grid(visible=False)


def _risk_coverage(report: dict[str, Any]) -> Any:
    """Share wrong of the stances that are kept, most confident first."""
    curve = report["risk_curve"]
    coverage = [0.0, *(point["coverage"] for point in curve)]
    risk = [curve[0]["risk"], *(point["risk"] for point in curve)]
    drawn = figure(3.6)
    panel = drawn.subplots()
    panel.plot(coverage, risk, color=BLUE, label=f"kept by confidence (area {report['risk_curve_area']:.3f})")
    panel.axhline(risk[-1], color=GREY, linestyle="--", linewidth=1.2, label="kept by chance")
    ideal = np.maximum(0, np.array(coverage) - (1 - risk[-1])) / np.maximum(coverage, 1e-9)
    panel.plot(coverage, ideal, color=GREEN, linestyle=":", label="ideal: all wrong ones withheld first")
    for line in report["stance_risk_coverage"]:
        if line["coverage"] < 1:
            place = (line["coverage"], 1 - line["accuracy"])
            panel.plot(*place, "o", color=BLUE)
            panel.annotate(
                f"confidence ≥ {line['threshold']:.1f}",
                place,
                (-4, 6),
                textcoords="offset points",
                ha="right",
                fontsize=9,
            )
    panel.set(xlim=(0, 1), xlabel="coverage: share of stances kept", ylabel="risk: share wrong of these")
    panel.set_ylim(0, max(0.05, *risk, risk[-1] * 1.1) * 1.3)
    panel.legend(loc="upper left", fontsize=9)
    return drawn


def _thresholds(report: dict[str, Any]) -> Any:
    """Precision, recall and F1 of each topic by threshold."""
    drawn, panels = _grid(len(report["thresholds"]), 2.7, columns=3)
    looks = {"precision": (BLUE, "-"), "recall": (RED, "--"), "f1": (GREEN, "-.")}
    for panel, (name, part) in zip(panels, report["thresholds"].items(), strict=False):
        for key, (colour, dashes) in looks.items():
            points = [(p["threshold"], p[key]) for p in part["curve"] if p[key] is not None]
            if points:
                panel.plot(*zip(*points, strict=True), dashes, color=colour, label=key.replace("f1", "F1"))
        panel.axvline(part["in_force"], color="black", linewidth=1, label="in force")
        panel.set(title=f"{name}\nin force: {part['in_force']:.2f}", xlim=(0, 1), ylim=(0, 1.03))
        panel.set(xlabel="threshold (probability)", ylabel="score")
    handles, labels = panels[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside upper left", ncols=4)
    return drawn


def _grid(count: int, height: float, columns: int = COLUMNS) -> tuple[Any, list[Any]]:
    """Figure with so many panels of a height in inches each."""
    rows = -(-count // columns)
    drawn = figure(height * rows + 0.4)
    panels = drawn.subplots(rows, min(columns, count), squeeze=False).ravel().tolist()
    for panel in panels[count:]:
        panel.remove()
    return drawn, panels[:count]
