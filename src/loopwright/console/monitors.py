"""What the monitors said last: drift per feature and window, and the other checks."""

from __future__ import annotations

from datetime import datetime

import msgspec

from loopwright.console.views import Cell, Drift
from loopwright.ledger import Event, Ledger
from loopwright.records import Signal, Signature

__all__ = ["checks", "drift", "signals_of", "windows"]

#: Windows and features in the drift heat map.
WINDOWS, FEATURES = 36, 10
#: The features that come first are those that fired in so many of the last windows, then those that drifted most.
RECENT = 6


def signals_of(event: Event) -> list[Signal]:
    """Return the signals of a window; one that is not readable is left out."""
    found = []
    for raw in event.payload.get("signals", ()):
        try:
            found.append(msgspec.convert(raw, Signal))
        except msgspec.ValidationError:
            continue
    return found


def windows(ledger: Ledger, name: str) -> list[list[Signal]]:
    """Return the signals of the newest windows, oldest first. A window has one event per phase of its checks."""
    return [
        signals_of(event) for event in ledger.events("monitor.window", name, limit=2 * WINDOWS, newest=True)
    ]


def drift(judged: list[list[Signal]], signature: Signature | None) -> Drift:
    """Return the features that drift or drifted most, with their windows."""
    by_end: dict[datetime, dict[str, Signal]] = {}
    for signals in judged:
        for signal in signals:
            if signal.check == "drift" and signal.subject:
                by_end.setdefault(signal.window.end, {})[signal.subject] = signal
    ends = sorted(by_end)[-WINDOWS:]
    worst: dict[str, tuple[bool, float]] = {}
    for end in ends:
        for feature, signal in by_end[end].items():
            fired, most = worst.get(feature, (False, 0.0))
            fired = fired or (signal.fired and end in ends[-RECENT:])
            worst[feature] = fired, max(most, signal.value / (signal.limit or 1.0))
    features = sorted(sorted(worst), key=worst.__getitem__, reverse=True)[:FEATURES]
    place = {feature: number for number, feature in enumerate(features)}
    cells = [
        Cell(number, place[feature], signal.value, signal.limit, signal.rows, signal.fired)
        for number, end in enumerate(ends)
        for feature, signal in by_end[end].items()
        if feature in place
    ]
    inputs = len(signature.inputs) if signature else len(worst)
    now = sum(signal.fired for signal in by_end[ends[-1]].values()) if ends else 0
    return Drift(tuple(ends), tuple(features), tuple(cells), inputs, now)


def checks(judged: list[list[Signal]]) -> tuple[Signal, ...]:
    """Return the newest signal of each check but drift, of the versions in the newest window that has any."""
    newest: dict[tuple[str, str, int], Signal] = {}
    for signals in judged:
        for signal in signals:
            if signal.check != "drift":
                newest[signal.check, signal.subject, signal.version] = signal
    if not newest:
        return ()
    last = max(signal.window.end for signal in newest.values())
    return tuple(newest[key] for key in sorted(newest) if newest[key].window.end == last)
