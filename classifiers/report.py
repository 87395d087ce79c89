"""An evaluation as Markdown; a pure function of what :func:`classifiers.analysis.analyse` returns."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

__all__ = ["markdown"]

IDS_MAX = 8
HOW_TO_READ = (
    "All figures but counts are 0 to 1. Rows are named by their id, or their number where they have none;"
    " texts are not quoted."
)
METHODS = (
    "Stance where the topic was found: where *the model* found it, so that every method is asked the same;"
    " with misses: every method by the topics that it found itself. Most frequent: the most frequent topic"
    " and stance of these very rows, for every text. Rules: the taxonomy's strong terms, and the sum of the"
    " polarities of lexicon and frames. TF-IDF + linear SVM: words and word pairs, default settings, trained"
    " on the model's own training texts."
)
CALIBRATION = (
    "A stance of confidence 0.8 should be right 8 times in 10; a topic of probability 0.8 should be true of"
    " 8 texts in 10 (every text counts for every topic, most of them near 0). The calibration error (ECE) is"
    " the mean distance, weighted by the counts."
)
FIGURES = {
    "topics_micro_f1": "topics, micro F1",
    "stance_macro_f1": "stance where the topic was found, macro F1",
    "stance_macro_f1_with_misses": "stance with missed topics as misses, macro F1",
}


def markdown(report: dict[str, Any], pictures: Collection[str] = ()) -> str:
    """Report for people.

    Parameters
    ----------
    report : dict
    pictures : collection of str
        Names of the picture files that lie beside it.

    Returns
    -------
    str
        Markdown with tables as GitHub shows them; ends with a line break.
    """
    parts = [
        _scores(report),
        _comparison(report),
        _topics(report),
        _stances(report),
        _calibration(report),
        _errors(report["errors"]),
    ]
    lines: list[str] = []
    for title, picture, body in parts:
        lines += ["", f"## {title}", "", *body]
        if picture in pictures:
            lines += ["", f"![{title}]({picture})"]
        if title == "Topics" and "thresholds.png" in pictures:
            lines += ["", "![Precision, recall and F1 by threshold](thresholds.png)"]
        if title == "Calibration" and "risk_coverage.png" in pictures:
            lines += ["", "![Risk and coverage](risk_coverage.png)"]
    return "\n".join([f"# Evaluation of {_cell(report['model'])}", *lines]) + "\n"


Section = tuple[str, str, list[str]]


def _scores(report: dict[str, Any]) -> Section:
    intervals = report["intervals"]
    topical = sum(line["rows"] for line in report["errors"]["by_combination"] if line["truth"] != "off topic")
    facts = f"{report['rows']:,} texts, {topical:,} of them with a topic."
    method = f"Intervals hold 95 % of {intervals['resamples']:,} bootstrap resamples of the texts"
    body = [f"{facts} {method} (seed {intervals['seed']}). {HOW_TO_READ}"]
    if report["rows_seen_in_training"]:
        body += [
            "",
            f"**{report['rows_seen_in_training']:,} of the texts were trained on: figures flatter.**",
        ]
    rows = [[name, _number(report[key]), _range(intervals[key])] for key, name in FIGURES.items()]
    rows.append(["stance, calibration error (ECE)", _number(report["stance_calibration_error"]), ""])
    rows.append(["stance, area under the risk-coverage curve", _number(report["risk_curve_area"]), ""])
    return "Scores", "", [*body, "", *_table(["figure", "value", "95 % interval"], rows)]


def _comparison(report: dict[str, Any]) -> Section:
    table = [
        [
            line["name"],
            *(f"{_number(line[key]['value'])} ({_range(line[key]['interval'])})" for key in FIGURES),
        ]
        for line in report["comparison"]
    ]
    leads = [
        [
            line["name"],
            *(
                f"{line[key]['model_minus']['value']:+.3f}"
                f" ({_range(line[key]['model_minus']['interval'], signed=True)})"
                for key in FIGURES
            ),
        ]
        for line in report["comparison"][1:]
    ]
    body = _table(["method", *FIGURES.values()], table)
    body += [
        "",
        "How much the model is ahead, on the same resamples (where the interval holds 0, no lead is shown):",
    ]
    body += ["", *_table(["ahead of", *FIGURES.values()], leads)]
    body += ["", METHODS]
    if report["svm_left_out"]:
        body += ["", f"TF-IDF + linear SVM is left out: {_cell(report['svm_left_out'])}."]
    return "Compared with simpler methods", "comparison.png", body


def _topics(report: dict[str, Any]) -> Section:
    rows = []
    for name, scores in report["topics"].items():
        counts = report["confusion"]["topics"][name]
        threshold = report["thresholds"].get(name, {}).get("in_force")
        figures = [_number(scores[key]) for key in ("precision", "recall", "f1")]
        tallies = [counts[key] for key in ("found", "missed", "wrongly_found", "left_out")]
        rows.append([name, *figures, scores["support"], *tallies, _number(threshold)])
    heads = ["topic", "precision", "recall", "F1", "texts", "found", "missed", "wrongly found"]
    return "Topics", "confusion_topics.png", _table([*heads, "rightly left out", "threshold"], rows)


def _stances(report: dict[str, Any]) -> Section:
    confusion = report["confusion"]
    body = _table(
        ["stance", "F1", "texts where the topic was found"],
        [[name, _number(row["f1"]), row["support"]] for name, row in report["stance"].items()],
    )
    body += ["", "True stance (rows) by what was found (columns):", ""]
    rows = []
    for topic, matrix in {"all": confusion["stance"], **confusion["stance_by_topic"]}.items():
        rows += [[topic, true, *line] for true, line in zip(confusion["true"], matrix, strict=True)]
    return "Stance", "confusion_stance.png", [*body, *_table(["topic", "true", *confusion["found"]], rows)]


def _calibration(report: dict[str, Any]) -> Section:
    found = report["reliability"]
    body = [CALIBRATION, ""]
    rows = []
    for name, part in {"stance": found["stance"], **found["topics"]}.items():
        rows += [
            [
                name,
                f"{line['low']:.1f} to {line['high']:.1f}",
                line["count"],
                _number(line["confidence"]),
                _number(line["accuracy"]),
                _range(line["interval"]),
            ]
            for line in part["bins"]
        ]
        rows.append(
            [
                name,
                "ECE",
                sum(line["count"] for line in part["bins"]),
                "",
                _number(part["calibration_error"]),
                "",
            ]
        )
    heads = ["what", "bin", "count", "mean probability", "share right", "95 % interval"]
    body += _table(heads, rows)
    body += ["", "What is kept when stances below a confidence are withheld:", ""]
    kept = [
        [f"{r['threshold']:.1f}", _number(r["coverage"]), _number(r["accuracy"])]
        for r in report["stance_risk_coverage"]
    ]
    return (
        "Calibration",
        "reliability.png",
        [*body, *_table(["confidence at least", "share kept", "share right"], kept)],
    )


def _errors(errors: dict[str, Any]) -> Section:
    body = ["### Missed topics", ""]
    body += _table(
        ["topic", "texts", "missed", "rows"],
        [[e["topic"], e["support"], e["count"], _ids(e["ids"])] for e in errors["missed_topics"]],
    )
    body += ["", "### By true combination of topics", ""]
    body += _table(
        [
            "true topics",
            "texts",
            "all right",
            "a topic missed",
            "a topic wrongly found",
            "rows with a missed topic",
        ],
        [
            [e["truth"], e["rows"], e["right"], e["missed"], e["wrongly_found"], _ids(e["ids_missed"])]
            for e in errors["by_combination"]
        ],
    )
    body += ["", "### Wrongly found topics", ""]
    body += _table(
        ["found", "true topics", "texts", "rows"],
        [[e["topic"], e["truth"], e["count"], _ids(e["ids"])] for e in errors["wrong_topics"]],
    )
    body += ["", "### Wrong stances of found topics", ""]
    body += _table(
        ["kind", "true", "found", "topic", "wrong", "of", "rows"],
        [
            [e["kind"], e["truth"], e["found"], e["topic"], e["count"], e["support"], _ids(e["ids"])]
            for e in errors["stance"]
        ],
    )
    for title, key, head in (
        ("By source (real rows)", "by_source", "source"),
        ("By length", "by_length", "words"),
    ):
        if errors[key]:
            body += ["", f"### {title}", "", *_groups(head, errors[key])]
    return "Errors by kind", "", body


def _groups(head: str, lines: Sequence[dict[str, Any]]) -> list[str]:
    heads = [head, "texts", "topics", "missed", "wrongly found", "micro F1"]
    return _table(
        [*heads, "stances", "wrong", "flips", "accuracy"],
        [
            [
                line["group"],
                *(line[key] for key in ("rows", "topics", "missed", "wrongly_found")),
                _number(line["topics_micro_f1"]),
                *(line[key] for key in ("stances", "wrong_stances", "flips")),
                _number(line["stance_accuracy"]),
            ]
            for line in lines
        ],
    )


def _ids(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - IDS_MAX} more" if len(ids) > IDS_MAX else ""
    return ", ".join(ids[:IDS_MAX]) + more


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _range(bounds: Sequence[float] | None, *, signed: bool = False) -> str:
    if bounds is None:
        return "–"
    return " to ".join(f"{bound:+.3f}" if signed else f"{bound:.3f}" for bound in bounds)


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a table; columns that hold figures alone are set to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    if not cells:
        return ["None."]
    aligned = ["---:" if _is_figures([row[i] for row in cells]) else "---" for i in range(len(heads))]
    return list(_joined([list(heads), aligned, *cells]))


def _joined(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _is_figures(column: Sequence[str]) -> bool:
    return all(not cell or cell == "–" or cell.replace(".", "").isdigit() for cell in column)


def _cell(value: object) -> str:
    """Text that stays in its cell: ids come from users' files."""
    return " ".join(str(value).split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
