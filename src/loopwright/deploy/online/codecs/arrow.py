"""Arrow tables from senders one cannot trust, as typed arrays.

A few bytes can stand for a table of any size: by compression, by repetition, by references to the same text. What a
table will take is therefore counted before it is made. Nothing here imports pandas, which `to_numpy` would.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopwright.deploy.online.codecs.values import cast, gap, no_rows, wrong_type
from loopwright.errors import InvalidInput
from loopwright.records import Column, Signature
from loopwright.registry.columns import missing

__all__ = ["MOST_BYTES", "MOST_GROWTH", "MOST_ROWS", "Budget", "arrays_of_table", "claimed_bytes"]

#: Rows of one body.
MOST_ROWS = 1_000_000
#: What one body may become: this many bytes, or this many times its own size where that is less.
MOST_BYTES = 1_000_000_000
MOST_GROWTH = 50
#: Below this, growth does no harm.
FREE_BYTES = 16_000_000

#: What values of Arrow's plain types are made of, by the type's name.
_PLAIN = {
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "halffloat": np.float16,
    "float": np.float32,
    "double": np.float64,
}
_TEXT = ("string", "large_string", "string_view")
_VALID = "Arrow types that fit: whole numbers, decimals, text, booleans and timestamps, also as a dictionary."


class Budget:
    """What a body of `size` bytes may still become, in bytes."""

    def __init__(self, size: int) -> None:
        self.most = min(MOST_BYTES, max(FREE_BYTES, MOST_GROWTH * size))
        self._left = self.most

    def take(self, size: int) -> None:
        """Count bytes that are about to be made.

        Raises
        ------
        InvalidInput
            They are too many.
        """
        self._left -= size
        if size < 0 or self._left < 0:
            raise InvalidInput(
                f"The body would become more than {self.most} bytes.",
                valid=f"A body may grow {MOST_GROWTH} times, and to at most {MOST_BYTES} bytes.",
                hint="Send fewer rows at once.",
            )


def arrays_of_table(
    table: Any, signature: Signature, entity: str | None, budget: Budget
) -> tuple[dict[str, NDArray[Any]], list[str | None] | None]:
    """Return the inputs that a validated table has, and who its rows are about where a column of its own says that.

    Raises
    ------
    InvalidInput
        It has no rows, too many, or would become too large.
    SchemaMismatch
        A column has a type or a value that does not fit.
    """
    rows = table.num_rows
    check_rows(rows)
    budget.take(rows * 8 * len(signature.inputs))
    arrays = {}
    names = set(table.column_names)
    for column in signature.inputs:
        if column.name in names:
            arrays[column.name] = _array(column, table[column.name], budget)
    if entity is None or entity in signature.names or entity not in names:
        return arrays, None
    return arrays, _entities(Column(entity, "string", required=False), table[entity], budget)


def check_rows(rows: int) -> None:
    """Check how many rows there are.

    Raises
    ------
    InvalidInput
        None, or too many.
    """
    if rows == 0:
        raise no_rows()
    if rows > MOST_ROWS:
        raise InvalidInput(
            f"The body has {rows} rows.",
            valid=f"At most {MOST_ROWS} are taken at once.",
            hint="Send several.",
        )


def _array(column: Column, values: Any, budget: Budget) -> NDArray[Any]:
    kind = values.type
    parts = [_part(column, chunk, budget) for chunk in values.chunks]
    arrays = [part for part, _ in parts]
    if len(parts) == 1:
        whole, absent = parts[0]
    else:
        whole = np.concatenate(arrays)
        absents = [np.zeros(len(part), bool) if absent is None else absent for part, absent in parts]
        absent = np.concatenate(absents) if any(absent is not None for _, absent in parts) else None
    if str(kind) == "null":
        if column.required:
            raise gap(column, 0)
        return missing(column, len(whole))
    return cast(column, whole, absent, f"Arrow's {kind}", strict=False)


def _entities(column: Column, values: Any, budget: Budget) -> list[str | None]:
    found: list[str | None] = []
    for chunk in values.chunks:
        part, absent = _part(column, chunk, budget)
        if part.dtype.kind not in "iuO":
            raise wrong_type(column, f"Arrow's {values.type}", "An entity is text or a whole number.")
        plain = part.tolist()
        if absent is not None:
            plain = [None if gone else one for one, gone in zip(plain, absent.tolist(), strict=True)]
        found += [None if one is None else str(one) for one in plain]
    return found


def _part(column: Column, array: Any, budget: Budget) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Return the values of an Arrow array in their own type, and which are missing (None where none is)."""
    import pyarrow as pa

    kind, rows = array.type, len(array)
    absent = _absent(array)
    if pa.types.is_dictionary(kind):
        return _dictionary(column, array, absent, budget)
    if str(kind) in _PLAIN:
        return _numbers(array, _PLAIN[str(kind)]), absent
    if str(kind) in _TEXT:
        budget.take(_text_bytes(array))
        made = np.empty(rows, dtype=object)
        made[:] = array.to_pylist()
        return made, absent
    if pa.types.is_null(kind):
        return np.full(rows, None, dtype=object), np.ones(rows, bool)
    if pa.types.is_boolean(kind):
        return _bits(array.buffers()[1], array), absent
    if pa.types.is_timestamp(kind):
        return _times(_numbers(array, np.int64), kind.unit), absent
    if pa.types.is_date32(kind):
        return _times(_numbers(array, np.int32).astype(np.int64), "D"), absent
    if pa.types.is_date64(kind):
        return _times(_numbers(array, np.int64), "ms"), absent
    if pa.types.is_decimal(kind):
        return _numbers(array.cast(pa.float64()), np.float64), absent
    raise wrong_type(column, f"Arrow's {kind}", _VALID)


def _numbers(array: Any, dtype: Any) -> NDArray[Any]:
    data = array.buffers()[1]
    if data is None:
        return np.zeros(len(array), dtype)
    values: NDArray[Any] = np.frombuffer(data, dtype, count=array.offset + len(array))[array.offset :]
    return values


def _absent(array: Any) -> NDArray[np.bool_] | None:
    if not array.null_count or array.buffers()[0] is None:
        return None
    return ~_bits(array.buffers()[0], array)


def _bits(buffer: Any, array: Any) -> NDArray[np.bool_]:
    if buffer is None:
        return np.zeros(len(array), bool)
    bits = np.unpackbits(np.frombuffer(buffer, np.uint8), bitorder="little", count=array.offset + len(array))
    return bits[array.offset :].astype(bool)


def _times(ticks: NDArray[np.int64], unit: str) -> NDArray[Any]:
    """Return times in microseconds; what is out of all range is the earliest, so that it is refused."""
    per = {"D": 86_400_000_000, "s": 1_000_000, "ms": 1000, "us": 1}
    if unit == "ns":
        return (ticks // 1000).view("datetime64[us]")
    most = np.iinfo(np.int64).max // per[unit]
    low = np.iinfo(np.int64).min + 1
    safe = np.where((ticks >= -most) & (ticks <= most), ticks * per[unit], low)
    return safe.view("datetime64[us]")


def _text_bytes(array: Any) -> int:
    """Return how many bytes of text an array has, without making any."""
    kind, rows = str(array.type), len(array)
    data = array.buffers()[1]
    if data is None or not rows:
        return 0
    if kind == "string_view":
        # Each view is 16 bytes and begins with its length; several may refer to the same text.
        views = np.frombuffer(data, np.int32)[: 4 * (array.offset + rows)].reshape(-1, 4)
        return int(views[array.offset :, 0].sum(dtype=np.int64))
    offsets = np.frombuffer(data, np.int64 if kind == "large_string" else np.int32)
    return int(offsets[array.offset + rows]) - int(offsets[array.offset])


def _dictionary(
    column: Column, array: Any, absent: NDArray[np.bool_] | None, budget: Budget
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Return the values that a dictionary's indices stand for; text is shared, not copied."""
    base, base_absent = _part(column, array.dictionary, budget)
    at = _numbers(array.indices, _PLAIN[str(array.type.index_type)]).astype(np.int64)
    if absent is not None:
        at = np.where(absent, 0, at)
    if len(base) == 0:
        # Valid only where everything is missing.
        return np.full(len(at), None, dtype=object), np.ones(len(at), bool)
    if base.dtype.kind == "O":
        lengths = np.fromiter((0 if one is None else len(one) for one in base), np.int64, len(base))
        budget.take(int(lengths[at].sum()))
    if base_absent is not None:
        absent = base_absent[at] if absent is None else absent | base_absent[at]
    whole = base[at]
    if absent is not None and whole.dtype.kind == "O":
        whole[absent] = None
    return whole, absent


def claimed_bytes(message: Any) -> int:
    """Return how large the compressed buffers of an IPC message say they are; 0 where none is compressed.

    The reader makes a buffer of that size before it looks at what is in it. pyarrow does not tell, so this reads the
    message's flatbuffer: a table is a position, its fields lie where its vtable says.

    Raises
    ------
    struct.error, IndexError
        It is no such message.
    """
    if message.type not in {"record batch", "dictionary"}:
        return 0
    data, body = memoryview(message.metadata), memoryview(message.body)
    header = _child(data, _root(data), 2)
    if header and message.type == "dictionary":
        header = _child(data, header, 1)
    buffers = _child(data, header, 2) if header else 0
    if not header or not buffers or not _child(data, header, 3):
        return 0
    (count,) = struct.unpack_from("<I", data, buffers)
    total = 0
    for number in range(count):
        offset, length = struct.unpack_from("<qq", data, buffers + 4 + 16 * number)
        if length >= 8:
            (size,) = struct.unpack_from("<q", body, offset)
            total += length if size == -1 else max(size, 0)
    return total


def _root(data: memoryview) -> int:
    return int(struct.unpack_from("<I", data, 0)[0])


def _child(data: memoryview, table: int, field: int) -> int:
    """Return where the table or vector of a table's field is; 0 where the field is absent."""
    vtable = table - int(struct.unpack_from("<i", data, table)[0])
    size = struct.unpack_from("<H", data, vtable)[0]
    slot = 4 + 2 * field
    if slot + 2 > size:
        return 0
    (offset,) = struct.unpack_from("<H", data, vtable + slot)
    if not offset:
        return 0
    at = table + int(offset)
    return at + int(struct.unpack_from("<I", data, at)[0])
