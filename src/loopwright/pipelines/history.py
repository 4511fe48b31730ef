"""The pipeline runs of a project as the ledger has them: finding one, resuming one, cancelling one."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from loopwright.config import Project
from loopwright.errors import Conflict, InvalidInput, NotFound
from loopwright.ledger import Ledger
from loopwright.pipelines import journal, rest
from loopwright.records import PipelineRun

__all__ = ["cancel", "find", "recent", "resume"]

#: A cancelled run gets so long to end by itself before it is killed.
_CANCEL_S = 10.0


def recent(project: Project, pipeline: str = "", limit: int = 50) -> list[PipelineRun]:
    """Return the newest runs, of one pipeline or of all."""
    ledger = Ledger.open(project)
    try:
        runs = [state.read(PipelineRun) for state in ledger.states("pipeline_run")]
    finally:
        ledger.close()
    wanted = [run for run in runs if not pipeline or run.pipeline == pipeline]
    return sorted(wanted, key=lambda run: run.started, reverse=True)[:limit]


def find(project: Project, text: str) -> PipelineRun:
    """Return the run with this id: MLflow's or Prefect's, or the beginning of one; ``last`` is the newest.

    Raises
    ------
    NotFound
        No run has it.
    InvalidInput
        More than one begins so.
    """
    runs = recent(project, limit=100_000)
    if text == "last" and runs:
        return runs[0]
    found = [
        run for run in runs if text and (run.run_id.startswith(text) or run.flow_run_id.startswith(text))
    ]
    if not found:
        raise NotFound.among(
            "pipeline run", text, [run.run_id for run in runs[:8]], hint="loopwright pipeline list"
        )
    if len(found) > 1:
        raise InvalidInput(
            f"{text!r} is the beginning of {len(found)} run ids.",
            valid=f"They are {', '.join(run.run_id for run in found[:5])}.",
        )
    return found[0]


def resume(project: Project, run: PipelineRun, *, trigger: str = "resume") -> PipelineRun:
    """Run a failed run's pipeline again with its parameters, using again what its steps have computed.

    A step is called again when it had not completed, or when anything has changed that its result depends on.

    Raises
    ------
    Conflict
        The run has completed, or still goes on.
    InvalidInput
        A parameter was no JSON value, so that it is not known any more.
    """
    from loopwright.pipelines.entrypoints import load
    from loopwright.pipelines.execution import execute

    short = run.run_id[:8]
    if run.status == "completed":
        raise Conflict(
            f"The run {short} has completed: there is nothing to resume.",
            hint=f"loopwright pipeline run {run.pipeline}",
        )
    if run.status == "running" and _alive(project, run):
        raise Conflict(f"The run {short} still goes on.", hint=f"loopwright pipeline cancel {short}")
    _settle(project)
    pipeline = load(project, run.pipeline)
    return execute(
        project, pipeline, pipeline.bind(run.parameters), trigger=trigger, resume=run.run_id
    ).record


def _settle(project: Project) -> None:
    """End the runs whose process was killed, which the runner would do where one is up."""
    from loopwright import parts

    parts.connect(project)
    ledger = Ledger.open(project, actor="pipelines")
    try:
        for entry in journal.dead(project):
            journal.bury(project, entry, ledger)
    finally:
        ledger.close()


def cancel(project: Project, text: str) -> str:
    """Stop the run with this id, wherever on this machine it goes on, and return what became of it.

    Parameters
    ----------
    text
        As `find` takes it, or the id of a flow run that waits for the runner.

    Raises
    ------
    Conflict
        It has ended.
    NotFound, InvalidInput
        As `find` does.
    """
    from loopwright import parts

    parts.connect(project)
    try:
        run = find(project, text)
    except NotFound as error:
        return _take_back(project, text, error)
    if run.status != "running":
        raise Conflict(f"The run {run.run_id[:8]} has ended: it is {run.status}.")
    entry = _alive(project, run)
    if entry is None:
        _settle(project)
        return "its process was gone already"
    journal.ask_to_stop(project, run.run_id)
    with contextlib.suppress(ProcessLookupError):
        os.kill(
            entry.pid, signal.SIGINT
        )  # as Ctrl-C would, in a terminal or a notebook: the process may live on
    until = time.monotonic() + _CANCEL_S
    while time.monotonic() < until and _alive(project, run):
        time.sleep(0.1)
    killed = _alive(project, run) is not None
    if killed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(entry.pid, signal.SIGKILL)
        time.sleep(0.2)
    _settle(project)
    return f"killed, for it did not end within {_CANCEL_S:.0f} s" if killed else "cancelled"


def _take_back(project: Project, flow_run_id: str, unknown: NotFound) -> str:
    try:
        state = rest.get_flow_run(project, flow_run_id)["state"]["type"]
    except NotFound:
        raise unknown from None
    if state in rest.FINAL:
        raise Conflict(f"The flow run {flow_run_id[:8]} has ended: it is {state.lower()}.")
    kind = "CANCELLED" if state in {"SCHEDULED", "PENDING"} else "CANCELLING"
    rest.set_state(project, flow_run_id, kind, "Cancelled from the command line.", force=True)
    return "taken back" if kind == "CANCELLED" else "the runner stops it"


def _alive(project: Project, run: PipelineRun) -> journal.Entry | None:
    return next((each for each in journal.alive(project) if each.run_id == run.run_id), None)
