"""Which of the flow runs that are due start now, wait, or are given up: by slots, concurrency and catch-up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from loopwright.pipelines.plan import Schedule

__all__ = ["Decision", "Due", "admit"]


@dataclass(frozen=True, slots=True)
class Due:
    """A flow run whose time has come. `schedule` is None for one that somebody asked for.

    Runs of one `group` come from one schedule, declared or made on Prefect's pages; an empty one is never dropped.
    """

    id: str
    deployment_id: str
    time: datetime
    schedule: Schedule | None
    group: str
    flow_run: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a flow run that is due, and what its state says of it."""

    due: Due
    action: Literal["start", "wait", "skip", "miss"]
    message: str = ""


def admit(due: list[Due], moment: datetime, going: Counter[str], slots: int) -> Iterator[Decision]:
    """Decide on the runs that are due, in the order of their times.

    Parameters
    ----------
    going
        How many runs of each deployment (by id) go on.
    slots
        How many more the runner may start.
    """
    newest = {one.group: one.id for one in sorted(due, key=lambda one: one.time) if one.group}
    going = Counter(going)
    for one in sorted(due, key=lambda one: one.time):
        missed = _missed(one, moment, newest.get(one.group, one.id))
        if missed:
            yield Decision(one, "miss", missed)
            continue
        limit = one.schedule.concurrency if one.schedule else None
        if limit is not None and going[one.deployment_id] >= limit:
            yield _overlapping(one, moment, going[one.deployment_id], limit)
        elif slots <= 0:
            yield Decision(one, "wait", "Waits: all slots of the runner are taken ([runner] slots).")
        else:
            slots -= 1
            going[one.deployment_id] += 1
            yield Decision(one, "start")


def _missed(one: Due, moment: datetime, newest: str) -> str:
    """Return why a run is not made up for, or an empty text."""
    policy = one.schedule.catch_up if one.schedule else "last"
    if not one.group or policy == "all":
        return ""
    if policy == "none" and one.schedule and moment - one.time > one.schedule.max_late:
        late = one.schedule.max_late.total_seconds()
        return f'Missed: it did not start within {late:g} s of its time, and catch_up = "none".'
    return "" if one.id == newest else "Missed: it did not start in time, and a newer one is due."


def _overlapping(one: Due, moment: datetime, going: int, limit: int) -> Decision:
    assert one.schedule is not None
    what = "an earlier run goes on" if going == 1 else f"{going} earlier runs go on"
    late = moment - one.time > one.schedule.max_late
    if one.schedule.overlap == "skip" and not (late and one.schedule.catch_up == "all"):
        return Decision(one, "skip", f'Skipped: {what}, concurrency = {limit} and overlap = "skip".')
    return Decision(one, "wait", f"Waits: {what}, and concurrency = {limit}.")
