"""Columns of the prediction log's tables as arrays, and the rows that have a label."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopwright.monitor.metrics import Labelled

__all__ = ["column", "labelled_mask", "labelled_rows"]


def column(table: Any, name: str) -> NDArray[Any]:
    """Return a column of a pyarrow Table as an array: numbers with NaN for null, else objects with None.

    Goes around pyarrow's own conversions: those import pandas, 45 MB in a process that lives for months.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    values = table.column(name)
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        kind, dtype = (
            (pa.int64(), np.int64) if pa.types.is_integer(values.type) else (pa.float64(), np.float64)
        )
        chunks = [
            np.frombuffer(chunk.buffers()[1], dtype)[chunk.offset : chunk.offset + len(chunk)]
            for chunk in values.cast(kind).chunks
            if len(chunk)
        ]
        found = np.concatenate(chunks) if chunks else np.empty(0, dtype)
        if not values.null_count:
            return found
        numbers = found.astype(np.float64)
        numbers[np.array(pc.is_null(values).to_pylist(), bool)] = np.nan
        return numbers
    made = np.empty(len(values), object)
    if pa.types.is_nested(values.type):
        # Assigned at once, lists of one length would be taken for a matrix.
        for place, value in enumerate(values.to_pylist()):
            made[place] = value
    else:
        made[:] = values.to_pylist()
    return made


def labelled_rows(table: Any, *, version: int | None = None, classes: tuple[Any, ...] = ()) -> Labelled:
    """Return the rows of a table that have a label, of one version or of all.

    Rows of a model with several outputs are left out: one label does not judge them.
    """
    actual, prediction = column(table, "actual"), column(table, "prediction")
    known = labelled_mask(table)
    if prediction.dtype == object:
        known &= np.array([not isinstance(value, list | dict) for value in prediction.tolist()], bool)
    if version is not None:
        known &= column(table, "version") == version
    probability = None
    if "probability" in table.column_names:
        rows = [row for row, one in zip(table.column("probability").to_pylist(), known, strict=True) if one]
        if rows and all(rows) and len({len(row) for row in rows}) == 1:
            probability = np.array(rows, np.float64)
    return Labelled(_whole(actual[known]), prediction[known], probability, classes)


def labelled_mask(table: Any) -> NDArray[np.bool_]:
    """Return which rows of a table have a label."""
    return np.array(
        [value is not None and value == value for value in column(table, "actual").tolist()], bool
    )


def _whole(values: NDArray[Any]) -> NDArray[Any]:
    """Return class numbers that had to be floats beside missing ones as what they are."""
    if values.dtype == np.float64 and len(values) and (values == np.floor(values)).all():
        return values.astype(np.int64)
    return values
