"""What the charts over windows share: lines with their intervals, limits, and the axis of time."""

from __future__ import annotations

from collections.abc import Sequence

from loopwright.console.chart_parts import NUMBER, Options, axis_text, base, extent, line, ms, tooltip
from loopwright.console.monitoring.views import Found, Moved, WindowLine
from loopwright.console.tokens import Palette

__all__ = ["LINE", "band", "extent_of", "limit_of", "over_windows", "values"]

#: Layers: bands lie below lines, and only lines have a name in the legend.
_BAND, LINE = 1, 3


def values(name: str, found: list[Found], colour: str) -> Options:
    """Return the line of values; what fired is marked."""
    points: list[list[float | None]] = [
        [ms(one.start), None if one.value is None else round(one.value, 6)] for one in found
    ]
    drawn = line(name, points, colour) | {"z": LINE}
    drawn["showSymbol"] = len(points) <= 60
    drawn["symbolSize"] = 4
    return drawn


def band(name: str, found: list[Found], colour: str) -> list[Options]:
    """Return the interval of each value as a band; nothing where there is none."""
    known = [one for one in found if one.lower is not None and one.upper is not None]
    if not known:
        return []
    low: list[list[float | None]] = [[ms(one.start), one.lower] for one in known]
    high: list[list[float | None]] = [
        [ms(one.start), (one.upper or 0.0) - (one.lower or 0.0)] for one in known
    ]
    return _stacked(f"{name} interval", low, high, colour)


def _stacked(
    name: str, low: list[list[float | None]], height: list[list[float | None]], colour: str
) -> list[Options]:
    """Return a band as two lines of no width, the upper one stacked on the lower one."""
    part: Options = {
        "type": "line",
        "name": name,
        "stack": name,
        "stackStrategy": "all",
        "symbol": "none",
        "silent": True,
        "z": _BAND,
        "lineStyle": {"opacity": 0},
        "itemStyle": {"color": colour},
        "tooltip": {"show": False},
        "animation": False,
    }
    return [
        part | {"data": low},
        part | {"data": height, "areaStyle": {"color": colour, "opacity": 0.16}},
    ]


def limit_of(found: Sequence[Found]) -> float | None:
    """Return the newest limit that is known."""
    return next((one.limit for one in reversed(found) if one.limit is not None), None)


def extent_of(found: Sequence[Found], more: Sequence[float | None], top: float) -> Options:
    """Return the range of the axis of values with their intervals, and of more such as limits; `top` or above."""
    known = [
        value for one in found for value in (one.value, one.lower, one.upper, *more) if value is not None
    ]
    return extent(known, max(top, *known)) if known else {}


def over_windows(
    times: Sequence[Found | WindowLine | Moved], series: list[Options], colours: Palette
) -> Options:
    """Return a chart over the time that some windows cover."""
    text = axis_text(colours)
    starts = [one.start for one in times]
    ends: Options = {"min": ms(min(starts)), "max": ms(max(starts))} if len(starts) > 1 else {}
    return base(colours) | {
        "grid": {"left": 50, "right": 14, "top": 22, "bottom": 24},
        "tooltip": tooltip(colours)
        | {
            "trigger": "axis",
            ":valueFormatter": NUMBER,
            "axisPointer": {"lineStyle": {"color": colours.muted, "width": 1}},
        },
        "xAxis": {
            "type": "time",
            "axisLabel": text | {"hideOverlap": True},
            "axisLine": {"lineStyle": {"color": colours.line}},
            "axisTick": {"show": False},
            "splitLine": {"show": False},
        }
        | ends,
        "yAxis": {
            "type": "value",
            "splitNumber": 4,
            "axisLabel": text,
            "splitLine": {"lineStyle": {"color": colours.grid}},
        },
        "series": series,
    }
