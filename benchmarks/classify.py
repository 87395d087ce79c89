"""Articles of about 500 words per second of the classifier alone, on one core.

Two mixes, made of paragraphs of the seeds: articles in which every paragraph comes from an article about the
topics, and one such article among nineteen that are made of off-topic articles alone. Each is timed with and
without the screening, in the same run.

The off-topic seeds are traps that nearly all pass the gate: the worst case. With ``--texts`` the off-topic
articles are single stories of general news instead (rows of technews-2023, each repeated to length).

Command: ``.venv/bin/python -m benchmarks.classify [--texts FOLDER]``
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
import time
from pathlib import Path

from threadpoolctl import threadpool_limits

from classifiers.assessor import Assessor
from classifiers.storage import load_shipped
from classifiers.text import clean_feed
from stream.sources import read_paths

SEEDS = Path(__file__).resolve().parent.parent / "seeds"
WORDS = 500
BATCH = 256


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
    texts = parser.parse_args().texts
    on_topic, off_topic = paragraphs()
    if texts:
        with gzip.open(texts / "technews-2023" / "background.jsonl.gz", "rt", encoding="utf-8") as rows:
            stories = [clean_feed(json.loads(row)["text"]) for row in rows]
        off_topic = [". ".join([story] * (WORDS // len(story.split()) + 1)) for story in stories if story]
    screened = load_shipped()
    plain = Assessor(
        screened.topic_model,
        screened.stance_model,
        name="plain",
        content_hash=screened.content_hash,
        screen=False,
    )
    mixes = {
        "every paragraph on topic": [article(chooser, on_topic) for _ in range(600)],
        "95 % off topic": [article(chooser, off_topic if n % 20 else on_topic) for n in range(3000)],
    }
    with threadpool_limits(limits=1):
        screened.assess(mixes["95 % off topic"][:40])  # warm
        for name, articles in mixes.items():
            with_gate, without = rate(screened, articles), rate(plain, articles)
            passed = sum(screened.topic_model.gate_.any_open(text) for _, text in articles) / len(articles)
            print(
                f"{name:26} {with_gate:7.0f} articles/s, without screening {without:7.0f}"
                f" (x {with_gate / without:.1f}); {passed:.0%} pass the gate"
            )


if __name__ == "__main__":
    main()
