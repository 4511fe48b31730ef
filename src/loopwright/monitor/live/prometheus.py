"""Monitoring as Prometheus reads it: live numbers, the last judged windows, and the alerts that are open.

The number of series is bounded: of inputs and of segments each deployment has at most a hundred.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from loopwright.config import MonitorConfig, Project
from loopwright.ledger import Ledger
from loopwright.monitor.live.numbers import LiveNumbers
from loopwright.monitor.results import Results
from loopwright.records import Alert, Deployment, Signal

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

__all__ = ["CONTENT_TYPE", "render"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: Inputs are compared over so long a time back from now.
SPAN = timedelta(minutes=15)
MOST = 100
_PREFIX = "loopwright_monitor_"
Series = list[tuple[tuple[str, ...], float]]


def render(project: Project, ledger: Ledger, now: datetime, numbers: LiveNumbers | None = None) -> str:
    """Return the text of a scrape, in Prometheus's format.

    Parameters
    ----------
    now
        The present moment: inputs are compared over the fifteen minutes before it.
    numbers
        Live numbers that are kept from scrape to scrape; they need not read the versions' profiles each time.
    """
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(project, ledger, now, numbers or LiveNumbers(ledger, project)))
    return generate_latest(registry).decode()


class _Collector:
    def __init__(self, project: Project, ledger: Ledger, now: datetime, numbers: LiveNumbers) -> None:
        self._project = project
        self._ledger = ledger
        self._now = now
        self._numbers = numbers
        self._results = Results(ledger)

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics, as `prometheus_client` asks for them."""
        deployments = [state.read(Deployment) for state in self._ledger.states("deployment")]
        yield _counter(
            "predictions",
            "Predictions in the log.",
            ("deployment", "version"),
            [
                ((name, str(version)), rows)
                for (name, version), rows in sorted(self._numbers.totals().items())
            ],
        )
        yield from self._inputs(deployments)
        yield from self._windows(deployments)
        yield self._alerts()

    def _inputs(self, deployments: Iterable[Deployment]) -> Iterator[Metric]:
        moved: Series = []
        missing: Series = []
        for deployment in deployments:
            version = deployment.variants[0].version
            found = self._numbers.features(deployment.name, version, self._now - SPAN, self._now)
            least = self._project.config.monitor.get(deployment.model, MonitorConfig()).drift.min_rows
            for feature in found[:MOST]:
                labels = (deployment.name, str(version), feature.name)
                if feature.psi is not None and feature.rows >= least:
                    moved.append((labels, feature.psi))
                if feature.rows:
                    missing.append((labels, feature.missing))
        names = ("deployment", "version", "feature")
        yield _gauge(
            "psi",
            "Population stability index of an input in the last 15 minutes against training.",
            names,
            moved,
        )
        yield _gauge(
            "missing_share",
            "Share of rows without a value of an input in the last 15 minutes.",
            names,
            missing,
        )

    def _windows(self, deployments: Iterable[Deployment]) -> Iterator[Metric]:
        metrics: Series = []
        limits: Series = []
        kpis: Series = []
        targets: Series = []
        mature: Series = []
        ages: Series = []
        for name in (deployment.name for deployment in deployments):
            for phase in ("inputs", "labels"):
                _, signals = self._results.latest(name, phase)
                watched = [signal for signal in signals if signal.check == "performance"][:MOST]
                metrics += [(_metric(signal), signal.value) for signal in watched]
                limits += [(_metric(signal), signal.limit) for signal in watched]
                told = [signal for signal in signals if signal.check == "kpi"][:MOST]
                kpis += [((name, signal.subject), signal.value) for signal in told]
                targets += [((name, signal.subject), signal.limit) for signal in told]
                end = self._results.last_end(name, phase)
                if end is not None:
                    ages.append(((name, phase), max(0.0, (self._now - end).total_seconds())))
            newest = self._results.windows(name, "labels", limit=20)
            known = [judged.maturity for judged in newest if judged.maturity is not None]
            if known:
                mature.append(((name,), known[-1]))
        of = ("deployment", "version", "metric", "segment")
        yield _gauge("metric", "Performance in the last window whose labels are due.", of, metrics)
        yield _gauge("metric_limit", "What that is held against.", of, limits)
        yield _gauge("kpi", "A KPI in its last window.", ("deployment", "kpi"), kpis)
        yield _gauge("kpi_target", "What that is held against.", ("deployment", "kpi"), targets)
        yield _gauge(
            "label_maturity",
            "Share of the labels expected in the end that has arrived, of the newest window.",
            ("deployment",),
            mature,
        )
        yield _gauge(
            "window_age_seconds", "Seconds since the end of the newest window.", ("deployment", "phase"), ages
        )

    def _alerts(self) -> Metric:
        alerts = [state.read(Alert) for state in self._ledger.states("alert")]
        counted = Counter(
            (alert.deployment, alert.check, alert.severity, alert.state)
            for alert in alerts
            if alert.state != "resolved"
        )
        return _gauge(
            "alerts",
            "Alerts that are not resolved.",
            ("deployment", "check", "severity", "state"),
            [(labels, number) for labels, number in sorted(counted.items())],
        )


def _metric(signal: Signal) -> tuple[str, ...]:
    return signal.deployment, str(signal.version), signal.subject, signal.segment


def _gauge(name: str, what: str, labels: tuple[str, ...], series: Series) -> Metric:
    from prometheus_client.metrics_core import GaugeMetricFamily

    made = GaugeMetricFamily(_PREFIX + name, what, labels=labels)
    for values, value in series:
        if math.isfinite(value):
            made.add_metric(values, value)
    return made


def _counter(name: str, what: str, labels: tuple[str, ...], series: Series) -> Metric:
    from prometheus_client.metrics_core import CounterMetricFamily

    made = CounterMetricFamily(_PREFIX + name, what, labels=labels)
    for values, value in series:
        made.add_metric(values, value)
    return made
