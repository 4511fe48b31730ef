"""Performance with labels and without, the parts of the rows, KPIs and how far labels have come."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

from loopwright.config import WATCHED
from loopwright.console.monitoring.health import judged_by, kpis
from loopwright.console.monitoring.source import INPUTS, LABELS, WINDOWS, Source, Span
from loopwright.console.monitoring.views import (
    Calibration,
    Estimated,
    Found,
    Kpi,
    Labels,
    Performance,
    Reliability,
    SegmentLine,
    Segments,
)
from loopwright.records import moment

__all__ = ["CalibrationOf", "EstimatedOf", "KpisOf", "LabelsOf", "PerformanceOf", "SegmentsOf"]


@dataclass(frozen=True, slots=True)
class PerformanceOf:
    """A metric of a deployment, window by window; without a name the one it is judged by."""

    deployment: str
    metric: str = ""
    segment: str = ""
    windows: int = WINDOWS

    def stamp(self, source: Source) -> Hashable:
        """Return what changes with each window."""
        return source.stamp(self.deployment)

    def answer(self, source: Source) -> Performance:
        """Read its values by version, and the windows that are not mature yet."""
        metric, better = judged_by(source, self.deployment)
        metric = self.metric or metric
        span = source.span(self.deployment, LABELS, self.windows)
        points = (
            source.found(self.deployment, "performance", span, subjects=[metric], segment=self.segment)
            if span
            else []
        )
        waiting = source.windows(self.deployment, LABELS, states=("immature", "overdue"), most=self.windows)
        inside = [line for line in waiting[::-1] if span and line.start >= moment(span.first_us)]
        return Performance(
            deployment=self.deployment,
            metric=metric,
            better=WATCHED.get(metric, better),
            segment=self.segment,
            metrics=self._metrics(source, metric),
            points=tuple(points),
            waiting=tuple(inside),
        )

    def _metrics(self, source: Source, metric: str) -> tuple[str, ...]:
        start = source.newest(self.deployment, LABELS)
        found = source.found(self.deployment, "performance", Span(start, start)) if start is not None else []
        return tuple(dict.fromkeys([metric, *(one.subject for one in found)]))


@dataclass(frozen=True, slots=True)
class EstimatedOf:
    """Performance without labels, window by window."""

    deployment: str
    windows: int = WINDOWS

    def stamp(self, source: Source) -> Hashable:
        """Return what changes with each window."""
        return source.stamp(self.deployment)

    def answer(self, source: Source) -> Estimated:
        """Read the estimates of the metric that the model is judged by, else of the one that is estimated."""
        metric, _ = judged_by(source, self.deployment)
        span = source.span(self.deployment, INPUTS, self.windows)
        found = source.found(self.deployment, "estimated", span) if span else []
        subjects = {one.subject for one in found}
        if subjects and metric not in subjects:
            metric = found[-1].subject
        mine = [one for one in found if one.subject == metric]
        assumption = ""
        if span and mine:
            for _, detail in source.in_full(self.deployment, "estimated", metric, span):
                assumption = str(detail.get("assumption", ""))
        return Estimated(self.deployment, metric, assumption, tuple(mine))


@dataclass(frozen=True, slots=True)
class CalibrationOf:
    """Whether probabilities are what they say, in the newest mature window."""

    deployment: str

    def stamp(self, source: Source) -> Hashable:
        """Return what changes with each window."""
        return source.stamp(self.deployment)

    def answer(self, source: Source) -> Calibration:
        """Read how often forecasts came true."""
        source.project.deployment(self.deployment)
        start = source.newest(self.deployment, LABELS)
        found = source.found(self.deployment, "calibration", Span(start, start)) if start is not None else []
        if not found or start is None:
            return Calibration(self.deployment, None, "", ())
        subject = found[-1].subject
        one, detail = source.in_full(self.deployment, "calibration", subject, Span(start, start))[-1]
        return Calibration(self.deployment, one, str(detail.get("of", "")), _reliability(detail.get("bins")))


def _reliability(bins: object) -> tuple[Reliability, ...]:
    """Return the bins that the check kept; none where they are not of probabilities."""
    if not isinstance(bins, list):
        return ()
    try:
        return tuple(
            Reliability(float(one["predicted"]), float(one["observed"]), int(one["rows"])) for one in bins
        )
    except (TypeError, KeyError, ValueError):
        return ()


@dataclass(frozen=True, slots=True)
class SegmentsOf:
    """The parts of the rows in the newest mature window, the worst first."""

    deployment: str
    metric: str = ""
    offset: int = 0
    limit: int = 50

    def stamp(self, source: Source) -> Hashable:
        """Return what changes with each window."""
        return source.stamp(self.deployment)

    def answer(self, source: Source) -> Segments:
        """Read them beside the value over all rows of the same version."""
        metric, better = judged_by(source, self.deployment)
        metric = self.metric or metric
        better = WATCHED.get(metric, better)
        start = source.newest(self.deployment, LABELS)
        found = (
            source.found(self.deployment, "performance", Span(start, start), subjects=[metric], segment=None)
            if start is not None
            else []
        )
        overall = {one.version: one.value for one in found if not one.segment}
        parts = [one for one in found if one.segment]
        parts.sort(key=lambda one: (not one.fired, _badness(one.value, better)))
        lines = tuple(
            SegmentLine(
                one.segment, one.subject, one.version, one.value, one.lower, one.upper, one.limit,
                overall.get(one.version), one.rows, one.fired,
            )
            for one in parts[self.offset : self.offset + self.limit]
        )  # fmt: skip
        end = found[-1].end if found else None
        return Segments(self.deployment, metric, better, end, len(parts), self.offset, lines)


def _badness(value: float | None, better: str) -> float:
    """Return what sorts the worst value first."""
    if value is None:
        return math.inf
    return value if better == "higher" else -value


@dataclass(frozen=True, slots=True)
class KpisOf:
    """The KPIs of a deployment, window by window."""

    deployment: str
    windows: int = WINDOWS

    def stamp(self, source: Source) -> Hashable:
        """Return what changes with each window."""
        return source.stamp(self.deployment)

    def answer(self, source: Source) -> tuple[Kpi, ...]:
        """Read them against their targets."""
        source.project.deployment(self.deployment)
        return kpis(source, self.deployment, most=self.windows)


@dataclass(frozen=True, slots=True)
class LabelsOf:
    """How far the labels of the newest windows have come."""

    deployment: str
    windows: int = 60

    def stamp(self, source: Source) -> Hashable:
        """Return what changes with each window."""
        return source.stamp(self.deployment)

    def answer(self, source: Source) -> Labels:
        """Read the windows of labels, oldest first."""
        monitor = source.monitor(self.deployment)
        delay = monitor.performance.label_delay.total_seconds() if monitor else None
        lines = source.windows(self.deployment, LABELS, most=self.windows)
        return Labels(self.deployment, delay, tuple(lines[::-1]))


def versions_of(points: tuple[Found, ...]) -> list[int]:
    """Return the versions that have points, in order."""
    return sorted({one.version for one in points})
