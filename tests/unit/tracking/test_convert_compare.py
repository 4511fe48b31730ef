"""Comparing values of notebook and pipeline."""

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest

from loopwright.tracking.notebooks.convert.child import _plain
from loopwright.tracking.notebooks.convert.compare import Comparison, compare


def compared(left: Any, right: Any, tolerance: float = 1e-6) -> list[Comparison]:
    """Compare one value on both sides, as the two processes hand it over."""
    sides = [[("train", "value", pickle.dumps(_plain(side)))] for side in (left, right)]
    return compare(sides[0], sides[1], tolerance)


FRAME = pd.DataFrame({"a": [1.0, np.nan], "b": ["x", None], "c": [pd.Timestamp("2024-01-01"), pd.NaT]})


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (0.9, 0.9 + 1e-9, True),
        (0.9, 0.91, False),
        (1e9, 1e9 + 1, True),
        (float("nan"), float("nan"), True),
        (float("inf"), 1.0, False),
        (np.float32(0.5), 0.5, True),
        (1, 1.0, True),
        (True, False, False),
        ("a", "b", False),
        (FRAME, FRAME.copy(), True),
        (FRAME, FRAME.assign(a=[1.0, 2.0]), False),
        (FRAME, FRAME.assign(b=["x", "y"]), False),
        (FRAME, FRAME[["b", "a", "c"]], False),
        (FRAME, FRAME.iloc[:1], False),
        (FRAME, FRAME.set_axis([1, 2]), False),
        (FRAME["a"], FRAME["a"] + 1e-9, True),
        (np.eye(3), np.eye(3) * 1.1, False),
        ([1, 2.0], [1, 2.0], True),
        ([1, 2.0], [1], False),
        (None, 1, False),
    ],
)
def test_values(left: Any, right: Any, equal: bool) -> None:
    """Numbers count as equal within tolerance, tables when labels and contents are."""
    rows = compared(left, right)
    assert all(row.equal for row in rows) is equal


def test_dicts_are_compared_entry_by_entry() -> None:
    """Each entry of a dict of results is a line of its own, and a missing one differs."""
    rows = compared({"lr": 0.9, "tree": 0.8}, {"lr": 0.9})
    assert [(row.name, row.equal) for row in rows] == [("value.lr", True), ("value.tree", False)]
    assert rows[1].pipeline == "(missing)"


def test_the_difference_is_the_largest_one() -> None:
    """The difference shown of a table is that of the cell that differs most."""
    (row,) = compared(pd.DataFrame({"a": [1.0, 2.0]}), pd.DataFrame({"a": [1.0, 2.5]}))
    assert row.difference == pytest.approx(0.5)


def test_objects_are_compared_by_type() -> None:
    """A model is an object: its type is compared, its predictions speak for it elsewhere."""
    assert compared(compile, len)[0].kind == "object"
    assert compared(object(), object())[0].equal
