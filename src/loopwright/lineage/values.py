"""Columns as statistics and comparisons take them: few types, and one way to be missing."""

from __future__ import annotations

import json
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["Kind", "kind_of", "plain", "plain_table", "type_name"]

#: Times are seconds since 1970. `other` are lists, structs and bytes: compared as text, and otherwise only counted.
Kind = Literal["number", "time", "text", "boolean", "other"]


def _value_type(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType):
        return _value_type(kind.storage_type)
    return _value_type(kind.value_type) if pa.types.is_dictionary(kind) else kind


def type_name(kind: pa.DataType) -> str:
    """Return a type's name without what is no content: encodings and the width of offsets."""
    return str(_value_type(kind)).removeprefix("large_").removesuffix("_view")


def kind_of(kind: pa.DataType) -> Kind:
    """Return which statistics a column of this type has."""
    kind = _value_type(kind)
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "time"
    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return "text" if any(is_kind(kind) for is_kind in text) else "other"


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column without encodings, its decimals and times as doubles; NaN is missing."""
    kind, what = column.type, kind_of(column.type)
    if isinstance(kind, pa.BaseExtensionType):
        return plain(pa.chunked_array([chunk.storage for chunk in column.chunks], type=kind.storage_type))
    if pa.types.is_dictionary(kind):
        return plain(column.cast(kind.value_type))
    if what == "time":
        micros = column.cast(pa.timestamp("us", tz=getattr(kind, "tz", None)), safe=False)
        return pc.divide(micros.cast(pa.int64()).cast(pa.float64(), safe=False), 1e6)
    if what == "other":
        texts = [
            None if value is None else json.dumps(value, default=str, sort_keys=True)
            for value in column.to_pylist()
        ]
        return pa.chunked_array([pa.array(texts, pa.string())])
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    if pa.types.is_float16(kind):
        column = column.cast(pa.float32())
    if pa.types.is_floating(column.type):
        return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    return column


def plain_table(table: pa.Table) -> pa.Table:
    """Return all columns as `plain` makes them."""
    return pa.table({name: plain(table[name]) for name in table.column_names})
