"""Panels as pictures, near enough to Grafana's to tell what a dashboard shows."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import dates
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from monitoring.grafana.parts import STANCE_COLOURS

__all__ = ["draw"]

GROUND, CARD, EDGE, TEXT, DIM = "#111217", "#181b1f", "#2c2f36", "#d5d7de", "#8e939e"
TOPIC_COLOURS = ("#73BF69", "#F2CC0C", "#8AB8FF", "#FF9830", "#B877D9", "#5794F2")
CELL_WIDTH, CELL_HEIGHT, DOTS = 0.5, 0.30, 120  # inches, dots per inch
GAP = 0.05
HEAD = 1.5  # lines of the grid above it, for the title
CHARACTER = 0.0555  # inches of one character at size 7

Brought = Mapping[str, Any]


def draw(board: Mapping[str, Any], results: Mapping[str, Any], path: Path) -> None:
    """Every panel that brought data, in its place on the grid; rows that have none are left out."""
    shown = _with_data(board["panels"], results["panels"])
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in shown) + HEAD + 1
    figure = Figure(figsize=(24 * CELL_WIDTH, height * CELL_HEIGHT), facecolor=GROUND, dpi=DOTS)
    page = _page(figure, height)
    page.text(0.15, 0.26, board["title"], color=TEXT, fontsize=14, va="center", weight="bold")
    until = datetime.fromtimestamp(results["now"], UTC)
    page.text(
        11.85,
        0.26,
        f"Topic: All     Window: 24h     Last 7 days to {until:%Y-%m-%d %H:%M} UTC",
        color=DIM,
        fontsize=8.5,
        va="center",
        ha="right",
    )
    for panel in shown:
        place = panel["gridPos"]
        left, top = place["x"] * CELL_WIDTH, (place["y"] + HEAD) * CELL_HEIGHT
        wide, high = place["w"] * CELL_WIDTH, place["h"] * CELL_HEIGHT
        title = panel["title"].replace("$window", "24h")
        if panel["type"] == "row":
            page.text(left + 0.1, top + high / 2, f"\u25be  {title}", color=TEXT, fontsize=9.5, va="center")
            continue
        page.add_patch(
            FancyBboxPatch(
                (left + GAP, top + GAP),
                wide - 2 * GAP,
                high - 2 * GAP,
                boxstyle="round,pad=0,rounding_size=0.04",
                facecolor=CARD,
                edgecolor=EDGE,
                linewidth=0.8,
            )
        )
        page.text(left + 0.15, top + 0.2, title, color=TEXT, fontsize=8.5, va="center", weight="bold")
        DRAWN[panel["type"]](
            figure, page, panel, results["panels"][str(panel["id"])], (left, top + 0.32, wide, high - 0.32)
        )
    page.text(
        11.85,
        height * CELL_HEIGHT - 0.12,
        "Drawn from the dashboard's queries against Prometheus and the API; not a Grafana screenshot.",
        color=DIM,
        fontsize=7,
        va="center",
        ha="right",
    )
    figure.savefig(path, facecolor=GROUND)
    _shrink(path)


def _with_data(found: Sequence[dict[str, Any]], brought: Mapping[str, Brought]) -> list[dict[str, Any]]:
    shown = [panel for panel in found if panel["type"] == "row" or any(brought[str(panel["id"])].values())]
    return [
        panel
        for place, panel in enumerate(shown)
        if panel["type"] != "row" or (place + 1 < len(shown) and shown[place + 1]["type"] != "row")
    ]


def _page(figure: Figure, height: float) -> Axes:
    """The whole picture in inches, from the top left corner."""
    page = figure.add_axes((0, 0, 1, 1))
    page.set_xlim(0, 24 * CELL_WIDTH)
    page.set_ylim(height * CELL_HEIGHT, 0)
    page.axis("off")
    return page


Box = tuple[float, float, float, float]


def _axes(figure: Figure, box: Box, margins: tuple[float, float, float, float]) -> Axes:
    """Axes inside a panel; margins left, top, right, bottom in inches."""
    wide, high = figure.get_size_inches()
    left, top, width, height = box
    a, b, c, d = margins
    axes = figure.add_axes(
        (
            (left + a) / wide,
            1 - (top + height - d) / high,
            (width - a - c) / wide,
            (height - b - d) / high,
        )
    )
    axes.set_facecolor("none")
    axes.tick_params(colors=DIM, labelsize=7, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.grid(color=EDGE, linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def _name(series: Mapping[str, Any]) -> str:
    labels = series["metric"]
    return str(labels.get("stance") or labels.get("topic") or labels.get("signal") or "")


def _colour(name: str, place: int) -> str:
    return STANCE_COLOURS.get(name, TOPIC_COLOURS[place % len(TOPIC_COLOURS)])


def _points(series: Mapping[str, Any]) -> tuple[Any, Any]:
    """Moments and values; a gap in the points is a gap in the line."""
    pairs = [(float(moment), float(value)) for moment, value in series["values"]]
    step = min((after[0] - before[0] for before, after in pairwise(pairs)), default=0)
    found = pairs[:1]
    for before, after in pairwise(pairs):
        if after[0] - before[0] > 1.5 * step:
            found.append((before[0] + step, math.nan))
        found.append(after)
    return [datetime.fromtimestamp(moment, UTC) for moment, _ in found], np.array(
        [value for _, value in found]
    )


def _value(value: float, defaults: Mapping[str, Any]) -> str:
    decimals = int(defaults.get("decimals") or 0)
    if defaults["unit"] == "percentunit":
        return f"{value * 100:.{decimals}f} %"
    if defaults["unit"] == "none":
        return f"{value:.{decimals}f}"
    return f"{value:,.{decimals}f}".replace(",", " ")


def _threshold(value: float, steps: Sequence[Mapping[str, Any]]) -> str:
    colour = TEXT
    for step in steps:
        if step.get("value") is None or value >= step["value"]:
            colour = step["color"]
    return str(colour)


def _stat(figure: Figure, page: Axes, panel: dict[str, Any], brought: Brought, box: Box) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    found = brought["A"]
    left, top, wide, high = box
    each = (wide - 0.2) / len(found)
    for place, series in enumerate(found):
        moments, values = _points(series)
        colour = defaults["color"].get("fixedColor") or _threshold(
            values[-1], defaults["thresholds"]["steps"]
        )
        x = left + 0.1 + place * each
        axes = _axes(figure, (x, top + high * 0.45, each, high * 0.5), (0.06, 0, 0.06, 0.02))
        axes.axis("off")
        floor = min(0.0, np.nanmin(values))
        axes.plot(moments, values, color=colour, linewidth=1)
        axes.fill_between(moments, floor, values, color=colour, alpha=0.18)
        page.text(x + 0.08, top + 0.12, _name(series), color=TEXT, fontsize=7.5, va="center")
        page.text(
            x + 0.08,
            top + 0.48,
            _value(values[-1], defaults),
            color=colour,
            fontsize=19,
            va="center",
            weight="bold",
        )


def _timeseries(figure: Figure, page: Axes, panel: dict[str, Any], brought: Brought, box: Box) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    stacked = (defaults.get("custom") or {}).get("stacking", {}).get("mode") == "normal"
    left, top, _, high = box
    axes = _axes(figure, box, (0.5, 0.08, 0.2, 0.48))
    found = sorted(brought["A"], key=_name)
    if stacked:
        order = [name for name in STANCE_COLOURS if name in {_name(series) for series in found}]
        by_name = {_name(series): series for series in found}
        moments, _ = _points(by_name[order[0]])
        layers = [_points(by_name[name])[1] for name in order]
        axes.stackplot(
            moments, *layers, colors=[STANCE_COLOURS[name] for name in order], alpha=0.75, linewidth=0
        )
        found = [by_name[name] for name in order]
    else:
        for place, series in enumerate(found):
            axes.plot(*_points(series), color=_colour(_name(series), place), linewidth=1.5)
    if defaults.get("min") is not None:
        axes.set_ylim(bottom=defaults["min"])
    if defaults.get("max") is not None:
        axes.set_ylim(top=defaults["max"])
    if defaults.get("min") == -1:
        axes.axhline(0, color=DIM, linewidth=1)
        axes.set_yticks([-1, -0.5, 0, 0.5, 1])
        axes.set_ylim(-1.05, 1.05)  # a line at the very end is as wide as any other
        behind = {"facecolor": CARD, "edgecolor": "none", "alpha": 0.8, "pad": 1}
        for y, side, align in ((0.94, "favor", "top"), (0.06, "against", "bottom")):
            named = axes.text(0.008, y, side, color=DIM, fontsize=6.5, transform=axes.transAxes, va=align)
            named.set(bbox=behind, zorder=5)
    axes.yaxis.set_major_formatter(
        lambda value, _: _value(value, {**defaults, "decimals": 1 if defaults["unit"] == "none" else 0})
    )
    _days(axes)
    x = left + 0.3
    for place, series in enumerate(found):
        name = _name(series)
        label = f"{name}  {_value(_points(series)[1][-1], defaults)}"
        page.plot([x, x + 0.14], [top + high - 0.17] * 2, color=_colour(name, place), linewidth=3)
        page.text(x + 0.2, top + high - 0.165, label, color=TEXT, fontsize=7, va="center")
        x += 0.55 + len(label) * 0.065


def _days(axes: Axes) -> None:
    axes.margins(x=0)
    axes.tick_params(axis="x", pad=5)  # clear of the lowest figure of the other axis
    axes.xaxis.set_major_locator(dates.DayLocator())
    axes.xaxis.set_major_formatter(dates.DateFormatter("%a %d"))


def _barchart(figure: Figure, page: Axes, _panel: dict[str, Any], brought: Brought, box: Box) -> None:
    left, top, _, high = box
    counts: dict[str, dict[str, float]] = {}
    for row in brought["A"]:
        counts.setdefault(row["metric"]["topic"], {})[row["metric"]["stance"]] = float(row["value"][1])
    topics = sorted(counts, reverse=True)
    axes = _axes(figure, box, (1.15, 0.1, 0.25, 0.5))
    start = np.zeros(len(topics))
    totals = np.array([sum(counts[topic].values()) for topic in topics])
    for stance, colour in STANCE_COLOURS.items():
        numbers = np.array([counts[topic].get(stance, 0) for topic in topics])
        share = numbers / totals
        axes.barh(topics, share, left=start, color=colour, height=0.26, edgecolor=CARD)
        for place, (number, part) in enumerate(zip(numbers, share, strict=True)):
            figures = f"{number:.0f}"
            if part > 0.018 * len(figures):  # not narrower than they are
                middle = start[place] + part / 2
                axes.text(middle, place, figures, ha="center", va="center", fontsize=7.5, color="#111217")
        start += share
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value * 100:.0f} %")
    axes.tick_params(axis="y", labelsize=8, labelcolor=TEXT)
    x = left + 1.15
    for stance, colour in STANCE_COLOURS.items():
        page.plot([x, x + 0.14], [top + high - 0.17] * 2, color=colour, linewidth=4)
        page.text(x + 0.2, top + high - 0.165, stance, color=TEXT, fontsize=7, va="center")
        x += 0.95


def _heatmap(figure: Figure, _page: Axes, _panel: dict[str, Any], brought: Brought, box: Box) -> None:
    found = sorted(brought["A"], key=_name)
    first = min(float(series["values"][0][0]) for series in found)
    last = max(float(series["values"][-1][0]) for series in found)
    grid = np.zeros((len(found), int((last - first) // 3600) + 1))
    for row, series in enumerate(found):
        for moment, value in series["values"]:
            grid[row, int((float(moment) - first) // 3600)] = float(value)
    axes = _axes(figure, box, (1.15, 0.08, 0.75, 0.3))
    axes.grid(visible=False)
    # A point stands for the hour before it.
    edges = [datetime.fromtimestamp(first + (place - 1) * 3600, UTC) for place in range(grid.shape[1] + 1)]
    mesh = axes.pcolormesh(
        dates.date2num(edges), np.arange(len(found) + 1), grid, cmap="Blues_r", edgecolors=CARD, linewidth=0.3
    )
    mesh.set_clim(0, np.quantile(grid, 0.995))
    axes.xaxis_date()
    axes.set_yticks(np.arange(len(found)) + 0.5, [_name(series) for series in found])
    axes.tick_params(axis="y", labelsize=8, labelcolor=TEXT)
    _days(axes)
    wide, high = figure.get_size_inches()
    left, top, width, height = box
    bar = figure.add_axes(
        ((left + width - 0.6) / wide, 1 - (top + height - 0.3) / high, 0.12 / wide, (height - 0.4) / high)
    )
    scale = figure.colorbar(mesh, cax=bar)
    scale.outline.set_visible(False)
    bar.tick_params(colors=DIM, labelsize=7, length=0)


def _rows(panel: dict[str, Any], brought: Brought) -> list[dict[str, Any]]:
    """Rows of a table after merging and renaming, as the panel's transformations say."""
    organise = [item["options"] for item in panel.get("transformations", []) if item["id"] == "organize"]
    if not organise:
        return list(brought["A"])
    merged: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
    for letter, series in brought.items():
        for row in series:
            labels = {key: value for key, value in row["metric"].items() if key not in {"__name__", "window"}}
            name = f"Value #{letter}" if len(brought) > 1 else "Value"
            merged.setdefault(tuple(sorted(labels.items())), dict(labels))[name] = float(row["value"][1])
    names = organise[0]["renameByName"]
    return [{shown: row.get(name) for name, shown in names.items()} for row in merged.values()]


def _table(_figure: Figure, page: Axes, panel: dict[str, Any], brought: Brought, box: Box) -> None:
    settings = {
        item["matcher"]["options"]: {setting["id"]: setting["value"] for setting in item["properties"]}
        for item in panel["fieldConfig"]["overrides"]
    }
    rows = _rows(panel, brought)
    names = [name for name in rows[0] if not settings.get(name, {}).get("custom.hideFrom", {}).get("viz")]
    left, top, wide, high = box
    widths = _widths(names, settings, wide - 0.3)
    x = {name: left + 0.15 + sum(widths[:place]) for place, name in enumerate(names)}
    for name in names:
        page.text(x[name], top + 0.1, name, color="#6E9FFF", fontsize=7.5, va="center")
    y = top + 0.24
    for row in rows:
        lines = {
            name: textwrap.wrap(
                _cell(row[name], settings.get(name, {}), panel["fieldConfig"]["defaults"]),
                max(4, int((width - 0.08) / CHARACTER)),
            )
            for name, width in zip(names, widths, strict=True)
        }
        wrapped = {
            name: text if settings.get(name, {}).get("custom.wrapText") else _cut(text)
            for name, text in lines.items()
        }
        tall = 0.13 * max(1, *(len(text) for text in wrapped.values())) + 0.11
        if y + tall > top + high - 0.05:
            break
        page.plot([left + 0.1, left + wide - 0.1], [y, y], color=EDGE, linewidth=0.6)
        for name in names:
            page.text(
                x[name],
                y + 0.075,
                "\n".join(wrapped[name]),
                color=_cell_colour(row[name], settings.get(name, {})),
                fontsize=7,
                va="top",
                linespacing=1.25,
            )
        y += tall


def _widths(names: Sequence[str], settings: Mapping[str, Any], wide: float) -> list[float]:
    fixed = {name: settings.get(name, {}).get("custom.width") for name in names}
    inches = {name: (pixels or 0) / 125 for name, pixels in fixed.items()}
    free = [name for name in names if not fixed[name]]
    wishes = {name: settings.get(name, {}).get("custom.minWidth", 100) for name in free}
    rest = wide - sum(inches.values())
    return [inches[name] if fixed[name] else rest * wishes[name] / sum(wishes.values()) for name in names]


def _cut(lines: list[str]) -> list[str]:
    return lines if len(lines) < 2 else [lines[0].rstrip()[:-1] + "\u2026"]  # noqa: PLR2004


def _cell(value: Any, settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    if value is None:
        return ""
    if settings.get("unit") == "dateTimeAsIso":
        return f"{datetime.fromisoformat(value):%Y-%m-%d %H:%M:%S}"
    if isinstance(value, float):
        return _value(value, {**defaults, **settings})
    return str(value)


def _cell_colour(value: Any, settings: Mapping[str, Any]) -> str:
    for mapping in settings.get("mappings", []):
        if value in mapping["options"]:
            return str(mapping["options"][value]["color"])
    if settings.get("custom.cellOptions", {}).get("type") == "color-text" and isinstance(value, float):
        return _threshold(value, settings["thresholds"]["steps"])
    return "#6E9FFF" if settings.get("links") else TEXT


def _shrink(path: Path) -> None:
    """A palette of 256 colours: a third of the size, no visible loss."""
    from PIL import Image  # noqa: PLC0415 - a dependency of matplotlib

    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


DRAWN: Mapping[str, Callable[[Figure, Axes, dict[str, Any], Brought, Box], None]] = {
    "stat": _stat,
    "timeseries": _timeseries,
    "barchart": _barchart,
    "heatmap": _heatmap,
    "table": _table,
}
