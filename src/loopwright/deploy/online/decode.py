"""From the bytes of a request to typed columns, checked against a model's signature."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from loopwright.errors import InvalidInput, SchemaMismatch, listing, nearest
from loopwright.records import Column, Signature

__all__ = ["Decoder"]

_TYPES: dict[str, Any] = {
    "boolean": bool,
    "integer": int,
    "long": int,
    "float": float,
    "double": float,
    "string": str,
    "datetime": datetime,
}
_DTYPES: dict[str, Any] = {"boolean": np.bool_, "integer": np.int32, "long": np.int64, "float": np.float32}
#: A path in msgspec's messages, such as ``$[3].age`` or ``$.age``.
_PLACE = re.compile(r" - at `\$(?:\[(\d+|\.\.\.)\])?(?:\.([^`]*))?`$")
_NAMED = re.compile(r"field `([^`]*)`")
#: Bounds of the integers a column can hold.
_BOUNDS = {"integer": 2**31, "long": 2**63}


class Decoder:
    """Decodes JSON records for one signature.

    Parameters
    ----------
    signature
        What the rows must be. Names that are no identifiers are handled.
    """

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self._columns = signature.inputs
        fields: list[Any] = []
        rename = {}
        for number, column in enumerate(signature.inputs):
            kind = _TYPES[column.type]
            attribute = f"c{number}"
            rename[attribute] = column.name
            fields.append((attribute, kind) if column.required else (attribute, kind | None, None))
        # Fields with a default must stand behind those without one.
        order = sorted(range(len(fields)), key=lambda index: len(fields[index]))
        self._positions = [order.index(index) for index in range(len(fields))]
        record = msgspec.defstruct(
            "Record", [fields[index] for index in order], rename=rename, forbid_unknown_fields=True, gc=False
        )
        self._decoder = msgspec.json.Decoder(record | list[record])  # type: ignore[valid-type]
        self._tuple: Callable[[Any], tuple[Any, ...]] = msgspec.structs.astuple
        self._matrix = all(column.type == "double" for column in signature.inputs)

    def rows(self, body: bytes) -> tuple[list[tuple[Any, ...]], bool]:
        """Decode a body of one record or a list of records.

        Returns
        -------
        tuple of list and bool
            The rows, each a tuple for `columns`, and whether the body was a single record.

        Raises
        ------
        InvalidInput
            The body is no JSON, or an empty list.
        SchemaMismatch
            A record does not fit; with the field and the row.
        """
        try:
            found = self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise self._mismatch(error) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidInput(
                f"The body is not JSON: {error}.",
                valid='Send one record such as {"field": 1.0}, or a list of records. NaN and Infinity are not JSON.',
            ) from None
        except RecursionError:
            raise InvalidInput(
                "The body is nested too deeply.", valid="Send one record or a list of records."
            ) from None
        if isinstance(found, list):
            if not found:
                raise InvalidInput("The list has no records.", valid="Send at least one record.")
            return [self._tuple(record) for record in found], False
        return [self._tuple(found)], True

    def columns(self, rows: Sequence[tuple[Any, ...]]) -> dict[str, NDArray[Any]]:
        """Return decoded rows as one array per column.

        Raises
        ------
        SchemaMismatch
            A whole number does not fit its column.
        """
        if self._matrix:
            matrix = np.array(rows, dtype=np.float64)
            return {
                column.name: matrix[:, at] for column, at in zip(self._columns, self._positions, strict=True)
            }
        turned = list(zip(*rows, strict=True))
        return {
            column.name: _array(column, turned[at])
            for column, at in zip(self._columns, self._positions, strict=True)
        }

    def value(self, row: tuple[Any, ...], name: str) -> Any:
        """Return one field of a decoded row."""
        return row[self._positions[self.signature.names.index(name)]]

    def _mismatch(self, error: msgspec.ValidationError) -> SchemaMismatch:
        """Say which field of which row is wrong, and what is right."""
        text = str(error)
        place = _PLACE.search(text)
        row = int(place[1]) if place and place[1] and place[1].isdigit() else None
        where = f" in row {row}" if row is not None else ""
        names = self.signature.names
        attrs: dict[str, Any] = {} if row is None else {"row": row}
        named = _NAMED.search(text)
        if named and "unknown" in text:
            close = nearest(named[1], names)
            guess = f"Did you mean {close!r}? " if close else ""
            return SchemaMismatch(
                f"Unknown field {named[1]!r}{where}.",
                valid=f"{guess}Fields: {listing(names)}.",
                field=named[1],
                **attrs,
            )
        if named and "missing" in text:
            kind = self._type(named[1])
            return SchemaMismatch(
                f"The field {named[1]!r} is missing{where}.",
                valid=f"It is a {kind}.",
                field=named[1],
                **attrs,
            )
        field = place[2] if place else None
        if field is None:
            return SchemaMismatch(
                f"{text.partition(' - at')[0]}{where}.", valid="Send one record or a list.", **attrs
            )
        said = text.partition(" - at")[0].replace("`", "").replace("Expected", "expected")
        return SchemaMismatch(
            f"The field {field!r}{where} has the wrong type: {said}.",
            valid=f"It is a {self._type(field)}.",
            field=field,
            **attrs,
        )

    def _type(self, name: str) -> str:
        for column in self._columns:
            if column.name == name:
                return column.type if column.required else f"{column.type} or null"
        return "field of the model"


def _array(column: Column, values: Sequence[Any]) -> NDArray[Any]:
    if column.type == "string":
        made = np.empty(len(values), object)
        made[:] = values
        return made
    if column.type == "double":
        return np.array(values, np.float64)
    if column.type == "datetime":
        return np.array([_naive(value) for value in values], "datetime64[us]")
    bound = _BOUNDS.get(column.type)
    for row, value in enumerate(values):
        if value is None:
            # Only a column of the widest float type can hold a gap; the signature makes such columns `double`.
            raise SchemaMismatch(
                f"The field {column.name!r} is null in row {row}.", field=column.name, row=row
            )
        if bound is not None and not -bound <= value < bound:
            raise SchemaMismatch(
                f"The field {column.name!r} in row {row} is {value}.",
                valid=f"It is a {column.type}: from {-bound} to {bound - 1}.",
                field=column.name,
                row=row,
            )
    return np.array(values, _DTYPES[column.type])


def _naive(value: datetime | None) -> datetime | None:
    """Return a moment in UTC without its zone, which is how NumPy holds it."""
    if value is None or value.tzinfo is None:
        return value
    offset = value.utcoffset()
    assert offset is not None
    return value.replace(tzinfo=None) - offset
