"""Comparing what the notebook computed with what the pipeline computed: numbers within tolerance, tables by content."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Capture", "Comparison", "compare"]

#: Step, name, and the pickled value, as a process of ours wrote it.
Capture = tuple[str, str, bytes]

_MISSING = "(missing)"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One value on both sides. `difference` is the largest one between numbers; None where there are none.

    `kind` is ``number``, ``text``, ``table``, ``array`` or ``object``; of an object only the type is compared.
    """

    step: str
    name: str
    kind: str
    notebook: str
    pipeline: str
    difference: float | None
    equal: bool


def compare(notebook: Sequence[Capture], pipeline: Sequence[Capture], tolerance: float) -> list[Comparison]:
    """Compare both sides' values, name by name.

    Parameters
    ----------
    tolerance
        The largest difference between two numbers that counts as none, relative to the larger one; the same
        absolutely for numbers below 1.
    """
    left, right = _values(notebook), _values(pipeline)
    keys = dict.fromkeys((*left, *(key for key in right if key[0] != "(register)")))
    return [_compared(*key, left.get(key, _MISSING), right.get(key, _MISSING), tolerance) for key in keys]


def _values(captures: Sequence[Capture]) -> dict[tuple[str, str], Any]:
    found = {}
    for step, name, content in captures:
        # Written by our own child process a moment ago, from the user's own values.
        for path, value in _leaves(name, pickle.loads(content)):  # noqa: S301
            found[step, path] = value
    return found


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the entries of a dict of results one by one, so that each shows as a line of its own."""
    if isinstance(value, dict) and value and len(value) <= 50:
        for key, item in value.items():
            yield from _leaves(f"{name}.{key}", item)
    else:
        yield name, value


def _compared(step: str, name: str, left: Any, right: Any, tolerance: float) -> Comparison:
    kind = _kind(left)
    if kind != _kind(right):
        return Comparison(step, name, kind, _shown(left), _shown(right), None, False)
    difference: float | None = None
    if kind == "number":
        difference, equal = _numbers(float(left), float(right), tolerance)
    elif kind == "list":
        difference, equal = _lists(left, right, tolerance)
    elif kind in {"table", "array"}:
        difference, equal = _tables(left, right, tolerance)
    elif kind == "sparse":
        difference, equal = _lists([*left[1], *left[2:]], [*right[1], *right[2:]], tolerance)
    else:
        equal = bool(left == right)
    return Comparison(step, name, kind, _shown(left), _shown(right), difference, equal)


def _kind(value: Any) -> str:
    if isinstance(value, tuple) and value and isinstance(value[0], str) and value[0].startswith("("):
        return str(value[0]).strip("()")
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return "text"
    if isinstance(value, int | float):
        return "number"
    return "list" if isinstance(value, list) else "text"


def _numbers(left: float, right: float, tolerance: float) -> tuple[float, bool]:
    if math.isnan(left) or math.isnan(right) or math.isinf(left) or math.isinf(right):
        return (0.0, True) if left == right or (math.isnan(left) and math.isnan(right)) else (math.inf, False)
    difference = abs(left - right)
    return difference, difference <= tolerance * max(1.0, abs(left), abs(right))


def _lists(left: Sequence[Any], right: Sequence[Any], tolerance: float) -> tuple[float | None, bool]:
    if len(left) != len(right):
        return None, False
    largest: float | None = None
    equal = True
    for one, other in zip(left, right, strict=True):
        found = _compared("", "", one, other, tolerance)
        equal = equal and found.equal
        if found.difference is not None:
            largest = max(largest or 0.0, found.difference)
    return largest, equal


def _tables(left: Any, right: Any, tolerance: float) -> tuple[float | None, bool]:
    import pandas as pd

    if left[1] != right[1]:
        return None, False
    if left[0] == "(array)":
        return _columns(left[2].reshape(-1), right[2].reshape(-1), tolerance)
    one, other = left[2], right[2]
    if isinstance(one, pd.Series) != isinstance(other, pd.Series):
        return None, False
    if isinstance(one, pd.Series):
        one, other = one.to_frame("value"), other.to_frame("value")
    if list(map(str, one.columns)) != list(map(str, other.columns)) or not one.index.equals(other.index):
        return None, False
    largest: float | None = None
    equal = True
    for place in range(one.shape[1]):
        difference, same = _columns(one.iloc[:, place].to_numpy(), other.iloc[:, place].to_numpy(), tolerance)
        equal = equal and same
        if difference is not None:
            largest = max(largest or 0.0, difference)
    return largest, equal


def _columns(left: Any, right: Any, tolerance: float) -> tuple[float | None, bool]:
    import numpy as np
    import pandas as pd

    if left.dtype.kind in "iuf" and right.dtype.kind in "iuf":
        one, other = left.astype(float), right.astype(float)
        both_nan = np.isnan(one) & np.isnan(other)
        with np.errstate(invalid="ignore"):
            gaps = np.where(both_nan | (one == other), 0.0, np.abs(one - other))
            within = gaps <= tolerance * np.maximum(1.0, np.maximum(np.abs(one), np.abs(other)))
        return float(np.nanmax(gaps)) if gaps.size else 0.0, bool((within | both_nan).all())
    one, other = pd.Series(left).astype(object), pd.Series(right).astype(object)
    same = (one.isna() & other.isna()) | (one.map(repr) == other.map(repr))
    return None, bool(same.all())


def _shown(value: Any) -> str:
    kind = _kind(value)
    if kind in {"table", "array", "sparse"}:
        return " x ".join(map(str, value[1])) + (" " + kind)
    if kind == "object":
        return str(value[1])
    if kind == "number":
        return f"{value:.6g}" if isinstance(value, float) else str(value)
    text = str(value)
    return text if len(text) <= 40 and "\n" not in text else f"{kind} of {len(value)}"
