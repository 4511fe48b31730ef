"""What every check gets and gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from loopwright.config import MonitorConfig
from loopwright.monitor.metrics import Labelled
from loopwright.records import Signal, Window
from loopwright.registry.profile import Profile

__all__ = ["Check", "Context", "Phase", "labelled_rows"]

#: When a check can judge a window: as soon as it is over, or when its labels are due.
Phase = Literal["inputs", "labels"]


@dataclass(frozen=True, slots=True)
class Context:
    """One window of one deployment.

    Attributes
    ----------
    table
        The predictions of the window as a pyarrow Table, labels joined.
    champion
        The version that is being watched.
    profile
        Returns the reference profile of a version, or None where it has none.
    query
        Runs one SELECT over the window's predictions and returns its only value.
    """

    model: str
    deployment: str
    window: Window
    config: MonitorConfig
    champion: int
    table: Any
    profile: Callable[[int], Profile | None]
    query: Callable[[str], Any]
    metric: str


class Check(Protocol):
    """One check. `phase` says when it can judge a window."""

    name: str
    phase: Phase

    def run(self, context: Context) -> list[Signal]:
        """Judge one window; no signals where there are too few rows to judge."""
        ...


def column(table: Any, name: str) -> NDArray[Any]:
    """Return a column of a pyarrow Table as an array: numbers with NaN for null, else objects with None."""
    values = table.column(name)
    if str(values.type) in {"double", "float", "int64", "int32", "bool"}:
        return np.asarray(values.to_numpy(), dtype=np.float64 if values.null_count else None)
    made = np.empty(len(values), object)
    made[:] = values.to_pylist()
    return made


def labelled_rows(table: Any, classes: tuple[Any, ...] = ()) -> Labelled:
    """Return the rows of a table that have a label."""
    import pyarrow.compute as pc

    known = table.filter(pc.is_valid(table.column("actual")))
    probability = None
    if "probability" in known.column_names and known.num_rows and not known.column("probability").null_count:
        rows = known.column("probability").to_pylist()
        if len({len(row) for row in rows}) == 1 and rows[0]:
            probability = np.array(rows, np.float64)
    return Labelled(column(known, "actual"), column(known, "prediction"), probability, classes)
