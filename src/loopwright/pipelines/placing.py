"""Bringing the declared schedules of one deployment together with those that Prefect has.

Both sides may change: `loopwright.toml`, and Prefect's pages. What was last written is kept, so that it can be told
which side has: a change on the pages stays until the same thing changes in the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from loopwright.pipelines.plan import Schedule
from loopwright.pipelines.standing import Standing
from loopwright.pipelines.timing import Timing

__all__ = ["Placed", "place"]


@dataclass(frozen=True, slots=True)
class Placed:
    """One schedule as it is to be in Prefect, and what was declared; `note` says what people should know of it."""

    timing: dict[str, Any]
    active: bool
    parameters: dict[str, Any]
    declared: dict[str, Any]
    note: str = ""

    def body(self, name: str) -> dict[str, Any]:
        """Return it as Prefect takes it."""
        return {
            "slug": name,
            "schedule": self.timing,
            "active": self.active,
            "parameters": self.parameters,
        }


def place(
    schedules: list[Schedule], known: dict[str, Any] | None, standings: dict[str, Standing]
) -> tuple[dict[str, Placed], list[dict[str, Any]]]:
    """Return the schedules of one deployment as they are to be, and those made on Prefect's pages, which stay.

    Parameters
    ----------
    schedules
        The declared ones; those that wait for news are no schedule of Prefect's and only have their state merged.
    known
        The deployment in Prefect, None for a new one.
    standings
        How the schedules stood when they were written last.
    """
    there = known["schedules"] if known else []
    named = {one["slug"]: one for one in there if one.get("slug")}
    bare = [one for one in there if not one.get("slug")]
    placed: dict[str, Placed] = {}
    for schedule in schedules:
        same = [one for one in bare if schedule.timing and Timing.of(one["schedule"]) == schedule.timing]
        for one in same:  # from before schedules had names
            bare.remove(one)
        theirs = named.get(schedule.name) or (same[0] if same else None)
        standing = standings.get(schedule.name)
        placed[schedule.name] = _merge(schedule, theirs, standing, deleted=bool(known and standing))
    extra = [one for slug, one in named.items() if slug not in placed and slug not in standings]
    kept = [
        {key: one.get(key) for key in ("slug", "schedule", "active", "parameters")} for one in [*bare, *extra]
    ]
    return placed, kept


def _merge(
    schedule: Schedule, theirs: dict[str, Any] | None, standing: Standing | None, *, deleted: bool
) -> Placed:
    ours: dict[str, Any] = {
        "timing": schedule.timing.to_prefect() if schedule.timing else {},
        "active": not schedule.paused,
        "parameters": schedule.parameters,
    }
    before = standing.declared if standing else {}
    if schedule.timing is None:
        kept = standing is not None and before.get("active") == ours["active"]
        active = standing.active if kept and standing else not schedule.paused
        return Placed({}, active, schedule.parameters, ours)
    if theirs is None:
        note = "was deleted on Prefect's pages and is made again; to stop it: loopwright schedule pause"
        return Placed(**ours, declared=ours, note=note if deleted and before else "")
    found: dict[str, Any] = {
        "timing": _plain(theirs["schedule"]),
        "active": theirs["active"],
        "parameters": theirs.get("parameters") or {},
    }
    result = dict(ours)
    for key, value in found.items():
        changed_there = value != before[key] if before else key == "active"
        changed_here = bool(before) and ours[key] != before[key]
        if changed_there and not changed_here:
            result[key] = value
    note = ""
    if result["timing"] != ours["timing"]:
        timing = Timing.of(result["timing"])
        note = f"was changed on Prefect's pages to {timing or 'a rule'}, which counts; loopwright.toml says {schedule.when}"
    return Placed(**result, declared=ours, note=note)


def _plain(timing: dict[str, Any]) -> dict[str, Any]:
    """Return a timing of Prefect's as it is written by us, where it is one that we could have written."""
    ours = Timing.of(timing)
    return ours.to_prefect() if ours else timing
