"""*Model*: how sure the classifier is, and whether it still meets what it was trained for."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.builders.common import GraphThresholdsStyleConfig
from grafana_foundation_sdk.models.common import BigValueColorMode, GraphThresholdsStyleMode

from monitoring.grafana.parts import (
    BAD,
    GOOD,
    PROMETHEUS,
    STANCE_COLOURS,
    WARNING,
    WINDOW,
    article_link,
    buckets,
    dashboard,
    gauge_bars,
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
    steps,
    topic_variable,
    window_variable,
)

__all__ = ["build"]

TOPIC = 'topic=~"$topic"'
RATE = "$__rate_interval"
EXPECTED = {
    "color": {"mode": "fixed", "fixedColor": "#999999"},
    "custom__lineStyle": {"fill": "dash", "dash": [10, 10]},
}
UNCLEAR = f'stancewatch:window_assessments:sum{{{TOPIC}, {WINDOW}, stance="unclear"}}'
EVERY = f"stancewatch:window_assessments:sum{{{TOPIC}, {WINDOW}}}"


def build() -> board.Dashboard:
    """Confidence, drift, languages, versions."""
    built = dashboard(
        "stancewatch-model",
        "Model",
        "How sure the classifier is, whether the news still looks like its training, which model decides.",
        "now-24h",
        [topic_variable(), window_variable("1h", "24h", "7d")],
    )
    _drift(built.with_row(board.Row("Against what training measured")))
    _confidence(built.with_row(board.Row("Confidence")))
    _versions(built.with_row(board.Row("Languages and versions")))
    return built


def _drift(built: board.Dashboard) -> None:
    unclear = placed(
        number(),
        "Unclear, last $window",
        "Share of the chosen topics' articles without a probable stance. What training measured stands beside"
        " it; far more than that: the news changed.",
        "percentunit",
        6,
        8,
    ).with_target(ranged("A", f"sum({UNCLEAR}) / (sum({EVERY}) > 0)", "unclear"))
    unclear.decimals(1).min(0).max(1).thresholds(steps((None, GOOD), (0.15, WARNING), (0.3, BAD)))
    unclear.color_scheme(scheme("thresholds")).color_mode(BigValueColorMode.VALUE)
    built.with_panel(unclear.data_links([article_link("The unclear articles", stance="unclear")]))

    course = placed(
        lines(),
        "Unclear share by topic against expected",
        "Share of unclear stances in the window; dashed what training measured for the shipped topics.",
        "percentunit",
        9,
        8,
    )
    course.with_target(
        ranged(
            "A",
            f"sum by (topic) ({UNCLEAR}) / (sum by (topic) ({EVERY}) > 0)",
            "{{topic}}",
        )
    )
    course.with_target(ranged("B", "max(stancewatch_expected_unclear_ratio)", "expected"))
    override(course, "expected", **EXPECTED)
    link = article_link("The unclear articles", topic="${__field.labels.topic}", stance="unclear")
    built.with_panel(course.min(0).decimals(1).data_links([link]))

    mean = placed(
        lines(),
        "Mean confidence against expected",
        "Mean probability of the most probable stance over an hour; dashed what training measured.",
        "percentunit",
        9,
        8,
    )
    mean.with_target(
        ranged(
            "A",
            f"sum by (topic) (rate(stancewatch_stance_probability_sum{{{TOPIC}}}[1h]))"
            f" / (sum by (topic) (rate(stancewatch_stance_probability_count{{{TOPIC}}}[1h])) > 0)",
            "{{topic}}",
        )
    )
    mean.with_target(ranged("B", "max(stancewatch_expected_stance_probability_ratio)", "expected"))
    override(mean, "expected", **EXPECTED)
    built.with_panel(mean.min(0.3).max(1).decimals(0))


def _confidence(built: board.Dashboard) -> None:
    distribution = placed(
        gauge_bars(),
        "Confidence in the time range",
        "How many stances had a probability up to each bound and above the one before (estimated). Below 0.4"
        " a stance is unclear.",
        "short",
        8,
        9,
    ).with_target(
        buckets(
            instant(
                "A",
                f"sum by (le) (increase(stancewatch_stance_probability_bucket{{{TOPIC}}}[$__range]))",
                "{{le}}",
            )
        )
    )
    distribution.color_scheme(scheme("fixed", STANCE_COLOURS["favor"])).decimals(0).min(0)
    built.with_panel(distribution)

    over_time = placed(
        heat(),
        "Confidence over time",
        "Stances by probability; the darker, the more.",
        "short",
        8,
        9,
    ).with_target(
        buckets(
            ranged(
                "A",
                f"sum by (le) (increase(stancewatch_stance_probability_bucket{{{TOPIC}}}[{RATE}]))",
                "{{le}}",
            )
        )
    )
    built.with_panel(over_time)

    quantiles = placed(
        lines(),
        "Confidence by topic, median",
        "Half of the stances are surer than this. Topics without a model of stance are missing.",
        "percentunit",
        8,
        9,
    ).with_target(
        ranged(
            "A",
            "histogram_quantile(0.5, sum by (topic, le)"
            f" (rate(stancewatch_stance_probability_bucket{{{TOPIC}}}[1h])))",
            "{{topic}}",
        )
    )
    quantiles.min(0.3).max(1).decimals(0).thresholds(steps((None, "transparent"), (0.4, WARNING)))
    quantiles.thresholds_style(GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.LINE))
    built.with_panel(quantiles)


def _versions(built: board.Dashboard) -> None:
    languages = placed(
        lines(stacked=True),
        "Articles by language",
        "Accepted articles a second; other languages get no topic and are counted as unsupported_language.",
        "reqps",
        8,
        8,
    ).with_target(
        ranged("A", f"sum by (language) (rate(stancewatch_languages_total[{RATE}]))", "{{language}}")
    )
    built.with_panel(languages.min(0))

    share = placed(
        number(),
        "In a language it knows",
        "Share of all accepted articles since the workers started.",
        "percentunit",
        4,
        8,
    ).with_target(
        instant(
            "A",
            'sum(stancewatch_languages_total{language!="other"}) / (sum(stancewatch_languages_total) > 0)',
            "known",
        )
    )
    share.decimals(1).thresholds(steps((None, BAD), (0.5, WARNING), (0.9, GOOD)))
    built.with_panel(share.color_scheme(scheme("thresholds")).color_mode(BigValueColorMode.VALUE))

    versions = placed(
        rows().datasource(PROMETHEUS),
        "Models that decide",
        "Each worker's model by name and content hash. More than one hash: workers disagree, or an update is"
        " under way.",
        "short",
        12,
        8,
    ).with_target(instant("A", "group by (instance, name, sha256) (stancewatch_model_info)"))
    versions.with_transformation(
        rename({"instance": "worker", "name": "model", "sha256": "sha256"}, without=["Time", "Value"])
    )
    built.with_panel(versions)
