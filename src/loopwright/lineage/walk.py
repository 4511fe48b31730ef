"""The trace: from one prediction back to the file its model learned from, each link checked by its hash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from loopwright.config import Project
from loopwright.errors import Damaged, InvalidInput, NotFound
from loopwright.ledger import Ledger
from loopwright.lineage.code import digests_in
from loopwright.lineage.digests import digest_of, file_digest
from loopwright.lineage.environment import git, stored
from loopwright.lineage.files import source_digest
from loopwright.lineage.snapshots import read_snapshot
from loopwright.records import DatasetRef, Deployment, ModelVersion, PipelineRun, Prediction, StepRun

__all__ = ["Trace", "TraceLink", "trace"]


@dataclass(frozen=True, slots=True)
class TraceLink:
    """One link: `ok` is True when its hash was computed again and holds, False when not, None when unknown.

    A source file may change after it was read: its link is then None, for the snapshot has the content of then.
    """

    kind: str
    name: str
    ok: bool | None
    hash: str
    detail: str


@dataclass(frozen=True, slots=True)
class Trace:
    """The links from a prediction to its sources, in this order."""

    prediction_id: str
    links: tuple[TraceLink, ...]

    @property
    def holds(self) -> bool:
        """Whether every link was checked and holds."""
        return all(link.ok is True for link in self.links)


def trace(project: Project, prediction_id: str) -> Trace:
    """Walk from a prediction back to its data.

    Raises
    ------
    NotFound
        The project has made no such prediction.
    """
    from loopwright.predictions import Ids, PredictionStore

    Ids.open(project).check(prediction_id)
    prediction = PredictionStore(project).find(prediction_id)
    ledger = Ledger.open(project)
    try:
        return Trace(prediction_id, tuple(_links(project, ledger, prediction)))
    finally:
        ledger.close()


def _links(project: Project, ledger: Ledger, prediction: Prediction) -> Iterator[TraceLink]:
    actual = "no label yet" if prediction.actual is None else f"label {prediction.actual}"
    yield TraceLink(
        "prediction",
        str(prediction.prediction),
        True,
        prediction.prediction_id,
        f"{prediction.at:%Y-%m-%d %H:%M:%S} UTC, {actual}; the id's checksum holds",
    )
    yield _deployment(ledger, prediction)
    state = ledger.get("model_version", f"{prediction.model}/{prediction.version}")
    if state is None:
        name = f"{prediction.model}/{prediction.version}"
        yield TraceLink("model version", name, None, "", "registered by hand: nothing more is recorded of it")
        return
    version = state.read(ModelVersion)
    yield _model(version)
    run_state = ledger.get("pipeline_run", version.run_id) if version.run_id else None
    if run_state is None:
        yield TraceLink("run", version.run_id or "-", None, "", "not a pipeline run of this project")
        if version.training:
            yield _snapshot(project, "training data", version.training)
        return
    run = run_state.read(PipelineRun)
    yield TraceLink(
        "run",
        run.run_id,
        run.status == "completed",
        run.flow_run_id,
        f"pipeline {run.pipeline}, {run.status} in {run.seconds:.1f} s, trigger {run.trigger or 'manual'}; "
        f"Prefect flow run {run.flow_run_id}",
    )
    if repeated := ledger.get("reproduction", run.run_id):
        outcome, at = repeated.value["outcome"], repeated.changed
        ok = None if outcome == "not reproduced" else True
        yield TraceLink("reproduction", outcome, ok, "", f"repeated from its record on {at:%Y-%m-%d}")
    yield from _code(project, run)
    yield _lock(project, run)
    for step in run.steps:
        yield _step(project, run, step)
    for dataset in run.datasets:
        yield _snapshot(project, "dataset snapshot", dataset)
    if version.training and version.training.digest not in {dataset.digest for dataset in run.datasets}:
        yield _snapshot(project, "training data", version.training)
    for dataset in run.datasets:
        if dataset.source_digest:
            yield _source(project, dataset)


def _deployment(ledger: Ledger, prediction: Prediction) -> TraceLink:
    for event in ledger.events("deployment.changed", prediction.deployment, limit=10_000):
        served = event.read(Deployment)
        answering = (variant for variant in served.variants if not variant.shadow)
        if any(variant.version == prediction.version for variant in answering):
            detail = f"as {prediction.variant}, chance {prediction.propensity:.0%}; first served in event {event.id}"
            return TraceLink("deployment", prediction.deployment, True, "", detail)
    detail = f"the ledger has no event that puts version {prediction.version} into it"
    return TraceLink("deployment", prediction.deployment, False, "", detail)


def _checked(kind: str, name: str, expected: str, compute: Callable[[], str], detail: str) -> TraceLink:
    """Compute a hash again and compare."""
    try:
        found = compute()
    except (OSError, NotFound, Damaged) as error:
        return TraceLink(kind, name, False, expected, f"{detail}; {error}".splitlines()[0])
    if found != expected:
        return TraceLink(kind, name, False, expected, f"{detail}; what is stored hashes to {found[:16]}")
    return TraceLink(kind, name, True, expected, detail)


def _model(version: ModelVersion) -> TraceLink:
    folder = Path(version.uri.removeprefix("file://"))
    if not version.digest or "://" in str(version.uri).removeprefix("file://"):
        return TraceLink("model version", version.ref, None, version.digest, f"stored at {version.uri}")
    return _checked(
        "model version", version.ref, version.digest, lambda: digest_of(folder), f"files in {folder}"
    )


def _code(project: Project, run: PipelineRun) -> Iterator[TraceLink]:
    if not run.git_commit:
        yield TraceLink("git commit", "-", None, "", "the project is no git repository, or had no commit")
        return
    there = git(project.root, "cat-file", "-e", f"{run.git_commit}^{{commit}}") is not None
    detail = "the commit is in the repository" if there else "the repository does not have this commit"
    yield TraceLink("git commit", run.git_commit[:12], there, run.git_commit, detail)
    if run.diff_digest:
        path = stored(project, run.diff_digest, "diff")
        yield _checked(
            "uncommitted changes",
            path.name[:12],
            run.diff_digest,
            lambda: file_digest(path),
            "kept with the run",
        )


def _lock(project: Project, run: PipelineRun) -> TraceLink:
    if not run.lock_digest:
        return TraceLink("packages", f"Python {run.python}", None, "", "the run has no lock")
    path = stored(project, run.lock_digest, "lock")
    return _checked(
        "packages",
        f"Python {run.python}",
        run.lock_digest,
        lambda: file_digest(path),
        "the lock kept with the run",
    )


def _step(project: Project, run: PipelineRun, step: StepRun) -> TraceLink:
    """Check a step's code against the text of its module in the commit."""
    moved = f"{len(step.inputs)} tables in, {len(step.outputs)} out, {step.seconds:.2f} s"
    module = run.pipeline.partition(":")[0].replace(".", "/") + ".py"
    text = git(project.root, "show", f"{run.git_commit}:./{module}") if run.git_commit else None
    if text is None or not step.code_digest:
        return TraceLink("step", step.name, None, step.code_digest, f"{moved}; its source is not in a commit")
    functions = digests_in(text)
    ok: bool | None
    # A step may have another name than its function.
    if any(step.code_digest in digests for digests in functions.values()):
        ok, detail = True, "its code is that of the commit"
    elif run.diff_digest:
        ok, detail = None, "changed since the commit, see above"
    elif step.name in functions:
        ok, detail = False, "the commit has other code under this name"
    else:
        ok, detail = None, "its function is not in the pipeline's module"
    return TraceLink("step", step.name, ok, step.code_digest, f"{moved}; {detail}")


def _snapshot(project: Project, kind: str, dataset: DatasetRef) -> TraceLink:
    def compute() -> str:
        read_snapshot(project, dataset.digest)
        return dataset.digest

    return _checked(
        kind, dataset.name, dataset.digest, compute, f"{dataset.rows} rows from {dataset.source or '-'}"
    )


def _source(project: Project, dataset: DatasetRef) -> TraceLink:
    path = project.root / dataset.source
    if not path.exists():
        return TraceLink(
            "source file", dataset.source, None, dataset.source_digest, "gone; the snapshot has its content"
        )
    try:
        found = source_digest(path)
    except (OSError, InvalidInput) as error:
        return TraceLink("source file", dataset.source, None, dataset.source_digest, str(error))
    if found != dataset.source_digest:
        detail = "changed since it was read; the snapshot has its content of then"
        return TraceLink("source file", dataset.source, None, dataset.source_digest, detail)
    return TraceLink("source file", dataset.source, True, found, "unchanged since it was read")
