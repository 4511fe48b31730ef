"""Additive counts: the unit of all live numbers, and of the drift of a window.

A block holds the counts of rows in the bins of a version's reference profile. Blocks of the same plan are added up: over
workers, minutes, hours and segments, in any order, to exactly what counting all rows at once gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["Block", "ColumnCounts", "Plan"]


class ColumnCounts(Protocol):
    """The counts of one column in a block."""

    bins: NDArray[np.int64]
    missing: int
    unseen: int


class Plan(Protocol):
    """The bins of one version: from its reference profile, or without inputs where it has none."""

    digest: str

    def empty(self) -> Block:
        """Return counts of no rows."""
        ...

    def count(self, columns: Mapping[str, Any]) -> Block:
        """Count rows, each column under its input's name."""
        ...


class Block(Protocol):
    """Counts of n rows in the bins of a plan."""

    plan: Plan
    rows: int

    def add(self, other: Self) -> None:
        """Add the counts of another block of the same plan."""
        ...

    def column(self, name: str) -> ColumnCounts | None:
        """Return the counts of an input, of ``prediction`` or of ``score``."""
        ...


def count(plan: Plan, columns: Mapping[str, Any]) -> Block:
    """Count rows into the bins of a plan."""
    raise NotImplementedError
