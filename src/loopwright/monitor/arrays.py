"""A window made of arrays: for simulations and tests, which run the same checks as a log does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopwright.errors import NotFound
from loopwright.monitor.base import ALL, Segment
from loopwright.monitor.blocks import Block, Plan
from loopwright.monitor.data import only_value
from loopwright.monitor.metrics import Labelled
from loopwright.predictions import columns as arrow
from loopwright.predictions.schema import INPUT
from loopwright.records import Scalar
from loopwright.registry.column_profile import MISSING

__all__ = ["ArrayWindow"]

_TYPES = {"f": "DOUBLE", "i": "BIGINT", "b": "BOOLEAN", "M": "TIMESTAMP"}


class ArrayWindow:
    """The rows of one window, n of them, as arrays; does all that a window of the log does.

    Parameters
    ----------
    inputs
        One array of shape (n,) for each input: numbers, times, or objects with text and None.
    plan
        The bins that `counts` counts into.
    version
        One for all rows, or an array of shape (n,).
    prediction, actual
        Shape (n,); None in `actual`, or NaN, is no label. None for a window that has none at all.
    probability
        Shape (n, k), in the order of `classes`.
    latency_ms
        Shape (n,).
    segments, most_segments
        Inputs whose values are watched apart, and how many values of each.
    """

    def __init__(
        self,
        inputs: Mapping[str, NDArray[Any]],
        plan: Plan,
        *,
        version: int | NDArray[np.int64] = 1,
        prediction: NDArray[Any] | None = None,
        actual: NDArray[Any] | None = None,
        probability: NDArray[np.float64] | None = None,
        latency_ms: NDArray[np.float32] | None = None,
        classes: tuple[Scalar, ...] = (),
        segments: Sequence[str] = (),
        most_segments: int = 10,
    ) -> None:
        given = {"prediction": prediction, "probability": probability, "latency_ms": latency_ms}
        known = {name: values for name, values in given.items() if values is not None}
        self._columns: dict[str, NDArray[Any]] = {
            **{INPUT + name: np.asarray(values) for name, values in inputs.items()},
            **known,
        }
        n = len(next(iter(self._columns.values()))) if self._columns else 0
        self._columns["version"] = (
            version if isinstance(version, np.ndarray) else np.full(n, version, np.int64)
        )
        self._actual = actual
        self._plan = plan
        self._classes = classes
        self._declared = segments
        self._most_segments = most_segments
        self._words: dict[str, NDArray[Any]] = {}

    @property
    def versions(self) -> Mapping[int, int]:
        """How many rows each version answered; empty where the window has none."""
        found, counts = np.unique(self._columns["version"], return_counts=True)
        return dict(zip(found.tolist(), counts.tolist(), strict=True))

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs, without their prefix."""
        return tuple(name.removeprefix(INPUT) for name in self._columns if name.startswith(INPUT))

    @property
    def types(self) -> Mapping[str, str]:
        """The DuckDB type of each column of the window."""
        return {name: _TYPES.get(values.dtype.kind, "VARCHAR") for name, values in self._columns.items()}

    def rows(self, version: int | None = None, segment: Segment = ALL) -> int:
        """Return how many rows there are."""
        return int(np.count_nonzero(self._mask(version, segment)))

    def segments(self) -> tuple[Segment, ...]:
        """Return the declared segments that occur, each column's most frequent first; never `ALL`."""
        found: list[Segment] = []
        for name in self._declared:
            if INPUT + name in self._columns:
                counted = sorted(
                    Counter(self._text(name).tolist()).items(), key=lambda one: (-one[1], one[0])
                )
                found += [Segment(name, value) for value, _ in counted[: self._most_segments]]
        return tuple(found)

    def counts(self, version: int | None = None, segment: Segment = ALL) -> Block:
        """Return the additive counts of inputs, predictions and latency in the bins of the plan."""
        mask = self._mask(version, segment)
        whole = bool(mask.all())
        return self._plan.count(
            {
                name: values if whole else values[mask]
                for name, values in self._columns.items()
                if name != "version"
            }
        )

    def values(self, column: str, version: int | None = None, segment: Segment = ALL) -> NDArray[Any]:
        """Return a column as an array, under its name in the log.

        Raises
        ------
        NotFound
            There is no such column.
        """
        if column not in self._columns:
            raise NotFound.among("column", column, sorted(self._columns))
        return self._columns[column][self._mask(version, segment)]

    def labelled(self, version: int | None = None, segment: Segment = ALL) -> Labelled:
        """Return the rows whose label is known."""
        mask = self._mask(version, segment)
        if self._actual is None:
            mask = np.zeros(len(mask), np.bool_)
        elif self._actual.dtype.kind == "f":
            mask &= ~np.isnan(self._actual)
        elif self._actual.dtype == object:
            mask &= np.array([value is not None and value == value for value in self._actual], np.bool_)
        actual = np.empty(len(mask), np.int64) if self._actual is None else self._actual
        probability = self._columns.get("probability")
        return Labelled(
            actual[mask],
            self._columns["prediction"][mask],
            None if probability is None else probability[mask],
            self._classes,
        )

    def query(self, sql: str, timeout_s: float) -> Any:
        """Run one SELECT over the rows as `predictions`. Raises as DuckDB does; for simulations, it takes its time."""
        import duckdb

        with duckdb.connect(":memory:") as connection:
            connection.register("predictions", self.table())
            return only_value(connection.sql(sql).to_arrow_table())

    def table(self) -> Any:
        """Return all rows with all columns but probabilities as a pyarrow Table."""
        import pyarrow as pa

        columns = {name: values for name, values in self._columns.items() if values.ndim == 1}
        if self._actual is not None:
            columns["actual"] = self._actual
        made = {name: _arrow(values) for name, values in columns.items()}
        return pa.Table.from_arrays(list(made.values()), names=list(made))

    def _text(self, name: str) -> NDArray[Any]:
        if name not in self._words:
            values = self._columns[INPUT + name].tolist()
            texts = [MISSING if value is None or value != value else str(value) for value in values]
            self._words[name] = np.array(texts, object)
        return self._words[name]

    def _mask(self, version: int | None, segment: Segment) -> NDArray[np.bool_]:
        versions = self._columns["version"]
        mask = np.ones(len(versions), np.bool_) if version is None else versions == version
        if segment.column:
            mask = mask & (self._text(segment.column) == segment.value)
        return np.asarray(mask, np.bool_)


def _arrow(values: NDArray[Any]) -> Any:
    import pyarrow as pa

    kind = values.dtype.kind
    if kind == "f":
        return arrow.numbers(values.astype(np.float64), pa.float64(), np.isnan(values))
    if kind == "i":
        return arrow.numbers(values.astype(np.int64), pa.int64())
    if kind == "b":
        return arrow.booleans(values)
    if kind == "M":
        return arrow.numbers(values.astype("datetime64[us]"), pa.timestamp("us"), np.isnat(values))
    return arrow.strings(values.tolist())
