"""The parameters of one scheduled run: what ``{start}``, ``{end}``, ``{time}``, ``{date}`` and ``{what}`` stand for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from loopwright.config import PLACEHOLDER, PLACEHOLDERS

__all__ = ["Interval", "asks", "fill"]


@dataclass(frozen=True, slots=True)
class Interval:
    """The span one run is for: from the time before to its own; `what` is the news that started it."""

    start: datetime
    end: datetime
    what: str = ""


def fill(parameters: dict[str, Any], interval: Interval) -> dict[str, Any]:
    """Return parameters with what they ask for in its place; ``{start:%Y-%m-%d}`` formats as `strftime` does.

    Examples
    --------
    >>> day = Interval(datetime(2026, 5, 1), datetime(2026, 5, 2))
    >>> fill({"since": "{start:%d.%m.}", "day": "{date}", "depth": 8}, day)
    {'since': '01.05.', 'day': '2026-05-01', 'depth': 8}
    """
    values: dict[str, Any] = {
        "start": interval.start,
        "end": interval.end,
        "time": interval.end,
        "date": interval.start.date(),
        "what": interval.what,
    }

    def replace(match: re.Match[str]) -> str:
        name, form = match[1], match[2] or ""
        if name not in values:
            return match[0]
        value = values[name]
        return value.strftime(form) if form and not isinstance(value, str) else _text(value)

    return {
        name: PLACEHOLDER.sub(replace, value) if isinstance(value, str) else value
        for name, value in parameters.items()
    }


def _text(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def asks(parameters: dict[str, Any]) -> bool:
    """Whether any of the parameters depends on the run."""
    texts = [value for value in parameters.values() if isinstance(value, str)]
    return any(match[1] in PLACEHOLDERS for text in texts for match in PLACEHOLDER.finditer(text))
