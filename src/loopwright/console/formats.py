"""Numbers, spans and times as people read them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

__all__ = ["Reader", "latency", "number", "rate", "span"]


@dataclass(frozen=True, slots=True)
class Reader:
    """Who looks: the theme of their browser and its time zone; an empty zone is this machine's."""

    dark: bool = False
    zone: str = ""

    def clock(self, moment: datetime) -> str:
        """Write the time of day in the reader's zone."""
        return moment.astimezone(_zone(self.zone)).strftime("%H:%M:%S")

    def date(self, moment: datetime) -> str:
        """Write date and time in the reader's zone."""
        return moment.astimezone(_zone(self.zone)).strftime("%Y-%m-%d %H:%M:%S %Z")


@lru_cache(maxsize=32)
def _zone(name: str) -> tzinfo | None:
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def number(value: float | None) -> str:
    """Write a figure with the digits that matter at its size; a hyphen when it is not known.

    Examples
    --------
    >>> number(0.9531), number(25.04), number(12345.6), number(None)
    ('0.953', '25.0', '12,346', '-')
    """
    if value is None:
        return "-"
    size = abs(value)
    return f"{value:,.0f}" if size >= 1000 else f"{value:.1f}" if size >= 10 else f"{value:.3f}"


def rate(value: float) -> str:
    """Write a rate: one decimal below 100, none above."""
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def latency(value_ms: float | None) -> str:
    """Write milliseconds, without the unit: two decimals below 1, one below 100."""
    if value_ms is None:
        return "-"
    return f"{value_ms:.2f}" if value_ms < 1 else f"{value_ms:.1f}" if value_ms < 100 else f"{value_ms:,.0f}"


def span(seconds: float) -> str:
    """Write a span in its largest fitting unit, such as ``12 s``, ``4 min`` or ``3 h``."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"
