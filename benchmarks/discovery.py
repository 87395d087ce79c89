"""Emerging topics on real headlines: parameters, identity over time, and a theme planted into the stream.

    python -m benchmarks.discovery --data FOLDER [--only parameters|identity|planted]

FOLDER holds ``technews-2023`` (texts with dates) and, for the large windows of the parameters, ``ag-news``
and ``newsmtsc``, each as gzipped JSON lines; nothing of it is kept. The planted theme is ours
(``planted_theme.txt``); the rest of each stream is real.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.discovery_data import DATED, WINDOW_DAYS, dated, day
from benchmarks.discovery_identity import identity
from benchmarks.discovery_parameters import parameters
from classifiers.discovery.pipeline import refit
from classifiers.discovery.registry import Registry
from classifiers.discovery.signals import DAY, SignalOptions
from classifiers.discovery.window import Document, slide

THEME = Path(__file__).with_name("planted_theme.txt")
ENDS = ("2023-08-15", "2023-08-28", "2023-09-10", "2023-09-23", "2023-10-06", "2023-10-19")


def planted(documents: Sequence[Document], rates: Sequence[float], days: int, end: float) -> None:
    """A theme that begins on day 5 at so many headlines a day; and a wire story that forty outlets print."""
    theme = THEME.read_text(encoding="utf-8").split("\n")[:-1]
    begin = end - days * DAY
    onset = begin + 5 * DAY
    print(f"\n## planted theme: {days} days of real headlines, a look a day, window {WINDOW_DAYS} days\n")
    print(f"First look on {_date(begin)}, the theme from {_date(onset)} on.\n")
    print("| a day | share | weak after (days) | strong after | its ids | others strong, a day | trap |")
    print("|---|---|---|---|---|---|---|")
    for rate in rates:
        extra = _theme(theme, rate, onset) + _wire(onset + DAY) if rate else _wire(onset + DAY)
        _plant(documents, extra, rate, (begin, onset, days))
    _plant(_shuffled(documents, begin, days), [], -1.0, (begin, onset, days))


def _plant(
    documents: Sequence[Document], extra: Sequence[Document], rate: float, when: tuple[float, float, int]
) -> None:
    begin, onset, days = when
    stream = sorted([*documents, *extra], key=lambda d: (d.time, d.id))
    registry, first, names = Registry(), dict[str, float](), set[str]()
    others: Counter[str] = Counter()
    trapped, sizes = "no", []
    for look in range(days + 1):
        now = begin + look * DAY
        window = slide(stream, end=now, hours=24 * WINDOW_DAYS, count=5000)
        result = refit(registry, window, now, signals=SignalOptions(recent_hours=48))
        sizes.append(len(window) / WINDOW_DAYS)
        held: dict[str, list[str]] = {}
        for id_, name in result.assigned.items():
            held.setdefault(name, []).append(id_)
        for topic in registry.living:
            own = np.mean([id_.startswith("planted") for id_ in held[topic.id]])
            wire = np.mean([id_.startswith("wire") for id_ in held[topic.id]])
            if own > 0.5:  # noqa: PLR2004 - most of it
                names.add(topic.id)
                for level in ("weak", "strong"):
                    if topic.signal in {level, "strong"}:
                        first.setdefault(level, (now - onset) / DAY)
            elif look > 0 and topic.signal in {"weak", "strong"}:
                others[topic.signal] += 1
            if wire > 0.1 and topic.signal in {"weak", "strong"}:  # noqa: PLR2004
                trapped = topic.signal
        print(f"rate {rate}: day {look} of {days}", file=sys.stderr, flush=True)
    what = "dates shuffled, none planted" if rate < 0 else f"{rate:g}"
    share = max(rate, 0) / np.mean(sizes)
    after = [f"{first[level]:.0f}" if level in first else "-" for level in ("weak", "strong")]
    print(
        f"| {what} | {share:.0%} | {after[0]} | {after[1]} | {len(names)}"
        f" | {others['strong'] / days:.2f} (weak {others['weak'] / days:.2f}) | {trapped} |",
        flush=True,
    )


def _theme(theme: Sequence[str], rate: float, onset: float) -> list[Document]:
    order = np.random.default_rng(0).permutation(len(theme))
    return [
        Document(f"planted-{at}", onset + (n + 0.5) / rate * DAY, theme[at], f"outlet{n % 7}")
        for n, at in enumerate(order)
    ]


def _wire(onset: float) -> list[Document]:
    story = (
        "Ferry with 300 aboard runs aground off the northern cape, all passengers brought to safety by tugs"
    )
    forms = ("{}", "{} (agency)", "Update: {}", "{} - live", "World: {}")
    return [
        Document(f"wire-{n}", onset + n * 1800.0, forms[n % 5].format(story), f"paper{n}") for n in range(40)
    ]


def _shuffled(documents: Sequence[Document], begin: float, days: int) -> list[Document]:
    """The same headlines at each other's dates: nothing grows but by chance."""
    inside = [d for d in documents if begin - WINDOW_DAYS * DAY < d.time <= begin + (days + 2) * DAY]
    times = np.random.default_rng(0).permutation([d.time for d in inside])
    return [Document(d.id, float(t), d.text, d.source) for d, t in zip(inside, times, strict=True)]


def _date(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).date().isoformat()


def _arguments() -> Any:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help=f"folder of {DATED} and the other sets")
    parser.add_argument("--only", choices=("parameters", "identity", "planted"))
    sizes = [5000, 20000, 50000]
    parser.add_argument("--sizes", type=int, nargs="*", default=sizes, help="parameters: windows")
    parser.add_argument(
        "--seconds", type=float, default=900, help="parameters: the longest that a row may take"
    )
    parser.add_argument("--before", default="2023-08-01", help="parameters: end of the window of 5,000")
    parser.add_argument("--ends", nargs="*", default=ENDS, help="identity: ends of the chains' first windows")
    parser.add_argument("--steps", type=int, default=7, help="identity: windows of a chain")
    parser.add_argument("--jobs", type=int, default=2, help="identity: chains at the same time")
    parser.add_argument("--days", type=int, default=14, help="planted: days of the stream")
    parser.add_argument("--rates", type=float, nargs="*", default=[0, 1, 2, 4, 8], help="planted: a day")
    parser.add_argument("--until", default="2023-10-30", help="planted: day of the last look")
    return parser.parse_args()


def main() -> None:
    """Print tables of Markdown."""
    arguments = _arguments()
    documents = dated(arguments.data)
    if not documents:
        sys.exit(f"{arguments.data / DATED}: no *.jsonl.gz of headlines")
    if arguments.only in (None, "parameters"):
        parameters(arguments.data, arguments.before, arguments.sizes, arguments.seconds)
    if arguments.only in (None, "identity"):
        identity(documents, arguments.ends, arguments.steps, arguments.jobs)
    if arguments.only in (None, "planted"):
        planted(documents, arguments.rates, arguments.days, day(arguments.until))


if __name__ == "__main__":
    main()
