"""The charts as options of ECharts, computed from a story and a palette. Nothing here knows about pages.

Times go to the browser as milliseconds since 1970 UTC; it shows them in its own time zone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from loopwright.console.chart_parts import NUMBER, Options, base, extent, legend, line, marks, ms, tooltip
from loopwright.console.tokens import SIZES, Palette
from loopwright.console.views import Series, Serving, Story, Tick

__all__ = ["batches", "latency", "metric", "stages", "traffic"]


def traffic(story: Story, colours: Palette) -> Options:
    """Return the chart of predictions per second."""
    rate = line("predictions per second", _points(story.traffic, "per_s"), colours.accent)
    rate |= {"areaStyle": {"color": colours.accent, "opacity": 0.12}}
    options = _time_chart(story, colours, [rate], "/s")
    options["yAxis"]["min"] = 0
    return options


def latency(story: Story, colours: Palette) -> Options:
    """Return the chart of the median and the 99th percentile of latency, in milliseconds."""
    # No colours of `series`: those are the versions' own.
    p50 = line("p50", _points(story.traffic, "latency_p50_ms"), colours.accent)
    p99 = line("p99", _points(story.traffic, "latency_p99_ms"), colours.muted)
    p99["lineStyle"] |= {"type": [6, 3]}
    options = _time_chart(story, colours, [p50, p99], "ms")
    options["yAxis"]["min"] = 0
    options["legend"] = legend(colours)
    return options


def metric(story: Story, colours: Palette) -> Options:
    """Return the chart of the metric, one line per version, with its limit and the moments that matter."""
    lines = [_version_line(series, colours) for series in story.metric]
    now = story.card.numbers.metric
    options = _time_chart(story, colours, [*lines, marks(story.markers, now.limit, colours)], "")
    values = [point.value for series in story.metric for point in series.points]
    values += [now.limit] if now.limit is not None else []
    options["yAxis"] |= extent(values, 1.0 if now.name in {"accuracy", "f1"} else math.inf)
    options["legend"] = legend(colours) | {"data": [one["name"] for one in lines]}
    options["grid"]["top"] = 34
    return options


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
    return base(colours) | {
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
        "tooltip": tooltip(colours) | {"trigger": "item", ":formatter": _STAGE_TOOLTIP},
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
    return base(colours) | {
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
        "tooltip": tooltip(colours)
        | {
            "trigger": "axis",
            "axisPointer": {"type": "shadow"},
            ":valueFormatter": f"v => ({NUMBER})(v) + ' % of batches'",
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


def _points(ticks: Sequence[Tick], field: str) -> list[list[float | None]]:
    points: list[list[float | None]] = []
    for tick in ticks:
        value = getattr(tick, field)
        points.append([ms(tick.start), None if value is None else round(value, 3)])
    return points


def _version_line(series: Series, colours: Palette) -> Options:
    points: list[list[float | None]] = [[ms(point.start), round(point.value, 4)] for point in series.points]
    return line(f"version {series.version}", points, colours.version(series.version))


def _time_chart(story: Story, colours: Palette, series: list[Options], unit: str) -> Options:
    """Return a chart over the time of the story."""
    text = {"color": colours.muted, "fontSize": SIZES["xs"]}
    suffix = f" + '{' ' if unit == 'ms' else ''}{unit}'" if unit else ""
    start = min([*(tick.start for tick in story.traffic[:1]), story.at])
    return base(colours) | {
        "grid": {"left": 46, "right": 12, "top": 22, "bottom": 22},
        "tooltip": tooltip(colours)
        | {
            "trigger": "axis",
            ":valueFormatter": f"v => ({NUMBER})(v){suffix}",
            "axisPointer": {"lineStyle": {"color": colours.muted, "width": 1}},
        },
        "xAxis": {
            "type": "time",
            "min": ms(start),
            "max": ms(story.at),
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
