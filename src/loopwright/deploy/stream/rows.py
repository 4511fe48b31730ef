"""Messages to rows: one JSON object with the model's inputs each, checked against the signature."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from loopwright.errors import SchemaMismatch, listing
from loopwright.records import Column, Signature
from loopwright.registry.columns import DTYPES

__all__ = ["Decoder", "Row"]

_INT32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
_INT64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_TYPES: dict[str, Any] = {
    "boolean": bool,
    "integer": _INT32,
    "long": _INT64,
    "float": float,
    "double": float,
    "string": str,
    "datetime": datetime,
}
#: The values of one row, in the order of the signature; behind them the entity, when it is no input.
Row = tuple[Any, ...]


class Decoder:
    """Decodes messages for one signature. Fields that the model does not know are ignored.

    Parameters
    ----------
    signature
        What a row must look like.
    entity
        The field that says who a row is about; an input of the model, or one in addition to them.
    """

    def __init__(self, signature: Signature, entity: str | None = None) -> None:
        self.signature = signature
        self._columns = signature.inputs
        names = list(signature.names)
        fields = [_field(f"c{number}", column) for number, column in enumerate(signature.inputs)]
        if entity is not None and entity not in names:
            fields.append((f"c{len(names)}", str | int | None, None))
            names.append(entity)
        self._entity_at = names.index(entity) if entity is not None else -1
        aliases = {f"c{number}": name for number, name in enumerate(names)}
        self._decoder = msgspec.json.Decoder(
            msgspec.defstruct("Row", fields, rename=aliases, kw_only=True, gc=False)
        )

    def decode(self, value: bytes) -> Row:
        """Return the row of one message.

        Raises
        ------
        SchemaMismatch
            The message is no JSON object, or a field is missing or of the wrong type.
        """
        try:
            return msgspec.structs.astuple(self._decoder.decode(value))
        except msgspec.ValidationError as error:
            raise SchemaMismatch(
                f"The message does not fit the model: {error}.",
                valid=f"Inputs: {listing(f'{column.name} {column.type}' for column in self._columns)}.",
            ) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SchemaMismatch(
                f"The message is not JSON: {error}.",
                valid="A message is one JSON object with the model's inputs.",
            ) from error

    def entity(self, row: Row) -> str:
        """Return who the row is about; empty when it does not say."""
        value = row[self._entity_at] if self._entity_at >= 0 else None
        return "" if value is None else str(value)

    def columns(self, rows: Sequence[Row]) -> dict[str, NDArray[Any]]:
        """Return n >= 1 rows as columns of shape (n,)."""
        values = zip(*rows, strict=True)
        # Not strict: behind the inputs there may be the entity.
        return {column.name: _array(column, one) for column, one in zip(self._columns, values, strict=False)}


def _field(alias: str, column: Column) -> tuple[str, Any] | tuple[str, Any, Any]:
    kind = _TYPES[column.type]
    return (alias, kind) if column.required else (alias, kind | None, None)


def _array(column: Column, values: tuple[Any, ...]) -> NDArray[Any]:
    if column.type == "string":
        made = np.empty(len(values), dtype=object)
        made[:] = values
        return made
    if column.type == "datetime":
        return np.array([_moment(value) for value in values], dtype="datetime64[us]")
    if column.required:
        return np.array(values, dtype=DTYPES[column.type])
    if column.type == "boolean":
        return np.array(values, dtype=object)
    # A whole number that is missing has no value of its own type.
    kind = np.float32 if column.type == "float" else np.float64
    return np.array([np.nan if value is None else value for value in values], dtype=kind)


def _moment(value: datetime | None) -> np.datetime64:
    if value is None:
        return np.datetime64("NaT", "us")
    plain = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
    return np.datetime64(plain, "us")
