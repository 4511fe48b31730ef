"""The outbox: what is to be sent about alerts, to whom, and what became of it; one row for each alert, reason and address.

Rows come from the events of alerts, so that what opens an alert needs to know nothing of messages. A row is there once
for each event, reason and address, however often the events are read: a process that is killed between writing rows and
noting how far it read writes none twice. Rows are sent by `sender`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, Literal, cast

import sqlalchemy as sa

from loopwright import plugins
from loopwright.config import AlertsConfig, Project
from loopwright.errors import Conflict, Damaged, listing, nearest
from loopwright.ledger import Event, Ledger, State
from loopwright.ledger.schema import deliveries as _table
from loopwright.ledger.schema import events as _events
from loopwright.monitor.alerting import messages, silences
from loopwright.monitor.alerting.addresses import addresses
from loopwright.monitor.alerting.messages import Reason
from loopwright.records import Alert, Silence

__all__ = [
    "GROUP",
    "RETRIES",
    "Delivery",
    "claim",
    "deliveries",
    "failed",
    "record",
    "tick",
    "unknown_check",
]

log = logging.getLogger(__name__)
#: Alerts that open within this time of the first are told in one message.
GROUP = timedelta(seconds=5)
#: How long after each failed attempt the next one is made; after the last of them a row has failed.
RETRIES = tuple(timedelta(seconds=one) for one in (5, 30, 120, 600, 3600))
#: A row that a process took and did not come back with, because it was killed, is sent again after this.
LEASE = timedelta(seconds=60)
#: What opened longer ago than this, and is over, is not told of any more when the controller was away.
_STALE = timedelta(days=1)
#: Events of one kind that are read at once.
_PAGE = 1000
_KINDS: dict[str, Reason] = {
    "alert.opened": "opened",
    "alert.resolved": "resolved",
    "alert.escalated": "escalated",
}
_SEVERITIES = ("info", "warning", "critical")
_POSITION = ("alerting", "outbox")
_OVER = "not sent: the alert was over, or somebody was on it, when the silence ended"

DeliveryState = Literal["pending", "sent", "failed", "silenced"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One row: a message about one alert to one address.

    `address` is the address's `Address.name`, without what is secret. `due` is when a pending one is tried next, `error`
    why the last attempt failed, or why a silenced one was never sent.
    """

    id: int
    alert: str
    event: int
    reason: Reason
    address: str
    state: DeliveryState
    attempts: int
    due: datetime
    changed: datetime
    title: str
    body: str
    error: str


def tick(project: Project, ledger: Ledger, now: datetime) -> int:
    """Write what is to be sent: for new events of alerts, for alerts nobody looked after, and when silences end.

    Costs two small queries where nothing has happened, and sends nothing itself.

    Returns
    -------
    int
        How many rows were written or set free.
    """
    config, now = project.config.alerts, now.astimezone(UTC)
    if config.escalate_after is not None:
        _escalate(config, ledger, now)
    return _enqueue(config, ledger, now) + _apply_silences(ledger, now)


def _enqueue(config: AlertsConfig, ledger: Ledger, now: datetime) -> int:
    """Write the rows of all events since the last that was seen."""
    state = ledger.get(*_POSITION)
    seen = int(state.value["event"]) if state else 0
    fresh = _news(ledger, seen)
    if not fresh:
        return 0
    count = 0
    for event in fresh:
        reason = _KINDS[event.kind]
        alert = _read(event)
        if alert is None or (reason == "opened" and _stale(ledger, event, alert, now)):
            continue
        # Who was told of it hears that it is over, however it was judged in the end.
        if reason != "resolved" and not _told(config, alert):
            continue
        to = config.escalate_to if reason == "escalated" else config.to
        if reason == "resolved":
            to = (*config.to, *config.escalate_to) if config.resolved else ()
        count += _write(ledger, event, alert, reason, sorted(addresses(to)), now)
    ledger.put(*_POSITION, {"event": fresh[-1].id}, expect=state.revision if state else 0)
    return count


def _read(found: Event | State) -> Alert | None:
    """Return the alert of an event or a state; None where that is none, which must not hold up all the others."""
    try:
        return found.read(Alert)
    except Damaged as error:
        # An event is read once, a state at each turn.
        log.log(logging.WARNING if isinstance(found, Event) else logging.DEBUG, "%s", error.fact)
        return None


def _news(ledger: Ledger, seen: int) -> list[Event]:
    """Return the events after one, up to where all kinds are known: of each kind only the first ones were read."""
    found = [ledger.events(kind, after=seen, limit=_PAGE) for kind in _KINDS]
    until = min((events[-1].id for events in found if len(events) == _PAGE), default=None)
    return sorted(
        (event for events in found for event in events if until is None or event.id <= until),
        key=lambda event: event.id,
    )


def _told(config: AlertsConfig, alert: Alert) -> bool:
    """Whether an alert is one of those that are told of."""
    if _SEVERITIES.index(alert.severity) < _SEVERITIES.index(config.severity):
        return False
    # "schedule" means "schedule late", "schedule missed" and the others.
    names = (alert.check, alert.check.partition(" ")[0])
    return not config.checks or any(fnmatchcase(name, one) for one in config.checks for name in names)


def unknown_check(text: str) -> str:
    """Return what is wrong with one of ``[alerts] checks``, nothing where a check can be meant by it."""
    known = [*plugins.names("check"), "schedule"]
    if any(fnmatchcase(name, text.partition(" ")[0]) for name in known):
        return ""
    close = nearest(text, known)
    guess = f" Did you mean {close!r}?" if close else ""
    return f"[alerts] checks: nothing is ever told of {text!r}, which is no check.{guess} Known: {listing(known, most=30)}."


def _stale(ledger: Ledger, event: Event, alert: Alert, now: datetime) -> bool:
    state = ledger.get("alert", alert.id)
    return now - event.at > _STALE and (state is None or state.value["state"] != "open")


def _write(
    ledger: Ledger, event: Event, alert: Alert, reason: Reason, to: Sequence[str], now: datetime
) -> int:
    """Write the rows of one event that are not there yet, in one transaction."""
    count = 0
    with ledger.writing() as connection:
        for address in to:
            where = (_table.c.event == event.id) & (_table.c.reason == reason) & (_table.c.address == address)
            if connection.execute(sa.select(_table.c.id).where(where)).first():
                continue
            if reason == "resolved" and not _knows(connection, alert.id, address):
                continue
            row = {
                "alert": alert.id,
                "event": event.id,
                "reason": reason,
                "address": address,
                "state": "pending",
                "attempts": 0,
                "due": now + GROUP,
                "changed": now,
                "title": messages.title(alert, reason),
                "body": messages.body(alert, reason, event.payload, now),
            }
            connection.execute(sa.insert(_table).values(**row))
            count += 1
    return count


def _knows(connection: sa.Connection, alert: str, address: str) -> bool:
    """Whether an address was told, or is about to be, that an alert opened the last time or is still open."""
    query = (
        sa.select(_table.c.state)
        .where((_table.c.alert == alert) & (_table.c.address == address) & (_table.c.reason != "resolved"))
        .order_by(_table.c.id.desc())
        .limit(1)
    )
    return connection.execute(query).scalar() in {"pending", "sent"}


def _escalate(config: AlertsConfig, ledger: Ledger, now: datetime) -> None:
    """Note of each alert that nobody looked after that it is told further; the event of that becomes the rows."""
    assert config.escalate_after is not None
    quiet: list[Silence] | None = None
    for state in ledger.states("alert"):
        if state.value.get("state") != "open" or state.value.get("escalated") is not None:
            continue
        alert = _read(state)
        if alert is None or now - alert.since < config.escalate_after or not _told(config, alert):
            continue
        quiet = silences.active(ledger, now) if quiet is None else quiet
        opened = _opened(ledger, alert)
        at = opened.at if opened else alert.since
        if now - at < config.escalate_after or silences.covers(alert, quiet):
            continue
        escalated = dataclasses.replace(alert, escalated=now)
        cause = opened.id if opened else None
        # Where somebody has just changed it, the next turn sees what it is now.
        with contextlib.suppress(Conflict):
            ledger.put(
                "alert",
                state.key,
                escalated,
                expect=state.revision,
                event="alert.escalated",
                subject=alert.model,
                cause=cause,
            )


def _opened(ledger: Ledger, alert: Alert) -> Event | None:
    """Return the event that opened an alert the last time."""
    if alert.event and (event := ledger.event(alert.event)):
        return event
    return ledger.last("alert.opened", alert.id)


def _apply_silences(ledger: Ledger, now: datetime) -> int:
    """Hold back the rows that a silence covers, and set free those that none covers any more."""
    quiet = silences.active(ledger, now)
    held = (_table.c.state == "silenced") & (_table.c.error == "")
    with ledger.reading() as connection:
        where = held | (_table.c.state == "pending") if quiet else held
        query = sa.select(_table).where(where).order_by(_table.c.id)
        rows = [_delivery(row) for row in connection.execute(query)]
    if not rows:
        return 0
    newest = {(row.alert, row.address, row.reason): row.id for row in rows}
    states = {key: ledger.get("alert", key) for key in {row.alert for row in rows}}
    alerts = {key: _read(state) for key, state in states.items() if state is not None}
    changes: list[tuple[int, dict[str, Any]]] = []
    for row in rows:
        alert = alerts.get(row.alert)
        if alert is None:
            continue
        covered = silences.covers(alert, quiet) is not None
        if row.state == "pending" and covered:
            changes.append((row.id, {"state": "silenced", "error": ""}))
        elif row.state == "silenced" and not covered:
            # What opened again in the silence is told once.
            last = newest[row.alert, row.address, row.reason] == row.id
            wanted = last and row.reason != "resolved" and alert.state == "open"
            changes.append((row.id, {"state": "pending", "due": now} if wanted else {"error": _OVER}))
    with ledger.writing() as connection:
        for key, values in changes:
            # It may have been sent since.
            still = (_table.c.id == key) & _table.c.state.in_(("pending", "silenced"))
            connection.execute(sa.update(_table).where(still).values(changed=now, **values))
    return sum(values.get("state") == "pending" for _, values in changes)


def claim(ledger: Ledger, now: datetime, busy: Collection[str] = ()) -> list[list[Delivery]]:
    """Take the rows that are due, and say what goes into one message: those to one address for one reason.

    With the first of an address that is due go all new ones, so that what opens together is told together. Nobody else
    gets a row that is taken; it is due again after `LEASE` if `record` was never called. A row counts as tried when it is
    taken.

    Parameters
    ----------
    busy
        Addresses of which nothing is taken now.

    Returns
    -------
    list of list of Delivery
        Each to be sent as one message, in the order in which those to one address must be sent.
    """
    now = now.astimezone(UTC)
    with ledger.reading() as connection:
        query = sa.select(_table.c.id).where((_table.c.state == "pending") & _ripe(now)).limit(1)
        if connection.execute(query).first() is None:
            return []
    with ledger.writing() as connection:
        query = sa.select(_table, _ripe(now).label("ripe")).where(_table.c.state == "pending")
        by_address: dict[str, list[tuple[Delivery, bool]]] = {}
        for row in connection.execute(query.order_by(_table.c.id)):
            if row.address not in busy:
                by_address.setdefault(row.address, []).append((_delivery(row), bool(row.ripe)))
        groups = [group for rows in by_address.values() for group in _groups(rows)]
        for one in (one for group in groups for one in group):
            values = {"attempts": one.attempts + 1, "due": now + LEASE, "changed": now}
            connection.execute(sa.update(_table).where(_table.c.id == one.id).values(**values))
    return [[dataclasses.replace(row, attempts=row.attempts + 1) for row in group] for group in groups]


def _ripe(now: datetime) -> sa.ColumnElement[bool]:
    """Whether a row is due: its time has come, or is so far off that the clock must have been moved back since."""
    due = _table.c.due
    new = (_table.c.attempts == 0) & (due > now + GROUP)
    return (due <= now) | new | (due > now + RETRIES[-1] + LEASE)


def _groups(rows: Sequence[tuple[Delivery, bool]]) -> list[list[Delivery]]:
    """Return the messages to one address: rows that are due, and with them all that were never tried."""
    if not any(ripe for _, ripe in rows):
        return []
    taken = [row for row, ripe in rows if ripe or row.attempts == 0]
    # That an alert is over is not said before it was said that it opened.
    told = {row.alert for row, _ in rows if row.reason != "resolved"}
    groups = [[row for row in taken if row.reason == reason] for reason in ("opened", "escalated")]
    groups.append([row for row in taken if row.reason == "resolved" and row.alert not in told])
    return [group for group in groups if group]


def record(ledger: Ledger, group: Sequence[Delivery], now: datetime, error: str = "") -> None:
    """Note what became of rows that `claim` gave.

    Parameters
    ----------
    error
        Why they could not be sent; empty when they were. Without secrets: it is kept and shown.
    """
    now = now.astimezone(UTC)
    with ledger.writing() as connection:
        for row in group:
            values: dict[str, Any] = {"changed": now, "error": error}
            if not error:
                values |= {"state": "sent", "due": now}
            elif row.attempts > len(RETRIES):
                values |= {"state": "failed", "due": now}
            else:
                values |= {"due": now + RETRIES[row.attempts - 1]}
            connection.execute(sa.update(_table).where(_table.c.id == row.id).values(**values))


def deliveries(
    ledger: Ledger, *, alert: str = "", state: DeliveryState | None = None, limit: int = 100
) -> list[Delivery]:
    """Return the newest rows, the newest first: of one alert, by its id, or in one state."""
    query = sa.select(_table).order_by(_table.c.id.desc()).limit(limit)
    if alert:
        query = query.where(_table.c.alert == alert)
    if state:
        query = query.where(_table.c.state == state)
    with ledger.reading() as connection:
        return [_delivery(row) for row in connection.execute(query)]


def failed(ledger: Ledger) -> int:
    """Return how many messages were given up."""
    query = sa.select(sa.func.count()).select_from(_table).where(_table.c.state == "failed")
    with ledger.reading() as connection:
        return int(connection.execute(query).scalar() or 0)


def payloads(ledger: Ledger, ids: Iterable[int]) -> dict[int, dict[str, Any]]:
    """Return the payloads of events by their ids."""
    import msgspec

    query = sa.select(_events.c.id, _events.c.payload).where(_events.c.id.in_(list(ids)))
    with ledger.reading() as connection:
        return {row.id: msgspec.json.decode(row.payload) for row in connection.execute(query)}


def _delivery(row: Any) -> Delivery:
    return Delivery(
        id=row.id,
        alert=row.alert,
        event=row.event,
        reason=cast("Reason", row.reason),
        address=row.address,
        state=cast("DeliveryState", row.state),
        attempts=row.attempts,
        due=_utc(row.due),
        changed=_utc(row.changed),
        title=row.title,
        body=row.body,
        error=row.error,
    )


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
