"""What a version has of all that later stages use, what it lacks, and how to give it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from loopwright.config import Project
from loopwright.records import ModelVersion
from loopwright.registry.artifacts import EXTRA, PROFILE

__all__ = ["Have", "completeness"]


@dataclass(frozen=True, slots=True)
class Have:
    """One thing that a version has or lacks: what it is for is in `detail`, how to give it in `hint`."""

    name: str
    there: bool
    detail: str
    hint: str = ""


def completeness(project: Project, version: ModelVersion) -> tuple[Have, ...]:
    """Return what is known of a version: one entry each for signature, files, dataset, replay rows and profile."""
    complete = f"loopwright model complete {shlex.quote(version.model)} {version.version}"
    dataset = f"{complete} --dataset NAME   (loopwright dataset list)"
    signature, training = version.signature, version.training
    target = f", target {signature.target!r}" if signature else ""
    return (
        Have(
            "signature",
            signature is not None,
            f"{len(signature.inputs)} inputs, {signature.task}{target}"
            if signature
            else "which inputs the model takes",
            "" if signature else complete,
        ),
        Have(
            "files",
            bool(version.digest),
            version.digest[:16] or "a hash that shows when the files are changed",
            "" if version.digest else complete,
        ),
        Have(
            "dataset",
            training is not None,
            f"{training.name} {training.digest[:12]}, {training.rows} rows"
            if training
            else "what it learned from",
            "" if training else dataset,
        ),
        Have(
            "replay rows",
            version.replay_rows > 0,
            f"{version.replay_rows} rows"
            if version.replay_rows
            else "real rows: without, the model is never compiled",
            "" if version.replay_rows else dataset,
        ),
        Have(
            "profile",
            _profiled(project, version),
            "drift is measured against it",
            "" if _profiled(project, version) else dataset,
        ),
    )


def _profiled(project: Project, version: ModelVersion) -> bool:
    prepared = project.scorer(version.model, version.version) / PROFILE
    return prepared.is_file() or Path(version.uri, EXTRA, PROFILE).is_file()
