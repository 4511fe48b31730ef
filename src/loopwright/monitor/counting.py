"""Columns of the prediction log, as NumPy or as Arrow, turned into what is counted: numbers and tallies of texts.

Never raises for what a column holds: a value that cannot be read as the plan wants it counts as missing. Goes around
pyarrow's own conversions, which import pandas: 45 MB in a process that lives for months.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loopwright.registry.column_profile import ColumnProfile, hash_of, numbers_of
from loopwright.registry.profile import scores_of

__all__ = ["Numbers", "Places", "batches", "first_of_each", "numbers", "scores", "tally"]

#: Batches of fewer rows are put together first: each costs some microseconds a column, however short it is.
SHORT = 512
#: Texts whose place is remembered.
REMEMBERED = 65_536
_DTYPES: dict[int, Any] = {
    kind.id: np.dtype(name)
    for kind, name in (
        *((pa.type_for_alias(name), name) for name in ("int8", "int16", "int32", "int64")),
        *((pa.type_for_alias(name), name) for name in ("uint8", "uint16", "uint32", "uint64")),
        (pa.float32(), "float32"),
        (pa.float64(), "float64"),
    )
}
_SECONDS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


def batches(columns: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield rows and columns of a pyarrow Table or RecordBatch, or of a mapping, with no column in several chunks."""
    if isinstance(columns, pa.Table):
        found = columns.to_batches()
        if len(found) > 1 and columns.num_rows < SHORT * len(found):
            found = columns.combine_chunks().to_batches()
        for batch in found:
            yield from batches(batch)
    elif isinstance(columns, pa.RecordBatch):
        yield columns.num_rows, dict(zip(columns.schema.names, columns.columns, strict=True))
    elif columns:
        whole = {
            name: values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
            for name, values in columns.items()
        }
        yield len(next(iter(whole.values()))), whole


class Numbers:
    """The numbers of one column, n of them, read in slices: `values` as they lie there, and which are missing."""

    __slots__ = ("divisor", "missing", "values")

    def __init__(
        self, values: NDArray[Any], missing: NDArray[np.bool_] | None = None, divisor: float = 1.0
    ) -> None:
        self.values, self.missing, self.divisor = values, missing, divisor

    def into(self, row: NDArray[np.float64], start: int) -> None:
        """Write the numbers from `start` on into an array of shape (m,), with NaN for what is missing."""
        stop = start + len(row)
        row[:] = self.values[start:stop]
        if self.divisor != 1.0:
            row /= self.divisor
        if self.missing is not None:
            row[self.missing[start:stop]] = np.nan


def numbers(column: Any) -> Numbers:
    """Return a column's numbers; times are seconds since 1970."""
    if isinstance(column, np.ndarray):
        if column.dtype.kind in "fiub":
            return Numbers(column)
        return Numbers(numbers_of(column) if column.dtype.kind == "M" else _parsed(column.tolist()))
    kind = column.type
    dtype = _DTYPES.get(kind.id)
    if dtype is not None:
        return Numbers(_view(column, dtype), _missing(column))
    if pa.types.is_dictionary(kind):
        return numbers(column.dictionary_decode())
    if pa.types.is_timestamp(kind):
        return Numbers(_view(column, np.int64), _missing(column), _SECONDS[kind.unit])
    if pa.types.is_boolean(kind):
        return Numbers(_bits(column.buffers()[1], column), _missing(column))
    return Numbers(_parsed(column.to_pylist()))


def _parsed(items: Iterable[Any]) -> NDArray[np.float64]:
    def number(item: Any) -> float:
        try:
            return float(item)
        except (TypeError, ValueError, OverflowError):
            return float("nan")

    return np.array([number(item) for item in items], np.float64)


def _view(array: Any, dtype: Any) -> NDArray[Any]:
    buffer = array.buffers()[1]
    if buffer is None:
        return np.zeros(len(array), dtype)
    return np.frombuffer(buffer, dtype)[array.offset : array.offset + len(array)]


def _bits(buffer: Any, array: Any) -> NDArray[np.bool_]:
    if buffer is None:
        return np.zeros(len(array), np.bool_)
    packed = np.frombuffer(buffer, np.uint8)
    bits = np.unpackbits(packed, bitorder="little", count=array.offset + len(array))
    return bits[array.offset :].view(np.bool_)


def _missing(array: Any) -> NDArray[np.bool_] | None:
    if not array.null_count:
        return None
    valid = array.buffers()[0]
    return np.ones(len(array), np.bool_) if valid is None else ~_bits(valid, array)


class Places(dict[Any, int]):
    """Where each value is counted: its category's place, or behind them *other*, *unseen* and *missing*."""

    def __init__(self, profile: ColumnProfile) -> None:
        super().__init__({text: place for place, text in enumerate(profile.categories)})
        self.other = len(profile.categories)
        self.unseen, self.missing, self.width = self.other + 1, self.other + 2, self.other + 3
        self[None] = self.missing
        self._known = frozenset(np.frombuffer(profile.known, "<u8").tolist())
        self._tells = profile.tells_unseen

    def __missing__(self, value: Any) -> int:
        if not isinstance(value, str):
            return self._place(value)
        if not self._tells:
            return self.other
        if not self._known:
            return self.unseen
        place = self.other if hash_of(value) in self._known else self.unseen
        if len(self) < REMEMBERED:
            self[value] = place
        return place

    def _place(self, value: Any) -> int:
        """Return where a value is counted that is no text. It is not remembered: True, 1 and 1.0 are the same key."""
        if value != value:
            return self.missing
        if isinstance(value, float) and value.is_integer() and str(value) not in self:
            return self[str(int(value))]  # a class 1 among decimals
        return self[str(value)]

    def counts(self, column: Any) -> NDArray[np.int64]:
        """Count a column's values, shape (width,)."""
        if _short(column):
            values = column.tolist() if isinstance(column, np.ndarray) else column.to_pylist()
            try:
                places = np.fromiter(map(self.__getitem__, values), np.intp, len(values))
            except TypeError:  # lists, of a column that changed its type
                places = np.fromiter((self[repr(value)] for value in values), np.intp, len(values))
            return np.bincount(places, minlength=self.width)
        values, counts = tally(column)
        places = np.fromiter(map(self.__getitem__, values), np.intp, len(values))
        # Counts are whole numbers far below 2**53, which float64 adds up exactly.
        return np.bincount(places, counts, self.width).astype(np.int64)


def _short(column: Any) -> bool:
    """Whether values are looked up one by one sooner than they are tallied."""
    if isinstance(column, np.ndarray):
        return bool(column.dtype != np.bool_)
    return len(column) < SHORT and not pa.types.is_dictionary(column.type)


def tally(column: Any) -> tuple[list[Any], NDArray[np.int64]]:
    """Return the distinct values of a column, None among them where some are missing, and how often each occurs."""
    if isinstance(column, np.ndarray):
        if column.dtype == np.bool_:
            true = int(np.count_nonzero(column))
            return [False, True], np.array([len(column) - true, true])
        return _tallied(column.tolist())
    if pa.types.is_dictionary(column.type) or (len(column) >= SHORT and _encodable(column.type)):
        encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        places, nulls = encoded.indices, encoded.indices.null_count
        found = _view(places, _DTYPES[places.type.id])
        if nulls:
            found = found[_bits(places.buffers()[0], places)]
        counts = np.bincount(found, minlength=len(encoded.dictionary))
        return [*encoded.dictionary.to_pylist(), None], np.append(counts, nulls)
    return _tallied(column.to_pylist())


def _encodable(kind: Any) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind.id in _DTYPES or kind == pa.bool_()
    )


def _tallied(items: list[Any]) -> tuple[list[Any], NDArray[np.int64]]:
    try:
        found = Counter(items)
    except TypeError:  # lists, of a column that changed its type
        found = Counter(map(repr, items))
    return list(found), np.fromiter(found.values(), np.int64, len(found))


def first_of_each(column: Any) -> Any:
    """Return the first of several outputs of each row; a column with one value a row as it is."""
    if isinstance(column, np.ndarray):
        if column.ndim == 2:
            return column[:, 0]
        if len(column) and isinstance(column[0], list | tuple):
            return np.array([row[0] if row else None for row in column.tolist()], object)
        return column
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return np.array([row[0] if row else None for row in column.to_pylist()], object)
    return column


def scores(column: Any, rows: int) -> NDArray[np.float64]:
    """Return the score of each row from its probabilities, shape (rows,), NaN where it has none.

    The second's of two classes, else the largest.
    """
    found = np.full(rows, np.nan)
    if isinstance(column, np.ndarray):
        if column.ndim == 2:
            return scores_of(column) if column.shape[1] else found
        for place, row in enumerate(column.tolist()):
            if row:
                found[place] = scores_of(np.asarray(row, np.float64)[None])[0]
        return found
    if not pa.types.is_list(column.type):
        return found
    offsets = _view_offsets(column)
    lengths = np.diff(offsets)
    missing = _missing(column)
    flat = numbers(column.values)
    values = np.empty(len(column.values))
    flat.into(values, 0)
    present = lengths > 0 if missing is None else (lengths > 0) & ~missing
    for width in np.unique(lengths[present]).tolist():
        own = np.flatnonzero(present & (lengths == width))
        found[own] = scores_of(values[offsets[own][:, None] + np.arange(width)])
    return found


def _view_offsets(column: Any) -> NDArray[np.int32]:
    buffer = column.buffers()[1]
    if buffer is None:
        return np.zeros(len(column) + 1, np.int32)
    return np.frombuffer(buffer, np.int32)[column.offset : column.offset + len(column) + 1]
