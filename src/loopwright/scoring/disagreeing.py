"""The predictions of two versions on the same real rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loopwright import scoring
from loopwright.config import Project
from loopwright.errors import LoopwrightError
from loopwright.records import ModelVersion, Task
from loopwright.registry.artifacts import REPLAY
from loopwright.registry.columns import arrays_of
from loopwright.scoring.golden import read_rows

__all__ = ["Disagreement", "disagreement"]

#: Numbers closer than this, relative to their spread, are one answer.
CLOSE = 1e-6


@dataclass(frozen=True, slots=True)
class Disagreement:
    """On how many of the replay rows two versions answer differently; `problem` says why that is not known.

    For a regression `mean` and `largest` are absolute differences, in the target's unit.
    """

    rows: int
    differ: int
    mean: float | None = None
    largest: float | None = None
    problem: str = ""


def disagreement(project: Project, before: ModelVersion, after: ModelVersion) -> Disagreement:
    """Score the replay rows of both versions with both, preparing them where needed."""
    try:
        folders = [scoring.prepare(project, version.model, version.version) for version in (before, after)]
        for version, folder in zip((before, after), folders, strict=True):
            if not (folder / REPLAY).is_file():
                return Disagreement(0, 0, problem=f"{version.ref} has no replay rows")
        return _both(folders)
    except LoopwrightError as error:
        return Disagreement(0, 0, problem=error.fact)


def _both(folders: list[Path]) -> Disagreement:
    tables = [read_rows(folder / REPLAY) for folder in folders]
    if len(set(map(len, tables))) == 1 and tables[0].equals(tables[1]):
        tables = tables[:1]
    scorers = [scoring.load(folder) for folder in folders]
    try:
        answers = [
            np.concatenate(
                [scorer.score(arrays_of(table, scorer.signature.inputs)).prediction for table in tables]
            )
            for scorer in scorers
        ]
        regression = all(scorer.signature.task == Task.regression for scorer in scorers)
    finally:
        for scorer in scorers:
            scorer.close()
    if not regression:
        pairs = zip(answers[0].tolist(), answers[1].tolist(), strict=True)
        return Disagreement(len(answers[0]), sum(one != other for one, other in pairs))
    gap = np.abs(answers[0].astype(np.float64) - answers[1].astype(np.float64))
    if gap.ndim == 2:
        # A row of several outputs differs by as much as the one that differs most.
        gap = gap.max(axis=1)
    limit = CLOSE * max(float(np.nanstd(answers[0])), 1e-12)
    return Disagreement(len(gap), int((gap > limit).sum()), float(gap.mean()), float(gap.max()))
