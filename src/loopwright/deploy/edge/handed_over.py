"""One answer of a device as it is handed over, checked against the version that gave it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from loopwright.errors import SchemaMismatch, listing
from loopwright.records import Column, Signature, Task

__all__ = ["Answered", "columns_of", "read_line"]

#: Clocks of devices are not exact; what claims to be later than this is wrong.
AHEAD = timedelta(minutes=5)
_VALID = "A line is one JSON object, as outbox.py of the bundle writes them."


class _Line(msgspec.Struct):
    seq: int
    at: str
    outbox: str
    version: int
    digest: str
    inputs: dict[str, Any]
    prediction: Any
    model: str
    deployment: str = ""
    device: str = ""
    probability: dict[str, float] | None = None
    latency_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer: by which version, when, and what; `probability` in the order of the classes."""

    seq: int
    at: datetime
    outbox: str
    device: str
    deployment: str
    model: str
    version: int
    digest: str
    latency_ms: float
    inputs: dict[str, Any]
    prediction: Any
    probability: dict[str, float] | None

    def check(self, signature: Signature) -> None:
        """Check the answer against its version's signature.

        Raises
        ------
        SchemaMismatch
            An input is missing or of another type, or the answer is none that the version gives.
        """
        for column in signature.inputs:
            if reason := _misfit(column, self.inputs.get(column.name)):
                raise SchemaMismatch(f"The input {column.name!r} {reason}.", field=column.name)
        values = self.prediction if isinstance(self.prediction, list) else [self.prediction]
        if len(values) != max(1, len(signature.outputs)) or isinstance(self.prediction, list) != bool(
            signature.outputs
        ):
            raise SchemaMismatch(
                f"The prediction {self.prediction!r} has not as many values as the version gives."
            )
        if signature.task is Task.regression:
            if not all(_is_number(value) for value in values):
                raise SchemaMismatch(f"The prediction {self.prediction!r} is no number.")
        elif not all(value in signature.classes for value in values):
            raise SchemaMismatch(
                f"The prediction {self.prediction!r} is no class of the version.",
                valid=f"Classes: {listing(map(repr, signature.classes))}.",
            )
        names = [str(label) for label in signature.classes]
        if self.probability is not None and sorted(self.probability) != sorted(names):
            raise SchemaMismatch(
                "The probabilities are not those of the version's classes.", field="probability"
            )


def read_line(text: str, now: datetime) -> Answered:
    """Read one line.

    Parameters
    ----------
    now
        The present moment, UTC-aware.

    Raises
    ------
    SchemaMismatch
        It is no answer, or its time is no moment, has no time zone or lies in the future.
    """
    try:
        # Python's own reader: a device writes NaN and Infinity as JSON has no words for them.
        line = msgspec.convert(json.loads(text), _Line)
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise SchemaMismatch(f"It is no answer of a device: {error}.", valid=_VALID) from error
    return Answered(
        seq=line.seq,
        at=_moment(line.at, now),
        outbox=line.outbox,
        device=line.device,
        deployment=line.deployment,
        model=line.model,
        version=line.version,
        digest=line.digest,
        latency_ms=line.latency_ms if math.isfinite(line.latency_ms) and line.latency_ms >= 0 else 0.0,
        inputs=line.inputs,
        prediction=line.prediction,
        probability=line.probability,
    )


def _moment(text: str, now: datetime) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise SchemaMismatch(
            f"at = {text[:64]!r} is no moment.", valid="Such as 2026-11-01T12:30:00+00:00."
        ) from None
    if at.tzinfo is None:
        raise SchemaMismatch(
            f"at = {text[:64]!r} has no time zone.", valid="Such as 2026-11-01T12:30:00+00:00."
        )
    if at > now + AHEAD:
        raise SchemaMismatch(f"at = {text[:64]!r} lies in the future: the device's clock is wrong.")
    return at.astimezone(UTC)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _misfit(column: Column, value: Any) -> str:
    """Return what is wrong with a value of a column; empty when nothing is."""
    if value is None:
        return "is missing" if column.required else ""
    right = {
        "boolean": isinstance(value, bool),
        "integer": isinstance(value, int) and not isinstance(value, bool) and -(2**31) <= value < 2**31,
        "long": isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63,
        "string": isinstance(value, str),
        "datetime": isinstance(value, str) and _is_moment(value),
    }.get(column.type, _is_number(value))
    return "" if right else f"is {value!r}, which is no {column.type}"


def _is_moment(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def columns_of(answers: Sequence[Answered], signature: Signature) -> dict[str, Any]:
    """Return the inputs of checked answers as arrays of shape (n,), as the prediction log takes them."""
    import pyarrow as pa

    from loopwright.registry.columns import arrays_of, arrow_types

    types = arrow_types()
    table = pa.table(
        {
            column.name: pa.array(
                [_value(column, one.inputs.get(column.name)) for one in answers], types[column.type]
            )
            for column in signature.inputs
        }
    )
    return arrays_of(table, signature.inputs)


def _value(column: Column, value: Any) -> Any:
    if column.type != "datetime" or value is None:
        return value
    at = datetime.fromisoformat(value)
    return at.astimezone(UTC).replace(tzinfo=None) if at.tzinfo else at
