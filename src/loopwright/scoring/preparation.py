"""Preparing a version for scoring: fetch it, compile it, prove the compilation on real rows, write it down."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from loopwright.config import Project
from loopwright.errors import Damaged, LoopwrightError, Unavailable
from loopwright.ledger import Ledger
from loopwright.lineage.digests import digest_of, file_digest
from loopwright.records import ModelVersion, Task
from loopwright.registry import catalog
from loopwright.registry.artifacts import PROFILE, REPLAY, download
from loopwright.registry.columns import table_of
from loopwright.registry.estimator import final_step, gives_probability
from loopwright.scoring import convert, golden
from loopwright.scoring.base import GOLDEN, MANIFEST, MODEL, NATIVE, Manifest, Scores
from loopwright.scoring.evidence import Evidence, gather
from loopwright.scoring.native import NativeRuntime, PyfuncModel, load_model
from loopwright.scoring.onnx import OnnxRuntime
from loopwright.scoring.replay import Agreement, edge_rows, replay
from loopwright.scoring.scorer import read_manifest

__all__ = ["prepare"]

#: Preparing the largest forests takes minutes; somebody who waits longer than this waits for a hung process.
LOCK_S = 900.0


def prepare(project: Project, model: str, version: int, *, force: bool = False) -> Path:
    """Prepare one model version for scoring and return its folder; see `loopwright.scoring.prepare`."""
    folder = project.scorer(model, version)
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.parent / f".{version}.lock", timeout=LOCK_S)
    try:
        with lock:
            if not force and _prepared(project, folder):
                return folder
            return _prepare(project, model, version, folder)
    except Timeout as error:
        raise Unavailable(
            f"{model}/{version} is being prepared by another process for more than {LOCK_S:.0f} s.",
            hint=f"end that process, then: python -m loopwright.scoring.prepare {model} {version}",
        ) from error


def _prepared(project: Project, folder: Path) -> bool:
    """Whether the folder is complete and of the version as it is registered now."""
    try:
        manifest = read_manifest(folder)
    except LoopwrightError:
        return False
    known = _known(project, manifest.model, manifest.version)
    current = known is None or known.digest in {"", manifest.digest}
    return current and all((folder / name).is_file() for name in manifest.files)


def _known(project: Project, model: str, number: int) -> ModelVersion | None:
    """Return what the ledger knows of a version."""
    ledger = Ledger.open(project)
    try:
        state = ledger.get("model_version", f"{model}/{number}")
    finally:
        ledger.close()
    return state.read(ModelVersion) if state else None


def _prepare(project: Project, model: str, number: int, folder: Path) -> Path:
    started = time.monotonic()
    version = _version(project, model, number)
    if str(project.root) not in sys.path:
        # A pickled model finds the project's own modules only by import.
        sys.path.insert(0, str(project.root))
    with tempfile.TemporaryDirectory(prefix=f".{number}-", dir=folder.parent) as temporary:
        files = download(project, version.uri, Path(temporary) / "download")
        digest = digest_of(files)
        if version.digest and digest != version.digest:
            raise Damaged(
                f"The files of {version.ref} in {files} are not those that were registered: their digest is {digest}, "
                f"not {version.digest}.",
                hint="register the model again",
            )
        estimator = load_model(files)
        evidence = gather(project, version, files, estimator)
        made = Path(temporary) / "scorer"
        made.mkdir()
        manifest = _build(made, version, digest, estimator, evidence)
        if manifest.runtime == "native":
            shutil.copytree(files, made / NATIVE)
        manifest = replace(manifest, files=_hashes(made))
        (made / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        _put_in_place(made, folder)
    known = replace(
        version,
        digest=digest,
        signature=evidence.signature,
        training=evidence.training or version.training,
        replay_rows=manifest.replay_rows,
    )
    if known != version:
        catalog.record(project, known, missing=evidence.missing)
    _note(project, manifest, time.monotonic() - started)
    return folder


def _version(project: Project, model: str, number: int) -> ModelVersion:
    """Return the version; where the ledger knows it and its files are at hand, MLflow need not be running."""
    known = _known(project, model, number)
    if known is not None and known.digest and Path(known.uri, "MLmodel").is_file():
        return known
    return catalog.version(project, model, number)


@dataclass(frozen=True)
class _Plan:
    """The manifest of the native runtime, that runtime, and its answers on the replay rows."""

    manifest: Manifest
    runtime: NativeRuntime
    rows: Mapping[str, NDArray[Any]]
    answers: Scores


def _build(made: Path, version: ModelVersion, digest: str, model: Any, evidence: Evidence) -> Manifest:
    """Choose the runtime and write its files, except the native model itself."""
    signature = evidence.signature
    manifest = Manifest(
        model=version.model,
        version=version.version,
        runtime="native",
        reason="",
        digest=digest,
        signature=signature,
        layout=evidence.layout,
        probability=signature.task == Task.classification and gives_probability(model),
    )
    if evidence.profile is not None:
        (made / PROFILE).write_bytes(msgspec.json.encode(evidence.profile))
    if not evidence.replay:
        return replace(manifest, reason="no rows to replay")
    plan = _plan(manifest, model, evidence.replay)
    if evidence.example:
        count = plan.manifest.replay_rows
        manifest = replace(plan.manifest, reason=f"only the {count} rows of the input example to replay")
    else:
        manifest = _compile(made, plan, model)
    _write_rows(made, plan, manifest)
    return manifest


def _plan(manifest: Manifest, model: Any, rows: Mapping[str, NDArray[Any]]) -> _Plan:
    """Score the replay rows natively, and see whether labels may be taken from the probabilities."""
    count = len(next(iter(rows.values())))
    runtime = NativeRuntime(Path(), manifest, model)
    answers = runtime.score(rows, count)
    manifest = replace(manifest, replay_rows=count)
    if answers.probability is not None and manifest.signature.classes and not _own_rule(model):
        argmax = replace(manifest, labels_from_probability=True)
        quick = NativeRuntime(Path(), argmax, model)
        with contextlib.suppress(LoopwrightError):
            edges = edge_rows(rows, manifest.signature)
            # A model that refuses an edge row, such as an unseen category, shows nothing there.
            if _same_labels(runtime, quick, rows) and _same_labels_where_answered(runtime, quick, edges):
                manifest, runtime = argmax, quick
    return _Plan(manifest, runtime, rows, answers)


def _own_rule(model: Any) -> bool:
    """Whether the model is known to choose labels by something else than the highest probability."""
    name = type(final_step(model)).__name__
    return "Threshold" in name or name in {"SVC", "NuSVC"}


def _same_labels(one: NativeRuntime, other: NativeRuntime, rows: Mapping[str, NDArray[Any]]) -> bool:
    count = len(next(iter(rows.values())))
    return count == 0 or bool(
        np.array_equal(one.score(rows, count).prediction, other.score(rows, count).prediction)
    )


def _same_labels_where_answered(
    one: NativeRuntime, other: NativeRuntime, rows: Mapping[str, NDArray[Any]]
) -> bool:
    try:
        return _same_labels(one, other, rows)
    except LoopwrightError:
        return True


def _compile(made: Path, plan: _Plan, model: Any) -> Manifest:
    """Return the manifest of the first compiled graph that is proven, else of the native runtime with the reason."""
    manifest, signature = plan.manifest, plan.manifest.signature
    if isinstance(model, PyfuncModel):
        return replace(manifest, reason="a pyfunc model has no converter to ONNX")
    if why := convert.refusal(signature):
        return replace(manifest, reason=why)
    reasons: list[str] = []
    closest: Agreement | None = None
    for graph in convert.candidates(model, signature, plan.manifest.layout):
        if isinstance(graph, str):
            reasons.append(graph)
            continue
        (made / MODEL).write_bytes(graph.data)
        candidate = replace(
            manifest,
            runtime="onnx",
            inputs=graph.inputs,
            precision=graph.precision,
            missing_text=graph.missing_text,
        )
        agreement = _try(made, candidate, plan)
        if isinstance(agreement, str):
            reasons.append(f"{graph.precision}: {agreement}")
        elif agreement.problem:
            reasons.append(f"{graph.precision}: {agreement.problem}")
            closest = closest or agreement
        else:
            return replace(
                candidate,
                reason=f"agrees with the model on {agreement.rows} rows",
                max_difference=agreement.max_difference,
                label_flips=0,
            )
    (made / MODEL).unlink(missing_ok=True)
    difference = closest.max_difference if closest and np.isfinite(closest.max_difference) else None
    flips = closest.label_flips if closest else None
    return replace(manifest, reason="; ".join(reasons), max_difference=difference, label_flips=flips)


def _try(made: Path, candidate: Manifest, plan: _Plan) -> Agreement | str:
    try:
        runtime = OnnxRuntime(made, candidate)
    except Damaged as error:
        return f"the graph does not load: {' '.join(str(error.__cause__).split())[:200]}"
    try:
        return replay(plan.runtime, runtime, plan.rows, plan.manifest.signature)
    finally:
        runtime.close()


def _write_rows(made: Path, plan: _Plan, manifest: Manifest) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table_of(plan.rows, manifest.signature.inputs), made / REPLAY, compression="zstd")
    golden.write(made / GOLDEN, plan.rows, plan.answers, manifest)


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}


def _put_in_place(made: Path, folder: Path) -> None:
    """Move a finished folder to its name. What was there before is moved aside first: a rename replaces no folder."""
    old = folder.with_name(f".{folder.name}-old-{os.getpid()}")
    if folder.exists():
        folder.rename(old)
    made.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _note(project: Project, manifest: Manifest, seconds: float) -> None:
    facts = {
        "version": manifest.version,
        "runtime": manifest.runtime,
        "reason": manifest.reason,
        "replay_rows": manifest.replay_rows,
        "max_difference": manifest.max_difference,
        "label_flips": manifest.label_flips,
        "seconds": round(seconds, 3),
    }
    ledger = Ledger.open(project)
    try:
        ledger.append("scorer.prepared", manifest.model, facts)
    finally:
        ledger.close()
