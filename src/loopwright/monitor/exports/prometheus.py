"""Prometheus' alert rules for the deployments of a project, with the limits of its configuration.

There is no rule on a PSI alone: with few rows chance is above any fixed threshold, with many rows a threshold misses
what matters. What the monitors tested, over enough windows, comes as `loopwright_monitor_alerts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from loopwright.config import WATCHED, DeploymentConfig, KpiConfig, MonitorConfig, Project
from loopwright.monitor.exports.promql import alternatives, failing, latency, number, quoted, selector, span
from loopwright.records import Mode

__all__ = ["rules"]

#: What is failing above this share, where nothing is declared, is worth waking somebody.
ERRORS = 0.05
#: How fast an error budget is spent when 2 % of a month's is gone in an hour: Beyer et al., The Site Reliability Workbook
#: (2018), chapter 5. Both the hour and its last five minutes must show it.
BURN = 14.4
_FIVE = "5m"


def rules(project: Project) -> str:
    """Return the rules as YAML, as ``rule_files`` of Prometheus takes it; ``promtool check rules`` accepts them."""
    import yaml  # type: ignore[import-untyped]

    groups = [
        {"name": f"loopwright-{project.name}-serving", "rules": list(_serving(project))},
        {"name": f"loopwright-{project.name}-monitoring", "rules": list(_monitoring(project))},
    ]
    kept = {"groups": [group for group in groups if group["rules"]]}
    text: str = yaml.safe_dump(kept, sort_keys=False, width=1000, allow_unicode=True)
    return f"# Alert rules of the Loopwright project {project.name}; made by: loopwright alert export prometheus\n{text}"


def _rule(
    name: str, expr: str, lasting: timedelta, severity: str, summary: str, what_to_do: str, **of: str
) -> dict[str, Any]:
    """Return one rule. `of` are labels that tell it from the same rule of something else."""
    return {
        "alert": name,
        "expr": expr,
        "for": span(lasting),
        "labels": {"severity": severity, **{name: _shown(value) for name, value in of.items()}},
        "annotations": {"summary": summary, "description": what_to_do},
    }


def _serving(project: Project) -> Iterator[dict[str, Any]]:
    online = {name: one for name, one in project.config.deployment.items() if one.mode is Mode.online}
    if not online:
        return
    yield _rule(
        "LoopwrightWorkerGone", "loopwright_worker_up == 0", timedelta(minutes=2), "critical",
        "The serving worker {{ $labels.worker }} does not write its numbers any more.",
        "loopwright status, then the worker's log in .loopwright/run/logs.",
    )  # fmt: skip
    for name, deployment in online.items():
        yield from _answers(name, deployment, project.config.monitor.get(deployment.model))


def _answers(
    name: str, deployment: DeploymentConfig, monitor: MonitorConfig | None
) -> Iterator[dict[str, Any]]:
    where = f"deployment={quoted(name)}"
    slo, service = deployment.slo, monitor.service if monitor else None
    share = service.errors if service and service.errors is not None else ERRORS
    yield _rule(
        "LoopwrightRequestsFail", f"{failing(where, _FIVE)} > {number(share)}", timedelta(minutes=5), "critical",
        f"{_shown(name)} fails to answer {{{{ $value | humanizePercentage }}}} of its requests, limit {share:.3g}.",
        f"loopwright deployment show {name}, then: loopwright deployment rollback {name}",
        deployment=name,
    )  # fmt: skip
    slowest = service.latency if service and service.latency else (slo.latency if slo else None)
    if slowest is not None:
        limit = slowest.total_seconds()
        yield _rule(
            "LoopwrightSlow", f"{latency(0.99, where, _FIVE)} > {number(limit)}", timedelta(minutes=10), "warning",
            f"One in a hundred answers of {_shown(name)} takes longer than {{{{ $value | humanizeDuration }}}}, "
            f"limit {limit:g} s.",
            f"loopwright deployment show {name}: is it the model, or the queue before it?",
            deployment=name,
        )  # fmt: skip
    if slo is not None:
        hour, minutes = (
            f"max by (deployment, objective) (loopwright_slo_burn_rate{selector(deployment=name, window=window)})"
            for window in ("1h", "5m")
        )
        yield _rule(
            "LoopwrightBudgetBurns", f"{hour} > {BURN} and {minutes} > {BURN}", timedelta(minutes=2), "critical",
            f"The {{{{ $labels.objective }}}} of {_shown(name)} spends its error budget "
            "{{ $value | humanize }} times as fast as it may.",
            f"loopwright deployment show {name}", deployment=name,
        )  # fmt: skip


def _monitoring(project: Project) -> Iterator[dict[str, Any]]:
    config = project.config
    if not config.monitor:
        return
    opened = f"loopwright_monitor_alerts{selector(state='open', severity='!info')}"
    yield _rule(
        "LoopwrightAlertOpen", f"sum by (deployment, check, severity) ({opened}) > 0", timedelta(seconds=1),
        "{{ $labels.severity }}",
        "{{ $labels.check }} of {{ $labels.deployment }}: {{ $value }} alerts are open.",
        "loopwright alert list, then: loopwright alert show ID",
    )  # fmt: skip
    yield _rule(
        "LoopwrightMonitoringGone", "absent(loopwright_monitor_window_age_seconds)", timedelta(minutes=15), "warning",
        "Prometheus gets no figures of the monitors.",
        "loopwright up; does Prometheus scrape /metrics of the console?",
    )  # fmt: skip
    for name, deployment in config.deployment.items():
        monitor = config.monitor.get(deployment.model)
        if monitor is not None:
            yield from _of_deployment(name, monitor)


def _of_deployment(name: str, monitor: MonitorConfig) -> Iterator[dict[str, Any]]:
    # As long as it takes the monitors themselves: a window that is bad again.
    lasting = monitor.window * max(monitor.needed - 1, 0)
    worse = []
    for better, comparison in (("higher", "<"), ("lower", ">")):
        metrics = [metric for metric, which in WATCHED.items() if which == better]
        wanted = [metric for metric in metrics if monitor.performance.metric in {"", metric}]
        if wanted:
            of = selector(deployment=name, metric=alternatives(wanted), segment="")
            worse.append(f"loopwright_monitor_metric{of} {comparison} loopwright_monitor_metric_limit{of}")
    yield _rule(
        "LoopwrightPerformance", " or ".join(worse), lasting, "critical",
        f"{{{{ $labels.metric }}}} of version {{{{ $labels.version }}}} in {_shown(name)} is {{{{ $value }}}}, "
        "worse than its limit.",
        "loopwright alert list: is there an alert on it, with its interval?",
        deployment=name,
    )  # fmt: skip
    for kpi, target in monitor.kpi.items():
        yield from _target(name, kpi, target, lasting)
    late = {
        "inputs": 3 * monitor.window,
        "labels": 3 * monitor.window
        + monitor.performance.label_delay
        + (monitor.performance.overdue or 3 * monitor.window),
    }
    for phase, age in late.items():
        of = selector(deployment=name, phase=phase)
        yield _rule(
            "LoopwrightMonitoringStuck",
            f"loopwright_monitor_window_age_seconds{of} > {number(age.total_seconds())}",
            timedelta(minutes=5), "warning",
            f"No window of {_shown(name)} was judged by its {phase} for {{{{ $value | humanizeDuration }}}}.",
            "loopwright status: does the controller run?", deployment=name, phase=phase,
        )  # fmt: skip


def _target(name: str, kpi: str, target: KpiConfig, lasting: timedelta) -> Iterator[dict[str, Any]]:
    series = f"loopwright_monitor_kpi{selector(deployment=name, kpi=kpi)}"
    unit = f" {target.unit}" if target.unit else ""
    limits = [
        (f"{series} {comparison} {number(limit)}", f"{said} {limit:g}{unit}")
        for limit, comparison, said in ((target.at_most, ">", "at most"), (target.at_least, "<", "at least"))
        if limit is not None
    ]
    if limits:
        yield _rule(
            "LoopwrightKpi", " or ".join(expr for expr, _ in limits), lasting, "critical",
            f"The KPI {_shown(kpi)} of {_shown(name)} is {{{{ $value }}}}{unit}; its target is "
            f"{' and '.join(said for _, said in limits)}.",
            "loopwright alert list", deployment=name, kpi=kpi,
        )  # fmt: skip


def _shown(name: str) -> str:
    """Return a name as it may stand in a label or an annotation, which Prometheus reads as templates."""
    return name.replace("{{", "{ {")
