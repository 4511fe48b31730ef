"""Running a copy of a notebook as a tracked run: parameters put in, the executed copy kept as an artifact."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from loopwright import parts
from loopwright.config import Project
from loopwright.errors import LoopwrightError, StepFailed
from loopwright.tracking.notebooks.injection import cell_number, with_parameters
from loopwright.tracking.notebooks.kernel import client, tools

if TYPE_CHECKING:
    from loopwright.records import DatasetRef
    from loopwright.tracking.active import Tracked

__all__ = ["RUN_VARIABLE", "NotebookRun", "run"]

#: Set in the kernel of a tracked notebook: the file with the run's id, beside which the datasets it read are written.
RUN_VARIABLE = "LOOPWRIGHT_NOTEBOOK_RUN"


@dataclass(frozen=True, slots=True)
class NotebookRun:
    """One tracked run of a notebook. `executed` is the copy with its outputs; `cells` counts code cells."""

    run_id: str
    status: Literal["completed", "failed"]
    cells: int
    seconds: float
    executed: Path
    parameters: dict[str, Any]
    datasets: tuple[DatasetRef, ...] = ()


def run(
    project: Project, notebook: Path, parameters: Mapping[str, Any], *, timeout_s: float | None = None
) -> NotebookRun:
    """Run a copy of a notebook, in a new process, as one MLflow run.

    What the notebook itself logs with MLflow goes into the same run, unless it chooses an experiment of its own.
    The notebook is not changed.

    Parameters
    ----------
    parameters
        New values for names that the notebook assigns a number, text or boolean to.
    timeout_s
        Longest time for one cell; None waits for ever.

    Raises
    ------
    NotFound, InvalidInput
        There is no such notebook, or it has no such parameter; the message names those it has.
    StepFailed
        A cell raised, or took too long. The run is marked failed and keeps the copy up to there.
    Unavailable
        MLflow does not answer, or the packages that run notebooks are not installed.
    """
    from loopwright.lineage import capture
    from loopwright.tracking.active import begin

    nbformat, nbclient = tools()["nbformat"], tools()["nbclient"]
    content = with_parameters(notebook, parameters)
    parts.connect(project)
    environment = capture(project)
    resolved = notebook.resolve()
    name = (
        resolved.relative_to(project.root).as_posix()
        if resolved.is_relative_to(project.root)
        else resolved.name
    )
    tags = {
        "loopwright.notebook": name,
        "loopwright.trigger": "manual",
        "loopwright.python": environment.python,
        "loopwright.lock": environment.lock_digest,
    }
    if environment.git_commit:
        tags |= {
            "mlflow.source.git.commit": environment.git_commit,
            "loopwright.git_dirty": str(environment.git_dirty).lower(),
        }
    tracked = begin(project, notebook.stem, tags)
    folder = project.state / "notebooks" / "runs" / tracked.run_id
    folder.mkdir(parents=True, exist_ok=True)
    executed = folder / notebook.name
    started = time.perf_counter()
    status: Literal["FINISHED", "FAILED", "KILLED"] = "KILLED"
    failure: LoopwrightError | None = None
    try:
        if parameters:
            tracked.log(parameters, {})
        own = "set_experiment(" in notebook.read_text(encoding="utf-8")
        failure = _execute(
            nbclient, content, folder, notebook, _variables(project, tracked, folder, own), timeout_s
        )
        status = "FAILED" if failure else "FINISHED"
    finally:
        nbformat.write(content, executed)
        datasets = _datasets(folder)
        _keep(project, tracked, executed, environment, datasets)
        tracked.end(status)
    done = NotebookRun(
        run_id=tracked.run_id,
        status="failed" if failure else "completed",
        cells=sum(cell.cell_type == "code" for cell in content.cells),
        seconds=time.perf_counter() - started,
        executed=executed,
        parameters=dict(parameters),
        datasets=datasets,
    )
    _record(project, done, name, environment, str(failure.fact) if failure else "")
    if failure:
        raise failure
    return done


def _variables(project: Project, tracked: Tracked, folder: Path, own_experiment: bool) -> dict[str, str]:
    """Return the environment of the kernel: plain MLflow calls in it go into the run."""
    from loopwright.tracking.client import experiment

    described = folder / "run.json"
    described.write_text(json.dumps({"run_id": tracked.run_id}))
    variables = {"LOOPWRIGHT_PROJECT": str(project.root), RUN_VARIABLE: str(described)}
    variables["MLFLOW_EXPERIMENT_ID"] = experiment(project)
    if not own_experiment:
        # A notebook that chooses an experiment would be refused a run of another one.
        variables["MLFLOW_RUN_ID"] = tracked.run_id
    return variables


def _execute(
    nbclient: Any,
    content: Any,
    folder: Path,
    notebook: Path,
    variables: Mapping[str, str],
    timeout_s: float | None,
) -> LoopwrightError | None:
    """Execute all cells in a new process of this Python, and return what went wrong."""
    # The extension is loaded before the first cell, so that datasets the notebook reads are written down with the run.
    with client(content, notebook.resolve().parent, variables, "loopwright", timeout_s) as cells:
        try:
            cells.execute()
        except nbclient.exceptions.CellExecutionError as error:
            return _failed(content, notebook, folder, f"{error.ename}: {error.evalue}")
        except nbclient.exceptions.CellTimeoutError:
            return _failed(content, notebook, folder, f"it took more than {timeout_s:g} s")
        except nbclient.exceptions.DeadKernelError:
            return _failed(content, notebook, folder, "its process died, perhaps for want of memory")
    return None


def _failed(content: Any, notebook: Path, folder: Path, reason: str) -> StepFailed:
    code = [cell for cell in content.cells if cell.cell_type == "code"]
    last = next((cell for cell in reversed(code) if cell.execution_count or cell.outputs), None)
    number = cell_number(content, last) if last is not None else 1
    first = last.source.strip().splitlines()[0] if last is not None and last.source.strip() else ""
    return StepFailed(
        f"Code cell {number} of {notebook.name} ({first[:60]!r}) failed: {reason[:500]}",
        hint=f"open {folder / notebook.name}",
        cell=number,
    )


def _datasets(folder: Path) -> tuple[DatasetRef, ...]:
    """Return the datasets that the notebook read, as its kernel wrote them down."""
    import msgspec

    from loopwright.records import DatasetRef

    try:
        return msgspec.json.decode((folder / "datasets.json").read_bytes(), type=tuple[DatasetRef, ...])
    except FileNotFoundError:
        return ()


def _keep(
    project: Project, tracked: Tracked, executed: Path, environment: Any, datasets: tuple[DatasetRef, ...]
) -> None:
    from loopwright.lineage.environment import keep

    tracked.keep({executed.name: executed, **keep(project, environment)})
    if datasets:
        tracked.log_datasets(datasets)
        tracked.log({}, {"loopwright.dataset": datasets[-1].digest})


def _record(project: Project, done: NotebookRun, name: str, environment: Any, error: str) -> None:
    """Write the run into the ledger, where a trace from a model it registered finds it."""
    from loopwright.ledger import Ledger
    from loopwright.records import PipelineRun, now

    record = PipelineRun(
        pipeline=f"notebook:{name}",
        run_id=done.run_id,
        flow_run_id="",
        status=done.status,
        started=now(),
        seconds=done.seconds,
        parameters=done.parameters,
        datasets=done.datasets,
        git_commit=environment.git_commit,
        git_dirty=environment.git_dirty,
        diff_digest=environment.diff_digest,
        lock_digest=environment.lock_digest,
        python=environment.python,
        trigger="manual",
        error=error,
    )
    ledger = Ledger.open(project, actor=f"notebook:{os.getpid()}")
    ledger.put("pipeline_run", done.run_id, record)
    ledger.append(f"pipeline.{done.status}", record.pipeline, record)
