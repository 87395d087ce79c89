"""A fortnight of news for the picture of the dashboard: real assessments, moved over time.

The seed articles are published again and again under new ids, at times of the last fortnight, through a
broker and a worker. ``stancewatch export --openmetrics`` tells that history at event time, and promtool makes
it known to a Prometheus, which also scrapes the worker. Which article appears when is made up; every decision
and every count is the pipeline's.
"""

from __future__ import annotations

import asyncio
import csv
import json
import math
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from stream.embedded import EmbeddedBroker
from stream.sources import Record, read_paths
from tests.conftest import SEEDS
from tests.prometheus_server import PrometheusServer, blocks_of, shipped_config
from tests.stack import handled, publish, settings_for, stancewatch, wait_until, worker

__all__ = ["running"]

DAYS = 14
STEP = 1800  # seconds between samples of the history
HOUR = 3600


def articles(now: float) -> list[Record]:
    """Seeds at times of the last fortnight: a daily rhythm, and two stories that break in the last days."""
    random = Random(5)  # noqa: S311 - the same picture each time
    seeds = [record for record in read_paths([SEEDS]) if record.event_id and record.version == 1]
    stances: dict[str, dict[str, str]] = defaultdict(dict)
    with (SEEDS / "labels.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            stances[row["id"]][row["topic"]] = row["stance"]
    found = []
    for hour in range(24 * DAYS):
        begin = (now // HOUR - 24 * DAYS + 1 + hour) * HOUR
        moment = datetime.fromtimestamp(begin, UTC)
        rhythm = 0.35 + 0.65 * max(0.0, math.sin((moment.hour - 5) / 24 * 2 * math.pi)) ** 0.7
        rate = 7 * rhythm * (0.5 if moment.weekday() > 4 else 1.0)  # noqa: PLR2004 - the weekend
        ago = 24 * DAYS - hour
        weights = [_weight(stances.get(_seed_id(record), {}), ago) for record in seeds]
        burst = 2.2 if 60 < ago < 84 else 1.0  # noqa: PLR2004
        for number in range(_poisson(random, rate * burst)):
            record = random.choices(seeds, weights)[0]
            published = min(now - 1, begin + random.random() * HOUR)
            name = f"{record.event_id}-{hour}-{number}"
            value = json.loads(record.value) | {
                "id": name,
                "published_at": datetime.fromtimestamp(published, UTC).isoformat(),
            }
            found.append(replace(record, key=name.encode(), event_id=name, value=json.dumps(value).encode()))
    return found


def _seed_id(record: Record) -> str:
    return Path(record.origin).name if record.origin.endswith(".txt") else record.event_id


def _weight(stances: dict[str, str], ago: int) -> float:
    weight = 1.0
    if 48 < ago < 90 and stances.get("export_controls") == "against":  # noqa: PLR2004
        weight *= 7
    if ago < 30 and stances.get("domestic_chips") == "favor":  # noqa: PLR2004
        weight *= 4
    if ago > 7 * 24 and stances.get("cloud") == "favor":
        weight *= 2.5
    return weight


def _poisson(random: Random, mean: float) -> int:
    limit, product, count = math.exp(-mean), random.random(), 0
    while product > limit:
        product *= random.random()
        count += 1
    return count


@contextmanager
def running(folder: Path) -> Iterator[tuple[PrometheusServer, str]]:
    """A Prometheus that knows the fortnight, and the address of the worker's API."""
    records = articles(time.time())
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker(folder))
        settings = settings_for(broker.address)
        asyncio.run(publish(settings, records, batch_bytes=1))  # the export asks for the end of the log
        process = stack.enter_context(worker(folder / "worker", broker.address, embedded="true"))
        process.keep_nothing = True
        process.wait_until_ready()
        api = f"http://127.0.0.1:{process.port}"
        wait_until(lambda: handled(process) == len(records), "all are assessed", process, seconds=300)
        wait_until(lambda: _waiting(api) == 0, "the articles are at hand", process, seconds=60)
        told = folder / "history.om"
        done = stancewatch(
            "export", "--openmetrics", "--step-minutes", str(STEP // 60), "--broker", broker.address, told
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        home = folder / "prometheus"
        home.mkdir()
        blocks_of(told, home / "data")
        config = shipped_config(f"127.0.0.1:{process.port}")
        # Between two samples of the history a series must not be forgotten.
        prometheus = stack.enter_context(
            PrometheusServer(home, config, f"--query.lookback-delta={STEP + 60}s")
        )
        # The history has no such series: these are of a scrape. (Net stance is told from the history, too.)
        scraped = f"sum(stancewatch:stored_events:sum) == {len(records)}"
        wait_until(lambda: bool(prometheus.query(scraped)), "rules tell what was scraped", prometheus)
        live = f"timestamp(stancewatch:window_net_stance:ratio) > {time.time():.3f}"
        wait_until(lambda: bool(prometheus.query(live)), "rules have gone on from it", prometheus)
        yield prometheus, api


def _waiting(api: str) -> int:
    with urllib.request.urlopen(f"{api}/api/v1/health", timeout=30) as answer:  # noqa: S310 - our own worker
        return int(json.load(answer)["articles_lag_records"])
