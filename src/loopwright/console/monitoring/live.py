"""Predictions and latency over time, of any span."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from loopwright.console.monitoring.source import Source
from loopwright.console.monitoring.views import Live, LivePoint

__all__ = ["LiveOf"]

#: Points of a version that an answer has at most.
_POINTS = 180


@dataclass(frozen=True, slots=True)
class LiveOf:
    """The last `seconds` of a deployment."""

    deployment: str
    seconds: int = 900

    def stamp(self, source: Source) -> Hashable:
        """Return what changes every few seconds."""
        return int(source.at.timestamp()) // 5

    def answer(self, source: Source) -> Live:
        """Read what was counted live, else the log."""
        source.project.deployment(self.deployment)
        step_s = _step(self.seconds)
        until = datetime.fromtimestamp(int(source.at.timestamp()) // step_s * step_s, UTC)
        since = until - timedelta(seconds=self.seconds)
        rows = source.store.rates(
            deployment=self.deployment, since=since, until=until, every_s=step_s
        ).to_pylist()
        points = tuple(
            LivePoint(
                start=row["start"],
                version=row["version"],
                rows=row["rows"],
                per_s=row["rows"] / step_s,
                latency_p50_ms=row["latency_p50_ms"],
                latency_p95_ms=None,
                latency_p99_ms=row["latency_p99_ms"],
            )
            for row in rows
        )
        return Live(self.deployment, since, until, step_s, "log", points)


def _step(seconds: int) -> int:
    """Return the step of time: a minute, or longer so that there are not too many points."""
    for step in (60, 300, 900, 3600, 6 * 3600, 86400):
        if seconds / step <= _POINTS:
            return step
    return 7 * 86400
