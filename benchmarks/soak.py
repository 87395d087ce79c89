"""A steady stream with faults for a given time: memory, disk, lag and differences over time.

Three brokers, two workers, one fault a minute. Worker ``steady`` is never touched: the memory and disk of one
process are measured on it. The other one, and the brokers, get the faults of ``tests/chaos``. Every second
minute an audit runs beside them, and at the end when all is handled. The log runs 2,400 times as fast as the
clock (a day in 36 s), so that identities (kept for 9 days) and hours (8) expire all the time: after warm-up,
when the first have expired twice over, what is stored should not grow any more.

Flat means: the straight line fitted to the measurements of ``steady`` after warm-up rises by less than 5 % of
their median over that stretch, for memory (RSS) and for the folder of the state (20 %: RocksDB writes and
compacts in steps). Exit code 1 when it is not flat, or at any difference.

Writes ``soak.json`` and ``soak.png``.
Command: ``.venv/bin/python -m benchmarks.soak --minutes 20 --rate 150 --into benchmarks/report``
(Java 17, Maven and matplotlib are needed).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from classifiers.pictures import COLOURS, draw_with, figure
from stream.errors import StancewatchError
from tests.chaos import faults
from tests.chaos.feed import Feed
from tests.chaos.harness import CLUSTER, Chaos
from tests.kafka_server import KafkaCluster
from tests.stack import samples

SPEED = 2400
KEPT = {"bucket_days": 8, "identity_days": 9}
FIRST = datetime(2024, 1, 1, tzinfo=UTC)
STEADY, TOUCHED = "steady", "touched"
SAMPLE_SECONDS = 5.0
SESSION_SECONDS = 10
FAULTS = (
    faults.kill_worker,
    faults.state_is_deleted,
    faults.worker_restarts,
    faults.worker_joins_and_leaves,
    faults.worker_freezes,
    faults.leader_dies,
    faults.coordinator_dies,
    faults.broker_restarts,
)
FLAT = {"rss_mib": 0.05, "disk_mib": 0.20}
MIB = 1024 * 1024


def rss_mib(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def disk_mib(folder: Path) -> float:
    """Size of all files below a folder."""
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except OSError:
            continue  # compacted away meanwhile
    return total / MIB


class Recorder(threading.Thread):
    """Measures every few seconds until stopped."""

    def __init__(self, run: Chaos) -> None:
        super().__init__(daemon=True)
        self.run_ = run
        self.began = time.monotonic()
        self.over = threading.Event()
        self.rows: list[dict[str, Any]] = []

    def now(self) -> float:
        """Seconds since the beginning."""
        return round(time.monotonic() - self.began, 1)

    def run(self) -> None:
        """Measure."""
        while not self.over.wait(SAMPLE_SECONDS):
            row: dict[str, Any] = {"seconds": self.now(), "events": len(self.run_.log)}
            row["load"] = round(os.getloadavg()[0], 2)
            for name, process in list(self.run_.workers.items()):
                try:
                    if process.process.poll() is None:
                        row[f"rss_mib {name}"] = round(rss_mib(process.process.pid), 1)
                        row[f"disk_mib {name}"] = round(disk_mib(self.run_.folder / name / "state"), 2)
                except (OSError, StancewatchError):
                    continue  # it starts or ends
            try:
                page = samples(self.run_.workers[STEADY].metrics_url, "stancewatch_consumer_lag_records")
                row["lag"] = int(sum(value for _, value in page))
            except OSError:
                pass
            self.rows.append(row)


def trend(rows: list[dict[str, Any]], name: str, warm_up: float) -> dict[str, Any]:
    """Median after warm-up, and by how much the fitted line rises over that stretch."""
    found = [(row["seconds"], row[name]) for row in rows if name in row and row["seconds"] >= warm_up]
    seconds, values = np.array(found).T
    slope = float(np.polyfit(seconds, values, 1)[0])
    rise = slope * float(seconds[-1] - seconds[0])
    median = float(statistics.median(values))
    return {
        "median": round(median, 2),
        "highest": round(float(max(values)), 2),
        "rise": round(rise, 2),
        "rise_per_hour": round(slope * 3600, 2),
        "rise_ratio": round(rise / median, 4),
    }


def soak(run: Chaos, minutes: float, fault_seconds: float) -> tuple[Recorder, list[dict[str, Any]]]:
    """Stream, break, measure, audit; what was measured, and what happened when."""
    for name in (STEADY, TOUCHED):
        run.start(name, ready=False)
    run.wait(lambda: all(each.is_ready() for each in run.live()), "all workers are ready")
    run.resting.add(STEADY)  # no fault chooses it, and should it end, it stays away
    recorder = Recorder(run)
    recorder.start()
    happened: list[dict[str, Any]] = []

    def note(kind: str, **values: Any) -> None:
        happened.append({"seconds": recorder.now(), "kind": kind, **values})
        print(json.dumps({**happened[-1], "events": len(run.log)}), flush=True)

    with run.flowing():
        for number in range(1, int(minutes * 60 / fault_seconds)):
            run.pause(max(0.1, number * fault_seconds - recorder.now()))
            fault = run.random.choice(FAULTS)
            run.faults[fault.__name__] += 1
            note(fault.__name__)
            try:
                fault(run)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                run.note([f"{fault.__name__}: {str(error).splitlines()[0]}"])
                note("failed", fault=fault.__name__, reason=str(error)[:2000])
                for name in set(run.workers) - {STEADY}:
                    run.kill(name)
                run.start(TOUCHED, ready=False)
            if number % 2 == 0:
                try:
                    records, found = run.audit()
                except AssertionError as error:  # the workers lag or are not ready for too long: no audit now
                    note("no audit", reason=str(error)[:500])
                    continue
                run.note(found)
                note("audit", records=records, differences=len(found))
        run.pause(max(0.1, minutes * 60 - recorder.now()))
    recorder.over.set()
    recorder.join()
    run.wait_handled(len(run.log), 600)
    records, found = run.audit()
    if records != len(run.log):
        found.append(f"the audit counted {records} of {len(run.log)} records")
    run.note(found)
    note("audit", records=records, differences=len(found))
    return recorder, happened


def picture(report: dict[str, Any]) -> Any:
    """Memory, disk and lag over time, with the moments of the faults."""
    rows = report["rows"]
    drawn = figure(5.6)
    panels = drawn.subplots(3, 1, sharex=True)
    for panel, start, title in zip(
        panels,
        ("rss_mib ", "disk_mib ", "lag"),
        ("memory of each worker (RSS), MiB", "state folder of each worker, MiB", "lag of 'steady', records"),
        strict=True,
    ):
        names = sorted({name for row in rows for name in row if name.startswith(start)}, key=_steady_first)
        for name, colour in zip(names, COLOURS, strict=False):
            minutes = [row["seconds"] / 60 for row in rows]
            values = [row.get(name, float("nan")) for row in rows]
            panel.plot(minutes, values, color=colour, label=name.removeprefix(start), linewidth=1.2)
        for event in report["happened"]:
            if event["kind"] in report["faults"]:
                panel.axvline(event["seconds"] / 60, color="#999999", linewidth=0.6, linestyle=":")
        panel.axvline(report["warm_up_seconds"] / 60, color="#444444", linewidth=0.9)
        panel.set_title(title)
        panel.set_ylim(bottom=0)
    panels[0].legend(loc="lower right", ncols=3)
    panels[-1].set_xlabel("minutes (dotted: a fault; line: end of warm-up)")
    return drawn


def _steady_first(name: str) -> tuple[bool, str]:
    return (STEADY not in name, name)


def main() -> int:
    """Run, judge, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=150.0, help="events per second")
    parser.add_argument("--fault-seconds", type=float, default=60.0, help="time from fault to fault")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--into", type=Path, default=Path("soak"), help="folder for the files")
    chosen = parser.parse_args()
    token = uuid.uuid4().hex[:8]
    feed = Feed(chosen.seed, clock=lambda n: FIRST + timedelta(seconds=n / chosen.rate * SPEED))
    with tempfile.TemporaryDirectory(prefix="stancewatch-soak-") as place:
        folder = Path(place)
        with (
            KafkaCluster(folder / "cluster", properties=CLUSTER) as cluster,
            Chaos(
                cluster,
                folder,
                {"topic_prefix": f"{token}.", "group": f"group-{token}"},
                chosen.seed,
                rate=chosen.rate,
                feed=feed,
                session_timeout_seconds=SESSION_SECONDS,
                batch_events=256,
                **KEPT,
            ) as run,
        ):
            recorder, happened = soak(run, chosen.minutes, chosen.fault_seconds)
            ended = run.workers[STEADY].process.poll() is not None
            swept = {
                labels["table"]: int(value)
                for labels, value in samples(run.workers[STEADY].metrics_url, "stancewatch_swept_total")
            }
    warm_up = min(2 * KEPT["identity_days"] * 86_400 / SPEED, chosen.minutes * 30)
    trends = {name: trend(recorder.rows, f"{name} {STEADY}", warm_up) for name in FLAT}
    report: dict[str, Any] = {
        "minutes": chosen.minutes,
        "rate": chosen.rate,
        "seed": chosen.seed,
        "warm_up_seconds": warm_up,
        "events": len(run.log),
        "faults": run.result.faults,
        "redelivered": run.redelivered,
        "exits": run.result.exits,
        "audits": sum(event["kind"] == "audit" for event in happened),
        "differences": run.result.differences,
        "found": run.result.found[:50],
        "steady": {**trends, "swept": swept, "ended": ended},
        "highest_lag": max(row.get("lag", 0) for row in recorder.rows),
        "median_load": statistics.median(row["load"] for row in recorder.rows),
        "flat": {name: trends[name]["rise_ratio"] < limit for name, limit in FLAT.items()},
    }
    print(json.dumps(report, indent=2))
    report |= {"happened": happened, "rows": recorder.rows}
    chosen.into.mkdir(parents=True, exist_ok=True)
    (chosen.into / "soak.json").write_text(json.dumps(report) + "\n")
    (chosen.into / "soak.png").write_bytes(draw_with(picture, report))
    return int(ended or run.result.differences > 0 or not all(report["flat"].values()))


if __name__ == "__main__":
    sys.exit(main())
