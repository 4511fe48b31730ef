"""Silences: for a while, nobody is told of certain alerts. They still open, and show.

What is not told in a silence is told when it ends, if the alert is still open then.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from loopwright.errors import Conflict, InvalidInput, NotFound
from loopwright.ledger import Ledger
from loopwright.records import Alert, Silence, now

__all__ = ["FIELDS", "active", "covers", "end", "known", "silence"]

#: The fields of an alert that a silence can be about.
FIELDS = ("model", "deployment", "check", "subject", "segment")


def silence(
    ledger: Ledger,
    until: datetime | timedelta,
    *,
    by: str = "",
    reason: str = "",
    model: str = "",
    deployment: str = "",
    check: str = "",
    subject: str = "",
    segment: str = "",
    at: datetime | None = None,
) -> Silence:
    """Send no message, until a moment, of alerts whose fields match; with no field given, of any.

    Parameters
    ----------
    until
        The moment it ends, with a time zone, or how long it lasts.
    by
        Who; by default whoever opened the ledger.
    model, deployment, check, subject, segment
        Names, or patterns as in a shell such as ``region=*``. Empty ones match all.
    at
        The present moment, by default the clock's.

    Raises
    ------
    InvalidInput
        `until` is not in the future, or has no time zone.

    Examples
    --------
    >>> from datetime import timedelta
    >>> from loopwright.ledger import Ledger
    >>> made = silence(Ledger("sqlite://"), timedelta(hours=2), check="drift", reason="a new sensor")
    >>> made.check, made.until - made.created
    ('drift', datetime.timedelta(seconds=7200))
    """
    at = at or now()
    end_at = at + until if isinstance(until, timedelta) else until
    if end_at.tzinfo is None:
        raise InvalidInput(
            f"The moment {end_at} has no time zone.", valid="Write one, such as 2026-11-26T18:00:00+00:00."
        )
    if end_at <= at:
        raise InvalidInput(
            f"A silence until {end_at} would be over already: it is {at}.",
            valid="It must end in the future.",
            hint="loopwright alert silence --for 2h --deployment NAME",
        )
    made = Silence(
        id=secrets.token_hex(4),
        until=end_at,
        by=by or ledger.actor,
        reason=reason,
        model=model,
        deployment=deployment,
        check=check,
        subject=subject,
        segment=segment,
        created=at,
    )
    ledger.put("silence", made.id, made, expect=0, event="silence.started")
    return made


def end(ledger: Ledger, name: str, by: str = "", at: datetime | None = None) -> Silence:
    """End a silence now. `name` is its id.

    Raises
    ------
    NotFound
        There is no such silence.
    Conflict
        It is over already.
    """
    state = ledger.get("silence", name)
    if state is None:
        raise NotFound.among(
            "silence", name, [one.id for one in active(ledger, at)], hint="loopwright alert silences --all"
        )
    at, found = at or now(), state.read(Silence)
    if found.until <= at:
        raise Conflict(f"The silence {name} is over since {found.until}.", hint="loopwright alert silences")
    ended = dataclasses.replace(found, until=at)
    payload = dataclasses.asdict(ended) | {"ended_by": by or ledger.actor}
    ledger.put("silence", name, ended, expect=state.revision, event="silence.ended", payload=payload)
    return ended


def known(ledger: Ledger) -> list[Silence]:
    """Return all silences, also those that are over, the newest first."""
    found = [state.read(Silence) for state in ledger.states("silence")]
    return sorted(found, key=lambda one: one.created, reverse=True)


def active(ledger: Ledger, at: datetime | None = None) -> list[Silence]:
    """Return the silences that hold at a moment, by default now, the newest first."""
    moment = at or now()
    return [one for one in known(ledger) if one.until > moment]


def covers(alert: Alert, silences: Iterable[Silence]) -> Silence | None:
    """Return the first of the silences that an alert falls under, or None."""
    return next((one for one in silences if all(_match(alert, one, name) for name in FIELDS)), None)


def _match(alert: Alert, one: Silence, name: str) -> bool:
    pattern, value = getattr(one, name), getattr(alert, name)
    # Equal first: names of columns such as "width [cm]" are no patterns.
    return not pattern or pattern == value or fnmatchcase(value, pattern)
