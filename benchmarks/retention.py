"""What a million remembered event ids cost, and what a sweep costs.

One partition in this process, as a worker keeps it: the processor, its tables in RocksDB, a classifier that
only reads words, and a changelog that counts its bytes instead of sending them. A number of ids is accepted
(each with one vote), then 40 days pass and as many again come in, behind whose batches the first are swept.
Figures per million ids are scaled from that number. Memory is what the process grew by (resident). Bytes of
the changelog are keys and values; Kafka adds about 10 bytes a record, and compacts to the last of each key.

Command: ``.venv/bin/python -m benchmarks.retention --ids 200000`` (no broker is needed).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry

from stream.agents import EventProcessor
from stream.app import StateTable, StreamApp
from stream.metrics import Metrics
from stream.settings import load_settings
from tests.doubles import OutputTopic, SourceEvent, WordAssessor

START = 1_700_000_000.0
BATCH = 256
DAYS = 40 * 86_400.0
MILLION = 1_000_000


class Bench(StreamApp):
    """The app without its consumer: nothing is sent, and everything is committed at once."""

    def __init__(self, folder: Path) -> None:
        super().__init__(load_settings(broker="127.0.0.1:9", data_dir=folder, partitions=1))
        self.commits = 0
        self.bytes = {"counts": 0, "identities": 0}
        for table in (self.counts, self.identities):
            self._count_changelog(table)
        self.assessments = self.dead_letters = OutputTopic()
        metrics = Metrics.create(CollectorRegistry(), model={"name": "words"})
        self.processor = EventProcessor(self, WordAssessor(), metrics, self.settings)  # type: ignore[arg-type]
        self.processor.order.start_at(self.faust.consumer_generation_id, {0: 0})

    def _count_changelog(self, table: StateTable) -> None:
        def send_changelog(_at: int | None, key: bytes, value: bytes | None, *_: Any, **__: Any) -> Any:
            self.bytes[table.name] += len(key) + len(value or b"")
            return SimpleNamespace(message=SimpleNamespace(partition=0))

        table.send_changelog = send_changelog  # type: ignore[method-assign, assignment]
        table._verify_source_topic_partitions = lambda source_topic: None  # type: ignore[method-assign]  # noqa: ARG005, SLF001

    def committed(self, _partition: int) -> int:
        """Everything before the batch."""
        return self.commits

    async def take(self, count: int, written_at: float, prefix: str) -> list[float]:
        """Handle so many new ids; seconds of the sweep behind each batch."""
        seconds: list[float] = []
        sweep = type(self.processor.retention).sweep

        def timed(*arguments: Any) -> Any:
            started = time.perf_counter()
            swept = sweep(self.processor.retention, *arguments)
            seconds.append(time.perf_counter() - started)
            return swept

        self.processor.retention.sweep = timed  # type: ignore[assignment, method-assign]
        for batch in batches(self.commits, count, written_at, prefix):
            for event in batch:
                event.message.generation_id = self.faust.consumer_generation_id
            await self.processor.process(batch)
            self.assessments.records.clear()
            self.commits += len(batch)
        return seconds


def batches(offset: int, count: int, written_at: float, prefix: str) -> Iterator[list[SourceEvent]]:
    """Events with ids of 24 characters, as those that stand for a text's content."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(written_at))
    for start in range(0, count, BATCH):
        batch = []
        for number in range(start, min(count, start + BATCH)):
            event_id = f"{prefix}{(number * 2_654_435_761) % 2**32:023x}"
            row = {"id": event_id, "text": "cloud:favor", "published_at": moment}
            event = SourceEvent(
                offset + number, event_id.encode(), json.dumps(row).encode(), timestamp=written_at
            )
            batch.append(event)
        yield batch


def resident() -> float:
    """Resident memory in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def folder_bytes(folder: Path) -> int:
    """Size of all files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


async def measure(count: int) -> None:
    """Fill, let time pass, sweep, and print a table."""
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        before = resident()
        idle = await bench.take(count, START, "a")
        memory, disk, sent = resident() - before, folder_bytes(Path(name)), dict(bench.bytes)
        scale = MILLION / count
        print(f"{count} ids in batches of {BATCH}; per million ids, scaled by {scale:g}")
        print(f"memory of the process      {memory * scale:8.0f} MiB ({memory:.0f} MiB measured)")
        print(f"RocksDB folder             {disk * scale / 2**20:8.0f} MiB ({disk / 2**20:.0f} MiB measured)")
        for table, size in sent.items():
            print(
                f"changelog of {table:13} {size * scale / 2**20:8.0f} MiB ({size / 2**20:.0f} MiB measured)"
            )
        started = time.perf_counter()
        busy = await bench.take(count, START + DAYS, "b")
        whole = time.perf_counter() - started
        store = bench.identities.data
        left = sum(1 for _ in store._visible_keys(store._db_for_partition(0)))  # noqa: SLF001
        for what, seconds in (("nothing to delete", idle), ("old ids deleted", busy)):
            figures = (1000 * statistics.median(seconds), 1000 * max(seconds), sum(seconds))
            text = "median {:.2f} ms, longest {:.1f} ms behind a batch, {:.1f} s in all".format(*figures)
            print(f"sweep, {what:18} {text}")
        print(f"second run {whole:.1f} s, {sum(busy) / whole:.0%} of it sweeps (no model, no Kafka)")
        print(f"ids left: {left} of {2 * count}")
        rocks = folder_bytes(Path(name)) / 2**20
        print(f"measured then: RocksDB folder {rocks:.0f} MiB, memory {resident() - before:.0f} MiB")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ids", type=int, default=200_000)
    asyncio.run(measure(parser.parse_args().ids))


if __name__ == "__main__":
    main()
