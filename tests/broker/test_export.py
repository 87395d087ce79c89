"""History for Prometheus: exported from the log, made into blocks by promtool, asked of a real Prometheus."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SEEDS
from tests.kafka_server import KafkaServer
from tests.prometheus_server import PrometheusServer, blocks_of, required, running, shipped_config
from tests.stack import Votes, read_all, settings_for, stancewatch, variables, wait_until, worker

pytestmark = pytest.mark.kafka


def published_before(assessments: list[Any], moment: float, hours: float = 1e9) -> Votes:
    """Votes of the last version of each event in some hours before a moment; plain code."""
    final: dict[str, dict[str, Any]] = {}
    for row in assessments:
        if row["version"] >= final.get(row["event_id"], {"version": 0})["version"]:
            final[row["event_id"]] = row
    votes: dict[str, Counter[str]] = {}
    for row in final.values():
        published = datetime.fromisoformat(row["published_at"]).timestamp()
        if moment - hours * 3600 <= published < moment:
            for topic in row["topics"]:
                votes.setdefault(topic["topic"], Counter())[topic["stance"]] += 1
    return {topic: dict(by_stance) for topic, by_stance in votes.items()}


def answered(prometheus: PrometheusServer, query: str, moment: float) -> Votes:
    """Votes that Prometheus shows at a moment, zeros left out."""
    found: Votes = {}
    for labels, value in prometheus.query(query, at=moment):
        if value:
            found.setdefault(labels["topic"], {})[labels["stance"]] = int(value)
    return found


async def test_replayed_months_become_visible_in_prometheus(
    kafka: KafkaServer, names: dict[str, str], tmp_path: Path
) -> None:
    """Totals, windows and net stance at known hours are those that plain code tells of the assessments."""
    environment = variables(names)
    with worker(tmp_path / "w", kafka.bootstrap, **names):
        played = stancewatch("replay", "seeds", "--broker", kafka.bootstrap, **environment)
        assert played.returncode == 0, played.stderr
    file = tmp_path / "history.om"
    done = stancewatch("export", "--openmetrics", file, "--broker", kafka.bootstrap, **environment)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert file.read_text().endswith("\n# EOF\n")
    assert "93 records counted" in done.stderr
    piped = stancewatch("export", "--openmetrics", "-", "--broker", kafka.bootstrap, **environment)
    assert (piped.returncode, piped.stdout) == (0, file.read_text()), piped.stderr

    settings = settings_for(kafka.bootstrap, **names)
    rows = [json.loads(record.value) for record in await read_all(settings, settings.assessments_topic)]  # type: ignore[attr-defined]
    times = sorted(datetime.fromisoformat(row["published_at"]).timestamp() for row in rows if row["topics"])
    moments = [(times[place] // 3600 + 1) * 3600 for place in (0, len(times) // 3, len(times) // 2, -1)]

    with required():
        blocks_of(file, tmp_path / "prometheus/data")
    with running(PrometheusServer(tmp_path / "prometheus", shipped_config(rules=[]))) as prometheus:
        wait_until(
            lambda: bool(prometheus.query("stancewatch:assessments:sum", at=moments[-1])), "blocks are loaded"
        )
        for moment in moments:
            at = datetime.fromtimestamp(moment, UTC)
            total = answered(prometheus, "stancewatch:assessments:sum", moment)
            assert total == published_before(rows, moment), at
            for window, hours in (("1h", 1), ("24h", 24), ("7d", 168)):
                query = f'stancewatch:window_assessments:sum{{window="{window}"}}'
                inside = published_before(rows, moment, hours)
                assert answered(prometheus, query, moment) == inside, (at, window)
                for topic, by_stance in inside.items():
                    favor, against = by_stance.get("favor", 0), by_stance.get("against", 0)
                    query = f'stancewatch:window_net_stance:ratio{{topic="{topic}",window="{window}"}}'
                    net = [sample.value for sample in prometheus.query(query, at=moment)]
                    assert net == (
                        [pytest.approx((favor - against) / (favor + against))] if favor + against else []
                    )
        last = answered(prometheus, "stancewatch:assessments:sum", moments[-1])
        assert last == json.loads((SEEDS / "expected_counts.json").read_text())["counts"]
        assert prometheus.query("stancewatch:assessments:sum", at=moments[0] - 3600) == []
