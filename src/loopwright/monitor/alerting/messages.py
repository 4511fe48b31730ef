"""What a message says: what moved, by how much, since when, for whom, what to do, and how to say that one is on it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from loopwright.config import Project
from loopwright.errors import Unavailable
from loopwright.monitor.alerting.channel import BARS, Look, Message
from loopwright.monitor.alerting.states import short_id
from loopwright.records import Alert

__all__ = ["Notice", "Reason", "bars", "body", "compose", "console_link", "headline", "title"]

#: Why a message is sent: an alert opened, is over, or nobody did anything about it.
Reason = Literal["opened", "resolved", "escalated"]
#: Alerts that a message about several lists, and those it tells all about.
LISTED, WHOLE = 20, 5
#: Bins that are drawn, the width of the longest bar, and that of the longest name.
DRAWN, WIDTH, NAMED = 12, 20, 24
_WORST = {"info": 0, "warning": 1, "critical": 2}
_LOOKS: dict[str, Look] = {"info": "info", "warning": "warning", "critical": "failure"}


@dataclass(frozen=True, slots=True)
class Notice:
    """One alert to be told of, for a reason. `said` is the event's payload, `event` its id, `body` as it was written."""

    alert: Alert
    reason: Reason
    event: int
    title: str
    body: str
    said: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def headline(alert: Alert) -> str:
    """Return an alert in one short line, such as ``digits-api: accuracy 0.71, limit 0.85``."""
    where = alert.deployment or ("schedules" if alert.check.startswith("schedule") else alert.model)
    of = f" ({alert.segment})" if alert.segment else ""
    if alert.check.startswith("schedule"):
        return f"{where}: {alert.subject} {alert.check.removeprefix('schedule ')}"
    named = alert.subject or alert.check
    what = (
        named
        if alert.check in {"performance", "kpi"} or named == alert.check
        else f"{alert.check} of {named}"
    )
    return f"{where}: {what}{of} {_number(alert.value)}, limit {_number(alert.limit)}"


def title(alert: Alert, reason: Reason) -> str:
    """Return the title of a message about one alert."""
    if reason == "resolved":
        return f"[resolved] {headline(alert)}"
    still = "still open: " if reason == "escalated" else ""
    return f"[{alert.severity}] {still}{headline(alert)}"


def body(alert: Alert, reason: Reason, said: Mapping[str, Any], at: datetime) -> str:
    """Return the text of a message about one alert: all but the link, which may change until it is sent."""
    lines = [alert.message, ""]
    if reason == "resolved":
        lines.append(f"Resolved: {said.get('reason') or 'it is fine again'}")
    elif reason == "escalated":
        lines.append(f"Escalated: nobody has acknowledged it for {_span(alert.since, at)}")
    since = f"Since: {alert.since.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    lines.append(since if reason == "escalated" else f"{since} ({_span(alert.since, at)})")
    lines.append(f"For: {_whom(alert)}")
    if alert.advice and reason != "resolved":
        lines.append(f"What to do: {alert.advice}")
    drawn = bars(alert.detail) if reason != "resolved" else ""
    if drawn:
        lines += ["", drawn]
    if reason != "resolved":
        lines += ["", f"Acknowledge: loopwright alert ack {short_id(alert)}"]
    return "\n".join(lines)


def compose(notices: Sequence[Notice], link: str = "") -> Message:
    """Make one message of all alerts that are to be told for one reason.

    Parameters
    ----------
    notices
        At least one, all for the same reason.
    link
        The console's address, empty where it does not run.
    """
    worst = max(notices, key=lambda one: _WORST[one.alert.severity])
    reason, alert = worst.reason, worst.alert
    look = "success" if reason == "resolved" else _LOOKS[alert.severity]
    data = [
        {**_plain(one), "event": one.event, "reason": one.reason, "short_id": short_id(one.alert)}
        for one in notices
    ]
    if len(notices) == 1:
        where = console_link(link, alert)
        shown = f"\n{where}" if where else ""
        return Message(worst.title, worst.body + shown, f"{alert.message}{shown}", look, data)
    ordered = sorted(notices, key=lambda one: (-_WORST[one.alert.severity], one.alert.deployment, one.event))
    names = list(dict.fromkeys(one.alert.deployment or "schedules" for one in ordered))
    of = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    mark = "resolved" if reason == "resolved" else alert.severity
    still = " still open" if reason == "escalated" else ""
    listed = "\n".join(f"- {one.title}" for one in ordered[:LISTED])
    left = f"\nand {len(ordered) - LISTED} more: loopwright alert list" if len(ordered) > LISTED else ""
    foot = f"\n\n{link}" if link else ""
    told = ordered[:WHOLE] if reason != "resolved" else []
    whole = "".join(f"\n\n{one.title}\n{one.body}" for one in told)
    return Message(
        title=f"[{mark}] {len(notices)} alerts{still}: {of}",
        body=f"{listed}{left}{whole}{foot}",
        short=f"{listed}{left}{foot}",
        look=look,
        alerts=data,
    )


def console_link(link: str, alert: Alert) -> str:
    """Return the address of an alert's page in the console at `link`, empty where that is."""
    return f"{link.rstrip('/')}/alerts/{short_id(alert)}" if link else ""


def console(project: Project) -> str:
    """Return the address of the project's console, empty where it does not run."""
    from loopwright import parts

    try:
        return parts.url(project, "console")
    except Unavailable:
        return ""


def bars(detail: Mapping[str, Any]) -> str:
    """Draw the reference window against the current one, one line for each bin; nothing where no bins are known.

    Of more than 12 bins those are drawn that moved most.

    Parameters
    ----------
    detail
        An alert's; see `shares`.

    Examples
    --------
    >>> print(bars({"bins": {"labels": ["cat", "dog"], "reference": [30, 10], "current": [10, 30]}}))
    share of rows: = training, # now
    cat ====================  75 %
        #######               25 %
    dog =======               25 %
        ####################  75 %
    """
    found = shares(detail)
    if len(found) < 2:
        return ""
    moved = sorted(range(len(found)), key=lambda place: -abs(found[place][2] - found[place][1]))[:DRAWN]
    kept = [found[place] for place in sorted(moved)]
    top = max(max(before, now) for _, before, now in kept)
    names = [name if len(name) <= NAMED else f"{name[: NAMED - 1]}~" for name, _, _ in kept]
    room = max(map(len, names))
    lines = [f"{BARS} = training, # now"]
    for name, (_, before, now) in zip(names, kept, strict=True):
        lines.append(f"{name:<{room}} {_bar('=', before, top)}")
        lines.append(f"{'':<{room}} {_bar('#', now, top)}")
    if len(kept) < len(found):
        lines.append(f"({len(found) - len(kept)} more bins moved less)")
    return "\n".join(lines)


def shares(detail: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Return the bins that a check left for a plot: name, share in the reference window, share now.

    Parameters
    ----------
    detail
        An alert's. Its ``bins`` has ``labels``, ``reference`` and ``current``, lists of one length; or it is a list of
        objects with ``bin``, ``reference`` and ``current``. Counts and shares are both taken.

    Returns
    -------
    list of (str, float, float)
        Shares add up to 1; nothing where there are no bins, or what is no bins.
    """
    raw = detail.get("bins")
    try:
        if isinstance(raw, Mapping):
            rows = list(zip(raw["labels"], raw["reference"], raw["current"], strict=True))
        else:
            rows = [(one["bin"], one["reference"], one["current"]) for one in raw or []]
        counts = [(str(name), float(before), float(now)) for name, before, now in rows]
    except (KeyError, TypeError, ValueError):
        return []
    if any(not math.isfinite(one) or one < 0 for _, before, now in counts for one in (before, now)):
        return []
    before_sum, now_sum = sum(one[1] for one in counts), sum(one[2] for one in counts)
    if not (0 < before_sum < math.inf and 0 < now_sum < math.inf):
        return []
    return [(name, before / before_sum, now / now_sum) for name, before, now in counts]


def _bar(mark: str, share: float, top: float) -> str:
    return f"{mark * round(WIDTH * share / top):<{WIDTH}} {100 * share:3.0f} %"


def _plain(one: Notice) -> dict[str, Any]:
    """Return an alert as JSON takes it, without NaN; as the event has it, for that is how it was then."""
    made: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(one.said or dataclasses.asdict(one.alert)))
    return made


def _whom(alert: Alert) -> str:
    if alert.check.startswith("schedule"):
        return f"schedule {alert.subject}"
    model = f"{alert.model}/{alert.version}" if alert.version else alert.model
    parts = [f"{model} in {alert.deployment}" if alert.deployment else model]
    if alert.segment:
        parts.append(f"rows with {alert.segment}")
    if alert.rows:
        parts.append(f"{alert.rows:,} rows")
    return ", ".join(part for part in parts if part)


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "unknown"


def _span(since: datetime, at: datetime) -> str:
    seconds = max((at - since).total_seconds(), 0.0)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} s"
