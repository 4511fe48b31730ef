"""From a prepared version to a signed bundle."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from loopwright.config import BudgetConfig, Project
from loopwright.deploy.edge import archive
from loopwright.deploy.edge.signing import Signer, fingerprint
from loopwright.errors import GateNotMet, InvalidInput, NotFound
from loopwright.ledger import Ledger
from loopwright.records import Deployment, Mode, ModelVersion, PipelineRun, now
from loopwright.scoring.base import GOLDEN, MODEL, Manifest

__all__ = ["FORMAT", "GOLDEN_ROWS", "bundle"]

FORMAT = 1
#: Real rows with their answers that go into every bundle.
GOLDEN_ROWS = 16
#: A device takes a bundle up to this long after it was made, unless the caller says otherwise.
VALID_FOR = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class _Target:
    """What is bundled: a version, for which budget, and how the bundle is called."""

    name: str
    model: str
    version: int
    budget: BudgetConfig


def bundle(
    project: Project,
    name: str,
    version: int | None = None,
    out: Path | None = None,
    *,
    valid_for: timedelta = VALID_FOR,
    ledger: Ledger | None = None,
) -> Path:
    """Write a signed bundle of one model version for devices.

    A `.tar.gz` with ``model.onnx``, ``manifest.json``, ``golden.json`` (16 real rows with the model's own answers),
    ``predict.py`` (a predictor that needs onnxruntime and numpy), ``outbox.py`` (which keeps what was answered until it is
    handed over), the manifest's ed25519 signature and the public key.

    Parameters
    ----------
    project
        The project; its key pair is made on first use.
    name
        An edge deployment or a model.
    version
        The version; else what the deployment serves, else the model's champion.
    out
        The file to write; else one in ``.loopwright/bundles``.
    valid_for
        How long `verify` accepts the bundle.
    ledger
        Where the lineage is read and the bundle noted; else the project's.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    NotFound
        No deployment, model or version of this name.
    InvalidInput
        The version has no compiled graph, or the deployment is of another mode.
    GateNotMet
        The bundle is larger than the deployment's budget.
    """
    from loopwright.scoring import prepare, read_manifest

    own = ledger or Ledger.open(project)
    try:
        target = _target(project, own, name, version)
        folder = prepare(project, target.model, target.version)
        scorer = read_manifest(folder)
        if not scorer.has_graph:
            raise InvalidInput(
                f"{target.model}/{target.version} cannot run on a device: it has no ONNX graph ({scorer.graph_reason}).",
                valid="A bundle needs a version whose ONNX graph was proven on its replay rows.",
                hint=f"loopwright model show {target.model} {target.version}",
            )
        files = _files(folder, scorer)
        manifest = _manifest(own, scorer, target, files, valid_for)
        path = out or project.state / "bundles" / f"{target.name}-{target.version}.tar.gz"
        signer = Signer(project)
        _write(path, _signed(manifest, signer) | files, target)
        own.put("bundle", target.name, _facts(path, target, manifest, signer), event="edge.bundled")
    finally:
        if ledger is None:
            own.close()
    return path


def _signed(manifest: dict[str, Any], signer: Signer) -> dict[str, bytes]:
    text = msgspec.json.format(msgspec.json.encode(manifest, order="sorted"))
    return {archive.MANIFEST: text, archive.SIGNATURE: signer.sign(text), archive.SIGNER: signer.public}


def _facts(path: Path, target: _Target, manifest: dict[str, Any], signer: Signer) -> dict[str, Any]:
    return {
        "model": target.model,
        "version": target.version,
        "path": str(path),
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "expires": manifest["expires"],
        "signer": fingerprint(signer.public),
    }


def _target(project: Project, ledger: Ledger, name: str, version: int | None) -> _Target:
    config = project.config.deployment.get(name)
    if config is None and name not in project.config.model:
        known = [key for key, value in project.config.deployment.items() if value.mode is Mode.edge]
        raise NotFound.among("edge deployment or model", name, [*known, *project.config.model])
    if config is not None and config.mode is not Mode.edge and name not in project.config.model:
        raise InvalidInput(
            f"The deployment {name!r} is in mode {config.mode}; only an edge deployment is bundled.",
            hint=f"loopwright edge bundle {config.model}   (the model itself)",
        )
    edge = config if config is not None and config.mode is Mode.edge else None
    model = edge.model if edge else name
    budget = edge.budget if edge else BudgetConfig()
    return _Target(name, model, version or _served(project, ledger, name, model), budget)


def _served(project: Project, ledger: Ledger, name: str, model: str) -> int:
    state = ledger.get("deployment", name)
    if state is not None:
        variants = state.read(Deployment).variants
        return next((one.version for one in variants if one.name == "champion"), variants[0].version)
    from loopwright import registry

    return registry.version(project, model, "champion").version


def _files(folder: Path, scorer: Manifest) -> dict[str, bytes]:
    return {
        archive.MODEL: (folder / MODEL).read_bytes(),
        archive.GOLDEN: _golden(folder, scorer),
        **{name: Path(__file__).with_name(name).read_bytes() for name in (archive.PREDICT, archive.OUTBOX)},
    }


def _golden(folder: Path, scorer: Manifest) -> bytes:
    """Return real rows and the native model's answers for them as JSON."""
    from loopwright.scoring import golden

    table = golden.read_rows(folder / GOLDEN).slice(0, GOLDEN_ROWS)
    rows = [{name: row[f"input_{name}"] for name in scorer.signature.names} for row in table.to_pylist()]
    names = [str(label) for label in scorer.signature.classes]
    answers = [
        {"prediction": row["prediction"]}
        | ({"probability": dict(zip(names, row["probability"], strict=True))} if "probability" in row else {})
        for row in table.to_pylist()
    ]
    return msgspec.json.format(msgspec.json.encode({"rows": rows, "expected": answers}))


def _manifest(
    ledger: Ledger, scorer: Manifest, target: _Target, files: dict[str, bytes], valid_for: timedelta
) -> dict[str, Any]:
    state = ledger.get("model_version", f"{target.model}/{target.version}")
    version = state.read(ModelVersion) if state else None
    state = ledger.get("pipeline_run", version.run_id) if version else None
    run = state.read(PipelineRun) if state else None
    created = now()
    return {
        "format": FORMAT,
        "model": target.model,
        "version": target.version,
        "deployment": target.name if target.name != target.model else "",
        "digest": scorer.digest,
        "run_id": version.run_id if version else "",
        "dataset": version.training.digest if version and version.training else "",
        "git_commit": run.git_commit if run else "",
        "signature": scorer.signature,
        "graph": {
            "inputs": scorer.inputs,
            "precision": scorer.precision,
            "missing_text": scorer.missing_text,
            "unused": scorer.unused,
            "probability": scorer.probability,
            "labels_from_probability": scorer.labels_from_probability,
        },
        "tolerance": scorer.tolerance,
        "created": created.isoformat(),
        "expires": (created + valid_for).isoformat(),
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            for name, data in files.items()
        },
    }


def _write(path: Path, files: dict[str, bytes], target: _Target) -> None:
    size = sum(map(len, files.values()))
    if size > target.budget.size:
        raise GateNotMet(
            f"The bundle of {target.model}/{target.version} holds {size} bytes, more than its budget of "
            f"{target.budget.size}.",
            valid=f"model.onnx alone has {len(files[archive.MODEL])}.",
            hint=f"train a smaller model, or raise budget.size of {target.name}",
            bytes=size,
        )
    archive.write(path, files)
