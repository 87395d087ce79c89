"""*Pipeline*: is it alive, fast and honest."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.builders import stat, timeseries
from grafana_foundation_sdk.models.common import BigValueColorMode, BigValueGraphMode

from monitoring.grafana.parts import (
    BAD,
    GOOD,
    PROMETHEUS,
    WARNING,
    change,
    dashboard,
    gauge_bars,
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

RATE = "$__rate_interval"


def build() -> board.Dashboard:
    """From four lights to the details."""
    built = dashboard(
        "stancewatch-pipeline",
        "Pipeline",
        "Whether events arrive, are handled in time and without loss.",
        "now-3h",
        [topic_variable(), window_variable("1h", "24h", "7d")],
    )
    _lights(built.with_row(board.Row("Now")))
    _flow(built.with_row(board.Row("Flow")))
    _latency(built.with_row(board.Row("Latency")))
    _state(built.with_row(board.Row("State and rebalances")))
    return built


def _light(
    title: str, description: str, unit: str, expr: str, *limits: tuple[float | None, str]
) -> stat.Panel:
    panel = placed(number(), title, description, unit, 4, 4).with_target(instant("A", expr, title.lower()))
    panel.graph_mode(BigValueGraphMode.NONE).thresholds(steps(*limits)).color_scheme(scheme("thresholds"))
    return panel.color_mode(BigValueColorMode.VALUE)


def _lights(built: board.Dashboard) -> None:
    built.with_panel(
        _light(
            "Workers ready",
            "Workers that have partitions and their state and commit. 0: nothing is being assessed.",
            "short",
            "sum(stancewatch_ready) or vector(0)",
            (None, BAD),
            (1, GOOD),
        ).decimals(0)
    )
    built.with_panel(
        _light(
            "Events waiting",
            "Records behind the end of the log, over all partitions.",
            "short",
            "sum(max by (kafka_topic, partition) (stancewatch_consumer_lag_records))",
            (None, GOOD),
            (1000, WARNING),
            (10000, BAD),
        )
        .decimals(0)
        .no_value("not measured")
    )
    built.with_panel(
        _light(
            "Commit age",
            "How long the oldest acknowledged record of any worker has been waiting for its offset to be"
            " committed. It should stay near the commit interval.",
            "s",
            "max(stancewatch_commit_age_seconds)",
            (None, GOOD),
            (30, WARNING),
            (120, BAD),
        )
    )
    built.with_panel(
        _light(
            "Since the last event",
            "Time since any worker handled a record. Long at night is normal for some feeds.",
            "s",
            "time() - max(stancewatch_last_event_timestamp_seconds > 0)",
            (None, GOOD),
            (3600, WARNING),
            (6 * 3600, BAD),
        ).no_value("none yet")
    )
    built.with_panel(
        _light(
            "Rejected, last hour",
            "Records sent to the dead-letter topic in the last hour (estimated: whole once they are old).",
            "short",
            "sum(increase(stancewatch_dead_letters_total[1h]))",
            (None, GOOD),
            (1, WARNING),
            (100, BAD),
        ).decimals(0)
    )
    built.with_panel(
        _light(
            "Topics without a slot",
            "Topics beyond the cap of 200, counted together as `other`. Anything but 0 hides numbers.",
            "short",
            "max(stancewatch_other_topics) or vector(0)",
            (None, GOOD),
            (1, BAD),
        ).decimals(0)
    )


def _flow(built: board.Dashboard) -> None:
    handled = placed(
        lines(),
        "Records handled",
        "Records a second by what became of them, over all workers.",
        "reqps",
        12,
        8,
    ).with_target(ranged("A", f"sum by (outcome) (rate(stancewatch_events_total[{RATE}]))", "{{outcome}}"))
    built.with_panel(handled.min(0))
    rejected = placed(
        lines(),
        "Rejected by reason",
        "Records sent to the dead-letter topic a second; `stancewatch dead-letters list` shows them.",
        "reqps",
        12,
        8,
    ).with_target(
        ranged(
            "A",
            f"sum by (stage, reason) (rate(stancewatch_dead_letters_total[{RATE}])) > 0",
            "{{stage}}: {{reason}}",
        )
    )
    built.with_panel(rejected.min(0).no_value("none"))
    stored = placed(
        rows().datasource(PROMETHEUS),
        "All records by outcome",
        "Since the beginning, from the workers' state: exact. `stancewatch audit` recounts it.",
        "short",
        6,
        8,
    ).with_target(instant("A", "stancewatch:stored_events:sum"))
    stored.with_transformation(
        rename({"outcome": "outcome", "Value": "records"}, without=["Time", "__name__"])
    )
    built.with_panel(stored.decimals(0))
    reasons = placed(
        gauge_bars(),
        "Rejected by reason, time range",
        "Dead letters of these workers in the dashboard's time range (estimated).",
        "short",
        6,
        8,
    ).with_target(
        instant("A", "sum by (reason) (increase(stancewatch_dead_letters_total[$__range])) > 0", "{{reason}}")
    )
    built.with_panel(reasons.decimals(0).min(0).no_value("none").color_scheme(scheme("fixed", WARNING)))
    waiting = placed(
        lines(),
        "Events waiting by partition",
        "Records behind the end of the log. One partition that grows alone: its key or its worker is stuck.",
        "short",
        6,
        8,
    ).with_target(
        ranged("A", "max by (partition) (stancewatch_consumer_lag_records)", "partition {{partition}}")
    )
    built.with_panel(waiting.min(0).no_value("not measured"))
    sources = placed(
        rows().datasource(PROMETHEUS),
        "Silent sources",
        "Time since each source was last heard, the longest first: up to 100 sources and `other`.",
        "s",
        6,
        8,
    ).with_target(
        instant("A", "sort_desc(time() - max by (source) (stancewatch_source_last_event_timestamp_seconds))")
    )
    sources.with_transformation(rename({"source": "source", "Value": "silent for"}, without=["Time"]))
    built.with_panel(sources.no_value("no events yet"))


def _quantiles(panel: timeseries.Panel, metric: str, *, exemplars: bool = False) -> timeseries.Panel:
    for ref_id, quantile in (("A", 0.5), ("B", 0.95), ("C", 0.99)):
        expr = f"histogram_quantile({quantile}, sum by (le) (rate({metric}_bucket[{RATE}])))"
        panel.with_target(
            ranged(ref_id, expr, f"p{round(quantile * 100)}", exemplars=exemplars and ref_id == "C")
        )
    return panel.min(0)


def _latency(built: board.Dashboard) -> None:
    age = placed(
        lines(),
        "From publication to decision",
        "Age of an event when it is decided: half, 95 % and 99 % of events are younger. Feeds make most of"
        " it; a replay of old articles shows their age. Points are single events and lead to the article.",
        "s",
        12,
        8,
    )
    built.with_panel(_quantiles(age, "stancewatch_event_age_seconds", exemplars=True))
    batch = placed(
        lines(),
        "Time of a batch",
        "From receiving a batch to acknowledging it.",
        "s",
        12,
        8,
    )
    built.with_panel(_quantiles(batch, "stancewatch_batch_seconds"))
    stages = placed(
        lines(stacked=True),
        "Where a batch spends its time",
        "Mean time of a batch in each stage. confirm waits for Kafka, classify for the processor.",
        "s",
        12,
        8,
    ).with_target(
        ranged(
            "A",
            f"sum by (stage) (rate(stancewatch_stage_seconds_sum[{RATE}]))"
            f" / sum by (stage) (rate(stancewatch_stage_seconds_count[{RATE}]))",
            "{{stage}}",
        )
    )
    built.with_panel(stages.min(0))
    classify = placed(
        lines(),
        "Time to classify a batch",
        "The classifier alone. Points are batches; each leads to its longest article.",
        "s",
        6,
        8,
    )
    built.with_panel(_quantiles(classify, "stancewatch_classify_seconds", exemplars=True))
    size = placed(
        lines(),
        "Events in a batch",
        "Small batches: the worker keeps up. Batches at the limit (256): it works through a backlog.",
        "short",
        6,
        8,
    )
    built.with_panel(_quantiles(size, "stancewatch_batch_events"))


def _state(built: board.Dashboard) -> None:
    size = placed(
        lines(stacked=True),
        "Size of the state",
        "RocksDB files of the owned partitions, by table; 0 with the state in memory.",
        "bytes",
        6,
        8,
    ).with_target(ranged("A", "sum by (table) (stancewatch_state_bytes)", "{{table}}"))
    built.with_panel(size.min(0))
    commit = placed(
        lines(),
        "Commit age by worker",
        "How long acknowledged records have been waiting for their offsets to be committed.",
        "s",
        6,
        8,
    ).with_target(ranged("A", "max by (instance) (stancewatch_commit_age_seconds)", "{{instance}}"))
    built.with_panel(commit.min(0))
    moved = placed(
        lines(),
        "Rebalances",
        "Times that partitions were taken from a worker, in ten minutes. A steady trickle is a fault.",
        "short",
        6,
        8,
    ).with_target(
        ranged("A", "sum by (instance) (increase(stancewatch_rebalances_total[10m]))", "{{instance}}")
    )
    built.with_panel(moved.min(0))
    recovery = placed(
        lines(),
        "Recovery and rebalance time",
        "How long the state of the running or last recovery took, and a mean rebalance with it.",
        "s",
        6,
        8,
    )
    recovery.with_target(ranged("A", "max(stancewatch_recovery_seconds)", "recovery"))
    recovery.with_target(
        ranged(
            "B",
            "sum(rate(stancewatch_rebalance_seconds_sum[10m]))"
            " / sum(rate(stancewatch_rebalance_seconds_count[10m]))",
            "rebalance, mean",
        )
    )
    built.with_panel(recovery.min(0))
    guarded = placed(
        lines(),
        "Guarded against",
        "Records that Kafka delivered again and that were passed over, keys that a former owner wrote late"
        " and that were put right, and expired entries that were deleted: a second.",
        "reqps",
        12,
        7,
    )
    guarded.with_target(
        ranged("A", f"sum(rate(stancewatch_redelivered_skipped_total[{RATE}]))", "redelivered")
    )
    guarded.with_target(
        ranged("B", f"sum(rate(stancewatch_late_state_writes_total[{RATE}]))", "late writes put right")
    )
    guarded.with_target(
        ranged("C", f"sum by (table) (rate(stancewatch_swept_total[{RATE}]))", "expired, {{table}}")
    )
    built.with_panel(guarded.min(0))
    workers = placed(
        rows().datasource(PROMETHEUS),
        "Workers",
        "What Prometheus scrapes, whether it answers and is ready, and which version runs.",
        "short",
        12,
        7,
    )
    workers.with_target(instant("A", 'max by (instance) (up{job="stancewatch"})'))
    workers.with_target(instant("B", "max by (instance) (stancewatch_ready)"))
    workers.with_target(instant("C", "group by (instance, version) (stancewatch_build_info)"))
    workers.with_transformation(change("merge"))
    workers.with_transformation(
        rename(
            {"instance": "worker", "Value #A": "answers", "Value #B": "ready", "version": "version"},
            without=["Time", "Value #C"],
        )
    )
    lights = {
        "mappings": [
            {
                "type": "value",
                "options": {"0": {"text": "no", "color": BAD}, "1": {"text": "yes", "color": GOOD}},
            }
        ],
        "custom__cellOptions": {"type": "color-text"},
    }
    override(workers, "answers", **lights)
    built.with_panel(override(workers, "ready", **lights))
