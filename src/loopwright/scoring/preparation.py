"""Preparing a version for scoring: fetch it, compile it, prove the compilation on real rows, write it down."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
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
from loopwright.scoring import golden, trees
from loopwright.scoring.base import GOLDEN, MANIFEST, NATIVE, TREES, Manifest, Proof, Scores
from loopwright.scoring.calibration import calibrated
from loopwright.scoring.compilation import Plan, compiled
from loopwright.scoring.evidence import Evidence, gather
from loopwright.scoring.native import NativeRuntime, load_model, may_be_direct
from loopwright.scoring.replay import MOST_EDGES, TOLERANCE, edge_rows
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
    current = current and manifest.tolerance == _tolerance(project, manifest.model)
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
        manifest = _build(project, made, version, digest, estimator, evidence)
        if "native" in manifest.runtimes:
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


def _build(
    project: Project, made: Path, version: ModelVersion, digest: str, model: Any, evidence: Evidence
) -> Manifest:
    """Choose the runtimes and write their files, except the native model itself."""
    signature = evidence.signature
    manifest = Manifest(
        model=version.model,
        version=version.version,
        runtime="native",
        reason="",
        digest=digest,
        signature=signature,
        layout=evidence.layout,
        probability=signature.task == Task.classification
        and not signature.outputs
        and gives_probability(model),
        tolerance=_tolerance(project, version.model),
    )
    if evidence.profile is not None:
        (made / PROFILE).write_bytes(msgspec.json.encode(evidence.profile))
    if not evidence.replay:
        reason = "no rows to replay"
        return replace(manifest, reason=reason, proofs=(Proof("native", True, reason),))
    plan = _plan(manifest, model, evidence.replay)
    if evidence.example:
        reason = f"only the {plan.manifest.replay_rows} rows of the input example to replay"
        manifest = replace(plan.manifest, reason=reason, proofs=(Proof("native", True, reason),))
    else:
        manifest = compiled(made, plan, model)
        manifest = calibrated(project, made, manifest, plan.runtime, plan.rows)
        if "treelite" not in manifest.runtimes:
            # Proven and never the quickest: nothing else reads it.
            (made / TREES).unlink(missing_ok=True)
    _write_rows(made, plan, manifest)
    return manifest


def _tolerance(project: Project, model: str) -> float:
    declared = project.config.model.get(model)
    return declared.tolerance if declared else TOLERANCE


def _plan(manifest: Manifest, model: Any, rows: Mapping[str, NDArray[Any]]) -> Plan:
    """Score the replay rows natively, and see what the model may be spared without another answer."""
    count = len(next(iter(rows.values())))
    manifest = replace(manifest, replay_rows=count)
    edges = edge_rows(rows, manifest.signature, _thresholds(model, manifest))
    runtime = NativeRuntime(Path(), manifest, model)
    answers = runtime.score(rows, count)
    if may_be_direct(model, manifest.layout):
        quicker = replace(manifest, direct=True)
        manifest, runtime = _spared(manifest, runtime, quicker, model, rows, edges, answers)
    if answers.probability is not None and manifest.signature.classes and not _own_rule(model):
        quicker = replace(manifest, labels_from_probability=True)
        manifest, runtime = _spared(manifest, runtime, quicker, model, rows, edges, answers)
    return Plan(manifest, runtime, rows, answers, edges)


def _thresholds(model: Any, manifest: Manifest) -> list[tuple[int, float]]:
    return trees.thresholds(model, manifest.layout, MOST_EDGES // 3)


def _spared(
    manifest: Manifest,
    runtime: NativeRuntime,
    quicker: Manifest,
    model: Any,
    rows: Mapping[str, NDArray[Any]],
    edges: Mapping[str, NDArray[Any]],
    answers: Scores,
) -> tuple[Manifest, NativeRuntime]:
    """Return the `quicker` manifest and its runtime where that answers all rows the same, else what was given.

    One takes the labels from the probabilities instead of asking twice, another gives a matrix instead of a frame.
    """
    try:
        other = NativeRuntime(Path(), quicker, model)
        if _same(answers, other.score(rows, len(answers.prediction))) and _same_at_edges(
            runtime, other, edges
        ):
            return quicker, other
    except LoopwrightError:
        pass
    return manifest, runtime


def _same(one: Scores, other: Scores) -> bool:
    same = np.array_equal(one.prediction, other.prediction, equal_nan=one.prediction.dtype.kind == "f")
    if one.probability is None or other.probability is None:
        return bool(same) and one.probability is other.probability
    return bool(same) and bool(np.array_equal(one.probability, other.probability, equal_nan=True))


def _same_at_edges(one: NativeRuntime, other: NativeRuntime, edges: Mapping[str, NDArray[Any]]) -> bool:
    count = len(next(iter(edges.values())))
    if not count:
        return True
    try:
        return _same(one.score(edges, count), other.score(edges, count))
    except LoopwrightError:
        # A model that refuses an edge row, such as an unseen category, is asked for each of them.
        for row in range(count):
            single = {name: values[row : row + 1] for name, values in edges.items()}
            try:
                expected = one.score(single, 1)
            except LoopwrightError:
                continue
            if not _same(expected, other.score(single, 1)):
                return False
        return True


def _own_rule(model: Any) -> bool:
    """Whether the model is known to choose labels by something else than the highest probability."""
    name = type(final_step(model)).__name__
    return "Threshold" in name or name in {"SVC", "NuSVC"}


def _write_rows(made: Path, plan: Plan, manifest: Manifest) -> None:
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
        "bands": [[band.runtime, band.rows] for band in manifest.bands],
        "tolerance": manifest.tolerance,
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
