"""Arrow rows to the columns a scorer takes, with the row and the column of a value that does not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from loopwright.errors import SchemaMismatch
from loopwright.records import Column, Signature
from loopwright.registry.columns import arrow_types, missing

__all__ = ["to_columns"]

_TYPES = arrow_types()


def to_columns(rows: pa.RecordBatch, signature: Signature, first: int, where: str) -> dict[str, NDArray[Any]]:
    """Return the model's inputs as NumPy columns, each of shape (n,).

    Parameters
    ----------
    rows
        The rows, n >= 0; text that reads as a number counts as one.
    signature
        What the model takes.
    first, where
        Number of the first row in its source, and the source's name, for messages.

    Raises
    ------
    SchemaMismatch
        A value has the wrong type, or a required one is missing; the message names row, column and value.
    """
    found = set(rows.schema.names)
    return {
        column.name: _convert(rows.column(column.name), column, first, where)
        if column.name in found
        else missing(column, rows.num_rows)
        for column in signature.inputs
    }


def _convert(values: pa.Array, column: Column, first: int, where: str) -> NDArray[Any]:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if column.required and values.null_count:
        row = values.is_null().index(True).as_py()
        raise _wrong(first + row, column, None, where)
    target = _TYPES[column.type]
    if pa.types.is_string(values.type) and column.type != "string":
        values = pc.utf8_trim_whitespace(values)
    try:
        cast = _cast(values, target)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        row = _first_bad(values, target)
        raise _wrong(first + row, column, values[row].as_py(), where) from None
    return np.asarray(cast.to_numpy(zero_copy_only=False))


def _cast(values: pa.Array, target: pa.DataType) -> pa.Array:
    # Microseconds are what a signature knows: finer times are cut, not refused.
    return pc.cast(values, target, safe=not pa.types.is_timestamp(values.type))


def _first_bad(values: pa.Array, target: pa.DataType) -> int:
    """Return the index of the first value that cannot be cast, by halving."""
    low, high = 0, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            _cast(values.slice(low, middle - low), target)
            low = middle
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            high = middle
    return low


def _wrong(row: int, column: Column, value: object, where: str) -> SchemaMismatch:
    what = (
        "is empty, but the model needs it"
        if value is None
        else f"is {value!r}, which does not fit the type {column.type}"
    )
    return SchemaMismatch(
        f"Row {row} of {where}: column {column.name!r} {what}.",
        valid="Rows are counted from 0. All rows before this chunk are written; a new run goes on from there.",
        row=row,
        field=column.name,
    )
