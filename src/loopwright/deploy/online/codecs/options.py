"""What a request may ask for besides its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loopwright.deploy.online.codecs.values import shown
from loopwright.errors import InvalidInput

__all__ = ["NAMES", "Options", "options_of"]

#: The parameters that have a meaning here.
NAMES = ("entity", "variant", "timeout_ms")
#: Longest entity or variant, in characters; what is longer cannot be meant.
LONGEST = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What every codec leaves in `Asked.notes`, alone or as part of its own notes.

    `entity` is who all rows are about that do not say so themselves. `variant` is the variant that shall answer,
    whatever the weights. `timeout_ms` is how long the caller waits, above 0. None where the body says nothing; a
    header may say it then.
    """

    entity: str | None = None
    variant: str | None = None
    timeout_ms: float | None = None


def options_of(parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the `Options` that are among a request's parameters, as keywords; others are left to the caller.

    Raises
    ------
    InvalidInput
        One has a value that it cannot have; the message names it.
    """
    if not parameters:
        return {}
    found: dict[str, Any] = {}
    for name in ("entity", "variant"):
        value = parameters.get(name)
        if value is None:
            continue
        text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
        if not 0 < len(text) <= LONGEST:
            raise InvalidInput(
                f"The parameter {name!r} is {shown(value)}.",
                valid=f"It is text of 1 to {LONGEST} characters.",
                field=name,
            )
        found[name] = text
    wait = parameters.get("timeout_ms")
    if wait is not None:
        if isinstance(wait, bool) or not isinstance(wait, int | float) or not 0 < wait < float("inf"):
            raise InvalidInput(
                f"The parameter 'timeout_ms' is {shown(wait)}.",
                valid="It is a number of milliseconds above 0.",
                field="timeout_ms",
            )
        found["timeout_ms"] = float(wait)
    return found
