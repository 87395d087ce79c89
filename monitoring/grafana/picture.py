"""Draws the main dashboard from its own queries: ``python -m monitoring.grafana.picture``.

No Grafana runs here. Each panel's queries are run on a real Prometheus and on the API, over a fortnight of
assessments (:mod:`monitoring.grafana.history`), and what they bring is drawn with matplotlib in the panel's
place. ``--results FILE`` keeps what the queries brought, or draws from it when the file is there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monitoring.grafana.drawing import draw
from tests.dashboards import API, Value, address, filled, panels, read, table

PICTURE = Path(__file__).parents[1] / "dashboard.png"
DASHBOARD = Path(__file__).parent / "dashboards/topics-and-stance.json"
DAY = 86400


def results(board: Mapping[str, Any]) -> dict[str, Any]:
    """What the queries of each panel bring, by the panel's number and the query's letter."""
    from monitoring.grafana.history import running  # noqa: PLC0415 - not needed to draw again

    found: dict[str, Any] = {"now": time.time(), "panels": {}}
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as (prometheus, api):
        now = found["now"] = time.time()
        topics = prometheus.get("/api/v1/label/topic/values", **{"match[]": "stancewatch:assessments:sum"})
        values: dict[str, Value] = {"topic": topics["data"], "window": "24h", "__range": "7d"}
        for panel in panels(board):
            brought = found["panels"][str(panel["id"])] = {}
            for target in panel.get("targets", []):
                if target["datasource"]["type"] == API:
                    with urllib.request.urlopen(api + address(target, values), timeout=30) as answer:  # noqa: S310
                        brought[target["refId"]] = table(target, json.load(answer))
                    continue
                expression = filled(target["expr"], values, default="regex")
                if target.get("instant"):
                    answer = prometheus.get("/api/v1/query", query=expression, time=str(now))
                else:
                    step = 3600 if target.get("interval") == "1h" else 1800
                    end = now // 3600 * 3600 if step == 3600 else now  # noqa: PLR2004
                    answer = prometheus.get(
                        "/api/v1/query_range",
                        query=expression,
                        start=str(end - 7 * DAY),
                        end=str(end),
                        step=str(step),
                    )
                brought[target["refId"]] = answer["data"]["result"]
    return found


def main() -> None:
    """Ask, then draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, help="file of what the queries brought")
    parser.add_argument("--into", type=Path, default=PICTURE)
    chosen = parser.parse_args()
    board = read(DASHBOARD)
    if chosen.results and chosen.results.exists():
        found = json.loads(chosen.results.read_text(encoding="utf-8"))
    else:
        found = results(board)
        if chosen.results:
            chosen.results.write_text(json.dumps(found), encoding="utf-8")
    draw(board, found, chosen.into)
    print(f"{chosen.into}: {chosen.into.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
