"""Pausing schedules and letting them go on: in Prefect, where it is seen and kept, and in the ledger at once."""

from __future__ import annotations

from loopwright.config import Project
from loopwright.errors import Unavailable
from loopwright.ledger import Ledger
from loopwright.pipelines import rest, standing
from loopwright.pipelines.plan import schedule
from loopwright.pipelines.standing import Standing
from loopwright.records import now

__all__ = ["switch"]


def switch(project: Project, name: str, *, active: bool) -> Standing:
    """Pause a schedule, or let it go on, and return how it stands then.

    Raises
    ------
    NotFound
        `loopwright.toml` declares no such schedule.
    Unavailable
        Prefect does not answer, or the runner has not brought the schedule there yet.
    """
    declared = schedule(project, name)
    ledger = Ledger.open(project)
    try:
        if declared.timing is not None:
            _in_prefect(project, name, declared.deployment, active)
        # What came due while it was paused is not missed.
        settled = now() if active else standing.read(ledger, name).settled
        return standing.write(ledger, name, active=active, settled=settled)
    finally:
        ledger.close()


def _in_prefect(project: Project, name: str, deployment: str, active: bool) -> None:
    for found in rest.deployments(project, deployment):
        if active and found["paused"]:
            rest.call(project, "PATCH", f"deployments/{found['id']}", {"paused": False})
        for one in found["schedules"]:
            if one["slug"] == name:
                rest.set_active(project, found["id"], one["id"], active)
                return
    raise Unavailable(
        f"The schedule {name!r} is not in Prefect yet: the runner brings it there.",
        valid=f"Or write paused = true into [schedule.{name}].",
        hint="loopwright up",
    )
