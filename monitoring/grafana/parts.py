"""What all dashboards share: colours, variables, queries, links, annotations.

The builders of the Grafana Foundation SDK do the writing; here stands the house style on top of them. The SDK
has no builder for queries of the Infinity plugin, so :func:`api` writes these.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from grafana_foundation_sdk.builders import barchart, bargauge, heatmap, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.builders.common import (
    ReduceDataOptions,
    StackingConfig,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.builders.prometheus import Dataquery as PromQuery
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.runtime import UnknownDataquery
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

__all__ = [
    "AGAINST",
    "ALL",
    "API",
    "BAD",
    "FAVOR",
    "GOOD",
    "NET_STANCE",
    "PROMETHEUS",
    "STANCE_COLOURS",
    "WARNING",
    "WINDOW",
    "Panel",
    "api",
    "article_link",
    "bars",
    "buckets",
    "change",
    "dashboard",
    "finished",
    "gauge_bars",
    "heat",
    "instant",
    "lines",
    "number",
    "override",
    "placed",
    "ranged",
    "rename",
    "rows",
    "scheme",
    "stance_colours",
    "steps",
    "text_box",
    "topic_variable",
    "window_variable",
]

PROMETHEUS = common.DataSourceRef(type_val="prometheus", uid="${prometheus}")
API = common.DataSourceRef(type_val="yesoreyeram-infinity-datasource", uid="${articles}")

# Distinct for all common kinds of colour blindness, and on dark and light ground (after Okabe and Ito).
FAVOR, AGAINST = "#56B4E9", "#D55E00"
STANCE_COLOURS = {"favor": FAVOR, "against": AGAINST, "neutral": "#999999", "unclear": "#CC79A7"}
GOOD, WARNING, BAD, PLAIN = "#009E73", "#E69F00", "#D55E00", "#8AB8FF"

ALL = "%24__all"  # `$__all`, what Grafana calls All, in an address
WINDOW = 'window="$window"'
NET_STANCE = "(favor - against) / (favor + against): 1 is all in favor, -1 all against, 0 balanced."

Panel = TypeVar(
    "Panel",
    barchart.Panel,
    bargauge.Panel,
    heatmap.Panel,
    stat.Panel,
    table.Panel,
    timeseries.Panel,
)


def placed(panel: Panel, title: str, description: str, unit: str, width: int, height: int) -> Panel:
    """What no panel may lack; the SDK places them from left to right, 24 columns a line."""
    return panel.title(title).description(description).unit(unit).span(width).height(height)


# queries


def ranged(ref_id: str, expr: str, legend: str = "", *, step: str = "", exemplars: bool = False) -> PromQuery:
    """A query over the dashboard's time range.

    Parameters
    ----------
    step : str
        Shortest distance of points, such as ``1h``; by default the data source's.
    exemplars : bool
        Show them as points: each leads to its article.
    """
    query = PromQuery().ref_id(ref_id).expr(expr).legend_format(legend or "__auto").range()
    query.datasource(PROMETHEUS).exemplar(exemplars)
    return query.interval(step) if step else query


def instant(ref_id: str, expr: str, legend: str = "") -> PromQuery:
    """A query of the newest values, as a table unless `legend` names series."""
    query = PromQuery().ref_id(ref_id).expr(expr).instant().datasource(PROMETHEUS).exemplar(False)
    if legend:
        return query.legend_format(legend)
    return query.format(PromQueryFormat.TABLE)


def buckets(query: PromQuery) -> PromQuery:
    """A query of a histogram's buckets: Prometheus counts them cumulatively, Grafana takes them apart."""
    return query.format(PromQueryFormat.HEATMAP)


class _Api(Builder[Dataquery]):
    def __init__(self, query: dict[str, Any]) -> None:
        self.query = query

    def build(self) -> Dataquery:
        return UnknownDataquery(self.query)


def api(
    ref_id: str, path: str, root: str, columns: Sequence[tuple[str, str, str]], params: Mapping[str, str]
) -> Builder[Dataquery]:
    """A query of Stancewatch's HTTP API by the Infinity data source.

    Parameters
    ----------
    root : str
        Field of the answer that holds the rows.
    columns : sequence of (str, str, str)
        Path within a row (parts joined by dots, numbers index lists), title, type.
    params : mapping
        Query parameters; empty ones count as not given.
    """
    return _Api(
        {
            "refId": ref_id,
            "datasource": {"type": API.type_val, "uid": API.uid},
            "type": "json",
            "parser": "backend",
            "source": "url",
            "format": "table",
            "url": path,
            "url_options": {
                "method": "GET",
                "data": "",
                "params": [{"key": key, "value": value} for key, value in params.items()],
            },
            "root_selector": root,
            "columns": [{"selector": path, "text": text, "type": kind} for path, text, kind in columns],
            "filters": [],
        }
    )


# panels


def number() -> stat.Panel:
    """Big numbers, one for each series, each with its course behind it."""
    panel = stat.Panel().datasource(PROMETHEUS).color_scheme(scheme("fixed", PLAIN))
    panel.reduce_options(ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
    return panel.graph_mode(common.BigValueGraphMode.AREA).text_mode(common.BigValueTextMode.VALUE_AND_NAME)


def lines(*, stacked: bool = False, legend: Sequence[str] = ("lastNotNull",)) -> timeseries.Panel:
    """Courses over time with a table of their values."""
    panel = timeseries.Panel().datasource(PROMETHEUS).color_scheme(scheme("palette-classic-by-name"))
    panel.line_width(2).show_points(common.VisibilityMode.NEVER).fill_opacity(40 if stacked else 0)
    panel.legend(
        VizLegendOptions()
        .display_mode(common.LegendDisplayMode.TABLE if legend else common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(list(legend))
    )
    panel.tooltip(VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING))
    if stacked:
        panel.stacking(StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    return panel


def bars(x_field: str, *, across: bool = False, percent: bool = False) -> barchart.Panel:
    """Stacked bars, one for each row."""
    panel = barchart.Panel().x_field(x_field).fill_opacity(85).line_width(0).full_highlight(False)
    panel.orientation(common.VizOrientation.HORIZONTAL if across else common.VizOrientation.VERTICAL)
    panel.stacking(common.StackingMode.PERCENT if percent else common.StackingMode.NORMAL)
    panel.show_value(common.VisibilityMode.AUTO).color_scheme(scheme("palette-classic-by-name"))
    panel.tooltip(VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.NONE))
    return panel.legend(
        VizLegendOptions()
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs([])
    )


def gauge_bars() -> bargauge.Panel:
    """One bar for each series, with its value."""
    panel = bargauge.Panel().datasource(PROMETHEUS).orientation(common.VizOrientation.HORIZONTAL)
    panel.reduce_options(ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
    return panel.display_mode(common.BarGaugeDisplayMode.BASIC).value_mode(common.BarGaugeValueMode.TEXT)


def heat() -> heatmap.Panel:
    """Series as rows, time as columns, values as brightness of one hue."""
    colours = (
        heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues").steps(32).reverse(False)
    )
    panel = heatmap.Panel().datasource(PROMETHEUS).calculate(False).color(colours).cell_gap(1)
    return panel.show_legend().mode(common.TooltipDisplayMode.SINGLE).show_color_scale(True)


def rows() -> table.Panel:
    """A table."""
    return table.Panel().cell_height(common.TableCellHeight.SM).show_header(True).filterable(True)


# colours and thresholds


def scheme(mode: str, colour: str = "") -> board.FieldColor:
    """How values get their colours."""
    colours = board.FieldColor().mode(model.FieldColorModeId(mode))
    return colours.fixed_color(colour) if colour else colours


def steps(*pairs: tuple[float | None, str]) -> board.ThresholdsConfig:
    """Thresholds; the first begins at None, the lowest."""
    return (
        board.ThresholdsConfig()
        .mode(model.ThresholdsMode.ABSOLUTE)
        .steps([model.Threshold(value=value, color=colour) for value, colour in pairs])
    )


def override(panel: Panel, field: str, **properties: object) -> Panel:
    """Settings of one field; names as in Grafana, with ``__`` for dots (``custom__width``)."""
    values = [
        model.DynamicConfigValue(id_val=name.replace("__", "."), value=value)
        for name, value in properties.items()
    ]
    return panel.override_by_name(field, values)


def stance_colours(panel: Panel) -> Panel:
    """The same colour for a stance everywhere."""
    for stance, colour in STANCE_COLOURS.items():
        override(panel, stance, color={"mode": "fixed", "fixedColor": colour})
    return panel


def change(identifier: str, **options: object) -> model.DataTransformerConfig:
    """A transformation of what the queries brought."""
    return model.DataTransformerConfig(id_val=identifier, options=options)


def rename(names: Mapping[str, str], *, without: Sequence[str] = ()) -> model.DataTransformerConfig:
    """Name, order and leave out columns."""
    return change(
        "organize",
        excludeByName=dict.fromkeys(without, True),
        indexByName={name: place for place, name in enumerate(names)},
        renameByName=dict(names),
    )


# links


def article_link(title: str = "Articles behind this number", **variables: str) -> board.DashboardLink:
    """From a number to its articles: of the topics chosen here, every stance, this window, this time range.

    `variables` take the place of these, such as ``topic="${__field.labels.topic}"``.
    """
    values = {"topic": "${topic:queryparam}", "stance": ALL, "window": "${window}", **variables}
    query = "&".join(
        value if value.endswith(":queryparam}") else f"var-{name}={value}" for name, value in values.items()
    )
    return board.DashboardLink(title).url(f"/d/stancewatch-articles?{query}&${{__url_time_range}}")


# variables and annotations


def _option(text: str, value: str = "") -> model.VariableOption:
    return model.VariableOption(selected=True, text=text, value=value or text)


def _sources() -> list[board.DatasourceVariable]:
    prometheus = board.DatasourceVariable("prometheus").label("Prometheus").type("prometheus")
    articles = board.DatasourceVariable("articles").label("Articles").type(API.type_val or "")
    return [
        prometheus.current(_option("Prometheus", "stancewatch-prometheus")).description(
            "Where the counts come from."
        ),
        articles.current(_option("Articles", "stancewatch-api")).description("Where the articles come from."),
    ]


def topic_variable() -> board.QueryVariable:
    """Topics that the counts know."""
    every = model.VariableOption(selected=True, text=["All"], value=["$__all"])
    topic = board.QueryVariable("topic").label("Topic").datasource(PROMETHEUS).multi(True).include_all(True)
    topic.query(
        {
            "qryType": 1,
            "query": "label_values(stancewatch:assessments:sum, topic)",
            "refId": "topic",
        }
    )
    topic.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(model.VariableSort.ALPHABETICAL_ASC)
    return topic.current(every).description("Topics of the taxonomy, your own included.")


def window_variable(*windows: str) -> board.CustomVariable:
    """How far back the windows look; 24h at first."""
    window = board.CustomVariable("window").label("Window").values(",".join(windows)).current(_option("24h"))
    return window.description(
        "How far back to look by the time of publication; the running hour is included."
    )


def text_box(name: str, label: str, description: str) -> board.TextBoxVariable:
    """A filter to type in, or to be set by a link; empty for none."""
    box = board.TextBoxVariable(name).label(label).default_value("").description(description)
    return box.current(_option("", ""))


ANNOTATIONS: tuple[dict[str, Any], ...] = (
    {
        "name": "Alerts",
        "enable": True,
        "hide": False,
        "iconColor": BAD,
        "datasource": {"type": PROMETHEUS.type_val, "uid": PROMETHEUS.uid},
        "expr": 'max by (alertname, severity, topic) (ALERTS{alertstate="firing"})',
        "step": "60s",
        "titleFormat": "{{alertname}}",
        "textFormat": "{{severity}} {{topic}}",
        "tagKeys": "alertname,severity,topic",
    },
    {
        "name": "Model changes",
        "enable": True,
        "hide": False,
        "iconColor": "#CC79A7",
        "datasource": {"type": PROMETHEUS.type_val, "uid": PROMETHEUS.uid},
        "expr": "group by (name, sha256) (stancewatch_model_info)"
        " unless group by (name, sha256) (stancewatch_model_info offset 5m)",
        "step": "60s",
        "titleFormat": "Model {{name}}",
        "textFormat": "began to decide; sha256 {{sha256}}",
        "tagKeys": "name",
    },
)
"""Written as they are: the SDK's type lacks the titles that the Prometheus data source reads."""


# dashboards


def dashboard(
    uid: str,
    title: str,
    description: str,
    time_from: str,
    variables: Sequence[Builder[model.VariableModel]],
) -> board.Dashboard:
    """A dashboard without panels: UTC, refreshed, linked with the others."""
    others = (
        board.DashboardLink("Dashboards")
        .type(model.DashboardLinkType.DASHBOARDS)
        .tags(["stancewatch"])
        .tooltip("The other dashboards, for the same topics and time")
        .keep_time(True)
        .include_vars(True)
    )
    built = board.Dashboard(title).uid(uid).description(description).tags(["stancewatch"]).link(others)
    built.timezone("utc").refresh("30s").time(time_from, "now").editable()
    built.tooltip(model.DashboardCursorSync.CROSSHAIR)
    return built.variables([*_sources(), *variables])


def finished(built: board.Dashboard) -> dict[str, Any]:
    """The dashboard as plain data, with panels numbered and annotations.

    Without defaults of the SDK that Grafana no longer has (``make check-dashboards`` finds them).
    """
    plain: dict[str, Any] = json.loads(JSONEncoder().encode(built.build()))
    for variable in plain["templating"]["list"]:
        for name in ("auto", "auto_min", "auto_count"):
            variable.pop(name, None)
    numbered = 0
    for panel in plain["panels"]:
        for inner in [panel, *panel.get("panels", [])]:
            numbered += 1
            inner["id"] = numbered
            inner.get("options", {}).pop("footer", None)
    plain["annotations"] = {"list": [dict(annotation) for annotation in ANNOTATIONS]}
    return plain
