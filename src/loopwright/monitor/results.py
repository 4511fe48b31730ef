"""What the monitors found, window by window: written once by the runner, read by alerts, pages and the command line.

Kept in tables of the ledger with indexes for each way of asking, so that a page costs the same after five thousand
windows as after five.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from loopwright.ledger import Ledger
from loopwright.ledger.schema import signals as _signals
from loopwright.ledger.schema import windows as _windows
from loopwright.records import Judged, Signal, Window, micros, moment, now

__all__ = ["Results"]

Phase = Literal["inputs", "labels"]


class Results:
    """The judged windows of a project and their signals. Safe to share between threads."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def record(self, judged: Judged, found: Sequence[Signal]) -> None:
        """Keep a window with its signals, in one transaction; what an earlier look said of the same window is replaced."""
        facts = {
            "model": judged.model,
            "version": judged.version,
            "state": judged.state,
            "rows": judged.rows,
            "labelled": judged.labelled,
            "maturity": judged.maturity,
            "fired": judged.fired,
            "failed": msgspec.json.encode(judged.failed).decode(),
            "judged": now(),
        }
        key = {
            "deployment": judged.deployment,
            "phase": judged.phase,
            "start_us": micros(judged.window.start),
            "end_us": micros(judged.window.end),
        }
        where = sa.and_(*(_windows.c[name] == value for name, value in key.items()))
        with self._ledger.writing() as connection:
            known = connection.execute(sa.select(_windows.c.id).where(where)).scalar()
            if known is None:
                made = connection.execute(sa.insert(_windows).values(**key, **facts)).inserted_primary_key
                assert made is not None
                known = int(made[0])
            else:
                connection.execute(sa.update(_windows).where(_windows.c.id == known).values(**facts))
                connection.execute(sa.delete(_signals).where(_signals.c.window == known))
            if found:
                connection.execute(sa.insert(_signals), [_row(signal, known) for signal in found])

    def last_end(self, deployment: str, phase: Phase, *, until: datetime | None = None) -> datetime | None:
        """Return the end of the newest window of a phase that was looked at, whatever was found.

        With `until`, of those that ended by then: a clock that was wrong may have left windows of the future.
        """
        query = sa.select(sa.func.max(_windows.c.end_us)).where(
            (_windows.c.deployment == deployment) & (_windows.c.phase == phase)
        )
        if until is not None:
            query = query.where(_windows.c.end_us <= micros(until))
        with self._ledger.reading() as connection:
            end = connection.execute(query).scalar()
        return None if end is None else moment(int(end))

    def windows(
        self,
        deployment: str,
        phase: Phase | None = None,
        *,
        states: Sequence[str] = (),
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 200,
        oldest: bool = False,
    ) -> list[Judged]:
        """Return the newest `limit` windows that start in [since, until), or the oldest ones; oldest first."""
        query = sa.select(_windows).where(_windows.c.deployment == deployment)
        if phase is not None:
            query = query.where(_windows.c.phase == phase)
        if states:
            query = query.where(_windows.c.state.in_(states))
        query = _span(query, _windows.c.start_us, since, until)
        order = (_windows.c.start_us, _windows.c.id)
        query = query.order_by(*(order if oldest else [one.desc() for one in order])).limit(limit)
        with self._ledger.reading() as connection:
            found = [_judged(row) for row in connection.execute(query)]
        return found if oldest else found[::-1]

    def signals(
        self,
        deployment: str,
        *,
        check: str | Sequence[str] | None = None,
        subject: str | None = None,
        segment: str | None = None,
        version: int | None = None,
        fired: bool | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 1000,
    ) -> list[Signal]:
        """Return the newest `limit` signals of windows that start in [since, until), oldest first.

        `segment` ``""`` asks for those over all rows, None for any.
        """
        query = sa.select(_signals).where(_signals.c.deployment == deployment)
        if check is not None:
            checks = [check] if isinstance(check, str) else list(check)
            query = query.where(_signals.c.checked.in_(checks))
        for column, value in (
            (_signals.c.subject, subject),
            (_signals.c.segment, segment),
            (_signals.c.version, version),
            (_signals.c.fired, fired),
        ):
            if value is not None:
                query = query.where(column == value)
        query = _span(query, _signals.c.start_us, since, until)
        query = query.order_by(_signals.c.start_us.desc(), _signals.c.id.desc()).limit(limit)
        with self._ledger.reading() as connection:
            return [_signal(row) for row in connection.execute(query)][::-1]

    def recent(
        self, deployment: str, phase: Phase, version: int, limit: int
    ) -> list[tuple[Judged, list[Signal]]]:
        """Return the newest `limit` windows that were judged or empty, oldest first, with one version's signals.

        The signals are without their details, which are most of what is stored.
        """
        where = (_windows.c.deployment == deployment) & (_windows.c.phase == phase)
        query = (
            sa.select(_windows)
            .where(where & _windows.c.state.in_(("judged", "empty")))
            .order_by(_windows.c.start_us.desc(), _windows.c.id.desc())
            .limit(limit)
        )
        columns = [column for column in _signals.c if column.name != "detail"]
        with self._ledger.reading() as connection:
            rows = list(connection.execute(query))[::-1]
            found: dict[int, list[Signal]] = {row.id: [] for row in rows}
            of_windows = _signals.c.window.in_(list(found)) & (_signals.c.version == version)
            asked = sa.select(*columns, sa.literal("{}").label("detail")).where(of_windows)
            for row in connection.execute(asked.order_by(_signals.c.id)):
                found[row.window].append(_signal(row))
        return [(_judged(row), found[row.id]) for row in rows]

    def latest(self, deployment: str, phase: Phase) -> tuple[Judged | None, list[Signal]]:
        """Return the newest window of a phase that was judged, with all its signals."""
        query = (
            sa.select(_windows)
            .where(
                (_windows.c.deployment == deployment)
                & (_windows.c.phase == phase)
                & (_windows.c.state == "judged")
            )
            .order_by(_windows.c.start_us.desc())
            .limit(1)
        )
        with self._ledger.reading() as connection:
            row = connection.execute(query).first()
            if row is None:
                return None, []
            found = connection.execute(
                sa.select(_signals).where(_signals.c.window == row.id).order_by(_signals.c.id)
            )
            return _judged(row), [_signal(one) for one in found]

    def checks(self, deployment: str, since: datetime) -> set[str]:
        """Return the names of the checks that said something of a window that was judged since a moment."""
        query = (
            sa.select(_signals.c.checked)
            .join(_windows, _windows.c.id == _signals.c.window)
            .where((_windows.c.deployment == deployment) & (_windows.c.judged >= since))
            .distinct()
        )
        with self._ledger.reading() as connection:
            return set(connection.execute(query).scalars())

    def prune(self, before: datetime) -> int:
        """Delete the windows that ended before a moment, with their signals, and return how many."""
        limit = micros(before)
        with self._ledger.writing() as connection:
            connection.execute(sa.delete(_signals).where(_signals.c.end_us < limit))
            return connection.execute(sa.delete(_windows).where(_windows.c.end_us < limit)).rowcount


def _span(query: Any, column: Any, since: datetime | None, until: datetime | None) -> Any:
    if since is not None:
        query = query.where(column >= micros(since))
    if until is not None:
        query = query.where(column < micros(until))
    return query


def _finite(value: float | None) -> float | None:
    """Return a number as databases take it: JSON and SQLite have no NaN, and PostgreSQL sorts it above all others."""
    return None if value is None or not math.isfinite(value) else float(value)


def _row(signal: Signal, window: int) -> dict[str, Any]:
    return {
        "window": window,
        "deployment": signal.deployment,
        "model": signal.model,
        "version": signal.version,
        "checked": signal.check,
        "subject": signal.subject[:255],
        "segment": signal.segment[:255],
        "start_us": micros(signal.window.start),
        "end_us": micros(signal.window.end),
        "value": _finite(signal.value),
        "lower": _finite(signal.lower),
        "upper": _finite(signal.upper),
        "limit_value": _finite(signal.limit),
        "rows": signal.rows,
        "fired": signal.fired,
        "detail": msgspec.json.encode(signal.detail).decode(),
    }


def _judged(row: Any) -> Judged:
    return Judged(
        deployment=row.deployment,
        model=row.model,
        phase=row.phase,
        version=row.version,
        window=Window(moment(row.start_us), moment(row.end_us)),
        state=row.state,
        rows=row.rows,
        labelled=row.labelled,
        maturity=row.maturity,
        fired=row.fired,
        failed=tuple(msgspec.json.decode(row.failed)),
    )


def _signal(row: Any) -> Signal:
    nan = math.nan
    return Signal(
        check=row.checked,
        model=row.model,
        deployment=row.deployment,
        window=Window(moment(row.start_us), moment(row.end_us)),
        value=nan if row.value is None else row.value,
        limit=nan if row.limit_value is None else row.limit_value,
        rows=row.rows,
        fired=bool(row.fired),
        subject=row.subject,
        version=row.version,
        detail=msgspec.json.decode(row.detail),
        segment=row.segment,
        lower=row.lower,
        upper=row.upper,
    )
