"""Every error a caller can meet, in one tree.

LoopwrightError
 ├── InvalidInput        what was given cannot be used             HTTP 400, exit 2
 │    ├── InvalidConfig  a key or value of loopwright.toml         HTTP 400, exit 2
 │    └── SchemaMismatch rows that do not fit a model's signature  HTTP 422, exit 2
 ├── NotFound            no such model, deployment, prediction...  HTTP 404, exit 1
 ├── Conflict            the state has moved on, or it is taken    HTTP 409, exit 1
 ├── Denied              no permission to read, write or bind      HTTP 403, exit 1
 ├── Unavailable         a part is not running or not ready yet    HTTP 503, exit 1
 ├── StepFailed          a pipeline's own code raised              HTTP 500, exit 1
 ├── Damaged             stored data does not match its hash       HTTP 500, exit 1
 └── GateNotMet          a candidate did not pass its gate         HTTP 412, exit 3

A message says the fact with its value, then what is valid, then the next step. The same object is shown by the
command line, the HTTP interfaces and the console.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar

__all__ = [
    "Conflict",
    "Damaged",
    "Denied",
    "GateNotMet",
    "InvalidConfig",
    "InvalidInput",
    "LoopwrightError",
    "NotFound",
    "SchemaMismatch",
    "StepFailed",
    "Unavailable",
    "listing",
    "nearest",
]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name closest in spelling to `name`, or None when nothing is close."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def listing(names: Iterable[object], *, most: int = 12) -> str:
    """Join names for a message, the first `most` of them; ``(none)`` when there are none."""
    items = [str(name) for name in names]
    if not items:
        return "(none)"
    more = len(items) - most
    return ", ".join(items[:most]) + (f" and {more} more" if more > 0 else "")


class LoopwrightError(Exception):
    """Base of all errors raised on purpose.

    Parameters
    ----------
    fact
        What is wrong, with the value that is wrong. One or two sentences.
    valid
        What would be right: the known names, the allowed range.
    hint
        The next step, usually a command to run.
    **attrs
        Data for logs and programs, such as ``field="age"`` or ``row=3``; JSON values only.
    """

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, fact: str, *, valid: str = "", hint: str = "", **attrs: Any) -> None:
        super().__init__(fact)
        self.fact = fact
        self.valid = valid
        self.hint = hint
        self.attrs = attrs

    def __str__(self) -> str:
        text = f"{self.fact} {self.valid}" if self.valid else self.fact
        return f"{text}\nTry: {self.hint}" if self.hint else text

    def to_dict(self) -> dict[str, Any]:
        """Return the error as the JSON object every interface answers with."""
        body: dict[str, Any] = {"code": self.code, "message": self.fact}
        if self.valid:
            body["valid"] = self.valid
        if self.hint:
            body["hint"] = self.hint
        return {"error": body | self.attrs}


class InvalidInput(LoopwrightError):
    """What was given cannot be used as it is."""

    code = "invalid_input"
    http_status = 400
    exit_code = 2


class InvalidConfig(InvalidInput):
    """A key or value of `loopwright.toml`, or a setting, is wrong."""

    code = "invalid_config"


class SchemaMismatch(InvalidInput):
    """Rows do not fit the signature of the model they were sent to."""

    code = "schema_mismatch"
    http_status = 422


class NotFound(LoopwrightError):
    """Something was named that does not exist."""

    code = "not_found"
    http_status = 404

    @classmethod
    def among(cls, what: str, name: str, known: Iterable[object], *, hint: str = "") -> NotFound:
        """Build the error for a name that is not one of `known`, naming the nearest.

        Examples
        --------
        >>> print(NotFound.among("model", "taksi", ["taxi", "bike"]))
        There is no model 'taksi'. Did you mean 'taxi'? Known: taxi, bike.
        """
        names = [str(item) for item in known]
        close = nearest(name, names)
        guess = f"Did you mean {close!r}? " if close else ""
        return cls(f"There is no {what} {name!r}.", valid=f"{guess}Known: {listing(names)}.", hint=hint)


class Conflict(LoopwrightError):
    """The state has moved on meanwhile, or what is asked for is taken."""

    code = "conflict"
    http_status = 409


class Denied(LoopwrightError):
    """There is no permission to read, write or bind something."""

    code = "denied"
    http_status = 403


class Unavailable(LoopwrightError):
    """A part is not running, or not ready yet; trying again later can help."""

    code = "unavailable"
    http_status = 503


class StepFailed(LoopwrightError):
    """A pipeline's own code raised; the cause is chained."""

    code = "step_failed"


class Damaged(LoopwrightError):
    """Stored data does not match the hash it was stored with."""

    code = "damaged"


class GateNotMet(LoopwrightError):
    """A candidate model did not pass its gate."""

    code = "gate_not_met"
    http_status = 412
    exit_code = 3
