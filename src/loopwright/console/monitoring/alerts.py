"""Alerts: what is wrong, since when, for whom, what was done about it, and whom it was told."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from loopwright.console.monitoring.source import INPUTS, LABELS, Source
from loopwright.console.monitoring.views import (
    AlertDetail,
    AlertLine,
    AlertPage,
    Bin,
    Found,
    Message,
    SilenceLine,
    Told,
)
from loopwright.ledger import Event, Ledger
from loopwright.ledger.schema import deliveries
from loopwright.monitor.alerting import active, covers, find, history, short_id, silence
from loopwright.records import Alert, Silence, to_plain

__all__ = ["AlertOf", "AlertsOf", "bins_of", "lines", "ordered", "silence_one"]

_GRAVITY: dict[str, int] = {"critical": 0, "warning": 1, "info": 2}
#: Messages of one alert that are shown, and bins in a plot.
_MESSAGES, _BINS = 100, 24
#: Windows before and after that the curve of an alert has.
_POINTS = 60
#: Checks that judge a window when its labels are due.
_LATE = ("performance", "calibration", "labels", "kpi")


@dataclass(frozen=True, slots=True)
class AlertsOf:
    """Alerts of a project, or of one deployment, check or severity; only those not resolved, or all."""

    resolved: bool = False
    deployment: str = ""
    check: str = ""
    severity: str = ""
    offset: int = 0
    limit: int = 20

    def stamp(self, source: Source) -> Hashable:
        """Return what changes with each state, and when a silence may have ended."""
        return source.ledger.revision(), int(source.at.timestamp()) // 10

    def answer(self, source: Source) -> AlertPage:
        """Read one page of them, what is open and gravest first."""
        alerts = [state.read(Alert) for state in source.ledger.states("alert")]
        mine = [
            one
            for one in alerts
            if (self.resolved or one.state != "resolved")
            and self.deployment in {"", one.deployment}
            and self.check in {"", one.check}
            and self.severity in {"", one.severity}
        ]
        silences = active(source.ledger, source.at)
        page = ordered(mine)[self.offset : self.offset + self.limit]
        return AlertPage(
            at=source.at,
            total=len(mine),
            open=sum(one.state != "resolved" for one in mine),
            offset=self.offset,
            alerts=lines(page, silences),
            silences=tuple(_silence(one) for one in silences),
        )


@dataclass(frozen=True, slots=True)
class AlertOf:
    """One alert, by its id or the short form of it."""

    alert: str

    def stamp(self, source: Source) -> Hashable:
        """Return what changes with each state, each message, and when a silence may have ended."""
        with source.ledger.reading() as connection:
            sent = connection.execute(sa.select(sa.func.max(deliveries.c.changed))).scalar()
        return source.ledger.revision(), sent, int(source.at.timestamp()) // 10

    def answer(self, source: Source) -> AlertDetail:
        """Read it with its history, its messages and the values around it.

        Raises
        ------
        NotFound, InvalidInput
            No alert, or more than one, is called so.
        """
        alert = find(source.ledger, self.alert).read(Alert)
        (line,) = lines([alert], active(source.ledger, source.at))
        return AlertDetail(
            alert=line,
            detail=alert.detail,
            history=tuple(_told(event) for event in history(source.ledger, alert)[::-1]),
            messages=_messages(source, alert),
            points=points(source, alert),
        )


def ordered(alerts: Sequence[Alert]) -> list[Alert]:
    """Return open ones first, the gravest first, the newest first."""
    return sorted(
        alerts,
        key=lambda one: (
            ("open", "acknowledged", "resolved").index(one.state),
            (_GRAVITY[one.severity], bool(one.segment)) if one.state != "resolved" else (0, False),
            -(one.changed or one.since).timestamp() if one.state == "resolved" else -one.since.timestamp(),
        ),
    )


def lines(alerts: Sequence[Alert], silences: Sequence[Silence]) -> tuple[AlertLine, ...]:
    """Return alerts as they are shown."""
    made = []
    for alert in alerts:
        quiet = covers(alert, silences) if alert.state != "resolved" else None
        made.append(
            AlertLine(
                id=alert.id,
                short=short_id(alert),
                check=alert.check,
                severity=alert.severity,
                state=alert.state,
                model=alert.model,
                deployment=alert.deployment,
                version=alert.version,
                subject=alert.subject,
                segment=alert.segment,
                since=alert.since,
                changed=alert.changed,
                message=alert.message,
                advice=alert.advice,
                value=_finite(alert.value),
                limit=_finite(alert.limit),
                rows=alert.rows,
                by=alert.by,
                silenced_until=quiet.until if quiet else None,
                bins=bins_of(alert.detail),
            )
        )
    return tuple(made)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def bins_of(detail: dict[str, Any], most: int = _BINS) -> tuple[Bin, ...]:
    """Return the bins that a check left for a plot, as shares; none where it left none, or what is no bins.

    They are lists ``labels``, ``reference`` and ``current`` of one length, or a list of objects with ``bin``,
    ``reference`` and ``current``; shares or counts.
    """
    found = detail.get("bins")
    try:
        if isinstance(found, dict):
            named = list(zip(found["labels"], found["reference"], found["current"], strict=True))
        elif isinstance(found, list):
            named = [(one["bin"], one["reference"], one["current"]) for one in found]
        else:
            return ()
        before, after = (sum(float(one[place]) for one in named) for place in (1, 2))
        if before <= 0 or after <= 0:
            return ()
        return tuple(
            Bin(str(name), float(one) / before, float(two) / after) for name, one, two in named[:most]
        )
    except (TypeError, KeyError, ValueError):
        return ()


def silence_one(ledger: Ledger, name: str, seconds: int, by: str = "", reason: str = "") -> Silence:
    """Send no message, for some seconds, of one alert.

    Raises
    ------
    NotFound, InvalidInput
        No alert, or more than one, is called so.
    """
    alert = find(ledger, name).read(Alert)
    return silence(
        ledger,
        timedelta(seconds=seconds),
        by=by,
        reason=reason,
        model=alert.model,
        deployment=alert.deployment,
        check=alert.check,
        subject=alert.subject,
        segment=alert.segment,
    )


def points(source: Source, alert: Alert, most: int = _POINTS) -> tuple[Found, ...]:
    """Return the newest values of what an alert is about, oldest first."""
    if not alert.deployment or alert.deployment not in source.project.config.deployment:
        return ()
    found: list[Found] = []
    for phase in (LABELS, INPUTS) if alert.check in _LATE else (INPUTS,):
        span = source.span(alert.deployment, phase, most)
        if span is not None and not found:
            found = source.found(
                alert.deployment,
                alert.check,
                span,
                subjects=[alert.subject],
                segment=alert.segment,
                most=most,
            )
    return tuple(found)


def _told(event: Event) -> Told:
    facts = event.payload
    what = event.kind.removeprefix("alert.")
    by = str(facts.get("by") or "") if what in {"acknowledged", "resolved"} else ""
    note = facts.get("note") or facts.get("reason") or (facts.get("message") if what == "opened" else "")
    return Told(event.at, what, by or event.actor, str(note or ""))


def _messages(source: Source, alert: Alert) -> tuple[Message, ...]:
    query = (
        sa.select(deliveries)
        .where(deliveries.c.alert == alert.id)
        .order_by(deliveries.c.id.desc())
        .limit(_MESSAGES)
    )
    with source.ledger.reading() as connection:
        return tuple(
            Message(row.address, row.reason, row.state, row.attempts, _utc(row.changed), row.error)
            for row in connection.execute(query)
        )


def _utc(at: datetime) -> datetime:
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _silence(one: Silence) -> SilenceLine:
    return SilenceLine(**to_plain(one))
