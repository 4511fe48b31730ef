"""Labels as they come over HTTP: one or many, all of them or none; by prediction id, or by entity and moment."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec

from loopwright.config import parse_duration
from loopwright.deploy.online.faults import not_json, place, shown
from loopwright.errors import InvalidInput, LoopwrightError, NotFound, SchemaMismatch, nearest
from loopwright.predictions import Ids, LabelLog
from loopwright.records import Label, now

__all__ = ["decode"]

_FORM = (
    '{"prediction_id": "...", "actual": 7}, or {"deployment": "...", "entity": "...", "at": "2026-01-31T12:00:00Z", '
    '"actual": 7}, or a list of these; actual is a finite number, text or boolean.'
)
_NOTHING_KEPT = "Nothing of this request was kept."
#: The types of the fields, each with what it is called.
_FIELDS: dict[str, tuple[Any, str]] = {
    "prediction_id": (str, "text"),
    "actual": (bool | int | float | str, "a number, text or boolean"),
    "deployment": (str, "text"),
    "entity": (str, "text"),
    "at": (str, "text such as 2026-01-31T12:00:00Z"),
    "within": (str | int | float, "seconds, or text such as '2h'"),
}
_WITHIN_S = 86400.0


class _Label(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    actual: bool | int | float | str
    prediction_id: str = ""
    deployment: str = ""
    entity: str = ""
    at: str = ""
    within: str | int | float = _WITHIN_S


_decoder = msgspec.json.Decoder(_Label | list[_Label])


def decode(body: bytes | bytearray, ids: Ids, log: LabelLog | None = None) -> list[Label]:
    """Return the labels of a body.

    Parameters
    ----------
    body
        JSON.
    ids
        Knows which prediction ids the project gave out.
    log
        Where they will be appended, to know now whether each can be.

    Raises
    ------
    InvalidInput
        The body is empty, not JSON, or a list of nothing; a label can not be used, and the message names its row.
    SchemaMismatch
        An entry is no label.
    NotFound
        An id was never issued by this project, or there is no such deployment; the message names it and its row.
    """
    try:
        found = _decoder.decode(body)
    except (ValueError, RecursionError) as error:
        raise _explain(body, error) from None
    entries = found if isinstance(found, list) else [found]
    if not entries:
        raise InvalidInput("The list has no labels.", valid=f"Send {_FORM}")
    labels = []
    arrived = now()
    for row, one in enumerate(entries):
        try:
            if one.prediction_id:
                ids.check(one.prediction_id)
            label = _label(one, arrived)
            if log is not None:
                log.check(label)
        except (NotFound, InvalidInput) as error:
            attrs = error.attrs | {"row": row}
            valid = f"{error.valid} {_NOTHING_KEPT}"
            raise type(error)(f"Row {row}: {error.fact}", valid=valid, hint=error.hint, **attrs) from None
        labels.append(label)
    return labels


def _label(one: _Label, arrived: datetime) -> Label:
    """Return an entry as a label; what it lacks is told as a person would."""
    if not one.prediction_id and not (one.deployment and one.entity and one.at):
        given = [name for name in ("deployment", "entity", "at") if getattr(one, name)]
        lacks = [name for name in ("deployment", "entity", "at") if name not in given]
        fact = f"it has no {' and no '.join(lacks)}" if given else "it has no field 'prediction_id'"
        raise SchemaMismatch(f"This is no label: {fact}.", valid=f"Send {_FORM}")
    if one.prediction_id and (one.deployment or one.entity):
        raise SchemaMismatch(
            "This label names its prediction twice, by prediction_id and by entity.", valid=f"Send {_FORM}"
        )
    return Label(
        one.prediction_id,
        one.actual,
        _moment(one.at) if one.at else arrived,
        one.deployment,
        one.entity,
        _seconds(one.within),
    )


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise SchemaMismatch(
            f"at is {text[:100]!r}, which is no time.",
            valid="A time is such as 2026-01-31T12:00:00Z or 2026-01-31T13:00:00+01:00.",
            field="at",
        ) from None
    if found.tzinfo is None:
        raise SchemaMismatch(
            f"at is {text[:100]!r}, without a time zone.",
            valid=f"Say which it is, such as {found.isoformat()}Z for UTC.",
            field="at",
        )
    return found


def _seconds(within: str | float) -> float:
    if not isinstance(within, str):
        return float(within)
    try:
        return parse_duration(within) / timedelta(seconds=1)
    except ValueError as error:
        raise SchemaMismatch(f"within: {error}.", valid="Or a number of seconds.", field="within") from None


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
    if "actual" not in entry:
        return "it has no field 'actual'"
    for name, value in entry.items():
        kind, words = _FIELDS[name]
        if not isinstance(value, kind) or (name == "within" and isinstance(value, bool)):
            return f"its {name} is {shown(value)}" + (f", not {words}" if name in {"at", "within"} else "")
    return ""
