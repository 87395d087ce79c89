"""Articles of about 500 words per second of the classifier alone, on one core.

Two mixes, made of paragraphs of the seeds: articles in which every paragraph comes from an article about the
topics, and one such article among nineteen that are made of off-topic articles alone. Each is timed with and
without the screening, in the same run; five rounds of other articles, of which the median is shown, and the
least and the most.

The off-topic seeds are traps that nearly all pass the gate: the worst case. With ``--texts`` the off-topic
articles are single stories of general news instead (rows of technews-2023, each repeated to length).

Command: ``.venv/bin/python -m benchmarks.classify [--texts FOLDER] [--accurate]``
"""

from __future__ import annotations

import argparse
import csv
import gc
import gzip
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median

from threadpoolctl import threadpool_limits

from classifiers.assessor import Assessor
from classifiers.storage import load_shipped
from classifiers.text import clean_feed
from stream.sources import read_paths

SEEDS = Path(__file__).resolve().parent.parent / "seeds"
WORDS = 500
BATCH = 256
ROUNDS = 5


def paragraphs() -> tuple[list[str], list[str]]:
    """Paragraphs of on-topic and of off-topic seed articles."""
    with (SEEDS / "labels.csv").open(encoding="utf-8") as lines:
        off = {row["id"] for row in csv.DictReader(lines) if not row["topic"]}
    on_topic: list[str] = []
    off_topic: list[str] = []
    for record in read_paths([SEEDS]):
        if record.event_id:
            is_off = record.event_id in off or Path(record.origin).name in off
            (off_topic if is_off else on_topic).extend(json.loads(record.value).get("text", "").split("\n"))
    return on_topic, off_topic


def article(chooser: random.Random, source: list[str]) -> tuple[str, str]:
    """Paragraphs until there are 500 words; a number in each sentence, unknown to any cache."""
    text: list[str] = []
    while sum(len(part.split()) for part in text) < WORDS:
        sentences = chooser.choice(source).split(". ")
        text.append(". ".join(f"{sentence} {chooser.randrange(10**9)}" for sentence in sentences))
    return "", "\n".join(text)


def rate(assessor: Assessor, articles: list[tuple[str, str]]) -> float:
    """Articles per second."""
    started = time.perf_counter()
    for start in range(0, len(articles), BATCH):
        assessor.assess(articles[start : start + BATCH])
    return len(articles) / (time.perf_counter() - started)


def main() -> None:
    """Time both mixes and print a table."""
    chooser = random.Random(7)  # noqa: S311 - repeatable, not secret
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--texts", type=Path, help="folder of technews-2023: its background rows are off topic"
    )
    parser.add_argument("--accurate", action="store_true", help="with the encoder, on a 30th of the articles")
    options = parser.parse_args()
    texts, fewer = options.texts, 30 if options.accurate else 1
    on_topic, off_topic = paragraphs()
    if texts:
        with gzip.open(texts / "technews-2023" / "background.jsonl.gz", "rt", encoding="utf-8") as rows:
            stories = [clean_feed(json.loads(row)["text"]) for row in rows]
        off_topic = [". ".join([story] * (WORDS // len(story.split()) + 1)) for story in stories if story]
    screened = load_shipped(accurate=options.accurate)
    plain = Assessor(
        screened.topic_model,
        screened.stance_model,
        name="plain",
        content_hash=screened.content_hash,
        screen=False,
        encoder=screened.encoder,
    )
    gc.freeze()  # as the worker does
    makers: dict[str, Callable[[int], tuple[str, str]]] = {
        "every paragraph on topic": lambda _: article(chooser, on_topic),
        "95 % off topic": lambda n: article(chooser, off_topic if n % 20 else on_topic),
    }
    with threadpool_limits(limits=1):
        screened.assess([makers["95 % off topic"](n) for n in range(40 // fewer + 1)])  # warm
        for (name, make), count in zip(makers.items(), (600, 3000), strict=True):
            rounds = [[make(n) for n in range(count // fewer)] for _ in range(ROUNDS)]
            with_gate = [rate(screened, articles) for articles in rounds]
            without = [rate(plain, articles) for articles in rounds]
            passed = fmean(screened.topic_model.gate_.any_open(text) for _, text in rounds[0])
            print(
                f"{name:26} {shown(with_gate)} articles/s, without screening {shown(without)}"
                f" (x {median(with_gate) / median(without):.1f}); {passed:.0%} pass the gate"
            )


def shown(rates: list[float]) -> str:
    """Median, and range."""
    return f"{median(rates):.0f} ({min(rates):.0f} to {max(rates):.0f})"


if __name__ == "__main__":
    main()
