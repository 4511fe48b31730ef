"""The figures that come from the prediction log: traffic, latency and the metric per version.

One query per model and refresh, over the last `SPAN_S` seconds only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from loopwright.config import METRICS, Project
from loopwright.console.views import Point as MetricPoint
from loopwright.console.views import Series, Tick
from loopwright.monitor.live import LiveNumbers
from loopwright.monitor.live.numbers import Point
from loopwright.predictions import PredictionStore
from loopwright.predictions.columns import rows_of
from loopwright.records import Scalar, Signature, Task

__all__ = [
    "NOTHING",
    "RATE_S",
    "SPAN_S",
    "STEP_S",
    "Traffic",
    "counted",
    "metric_of",
    "read",
    "read_unlabelled",
]

#: How far back the pages look.
SPAN_S = 15 * 60
#: The interval of the charts of traffic and latency.
STEP_S = 10
#: Over how long the key numbers are taken.
RATE_S = 60
MINUTE_S = 60
#: From so many predictions in `SPAN_S` on the counts of minutes are shown: reading the log would take too long.
BUSY_ROWS = 100_000
#: Fewer labelled rows than this in an interval make no point of the metric: it would only show noise.
LEAST_ROWS = 10


@dataclass(frozen=True, slots=True)
class Traffic:
    """What happened in the last `SPAN_S` seconds. Figures named `recent` are of the last `RATE_S` seconds."""

    rows: int
    labelled: int | None
    recent_rows: int
    recent_p50_ms: float | None
    recent_p99_ms: float | None
    last: datetime | None
    ticks: tuple[Tick, ...]
    metric: tuple[Series, ...]


#: A deployment without a row.
NOTHING = Traffic(0, 0, 0, None, None, None, (), ())


def metric_of(
    project: Project, model: str, signature: Signature | None
) -> tuple[str, Literal["higher", "lower"]]:
    """Return the metric by which a model is judged, and which way is better."""
    monitor = project.config.monitor.get(model)
    configured = project.config.model.get(model)
    name = (monitor.performance.metric if monitor else "") or (configured.gate.metric if configured else "")
    if not name:
        name = "rmse" if signature is not None and signature.task is Task.regression else "accuracy"
    return name, METRICS[name]


def metric_step_s(project: Project, model: str) -> int:
    """Return the interval of the metric's chart: the monitor's window, within 10 and 60 seconds."""
    monitor = project.config.monitor.get(model)
    window = monitor.window.total_seconds() if monitor else 60
    return int(min(60, max(STEP_S, window)))


def read(
    store: PredictionStore, model: str, metric: str, signature: Signature | None, step_s: int, at: datetime
) -> dict[str, Traffic]:
    """Read the last `SPAN_S` seconds before `at` of all deployments of a model with their labels, by deployment.

    The metric is taken over intervals of `step_s` seconds. Deployments without a row in that time are left out.
    """
    since = _floor(at, STEP_S) - timedelta(seconds=SPAN_S)
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in store.query(
        _sql(metric, signature, step_s, at), model=model, since=since, until=at
    ).to_pylist():
        parts = found.setdefault(row["deployment"], {"tick": [], "metric": [], "all": []})
        parts[row["part"]].append(row)
    return {name: _traffic(parts, since, at, step_s) for name, parts in found.items()}


def counted(live: LiveNumbers, deployment: str, at: datetime) -> Traffic | None:
    """Return the traffic of a busy deployment as it was counted by the minute; None for one with fewer rows.

    Its metric is empty, as in `read_unlabelled`.
    """
    until = _floor(at, MINUTE_S)
    since = until - timedelta(seconds=SPAN_S)
    rows = sum(live.rows(deployment, since, until).values())
    if rows < BUSY_ROWS:
        return None
    by_start: dict[datetime, list[Point]] = {}
    for point in live.series(deployment, since, until, MINUTE_S):
        by_start.setdefault(point.start, []).append(point)
    ticks = []
    for minute in range(SPAN_S // MINUTE_S):
        start = since + timedelta(seconds=minute * MINUTE_S)
        mine = by_start.get(start, [])
        # The versions of a canary are counted apart; the one with most rows says how long an answer takes.
        most = max(mine, key=lambda point: point.rows, default=None)
        n = sum(point.rows for point in mine)
        ticks.append(
            Tick(start, n, n / MINUTE_S, most.p50_ms if most else None, most.p99_ms if most else None)
        )
    last = ticks[-1]
    return Traffic(rows, None, last.rows, last.latency_p50_ms, last.latency_p99_ms, until, tuple(ticks), ())


def read_unlabelled(store: PredictionStore, deployment: str, at: datetime) -> Traffic:
    """Read the last `SPAN_S` seconds before `at` of one deployment, without labels: their join costs more than the rest.

    Its metric is empty: that of a deployment with a monitor is judged by windows.
    """
    since = _floor(at, STEP_S) - timedelta(seconds=SPAN_S)
    with store.view(deployment=deployment, since=since, until=at, labels=False) as view:
        rows = rows_of(view.table(_traffic_sql(at)))
    parts: dict[str, list[dict[str, Any]]] = {"tick": [], "metric": [], "all": []}
    for row in rows:
        parts[row["part"]].append(row)
    if not parts["all"]:
        return NOTHING
    return replace(_traffic(parts, since, at, STEP_S), labelled=None)


def _traffic(parts: dict[str, list[dict[str, Any]]], since: datetime, at: datetime, step_s: int) -> Traffic:
    whole = parts["all"][0]
    return Traffic(
        rows=whole["n"],
        labelled=whole["labelled"],
        recent_rows=whole["recent"],
        recent_p50_ms=whole["p50"],
        recent_p99_ms=whole["p99"],
        last=_moment(whole["start_us"]),
        ticks=tuple(_ticks(parts["tick"], since, at)),
        metric=tuple(_series(parts["metric"], at - timedelta(seconds=step_s))),
    )


def _floor(moment: datetime, step_s: int) -> datetime:
    return datetime.fromtimestamp(int(moment.timestamp()) // step_s * step_s, UTC)


def _moment(micros: int) -> datetime:
    return datetime.fromtimestamp(micros / 1e6, UTC)


def _ticks(rows: list[dict[str, Any]], since: datetime, at: datetime) -> Iterator[Tick]:
    """Fill the intervals without rows, from the first one with rows on; leave out the one that is not over yet."""
    by_start = {_moment(row["start_us"]): row for row in rows}
    start = max(since, min(by_start, default=at))
    while start + timedelta(seconds=STEP_S) <= at:
        row = by_start.get(start)
        n = row["n"] if row else 0
        yield Tick(start, n, n / STEP_S, row["p50"] if row else None, row["p99"] if row else None)
        start += timedelta(seconds=STEP_S)


def _series(rows: list[dict[str, Any]], newest: datetime) -> Iterator[Series]:
    """Return a line per version; intervals that began after `newest` are not over yet and left out."""
    points: dict[int, list[MetricPoint]] = {}
    for row in sorted(rows, key=lambda row: int(row["start_us"])):
        start = _moment(row["start_us"])
        if row["value"] is not None and row["n"] >= LEAST_ROWS and start <= newest:
            points.setdefault(row["version"], []).append(MetricPoint(start, row["value"], row["n"]))
    for version in sorted(points):
        yield Series(version, tuple(points[version]))


def _sql(metric: str, signature: Signature | None, step_s: int, at: datetime) -> str:
    step = step_s * 1_000_000
    return f"""
        with seen as (
            select deployment, epoch_us("at") as us, version, latency_ms, actual, prediction, probability
            from predictions
        ), labelled as (
            select deployment, us // {step} * {step} as start_us, version, actual, prediction, probability
            from seen where actual is not null
        )
        {_parts_sql(at)}
        union all by name
        select 'metric' as part, * from ({_metric_sql(metric, signature)})
    """


def _traffic_sql(at: datetime) -> str:
    return f"""
        with seen as (
            select deployment, epoch_us("at") as us, latency_ms, null::double as actual from predictions
        )
        {_parts_sql(at)}
    """


def _parts_sql(at: datetime) -> str:
    recent = int(at.timestamp() * 1e6) - RATE_S * 1_000_000
    tick = STEP_S * 1_000_000
    return f"""
        select 'tick' as part, deployment, us // {tick} * {tick} as start_us, null::int as version,
               count(*) as n, null::bigint as recent, count(actual) as labelled,
               quantile_cont(latency_ms, 0.5)::double as p50, quantile_cont(latency_ms, 0.99)::double as p99,
               null::double as value
        from seen group by deployment, start_us
        union all by name
        select 'all' as part, deployment, max(us) as start_us, count(*) as n, count(actual) as labelled,
               count(*) filter (where us >= {recent}) as recent,
               quantile_cont(latency_ms, 0.5) filter (where us >= {recent})::double as p50,
               quantile_cont(latency_ms, 0.99) filter (where us >= {recent})::double as p99
        from seen group by deployment
    """


def _metric_sql(metric: str, signature: Signature | None) -> str:
    """Return the query of deployment, start_us, version, n and value of a metric."""
    if metric == "f1":
        # Macro-averaged over the classes that occur, as in scikit-learn.
        return """
            select deployment, start_us, version, any_value(n) as n, avg(2.0 * tp / (2 * tp + fp + fn)) as value
            from (
                select deployment, start_us, version, class, sum(tp) as tp, sum(fp) as fp, sum(fn) as fn from (
                    select deployment, start_us, version, actual as class, (actual = prediction)::int as tp,
                           0 as fp, (actual <> prediction)::int as fn from labelled
                    union all
                    select deployment, start_us, version, prediction, 0, (actual <> prediction)::int, 0
                    from labelled
                ) group by all
            ) join (
                select deployment, start_us, version, count(*) as n from labelled group by all
            ) using (deployment, start_us, version)
            group by deployment, start_us, version
        """
    value = {
        "accuracy": "avg((actual = prediction)::int)",
        "mae": "avg(abs(actual - prediction))",
        "rmse": "sqrt(avg(power(actual - prediction, 2)))",
        "log_loss": _log_loss(signature),
    }[metric]
    return f"""
        select deployment, start_us, version, count(*) as n, {value}::double as value from labelled group by all
    """


def _log_loss(signature: Signature | None) -> str:
    if signature is None or not signature.classes:
        return "null"
    classes = ", ".join(_literal(label) for label in signature.classes)
    return f"-avg(ln(greatest(probability[list_position([{classes}], actual)], 1e-15)))"


def _literal(value: Scalar) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value).lower()
