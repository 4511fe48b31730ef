"""Columns of the prediction log's tables as arrays, and the rows that have a label."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from loopwright.monitor.metrics import Labelled
from loopwright.predictions.columns import booleans

__all__ = ["array_of", "column", "labelled_mask", "labelled_rows", "matrix_of", "nulls_of"]

_MICROS = np.dtype("datetime64[us]")


def nulls_of(values: Any) -> NDArray[np.bool_]:
    """Return which values of an Arrow array are null, shape (n,)."""
    return _bits(pc.is_null(values))


def _bits(values: Any) -> NDArray[np.bool_]:
    """Return a boolean Arrow array without nulls as a NumPy array."""
    chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    found = [
        np.unpackbits(np.frombuffer(chunk.buffers()[1], np.uint8), bitorder="little")[
            chunk.offset : chunk.offset + len(chunk)
        ]
        for chunk in chunks
        if len(chunk)
    ]
    return np.concatenate(found).view(np.bool_) if found else np.empty(0, np.bool_)


def _fixed(values: Any, kind: Any, dtype: Any) -> NDArray[Any]:
    """Return numbers of a fixed width; what stands at a null is unspecified."""
    cast = values.cast(kind)
    chunks = cast.chunks if isinstance(cast, pa.ChunkedArray) else [cast]
    found = [
        np.frombuffer(chunk.buffers()[1], dtype)[chunk.offset : chunk.offset + len(chunk)]
        for chunk in chunks
        if len(chunk)
    ]
    if not found:
        return np.empty(0, dtype)
    return found[0] if len(found) == 1 else np.concatenate(found)


def column(table: Any, name: str) -> NDArray[Any]:
    """Return a column of a pyarrow Table as `array_of` does."""
    return array_of(table.column(name))


def array_of(values: Any) -> NDArray[Any]:
    """Return an Arrow array as NumPy: numbers with NaN for null, times in microseconds, else objects with None.

    Goes around pyarrow's own conversions: those import pandas, 45 MB in a process that lives for months. Text is looked
    up once for each distinct value, so that a million rows of a few categories make a few Python objects.
    """
    kind = values.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _numbers(values)
    if pa.types.is_timestamp(kind):
        found = _fixed(values.cast(pa.timestamp("us")), pa.int64(), np.int64).view(_MICROS)
        if values.null_count:
            found = np.where(nulls_of(values), np.datetime64("NaT", "us"), found)
        return found
    if pa.types.is_boolean(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _looked_up(values)
    made = np.empty(len(values), object)
    # Assigned at once, lists of one length would be taken for a matrix.
    for place, value in enumerate(values.to_pylist()):
        made[place] = value
    return made


def _numbers(values: Any) -> NDArray[Any]:
    if pa.types.is_integer(values.type):
        found = _fixed(values, pa.int64(), np.int64)
    else:
        found = _fixed(values, pa.float64(), np.float64)
    if not values.null_count:
        return found
    return np.where(nulls_of(values), np.nan, found)


def _looked_up(values: Any) -> NDArray[Any]:
    whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    coded = whole.dictionary_encode()
    names = np.empty(len(coded.dictionary) + 1, object)
    names[: len(coded.dictionary)] = coded.dictionary.to_pylist()
    codes = _fixed(coded.indices, pa.int32(), np.int32)
    if coded.null_count:
        codes = np.where(nulls_of(coded.indices), len(coded.dictionary), codes)
    return np.asarray(names[codes])


def matrix_of(values: Any) -> NDArray[np.float64] | None:
    """Return lists of one length as a matrix, shape (n, k); None where one is missing, empty or of another length."""
    lengths = pc.list_value_length(values)
    if not len(values) or values.null_count:
        return None
    found = pc.min_max(lengths).as_py()
    if not found["min"] or found["min"] != found["max"]:
        return None
    flat = _numbers(pc.list_flatten(values))
    return np.asarray(flat, np.float64).reshape(len(values), found["min"])


def labelled_rows(table: Any, *, version: int | None = None, classes: tuple[Any, ...] = ()) -> Labelled:
    """Return the rows of a table that have a label, of one version or of all.

    Rows of a model with several outputs are left out: one label does not judge them.
    """
    if pa.types.is_nested(table.column("prediction").type):
        table = table.slice(0, 0)
    known = labelled_mask(table)
    if version is not None:
        known &= column(table, "version") == version
    table = table.filter(booleans(known))
    probability = matrix_of(table.column("probability")) if "probability" in table.column_names else None
    return Labelled(column(table, "actual"), column(table, "prediction"), probability, classes)


def labelled_mask(table: Any) -> NDArray[np.bool_]:
    """Return which rows of a table have a label."""
    actual = table.column("actual")
    mask = ~nulls_of(actual)
    if pa.types.is_floating(actual.type):
        mask &= ~np.isnan(column(table, "actual"))
    return mask
