"""Proving a compiled runtime: every stored row, and some rows at the edges, through both, and the answers compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopwright.errors import LoopwrightError
from loopwright.records import Column, Signature, Task
from loopwright.registry.columns import missing
from loopwright.scoring.base import Runtime, Scores
from loopwright.scoring.golden import compare

__all__ = ["MOST_EDGES", "TOLERANCE", "UNSEEN", "WANTED", "Agreement", "edge_rows", "replay"]

TOLERANCE = 1e-5
#: Real rows that a proof should rest on: a difference in one row of a thousand must show.
WANTED = 1000
#: A category no training data has.
UNSEEN = "loopwright: never seen"
#: Rows on and beside the thresholds of trees.
MOST_EDGES = 64
#: Numbers larger than any training data has, by the kind and the size of their type.
_LARGE: dict[tuple[str, int], float] = {("f", 8): 1e30, ("f", 4): 1e30, ("i", 8): 10**12, ("i", 4): 2**31 - 1}
#: The unit of absolute differences, one for each of several outputs.
_Scale = float | NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far a runtime agrees with the native one. `problem` is empty when it may serve."""

    rows: int
    max_difference: float
    label_flips: int
    problem: str = ""


def edge_rows(
    columns: Mapping[str, NDArray[Any]],
    signature: Signature,
    thresholds: Sequence[tuple[int, float]] = (),
) -> dict[str, NDArray[Any]]:
    """Return rows that differ from a given one in one column each.

    For each column: the smallest and the largest number, a very large one of each sign, both booleans, a category
    never seen in training and empty text, a missing value where the signature allows it. For each threshold, given as
    (place of the column, value): that value, and the next ones to both sides in single precision or whole numbers.

    All but the rows for thresholds are made from the first given row; those from one after the other.
    """
    edges = [
        (column.name, values)
        for column in signature.inputs
        if len(values := _extremes(column, columns[column.name]))
    ]
    edges += _beside(columns, signature, thresholds)
    given = len(next(iter(columns.values())))
    count = sum(len(values) for _, values in edges)
    base = np.zeros(count, dtype=np.intp)
    own = sum(len(values) for _, values in edges[len(edges) - len(thresholds) :]) if thresholds else 0
    base[count - own :] = np.arange(own) % given
    rows = {name: values[base] for name, values in columns.items()}
    start = 0
    for name, values in edges:
        kept = rows[name]
        # An array of whole numbers cannot hold a gap, nor an array of booleans.
        rows[name] = kept = kept if kept.dtype == values.dtype else kept.astype(values.dtype)
        kept[start : start + len(values)] = values
        start += len(values)
    return rows


def _extremes(column: Column, values: NDArray[Any]) -> NDArray[Any]:
    gap = [] if column.required else [missing(column, 1)]
    if column.type == "string":
        return np.concatenate([np.array([UNSEEN, ""], dtype=object), *gap])
    if column.type == "boolean":
        both = np.array([True, False])
        return np.concatenate([both.astype(object), *gap]) if gap else both
    if column.type == "datetime":
        return np.concatenate(gap) if gap else values[:0]
    present = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    if not len(present):
        return np.concatenate(gap) if gap else values[:0]
    large = _LARGE[values.dtype.kind, values.dtype.itemsize]
    ends = np.array([present.min(), present.max(), large, -large], dtype=values.dtype)
    return np.concatenate([ends, *gap])


def _beside(
    columns: Mapping[str, NDArray[Any]], signature: Signature, thresholds: Sequence[tuple[int, float]]
) -> list[tuple[str, NDArray[Any]]]:
    found = []
    for place, value in thresholds:
        column = signature.inputs[place]
        dtype = columns[column.name].dtype
        if dtype.kind in "iu":
            near: list[Any] = [np.floor(value), np.floor(value) + 1, np.ceil(value) - 1]
        elif dtype.kind == "f":
            single = np.float32(value)
            near = [
                value,
                np.nextafter(single, np.float32(-np.inf)),
                np.nextafter(single, np.float32(np.inf)),
            ]
        else:
            near = []
        found.append((column.name, np.array(near).astype(dtype)))
    return found


def replay(
    native: Runtime,
    compiled: Runtime,
    columns: Mapping[str, NDArray[Any]],
    signature: Signature,
    *,
    edges: Mapping[str, NDArray[Any]] | None = None,
    expected: Scores | None = None,
    tolerance: float = TOLERANCE,
) -> Agreement:
    """Compare a compiled runtime with the native one on real rows, shape (n,) with n >= 1, and on edge rows.

    Parameters
    ----------
    edges
        What `edge_rows` gives; by default those that need no thresholds.
    expected
        The native answers on the real rows, where they are known already.
    tolerance
        How far answers may differ: see `ModelConfig.tolerance`.
    """
    rows = len(next(iter(columns.values())))
    expected = native.score(columns, rows) if expected is None else expected
    scale = _scale(expected, signature)
    try:
        found = compiled.score(columns, rows)
    except Exception as error:  # noqa: BLE001  (whatever it is, this runtime cannot serve)
        return Agreement(rows, float("inf"), 0, f"it fails on real rows: {_brief(error)}")
    difference, flips = compare(expected, found, scale=scale)
    if problem := _problem(difference, flips, "real", tolerance):
        return Agreement(rows, difference, flips, problem)
    at_edges = edge_rows(columns, signature) if edges is None else edges
    return Agreement(rows, difference, flips, _at_edges(native, compiled, at_edges, scale, tolerance))


def _scale(expected: Scores, signature: Signature) -> _Scale:
    """Return the unit for absolute differences: for a target in thousandths, 1e-5 would be no proof of anything."""
    if signature.task == Task.classification or len(expected.prediction) < 2:
        return 1.0
    spread = np.nanstd(expected.prediction, axis=0)
    return np.where(spread > 0, np.minimum(spread, 1.0), 1.0)


def _problem(difference: float, flips: int, which: str, tolerance: float) -> str:
    if flips:
        return f"{flips} labels change on {which} rows (largest difference {difference:.2g})"
    if not difference <= tolerance:
        return f"answers differ by up to {difference:.2g} on {which} rows (tolerance {tolerance:g})"
    return ""


def _at_edges(
    native: Runtime, compiled: Runtime, edges: Mapping[str, NDArray[Any]], scale: _Scale, tolerance: float
) -> str:
    count = len(next(iter(edges.values())))
    if not count:
        return ""
    try:
        expected = native.score(edges, count)
        found = compiled.score(edges, count)
    except Exception:  # noqa: BLE001  (then the rows are looked at one by one)
        return _one_by_one(native, compiled, edges, scale, tolerance)
    return _problem(*compare(expected, found, scale=scale), "edge", tolerance)


def _one_by_one(
    native: Runtime, compiled: Runtime, edges: Mapping[str, NDArray[Any]], scale: _Scale, tolerance: float
) -> str:
    """Compare edge rows singly: where the model itself refuses one, the compiled runtime must refuse it too."""
    for row in range(len(next(iter(edges.values())))):
        one = {name: values[row : row + 1] for name, values in edges.items()}
        answers = [_answer(runtime, one) for runtime in (native, compiled)]
        if isinstance(answers[0], str) and isinstance(answers[1], str):
            continue
        if isinstance(answers[0], str):
            return f"it answers an edge row that the model refuses ({answers[0]})"
        if isinstance(answers[1], str):
            return f"it fails on an edge row that the model answers: {answers[1]}"
        if problem := _problem(*compare(answers[0], answers[1], scale=scale), "edge", tolerance):
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
