"""A registered model and the one that a repetition made, asked the same rows: those kept with the registered one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from loopwright.config import Project
from loopwright.errors import LoopwrightError
from loopwright.records import ModelVersion, Task
from loopwright.registry.artifacts import EXTRA, LAYOUT, REPLAY, Shape, download
from loopwright.registry.columns import arrays_of
from loopwright.registry.estimator import gives_probability
from loopwright.reproduction.verdict import ModelCheck
from loopwright.scoring.base import Manifest
from loopwright.scoring.golden import compare, read_rows
from loopwright.scoring.native import NativeRuntime, load_model

__all__ = ["compare_models"]


def compare_models(
    project: Project, then: Iterable[dict[str, Any]], now: Sequence[ModelVersion], tolerance: float
) -> list[ModelCheck]:
    """Compare each registered version with the version of the same model that was made now.

    Parameters
    ----------
    then
        For each version its `model`, its `version` as ``model/number`` and the `folder` with its files.
    now
        The versions of the repetition, in the order in which they were made.
    tolerance
        The largest difference of an answer that still counts as the same.
    """
    left = list(now)
    found = []
    for one in then:
        match = next((version for version in left if version.model == one["model"]), None)
        if match is None:
            problem = "the repetition registered no such model"
            found.append(ModelCheck(one["version"], 0, None, 0, ok=False, problem=problem))
            continue
        left.remove(match)
        found.append(_compare(project, one["version"], Path(one["folder"]), match, tolerance))
    return found


def _compare(
    project: Project, version: str, folder: Path, made: ModelVersion, tolerance: float
) -> ModelCheck:
    try:
        with tempfile.TemporaryDirectory() as temporary:
            return _answers(version, folder, download(project, made.uri, Path(temporary)), tolerance)
    except (LoopwrightError, OSError, ImportError) as error:
        problem = f"the two cannot be compared: {str(error).splitlines()[0]}"
        return ModelCheck(version, 0, None, 0, ok=False, problem=problem)


def _answers(version: str, then: Path, now: Path, tolerance: float) -> ModelCheck:
    shape = _shape(then)
    rows = arrays_of(read_rows(then / EXTRA / REPLAY), shape.signature.inputs)
    count = len(next(iter(rows.values())))
    answers = [_runtime(folder).score(rows, count) for folder in (then, now)]
    difference, flips = compare(*answers)
    return ModelCheck(version, count, difference, flips, ok=flips == 0 and difference <= tolerance)


def _shape(folder: Path) -> Shape:
    return msgspec.json.decode((folder / EXTRA / LAYOUT).read_bytes(), type=Shape)


def _runtime(folder: Path) -> NativeRuntime:
    """Return a model behind the columns of its own signature."""
    shape, model = _shape(folder), load_model(folder)
    manifest = Manifest(
        model="",
        version=0,
        runtime="native",
        reason="",
        digest="",
        signature=shape.signature,
        layout=shape.layout,
        probability=shape.signature.task == Task.classification
        and not shape.signature.outputs
        and gives_probability(model),
    )
    return NativeRuntime(folder, manifest, model)
