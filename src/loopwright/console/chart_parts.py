"""What the charts share: colours and sizes of axes, lines, legends, tooltips and marks, as options of ECharts.

Times go to the browser as milliseconds since 1970 UTC; it shows them in its own time zone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from loopwright.console.tokens import FONT, SIZES, Palette
from loopwright.console.views import Marker

__all__ = [
    "CLOCK",
    "NUMBER",
    "Options",
    "axis_text",
    "base",
    "extent",
    "legend",
    "line",
    "marks",
    "ms",
    "tooltip",
]

Options = dict[str, Any]
#: JavaScript that writes a number of a tooltip.
NUMBER = "v => v == null ? '-' : Number(v).toLocaleString(undefined, {maximumSignificantDigits: 4})"
#: JavaScript that writes a time of an axis.
CLOCK = (
    "v => new Date(Number(v)).toLocaleTimeString([], {hour: '2-digit', minute: '2-digit', hourCycle: 'h23'})"
)


def ms(moment: datetime) -> int:
    """Return a moment as the browser has it."""
    return round(moment.timestamp() * 1000)


def line(name: str, points: list[list[float | None]], colour: str) -> Options:
    """Return a line through points of a time and a value."""
    return {
        "type": "line",
        "name": name,
        "data": points,
        # A line through fewer points than two is none.
        "showSymbol": sum(value is not None for _, value in points) < 3,
        "symbolSize": 5,
        "lineStyle": {"width": 2, "color": colour},
        "itemStyle": {"color": colour},
        "emphasis": {"disabled": True},
        "animation": False,
    }


def marks(markers: Sequence[Marker], limit: float | None, colours: Palette) -> Options:
    """Return a series without points that carries the limit and the vertical markers."""
    tones = {"good": colours.good, "warn": colours.warn, "bad": colours.bad}
    data: list[Options] = []
    if limit is not None:
        label: Options = {
            "formatter": f"limit {limit:.4g}",
            "position": "insideStartBottom",
            "color": colours.bad,
        }
        data.append({"yAxis": limit, "lineStyle": {"color": colours.bad, "type": [4, 4]}, "label": label})
    for marker in markers:
        colour = tones.get(marker.tone, colours.muted)
        label = {"formatter": marker.text, "position": "end", "color": colour, "distance": 3}
        data.append({"xAxis": ms(marker.at), "lineStyle": {"color": colour, "type": "solid"}, "label": label})
    mark = {"symbol": "none", "silent": True, "animation": False, "data": data}
    text = {"fontSize": SIZES["xs"], "fontFamily": FONT}
    return {
        "type": "line",
        "name": "marks",
        "data": [],
        "markLine": mark | {"label": text},
        "animation": False,
    }


def extent(values: Sequence[float], top: float = math.inf) -> Options:
    """Return the range of an axis in round steps, with all values in it and some air, not above `top`."""
    if not values:
        return {}
    low, high = min(values), max(values)
    air = max((high - low) * 0.12, abs(high) * 0.005, 1e-9)
    step = _step(high - low + 2 * air)
    return {
        "min": round(math.floor((low - air) / step) * step, 9),
        "max": min(top, round(math.ceil((high + air) / step) * step, 9)),
        "interval": round(step, 9),
    }


def _step(span: float) -> float:
    """Return the smallest round step that divides a span into at most five."""
    size = 10.0 ** math.floor(math.log10(span / 5))
    return next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor * 5 >= span)


def base(colours: Palette) -> Options:
    """Return what every chart has."""
    return {
        "animation": False,
        "textStyle": {"fontFamily": FONT, "fontSize": SIZES["xs"], "color": colours.muted},
        "aria": {"enabled": True},
    }


def tooltip(colours: Palette) -> Options:
    """Return how tooltips look."""
    return {
        "backgroundColor": colours.surface,
        "borderColor": colours.line,
        "borderWidth": 1,
        "padding": [6, 10],
        "confine": True,
        "transitionDuration": 0,
        "textStyle": {"color": colours.text, "fontSize": SIZES["sm"], "fontFamily": FONT},
    }


def legend(colours: Palette) -> Options:
    """Return how legends look."""
    return {
        "right": 8,
        "top": 0,
        "icon": "roundRect",
        "itemWidth": 14,
        "itemHeight": 3,
        "itemGap": 14,
        "textStyle": {"color": colours.muted, "fontSize": SIZES["xs"]},
    }


def axis_text(colours: Palette) -> Options:
    """Return how the names along an axis look."""
    return {"color": colours.muted, "fontSize": SIZES["xs"]}
