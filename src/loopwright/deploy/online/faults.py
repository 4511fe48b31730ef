"""Why a body cannot be used, in words its sender can act on. Runs only after a body was refused."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from loopwright.errors import InvalidInput, LoopwrightError, NotFound, SchemaMismatch, listing
from loopwright.records import Column, Signature

__all__ = ["FLOAT32", "INT32", "INT64", "explain", "not_json", "place", "shown"]

INT32 = (-(2**31), 2**31 - 1)
INT64 = (-(2**63), 2**63 - 1)
FLOAT32 = 3.4028234663852886e38
#: What a value of each column type is called.
WORDS = {
    "boolean": "true or false",
    "integer": "a whole number of 32 bits",
    "long": "a whole number of 64 bits",
    "float": "a number of 32 bits",
    "double": "a number",
    "string": "text",
    "datetime": "a time such as 2026-01-31T12:00:00Z",
}
_PLACE = re.compile(r" - at `\$(?:\[(\d+)\])?(.*)`$", re.DOTALL)


def explain(
    body: bytes | bytearray, signature: Signature, fields: Sequence[str], error: Exception
) -> LoopwrightError:
    """Return the error for a body that does not fit.

    Parameters
    ----------
    body
        What was sent.
    signature
        What it should be.
    fields
        All fields that a record may have.
    error
        What the decoder said.
    """
    try:
        value = msgspec.json.decode(body)
    except msgspec.ValidationError:
        # Of the two decoders only the typed one says in which field.
        return _out_of_range(error)
    except (ValueError, RecursionError) as problem:
        return not_json(body, problem)
    records = value if isinstance(value, list) else [value]
    # The decoder stops at the first wrong record: of a million, the others need not be looked at.
    first = min(place(error)[0], max(len(records) - 1, 0))
    for row, record in [*enumerate(records[first : first + 1], first), *enumerate(records)]:
        found = _record(record, row, signature, fields)
        if found:
            return found
    return SchemaMismatch(f"The body does not fit the model: {error}.", valid=_inputs(signature))


def not_json(body: bytes | bytearray, problem: Exception) -> InvalidInput:
    """Return the error for a body that is not JSON; the decoder's message says at which byte."""
    valid = "The body is one JSON record, such as {...}, or a list of records. JSON has no NaN or Infinity."
    if not body.strip():
        return InvalidInput("The body is empty.", valid=valid)
    if isinstance(problem, RecursionError):
        return InvalidInput("The body is nested too deeply.", valid=valid)
    if isinstance(problem, UnicodeDecodeError):
        at = bytes(body).find(problem.object[: problem.end]) + problem.start
        return InvalidInput(f"The body is not UTF-8: byte {at} cannot be read.", valid=valid, position=at)
    message = str(problem)
    found = re.search(r"\(byte (\d+)\)", message)
    at = int(found[1]) if found else len(body)
    if "trailing" in message:
        at -= 1  # msgspec counts past the character that is too many
    message = message.removeprefix("JSON is malformed: ").replace(
        "Input data was truncated", "it ends too early"
    )
    message = re.sub(r" \(byte \d+\)", "", message)
    near = bytes(body[max(0, at - 10) : at + 10]).decode("utf-8", "replace")
    return InvalidInput(
        f"The body is not JSON: {message} at byte {at}, near {near!r}.", valid=valid, position=at
    )


def place(error: Exception) -> tuple[int, str]:
    """Return the row and the field that a decoder's message names: row 0 and no field where it names none."""
    found = _PLACE.search(str(error))
    return (int(found[1] or 0), found[2].lstrip(".")) if found else (0, "")


def shown(value: Any) -> str:
    """Return a value as JSON for a message, cut to 60 characters."""
    try:
        text = msgspec.json.encode(value).decode()
    except RecursionError:
        # Just not too deep to be read, and too deep to be written from here.
        return "something deeply nested"
    except OverflowError:
        return "a number beyond 64 bits"
    return text if len(text) <= 60 else text[:57] + "..."


def _out_of_range(problem: Exception) -> SchemaMismatch:
    row, field = place(problem)
    where = f"Row {row}, field {field!r}" if field else f"Row {row}"
    return SchemaMismatch(
        f"{where}: a number is out of range.",
        valid="Numbers are finite and fit 64 bits.",
        row=row,
        **({"field": field} if field else {}),
    )


def _inputs(signature: Signature) -> str:
    return f"Fields: {listing((f'{column.name} ({column.type})' for column in signature.inputs), most=20)}."


def _record(record: Any, row: int, signature: Signature, fields: Sequence[str]) -> LoopwrightError | None:
    if not isinstance(record, dict):
        return SchemaMismatch(
            f"Row {row} is {shown(record)}, which is no record.", valid=_inputs(signature), row=row
        )
    for name in record:
        if name not in fields:
            known = NotFound.among("field", name, fields)
            return SchemaMismatch(
                f"Row {row} has a field {name[:100]!r}, which the model does not know.",
                valid=known.valid,
                row=row,
                field=name[:100],
            )
    for column in signature.inputs:
        if column.name not in record:
            if column.required:
                return SchemaMismatch(
                    f"Row {row} has no field {column.name!r}.",
                    valid=f"It is {WORDS[column.type]}. {_inputs(signature)}",
                    row=row,
                    field=column.name,
                )
        elif reason := _wrong(record[column.name], column):
            return SchemaMismatch(
                f"Row {row}, field {column.name!r}: {reason}.",
                valid=f"It is {WORDS[column.type]}{'' if column.required else ', or null'}.",
                row=row,
                field=column.name,
            )
    return None


def _wrong(value: Any, column: Column) -> str:
    if value is None:
        return "null, but the model was trained without missing values there" if column.required else ""
    return "" if _FITS[column.type](value) else f"{shown(value)} does not fit"


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False  # a whole number that no decimal of 64 bits comes near to


def _is_int(value: Any, span: tuple[int, int]) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and span[0] <= value <= span[1]


def _is_time(value: Any) -> bool:
    try:
        msgspec.convert(value, datetime, strict=True)
    except msgspec.ValidationError:
        return False
    return isinstance(value, str)


#: Whether a value is one of a column's type.
_FITS: dict[str, Callable[[Any], bool]] = {
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_int(value, INT32),
    "long": lambda value: _is_int(value, INT64),
    "float": lambda value: _is_number(value) and abs(value) <= FLOAT32,
    "double": _is_number,
    "string": lambda value: isinstance(value, str),
    "datetime": _is_time,
}
