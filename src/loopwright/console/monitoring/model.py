"""All panels of one deployment's page, asked at once."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from loopwright.console.monitoring.alerts import AlertsOf
from loopwright.console.monitoring.health import health
from loopwright.console.monitoring.live import LoggedOf
from loopwright.console.monitoring.performance import (
    CalibrationOf,
    EstimatedOf,
    KpisOf,
    LabelsOf,
    PerformanceOf,
    SegmentsOf,
)
from loopwright.console.monitoring.quality import QualityOf, failed, others
from loopwright.console.monitoring.source import LABELS, Source
from loopwright.console.monitoring.views import Marker, Monitored
from loopwright.records import moment

__all__ = ["MonitoredOf"]

#: Lines that the page itself shows; the JSON interface has all of them, page by page.
_SEGMENTS, _QUALITY, _ALERTS, _WINDOWS, _MARKERS = 100, 100, 20, 40, 12


@dataclass(frozen=True, slots=True)
class MonitoredOf:
    """The panels of one deployment."""

    deployment: str

    def stamp(self, source: Source) -> Hashable:
        """Return what changes with a window, a state, and every few seconds."""
        return source.stamp(self.deployment), int(source.at.timestamp()) // 5

    def answer(self, source: Source) -> Monitored:
        """Read them."""
        name = self.deployment
        source.project.deployment(name)
        return Monitored(
            at=source.at,
            health=health(source, name),
            log=LoggedOf(name).answer(source),
            performance=PerformanceOf(name).answer(source),
            estimated=EstimatedOf(name).answer(source),
            calibration=CalibrationOf(name).answer(source),
            segments=SegmentsOf(name, limit=_SEGMENTS).answer(source),
            kpis=KpisOf(name).answer(source),
            labels=LabelsOf(name).answer(source),
            quality=QualityOf(name, limit=_QUALITY).answer(source),
            others=others(source, name),
            alerts=AlertsOf(resolved=True, deployment=name, limit=_ALERTS).answer(source).alerts,
            failed=failed(source, name),
            windows=tuple(source.windows(name, most=_WINDOWS)),
            markers=_markers(source, name),
        )


def _markers(source: Source, name: str) -> tuple[Marker, ...]:
    """Return the moments that explain a chart of performance: decisions of releases, alerts on performance."""
    span = source.span(name, LABELS)
    if span is None:
        return ()
    since = moment(span.first_us)
    made = []
    for event in source.ledger.events("decision", name, since=since, limit=_MARKERS, newest=True):
        decision = str(event.payload.get("decision", "")).replace("_", " ")
        made.append(Marker(event.at, decision, "good" if decision == "promoted" else "warn"))
    model = source.project.deployment(name).model
    opened = source.ledger.events("alert.opened", model, since=since, limit=5 * _MARKERS, newest=True)
    made += [
        Marker(event.at, "alert", "bad")
        for event in opened
        if event.payload.get("deployment") == name and event.payload.get("check") == "performance"
    ]
    return tuple(sorted(made, key=lambda one: one.at)[-_MARKERS:])
