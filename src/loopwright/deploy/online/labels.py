"""Labels from request bodies: checked as a whole, so that a request is kept entirely or not at all."""

from __future__ import annotations

from typing import Any

import msgspec

from loopwright.deploy.online.faults import not_json, place, shown
from loopwright.errors import InvalidInput, LoopwrightError, NotFound, SchemaMismatch, nearest
from loopwright.predictions import Ids
from loopwright.records import Label

__all__ = ["decode"]

_FORM = (
    '{"prediction_id": "...", "actual": 7}, or a list of these; actual is a finite number, text or boolean.'
)
_FIELDS = ("prediction_id", "actual")


class _Label(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    prediction_id: str
    actual: bool | int | float | str


_decoder = msgspec.json.Decoder(_Label | list[_Label])


def decode(body: bytes | bytearray, ids: Ids) -> list[Label]:
    """Return the labels of a body.

    Raises
    ------
    InvalidInput
        The body is empty, not JSON, or a list of nothing.
    SchemaMismatch
        An entry is no label.
    NotFound
        An id was never issued by this project; the message names it and its row.
    """
    try:
        found = _decoder.decode(body)
    except (ValueError, RecursionError) as error:
        raise _explain(body, error) from None
    entries = found if isinstance(found, list) else [found]
    if not entries:
        raise InvalidInput("The list has no labels.", valid=f"Send {_FORM}")
    for row, one in enumerate(entries):
        try:
            ids.check(one.prediction_id)
        except NotFound as error:
            raise NotFound(
                f"Row {row}: {error.fact}",
                valid=f"{error.valid} Nothing of this request was kept.",
                hint=error.hint,
                row=row,
                **error.attrs,
            ) from None
    return [Label(one.prediction_id, one.actual) for one in entries]


def _explain(body: bytes | bytearray, error: Exception) -> LoopwrightError:
    try:
        value = msgspec.json.decode(body)
    except msgspec.ValidationError:
        row, _ = place(error)
        return SchemaMismatch(f"Row {row}: a number is out of range.", valid=f"Send {_FORM}", row=row)
    except (ValueError, RecursionError) as problem:
        found = not_json(body, problem)
        return InvalidInput(found.fact, valid=f"Send {_FORM}", **found.attrs)
    for row, entry in enumerate(value if isinstance(value, list) else [value]):
        if wrong := _wrong(entry):
            return SchemaMismatch(f"Row {row} is no label: {wrong}.", valid=f"Send {_FORM}", row=row)
    return SchemaMismatch(f"This is no label: {error}.", valid=f"Send {_FORM}")


def _wrong(entry: Any) -> str:
    if not isinstance(entry, dict):
        return f"it is {shown(entry)}"
    for name in entry:
        if name not in _FIELDS:
            close = nearest(name, _FIELDS)
            return f"it has a field {name[:100]!r}" + (f", did you mean {close!r}?" if close else "")
    for name in _FIELDS:
        if name not in entry:
            return f"it has no field {name!r}"
    if not isinstance(entry["prediction_id"], str):
        return f"its prediction_id is {shown(entry['prediction_id'])}"
    if not isinstance(entry["actual"], bool | int | float | str):
        return f"its actual is {shown(entry['actual'])}"
    return ""
