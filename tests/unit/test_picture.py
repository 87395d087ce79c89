"""The picture of the main dashboard: monitoring/grafana/drawing.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from monitoring.grafana.drawing import draw
from tests.conftest import ROOT
from tests.dashboards import read


class TestPicture:
    """Drawn, and committed."""

    def test_every_panel_of_the_main_dashboard_can_be_drawn(self, tmp_path: Path) -> None:
        """Made-up results of each kind become a picture; rows without data are left out of it."""
        board = read(ROOT / "monitoring/grafana/dashboards/topics-and-stance.json")
        path = tmp_path / "picture.png"
        draw(board, {"now": 1_800_000_000, "panels": made_up(board, with_data=True)}, path)
        with Image.open(path) as picture:
            whole = picture.size
        some = made_up(board, with_data=False)
        draw(board, {"now": 1_800_000_000, "panels": some}, path)
        with Image.open(path) as picture:
            assert picture.size[0] == whole[0]
            assert picture.size[1] < whole[1]

    def test_shows_the_committed_dashboard(self) -> None:
        """The picture in the README is a small PNG of its full width."""
        path = ROOT / "monitoring/dashboard.png"
        assert path.stat().st_size < 300_000
        with Image.open(path) as picture:
            assert picture.width == 1440


def made_up(board: dict[str, Any], *, with_data: bool) -> dict[str, Any]:
    """Results as Prometheus and the API give them; without data for the rows at the end."""
    labels = {"topic": "cloud", "stance": "favor", "signal": "weak", "label": "a", "alertname": "b"}
    last = max(
        place for place, panel in enumerate(board["panels"]) if panel["title"].startswith("Articles and")
    )
    found = {}
    for place, panel in enumerate(board["panels"]):
        brought: dict[str, Any] = {}
        for target in panel.get("targets", []):
            if not with_data and place > last:
                rows: list[dict[str, Any]] = []
            elif "columns" in target:
                kinds = {"string": "text", "number": 0.5, "timestamp": "2027-01-15T08:00:00Z"}
                rows = [{column["text"]: kinds[column["type"]] for column in target["columns"]}]
            elif target.get("instant"):
                rows = [{"metric": labels, "value": [1_800_000_000, "0.5"]}]
            else:
                hours = [1_800_000_000 + hour * 3600 for hour in (0, 1, 2, 5)]
                rows = [{"metric": labels, "values": [[hour, "0.5"] for hour in hours]}]
            brought[target["refId"]] = rows
        found[str(panel["id"])] = brought
    return found
