"""`reproduce`: a run again, from its record alone, and the verdict."""

from __future__ import annotations

import contextlib
import platform
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from loopwright import parts, tracking
from loopwright.config import Project
from loopwright.errors import Damaged, InvalidInput, LoopwrightError
from loopwright.ledger import Ledger
from loopwright.lineage.digests import digest_of
from loopwright.lineage.snapshots import path_of, read_snapshot
from loopwright.records import DatasetRef, PipelineRun
from loopwright.registry.artifacts import download
from loopwright.reproduction import packages, sources, subject
from loopwright.reproduction.compare import (
    Comparison,
    compare_datasets,
    compare_metrics,
    compare_steps,
    first_unsteady,
)
from loopwright.reproduction.packages import Packages
from loopwright.reproduction.sources import Sources
from loopwright.reproduction.stage import Stage, open_stage
from loopwright.reproduction.subject import Subject
from loopwright.reproduction.verdict import KIND, Cause, ModelCheck, Reproduction

__all__ = ["TOLERANCE", "reproduce"]

TOLERANCE = 1e-6
#: A repetition may take so many times as long as the run took, and at least so many seconds.
_SLOWER = 10
_LEAST_S = 600.0
#: What a failed repetition most likely lacked, by the type of its error.
_CAUSES: dict[str, Cause] = {
    "FileNotFoundError": "data",
    "ModuleNotFoundError": "environment",
    "ImportError": "environment",
}


def reproduce(
    project: Project,
    name: str,
    *,
    tolerance: float = TOLERANCE,
    ignore: Collection[str] = (),
    same_environment: bool = False,
    here: bool = False,
    timeout_s: float | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Reproduction:
    """Repeat a run from its record and compare what comes out.

    Its commit is checked out in a temporary folder with what was not committed, its packages are built from its lock,
    its datasets are read from their snapshots, and its pipeline runs in a process of its own on throw-away stores. Only
    the verdict is kept: in the ledger, and as a tag of the MLflow run.

    Parameters
    ----------
    name
        A run id or the beginning of one, a model version such as ``digits/3``, or a prediction id.
    tolerance
        The largest relative difference of a metric, and difference of a model's answer, that counts as the same; >= 0.
    ignore
        Metrics that are not compared, such as a time that the code measures.
    same_environment
        Take the present packages, also where the run had others.
    here
        Take the project's present files instead of the commit, as far as the steps are unchanged.
    timeout_s
        How long a repetition may take; by default ten times as long as the run, at least 600 seconds.
    say
        Called with each thing that is done, when it begins.

    Raises
    ------
    NotFound, Conflict, InvalidInput
        No run is meant by the name, or it cannot be repeated; its commit or a snapshot is gone.
    Damaged
        What was kept of the run is not what it was.
    Unavailable
        The environment cannot be built, or the repetition took too long.
    """
    if not tolerance >= 0:
        raise InvalidInput(
            f"The tolerance {tolerance} cannot be used.", valid="It is 0 or more, such as 1e-6."
        )
    started = time.monotonic()
    run = subject.find(project, name)
    say(f"run {run.run_id[:8]} of {run.pipeline}, {run.started:%Y-%m-%d %H:%M} UTC")
    parts.connect(project)
    known = subject.load(project, run)
    datasets = _snapshots(project, known, say)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loopwright-reproduce-")))
        say("the present files" if here else f"commit {run.git_commit[:12] or '-'}")
        opened = sources.present_files if here else sources.commit_of
        code = stack.enter_context(opened(project, run, folder.resolve()))
        python = packages.present(project, known, code, asked=same_environment) or packages.build(
            project, known, code, say
        )
        say(f"packages: {python.text}")
        models = _models(project, known, folder)
        order = {
            "entrypoint": run.pipeline,
            "parameters": run.parameters,
            "models": models,
            "tolerance": tolerance,
        }
        stage = stack.enter_context(
            open_stage(
                code,
                python,
                datasets=datasets,
                surroundings=known.surroundings,
                stores=project.state / "reproduce" / "stores" / run.lock_digest[:16],
                log=project.run / "logs" / f"reproduce-{run.run_id}.log",
                timeout_s=timeout_s or max(_LEAST_S, _SLOWER * run.seconds),
            )
        )
        say(f"running {run.pipeline}")
        found = _repeat(_Repetition(known, code, python, stage, order, tolerance, ignore), say)
    verdict = replace(found, seconds=time.monotonic() - started)
    _keep(project, verdict)
    return verdict


def _snapshots(project: Project, known: Subject, say: Callable[[str], None]) -> list[tuple[DatasetRef, Path]]:
    """Return the datasets that the run had read, checked; not those that it made by registering a model."""
    made = {f"{version.model}-training" for version in known.versions}
    found = []
    for ref in known.run.datasets:
        if ref.name in made:
            continue
        say(f"dataset {ref.name}, {ref.rows} rows, {ref.digest[:12]}")
        read_snapshot(project, ref.digest)
        found.append((ref, path_of(project, ref.digest)))
    return found


def _models(project: Project, known: Subject, folder: Path) -> list[dict[str, Any]]:
    """Return where the files of the run's model versions lie, checked."""
    found = []
    for version in known.versions:
        files = download(project, version.uri, folder / "models" / version.model / str(version.version))
        if version.digest and digest_of(files) != version.digest:
            raise Damaged(
                f"The files of {version.ref} in {files} are not those that were registered.",
                hint=f"loopwright model show {version.model} {version.version}",
            )
        found.append({"model": version.model, "version": version.ref, "folder": str(files)})
    return found


@dataclass(frozen=True)
class _Repetition:
    """All that one repetition needs."""

    known: Subject
    code: Sources
    python: Packages
    stage: Stage
    order: Mapping[str, Any]
    tolerance: float
    ignore: Collection[str]


def _repeat(job: _Repetition, say: Callable[[str], None]) -> Reproduction:
    result = job.stage.replay(job.order, say)
    if "error" in result:
        return _failed(job, result["error"])
    run = msgspec.convert(result["run"], PipelineRun)
    then = job.known.run
    compared = Comparison(
        compare_metrics(job.known.metrics, result["metrics"], tolerance=job.tolerance, ignore=job.ignore),
        tuple(msgspec.convert(one, ModelCheck) for one in result["models"]),
        compare_steps(then.steps, run.steps),
        compare_datasets(then.datasets, run.datasets),
    )
    verdict = replace(
        _verdict(job),
        outcome=compared.outcome,
        metrics=compared.metrics,
        models=compared.models,
        steps=compared.steps,
        datasets=compared.datasets,
    )
    if verdict.ok:
        return verdict
    say("it differs; running it once more to see whether it agrees with itself")
    cause, reason = compared.why(_unsteady(job, result), _differences(job))
    return replace(verdict, cause=cause, reason=reason)


def _unsteady(job: _Repetition, first: Mapping[str, Any]) -> str:
    """Repeat the run a second time and return the first step that gave something else than the first time."""
    # Where the run did not fix the order of sets, two orders show whether it matters.
    seed = None if "PYTHONHASHSEED" in job.known.surroundings.get("variables", {}) else "1"
    second = job.stage.replay(job.order, lambda _: None, hash_seed=seed)
    return first_unsteady(first["values"], second.get("values", first["values"]))


def _verdict(job: _Repetition) -> Reproduction:
    run = job.known.run
    return Reproduction(
        run_id=run.run_id,
        pipeline=run.pipeline,
        outcome="not reproduced",
        cause="",
        reason="",
        tolerance=job.tolerance,
        code=job.code.text,
        packages=job.python.text,
        python=run.python,
        seconds=0.0,
        notes=(*job.code.notes, *_differences(job), *job.python.notes, *_unproven(job.known)),
    )


def _unproven(known: Subject) -> list[str]:
    notes = []
    if not known.run.datasets:
        notes.append("the run read no dataset through loopwright.dataset: what it read was not controlled")
    if not known.surroundings:
        notes.append("the run's environment.json is not at hand: its environment variables are not restored")
    elif "PYTHONHASHSEED" not in known.surroundings.get("variables", {}):
        notes.append("PYTHONHASHSEED was not set in the run: the order of sets was random, now it is 0")
    return notes


def _differences(job: _Repetition) -> list[str]:
    """Return in what the surroundings are known to differ from those of the run."""
    then, now = job.known.surroundings.get("platform", ""), platform.platform()
    machine = [f"the machine is {now}, it was {then}"] if then not in {"", now} else []
    return [*job.python.differences, *machine]


def _failed(job: _Repetition, error: Mapping[str, Any]) -> Reproduction:
    """Return the verdict on a run whose code raises now."""
    cause = _CAUSES.get(error["type"], "unknown")
    hint = {
        "data": ": it reads a file that is not on record; read it with loopwright.dataset",
        "environment": ": a module is missing that the lock does not name",
    }.get(cause, "")
    reason = f"{error['message'].rstrip('.')}{hint}. All that was printed: {job.stage.log}"
    return replace(_verdict(job), cause=cause, reason=reason)


def _keep(project: Project, verdict: Reproduction) -> None:
    """Write the verdict into the ledger and onto the run's page."""
    ledger = Ledger.open(project)
    try:
        ledger.put(KIND, verdict.run_id, verdict, event=f"{KIND}.ended")
    finally:
        ledger.close()
    with contextlib.suppress(LoopwrightError):  # the ledger has it; a run may have been deleted from MLflow
        tracking.tag(project, verdict.run_id, "loopwright.reproduced", verdict.outcome)
