"""What the checks of data quality and all others said of the newest windows, and which could not judge them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from loopwright.console.monitoring.source import INPUTS, LABELS, QUALITY, Source, Span
from loopwright.console.monitoring.views import FailedCheck, Found, Quality, WindowLine

__all__ = ["OTHERS", "QualityOf", "failed", "failed_in", "others"]

#: Checks whose newest values are shown as they are, beside the panels of their own that others have.
OTHERS = ("service", "prediction_drift")


@dataclass(frozen=True, slots=True)
class QualityOf:
    """What the checks of data quality said of the newest window; of all parts of its rows."""

    deployment: str
    check: str = ""
    fired: bool = False
    offset: int = 0
    limit: int = 50

    def stamp(self, source: Source) -> Hashable:
        """Return what changes with each window."""
        return source.stamp(self.deployment)

    def answer(self, source: Source) -> Quality:
        """Read it, what fired first, then what came closest to its limit."""
        source.project.deployment(self.deployment)
        found: list[Found] = []
        for phase in (INPUTS, LABELS):
            start = source.newest(self.deployment, phase)
            if start is not None:
                checks = [name for name in QUALITY if (name == "labels") == (phase == "labels")]
                found += source.found(self.deployment, checks, Span(start, start), segment=None)
        fired = sum(one.fired for one in found)
        end = max((one.end for one in found), default=None)
        found = [one for one in found if self.check in {"", one.check} and (one.fired or not self.fired)]
        found.sort(key=lambda one: (not one.fired, bool(one.segment), -closeness(one)))
        page = tuple(found[self.offset : self.offset + self.limit])
        return Quality(self.deployment, end, len(found), fired, self.offset, page)


def closeness(one: Found) -> float:
    """Return how close a value came to its limit: 1 at it; 0 where either is not known."""
    if one.value is None or not one.limit:
        return 0.0
    return one.value / one.limit


def others(source: Source, deployment: str) -> tuple[Found, ...]:
    """Return the newest findings over all rows of checks that have no panel of their own."""
    start = source.newest(deployment, INPUTS)
    found = source.found(deployment, OTHERS, Span(start, start)) if start is not None else []
    order = {name: place for place, name in enumerate(OTHERS)}
    return tuple(sorted(found, key=lambda one: (order[one.check], one.subject, one.version)))


def failed(source: Source, deployment: str) -> tuple[FailedCheck, ...]:
    """Return which checks cannot judge at present, and why."""
    found = [
        FailedCheck(str(state.value.get("check", "")), state.changed, str(state.value["reason"]))
        for state in source.ledger.states("monitor_failure")
        if state.value.get("deployment") == deployment and state.value.get("reason")
    ]
    return tuple(sorted(found, key=lambda one: one.check))


def failed_in(lines: Sequence[WindowLine]) -> tuple[FailedCheck, ...]:
    """Return which checks could not judge a window in any of its phases, and why."""
    made = []
    for line in lines:
        for text in line.failed:
            check, _, reason = text.partition(": ")
            made.append(FailedCheck(check, line.end, reason))
    return tuple(made)
