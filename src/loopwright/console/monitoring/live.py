"""Predictions and latency over time, of any span."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from loopwright.console.monitoring.source import Source
from loopwright.console.monitoring.views import Live, LivePoint, Logged
from loopwright.predictions.columns import rows_of

__all__ = ["LiveOf", "LoggedOf"]

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
        if points := _counted(source, self.deployment, since, until, step_s):
            return Live(self.deployment, since, until, step_s, "live", points)
        return Live(
            self.deployment,
            since,
            until,
            step_s,
            "log",
            _logged(source, self.deployment, since, until, step_s),
        )


def _counted(
    source: Source, deployment: str, since: datetime, until: datetime, step_s: int
) -> tuple[LivePoint, ...]:
    return tuple(
        LivePoint(one.start, one.version, one.rows, one.per_s, one.p50_ms, one.p95_ms, one.p99_ms)
        for one in source.live.series(deployment, since, until, step_s)
    )


def _logged(
    source: Source, deployment: str, since: datetime, until: datetime, step_s: int
) -> tuple[LivePoint, ...]:
    """Return the same from the log, for a deployment whose controller does not run: of an hour at most."""
    since = max(since, until - timedelta(hours=1))
    step = step_s * 1_000_000
    with source.store.view(deployment=deployment, since=since, until=until, labels=False) as view:
        rows = rows_of(
            view.table(f"""
                select make_timestamptz(epoch_us("at") // {step} * {step}) as start, version, count(*) as n,
                       quantile_cont(latency_ms, 0.5)::double as p50, quantile_cont(latency_ms, 0.95)::double as p95,
                       quantile_cont(latency_ms, 0.99)::double as p99
                from predictions group by 1, 2 order by 1, 2
            """)
        )
    return tuple(
        LivePoint(
            row["start"], row["version"], row["n"], row["n"] / step_s, row["p50"], row["p95"], row["p99"]
        )
        for row in rows
    )


@dataclass(frozen=True, slots=True)
class LoggedOf:
    """What the prediction log of a deployment holds."""

    deployment: str

    def stamp(self, source: Source) -> Hashable:
        """Return what changes every few seconds."""
        return int(source.at.timestamp()) // 5

    def answer(self, source: Source) -> Logged:
        """Count it without opening a segment."""
        found = source.store.extent(self.deployment)
        return Logged(
            self.deployment,
            found.rows,
            found.first,
            found.last,
            found.bytes,
            found.segments,
            found.quarantined,
        )


def _step(seconds: int) -> int:
    """Return the step of time: a minute, or longer so that there are not too many points."""
    for step in (60, 300, 900, 3600, 6 * 3600, 86400):
        if seconds / step <= _POINTS:
            return step
    return 7 * 86400
