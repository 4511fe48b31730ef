"""How each deployment is, in a handful of numbers, and which one needs a look first."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

from loopwright.config import WATCHED
from loopwright.console.monitoring.source import INPUTS, LABELS, Source, Span
from loopwright.console.monitoring.views import (
    AlertsNow,
    Better,
    Found,
    Health,
    Held,
    Kpi,
    Overview,
    WindowLine,
)
from loopwright.console.traffic import metric_of
from loopwright.records import Alert

__all__ = ["HealthOf", "OverviewOf", "health", "kpis", "newest_failed"]

#: What makes one deployment come before another: a critical alert counts more than any number of smaller ones.
_CRITICAL, _WARNING, _INFO, _FAILED, _KPI, _LATE = 1_000_000, 10_000, 100, 1_000, 5_000, 500


@dataclass(frozen=True, slots=True)
class OverviewOf:
    """All deployments at a glance."""

    def stamp(self, source: Source) -> Hashable:
        """Return what changes with any window or state, and every few seconds: ages are part of the answer."""
        stamps = tuple(source.stamp(name) for name in source.project.config.deployment)
        return stamps, int(source.at.timestamp()) // 5

    def answer(self, source: Source) -> Overview:
        """Read the health of all deployments, the one with most trouble first."""
        alerts = [state.read(Alert) for state in source.ledger.states("alert")]
        found = [health(source, name, alerts) for name in source.project.config.deployment]
        found.sort(key=lambda one: -one.trouble)
        return Overview(source.project.name, source.at, tuple(found))


@dataclass(frozen=True, slots=True)
class HealthOf:
    """One deployment."""

    deployment: str

    def stamp(self, source: Source) -> Hashable:
        """Return what changes with a window, a state, and every few seconds."""
        return source.stamp(self.deployment), int(source.at.timestamp()) // 5

    def answer(self, source: Source) -> Health:
        """Read its health."""
        source.project.deployment(self.deployment)
        return health(source, self.deployment)


def health(source: Source, name: str, alerts: list[Alert] | None = None) -> Health:
    """Return how a deployment is; `alerts` are all of the project where the caller has read them already."""
    if alerts is None:
        alerts = [state.read(Alert) for state in source.ledger.states("alert")]
    monitor = source.monitor(name)
    lines = {phase: source.windows(name, phase, most=1) for phase in (INPUTS, LABELS)}
    last = max((line.end for found in lines.values() for line in found), default=None)
    drifted, inputs = _drifted(source, name)
    held, targets = _held(source, name), kpis(source, name, points=False)
    late = source.windows(name, LABELS, most=20)
    counted = _alerts(alerts, name)
    failed = newest_failed(lines[INPUTS] + lines[LABELS])
    missed = sum(one.met is False for one in targets)
    over = any(line.state == "overdue" for line in late[:3])
    trouble = (
        _CRITICAL * counted.critical + _WARNING * counted.warning + _INFO * counted.info
        + _FAILED * len(failed) + _KPI * missed + _LATE * over
    )  # fmt: skip
    return Health(
        deployment=name,
        model=source.project.deployment(name).model,
        monitored=monitor is not None,
        window_s=monitor.window.total_seconds() if monitor else None,
        metric=held,
        drifted=drifted,
        inputs=inputs,
        kpis=targets,
        maturity=_maturity(late),
        waiting=sum(line.state == "immature" for line in late),
        alerts=counted,
        last_window=last,
        window_age_s=max(0.0, (source.at - last).total_seconds()) if last else None,
        failed=failed,
        trouble=trouble,
    )


def newest_failed(lines: list[WindowLine]) -> tuple[str, ...]:
    """Return the checks that could not judge the newest window of a phase, without their reasons."""
    return tuple(dict.fromkeys(one.partition(":")[0] for line in lines for one in line.failed))


def _alerts(alerts: list[Alert], name: str) -> AlertsNow:
    counted = AlertsNow()
    for alert in alerts:
        if alert.deployment != name or alert.state == "resolved":
            continue
        counted = replace(
            counted,
            acknowledged=counted.acknowledged + (alert.state == "acknowledged"),
            **{alert.severity: getattr(counted, alert.severity) + 1},
        )
    return counted


def _drifted(source: Source, name: str) -> tuple[int, int]:
    start = source.newest(name, INPUTS)
    if start is None:
        return 0, 0
    found = source.found(name, "drift", Span(start, start))
    names = {one.subject for one in found}
    return len({one.subject for one in found if one.fired}), len(names)


def _held(source: Source, name: str) -> Held | None:
    """Return the newest value of the metric that the model is judged by: the champion's where it has one."""
    metric, better = judged_by(source, name)
    start = source.newest(name, LABELS)
    if start is None:
        return None
    champion = source.champion(name)
    found = source.found(name, "performance", Span(start, start), subjects=[metric])
    mine = [one for one in found if one.version == champion] or found
    if not mine:
        return None
    one = mine[-1]
    return Held(
        metric, better, one.value, one.lower, one.upper, one.limit, one.rows, one.version, one.end, one.fired
    )


def judged_by(source: Source, name: str) -> tuple[str, Better]:
    """Return the metric that a deployment is judged by, and which way is better."""
    monitor = source.monitor(name)
    if monitor is not None and monitor.performance.metric:
        return monitor.performance.metric, WATCHED[monitor.performance.metric]
    return metric_of(source.project, source.project.deployment(name).model, source.signature(name))


def kpis(source: Source, name: str, *, points: bool = True, most: int = 200) -> tuple[Kpi, ...]:
    """Return the KPIs that are declared, each with its newest value or with its values window by window."""
    monitor = source.monitor(name)
    if monitor is None or not monitor.kpi:
        return ()
    by_name: dict[str, list[Found]] = {kpi: [] for kpi in monitor.kpi}
    for phase in (INPUTS, LABELS):
        newest = None if points else source.newest(name, phase)
        span = Span(newest, newest) if newest is not None else None
        if points:
            span = source.span(name, phase, most)
        if span is None:
            continue
        for one in source.found(name, "kpi", span):
            known = by_name.get(one.subject)
            if known is not None and one not in known[-1:]:
                known.append(one)
    return tuple(
        _kpi(kpi, declared.unit, declared.at_most, declared.at_least, by_name[kpi], points)
        for kpi, declared in monitor.kpi.items()
    )


def _kpi(
    name: str, unit: str, at_most: float | None, at_least: float | None, found: list[Found], points: bool
) -> Kpi:
    found = list({(one.start, one.version): one for one in sorted(found, key=lambda one: one.start)}.values())
    value = found[-1].value if found else None
    met = None
    if value is not None:
        met = not ((at_most is not None and value > at_most) or (at_least is not None and value < at_least))
    return Kpi(name, unit, at_most, at_least, value, met, tuple(found) if points else ())


def _maturity(lines: list[WindowLine]) -> float | None:
    """Return the share of expected labels of the newest windows, oldest of them counting most: all that is known."""
    known = [line for line in lines[:5] if line.maturity is not None]
    rows = sum(line.rows for line in known)
    if not rows:
        return None
    return sum((line.maturity or 0.0) * line.rows for line in known) / rows
