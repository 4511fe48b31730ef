"""What a run of a schedule gave: how it ended, its rows, and the metrics that are expected of it."""

from __future__ import annotations

import contextlib
import dataclasses
from datetime import datetime
from typing import Any

from loopwright.config import Project
from loopwright.errors import NotFound
from loopwright.ledger import Ledger
from loopwright.pipelines.plan import Schedule
from loopwright.pipelines.remote import RUN_TAG, tagged
from loopwright.pipelines.standing import ScheduledRun, Status
from loopwright.records import PipelineRun
from loopwright.tracking import rest as tracking

__all__ = ["outcome"]

_STATUS: dict[str, Status] = {"COMPLETED": "completed", "CRASHED": "crashed", "CANCELLED": "cancelled"}


def outcome(
    project: Project, ledger: Ledger, schedule: Schedule | None, run: ScheduledRun, flow_run: dict[str, Any]
) -> ScheduledRun:
    """Return a run with its end, from its flow run in a final state.

    Its rows are the metric `rows` when the pipeline logs one, else those of the last dataset it read or made.
    """
    run_id = tagged(flow_run["tags"], RUN_TAG)
    state = flow_run["state"]
    ended = datetime.fromisoformat(state["timestamp"])
    done = dataclasses.replace(
        run,
        status=_STATUS.get(state["type"], "failed"),
        # From the start of its process, as one that goes on is measured.
        seconds=max(0.0, round((ended - run.started).total_seconds(), 3)),
        run_id=run_id,
        message=(state.get("message") or "")[:500],
    )
    if done.status != "completed":
        return done
    values: dict[str, float] = {}
    if run_id:
        state_of = ledger.get("pipeline_run", run_id)
        record = state_of.read(PipelineRun) if state_of else None
        if record and record.datasets:
            values["rows"] = record.datasets[-1].rows
        wanted = {"rows", *(schedule.expect if schedule else ())}
        with contextlib.suppress(NotFound):
            metrics = tracking.get(project, run_id).metrics
            values |= {name: value for name, value in metrics.items() if name in wanted}
    elif schedule and schedule.batch:
        for event in ledger.events("batch.completed", schedule.target, since=run.started):
            values |= {name: event.payload[name] for name in ("rows", "new_rows")}
    return dataclasses.replace(done, values=values | {"seconds": done.seconds})
