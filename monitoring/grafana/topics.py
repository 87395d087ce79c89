"""*Topics and stance*: what is talked about, on which side it stands, what changed."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.builders.common import GraphThresholdsStyleConfig
from grafana_foundation_sdk.models.common import BigValueColorMode, GraphThresholdsStyleMode

from monitoring.grafana.articles import ARTICLE_COLUMNS, article_table
from monitoring.grafana.parts import (
    AGAINST,
    FAVOR,
    NET_STANCE,
    PROMETHEUS,
    WINDOW,
    api,
    article_link,
    bars,
    change,
    dashboard,
    heat,
    instant,
    lines,
    number,
    override,
    placed,
    ranged,
    rename,
    rows,
    scheme,
    stance_colours,
    steps,
    topic_variable,
    window_variable,
)

__all__ = ["build"]

TOPIC = 'topic=~"$topic"'
VOLUME = f"stancewatch:window_topic:sum{{{TOPIC}, {WINDOW}}}"
NET = f"stancewatch:window_net_stance:ratio{{{TOPIC}, {WINDOW}}}"
WEEK = f'stancewatch:window_topic:sum{{{TOPIC}, window="7d"}}'
WEEK_NET = f'stancewatch:window_net_stance:ratio{{{TOPIC}, window="7d"}}'
LEANING = steps((None, AGAINST), (-0.2, "#999999"), (0.2, FAVOR))


def build() -> board.Dashboard:
    """All panels, from the glance to the single article."""
    built = dashboard(
        "stancewatch-topics",
        "Topics and stance",
        "What is talked about, on which side it stands, what changed, which articles are behind a number.",
        "now-7d",
        [topic_variable(), window_variable("1h", "24h", "7d")],
    )
    _glance(built.with_row(board.Row("Published in the last $window")))
    _course(built.with_row(board.Row("How it developed")))
    _articles(built.with_row(board.Row("Articles and alerts")))
    _emerging(built.with_row(board.Row("Emerging topics (needs `stancewatch discover`)")))
    return built


def _glance(built: board.Dashboard) -> None:
    volume = placed(
        number(),
        "Articles by topic",
        "Articles published in the window, by topic. Exact: read from the workers' state, whatever restarts"
        " or moves. An article with two topics counts in both. Click for the articles.",
        "short",
        8,
        7,
    ).with_target(ranged("A", VOLUME, "{{topic}}"))
    built.with_panel(volume.decimals(0).data_links([article_link(topic="${__field.labels.topic}")]))

    net = placed(
        number(),
        "Net stance by topic",
        f"{NET_STANCE} Orange below -0.2, blue above 0.2. Neutral and unclear articles do not count here;"
        " with a handful of articles it says little.",
        "none",
        8,
        7,
    ).with_target(ranged("A", NET, "{{topic}}"))
    net.decimals(2).min(-1).max(1).no_value("no article takes a side")
    net.thresholds(LEANING).color_scheme(scheme("thresholds")).color_mode(BigValueColorMode.VALUE)
    built.with_panel(net.data_links([article_link(topic="${__field.labels.topic}")]))

    week = placed(
        rows().datasource(PROMETHEUS),
        "Change against the week before",
        "Articles of the last 7 days and of the 7 days before, and how the net stance moved (2 is from all"
        " against to all in favor). Needs a week of history in Prometheus, or one that was backfilled.",
        "short",
        8,
        7,
    )
    week.with_target(instant("A", WEEK)).with_target(instant("B", f"{WEEK} offset 7d"))
    week.with_target(instant("C", f"({WEEK} - {WEEK} offset 7d) / ({WEEK} offset 7d > 0)"))
    week.with_target(instant("D", f"{WEEK_NET} - {WEEK_NET} offset 7d"))
    week.with_transformation(change("merge"))
    columns = {
        "topic": "topic",
        "Value #A": "7 days",
        "Value #B": "before",
        "Value #C": "change",
        "Value #D": "stance shift",
    }
    week.with_transformation(rename(columns, without=["Time", "window", "__name__"]))
    week.no_value("no history of a week yet")
    override(week, "topic", custom__width=150)
    override(week, "change", unit="percentunit", decimals=0)
    override(
        week,
        "stance shift",
        unit="none",
        decimals=2,
        custom__cellOptions={"type": "color-text"},
        color={"mode": "thresholds"},
        thresholds={
            "mode": "absolute",
            "steps": [
                {"value": None, "color": AGAINST},
                {"value": -0.1, "color": "#999999"},
                {"value": 0.1, "color": FAVOR},
            ],
        },
    )
    link = article_link("Articles of this week", topic="${__data.fields.topic}", window="7d")
    built.with_panel(week.data_links([link]))


def _course(built: board.Dashboard) -> None:
    volume = placed(
        lines(),
        "Articles by topic, window of $window",
        "At each moment the articles published in the window before it.",
        "short",
        12,
        9,
    ).with_target(ranged("A", VOLUME, "{{topic}}"))
    built.with_panel(volume.min(0).data_links([article_link(topic="${__field.labels.topic}")]))

    net = placed(
        lines(),
        "Net stance by topic, window of $window",
        f"{NET_STANCE} A gap: no article took a side.",
        "none",
        12,
        9,
    ).with_target(ranged("A", NET, "{{topic}}"))
    net.min(-1).max(1).decimals(2).axis_label("against  <  0  >  favor")
    net.thresholds(steps((None, "transparent"), (0, "#999999")))
    net.thresholds_style(GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.LINE))
    built.with_panel(net.data_links([article_link(topic="${__field.labels.topic}")]))

    shares = placed(
        bars("topic", across=True, percent=True).datasource(PROMETHEUS),
        "Stance shares by topic, last $window",
        "How the articles of each topic divide; the tooltip has their number. unclear: no stance was probable"
        " enough.",
        "short",
        12,
        8,
    ).with_target(
        instant("A", f"sum by (topic, stance) (stancewatch:window_assessments:sum{{{TOPIC}, {WINDOW}}})")
    )
    shares.with_transformation(
        change(
            "groupingToMatrix", columnField="stance", rowField="topic", valueField="Value", emptyValue="zero"
        )
    )
    order = {"topic\\stance": "topic", **{name: name for name in ("favor", "against", "neutral", "unclear")}}
    shares.with_transformation(rename(order))
    built.with_panel(
        stance_colours(shares).data_links(
            [article_link(topic="${__data.fields.topic}", stance="${__field.name}")]
        )
    )

    course = placed(
        lines(stacked=True),
        "Stance shares over time, window of $window",
        "Shares of all chosen topics together.",
        "percentunit",
        12,
        8,
    ).with_target(
        ranged(
            "A",
            f"sum by (stance) (stancewatch:window_assessments:sum{{{TOPIC}, {WINDOW}}}) / ignoring (stance)"
            f" group_left () (sum (stancewatch:window_assessments:sum{{{TOPIC}, {WINDOW}}}) > 0)",
            "{{stance}}",
        )
    )
    course.min(0).max(1).decimals(0)
    built.with_panel(stance_colours(course).data_links([article_link(stance="${__field.labels.stance}")]))

    hours = placed(
        heat(),
        "Articles by topic and hour",
        "Articles that were published and assessed within the same hour, the most of each hour. What arrives"
        " later is missing here and counted everywhere else.",
        "short",
        24,
        7,
    ).with_target(
        ranged(
            "A",
            f'max_over_time(stancewatch:window_topic:sum{{{TOPIC}, window="1h"}}[1h])',
            "{{topic}}",
            step="1h",
        )
    )
    built.with_panel(hours.data_links([article_link(window="all")]))


def _articles(built: board.Dashboard) -> None:
    latest = article_table(
        "Latest articles",
        "The newest articles of the chosen topics in the window, with the sentence that decided. One line for"
        " each topic of an article.",
        24,
        11,
    )
    latest.with_target(
        api(
            "A",
            "/api/v1/articles",
            "articles",
            ARTICLE_COLUMNS,
            {"topic": "${topic:csv}", "window": "${window}", "limit": "50"},
        )
    )
    built.with_panel(latest)

    firing = placed(
        rows().datasource(PROMETHEUS),
        "Firing alerts",
        "What Prometheus finds alarming now, for analysts and for those on call.",
        "none",
        24,
        5,
    ).with_target(instant("A", 'max by (alertname, severity, topic) (ALERTS{alertstate="firing"})'))
    firing.with_transformation(
        rename({"alertname": "alert", "severity": "severity", "topic": "topic"}, without=["Time", "Value"])
    )
    built.with_panel(firing.no_value("none"))


def _emerging(built: board.Dashboard) -> None:
    described = (
        " * on (slot) group_left (label, words, id, signal)"
        " max by (slot, label, words, id, signal) (stancewatch_emerging_info)"
    )
    documents = f"max by (slot) (stancewatch_emerging_documents){described}"
    growth = f"max by (slot) (stancewatch_emerging_growth_ratio){described}"
    course = placed(
        lines(),
        "Documents of emerging topics",
        "Articles of each group that `stancewatch discover` finds beside the taxonomy. A slot is reused when"
        " its topic fades.",
        "short",
        12,
        8,
    ).with_target(ranged("A", documents, "{{label}}"))
    built.with_panel(course.min(0).no_value("discover does not run"))

    found = placed(
        rows().datasource(PROMETHEUS),
        "Emerging topics now",
        "Words that set the group apart, its articles, and its share of the recent ones over that before (2:"
        " twice as large).",
        "short",
        12,
        8,
    )
    found.with_target(instant("A", documents))
    found.with_target(instant("B", growth))
    found.with_transformation(change("merge"))
    columns = {
        "label": "topic",
        "words": "words",
        "signal": "signal",
        "Value #A": "articles",
        "Value #B": "growth",
    }
    found.with_transformation(rename(columns, without=["Time", "slot", "id", "instance", "job", "__name__"]))
    override(found, "growth", unit="none", decimals=1)
    built.with_panel(found.no_value("discover does not run"))

    signals = placed(
        number(),
        "Emerging topics by signal",
        "How many groups of articles there are of each kind that `stancewatch discover` tells apart.",
        "short",
        24,
        4,
    ).with_target(ranged("A", "sum by (signal) (stancewatch_emerging_signals)", "{{signal}}"))
    built.with_panel(signals.decimals(0).no_value("discover does not run"))
