"""Columns between Arrow tables and the typed NumPy arrays that models are scored with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from loopwright.errors import InvalidInput, NotFound, SchemaMismatch
from loopwright.records import Column

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["DTYPES", "arrays_of", "arrow_types", "column_of", "missing", "table_of"]

#: What an array of each column type is made of. Text is an object array of `str`, with None for missing.
DTYPES: dict[str, Any] = {
    "boolean": np.dtype(bool),
    "integer": np.dtype(np.int32),
    "long": np.dtype(np.int64),
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
    "string": np.dtype(object),
    "datetime": np.dtype("datetime64[us]"),
}


def arrow_types() -> dict[str, pa.DataType]:
    """Return the Arrow type of each column type."""
    import pyarrow as pa

    return {
        "boolean": pa.bool_(),
        "integer": pa.int32(),
        "long": pa.int64(),
        "float": pa.float32(),
        "double": pa.float64(),
        "string": pa.string(),
        "datetime": pa.timestamp("us"),
    }


def column_of(name: str, values: pa.ChunkedArray) -> Column:
    """Return the signature's column for one column of a table.

    Whole numbers without a gap are `long`; with a gap they are `double`, because a missing value has no whole number.

    Raises
    ------
    InvalidInput
        The column holds lists, structs or another type that no model input can have.
    """
    import pyarrow.types as types

    kind = values.type
    if types.is_dictionary(kind):
        kind = kind.value_type
    required = values.null_count == 0
    if types.is_boolean(kind):
        return Column(name, "boolean", required)
    if types.is_integer(kind):
        return Column(name, "long" if required else "double", required)
    if types.is_floating(kind) or types.is_decimal(kind):
        return Column(name, "double", required)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return Column(name, "string", required)
    if types.is_timestamp(kind) or types.is_date(kind):
        return Column(name, "datetime", required)
    if types.is_null(kind):
        raise InvalidInput(
            f"The column {name!r} holds nothing but missing values.",
            hint=f"drop it: table.drop(columns=[{name!r}])",
        )
    raise InvalidInput(
        f"The column {name!r} has the type {kind}, which cannot be a model's input.",
        valid="Valid: whole numbers, decimals, text, booleans and times.",
        field=name,
    )


def arrays_of(table: pa.Table, inputs: Sequence[Column]) -> dict[str, NDArray[Any]]:
    """Return the columns of `inputs`, as the arrays that a `Scorer` takes, each of shape (n,).

    A missing number is NaN, missing text is None, a missing time is NaT. A column that is not required may be absent.

    Raises
    ------
    SchemaMismatch
        A required column is absent or has missing values, or values cannot be turned into the column's type.
    """
    known = set(table.column_names)
    arrays = {}
    for column in inputs:
        if column.name in known:
            arrays[column.name] = _array(column, table[column.name])
        elif column.required:
            error = NotFound.among("column", column.name, table.column_names)
            raise SchemaMismatch(error.fact, valid=error.valid, field=column.name)
        else:
            arrays[column.name] = missing(column, table.num_rows)
    return arrays


def missing(column: Column, rows: int) -> NDArray[Any]:
    """Return a column of `rows` missing values."""
    if column.type == "datetime":
        return np.full(rows, np.datetime64("NaT", "us"))
    if column.type in {"string", "boolean"}:
        return np.full(rows, None, dtype=object)
    return np.full(rows, np.nan, dtype=np.float32 if column.type == "float" else np.float64)


def _array(column: Column, values: pa.ChunkedArray) -> NDArray[Any]:
    import pyarrow as pa

    nulls = values.null_count
    if nulls and (column.required or column.type in {"long", "integer"}):
        raise SchemaMismatch(
            f"The column {column.name!r} has {nulls} missing values.",
            valid="The model was trained without any there.",
            field=column.name,
        )
    wanted = arrow_types()[column.type]
    try:
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        if values.type != wanted:
            # Not without need: a cast loads Arrow's functions, 6 MB in every serving process.
            values = values.cast(wanted, safe=column.type != "datetime")
        return _plain(values.combine_chunks(), DTYPES[column.type])
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SchemaMismatch(
            f"The column {column.name!r} of type {values.type} cannot be read as {column.type}: {error}.",
            field=column.name,
        ) from error


def _plain(array: pa.Array, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an Arrow array as NumPy.

    Reads the buffers: `to_numpy` would import pandas where it is installed, 45 MB in every serving process.
    """
    if dtype.kind == "O":
        return np.array(array.to_pylist(), dtype=object)
    gap = np.datetime64("NaT", "us") if dtype.kind == "M" else np.nan
    valid, data = array.buffers()
    if data is None:
        return np.full(len(array), gap).astype(dtype)
    if dtype.kind == "b":
        flags: NDArray[Any] = _bits(data, array)
        if array.null_count:
            flags = flags.astype(object)
            flags[~_bits(valid, array)] = None
        return flags
    values: NDArray[Any] = np.frombuffer(data, dtype)[array.offset : array.offset + len(array)].copy()
    if array.null_count:
        values[~_bits(valid, array)] = gap
    return values


def _bits(buffer: pa.Buffer, array: pa.Array) -> NDArray[np.bool_]:
    bits = np.unpackbits(np.frombuffer(buffer, np.uint8), bitorder="little", count=array.offset + len(array))
    return bits[array.offset :].astype(bool)


def table_of(arrays: Mapping[str, NDArray[Any]], inputs: Sequence[Column]) -> pa.Table:
    """Return arrays as an Arrow table, the reverse of `arrays_of`."""
    import pyarrow as pa

    types = arrow_types()
    columns = []
    for column in inputs:
        values, wanted = arrays[column.name], types[column.type]
        # `mask` instead of `from_pandas`: the latter would load pandas only to find out what is missing.
        mask = np.isnan(values) if values.dtype.kind == "f" else None
        columns.append(pa.array(values, type=wanted, mask=mask))
    return pa.Table.from_arrays(columns, names=[column.name for column in inputs])
