"""The charts as options of ECharts, computed from a story and a palette. Nothing here knows about pages.

Times go to the browser as milliseconds since 1970 UTC; it shows them in its own time zone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from loopwright.console.tokens import FONT, SIZES, Palette
from loopwright.console.views import Drift, Marker, Series, Serving, Story, Tick

__all__ = ["batches", "drift", "latency", "metric", "stages", "traffic"]

Options = dict[str, Any]
#: JavaScript that writes a number of a tooltip, by unit.
_NUMBER = "v => v == null ? '-' : Number(v).toLocaleString(undefined, {maximumSignificantDigits: 4})"
_CLOCK = (
    "v => new Date(Number(v)).toLocaleTimeString([], {hour: '2-digit', minute: '2-digit', hourCycle: 'h23'})"
)


def traffic(story: Story, colours: Palette) -> Options:
    """Return the chart of predictions per second."""
    line = _line("predictions per second", _points(story.traffic, "per_s"), colours.accent)
    line |= {"areaStyle": {"color": colours.accent, "opacity": 0.12}}
    options = _time_chart(story, colours, [line], "/s")
    options["yAxis"]["min"] = 0
    return options


def latency(story: Story, colours: Palette) -> Options:
    """Return the chart of the median and the 99th percentile of latency, in milliseconds."""
    # No colours of `series`: those are the versions' own.
    p50 = _line("p50", _points(story.traffic, "latency_p50_ms"), colours.accent)
    p99 = _line("p99", _points(story.traffic, "latency_p99_ms"), colours.muted)
    p99["lineStyle"] |= {"type": [6, 3]}
    options = _time_chart(story, colours, [p50, p99], "ms")
    options["yAxis"]["min"] = 0
    options["legend"] = _legend(colours)
    return options


def metric(story: Story, colours: Palette) -> Options:
    """Return the chart of the metric, one line per version, with its limit and the moments that matter."""
    lines = [_version_line(series, colours) for series in story.metric]
    now = story.card.numbers.metric
    options = _time_chart(story, colours, [*lines, _marks(story.markers, now.limit, colours)], "")
    options["yAxis"] |= _extent(story.metric, now.limit, 1.0 if now.name in {"accuracy", "f1"} else math.inf)
    options["legend"] = _legend(colours) | {"data": [line["name"] for line in lines]}
    options["grid"]["top"] = 34
    return options


def drift(found: Drift, colours: Palette) -> Options:
    """Return the heat map of features by windows; a cell's value is the effect divided by its limit."""
    cells = [
        {
            "value": [cell.window, cell.feature, round(cell.value / cell.limit, 3) if cell.limit else 0.0],
            "input": found.features[cell.feature],
            "effect": round(cell.value, 3),
            "limit": round(cell.limit, 3),
            "rows": cell.rows,
            "label": {"show": cell.fired},
        }
        for cell in found.cells
    ]
    text: Options = {"color": colours.muted, "fontSize": SIZES["xs"]}
    return _base(colours) | {
        "grid": {"left": 104, "right": 8, "top": 4, "bottom": 22},
        "xAxis": {
            "type": "category",
            "data": [_ms(moment) for moment in found.windows],
            "axisLabel": text | {":formatter": _CLOCK, "hideOverlap": True},
            "axisLine": {"show": False},
            "axisTick": {"show": False},
        },
        "yAxis": {
            "type": "category",
            "inverse": True,
            "data": list(found.features),
            "axisLabel": text | {"width": 92, "overflow": "truncate"},
            "axisLine": {"show": False},
            "axisTick": {"show": False},
        },
        "visualMap": {
            "show": False,
            "dimension": 2,
            "pieces": [
                {"lt": 0.5, "color": colours.heat[0]},
                {"gte": 0.5, "lt": 1, "color": colours.heat[1]},
                {"gte": 1, "lt": 2, "color": colours.heat[2]},
                {"gte": 2, "color": colours.heat[3]},
            ],
        },
        "tooltip": _tooltip(colours) | {"trigger": "item", ":formatter": _DRIFT_TOOLTIP},
        "series": [
            {
                "type": "heatmap",
                "data": cells,
                "label": {"formatter": "•", "color": colours.text, "fontSize": 12},
                "itemStyle": {"borderColor": colours.surface, "borderWidth": 1, "borderRadius": 2},
                "emphasis": {"itemStyle": {"borderColor": colours.text}},
                "animation": False,
            }
        ],
    }


_DRIFT_TOOLTIP = """p => {
    const text = document.createElement('span');
    text.textContent = `${p.data.input}: PSI ${p.data.effect}, limit ${p.data.limit}, ${p.data.rows} rows`;
    return text.outerHTML;
}"""


#: JavaScript that writes a time in milliseconds with its unit.
_DURATION = (
    "v => v >= 1000 ? `${v / 1000} s` : v >= 1 ? `${v} ms` : `${Number((v * 1000).toPrecision(3))} µs`"
)
#: JavaScript that draws one stage: a dot at p50, a line to p95 with a tick, a fainter one to a ring at p99.
_RANGE = """(params, api) => {
    const colour = api.visual('color');
    const y = api.coord([api.value(1), api.value(0)])[1];
    const [p50, p95, p99] = [1, 2, 3].map(place => api.coord([api.value(place), api.value(0)])[0]);
    const bar = (from, to, opacity) => ({
        type: 'rect',
        shape: {x: from, y: y - 3, width: Math.max(0, to - from), height: 6},
        style: {fill: colour, opacity},
    });
    return {type: 'group', children: [
        bar(p95, p99, 0.25),
        bar(p50, p95, 0.55),
        {type: 'rect', shape: {x: p95 - 1, y: y - 7, width: 2, height: 14}, style: {fill: colour}},
        {type: 'circle', shape: {cx: p50, cy: y, r: 5}, style: {fill: colour}},
        {type: 'circle', shape: {cx: p99, cy: y, r: 4}, style: {fill: 'GROUND', stroke: colour, lineWidth: 2}},
    ]};
}"""
_STAGE_TOOLTIP = """p => {
    const write = DURATION;
    const text = document.createElement('span');
    const times = [1, 2, 3].map(place => write(Number(p.value[place].toPrecision(3))));
    text.textContent = `${p.name}: p50 ${times[0]}, p95 ${times[1]}, p99 ${times[2]}`;
    return text.outerHTML;
}""".replace("DURATION", _DURATION)


def stages(serving: Serving, colours: Palette) -> Options:
    """Return the chart of p50, p95 and p99 of each stage, from left to right on a logarithmic axis."""
    known = [one for one in serving.stages if one.p50_ms and one.p95_ms and one.p99_ms]
    text: Options = {"color": colours.muted, "fontSize": SIZES["xs"]}
    times = [value for one in known for value in (one.p50_ms, one.p99_ms) if value]
    ends: Options = {}
    if times:
        # Whole powers of ten: their lines and names are where people expect them.
        ends = {
            "min": 10.0 ** math.floor(math.log10(min(times) * 0.9)),
            "max": 10.0 ** math.ceil(math.log10(max(times) * 1.1)),
        }
    return _base(colours) | {
        "grid": {"left": 58, "right": 24, "top": 6, "bottom": 22},
        "xAxis": {
            "type": "log",
            "axisLabel": text | {":formatter": _DURATION, "hideOverlap": True},
            "splitLine": {"lineStyle": {"color": colours.grid}},
        }
        | ends,
        "yAxis": {
            "type": "category",
            "inverse": True,
            "data": [one.name for one in known],
            "axisLabel": text | {"color": colours.text},
            "axisLine": {"show": False},
            "axisTick": {"show": False},
        },
        "tooltip": _tooltip(colours) | {"trigger": "item", ":formatter": _STAGE_TOOLTIP},
        "series": [
            {
                "type": "custom",
                ":renderItem": _RANGE.replace("GROUND", colours.surface),
                "data": [
                    {"name": one.name, "value": [place, *map(_digits, (one.p50_ms, one.p95_ms, one.p99_ms))]}
                    for place, one in enumerate(known)
                ],
                "encode": {"x": [1, 2, 3], "y": 0},
                "itemStyle": {"color": colours.accent},
                "animation": False,
            }
        ],
    }


def batches(serving: Serving, colours: Palette) -> Options:
    """Return the chart of the sizes of micro-batches: the share of batches by number of rows."""
    text: Options = {"color": colours.muted, "fontSize": SIZES["xs"]}
    names = [
        str(one.rows) if one.rows <= 2 else f"{one.rows // 2 + 1}-{one.rows}"  # 3-4, 5-8...
        for one in serving.batches
    ]
    top = _top([100 * one.share for one in serving.batches])
    return _base(colours) | {
        "grid": {"left": 40, "right": 8, "top": 12, "bottom": 22},
        "xAxis": {
            "type": "category",
            "data": names,
            "axisLabel": text | {"hideOverlap": True},
            "axisLine": {"lineStyle": {"color": colours.line}},
            "axisTick": {"show": False},
        },
        "yAxis": {
            "type": "value",
            "min": 0,
            "max": top,
            "interval": top / 2,
            "axisLabel": text | {"formatter": "{value} %"},
            "splitLine": {"lineStyle": {"color": colours.grid}},
        },
        "tooltip": _tooltip(colours)
        | {
            "trigger": "axis",
            "axisPointer": {"type": "shadow"},
            ":valueFormatter": f"v => ({_NUMBER})(v) + ' % of batches'",
        },
        "series": [
            {
                "type": "bar",
                "name": "rows",
                "data": [round(100 * one.share, 2) for one in serving.batches],
                "itemStyle": {"color": colours.accent, "borderRadius": [2, 2, 0, 0]},
                "barCategoryGap": "20%",
                "animation": False,
            }
        ],
    }


def _top(shares: Sequence[float]) -> float:
    """Return where an axis of percentages ends: at a round figure, and never above 100."""
    highest = max(shares, default=100.0)
    return next(top for top in (10.0, 20.0, 40.0, 60.0, 80.0, 100.0) if highest <= top + 1e-6)


def _digits(value: float | None) -> float:
    return float(f"{value or 0.0:.4g}")


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _points(ticks: Sequence[Tick], field: str) -> list[list[float | None]]:
    points: list[list[float | None]] = []
    for tick in ticks:
        value = getattr(tick, field)
        points.append([_ms(tick.start), None if value is None else round(value, 3)])
    return points


def _line(name: str, points: list[list[float | None]], colour: str) -> Options:
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


def _version_line(series: Series, colours: Palette) -> Options:
    points: list[list[float | None]] = [[_ms(point.start), round(point.value, 4)] for point in series.points]
    return _line(f"version {series.version}", points, colours.version(series.version))


def _marks(markers: Sequence[Marker], limit: float | None, colours: Palette) -> Options:
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
        data.append(
            {"xAxis": _ms(marker.at), "lineStyle": {"color": colour, "type": "solid"}, "label": label}
        )
    mark = {"symbol": "none", "silent": True, "animation": False, "data": data}
    text = {"fontSize": SIZES["xs"], "fontFamily": FONT}
    return {
        "type": "line",
        "name": "marks",
        "data": [],
        "markLine": mark | {"label": text},
        "animation": False,
    }


def _extent(series: Sequence[Series], limit: float | None, top: float) -> Options:
    """Return the range of the axis in round steps, with the limit in it and some air, not above `top`."""
    values = [point.value for one in series for point in one.points]
    values += [limit] if limit is not None else []
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


def _base(colours: Palette) -> Options:
    return {
        "animation": False,
        "textStyle": {"fontFamily": FONT, "fontSize": SIZES["xs"], "color": colours.muted},
        "aria": {"enabled": True},
    }


def _tooltip(colours: Palette) -> Options:
    return {
        "backgroundColor": colours.surface,
        "borderColor": colours.line,
        "borderWidth": 1,
        "padding": [6, 10],
        "confine": True,
        "transitionDuration": 0,
        "textStyle": {"color": colours.text, "fontSize": SIZES["sm"], "fontFamily": FONT},
    }


def _legend(colours: Palette) -> Options:
    return {
        "right": 8,
        "top": 0,
        "icon": "roundRect",
        "itemWidth": 14,
        "itemHeight": 3,
        "itemGap": 14,
        "textStyle": {"color": colours.muted, "fontSize": SIZES["xs"]},
    }


def _time_chart(story: Story, colours: Palette, series: list[Options], unit: str) -> Options:
    """Return a chart over the time of the story."""
    text = {"color": colours.muted, "fontSize": SIZES["xs"]}
    suffix = f" + '{' ' if unit == 'ms' else ''}{unit}'" if unit else ""
    start = min([*(tick.start for tick in story.traffic[:1]), story.at])
    return _base(colours) | {
        "grid": {"left": 46, "right": 12, "top": 22, "bottom": 22},
        "tooltip": _tooltip(colours)
        | {
            "trigger": "axis",
            ":valueFormatter": f"v => ({_NUMBER})(v){suffix}",
            "axisPointer": {"lineStyle": {"color": colours.muted, "width": 1}},
        },
        "xAxis": {
            "type": "time",
            "min": _ms(start),
            "max": _ms(story.at),
            "axisLabel": text | {"hideOverlap": True, "formatter": "{HH}:{mm}"},
            "axisLine": {"lineStyle": {"color": colours.line}},
            "axisTick": {"show": False},
            "splitLine": {"show": False},
            "minInterval": 60_000,
        },
        "yAxis": {
            "type": "value",
            "splitNumber": 4,
            "axisLabel": text,
            "splitLine": {"lineStyle": {"color": colours.grid}},
        },
        "series": series,
    }
