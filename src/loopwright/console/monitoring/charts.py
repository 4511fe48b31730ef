"""The charts of monitoring as options of ECharts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

from loopwright.console.chart_parts import (
    NUMBER,
    Options,
    axis_text,
    base,
    extent,
    legend,
    line,
    marks,
    ms,
    tooltip,
)
from loopwright.console.monitoring.sql import Answered, chart_of
from loopwright.console.monitoring.views import (
    Bin,
    DriftMap,
    Estimated,
    FeatureStory,
    Found,
    Kpi,
    Labels,
    Marker,
    Moved,
    Performance,
    WindowLine,
)
from loopwright.console.tokens import Palette

__all__ = [
    "answer",
    "distribution",
    "drift",
    "drift_of_feature",
    "estimated",
    "kpi",
    "labels",
    "moved",
    "performance",
    "shares",
]

#: Metrics that cannot be above 1.
_BOUNDED = frozenset(
    {
        "accuracy",
        "average_precision",
        "balanced_accuracy",
        "brier",
        "calibration_error",
        "f1",
        "precision",
        "r2",
    }
    | {"recall", "roc_auc"}
)


def performance(found: Performance, markers: Sequence[Marker], colours: Palette) -> Options:
    """Return a metric by version with its intervals, its limit, and windows whose labels are on the way in grey."""
    series: list[Options] = []
    for version in sorted({one.version for one in found.points}):
        mine = [one for one in found.points if one.version == version]
        colour = colours.version(version)
        series += [*_band(f"version {version}", mine, colour), _values(f"version {version}", mine, colour)]
    limit = _limit(found.points)
    series.append(marks(markers, limit, colours) | {"markArea": _waiting(found.waiting, colours)})
    times: list[Found | WindowLine] = [*found.points, *found.waiting]
    options = _over_windows(times, series, colours)
    options["yAxis"] |= _extent(found.points, [limit], 1.0 if found.metric in _BOUNDED else math.inf)
    names = list(dict.fromkeys(one["name"] for one in series if one.get("z") == _LINE))
    options["legend"] = legend(colours) | {"data": names}
    options["grid"]["top"] = 34
    return options


def estimated(found: Estimated, colours: Palette) -> Options:
    """Return the estimates with their intervals and the limit of the real metric."""
    values = list(found.points)
    series = [*_band(found.metric, values, colours.muted), _values(found.metric, values, colours.muted)]
    series[-1]["lineStyle"] |= {"type": [5, 4]}
    limit = _limit(values)
    series.append(marks((), limit, colours))
    options = _over_windows(values, series, colours)
    options["yAxis"] |= _extent(values, [limit], 1.0 if found.metric in _BOUNDED else math.inf)
    return options


def kpi(found: Kpi, colours: Palette) -> Options:
    """Return a KPI over time against its target."""
    values = list(found.points)
    series = [*_band(found.name, values, colours.accent), _values(found.name, values, colours.accent)]
    target = found.at_most if found.at_most is not None else found.at_least
    side = "at most" if found.at_most is not None else "at least"
    drawn = marks((), target, colours)
    if target is not None:
        drawn["markLine"]["data"][0]["label"]["formatter"] = f"{side} {target:.4g}"
    options = _over_windows(values, [*series, drawn], colours)
    options["yAxis"] |= _extent(values, [found.at_most, found.at_least], math.inf)
    options["yAxis"]["splitNumber"] = 3
    return options


def labels(found: Labels, colours: Palette) -> Options:
    """Return one bar for each window: the share of expected labels that came, and what is still on the way."""
    arrived, missing = [], []
    for window in found.windows:
        share = min(1.0, window.maturity or 0.0)
        ripe = window.state == "judged"
        colour = colours.good if ripe else colours.bad if window.state == "overdue" else colours.muted
        facts = {"labelled": window.labelled, "rows": window.rows, "state": window.state}
        style: Options = {"color": colour, "opacity": 0.75}
        if window.state == "immature":
            style["decal"] = {"symbol": "rect", "dashArrayX": [1, 0], "dashArrayY": [2, 4], "rotation": 0.8}
        arrived.append({"value": [ms(window.start), round(100 * share, 1)], "itemStyle": style} | facts)
        known = window.maturity is not None
        missing.append({"value": [ms(window.start), round(100 * (1 - share), 1) if known else 0]} | facts)
    bar: Options = {"type": "bar", "stack": "labels", "animation": False, "barMaxWidth": 18}
    series = [
        bar | {"name": "arrived", "data": arrived},
        bar | {"name": "expected", "data": missing, "itemStyle": {"color": colours.line, "opacity": 0.6}},
    ]
    options = _over_windows(found.windows, series, colours)
    options["tooltip"] = tooltip(colours) | {"trigger": "item", ":formatter": _LABELS_TOOLTIP}
    options["yAxis"] |= {
        "min": 0,
        "max": 100,
        "interval": 50,
        "axisLabel": axis_text(colours) | {"formatter": "{value} %"},
    }
    return options


_LABELS_TOOLTIP = """p => {
    const text = document.createElement('span');
    const at = new Date(p.value[0]).toLocaleString([], {dateStyle: 'short', timeStyle: 'short', hourCycle: 'h23'});
    const share = p.seriesName === 'arrived' ? p.value[1] : 100 - p.value[1];
    text.textContent = `${at}: ${p.data.labelled} labels of ${p.data.rows} rows, ${share} % of those expected, ${p.data.state}`;
    return text.outerHTML;
}"""


def drift(found: DriftMap, colours: Palette) -> Options:
    """Return the heat map of features by windows; a cell's colour is its effect divided by its limit."""
    cells = [
        {
            "value": [cell.window, cell.feature, round(cell.ratio, 3) if cell.ratio is not None else 0.0],
            "input": found.features[cell.feature].name,
            "effect": _short(cell.value),
            "limit": _short(cell.limit),
            "rows": cell.rows,
            "label": {"show": cell.fired},
        }
        for cell in found.cells
    ]
    text = axis_text(colours)
    return base(colours) | {
        "grid": {"left": 150, "right": 8, "top": 4, "bottom": 52 if len(found.windows) > 12 else 22},
        "xAxis": {
            "type": "category",
            "data": [ms(moment) for moment in found.windows],
            "axisLabel": text | {":formatter": _moment(found.windows), "hideOverlap": True},
            "axisLine": {"show": False},
            "axisTick": {"show": False},
        },
        "yAxis": {
            "type": "category",
            "inverse": True,
            "triggerEvent": True,
            "data": [one.name for one in found.features],
            "axisLabel": text | {"width": 138, "overflow": "truncate", "interval": 0},
            "axisLine": {"show": False},
            "axisTick": {"show": False},
        },
        "dataZoom": _zoom(len(found.windows), colours),
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
        "tooltip": tooltip(colours) | {"trigger": "item", ":formatter": _drift_tooltip(found)},
        "series": [
            {
                "type": "heatmap",
                "data": cells,
                "label": {"formatter": "•", "color": colours.text, "fontSize": 11},
                "itemStyle": {
                    "borderColor": colours.surface,
                    "borderWidth": 1 if len(found.windows) <= 80 else 0,
                },
                "emphasis": {"itemStyle": {"borderColor": colours.text}},
                "animation": False,
            }
        ],
    }


def _zoom(windows: int, colours: Palette) -> list[Options]:
    """Return how a long time is zoomed: by dragging the ends of a bar below the chart."""
    if windows <= 12:
        return []
    return [
        {
            "type": "slider",
            "xAxisIndex": 0,
            "height": 14,
            "bottom": 6,
            "showDetail": False,
            "brushSelect": False,
            "borderColor": colours.line,
            "fillerColor": colours.info_ground,
            "handleStyle": {"color": colours.surface, "borderColor": colours.muted},
            "moveHandleStyle": {"color": colours.muted},
            "dataBackground": {"lineStyle": {"opacity": 0}, "areaStyle": {"opacity": 0}},
            "selectedDataBackground": {"lineStyle": {"opacity": 0}, "areaStyle": {"opacity": 0}},
        }
    ]


def _drift_tooltip(found: DriftMap) -> str:
    return f"""p => {{
        const text = document.createElement('span');
        const at = ({_moment(found.windows)})(p.name);
        text.textContent = `${{p.data.input}}, ${{at}}: PSI ${{p.data.effect}}, limit ${{p.data.limit}}, ${{p.data.rows}} rows`;
        return text.outerHTML;
    }}"""


def _moment(times: Sequence[datetime]) -> str:
    """Return JavaScript that writes a time: with its day where the chart covers more than one."""
    spans = bool(times) and (times[-1] - times[0]).total_seconds() > 20 * 3600
    day = "month: '2-digit', day: '2-digit', " if spans else ""
    return f"v => new Date(Number(v)).toLocaleString([], {{{day}hour: '2-digit', minute: '2-digit', hourCycle: 'h23'}})"


def distribution(bins: Sequence[Bin], colours: Palette) -> Options:
    """Return the shares of bins or categories in the reference and now, side by side."""
    text = axis_text(colours)

    def bar(name: str, values: list[float], colour: str, opacity: float) -> Options:
        return {
            "type": "bar",
            "name": name,
            "data": [round(100 * value, 3) for value in values],
            "itemStyle": {"color": colour, "opacity": opacity, "borderRadius": [2, 2, 0, 0]},
            "barGap": "0%",
            "barCategoryGap": "24%",
            "animation": False,
        }

    return base(colours) | {
        "grid": {"left": 44, "right": 12, "top": 30, "bottom": 60},
        "legend": legend(colours) | {"itemHeight": 10, "itemWidth": 10},
        "tooltip": tooltip(colours)
        | {
            "trigger": "axis",
            "axisPointer": {"type": "shadow"},
            ":valueFormatter": f"v => ({NUMBER})(v) + ' %'",
        },
        "xAxis": {
            "type": "category",
            "data": [one.label for one in bins],
            "axisLabel": text | {"rotate": 40 if len(bins) > 6 else 0, "width": 84, "overflow": "truncate"},
            "axisLine": {"lineStyle": {"color": colours.line}},
            "axisTick": {"show": False},
        },
        "yAxis": {
            "type": "value",
            "min": 0,
            "splitNumber": 4,
            "axisLabel": text | {"formatter": "{value} %"},
            "splitLine": {"lineStyle": {"color": colours.grid}},
        },
        "series": [
            bar("reference", [one.reference for one in bins], colours.muted, 0.55),
            bar("now", [one.current for one in bins], colours.accent, 0.9),
        ],
    }


def drift_of_feature(found: Sequence[Found], colours: Palette) -> Options:
    """Return the effect over time and, beside it, the limit of each window: it depends on the number of rows."""
    limits: list[list[float | None]] = [[ms(one.start), one.limit] for one in found]
    bound = line("limit", limits, colours.bad)
    bound["lineStyle"] |= {"type": [4, 4], "width": 1}
    bound["showSymbol"] = False
    effect = _values("PSI", list(found), colours.accent)
    options = _over_windows(found, [effect, bound], colours)
    options["yAxis"]["min"] = 0
    options["legend"] = legend(colours)
    return options


def shares(parts: dict[str, Sequence[Found]], colours: Palette) -> Options:
    """Return shares of rows over time, one line each, in percent."""
    series = []
    for place, (name, found) in enumerate(parts.items()):
        points: list[list[float | None]] = [
            [ms(one.start), None if one.value is None else round(100 * one.value, 4)] for one in found
        ]
        drawn = line(name, points, colours.series[(0, 1, 3)[place % 3]])
        drawn["lineStyle"] |= {"type": ("solid", [6, 3], [2, 2])[place % 3]}
        series.append(drawn)
    every = [one for found in parts.values() for one in found]
    options = _over_windows(every, series, colours)
    options["yAxis"] |= {"min": 0, "axisLabel": axis_text(colours) | {"formatter": "{value} %"}}
    options["legend"] = legend(colours)
    options["tooltip"][":valueFormatter"] = f"v => ({NUMBER})(v) + ' %'"
    return options


def moved(found: FeatureStory, colours: Palette) -> Options:
    """Return the mean over time, on a band of one standard deviation of the training data around theirs."""
    mean, std = found.reference_mean, found.reference_std
    middle: list[list[float | None]] = [[ms(one.start), one.mean] for one in found.moved]
    drawn = marks((), mean, colours)
    if mean is not None:
        mark = drawn["markLine"]["data"][0]
        mark["lineStyle"]["color"] = mark["label"]["color"] = colours.muted
        mark["label"]["formatter"] = f"training {mean:.4g}"
    values = [one.mean for one in found.moved if one.mean is not None]
    if mean is not None and std:
        band = [{"yAxis": mean - std}, {"yAxis": mean + std}]
        drawn["markArea"] = {
            "silent": True,
            "data": [band],
            "itemStyle": {"color": colours.muted, "opacity": 0.1},
            "animation": False,
        }
        values += [mean - std, mean + std]
    options = _over_windows(found.moved, [line("mean", middle, colours.accent), drawn], colours)
    options["yAxis"] |= extent(values)
    return options


def answer(found: Answered, colours: Palette) -> Options:
    """Return the chart of an SQL answer; empty where it cannot be drawn."""
    drawn = chart_of(found)
    if drawn is None:
        return {}
    name = found.columns[drawn.up]
    text = axis_text(colours)
    options = base(colours) | {
        "grid": {"left": 60, "right": 12, "top": 14, "bottom": 54 if not drawn.time else 24},
        "tooltip": tooltip(colours) | {"trigger": "axis", ":valueFormatter": NUMBER},
        "yAxis": {
            "type": "value",
            "splitNumber": 4,
            "axisLabel": text,
            "splitLine": {"lineStyle": {"color": colours.grid}},
        },
    }
    if drawn.time:
        points = sorted(
            (row[drawn.across], row[drawn.up]) for row in found.rows if row[drawn.across] is not None
        )
        options["xAxis"] = {"type": "time", "axisLabel": text | {"hideOverlap": True}}
        options["series"] = [line(name, [list(point) for point in points], colours.accent)]
        options["yAxis"]["scale"] = True
        return options
    options["xAxis"] = {
        "type": "category",
        "data": [str(row[drawn.across]) for row in found.rows],
        "axisLabel": text | {"rotate": 30 if len(found.rows) > 8 else 0, "width": 96, "overflow": "truncate"},
        "axisTick": {"show": False},
    }
    bars = [row[drawn.up] for row in found.rows]
    options["series"] = [
        {
            "type": "bar",
            "name": name,
            "data": bars,
            "itemStyle": {"color": colours.accent},
            "animation": False,
        }
    ]
    return options


#: Layers: bands lie below lines, and only lines have a name in the legend.
_BAND, _LINE = 1, 3


def _values(name: str, found: list[Found], colour: str) -> Options:
    """Return the line of values; what fired is marked."""
    points: list[list[float | None]] = [
        [ms(one.start), None if one.value is None else round(one.value, 6)] for one in found
    ]
    drawn = line(name, points, colour) | {"z": _LINE}
    drawn["showSymbol"] = len(points) <= 60
    drawn["symbolSize"] = 4
    return drawn


def _band(name: str, found: list[Found], colour: str) -> list[Options]:
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


def _waiting(found: Sequence[WindowLine], colours: Palette) -> Options:
    """Return the spans of windows that have no value yet, as grey areas."""
    areas = []
    for one in found:
        name = "labels on the way" if one.state == "immature" else "labels did not come"
        areas.append([{"xAxis": ms(one.start), "name": name}, {"xAxis": ms(one.end)}])
    return {
        "silent": True,
        "data": areas[-200:],
        "itemStyle": {
            "color": colours.muted,
            "opacity": 0.14,
            "decal": {"symbol": "rect", "dashArrayX": [1, 0], "dashArrayY": [2, 5], "rotation": -0.8},
        },
        "label": {"show": False},
    }


def _limit(found: Sequence[Found]) -> float | None:
    """Return the newest limit that is known."""
    return next((one.limit for one in reversed(found) if one.limit is not None), None)


def _extent(found: Sequence[Found], more: Sequence[float | None], top: float) -> Options:
    values = [
        value for one in found for value in (one.value, one.lower, one.upper, *more) if value is not None
    ]
    return extent(values, max(top, *values)) if values else {}


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")


def _over_windows(
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
