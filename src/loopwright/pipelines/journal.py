"""Which pipeline runs are going on in which process, and ending those whose process is gone.

A killed process cannot say that its run has ended: Prefect and MLflow would show it as running for ever. Each run
writes a small file while it lasts; whoever finds one whose process is dead ends the run in its place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import psutil

from loopwright.config import Project
from loopwright.errors import NotFound
from loopwright.ledger import Ledger
from loopwright.pipelines import rest
from loopwright.records import PipelineRun, now
from loopwright.tracking import rest as tracking

__all__ = ["KILLED", "Entry", "alive", "ask_to_stop", "asked_to_stop", "bury", "dead", "forget", "write"]

#: What a run is said to have ended with.
KILLED = "the process was killed"


@dataclass(frozen=True, slots=True)
class Entry:
    """One pipeline run and the process it is in. `created` tells a reused pid from the real one.

    `flow_run_id` is empty until Prefect has given one; the MLflow run is there first.
    """

    run_id: str
    flow_run_id: str
    pid: int
    created: float


def _folder(project: Project) -> Path:
    return project.run / "flows"


@cache
def _created(pid: int) -> float:
    return psutil.Process(pid).create_time()


def write(project: Project, run_id: str, flow_run_id: str = "") -> None:
    """Note that this process runs a pipeline."""
    folder = _folder(project)
    folder.mkdir(parents=True, exist_ok=True)
    entry = Entry(run_id, flow_run_id, os.getpid(), _created(os.getpid()))
    temporary = folder / f".{run_id}"
    temporary.write_text(json.dumps(asdict(entry)))
    temporary.replace(folder / f"{run_id}.json")


def forget(project: Project, run_id: str) -> None:
    """Note that a run has ended everywhere."""
    for ending in ("json", "cancel"):
        (_folder(project) / f"{run_id}.{ending}").unlink(missing_ok=True)


def ask_to_stop(project: Project, run_id: str) -> None:
    """Note that a run is stopped because somebody has cancelled it."""
    (_folder(project) / f"{run_id}.cancel").touch()


def asked_to_stop(project: Project, run_id: str) -> bool:
    """Whether somebody has cancelled a run."""
    return (_folder(project) / f"{run_id}.cancel").exists()


def dead(project: Project) -> list[Entry]:
    """Return the runs whose process is gone."""
    return [entry for entry in _entries(project) if not _runs(entry)]


def alive(project: Project) -> list[Entry]:
    """Return the runs whose process is there."""
    return [entry for entry in _entries(project) if _runs(entry)]


def _entries(project: Project) -> list[Entry]:
    found = []
    for path in sorted(_folder(project).glob("*.json")):
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError, TypeError):
            found.append(Entry(**json.loads(path.read_text())))
    return found


def _runs(entry: Entry) -> bool:
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(entry.pid)
        return abs(process.create_time() - entry.created) < 1 and process.status() != psutil.STATUS_ZOMBIE
    return False


def bury(project: Project, entry: Entry, ledger: Ledger) -> None:
    """End a dead process's run in Prefect, MLflow and the ledger; what has an end already keeps it.

    Raises
    ------
    Unavailable
        A server does not answer; the entry stays and can be tried again.
    """
    state = ledger.get("pipeline_run", entry.run_id)
    record = state.read(PipelineRun) if state else None
    cancelled = asked_to_stop(project, entry.run_id)
    if record and record.status == "running":
        seconds = (now() - record.started).total_seconds()
        status: Literal["cancelled", "failed"] = "cancelled" if cancelled else "failed"
        ended = dataclasses.replace(record, status=status, error=KILLED, seconds=seconds)
        ledger.put("pipeline_run", entry.run_id, ended)
        ledger.append(f"pipeline.{status}", ended.pipeline, ended)
    completed = record is not None and record.status == "completed"
    if entry.flow_run_id:
        kind = "COMPLETED" if completed else ("CANCELLED" if cancelled else "CRASHED")
        _end_flow_run(project, entry.flow_run_id, kind)
    with contextlib.suppress(NotFound):
        if tracking.get(project, entry.run_id).status == "RUNNING":
            tracking.end(project, entry.run_id, "FINISHED" if completed else "KILLED")
    forget(project, entry.run_id)


def _end_flow_run(project: Project, flow_run_id: str, kind: str) -> None:
    message = {"COMPLETED": "", "CANCELLED": "Cancelled."}.get(kind, f"Crashed: {KILLED}.")
    with contextlib.suppress(NotFound):  # somebody deleted it
        rest.end(project, flow_run_id, kind, message)
        rest.end_tasks(project, flow_run_id, message)
