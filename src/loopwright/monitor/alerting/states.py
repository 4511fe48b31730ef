"""What people do with an alert: find it by a short name, say that they look after it, declare it over."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

from loopwright.errors import Conflict, InvalidInput, NotFound
from loopwright.ledger import Ledger, State
from loopwright.ledger.store import Event
from loopwright.records import Alert, now

__all__ = ["acknowledge", "find", "history", "resolve", "short_id"]

#: Tries to change an alert that a monitor changes at the same moment.
_TRIES = 10
#: An alert's events that `history` returns at most, and those of its model that it looks through for them.
_MOST, _THROUGH = 200, 2000


def short_id(alert: Alert | str) -> str:
    """Return the 8 hexadecimal digits that an alert, or an alert's id, can be called by, in a URL as well.

    Examples
    --------
    >>> short_id("digits-api/3/performance/accuracy/")
    'e987995f'
    """
    text = alert if isinstance(alert, str) else alert.id
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def find(ledger: Ledger, name: str) -> State:
    """Return the state of the alert that is called `name`: its id, its short id, or the first digits of that.

    Raises
    ------
    NotFound
        No alert is called so.
    InvalidInput
        Several are.
    """
    if exact := ledger.get("alert", name):
        return exact
    states = ledger.states("alert")
    digits = name.lower()
    found = [state for state in states if len(digits) >= 4 and short_id(state.key).startswith(digits)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InvalidInput(
            f"{name!r} is the beginning of {len(found)} alerts.",
            valid=f"Write one of: {', '.join(state.key for state in found[:12])}.",
            hint=f"loopwright alert show '{found[0].key}'",
        )
    raise NotFound.among(
        "alert", name, [short_id(state.key) for state in states], hint="loopwright alert list --all"
    )


def acknowledge(ledger: Ledger, name: str, by: str = "", note: str = "") -> Alert:
    """Say that somebody looks after an alert: it is not escalated any more. Said twice, the first one stays.

    Parameters
    ----------
    name
        What `find` takes.
    by
        Who; by default whoever opened the ledger.
    note
        What is kept with it in the event ``alert.acknowledged``.

    Raises
    ------
    NotFound, InvalidInput
        See `find`.
    Conflict
        It is resolved.
    """
    who = by or ledger.actor

    def change(alert: Alert) -> Alert | None:
        if alert.state == "acknowledged":
            return None
        _still_open(alert, "acknowledge")
        return dataclasses.replace(alert, state="acknowledged", by=who, changed=now())

    return _change(ledger, name, change, "alert.acknowledged", {"by": who, "note": note})


def resolve(ledger: Ledger, name: str, by: str = "", reason: str = "") -> Alert:
    """Declare an alert over. It opens again when the next windows find the same.

    Raises
    ------
    NotFound, InvalidInput
        See `find`.
    Conflict
        It is resolved already.
    """
    who = by or ledger.actor

    def change(alert: Alert) -> Alert:
        _still_open(alert, "resolve")
        return dataclasses.replace(alert, state="resolved", changed=now())

    said = reason or f"declared over by {who}"
    return _change(ledger, name, change, "alert.resolved", {"by": who, "reason": said})


def history(ledger: Ledger, alert: Alert) -> list[Event]:
    """Return the newest events of an alert in the order they happened, over all times that it opened."""
    subjects = {alert.model, alert.id} - {""}
    found = [
        event for one in subjects for event in ledger.events("alert.*", one, newest=True, limit=_THROUGH)
    ]
    mine = [event for event in found if event.payload.get("id") == alert.id]
    return sorted(mine, key=lambda event: event.id)[-_MOST:]


def _still_open(alert: Alert, what: str) -> None:
    if alert.state == "resolved":
        raise Conflict(
            f"Alert {short_id(alert)} is resolved: there is nothing to {what}.",
            valid="Only an open or acknowledged alert can change.",
            hint=f"loopwright alert show {short_id(alert)}",
        )


def _change(
    ledger: Ledger,
    name: str,
    change: Callable[[Alert], Alert | None],
    event: str,
    said: dict[str, Any],
) -> Alert:
    """Change an alert and add the event in one transaction, again where a monitor came in between."""
    for attempt in range(_TRIES):
        state = find(ledger, name)
        alert = state.read(Alert)
        changed = change(alert)
        if changed is None:
            return alert
        try:
            ledger.put(
                "alert",
                state.key,
                changed,
                expect=state.revision,
                event=event,
                subject=alert.model,
                cause=alert.event or None,
                payload=dataclasses.asdict(changed) | said,
            )
        except Conflict:
            if attempt == _TRIES - 1:
                raise
            continue
        return changed
    raise AssertionError("unreachable")
