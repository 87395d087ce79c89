"""What the page and its store of articles cost a worker, and how fast the store is.

* One worker on real Apache Kafka, end to end, on short articles (the cheaper the classifier, the larger the
  share of the rest): with the page, and three viewers that ask everything every second, and without, in turn.
  Its processor time is told beside the rate, since the rate of a busy machine says little.
* The store alone: articles taken in a second, size on disk, time of each question with 100,000 articles.

Command: ``.venv/bin/python -m benchmarks.articles`` (Java 17 and Maven are needed, not by ``--store``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from stream.articles import ArticleStore, Place, Wanted, microseconds
from stream.embedded import WorkerProcess
from stream.schema import Assessment, Evidence, TopicAssessment
from stream.sources import Record, read_paths
from tests.kafka_server import KafkaServer
from tests.stack import handled, publish, settings_for, worker

SEEDS = Path(__file__).resolve().parent.parent / "seeds"
NOW = datetime(2024, 9, 30, 12, tzinfo=UTC)
TOPICS = ("cloud", "domestic_chips", "export_controls")
STANCES = ("favor", "against", "neutral", "unclear")
QUESTIONS = ("health", "counts?window=24h", "articles?window=24h&limit=40", "trend?window=24h", "sources")
VIEWERS = 3


def short_articles(count: int) -> list[Record]:
    """Two or three sentences of the seeds with their headline; all of the last days."""
    chooser = random.Random(7)  # noqa: S311 - repeatable, not secret
    rows = [json.loads(record.value) for record in read_paths([SEEDS]) if record.event_id]
    rows = [row for row in rows if row.get("text")]
    now = datetime.now(UTC)
    records = []
    for number in range(count):
        row = chooser.choice(rows)
        sentences = row["text"].replace("\n", " ").split(". ")
        made = {
            "id": f"short-{number}",
            "title": f"{row['title']} {number}",
            "text": ". ".join(
                f"{part} {chooser.randrange(10**6)}" for part in chooser.choices(sentences, k=3)
            ),
            "published_at": (now - timedelta(minutes=chooser.randrange(7 * 1440))).isoformat(),
            "source": f"source {chooser.randrange(50)}",
        }
        records.append(Record(made["id"].encode(), json.dumps(made).encode(), "made", None, made["id"], 1))
    return records


def view(base: str, stop: threading.Event) -> None:
    """Ask what the page asks, every second."""
    while not stop.wait(1):
        for question in QUESTIONS:
            with urllib.request.urlopen(f"{base}/api/v1/{question}", timeout=30) as answer:  # noqa: S310 - ours
                answer.read()


def processor_seconds(process: WorkerProcess) -> float:
    """User and system time so far."""
    fields = Path(f"/proc/{process.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def one_run(
    kafka: KafkaServer, folder: Path, prefix: str, records: list[Record], *, page: bool
) -> list[float]:
    """Articles per second, and processor milliseconds per article, of a worker that finds them waiting."""
    settings = settings_for(kafka.bootstrap, topic_prefix=prefix, group=prefix)
    asyncio.run(publish(settings, records))
    names = {"topic_prefix": prefix, "group": prefix, "commit_interval_seconds": 3, "page": page}
    stop = threading.Event()
    with worker(folder, settings.broker, **names) as process:
        process.wait_until_ready()
        base = process.metrics_url.removesuffix("/metrics")
        viewers = [threading.Thread(target=view, args=(base, stop)) for _ in range(VIEWERS if page else 0)]
        for viewer in viewers:
            viewer.start()
        first = (time.perf_counter(), handled(process), processor_seconds(process))
        while handled(process) < len(records):
            time.sleep(0.25)
        seconds = time.perf_counter() - first[0]
        done = len(records) - first[1]
        cost = processor_seconds(process) - first[2]
        stop.set()
        for viewer in viewers:
            viewer.join()
    return [done / seconds, 1000 * cost / done]


def compare_workers(count: int, rounds: int) -> None:
    """With and without the page, in turn."""
    records = short_articles(count)
    found: dict[bool, list[list[float]]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder, KafkaServer(Path(folder) / "kafka") as kafka:
        for number in range(rounds):
            for page in (False, True):
                name = f"{number}-{page}.".lower()
                found[page].append(one_run(kafka, Path(folder) / name, name, records, page=page))
    print(f"{count} short articles, one worker, {rounds} runs each, medians")
    for page, what in ((False, "without the page"), (True, f"with it and {VIEWERS} viewers")):
        rate, cost = (statistics.median(column) for column in zip(*found[page], strict=True))
        runs = ", ".join(f"{one[0]:.0f}" for one in found[page])
        print(f"{what:26} {rate:7.0f} articles/s ({runs})   {cost:6.3f} ms of processor time each")


def made_up(number: int, chooser: random.Random) -> Assessment:
    """An assessment as workers write it."""
    sentence = "Suppliers of the tools say that the rules do what they were made for, and more. " * 2
    return Assessment(
        event_id=f"event-{number}",
        version=1,
        published_at=NOW - timedelta(seconds=chooser.randrange(14 * 86_400)),
        assessed_at=NOW,
        source=f"source {chooser.randrange(300)}",
        url=f"https://example.org/{number}",
        title=f"A headline of about the usual length, number {number}",
        model="stancewatch@000000000000",
        topics=[
            TopicAssessment(
                topic=topic,
                probability=0.9,
                stance=chooser.choice(STANCES),  # type: ignore[arg-type]
                stance_probability=0.8,
                evidence=[Evidence(text=sentence, start=0, end=len(sentence))],
            )
            for topic in chooser.sample(TOPICS, chooser.choice((1, 1, 2)))
        ],
    )


def measure_store(count: int) -> None:
    """Rate of taking, size, and the time of each question."""
    chooser = random.Random(7)  # noqa: S311 - repeatable, not secret
    made = [made_up(number, chooser) for number in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        store = ArticleStore(Path(folder), articles_max=count, days=15)
        begun = time.perf_counter()
        for start in range(0, count, 500):
            store.apply(made[start : start + 500])
        rate = count / (time.perf_counter() - begun)
        database = store._db  # noqa: SLF001 - its size is nobody else's concern
        pages, size = (
            database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")
        )
        print(
            f"store of {count} articles: {rate:.0f} taken per second, {pages * size / 2**20:.0f} MiB on disk"
        )
        day = Wanted(since=microseconds(NOW - timedelta(days=1)))
        middle = Place(microseconds(NOW - timedelta(days=7)), "event", "cloud")
        last = microseconds(NOW) // 3_600_000_000
        questions: dict[str, Callable[[], object]] = {
            "latest 40": lambda: store.find(Wanted(), 40),
            "latest 40 of a topic and a stance": lambda: store.find(Wanted(("cloud",), ("against",)), 40),
            "latest 40 of a source": lambda: store.find(Wanted(sources=("source 7",)), 40),
            "a page in the middle": lambda: store.find(Wanted(), 40, middle),
            "hours of two weeks": lambda: store.hourly(last - 335, last, Wanted()),
            "hours of two weeks of a source": lambda: store.hourly(
                last - 335, last, Wanted(sources=("source 7",))
            ),
            "sources of a day": lambda: store.sources(day),
            "all sources": lambda: store.sources(Wanted()),
        }
        for name, ask in questions.items():
            times = []
            for _ in range(7):
                begun = time.perf_counter()
                ask()
                times.append(1000 * (time.perf_counter() - begun))
            print(f"  {name:34} {statistics.median(times):7.1f} ms")
        store.close()


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--articles", type=int, default=12_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--store", action="store_true", help="the store alone")
    arguments = parser.parse_args()
    measure_store(100_000)
    if not arguments.store:
        compare_workers(arguments.articles, arguments.rounds)


if __name__ == "__main__":
    main()
