"""Proving a compiled runtime: every stored row, and some rows at the edges, through both, and the answers compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopwright.errors import LoopwrightError
from loopwright.records import Column, Signature, Task
from loopwright.registry.columns import missing
from loopwright.scoring.base import Runtime, Scores
from loopwright.scoring.golden import compare

__all__ = ["TOLERANCE", "UNSEEN", "Agreement", "edge_rows", "replay"]

TOLERANCE = 1e-5
#: A category no training data has.
UNSEEN = "loopwright: never seen"


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far a runtime agrees with the native one. `problem` is empty when it may serve."""

    rows: int
    max_difference: float
    label_flips: int
    problem: str = ""


def edge_rows(columns: Mapping[str, NDArray[Any]], signature: Signature) -> dict[str, NDArray[Any]]:
    """Return rows that differ from the first given one in one column each.

    The smallest and the largest number of each column, a missing value where the signature allows it, and a category
    never seen in training.
    """
    edges = [
        (column, values)
        for column in signature.inputs
        if len(values := _extremes(column, columns[column.name]))
    ]
    count = sum(len(values) for _, values in edges)
    rows = {name: np.repeat(values[:1], count) for name, values in columns.items()}
    start = 0
    for column, values in edges:
        own = rows[column.name]
        # An array of whole numbers cannot hold a gap, nor an array of booleans.
        rows[column.name] = own = own if own.dtype == values.dtype else own.astype(values.dtype)
        own[start : start + len(values)] = values
        start += len(values)
    return rows


def _extremes(column: Column, values: NDArray[Any]) -> NDArray[Any]:
    gap = [] if column.required else [missing(column, 1)]
    if column.type == "string":
        return np.concatenate([np.array([UNSEEN], dtype=object), *gap])
    if column.type in {"boolean", "datetime"}:
        return np.concatenate(gap) if gap else values[:0]
    present = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    if not len(present):
        return np.concatenate(gap) if gap else values[:0]
    return np.concatenate([np.array([present.min(), present.max()], dtype=values.dtype), *gap])


def replay(
    native: Runtime, compiled: Runtime, columns: Mapping[str, NDArray[Any]], signature: Signature
) -> Agreement:
    """Compare a compiled runtime with the native one on real rows, shape (n,) with n >= 1, and on edge rows."""
    rows = len(next(iter(columns.values())))
    expected = native.score(columns, rows)
    scale = _scale(expected, signature)
    try:
        found = compiled.score(columns, rows)
    except Exception as error:  # noqa: BLE001  (whatever it is, this runtime cannot serve)
        return Agreement(rows, float("inf"), 0, f"it fails on real rows: {_brief(error)}")
    difference, flips = compare(expected, found, scale=scale)
    if problem := _problem(difference, flips, "real"):
        return Agreement(rows, difference, flips, problem)
    edges = edge_rows(columns, signature)
    problem = _at_edges(native, compiled, edges, scale)
    return Agreement(rows, difference, flips, problem)


def _scale(expected: Scores, signature: Signature) -> float:
    """Return the unit for absolute differences: for a target in thousandths, 1e-5 would be no proof of anything."""
    if signature.task == Task.classification:
        return 1.0
    spread = float(np.nanstd(expected.prediction)) if len(expected.prediction) > 1 else 0.0
    return min(1.0, spread) if spread > 0 else 1.0


def _problem(difference: float, flips: int, which: str) -> str:
    if flips:
        return f"{flips} labels change on {which} rows (largest difference {difference:.2g})"
    if not difference <= TOLERANCE:
        return f"answers differ by up to {difference:.2g} on {which} rows (tolerance {TOLERANCE:g})"
    return ""


def _at_edges(native: Runtime, compiled: Runtime, edges: Mapping[str, NDArray[Any]], scale: float) -> str:
    count = len(next(iter(edges.values())))
    if not count:
        return ""
    try:
        expected = native.score(edges, count)
        found = compiled.score(edges, count)
    except Exception:  # noqa: BLE001  (then the rows are looked at one by one)
        return _one_by_one(native, compiled, edges, count, scale)
    return _problem(*compare(expected, found, scale=scale), "edge")


def _one_by_one(
    native: Runtime, compiled: Runtime, edges: Mapping[str, NDArray[Any]], count: int, scale: float
) -> str:
    """Compare edge rows singly: where the model itself refuses one, the compiled runtime must refuse it too."""
    for row in range(count):
        one = {name: values[row : row + 1] for name, values in edges.items()}
        answers = [_answer(runtime, one) for runtime in (native, compiled)]
        if isinstance(answers[0], str) and isinstance(answers[1], str):
            continue
        if isinstance(answers[0], str):
            return f"it answers an edge row that the model refuses ({answers[0]})"
        if isinstance(answers[1], str):
            return f"it fails on an edge row that the model answers: {answers[1]}"
        if problem := _problem(*compare(answers[0], answers[1], scale=scale), "edge"):
            return problem
    return ""


def _answer(runtime: Runtime, row: Mapping[str, NDArray[Any]]) -> Scores | str:
    try:
        return runtime.score(row, 1)
    except LoopwrightError as error:
        return _brief(error)
    except Exception as error:  # noqa: BLE001  (a runtime's own errors have no common base)
        return _brief(error)


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
