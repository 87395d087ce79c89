"""monitoring/grafana: the dashboards that are committed, without a Grafana."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from monitoring.grafana.build import built, drifted
from monitoring.grafana.parts import STANCE_COLOURS
from stream.discover_metrics import DiscoverMetrics
from stream.metrics import WINDOW_HOURS, Metrics, StateCollector
from tests.conftest import ROOT
from tests.dashboards import API, DASHBOARDS, PROMETHEUS, all_queries, filled, panels, queries, read
from tests.unit.test_compose import load, needs_promtool, promtool, services

UNITS = {"short", "none", "s", "bytes", "reqps", "percentunit"}
FILLED = {
    "topic": ["cloud", "export_controls"],
    "stance": ["favor", "against"],
    "window": "24h",
    "__rate_interval": "5m",
    "__range": "1h",
}
OTHERS = {"ALERTS", "up"}  # of Prometheus itself
by_board = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)


def declared() -> set[str]:
    """Names of all series that a worker and `discover` expose and that the recording rules make."""
    registry = CollectorRegistry()
    Metrics.create(registry, model={"name": "a", "sha256": "b"}, topics=["cloud"])
    registry.register(StateCollector(list, ["cloud"], "wall"))
    discover = CollectorRegistry()
    DiscoverMetrics(discover, slots=1)
    found: list[Metric] = [
        *discover.collect(),
        *registry.collect(),
        *StateCollector(list, [], "wall").describe(),
    ]
    names = {sample.name for metric in registry.collect() for sample in metric.samples}
    names |= {f"{metric.name}_total" if metric.type == "counter" else metric.name for metric in found}
    for path in (ROOT / "monitoring/prometheus/rules").glob("*.yml"):
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            names |= {rule["record"] for rule in group["rules"] if "record" in rule}
    return names


def expressions(path: Path) -> list[str]:
    """The PromQL of a dashboard with Grafana's variables filled in."""
    return [
        filled(query.target["expr"], FILLED, default="regex")
        for query in queries(path)
        if "expr" in query.target
    ]


def used(expression: str) -> set[str]:
    """Names of the metrics in an expression."""
    plain = re.sub(r'"[^"]*"', "", expression)  # values of labels are no metrics
    return set(re.findall(r"\b(?:stancewatch[\w:]+|ALERTS|up\b)", plain))


def data_panels(path: Path) -> list[dict[str, Any]]:
    """Panels that show data."""
    return [panel for panel in panels(read(path)) if panel["type"] not in {"row", "text"}]


def links(path: Path) -> list[str]:
    """Every link from a value or a cell."""
    found = []
    for panel in data_panels(path):
        config = panel["fieldConfig"]
        found += [link["url"] for link in config["defaults"].get("links", [])]
        for override in config.get("overrides", []):
            for setting in override["properties"]:
                found += [link["url"] for link in setting["value"]] if setting["id"] == "links" else []
    return found


class TestBuild:
    """monitoring/grafana/build.py."""

    def test_committed_files_are_what_the_code_builds(self) -> None:
        """`make dashboards` would change nothing."""
        assert drifted() == []

    def test_drift_is_found(self, tmp_path: Path) -> None:
        """A file that was edited, one that is missing and one of no dashboard are named."""
        for path in DASHBOARDS[1:]:
            (tmp_path / path.name).write_bytes(path.read_bytes())
        (tmp_path / DASHBOARDS[1].name).write_text("{}")
        (tmp_path / "stray.json").write_text("{}")
        assert drifted(tmp_path) == sorted([DASHBOARDS[0].name, DASHBOARDS[1].name, "stray.json"])

    def test_there_are_four(self) -> None:
        """Analysts and those on call each find theirs."""
        assert sorted(board["title"] for board in built().values()) == [
            "Article behind the number",
            "Model",
            "Pipeline",
            "Topics and stance",
        ]


class TestDashboards:
    """What holds for every dashboard."""

    def test_have_unique_names(self) -> None:
        """Every dashboard has a title and a uid of its own."""
        boards = [read(path) for path in DASHBOARDS]
        assert boards
        assert all(board["title"] and re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", board["uid"]) for board in boards)
        assert (
            len({board["uid"] for board in boards})
            == len({board["title"] for board in boards})
            == len(boards)
        )
        assert not [board["title"] for board in boards if board.get("id") is not None]

    @by_board
    def test_are_in_utc_and_refresh(self, path: Path) -> None:
        """Hours are those of the counts, and nobody has to reload."""
        board = read(path)
        assert (board["timezone"], board["refresh"]) == ("utc", "30s")

    @by_board
    def test_panels_are_complete(self, path: Path) -> None:
        """Every panel has a unique id, title, description, unit, and targets with unique refIds."""
        ids = [panel["id"] for panel in panels(read(path))]
        assert len(set(ids)) == len(ids)
        for panel in panels(read(path)):
            assert panel["title"]
            if panel["type"] in {"row", "text"}:
                continue
            assert panel["description"].endswith("."), panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
            references = [target["refId"] for target in panel["targets"]]
            assert references
            assert len(set(references)) == len(references), panel["title"]
            assert all(target.get("expr", "").strip() or target["url"] for target in panel["targets"])

    @by_board
    def test_panels_do_not_overlap(self, path: Path) -> None:
        """Panels share no cell of the grid and stay within its 24 columns."""
        cells: set[tuple[int, int]] = set()
        for panel in read(path)["panels"]:
            x, y, width, height = (panel["gridPos"][key] for key in "xywh")
            assert x + width <= 24, panel["title"]
            own = {(column, row) for column in range(x, x + width) for row in range(y, y + height)}
            assert not own & cells, panel["title"]
            cells |= own

    @by_board
    def test_panels_ask_a_chosen_data_source(self, path: Path) -> None:
        """Panels and queries name a data source variable, whose default is provisioned."""
        provisioned = {
            source["uid"]: (source["type"], source["name"])
            for file in (ROOT / "monitoring/grafana/provisioning/datasources").glob("*.yml")
            for source in yaml.safe_load(file.read_text(encoding="utf-8"))["datasources"]
        }
        variables = {}
        for variable in read(path)["templating"]["list"]:
            if variable["type"] == "datasource":
                current = variable["current"]
                assert provisioned[current["value"]] == (variable["query"], current["text"])
                variables[f"${{{variable['name']}}}"] = variable["query"]
        for panel in data_panels(path):
            for item in [panel, *panel["targets"]]:
                source = item["datasource"]
                assert variables[source["uid"]] == source["type"], panel["title"]
        assert set(variables.values()) == {PROMETHEUS, API}

    @by_board
    def test_variables_are_all_used(self, path: Path) -> None:
        """A variable that changes nothing confuses; the ones of all dashboards travel with the links."""
        board = read(path)
        names = {variable["name"] for variable in board["templating"]["list"]}
        assert {"prometheus", "articles", "topic", "window"} <= names
        text = path.read_text(encoding="utf-8")
        for name in names - {"prometheus", "articles", "topic", "window"}:
            assert re.search(rf"\$(\{{{name}\b|{name}\b)", text), name
        assert all(variable["description"] for variable in board["templating"]["list"])

    @by_board
    def test_mark_alerts_and_model_changes(self, path: Path) -> None:
        """What happened stands beside the curves."""
        marks = {annotation["name"]: annotation["expr"] for annotation in read(path)["annotations"]["list"]}
        assert "ALERTS" in marks["Alerts"]
        assert "stancewatch_model_info" in marks["Model changes"]

    @by_board
    def test_lead_to_the_others(self, path: Path) -> None:
        """Every dashboard links those of its tag and takes variables and time along."""
        (link,) = read(path)["links"]
        assert (link["type"], link["tags"]) == ("dashboards", ["stancewatch"])
        assert (link["includeVars"], link["keepTime"]) == (True, True)
        assert "stancewatch" in read(path)["tags"]

    @by_board
    def test_links_arrive(self, path: Path) -> None:
        """A link goes to a dashboard that exists, sets variables that it has, and keeps the time range."""
        variables = {
            f"/d/{board['uid']}": {variable["name"] for variable in board["templating"]["list"]}
            for board in map(read, DASHBOARDS)
        }
        for url in links(path):
            if url == "${__data.fields.url}":
                continue
            kept = re.findall(r"\$\{(\w+):queryparam\}", url)
            names = [name.removeprefix("var-") for name, _ in parse_qsl(urlsplit(url).query)]
            assert {*kept, *names} <= variables[urlsplit(url).path], url
            assert url.endswith("${__url_time_range}"), url

    def test_numbers_lead_to_articles(self) -> None:
        """From volume, net stance and shares one click leads to the articles, with topic and stance."""
        found = {
            panel["title"]: [link["url"] for link in panel["fieldConfig"]["defaults"].get("links", [])]
            for panel in data_panels(ROOT / "monitoring/grafana/dashboards/topics-and-stance.json")
        }
        for title in ("Articles by topic", "Net stance by topic"):
            assert "var-topic=${__field.labels.topic}" in found[title][0]
        (shares,) = found["Stance shares by topic, last $window"]
        assert "var-topic=${__data.fields.topic}&var-stance=${__field.name}&var-window=${window}" in shares

    @by_board
    def test_stances_have_one_colour_each(self, path: Path) -> None:
        """Wherever a series is a stance, it has that stance's colour."""
        for panel in data_panels(path):
            for override in panel["fieldConfig"].get("overrides", []):
                stance = override["matcher"]["options"]
                if stance in STANCE_COLOURS and override["matcher"]["id"] == "byName":
                    (colour,) = [item["value"] for item in override["properties"] if item["id"] == "color"]
                    assert colour == {"mode": "fixed", "fixedColor": STANCE_COLOURS[stance]}

    def test_series_of_stances_are_coloured(self) -> None:
        """Panels that show stances as series are among those checked above."""
        coloured = [
            panel["title"]
            for path in DASHBOARDS
            for panel in data_panels(path)
            if {override["matcher"]["options"] for override in panel["fieldConfig"].get("overrides", [])}
            >= set(STANCE_COLOURS)
        ]
        assert coloured == [
            "What it is made of",
            "When they were published",
            "Stance shares by topic, last $window",
            "Stance shares over time, window of $window",
        ]


class TestQueries:
    """Each query, as text; tests/agents/test_dashboards.py runs them."""

    @by_board
    def test_use_metrics_that_exist(self, path: Path) -> None:
        """Queries ask for declared metrics and recorded figures, and never add up partitions themselves."""
        assert expressions(path)
        for expression in expressions(path):
            assert used(expression), expression
            assert used(expression) <= declared() | OTHERS, expression
            assert not re.search(r"stancewatch_(assessments_total|window_assessments)", expression), (
                expression
            )

    def test_know_what_exists(self) -> None:
        """The check above has the names it should, and finds one that is made up."""
        assert {"stancewatch_event_age_seconds_bucket", "stancewatch:window_topic:sum"} <= declared()
        assert "stancewatch_made_up" not in declared()
        assert used('a{b="stancewatch_x"} + stancewatch_made_up_total') == {"stancewatch_made_up_total"}

    def test_windows_are_those_of_the_counts(self) -> None:
        """The window variable offers what is counted; `all` only where the total stands in."""
        for path in DASHBOARDS:
            (window,) = [item for item in read(path)["templating"]["list"] if item["name"] == "window"]
            assert set(window["query"].split(",")) - {"all"} == set(WINDOW_HOURS)

    def test_infinity_queries_name_their_columns(self) -> None:
        """Queries of articles use the back end parser with typed columns, so that alerting could run them."""
        found = [query.target for query in all_queries() if query.source == API]
        assert len(found) >= 6
        for target in found:
            assert (target["parser"], target["source"], target["type"]) == ("backend", "url", "json")
            assert target["url"].startswith("/api/v1/")
            assert {column["type"] for column in target["columns"]} <= {"string", "number", "timestamp"}

    @needs_promtool
    @by_board
    def test_promtool_accepts_them(self, path: Path, tmp_path: Path) -> None:
        """Promtool parses every query, wrapped in a recording rule that any promtool can check."""
        rules = [
            {"record": f"dashboard:query:{index}", "expr": expr}
            for index, expr in enumerate(expressions(path))
        ]
        assert rules
        file = tmp_path / "rules.yml"
        file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
        promtool("check", "rules", "--lint=none", file)


class TestFilling:
    """tests/dashboards.py fills variables in as Grafana does."""

    @pytest.mark.parametrize(
        ("text", "default", "expected"),
        [
            ('{topic=~"$topic"}', "regex", '{topic=~"(cloud|export_controls)"}'),
            ('{window="$window"}', "regex", '{window="24h"}'),
            ("${topic:csv}", "", "cloud,export_controls"),
            ("rate(a[$__rate_interval])", "regex", "rate(a[5m])"),
        ],
    )
    def test_formats(self, text: str, default: str, expected: str) -> None:
        """Several values become a group in PromQL and a list with commas in an address."""
        assert filled(text, FILLED, default=default) == expected

    def test_unknown_names_are_errors(self) -> None:
        """A variable that no dashboard defines is not passed over."""
        with pytest.raises(KeyError, match="nothing"):
            filled("$nothing", FILLED)


class TestProvisioning:
    """Data sources and the folder of dashboards."""

    def test_prometheus_is_that_of_the_compose_file(self) -> None:
        """With its scrape interval; exemplars lead to the article."""
        (source,) = [item for item in sources() if item["type"] == "prometheus"]
        assert (source["uid"], source["url"]) == ("stancewatch-prometheus", "http://prometheus:9090")
        assert "prometheus" in services()
        scrape = load("monitoring/prometheus/prometheus.yml")["global"]["scrape_interval"]
        assert source["jsonData"]["timeInterval"] == scrape
        (exemplars,) = source["jsonData"]["exemplarTraceIdDestinations"]
        assert exemplars["name"] == "event_id"
        # `$$` is a plain `$` in provisioning files, where `$name` is a variable of the environment.
        assert exemplars["url"].startswith("/d/stancewatch-articles?var-event_id=$${__value.raw}")

    def test_articles_come_from_the_api(self) -> None:
        """The Infinity data source may ask the API service and nothing else."""
        (source,) = [item for item in sources() if item["type"] == API]
        port = services()["api"]["environment"]["STANCEWATCH_SERVE_PORT"]
        assert (source["uid"], source["url"]) == ("stancewatch-api", f"http://api:{port}")
        assert source["jsonData"]["allowedHosts"] == [source["url"]]

    def test_alertmanager_is_that_of_the_compose_file(self) -> None:
        """Grafana shows alerts of Prometheus as Alertmanager has them."""
        (source,) = [item for item in sources() if item["type"] == "alertmanager"]
        assert source["url"] == "http://alertmanager:9093"
        assert source["jsonData"]["implementation"] == "prometheus"
        assert "alertmanager" in services()

    def test_provider_reads_the_mounted_folder(self) -> None:
        """The dashboards are mounted where the provider looks, and the home dashboard is one of them."""
        (provider,) = load("monitoring/grafana/provisioning/dashboards/stancewatch.yml")["providers"]
        folder = provider["options"]["path"]
        assert f"./monitoring/grafana/dashboards:{folder}:ro" in services()["grafana"]["volumes"]
        home = services()["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
        assert home in {f"{folder}/{path.name}" for path in DASHBOARDS}


def sources() -> list[dict[str, Any]]:
    """All provisioned data sources."""
    folder = ROOT / "monitoring/grafana/provisioning/datasources"
    files = sorted(folder.glob("*.yml"))
    return [source for file in files for source in load(str(file.relative_to(ROOT)))["datasources"]]
