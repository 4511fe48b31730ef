"""Which run is meant, and what was kept of it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from loopwright import parts
from loopwright.config import Project
from loopwright.errors import Conflict, Damaged, InvalidInput, LoopwrightError, NotFound, listing, nearest
from loopwright.ledger import Ledger
from loopwright.lineage.digests import file_digest
from loopwright.lineage.environment import stored
from loopwright.records import ModelVersion, PipelineRun
from loopwright.registry.artifacts import download

__all__ = ["Subject", "find", "kept_text", "load"]

_SHORTEST_PREFIX = 4


@dataclass(frozen=True)
class Subject:
    """A run that completed, with all that is on record of it outside of its code and data.

    `surroundings` is the content of the run's `environment.json`, empty when that is not at hand.
    """

    run: PipelineRun
    versions: tuple[ModelVersion, ...]
    metrics: Mapping[str, float]
    surroundings: Mapping[str, Any] = field(default_factory=dict)


def find(project: Project, name: str) -> PipelineRun:
    """Return the pipeline run that is meant: by its id or a prefix of it, a model version, or a prediction.

    ``last`` is the newest run that completed.

    Raises
    ------
    NotFound
        There is no such run, version or prediction.
    Conflict
        Several runs begin so.
    InvalidInput
        The run has not completed: there is nothing to compare with.
    """
    ledger = Ledger.open(project)
    try:
        run = _run(ledger, _run_id(project, ledger, name))
    finally:
        ledger.close()
    if run.status != "completed":
        what = f"failed: {run.error}" if run.status == "failed" else "is still running."
        raise InvalidInput(
            f"The run {run.run_id} of {run.pipeline} {what}",
            valid="A run that completed can be repeated and compared.",
            hint="loopwright pipeline list",
        )
    return run


def _run_id(project: Project, ledger: Ledger, name: str) -> str:
    if ledger.get("pipeline_run", name):
        return name
    model, slash, number = name.partition("/")
    if slash:
        return _of_version(ledger, model, number)
    if name == "last" and (newest := _newest(ledger)):
        return newest
    runs = [state.key for state in ledger.states("pipeline_run")]
    matches = [run for run in runs if run.startswith(name)] if len(name) >= _SHORTEST_PREFIX else []
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise Conflict(f"{len(matches)} runs begin with {name!r}: {listing(matches)}.")
    return _of_prediction(project, ledger, name, runs)


def _newest(ledger: Ledger) -> str:
    """Return the newest run that completed, or an empty text."""
    runs = [state.read(PipelineRun) for state in ledger.states("pipeline_run")]
    completed = [run for run in runs if run.status == "completed"]
    return max(completed, key=lambda run: run.started).run_id if completed else ""


def _of_version(ledger: Ledger, model: str, number: str) -> str:
    state = ledger.get("model_version", f"{model}/{number}")
    if state is None:
        known = [state.key for state in ledger.states("model_version")]
        raise NotFound.among(
            "model version", f"{model}/{number}", known, hint=f"loopwright model list {model}"
        )
    run_id = state.read(ModelVersion).run_id
    if not run_id or ledger.get("pipeline_run", run_id) is None:
        raise NotFound(
            f"No pipeline run of this project made {model}/{number}: it was registered by hand.",
            valid="Only a run of a pipeline has its code, packages and data on record.",
            hint="loopwright pipeline list",
        )
    return run_id


def _of_prediction(project: Project, ledger: Ledger, name: str, runs: list[str]) -> str:
    from loopwright.predictions import Ids, PredictionStore

    try:
        Ids.open(project).check(name)
        prediction = PredictionStore(project).find(name)
    except LoopwrightError:
        close = nearest(name, runs)
        raise NotFound(
            f"There is no run, model version or prediction {name!r}.",
            valid=f"Did you mean {close!r}?" if close else "",
            hint="loopwright pipeline list",
        ) from None
    return _of_version(ledger, prediction.model, str(prediction.version))


def _run(ledger: Ledger, run_id: str) -> PipelineRun:
    state = ledger.get("pipeline_run", run_id)
    assert state is not None
    return state.read(PipelineRun)


def load(project: Project, run: PipelineRun) -> Subject:
    """Read what MLflow and the ledger have of a run. `parts.connect` must have been called.

    Raises
    ------
    InvalidInput
        The run left nothing behind that could be compared.
    """
    from loopwright import tracking

    tracked = tracking.get(project, run.run_id)
    ledger = Ledger.open(project)
    try:
        made = [state.read(ModelVersion) for state in ledger.states("model_version")]
    finally:
        ledger.close()
    versions = sorted((one for one in made if one.run_id == run.run_id), key=lambda one: one.version)
    if not (tracked.metrics or versions or any(step.outputs for step in run.steps) or run.datasets):
        raise InvalidInput(
            f"The run {run.run_id} of {run.pipeline} left no metric, model, table or dataset: there is nothing to compare.",
            valid="Log a metric, register a model, or return tables from steps.",
        )
    return Subject(run, tuple(versions), tracked.metrics, _surroundings(project, tracked.artifact_uri))


def _surroundings(project: Project, artifact_uri: str) -> dict[str, Any]:
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = _artifact(project, artifact_uri, "environment.json", Path(folder))
            found = json.loads(path.read_text())
    except (LoopwrightError, OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _artifact(project: Project, artifact_uri: str, name: str, into: Path) -> Path:
    """Return a file stored with a run: where it lies on this machine, or a copy below `into`."""
    folder = parts.local_path(artifact_uri)
    if folder is not None:
        return folder / name
    return download(project, f"{artifact_uri}/{name}", into)


def kept_text(project: Project, digest: str, kind: Literal["diff", "lock"], what: str) -> Path:
    """Return the file with a text that was kept with a run, after checking that it is the same text.

    Raises
    ------
    NotFound
        The file is not there.
    Damaged
        The file has another content.
    """
    path = stored(project, digest, kind)
    if not path.is_file():
        raise NotFound(
            f"{what} that the run was made with is gone: {path} is missing.", hint="restore a backup"
        )
    if (found := file_digest(path)) != digest:
        raise Damaged(
            f"{what} in {path} has the digest {found[:16]}, not {digest[:16]}.", hint="restore a backup"
        )
    return path
