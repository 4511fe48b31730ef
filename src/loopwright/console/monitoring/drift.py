"""Drift of all inputs over time: which features moved, when, and by how much of their limit."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from loopwright.console.monitoring.source import INPUTS, WINDOWS, Source, Span
from loopwright.console.monitoring.views import DriftCell, DriftedFeature, DriftMap, Found
from loopwright.ledger.schema import signals
from loopwright.records import micros, moment

__all__ = ["DriftOf", "ratio"]

#: A feature that fired in so many of the newest windows comes before all that did not.
RECENT = 6


@dataclass(frozen=True, slots=True)
class DriftOf:
    """The heat map of a deployment: features whose name contains `search`, `limit` of them from `offset` on."""

    deployment: str
    windows: int = WINDOWS
    search: str = ""
    offset: int = 0
    limit: int = 25

    def stamp(self, source: Source) -> Hashable:
        """Return what changes with each window."""
        return source.stamp(self.deployment)

    def answer(self, source: Source) -> DriftMap:
        """Read the features that drift or drifted most, each with all its windows."""
        source.project.deployment(self.deployment)
        span = source.span(self.deployment, INPUTS, self.windows)
        if span is None:
            return DriftMap(self.deployment, (), (), (), (), 0, 0, 0, 0)
        starts = source.windows(self.deployment, INPUTS, most=self.windows)[::-1]
        recent = starts[-RECENT:][0].start
        ranked = _ranked(source, self.deployment, span, micros(recent))
        wanted = self.search.casefold()
        matching = [one for one in ranked if wanted in one.name.casefold()]
        shown = matching[self.offset : self.offset + self.limit]
        cells, windows = _cells(source, self.deployment, span, [one.name for one in shown])
        by_start = {line.start: line.end for line in starts}
        ends = tuple(by_start.get(start, start) for start in windows)
        return DriftMap(
            deployment=self.deployment,
            windows=windows,
            ends=ends,
            features=tuple(shown),
            cells=cells,
            total=len(matching),
            offset=self.offset,
            inputs=len(ranked),
            firing=sum(one.firing for one in ranked),
        )


def ratio(one: Found) -> float | None:
    """Return a value by its limit; None where either is not known."""
    return None if one.value is None or not one.limit else one.value / one.limit


def _ranked(source: Source, deployment: str, span: Span, recent_us: int) -> list[DriftedFeature]:
    """Return all features: those that fired lately first, then by their largest effect; counted by the database."""
    by_limit = signals.c.value / sa.func.nullif(signals.c.limit_value, 0.0)
    fired = sa.case((signals.c.fired, 1), else_=0)
    lately = sa.case((signals.c.start_us >= recent_us, fired), else_=0)
    query = (
        sa.select(
            signals.c.subject,
            sa.func.sum(fired).label("fired"),
            sa.func.sum(lately).label("lately"),
            sa.func.max(by_limit).label("largest"),
            sa.func.max(signals.c.start_us).label("last_us"),
        )
        .where(
            (signals.c.deployment == deployment)
            & (signals.c.checked == "drift")
            & (signals.c.start_us >= span.first_us)
            & (signals.c.start_us <= span.last_us)
            & (signals.c.segment == "")
        )
        .group_by(signals.c.subject)
    )
    with source.ledger.reading() as connection:
        rows = list(connection.execute(query))
    newest_us = max((row.last_us for row in rows), default=0)
    newest = {one.subject: one for one in source.found(deployment, "drift", Span(newest_us, newest_us))}
    rows.sort(key=lambda row: (-min(row.lately, 1), -(row.largest or 0.0), row.subject))
    return [
        DriftedFeature(
            name=row.subject,
            fired=int(row.fired),
            largest=row.largest,
            newest=ratio(newest[row.subject]) if row.subject in newest else None,
            firing=row.subject in newest and newest[row.subject].fired,
        )
        for row in rows
    ]


def _cells(
    source: Source, deployment: str, span: Span, names: list[str]
) -> tuple[tuple[DriftCell, ...], tuple[datetime, ...]]:
    """Return one cell for each window and feature; of two versions in one window the one with more rows."""
    query = sa.select(
        signals.c.start_us,
        signals.c.subject,
        signals.c.value,
        signals.c.limit_value,
        signals.c.rows,
        signals.c.fired,
    ).where(
        (signals.c.deployment == deployment)
        & (signals.c.checked == "drift")
        & signals.c.subject.in_(names)
        & (signals.c.segment == "")
        & (signals.c.start_us >= span.first_us)
        & (signals.c.start_us <= span.last_us)
    )
    with source.ledger.reading() as connection:
        found = [tuple(row) for row in connection.execute(query)]
    place = {name: number for number, name in enumerate(names)}
    starts = sorted({row[0] for row in found})
    column = {start: number for number, start in enumerate(starts)}
    kept: dict[tuple[int, int], DriftCell] = {}
    for start, subject, value, limit, rows, fired in found:
        key = column[start], place[subject]
        if key not in kept or rows > kept[key].rows:
            by_limit = value / limit if value is not None and limit else None
            kept[key] = DriftCell(*key, value, limit, by_limit, rows, bool(fired))
    return tuple(kept[key] for key in sorted(kept)), tuple(moment(start) for start in starts)
