"""How each schedule stands, as the ledger keeps it: written by the runner, read by everybody else."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from loopwright.ledger import Ledger
from loopwright.records import now

__all__ = ["ENDED", "SKIPPED", "ScheduledRun", "Standing", "history", "read", "read_all", "write"]

KIND = "schedule"
#: Events of a schedule; its name is their subject.
STARTED, ENDED, SKIPPED = "schedule.started", "schedule.ended", "schedule.skipped"
Status = Literal["running", "completed", "failed", "crashed", "cancelled"]


@dataclass(frozen=True, slots=True)
class ScheduledRun:
    """One run of a schedule. `time` is when it was due; `values` are its rows and the metrics that are expected."""

    flow_run_id: str
    time: datetime
    started: datetime
    status: Status = "running"
    seconds: float = 0.0
    run_id: str = ""
    values: dict[str, float] = field(default_factory=dict)
    message: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of one schedule.

    Parameters
    ----------
    since
        When the runner first saw it.
    settled
        Every time up to this one was run or decided on.
    declared
        What was last written to Prefect: a difference to what is there now was made on its pages.
    timing, active
        As Prefect has it; what counts.
    seen
        How far the ledger and the files were looked through for news.
    missed
        Times that were not run, since the last run that completed; the newest of them.
    problem
        Why it cannot run, such as a pipeline that is gone.
    """

    name: str
    since: datetime
    settled: datetime
    declared: dict[str, Any] = field(default_factory=dict)
    timing: dict[str, Any] = field(default_factory=dict)
    active: bool = True
    seen: dict[str, Any] = field(default_factory=dict)
    running: tuple[ScheduledRun, ...] = ()
    last: ScheduledRun | None = None
    missed: tuple[datetime, ...] = ()
    problem: str = ""


def read(ledger: Ledger, name: str) -> Standing:
    """Return how a schedule stands; a new one stands from now on."""
    state = ledger.get(KIND, name)
    if state is not None:
        return state.read(Standing)
    moment = now()
    return Standing(name, since=moment, settled=moment)


def read_all(ledger: Ledger) -> dict[str, Standing]:
    """Return how all schedules stand that the runner has seen, by name."""
    return {state.key: state.read(Standing) for state in ledger.states(KIND)}


def write(ledger: Ledger, name: str, *, event: str = "", payload: Any = None, **changes: Any) -> Standing:
    """Change how a schedule stands, with an event in the same transaction when one is named. Returns it."""
    before = read(ledger, name)
    after = dataclasses.replace(before, **changes)
    if after != before or event or ledger.get(KIND, name) is None:
        ledger.put(KIND, name, after, event=event, payload=payload)
    return after


def history(ledger: Ledger, name: str, *, most: int = 30) -> list[ScheduledRun]:
    """Return the last runs of a schedule that have ended, oldest first."""
    return [event.read(ScheduledRun) for event in ledger.events(ENDED, name, limit=most, newest=True)]
