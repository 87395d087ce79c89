"""Articles per second, end to end, of one worker on real Apache Kafka on this machine.

Three figures of one run, with the same model and the same articles of about 500 words:

* the classifier alone, in batches as the worker makes them;
* a plain loop on confluent-kafka: poll one record, classify it, produce its assessment, count in a dict,
  commit at the end; no duplicates, no dead letters, no state, nothing survives a crash;
* one worker process: all of that, exact after kill -9.

Command: ``.venv/bin/python -m benchmarks.end_to_end --articles 3000`` (Java 17 and Maven are needed).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import tempfile
import time
import uuid
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from confluent_kafka import Consumer, Producer

from classifiers.assessor import Assessor
from classifiers.storage import load_shipped
from stream.schema import decode_event, encode, make_assessment
from stream.settings import Settings
from stream.sources import Record, read_paths
from tests.kafka_server import KafkaServer
from tests.stack import handled, publish, settings_for, worker

SEEDS = Path(__file__).resolve().parent.parent / "seeds"
WORDS = 500
BATCH = 256


def articles(count: int) -> list[Record]:
    """Articles of about 500 words: paragraphs of the seeds, three quarters of them about the topics."""
    chooser = random.Random(7)  # noqa: S311 - repeatable, not secret
    paragraphs = []
    for record in read_paths([SEEDS]):
        if record.event_id:
            paragraphs.extend(json.loads(record.value).get("text", "").split("\n"))
    records = []
    for number in range(count):
        text: list[str] = []
        while sum(len(part.split()) for part in text) < WORDS:
            sentences = chooser.choice(paragraphs).split(
                ". "
            )  # a number in each, so that no cache has seen it
            text.append(". ".join(f"{sentence} {chooser.randrange(10**9)}" for sentence in sentences))
        row = {
            "id": f"bench-{number}",
            "title": f"Article {number}",
            "text": "\n".join(text),
            "published_at": "2024-09-16T06:00:00Z",
        }
        records.append(Record(row["id"].encode(), json.dumps(row).encode(), "made", None, row["id"], 1))
    return records


def classifier_alone(assessor: Assessor, records: list[Record]) -> float:
    """Articles per second of the model on one core."""
    documents = [(row["title"], row["text"]) for row in (json.loads(record.value) for record in records)]
    started = time.perf_counter()
    for start in range(0, len(documents), BATCH):
        assessor.assess(documents[start : start + BATCH])
    return len(documents) / (time.perf_counter() - started)


def plain_loop(assessor: Assessor, settings: Settings, count: int) -> float:
    """Articles per second of a loop that takes one record at a time and promises nothing."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.broker,
            "group.id": "plain",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    producer = Producer({"bootstrap.servers": settings.broker, "linger.ms": 5})
    consumer.subscribe([settings.events_topic])
    counts: Counter[tuple[str, str]] = Counter()
    done = 0
    started = 0.0
    while done < count:
        message = consumer.poll(1.0)
        if message is None or message.error():
            continue
        started = started or time.perf_counter()
        event = decode_event(message.value(), now=datetime.now(UTC))
        decisions = assessor.assess([(event.title, event.text)])[0]
        assessment = make_assessment(event, decisions, assessor.name, datetime.now(UTC))
        producer.produce(f"{settings.topic_prefix}plain", key=message.key(), value=encode(assessment))
        producer.poll(0)
        counts.update((decision.topic, decision.stance) for decision in decisions)
        done += 1
    producer.flush()
    consumer.commit()
    seconds = time.perf_counter() - started
    consumer.close()
    return count / seconds


def one_worker(settings: Settings, folder: Path, count: int) -> tuple[float, float]:
    """Articles per second of a worker that finds the records waiting, and its peak memory in MiB."""
    names = {"topic_prefix": settings.topic_prefix, "group": settings.group}
    with worker(folder, settings.broker, **names, commit_interval_seconds=3) as process:
        process.wait_until_ready()
        first = (time.perf_counter(), handled(process))
        while handled(process) < count:
            time.sleep(0.1)
        seconds = time.perf_counter() - first[0]
        rate = (count - first[1]) / seconds
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return rate, peak_kib / 1024


def main() -> None:
    """Run the three and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--articles", type=int, default=3000)
    count = parser.parse_args().articles
    assessor = load_shipped()
    records = articles(count)
    with tempfile.TemporaryDirectory() as folder, KafkaServer(Path(folder) / "kafka") as kafka:
        settings = settings_for(kafka.bootstrap, topic_prefix="bench.", group=f"bench-{uuid.uuid4().hex[:6]}")
        asyncio.run(publish(settings, records))
        asyncio.run(publish(settings.model_copy(update={"topic_prefix": "bench."}), []))
        alone = classifier_alone(assessor, records)
        loop = plain_loop(assessor, settings, count)
        whole, peak = one_worker(settings, Path(folder) / "worker", count)
    print(f"{count} articles of about {WORDS} words")
    print(f"classifier alone, batches of {BATCH}   {alone:8.0f} articles/s   1.00")
    print(f"plain loop on confluent-kafka     {loop:8.0f} articles/s   {loop / alone:.2f}")
    print(f"one worker, end to end            {whole:8.0f} articles/s   {whole / alone:.2f}")
    print(f"peak memory of the worker         {peak:8.0f} MiB")


if __name__ == "__main__":
    main()
