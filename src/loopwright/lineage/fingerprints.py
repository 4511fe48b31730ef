"""The fingerprint of a table: one hash of its content, whatever file, chunking or library it came through.

A frame, the snapshot written from it and that snapshot read back have the same fingerprint. It is the identity of a
dataset everywhere: on pipeline steps, on model versions, in `trace`.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from loopwright.errors import InvalidInput

__all__ = ["fingerprint"]


class _Streams:
    """One running hash per buffer of a column, so that the result does not depend on how the column is chunked."""

    def __init__(self) -> None:
        self._hashes: dict[str, Any] = {}

    def feed(self, path: str, data: Any) -> None:
        if path not in self._hashes:
            self._hashes[path] = hashlib.sha256()
        self._hashes[path].update(data)

    def digest(self) -> bytes:
        lines = (f"{path} {self._hashes[path].hexdigest()}\n" for path in sorted(self._hashes))
        return hashlib.sha256("".join(lines).encode()).digest()


def fingerprint(table: pa.Table) -> str:
    """Return the content hash of a table, 64 lowercase hex digits.

    Column names, their order, types, values and the order of rows count. Chunking, dictionary encoding, 32- or 64-bit
    offsets, metadata and the unit of a timestamp that fits microseconds do not. NaN counts as missing, as in pandas.
    Costs about one pass over the data (1 GB/s and core).

    Raises
    ------
    InvalidInput
        A column has a type without content that could be compared, such as a calendar interval or a union.

    Examples
    --------
    >>> table = pa.table({"x": [1.0, None], "y": ["a", "b"]})
    >>> fingerprint(table) == fingerprint(pa.concat_tables([table[:1], table[1:]]))
    True
    >>> fingerprint(table) == fingerprint(table.rename_columns(["x", "z"]))
    False
    """
    total = hashlib.sha256(f"loopwright table 1\n{table.num_rows}\n".encode())
    for name, column in zip(table.column_names, table.columns, strict=True):
        try:
            total.update(_column(name, _plain(column)))
        except pa.ArrowException as error:
            raise InvalidInput(
                f"The column {name!r} of type {column.type} has no fingerprint: {error}.",
                valid="A column holds numbers, text, booleans, dates or lists of these.",
            ) from error
    return total.hexdigest()


def _column(name: str, column: pa.ChunkedArray) -> bytes:
    streams = _Streams()
    if pa.types.is_nested(column.type) and "timestamp" in str(column.type):
        # The unit of nested timestamps is decided once for all rows.
        column = pa.chunked_array([column.combine_chunks()], type=column.type)
    # Decided for the whole column: a chunk without gaps must hash as the same rows in a chunk with some.
    gaps = column.null_count > 0 or _has_nan(column)
    for chunk in column.chunks or [column.combine_chunks()]:  # no rows are one empty chunk, or none
        _feed(streams, "", chunk, gaps=gaps)
    return f"{name!r} {_type_name(column.type)}\n".encode() + streams.digest()


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Undo encodings that carry no content: dictionaries, views, and units of time that a file would change."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):  # Arrow's own, such as UUIDs, are no `pa.ExtensionType`
        return _plain(pa.chunked_array([chunk.storage for chunk in column.chunks], type=kind.storage_type))
    if pa.types.is_dictionary(kind):
        values = [chunk.dictionary.take(chunk.indices) for chunk in column.chunks]
        return _plain(pa.chunked_array(values, type=kind.value_type))
    if pa.types.is_run_end_encoded(kind):
        return _plain(pc.run_end_decode(column))
    if pa.types.is_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.large_string())
    if pa.types.is_binary(kind) or pa.types.is_binary_view(kind):
        return column.cast(pa.large_binary())
    if pa.types.is_timestamp(kind) and kind.unit != "us":
        # Parquet has no seconds: years that fit neither are kept as milliseconds.
        return _cast(
            column, [pa.timestamp(unit, tz=kind.tz) for unit in ("us", "ms")[: 1 + (kind.unit == "s")]]
        )
    if pa.types.is_date64(kind):
        return _cast(column, [pa.date32()])
    if kind == pa.time32("s"):
        return _cast(column, [pa.time32("ms")])
    return column


def _cast(column: pa.ChunkedArray, kinds: list[pa.DataType]) -> pa.ChunkedArray:
    """Return a column as the first of some types that holds it, or else as it is: the unit is then content."""
    for kind in kinds:
        try:
            return column.cast(kind)
        except pa.ArrowInvalid:  # nanoseconds that matter, or years that do not fit
            continue
    return column


def _type_name(kind: pa.DataType, *, nested: bool = False) -> str:
    """Name a type without what files change: the names of list items, 64-bit offsets, encodings.

    The unit of nested timestamps is named where their values are fed.
    """
    if isinstance(kind, pa.BaseExtensionType):
        return _type_name(kind.storage_type, nested=nested)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind) or _is_list(kind):
        inner = _type_name(kind.value_type, nested=nested or _is_list(kind))
        return f"list<{inner}>" if _is_list(kind) else inner
    if pa.types.is_map(kind):
        return f"map<{_type_name(kind.key_type, nested=True)}, {_type_name(kind.item_type, nested=True)}>"
    if pa.types.is_struct(kind):
        names = (f"{field.name!r}: {_type_name(field.type, nested=True)}" for field in kind)
        return f"struct<{', '.join(names)}>"
    if nested and pa.types.is_temporal(kind):
        return _nested_time(kind)
    return str(kind).removeprefix("large_").removesuffix("_view")


def _nested_time(kind: pa.DataType) -> str:
    if pa.types.is_timestamp(kind):
        return f"timestamp[{kind.tz or ''}]"
    if pa.types.is_date(kind):
        return str(pa.date32())
    return str(pa.time32("ms") if pa.types.is_time32(kind) else kind)


def _is_list(kind: pa.DataType) -> bool:
    kinds = (
        pa.types.is_list,
        pa.types.is_large_list,
        pa.types.is_fixed_size_list,
        pa.types.is_list_view,
        pa.types.is_large_list_view,
    )
    return any(is_kind(kind) for is_kind in kinds)


def _has_nan(column: pa.ChunkedArray) -> bool:
    return pa.types.is_floating(column.type) and bool(pc.any(pc.is_nan(column)).as_py())


def _feed(streams: _Streams, path: str, array: pa.Array, *, gaps: bool) -> None:
    kind = array.type
    if pa.types.is_floating(kind) and gaps:
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, kind), array)
    if gaps:
        streams.feed(f"{path}/valid", array.is_valid().to_numpy(zero_copy_only=False).astype(np.uint8))
    if pa.types.is_null(kind):
        return
    if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        _feed_text(streams, path, array)
    elif pa.types.is_nested(kind):
        _feed_nested(streams, path, array)
    elif pa.types.is_boolean(kind):
        values = pc.fill_null(array, False) if array.null_count else array
        streams.feed(path, values.to_numpy(zero_copy_only=False).astype(np.uint8))
    else:
        _feed_numbers(streams, path, array)


def _feed_text(streams: _Streams, path: str, array: pa.Array) -> None:
    filled = (
        pc.fill_null(array, "" if pa.types.is_large_string(array.type) else b"")
        if array.null_count
        else array
    )
    streams.feed(
        f"{path}/length", np.ascontiguousarray(pc.binary_length(filled).to_numpy(zero_copy_only=False))
    )
    _, offsets, data = filled.buffers()
    if len(filled) and data is not None:
        ends = np.frombuffer(offsets, dtype=np.int64)
        first, last = ends[filled.offset], ends[filled.offset + len(filled)]
        streams.feed(f"{path}/data", memoryview(data)[first:last])


def _feed_numbers(streams: _Streams, path: str, array: pa.Array) -> None:
    kind = array.type
    if pa.types.is_decimal(kind):
        # Decimals have no NumPy type: their text says the value and the scale exactly.
        _feed_text(streams, path, array.cast(pa.string()).cast(pa.large_string()))
        return
    if pa.types.is_fixed_size_binary(kind):
        _feed_text(streams, path, array.cast(pa.binary()).cast(pa.large_binary()))
        return
    if pa.types.is_temporal(kind):
        array = array.view(pa.int32() if kind.bit_width == 32 else pa.int64())
    filled = pc.fill_null(array, 0) if array.null_count else array
    values = np.ascontiguousarray(filled.to_numpy(zero_copy_only=False))
    if values.dtype == object:  # addresses of objects, another in each process
        raise pa.ArrowNotImplementedError("its values are no numbers")
    streams.feed(path, values)


def _feed_nested(streams: _Streams, path: str, array: pa.Array) -> None:
    kind = array.type
    if pa.types.is_struct(kind):
        for index, field in enumerate(kind):
            _feed_child(streams, f"{path}.{field.name}", array.flatten()[index])
        return
    if pa.types.is_map(kind):
        entries = pa.struct([("key", kind.key_type), ("value", kind.item_type)])
        array = array.cast(pa.list_(entries))
    lengths = pc.fill_null(pc.list_value_length(array), 0).cast(pa.int64())
    streams.feed(f"{path}/length", np.ascontiguousarray(lengths.to_numpy(zero_copy_only=False)))
    _feed_child(streams, f"{path}[]", array.flatten())


def _feed_child(streams: _Streams, path: str, array: pa.Array) -> None:
    # Inside lists and structs each chunk would have to know the others' gaps: always write them down there.
    column = _plain(pa.chunked_array([array]))
    if pa.types.is_timestamp(column.type):
        path = f"{path} {column.type.unit}"
    for chunk in column.chunks:
        _feed(streams, path, chunk, gaps=True)
