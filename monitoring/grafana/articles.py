"""*Article behind the number*: from a count down to the sentence that decided."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.models import dashboard as model

from monitoring.grafana.parts import (
    API,
    NET_STANCE,
    STANCE_COLOURS,
    api,
    bars,
    change,
    dashboard,
    instant,
    number,
    override,
    placed,
    rename,
    rows,
    stance_colours,
    text_box,
    topic_variable,
    window_variable,
)

__all__ = ["ARTICLE_COLUMNS", "article_table", "build"]

ARTICLE_COLUMNS = (
    ("published_at", "published", "timestamp"),
    ("topic", "topic", "string"),
    ("stance", "stance", "string"),
    ("evidence.0.text", "evidence", "string"),
    ("title", "title", "string"),
    ("source", "source", "string"),
    ("stance_probability", "sure", "number"),
    ("url", "url", "string"),
    ("event_id", "event", "string"),
)
FIGURES = ("favor", "against", "neutral", "unclear")
CHOSEN = {
    "topic": "${topic:csv}",
    "stance": "${stance:csv}",
    "source": "${source}",
    "event_id": "${event_id}",
}
SELECTED = 'topic=~"$topic", stance=~"$stance"'


def article_table(title: str, description: str, width: int, height: int) -> table.Panel:
    """A table of articles: stances in their colours, titles lead to the publisher, sources filter."""
    panel = placed(rows().datasource(API), title, description, "none", width, height)
    panel.no_value("no articles")
    override(panel, "published", unit="dateTimeAsIso", custom__width=170)
    override(panel, "topic", custom__width=140)
    override(
        panel,
        "stance",
        custom__width=90,
        custom__cellOptions={"type": "color-text"},
        mappings=[
            {
                "type": "value",
                "options": {
                    stance: {"text": stance, "color": colour, "index": place}
                    for place, (stance, colour) in enumerate(STANCE_COLOURS.items())
                },
            }
        ],
    )
    override(panel, "evidence", custom__wrapText=True, custom__minWidth=320)
    override(
        panel,
        "title",
        custom__minWidth=220,
        links=[{"title": "Read it at its publisher", "url": "${__data.fields.url}", "targetBlank": True}],
    )
    override(
        panel,
        "source",
        custom__width=150,
        links=[
            {
                "title": "Only this source",
                "url": "/d/stancewatch-articles?var-topic=${__data.fields.topic}"
                "&var-source=${__value.text}&var-window=${window}&${__url_time_range}",
            }
        ],
    )
    override(panel, "sure", unit="percentunit", decimals=0, custom__width=70)
    override(panel, "url", custom__hideFrom={"viz": True, "legend": True, "tooltip": True})
    return override(
        panel,
        "event",
        custom__width=130,
        links=[
            {
                "title": "Only this event",
                "url": "/d/stancewatch-articles?var-event_id=${__value.text}&var-window=all"
                "&${__url_time_range}",
            }
        ],
    )


def build() -> board.Dashboard:
    """The number, what it is made of, and its articles."""
    every = model.VariableOption(selected=True, text=["All"], value=["$__all"])
    stance = (
        board.CustomVariable("stance")
        .label("Stance")
        .description("unclear: no stance was probable enough.")
        .values(",".join(STANCE_COLOURS))
        .multi(True)
        .include_all(True)
        .current(every)
    )
    built = dashboard(
        "stancewatch-articles",
        "Article behind the number",
        "Which articles a count is made of, and the sentence that decided for each.",
        "now-7d",
        [
            topic_variable(),
            stance,
            window_variable("1h", "24h", "7d", "all"),
            text_box("source", "Source", "Only this source; empty for all. Click a source below to fill it."),
            text_box("event_id", "Event", "Only this event; empty for all. Exemplars lead here."),
        ],
    )
    _number(built.with_row(board.Row("The number")))
    _articles(built.with_row(board.Row("Its articles")))
    return built


def _number(built: board.Dashboard) -> None:
    exact = placed(
        number(),
        "Articles counted",
        "The exact count of the chosen topics and stances in the window (all: since the beginning), as on the"
        " other dashboards. Sources are not counted: compare the table beside it.",
        "short",
        4,
        8,
    )
    # `all` is no window of the counts: then only the total answers.
    exact.with_target(
        instant(
            "A",
            f'sum(stancewatch:window_assessments:sum{{{SELECTED}, window="$window"}})'
            f" or (sum(stancewatch:assessments:sum{{{SELECTED}}}) and on () (vector(1) unless on ()"
            ' group(stancewatch:window_assessments:sum{window="$window"})))',
            "articles",
        )
    )
    built.with_panel(exact.decimals(0))

    made_of = placed(
        rows().datasource(API),
        "What it is made of",
        f"Articles by stance, now and in the window before. {NET_STANCE} Counted in the articles that are"
        " kept, for the chosen source.",
        "short",
        12,
        8,
    )
    columns = [("topic", "topic", "string"), ("total", "articles", "number")]
    columns += [(name, name, "number") for name in FIGURES]
    columns += [("net_stance", "net stance", "number"), ("previous.total", "before", "number")]
    made_of.with_target(
        api(
            "A",
            "/api/v1/counts",
            "topics",
            columns,
            {"topic": "${topic:csv}", "window": "${window}", "source": "${source}"},
        )
    )
    override(made_of, "net stance", unit="none", decimals=2)
    built.with_panel(stance_colours(made_of.no_value("no articles")))

    sources = placed(
        rows().datasource(API),
        "Sources",
        "Who wrote them, the most active first. Click one to see its articles only.",
        "short",
        8,
        8,
    ).with_target(
        api(
            "A",
            "/api/v1/sources",
            "sources",
            [
                ("source", "source", "string"),
                ("articles", "articles", "number"),
                ("last_published_at", "newest", "timestamp"),
            ],
            {"topic": "${topic:csv}", "window": "${window}"},
        )
    )
    override(sources, "newest", unit="dateTimeAsIso")
    override(
        sources,
        "source",
        links=[
            {
                "title": "Only this source",
                "url": "/d/stancewatch-articles?${topic:queryparam}&${stance:queryparam}&var-window=${window}"
                "&var-source=${__value.text}&${__url_time_range}",
            }
        ],
    )
    built.with_panel(sources.no_value("no articles"))


def _articles(built: board.Dashboard) -> None:
    found = article_table(
        "Articles in the window",
        "The newest 200 of the chosen topics, stances and source, with the sentence that decided and how sure"
        " the model was of the stance. The API pages through all of them.",
        24,
        14,
    )
    found.with_target(
        api(
            "A",
            "/api/v1/articles",
            "articles",
            ARTICLE_COLUMNS,
            {**CHOSEN, "window": "${window}", "limit": "200"},
        )
    )
    built.with_panel(found)

    by_hour = placed(
        bars("time").datasource(API),
        "When they were published",
        "Articles by hour of publication, whatever the dashboard's time range (all: the last 14 days that"
        " have articles).",
        "short",
        24,
        8,
    ).with_target(
        api(
            "A",
            "/api/v1/trend",
            "points",
            [("time", "time", "timestamp"), *[(name, name, "number") for name in FIGURES]],
            {"topic": "${topic:csv}", "window": "${window}", "source": "${source}"},
        )
    )
    sums = {name: {"operation": "aggregate", "aggregations": ["sum"]} for name in FIGURES}
    by_hour.with_transformation(
        change("groupBy", fields={"time": {"operation": "groupby", "aggregations": []}, **sums})
    )
    by_hour.with_transformation(rename({"time": "time", **{f"{name} (sum)": name for name in FIGURES}}))
    built.with_panel(stance_colours(by_hour.x_tick_label_spacing(100)))

    ranged_articles = article_table(
        "Articles published in the dashboard's time range",
        "The same for the time range at the top right, such as that of a click on a heat map.",
        24,
        12,
    )
    ranged_articles.with_target(
        api(
            "A",
            "/api/v1/articles",
            "articles",
            ARTICLE_COLUMNS,
            {**CHOSEN, "since": "${__from:date:iso}", "until": "${__to:date:iso}", "limit": "200"},
        )
    )
    built.with_panel(ranged_articles)
