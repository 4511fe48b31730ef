"""Arrow arrays from NumPy arrays and lists, and back.

`pyarrow.array` and `Array.to_numpy` are not used in this package: each imports pandas when it is installed (45 MB in
every serving process), and for one row they cost more than scoring it does. Building from buffers does neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = [
    "StringBuffers",
    "booleans",
    "constant",
    "numbers",
    "rows_of",
    "string_buffers",
    "strings",
    "values_of",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _validity(missing: NDArray[np.bool_] | None) -> tuple[Any, int]:
    """Return the validity bitmap (None when nothing is missing) and the number of nulls."""
    nulls = int(np.count_nonzero(missing)) if missing is not None else 0
    if missing is None or not nulls:
        return None, 0
    return pa.py_buffer(np.packbits(~missing, bitorder="little")), nulls


def numbers(values: NDArray[Any], kind: Any, missing: NDArray[np.bool_] | None = None) -> Any:
    """Return a fixed-width Arrow array of type `kind`, whose width must be that of `values`; shape (n,)."""
    valid, nulls = _validity(missing)
    return pa.Array.from_buffers(
        kind, len(values), [valid, pa.py_buffer(np.ascontiguousarray(values))], nulls
    )


def booleans(values: NDArray[Any], missing: NDArray[np.bool_] | None = None) -> Any:
    """Return a boolean Arrow array; shape (n,)."""
    valid, nulls = _validity(missing)
    bits = np.packbits(np.asarray(values, dtype=np.bool_), bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(values), [valid, pa.py_buffer(bits)], nulls)


#: Validity (empty where nothing is missing), offsets, data.
StringBuffers = tuple[bytes, NDArray[np.int32], bytes]


def string_buffers(values: Sequence[Any]) -> tuple[StringBuffers, int]:
    """Return the buffers of a string array, and how many are missing; as for `strings`."""
    valid, nulls = b"", 0
    try:
        joined = "".join(values)
    except TypeError:
        missing = np.fromiter((value is None or value != value for value in values), np.bool_, len(values))
        nulls = int(np.count_nonzero(missing))
        if nulls:
            valid = np.packbits(~missing, bitorder="little").tobytes()
        values = ["" if gone else str(value) for value, gone in zip(values, missing, strict=True)]
        joined = "".join(values)
    if joined.isascii():
        data = joined.encode("ascii")
    else:
        # A lone surrogate, which JSON can carry, has no UTF-8 form; one must not make a whole log unreadable.
        values = [value.encode("utf-8", "replace") for value in values]
        data = b"".join(values)
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum(_lengths(values), out=offsets[1:])
    return (valid, offsets, data), nulls


def _lengths(values: Sequence[Any]) -> NDArray[Any]:
    """Return the length of each text; a fifth quicker where none is longer than a byte can say."""
    try:
        return np.frombuffer(bytes(map(len, values)), np.uint8)
    except ValueError:
        return np.fromiter(map(len, values), np.int32, len(values))


def strings(values: Sequence[Any]) -> Any:
    """Return a string Arrow array; None and NaN are null, other values are written as text."""
    (valid, offsets, data), nulls = string_buffers(values)
    buffers = [pa.py_buffer(valid) if nulls else None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.string(), len(values), buffers, nulls)


def constant(value: str, n: int) -> Any:
    """Return `n` times the same text."""
    data = value.encode("utf-8")
    offsets = (
        np.arange(0, len(data) * n + 1, len(data), dtype=np.int32) if data else np.zeros(n + 1, np.int32)
    )
    return pa.Array.from_buffers(pa.string(), n, [None, pa.py_buffer(offsets), pa.py_buffer(data * n)], 0)


def values_of(array: Any, dtype: Any) -> NDArray[Any]:
    """Return the numbers of a fixed-width Arrow array as a view; what stands at a null is unspecified."""
    buffer = array.buffers()[1]
    if buffer is None:
        return np.zeros(len(array), dtype)
    return np.frombuffer(buffer, dtype)[array.offset : array.offset + len(array)]


def rows_of(table: Any) -> list[dict[str, Any]]:
    """Return an Arrow table as dictionaries, with UTC-aware times; `to_pylist` would import pandas for those."""
    names = table.column_names
    lists_ = [_plain(column) for column in table.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*lists_, strict=True)]


def _plain(column: Any) -> list[Any]:
    if not pa.types.is_timestamp(column.type) or column.type.tz is None or column.type.unit != "us":
        return list(column.to_pylist())
    moments = column.cast(pa.int64()).to_pylist()
    return [None if moment is None else _EPOCH + timedelta(microseconds=moment) for moment in moments]
