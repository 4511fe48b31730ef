"""Reading the windows and signals of the ledger for pages: few columns, by indexes, with limits.

A signal's detail is text that costs more to read than all else of it; only `in_full` touches it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar

import msgspec
import sqlalchemy as sa

from loopwright.config import MonitorConfig, Project
from loopwright.console.monitoring.views import Found, WindowLine
from loopwright.ledger import Ledger
from loopwright.ledger.schema import signals, windows
from loopwright.monitor.live import LiveNumbers
from loopwright.monitor.results import Phase
from loopwright.predictions import PredictionStore
from loopwright.records import Deployment, ModelVersion, Signature, micros, moment

__all__ = [
    "INPUTS",
    "LABELS",
    "QUALITY",
    "WINDOWS",
    "Question",
    "Source",
    "Span",
    "detail_of",
    "found_of",
    "slim",
]

Answer_co = TypeVar("Answer_co", covariant=True)

#: How many windows a chart shows at most, without and with a wish.
WINDOWS, MOST_WINDOWS = 200, 1000
#: The checks of data quality, in the order in which people fix them.
QUALITY = ("schema", "freshness", "volume", "missing", "unseen", "out_of_range", "duplicates", "labels")
INPUTS: Phase = "inputs"
LABELS: Phase = "labels"
_SLIM = (
    signals.c.checked,
    signals.c.subject,
    signals.c.segment,
    signals.c.version,
    signals.c.start_us,
    signals.c.end_us,
    signals.c.value,
    signals.c.lower,
    signals.c.upper,
    signals.c.limit_value,
    signals.c.rows,
    signals.c.fired,
)


class Question(Protocol[Answer_co]):
    """Something to ask. Equal questions share one answer."""

    def stamp(self, source: Source) -> Hashable:
        """Return what changes when the answer may have changed; it must cost little."""
        ...

    def answer(self, source: Source) -> Answer_co:
        """Read the answer.

        Raises
        ------
        NotFound
            What is asked for is not there.
        """
        ...


@dataclass(frozen=True, slots=True)
class Span:
    """Windows by their starts, in microseconds, both included."""

    first_us: int
    last_us: int


class Source:
    """What questions are answered from. Safe to share between threads.

    `live` are the counts of minutes, hours and days that the controller keeps.
    """

    def __init__(
        self,
        project: Project,
        ledger: Ledger,
        store: PredictionStore,
        at: datetime,
        live: LiveNumbers | None = None,
    ) -> None:
        self.project = project
        self.ledger = ledger
        self.store = store
        self.at = at
        self.live = live or LiveNumbers(ledger, project)

    def stamp(self, deployment: str) -> Hashable:
        """Return what changes with each window that is judged and each state that is put."""
        query = sa.select(sa.func.max(windows.c.judged), sa.func.count()).where(
            windows.c.deployment == deployment
        )
        with self.ledger.reading() as connection:
            judged = connection.execute(query).one()
        return tuple(judged), self.ledger.revision()

    def monitor(self, deployment: str) -> MonitorConfig | None:
        """Return what is declared of a deployment's monitor."""
        return self.project.config.monitor.get(self.project.deployment(deployment).model)

    def champion(self, deployment: str) -> int | None:
        """Return the version that answers, None while none does."""
        state = self.ledger.get("deployment", deployment)
        variants = [one for one in state.read(Deployment).variants if not one.shadow] if state else []
        named = [one.version for one in variants if one.name == "champion"]
        return named[0] if named else (variants[0].version if variants else None)

    def signature(self, deployment: str) -> Signature | None:
        """Return the signature of the version that answers, else of the newest."""
        model, version = self.project.deployment(deployment).model, self.champion(deployment)
        state = self.ledger.get("model_version", f"{model}/{version}") if version is not None else None
        if state is not None:
            return state.read(ModelVersion).signature
        versions = [one.read(ModelVersion) for one in self.ledger.states("model_version")]
        mine = [one for one in versions if one.model == model]
        return max(mine, key=lambda one: one.version).signature if mine else None

    def span(
        self, deployment: str, phase: Phase, most: int = WINDOWS, *, until: datetime | None = None
    ) -> Span | None:
        """Return where the newest `most` windows of a phase lie that start at or before `until`; None without one."""
        start = windows.c.start_us
        query = sa.select(start).where((windows.c.deployment == deployment) & (windows.c.phase == phase))
        if until is not None:
            query = query.where(start <= micros(until))
        newest = query.order_by(start.desc()).limit(min(max(most, 1), MOST_WINDOWS)).subquery()
        with self.ledger.reading() as connection:
            first, last = connection.execute(
                sa.select(sa.func.min(newest.c.start_us), sa.func.max(newest.c.start_us))
            ).one()
        return None if first is None else Span(int(first), int(last))

    def newest(self, deployment: str, phase: Phase) -> int | None:
        """Return the start, in microseconds, of the newest window of a phase that was judged."""
        query = sa.select(sa.func.max(windows.c.start_us)).where(
            (windows.c.deployment == deployment) & (windows.c.phase == phase) & (windows.c.state == "judged")
        )
        with self.ledger.reading() as connection:
            start = connection.execute(query).scalar()
        return None if start is None else int(start)

    def windows(
        self,
        deployment: str,
        phase: Phase | None = None,
        *,
        states: Sequence[str] = (),
        before: datetime | None = None,
        at: datetime | None = None,
        most: int = WINDOWS,
    ) -> list[WindowLine]:
        """Return the newest windows, newest first: of those that start before a moment, or just at one."""
        query = sa.select(windows).where(windows.c.deployment == deployment)
        if phase is not None:
            query = query.where(windows.c.phase == phase)
        if states:
            query = query.where(windows.c.state.in_(states))
        if before is not None:
            query = query.where(windows.c.start_us < micros(before))
        if at is not None:
            # With both phases named the index is used to its end.
            query = query.where(windows.c.phase.in_((INPUTS, LABELS)), windows.c.start_us == micros(at))
        query = query.order_by(windows.c.start_us.desc(), windows.c.id.desc())
        with self.ledger.reading() as connection:
            return [_line(row) for row in connection.execute(query.limit(min(max(most, 1), MOST_WINDOWS)))]

    def found(
        self,
        deployment: str,
        checks: str | Sequence[str],
        span: Span,
        *,
        subjects: Sequence[str] | None = None,
        segment: str | None = "",
        most: int = 20_000,
    ) -> list[Found]:
        """Return what checks found in a span of windows, oldest first; of the newest `most`.

        `segment` ``""`` asks for what was found over all rows, None for any part of them.
        """
        names = [checks] if isinstance(checks, str) else list(checks)
        query = sa.select(*_SLIM).where(
            (signals.c.deployment == deployment)
            & (signals.c.checked.in_(names))
            & (signals.c.start_us >= span.first_us)
            & (signals.c.start_us <= span.last_us)
        )
        if subjects is not None:
            query = query.where(signals.c.subject.in_(list(subjects)))
        if segment is not None:
            query = query.where(signals.c.segment == segment)
        query = query.order_by(signals.c.start_us.desc(), signals.c.id.desc()).limit(most)
        with self.ledger.reading() as connection:
            return [found_of(row) for row in connection.execute(query)][::-1]

    def in_full(
        self, deployment: str, check: str, subject: str, span: Span, *, segment: str = "", most: int = 1
    ) -> list[tuple[Found, dict[str, Any]]]:
        """Return the newest findings of one check and subject with their details, oldest first."""
        query = (
            sa.select(*_SLIM, signals.c.detail)
            .where(
                (signals.c.deployment == deployment)
                & (signals.c.checked == check)
                & (signals.c.subject == subject)
                & (signals.c.segment == segment)
                & (signals.c.start_us >= span.first_us)
                & (signals.c.start_us <= span.last_us)
            )
            .order_by(signals.c.start_us.desc(), signals.c.id.desc())
            .limit(most)
        )
        with self.ledger.reading() as connection:
            rows = [(found_of(row), detail_of(row.detail)) for row in connection.execute(query)]
        return rows[::-1]


def slim() -> tuple[Any, ...]:
    """Return the columns of a signal that `found_of` reads."""
    return _SLIM


def found_of(row: Any) -> Found:
    """Return a row of the slim columns as a record."""
    return Found(
        check=row.checked,
        subject=row.subject,
        segment=row.segment,
        version=row.version,
        start=moment(row.start_us),
        end=moment(row.end_us),
        value=row.value,
        lower=row.lower,
        upper=row.upper,
        limit=row.limit_value,
        rows=row.rows,
        fired=bool(row.fired),
    )


def detail_of(text: str) -> dict[str, Any]:
    """Return a signal's detail; empty where it cannot be read: a page must not fail because of one row."""
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _line(row: Any) -> WindowLine:
    return WindowLine(
        start=moment(row.start_us),
        end=moment(row.end_us),
        phase=row.phase,
        state=row.state,
        version=row.version,
        rows=row.rows,
        labelled=row.labelled,
        maturity=row.maturity,
        fired=row.fired,
        failed=tuple(msgspec.json.decode(row.failed)),
    )
