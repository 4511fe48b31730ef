"""From signals to alerts: what fired in enough of the last windows is wrong for long enough to say so."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from loopwright.config import MonitorConfig
from loopwright.errors import Conflict
from loopwright.ledger import Ledger, State
from loopwright.monitor.base import Phase
from loopwright.monitor.results import Results
from loopwright.monitor.words import Told, tell
from loopwright.records import Alert, Judged, Signal

__all__ = ["LOOK_BACK", "Severity", "alert_id", "judge", "severity_of"]

Severity = Literal["info", "warning", "critical"]

#: So many times the windows of the rule are looked at: those without enough rows say nothing about a subject.
LOOK_BACK = 4
#: The ledger's keys are not longer.
_LONGEST = 255
_PHASES: tuple[Phase, ...] = ("inputs", "labels")
#: Checks that keep only the conspicuous subjects of a window: one that is not there was quiet.
_TRIMMED = frozenset({"schema", "missing", "unseen", "out_of_range"})
_INFO = frozenset({"drift", "prediction_drift", "estimated"})
_CRITICAL = frozenset({"performance", "kpi", "service", "freshness"})


def severity_of(check: str) -> Severity:
    """Return how bad it is when a check alarms: ``info`` for what only proposes, ``critical`` for what harms users."""
    return "info" if check in _INFO else "critical" if check in _CRITICAL else "warning"


def alert_id(signal: Signal) -> str:
    """Return the id of the trouble that a signal is about: the same for the same trouble, at most 255 characters."""
    made = f"{signal.deployment}/{signal.version}/{signal.check}/{signal.subject}"
    made += f"/{signal.segment}" if signal.segment else ""
    if len(made) <= _LONGEST:
        return made
    digest = hashlib.blake2b(made.encode(), digest_size=8).hexdigest()
    return f"{made[: _LONGEST - len(digest) - 1]}~{digest}"


@dataclass(frozen=True, slots=True)
class _Past:
    """What was said of one subject in its last windows, oldest first; None where it was quiet and not kept."""

    windows: tuple[tuple[Judged, Signal | None], ...]

    @property
    def fired(self) -> list[tuple[Judged, Signal]]:
        return [(judged, signal) for judged, signal in self.windows if signal is not None and signal.fired]

    @property
    def quiet_now(self) -> bool:
        last = self.windows[-1][1]
        return last is None or not last.fired


def judge(
    ledger: Ledger, deployment: str, champion: int, config: MonitorConfig, now: datetime
) -> list[Alert]:
    """Open, refresh and resolve the alerts of a deployment from its last windows. Calling it again changes nothing.

    An alert belongs to the version that was champion: after a promotion the new champion starts without a past, and
    the alerts of the old one are resolved. One that is acknowledged stays so until it is resolved.

    Returns
    -------
    list of Alert
        The alerts that were opened now.
    """
    results = Results(ledger)
    back = LOOK_BACK * config.windows
    recent = {phase: results.recent(deployment, phase, champion, back) for phase in _PHASES}
    past: dict[str, _Past] = {}
    for phase in _PHASES:
        past |= _pasts(recent[phase], config.windows)
    known = {
        state.key: state
        for state in ledger.states("alert")
        if state.value["deployment"] == deployment and state.value["state"] != "resolved"
    }
    opened = []
    for key, one in past.items():
        fired = len(one.fired)
        if key in known:
            if len(one.windows) == config.windows and fired < config.needed and one.quiet_now:
                _resolve(ledger, known[key], "the last windows are fine again", now)
            elif not one.quiet_now:
                _refresh(ledger, results, known[key], one, config, now)
        elif fired >= config.needed:
            alert = _open(ledger, results, key, one, config, now)
            opened += [alert] if alert is not None else []
    full = any(len(found) == back for found in recent.values())
    for key, state in known.items():
        reason = _outlived(state, champion, config, full and key not in past, back)
        if reason:
            _resolve(ledger, state, reason, now)
    return opened


def _pasts(recent: Sequence[tuple[Judged, Sequence[Signal]]], windows: int) -> dict[str, _Past]:
    """Return the last windows of each subject that was kept in any of them."""
    kept = [{alert_id(signal): signal for signal in found} for _, found in recent]
    spoken = [{(signal.check, signal.segment) for signal in found} for _, found in recent]
    subjects: dict[str, Signal] = {}
    for found in kept:
        subjects |= found
    made = {}
    for key, example in subjects.items():
        said = [
            (judged, found.get(key))
            for (judged, _), found, checks in zip(recent, kept, spoken, strict=True)
            if key in found or (example.check in _TRIMMED and (example.check, example.segment) in checks)
        ]
        made[key] = _Past(tuple(said[-windows:]))
    return made


def _outlived(state: State, champion: int, config: MonitorConfig, unheard: bool, windows: int) -> str:
    """Return why an alert that nobody speaks of any more is resolved, or nothing."""
    if not state.key.startswith(f"{state.value['deployment']}/{champion}/"):
        return f"version {champion} serves now"
    if state.value["check"] in config.off:
        return f"the check {state.value['check']} is switched off"
    return f"nothing was said of it in the last {windows} windows" if unheard else ""


def _told(results: Results, past: _Past, config: MonitorConfig) -> tuple[Signal, Told]:
    judged, last = past.fired[-1]
    # With its details, which the history is read without.
    found = results.signals(
        last.deployment,
        check=last.check,
        subject=last.subject[:_LONGEST],
        segment=last.segment[:_LONGEST],
        version=last.version,
        since=last.window.start,
        limit=config.windows,
    )
    last = next((signal for signal in found if signal.window == last.window), last)
    return last, tell(last, judged, len(past.fired), len(past.windows))


def _open(
    ledger: Ledger, results: Results, key: str, past: _Past, config: MonitorConfig, now: datetime
) -> Alert | None:
    last, told = _told(results, past, config)
    alert = Alert(
        id=key,
        check=last.check,
        model=last.model,
        deployment=last.deployment,
        state="open",
        since=past.fired[0][1].window.start,
        message=told.message,
        value=last.value,
        limit=last.limit,
        subject=last.subject,
        version=last.version,
        segment=last.segment,
        rows=last.rows,
        severity=severity_of(last.check),
        advice=told.advice,
        changed=now,
        detail=_detail(last, past),
    )
    before = ledger.get("alert", key)
    try:
        ledger.put(
            "alert",
            key,
            alert,
            expect=before.revision if before else 0,
            event="alert.opened",
            subject=alert.model,
            numbered="event",
        )
    except Conflict:
        return None  # somebody else has opened it meanwhile
    after = ledger.get("alert", key)
    return after.read(Alert) if after else alert


def _detail(last: Signal, past: _Past) -> dict[str, object]:
    judged = past.fired[-1][0]
    return {
        **last.detail,
        "window": {"start": last.window.start, "end": last.window.end, "rows": judged.rows},
        "fired": len(past.fired),
        "of": len(past.windows),
    }


def _refresh(
    ledger: Ledger, results: Results, state: State, past: _Past, config: MonitorConfig, now: datetime
) -> None:
    """Say how bad it is by now, where a new window has said so; no event, so that nobody is told again."""
    alert = state.read(Alert)
    last, told = _told(results, past, config)
    if told.message == alert.message:
        return
    changed = dataclasses.replace(
        alert,
        value=last.value,
        limit=last.limit,
        rows=last.rows,
        message=told.message,
        advice=told.advice,
        changed=now,
        severity=severity_of(last.check),
        detail=_detail(last, past),
    )
    event = "alert.changed" if changed.severity != alert.severity else ""
    _put(ledger, state, changed, event, {})


def _resolve(ledger: Ledger, state: State, reason: str, now: datetime) -> None:
    resolved = dataclasses.replace(state.read(Alert), state="resolved", changed=now)
    _put(ledger, state, resolved, "alert.resolved", {"reason": reason})


def _put(ledger: Ledger, state: State, alert: Alert, event: str, more: Mapping[str, object]) -> None:
    """Write an alert and its event at once; where somebody has changed it meanwhile, the next turn looks again."""
    payload = dataclasses.asdict(alert) | dict(more)
    try:
        ledger.put(
            "alert",
            state.key,
            alert,
            expect=state.revision,
            event=event,
            subject=alert.model,
            cause=alert.event or None,
            payload=payload,
        )
    except Conflict:
        return
