"""Request bodies to rows, and rows to the columns a scorer takes.

The fast path is one typed decode, which checks everything there is to check. Only when that fails, `faults` looks for
the reason in a way that can name the row, the field and the value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import chain
from operator import itemgetter
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from loopwright.deploy.online import faults
from loopwright.deploy.online.codecs.base import Row
from loopwright.deploy.online.codecs.values import packed
from loopwright.errors import InvalidInput
from loopwright.records import Column, Signature
from loopwright.registry.blocks import Blocks, in_block
from loopwright.registry.columns import DTYPES

__all__ = ["Decoder"]

_Pick = Callable[[Row], Any]

_TYPES: dict[str, Any] = {
    "boolean": bool,
    "integer": Annotated[int, msgspec.Meta(ge=faults.INT32[0], le=faults.INT32[1])],
    "long": Annotated[int, msgspec.Meta(ge=faults.INT64[0], le=faults.INT64[1])],
    "float": Annotated[float, msgspec.Meta(ge=-faults.FLOAT32, le=faults.FLOAT32)],
    "double": float,
    "string": str,
    "datetime": datetime,
}


class Decoder:
    """Decodes bodies for one signature.

    Parameters
    ----------
    signature
        What a row must look like. Fields it does not know are refused.
    entity
        The field that names a row's entity; it may be one of the inputs or come in addition to them.
    """

    def __init__(self, signature: Signature, entity: str | None = None) -> None:
        self.signature = signature
        self.entity = entity
        names = list(signature.names)
        extra = entity is not None and entity not in names
        fields = [_field(number, column) for number, column in enumerate(signature.inputs)]
        if extra:
            fields.append((f"f{len(names)}", str | int | None, None))
        self._fields = [*names, *([entity] if entity is not None and extra else [])]
        self._entity_at = self._fields.index(entity) if entity is not None else -1
        # Names of columns are free text; the attributes have names of their own.
        rename = {f"f{number}": name for number, name in enumerate(self._fields)}
        kind = msgspec.defstruct(
            "Record", fields, rename=rename, kw_only=True, forbid_unknown_fields=True, gc=False
        )
        self._one = msgspec.json.Decoder(kind)
        self._many = msgspec.json.Decoder(list[kind])  # type: ignore[valid-type]
        self._blocks, self._others = _blocks(signature.inputs)
        self._whole = {column.name for column in signature.inputs if column.type in {"integer", "long"}}

    def decode(self, body: bytes | bytearray) -> tuple[list[Row], bool]:
        """Return the rows of a body, and whether it was a single record and no list.

        Raises
        ------
        InvalidInput
            The body is empty, not JSON, or a list of nothing.
        SchemaMismatch
            A row does not fit the signature; the message names row, field and value.
        """
        single = body.lstrip()[:1] != b"["
        try:
            rows = self._typed(body, single)
        except (ValueError, RecursionError) as error:
            whole = self._whole and _whole(body, self._whole)
            if not whole:
                raise faults.explain(body, self.signature, self._fields, error) from None
            try:
                rows = self._typed(whole, single)
            except (ValueError, RecursionError) as other:
                raise faults.explain(whole, self.signature, self._fields, other) from None
        if not rows:
            raise InvalidInput("The list has no records.", valid="Send at least one record.")
        return rows, single

    def _typed(self, body: bytes | bytearray, single: bool) -> list[Row]:
        if single:
            return [msgspec.structs.astuple(self._one.decode(body))]
        return list(map(msgspec.structs.astuple, self._many.decode(body)))

    def entities(self, rows: Sequence[Row]) -> list[str | None] | None:
        """Return who each row is about, None where a row does not say; None when no row can say."""
        if self._entity_at < 0:
            return None
        values = [row[self._entity_at] for row in rows]
        return [None if value is None else str(value) for value in values]

    def columns(self, rows: Sequence[Row]) -> Blocks:
        """Return n >= 1 rows as columns, as `Scorer.score` takes them; the same blocks as `blocks_of` makes."""
        n = len(rows)
        made = tuple((names, _matrix(dtype, pick, rows, len(names))) for dtype, names, pick in self._blocks)
        others = {column.name: packed(column, [row[at] for row in rows]) for column, at in self._others}
        return Blocks(n, made, others)


def _matrix(dtype: Any, pick: _Pick, rows: Sequence[Row], width: int) -> NDArray[Any]:
    """Return some fields of the rows as a matrix, in one conversion for all of them."""
    try:
        flat = chain.from_iterable(map(pick, rows))
        return np.fromiter(flat, dtype, len(rows) * width).reshape(len(rows), width)
    except TypeError:
        # A missing number: NumPy reads None as NaN only from lists.
        return np.array([pick(row) for row in rows], dtype)


def _whole(body: bytes | bytearray, names: set[str]) -> bytes:
    """Return a body whose whole numbers are written as such: 3.0 is one to JSON. Empty when there is none to mend."""
    try:
        value = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return b""
    found = False
    for record in value if isinstance(value, list) else [value]:
        if not isinstance(record, dict):
            return b""
        for name in names & record.keys():
            one = record[name]
            if isinstance(one, float) and one.is_integer():
                record[name] = int(one)
                found = True
    try:
        return msgspec.json.encode(value) if found else b""
    except (ValueError, OverflowError, RecursionError):
        return b""  # a number that no field takes: the reason is found in the body as it came


def _field(number: int, column: Column) -> tuple[str, Any] | tuple[str, Any, Any]:
    kind = _TYPES[column.type]
    return (f"f{number}", kind) if column.required else (f"f{number}", kind | None, None)


def _blocks(
    inputs: Sequence[Column],
) -> tuple[list[tuple[Any, tuple[str, ...], _Pick]], list[tuple[Column, int]]]:
    """Return the inputs that can be converted together, by type, and the others with their places."""
    found: dict[Any, list[int]] = {}
    others = []
    for at, column in enumerate(inputs):
        if in_block(column):
            found.setdefault(DTYPES[column.type], []).append(at)
        else:
            others.append((column, at))
    blocks = []
    for dtype, places in found.items():
        whole = len(places) == len(inputs)
        pick: _Pick = _leading(len(places)) if whole else _several(places)
        blocks.append((dtype, tuple(inputs[at].name for at in places), pick))
    return blocks, others


def _leading(n: int) -> _Pick:
    return lambda row: row[:n]


def _several(places: list[int]) -> _Pick:
    only = places[0]
    return itemgetter(*places) if len(places) > 1 else lambda row: (row[only],)
