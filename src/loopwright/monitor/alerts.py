"""From signals to alerts: what fired in two of the last three windows is wrong for long enough to say so."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from loopwright.config import METRICS
from loopwright.ledger import Event, Ledger
from loopwright.monitor.base import Phase
from loopwright.records import Alert, Signal

__all__ = ["judge"]

OF, NEEDED = 3, 2


def judge(ledger: Ledger, deployment: str, phase: Phase, champion: int, window_s: float) -> list[Alert]:
    """Open and resolve the alerts of a deployment from its last windows.

    An alert belongs to the version that was champion: after a promotion the new champion starts without a past, and
    the alerts of the old one are resolved.

    Returns
    -------
    list of Alert
        The alerts that were opened now.
    """
    windows = [
        event.payload["signals"]
        for event in ledger.events("monitor.window", deployment, newest=True, limit=4 * OF)
        if event.payload["phase"] == phase
    ]
    history: dict[str, list[Signal]] = {}
    for raw in windows:
        for signal in (_signal(item) for item in raw):
            if signal.version == champion:
                history.setdefault(_key(signal), []).append(signal)
    known = {
        state.key: state.read(Alert)
        for state in ledger.states("alert")
        if state.value["deployment"] == deployment and state.value["state"] != "resolved"
    }
    opened = []
    for key, signals in history.items():
        last = signals[-OF:]
        fired = sum(signal.fired for signal in last)
        if fired >= NEEDED and key not in known:
            opened.append(_open(ledger, key, last, window_s))
        elif key in known and len(last) == OF and fired < NEEDED and not last[-1].fired:
            _resolve(ledger, known[key], "the last windows are fine again")
    for key, alert in known.items():
        if not key.startswith(f"{deployment}/{champion}/"):
            _resolve(ledger, alert, f"version {champion} serves now")
    return opened


def _signal(raw: dict[str, object]) -> Signal:
    import msgspec

    return msgspec.convert(raw, Signal)


def _key(signal: Signal) -> str:
    return f"{signal.deployment}/{signal.version}/{signal.check}/{signal.subject}"


def _open(ledger: Ledger, key: str, signals: Sequence[Signal], window_s: float) -> Alert:
    last = next(signal for signal in reversed(signals) if signal.fired)
    first = next(signal for signal in signals if signal.fired)
    alert = Alert(
        id=key,
        check=last.check,
        model=last.model,
        deployment=last.deployment,
        state="open",
        since=first.window.start,
        message=_message(last, signals, window_s),
        value=last.value,
        limit=last.limit,
        subject=last.subject,
    )
    event: Event = ledger.append("alert.opened", last.model, alert)
    alert = dataclasses.replace(alert, event=event.id)
    ledger.put("alert", key, alert)
    return alert


def _resolve(ledger: Ledger, alert: Alert, reason: str) -> None:
    resolved = dataclasses.replace(alert, state="resolved")
    payload = dataclasses.asdict(resolved) | {"reason": reason}
    event = ledger.append("alert.resolved", alert.model, payload, cause=alert.event or None)
    ledger.put("alert", alert.id, resolved, cause=event.id)


def _message(signal: Signal, signals: Sequence[Signal], window_s: float) -> str:
    fired = sum(one.fired for one in signals)
    since = f"in {fired} of the last {len(signals)} windows of {window_s:g} s"
    where = f"{signal.model}/{signal.version} in {signal.deployment}"
    if signal.check == "performance":
        side = "below" if METRICS[signal.subject] == "higher" else "above"
        return (
            f"{signal.subject} of {where} is {signal.value:.3g} "
            f"(95 % interval {signal.detail['lower']:.3g} to {signal.detail['upper']:.3g}, {signal.rows} labelled rows), "
            f"{side} {signal.limit:g} {since}"
        )
    if signal.check == "drift":
        return (
            f"input {signal.subject!r} of {where} has drifted: PSI {signal.value:.3g} against a limit of "
            f"{signal.limit:.3g} over {signal.rows} rows, {since}"
        )
    return f"{signal.check} {signal.subject!r} of {where} is {signal.value:.4g}, its limit {signal.limit:.4g}, {since}"
