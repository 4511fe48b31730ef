"""Names for rows, so that a row is scored once however often a job runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from loopwright.errors import SchemaMismatch

__all__ = ["IdSet", "column_keys", "content_keys"]


def column_keys(rows: pa.RecordBatch, names: Sequence[str], first: int, where: str) -> list[str]:
    """Return each row's key from its key columns.

    Raises
    ------
    SchemaMismatch
        A row has no key.
    """
    columns = []
    for name in names:
        column = rows.column(name)
        if column.null_count:
            row = first + column.is_null().index(True).as_py()
            raise SchemaMismatch(
                f"Row {row} of {where}: the key column {name!r} is empty.",
                valid="Every row needs a key.",
                row=row,
                field=name,
            )
        columns.append([str(value) for value in column.to_pylist()])
    if len(columns) == 1:
        return columns[0]
    return [json.dumps(values, ensure_ascii=False) for values in zip(*columns, strict=True)]


def content_keys(rows: pa.RecordBatch, names: Sequence[str], places: Sequence[str]) -> list[str]:
    """Return a key for each row of a source that names no key: a hash of its inputs, and its place.

    The place tells two equal rows apart; the content makes a row whose values were corrected a new one.
    """
    columns = [pc.cast(rows.column(name), pa.string()) for name in names]
    texts = pc.binary_join_element_wise(*columns, "\x1f", null_handling="replace", null_replacement="\x00")
    return [
        f"{place}:{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}"
        for place, text in zip(places, texts.to_pylist(), strict=True)
    ]


class IdSet:
    """A set of prediction ids at 12 bytes each, so that ten million need 120 MB and not a gigabyte.

    The first 24 digits are kept; the other 8 of an id are computed from them. Sorted arrays are merged when the last
    is as long as the one before, so that adding is cheap however many there are.
    """

    def __init__(self) -> None:
        self._sorted: list[NDArray[np.bytes_]] = []

    def __len__(self) -> int:
        return sum(len(part) for part in self._sorted)

    def add(self, ids: Sequence[str]) -> None:
        """Add ids."""
        if not ids:
            return
        self._sorted.append(np.unique(_pack(ids)))
        while len(self._sorted) > 1 and len(self._sorted[-1]) >= len(self._sorted[-2]):
            last, before = self._sorted.pop(), self._sorted.pop()
            self._sorted.append(np.union1d(before, last))

    def contains(self, ids: Sequence[str]) -> NDArray[np.bool_]:
        """Return for each id whether it is in the set, shape (n,)."""
        wanted = _pack(ids)
        found = np.zeros(len(wanted), dtype=np.bool_)
        for part in self._sorted:
            at = np.minimum(np.searchsorted(part, wanted), len(part) - 1)
            found |= part[at] == wanted
        return found


def _pack(ids: Sequence[str]) -> NDArray[np.bytes_]:
    # NumPy ignores NUL bytes at the end of a fixed-size value, on both sides of a comparison: equality stays exact.
    return np.frombuffer(bytes.fromhex("".join(one[:24] for one in ids)), dtype="S12")
