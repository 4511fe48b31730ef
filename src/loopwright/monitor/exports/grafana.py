"""A Grafana dashboard of the deployments of a project (the classic JSON model, which Grafana 10 to 13 import)."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable
from typing import Any

from loopwright.config import Project
from loopwright.monitor.exports.promql import failing, latency
from loopwright.records import Mode

__all__ = ["dashboard"]

#: The data source is chosen in Grafana, so that the same file works everywhere.
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDE, HALF, THIRD, HEIGHT = 24, 12, 8, 8
_OF = 'deployment=~"$deployment"'
_RATE = "$__rate_interval"
Panel = dict[str, Any]
#: Colours, each from a value on; the first from the lowest.
Steps = list[tuple[str, float | None]]


def dashboard(project: Project) -> str:
    """Return the dashboard as JSON: health first, then answers, inputs, performance, KPIs and labels, as far as declared."""
    config = project.config
    online = [one for one in config.deployment.values() if one.mode is Mode.online]
    rows: list[tuple[str, list[Panel]]] = []
    if config.monitor:
        rows.append(("Health", _health()))
    if online:
        rows.append(("Answers", _answers()))
        if any(one.slo for one in online):
            rows.append(("Promises", _promises()))
    if config.monitor:
        floor = min(one.drift.floor for one in config.monitor.values())
        rows.append(("Inputs", _inputs(floor)))
        rows.append(("Performance", _performance(any(one.kpi for one in config.monitor.values()))))
    uid = hashlib.blake2b(f"loopwright/{project.name}".encode(), digest_size=8).hexdigest()
    made = {
        "uid": uid,
        "title": f"Loopwright: {project.name}",
        "tags": ["loopwright"],
        "timezone": "browser",
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "schemaVersion": 39,
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": _variables(bool(config.monitor))},
        "annotations": {"list": []},
        "panels": _placed(rows),
    }
    return json.dumps(made, indent=2, ensure_ascii=False)


def _variables(monitored: bool) -> list[dict[str, Any]]:
    known = "loopwright_monitor_window_age_seconds" if monitored else "loopwright_rows_total"
    query = f"label_values({known}, deployment)"
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        {
            "name": "deployment",
            "label": "Deployment",
            "type": "query",
            "datasource": SOURCE,
            "query": {"query": query, "refId": "deployments"},
            "definition": query,
            "refresh": 2,
            "includeAll": True,
            "multi": True,
            "current": {"text": ["All"], "value": ["$__all"]},
        },
    ]


def _placed(rows: Iterable[tuple[str, list[Panel]]]) -> list[Panel]:
    """Give each panel an id and a place, row by row."""
    ids, top, made = itertools.count(1), 0, []
    for title, panels in rows:
        place = {"h": 1, "w": WIDE, "x": 0, "y": top}
        made.append(
            {
                "id": next(ids),
                "type": "row",
                "title": title,
                "collapsed": False,
                "gridPos": place,
                "panels": [],
            }
        )
        top, left = top + 1, 0
        for panel in panels:
            width = panel.pop("width")
            if left + width > WIDE:
                top, left = top + HEIGHT, 0
            made.append({"id": next(ids), **panel, "gridPos": {"h": HEIGHT, "w": width, "x": left, "y": top}})
            left += width
        top += HEIGHT
    return made


def _panel(
    kind: str,
    title: str,
    queries: list[tuple[str, str]],
    *,
    width: int = HALF,
    unit: str = "short",
    about: str = "",
    steps: Steps | None = None,
    instant: bool = False,
    **options: Any,
) -> Panel:
    """Return a panel without its place. `queries` are PromQL and what each series is called."""
    defaults: dict[str, Any] = {"unit": unit, "color": {"mode": "thresholds" if steps else "palette-classic"}}
    if steps:
        defaults["thresholds"] = {
            "mode": "absolute",
            "steps": [{"color": color, "value": value} for color, value in steps],
        }
    return {
        "type": kind,
        "title": title,
        "description": about,
        "datasource": SOURCE,
        "width": width,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": SOURCE,
                "expr": expr,
                "legendFormat": legend,
                "instant": instant,
                "range": not instant,
                **({"format": "table"} if kind == "table" else {}),
            }
            for number, (expr, legend) in enumerate(queries)
        ],
    }


def _health() -> list[Panel]:
    wrong: Steps = [("green", None), ("red", 1)]
    critical = f'loopwright_monitor_alerts{{{_OF},state="open",severity="critical"}}'
    return [
        _panel(
            "stat", "Open critical alerts", [(f"sum({critical}) or vector(0)", "critical")],
            width=THIRD, steps=wrong, instant=True, colorMode="background",
        ),
        _panel(
            "table", "Alerts that are not resolved",
            [(f"sum by (deployment, check, severity, state) (loopwright_monitor_alerts{{{_OF}}})", "")],
            width=THIRD, instant=True,
        ),
        _panel(
            "timeseries", "Predictions a second",
            [(f"sum by (deployment, version) (rate(loopwright_monitor_predictions_total{{{_OF}}}[{_RATE}]))",
              "{{deployment}} {{version}}")],
            width=THIRD, unit="cps",
        ),
    ]  # fmt: skip


def _answers() -> list[Panel]:
    of_status = f"sum by (deployment, status) (rate(loopwright_requests_total{{{_OF}}}[{_RATE}]))"
    waiting = f"sum by (deployment) (loopwright_queue_rows{{{_OF}}})"
    refused = f"sum by (deployment, reason) (rate(loopwright_refused_total{{{_OF}}}[{_RATE}]))"
    return [
        _panel("timeseries", "Requests a second", [(of_status, "{{deployment}} {{status}}")], unit="reqps"),
        _panel(
            "timeseries", "Share of requests that failed", [(failing(_OF, _RATE), "{{deployment}}")], unit="percentunit"
        ),
        _panel(
            "timeseries", "Time to answer",
            [(latency(quantile, _OF, _RATE), f"{{{{deployment}}}} p{quantile * 100:g}") for quantile in (0.5, 0.95, 0.99)],
            unit="s", about="Exact to the factor two of the histogram's buckets.",
        ),
        _panel(
            "timeseries", "Rows a second, by version",
            [(f"sum by (deployment, version) (rate(loopwright_rows_total{{{_OF}}}[{_RATE}]))", "{{deployment}} {{version}}")],
            unit="cps",
        ),
        _panel("timeseries", "Rows that wait", [(waiting, "{{deployment}}")]),
        _panel("timeseries", "Requests refused a second", [(refused, "{{deployment}} {{reason}}")], unit="reqps"),
    ]  # fmt: skip


def _promises() -> list[Panel]:
    left: Steps = [
        ("red", None),
        ("yellow", 0.1),
        ("green", 0.5),
    ]
    budget = f"min by (deployment, objective) (loopwright_slo_error_budget_left_ratio{{{_OF}}})"
    burn = f"max by (deployment, objective, window) (loopwright_slo_burn_rate{{{_OF}}})"
    return [
        _panel(
            "stat", "Error budget left", [(budget, "{{deployment}} {{objective}}")],
            unit="percentunit", steps=left, instant=True,
        ),
        _panel(
            "timeseries", "How fast the budget is spent", [(burn, "{{deployment}} {{objective}} {{window}}")],
            about="At 1 it lasts exactly for its window.",
        ),
    ]  # fmt: skip


def _inputs(floor: float) -> list[Panel]:
    moved: Steps = [
        ("green", None),
        ("yellow", floor),
        ("red", 0.25),
    ]
    psi = f"max by (deployment, feature) (loopwright_monitor_psi{{{_OF}}})"
    missing = f"max by (deployment, feature) (loopwright_monitor_missing_share{{{_OF}}})"
    return [
        _panel(
            "status-history", "Drift of each input (PSI)", [(psi, "{{deployment}} {{feature}}")],
            width=WIDE, steps=moved, showValue="never",
            about=f"From yellow on ({floor:g}) it is an effect; whether it is one beyond chance, the alerts say.",
        ),
        _panel("timeseries", "Share of missing values", [(missing, "{{deployment}} {{feature}}")], unit="percentunit"),
        _panel(
            "timeseries", "Age of the newest window",
            [(f"max by (deployment, phase) (loopwright_monitor_window_age_seconds{{{_OF}}})", "{{deployment}} {{phase}}")],
            unit="s",
        ),
    ]  # fmt: skip


def _performance(kpis: bool) -> list[Panel]:
    by = "max by (deployment, version, metric)"
    whole = f'{_OF},segment=""'
    parts = f'{_OF},segment!=""'
    panels = [
        _panel(
            "timeseries", "Performance against its limit",
            [(f"{by} (loopwright_monitor_metric{{{whole}}})", "{{deployment}} {{version}} {{metric}}"),
             (f"{by} (loopwright_monitor_metric_limit{{{whole}}})", "{{deployment}} {{version}} {{metric}} limit")],
        ),
        _panel(
            "timeseries", "Performance by segment",
            [(f"max by (deployment, metric, segment) (loopwright_monitor_metric{{{parts}}})",
              "{{deployment}} {{metric}} {{segment}}")],
        ),
        _panel(
            "timeseries", "Share of the labels that has arrived",
            [(f"max by (deployment) (loopwright_monitor_label_maturity{{{_OF}}})", "{{deployment}}")], unit="percentunit",
        ),
    ]  # fmt: skip
    if kpis:
        of_kpi = "max by (deployment, kpi)"
        panels.append(
            _panel(
                "timeseries", "KPIs against their targets",
                [(f"{of_kpi} (loopwright_monitor_kpi{{{_OF}}})", "{{deployment}} {{kpi}}"),
                 (f"{of_kpi} (loopwright_monitor_kpi_target{{{_OF}}})", "{{deployment}} {{kpi}} target")],
            )
        )  # fmt: skip
    return panels
