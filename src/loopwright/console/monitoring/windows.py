"""Windows: the list of them, and one with all that was found in it, at an address that stays."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from loopwright.console.monitoring.quality import closeness, failed_in
from loopwright.console.monitoring.source import INPUTS, LABELS, Source, found_of, slim
from loopwright.console.monitoring.views import Found, WindowFound, WindowPage
from loopwright.errors import InvalidInput, NotFound
from loopwright.ledger.schema import signals, windows
from loopwright.records import micros, moment

__all__ = ["WindowOf", "WindowsOf", "parsed"]


@dataclass(frozen=True, slots=True)
class WindowsOf:
    """The windows of a deployment that start before a moment, newest first."""

    deployment: str
    phase: Literal["inputs", "labels", ""] = ""
    state: Literal["judged", "immature", "overdue", "empty", ""] = ""
    before: datetime | None = None
    limit: int = 50

    def stamp(self, source: Source) -> Hashable:
        """Return what changes with each window."""
        return source.stamp(self.deployment)

    def answer(self, source: Source) -> WindowPage:
        """Read one page of them."""
        source.project.deployment(self.deployment)
        states = (self.state,) if self.state else ()
        found = source.windows(
            self.deployment, self.phase or None, states=states, before=self.before, most=self.limit + 2
        )
        page = found[: self.limit]
        if len(found) > self.limit and page and found[self.limit].start == page[-1].start:
            # Both phases of a window belong to one page: the next one begins before its start.
            page = [*page, found[self.limit]]
        more = len(found) > len(page)
        return WindowPage(self.deployment, tuple(page), page[-1].start if more else None)


@dataclass(frozen=True, slots=True)
class WindowOf:
    """One window of a deployment, by its start; `limit` findings from `offset` on."""

    deployment: str
    start: datetime
    check: str = ""
    fired: bool = False
    offset: int = 0
    limit: int = 200

    def stamp(self, source: Source) -> Hashable:
        """Return what changes with each window."""
        return source.stamp(self.deployment)

    def answer(self, source: Source) -> WindowFound:
        """Read it.

        Raises
        ------
        NotFound
            No window was looked at that starts then.
        """
        model = source.project.deployment(self.deployment).model
        phases = source.windows(self.deployment, at=self.start, most=10)
        if not phases:
            raise NotFound(
                f"{self.deployment!r} has no window that starts at {self.start.isoformat()}.",
                valid=self._around(source),
                hint=f"loopwright monitor windows {self.deployment}",
            )
        found, total = self._found(source)
        return WindowFound(
            deployment=self.deployment,
            model=model,
            start=self.start,
            end=max(line.end for line in phases),
            phases=tuple(phases),
            found=found,
            total=total,
            offset=self.offset,
            failed=failed_in(phases),
            earlier=self._next(source, earlier=True),
            later=self._next(source, earlier=False),
        )

    def _found(self, source: Source) -> tuple[tuple[Found, ...], int]:
        # Two queries: with one, databases go by the deployment instead of the window and read all that was ever found.
        ids = sa.select(windows.c.id).where(
            (windows.c.deployment == self.deployment)
            & windows.c.phase.in_((INPUTS, LABELS))
            & (windows.c.start_us == micros(self.start))
        )
        with source.ledger.reading() as connection:
            where: list[Any] = [signals.c.window.in_(list(connection.scalars(ids)))]
        if self.check:
            where.append(signals.c.checked == self.check)
        if self.fired:
            where.append(signals.c.fired)
        with source.ledger.reading() as connection:
            found = [found_of(row) for row in connection.execute(sa.select(*slim()).where(*where))]
        found.sort(
            key=lambda one: (not one.fired, one.check, bool(one.segment), -closeness(one), one.subject)
        )
        return tuple(found[self.offset : self.offset + self.limit]), len(found)

    def _next(self, source: Source, *, earlier: bool) -> datetime | None:
        start, at = windows.c.start_us, micros(self.start)
        best = sa.func.max(start) if earlier else sa.func.min(start)
        query = sa.select(best).where(
            (windows.c.deployment == self.deployment) & (start < at if earlier else start > at)
        )
        with source.ledger.reading() as connection:
            found = connection.execute(query).scalar()
        return None if found is None else moment(int(found))

    def _around(self, source: Source) -> str:
        known = source.windows(self.deployment, before=self.start + timedelta(days=3650), most=1)
        return f"The newest starts at {known[0].start.isoformat()}." if known else "None was judged yet."


def parsed(text: str, name: str = "start") -> datetime:
    """Return a moment from its ISO form, such as ``2026-11-01T10:00:00Z``.

    Raises
    ------
    InvalidInput
        It is no moment, or has no time zone.
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise InvalidInput(
            f"{name} = {text!r} is no moment with a time zone.",
            valid="It is written as 2026-11-01T10:00:00Z.",
        )
    return at
