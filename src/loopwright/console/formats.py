"""Numbers, spans and times as people read them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

__all__ = ["Reader", "duration", "latency", "number", "percent", "rate", "size", "span"]


@dataclass(frozen=True, slots=True)
class Reader:
    """Who looks: the theme of their browser and its time zone; an empty zone is this machine's."""

    dark: bool = False
    zone: str = ""

    def clock(self, moment: datetime) -> str:
        """Write the time of day in the reader's zone."""
        return moment.astimezone(_zone(self.zone)).strftime("%H:%M:%S")

    def stamp(self, moment: datetime) -> str:
        """Write day and minute in the reader's zone; the year as well where it is another one."""
        here = moment.astimezone(_zone(self.zone))
        this_year = here.year == datetime.now(here.tzinfo).year
        return here.strftime("%m-%d %H:%M" if this_year else "%Y-%m-%d %H:%M")

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


def duration(value_ms: float | None) -> str:
    """Write a time with its unit: microseconds below 1 ms, seconds from 1000 ms on, three digits at most.

    Examples
    --------
    >>> duration(0.0034), duration(0.42), duration(12.34), duration(2500), duration(None)
    ('3.4 µs', '420 µs', '12.3 ms', '2.5 s', '-')
    """
    if value_ms is None:
        return "-"
    for factor, unit in ((1000.0, "µs"), (1.0, "ms")):
        if value_ms * factor < 999.5:
            return (
                f"{value_ms * factor:.3g} {unit}"
                if value_ms * factor < 99.95
                else f"{value_ms * factor:.0f} {unit}"
            )
    return f"{value_ms / 1000:,.3g} s"


def percent(share: float) -> str:
    """Write a share (0 to 1) as a percentage; what is there is never written as none, nor what is missing as all.

    Examples
    --------
    >>> percent(0.5), percent(0.00001), percent(0.99999), percent(0), percent(1)
    ('50.0 %', '< 0.1 %', '> 99.9 %', '0 %', '100 %')
    """
    if share in {0, 1}:
        return f"{100 * share:.0f} %"
    return "< 0.1 %" if 0 < share < 0.0005 else "> 99.9 %" if 0.9995 <= share < 1 else f"{100 * share:.1f} %"


def size(count: float) -> str:
    """Write a number of bytes in its largest fitting unit, such as ``3.4 kB``."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} B"


def span(seconds: float) -> str:
    """Write a span in its largest fitting unit, such as ``12 s``, ``4 min`` or ``3 h``."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"
