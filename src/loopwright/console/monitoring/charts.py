"""The charts of monitoring as options of ECharts."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import datetime

from loopwright.console.chart_parts import (
    Options,
    axis_text,
    base,
    legend,
    line,
    marks,
    ms,
    tooltip,
)
from loopwright.console.monitoring.views import (
    Calibration,
    DriftMap,
    Estimated,
    Found,
    Kpi,
    Labels,
    Marker,
    Performance,
    WindowLine,
)
from loopwright.console.monitoring.window_charts import (
    LINE,
    band,
    extent_of,
    limit_of,
    over_windows,
    values,
)
from loopwright.console.tokens import Palette

__all__ = ["calibration", "drift", "estimated", "kpi", "labels", "performance"]

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
        series += [*band(f"version {version}", mine, colour), values(f"version {version}", mine, colour)]
    limit = limit_of(found.points)
    series.append(marks(markers, limit, colours) | {"markArea": _waiting(found.waiting, colours)})
    times: list[Found | WindowLine] = [*found.points, *found.waiting]
    options = over_windows(times, series, colours)
    options["yAxis"] |= extent_of(found.points, [limit], 1.0 if found.metric in _BOUNDED else math.inf)
    names = list(dict.fromkeys(one["name"] for one in series if one.get("z") == LINE))
    options["legend"] = legend(colours) | {"data": names}
    options["grid"]["top"] = 34
    return options


def estimated(found: Estimated, colours: Palette) -> Options:
    """Return the estimates with their intervals and the limit of the real metric."""
    points = list(found.points)
    series = [*band(found.metric, points, colours.muted), values(found.metric, points, colours.muted)]
    series[-1]["lineStyle"] |= {"type": [5, 4]}
    limit = limit_of(points)
    series.append(marks((), limit, colours))
    options = over_windows(points, series, colours)
    options["yAxis"] |= extent_of(points, [limit], 1.0 if found.metric in _BOUNDED else math.inf)
    return options


def calibration(found: Calibration, colours: Palette) -> Options:
    """Return the share that came true by forecast probability, on the line where both are equal."""
    text = axis_text(colours)
    most = max((one.rows for one in found.bins), default=1)
    points = [
        {"value": [round(one.predicted, 4), round(one.observed, 4)], "rows": one.rows,
         "symbolSize": round(5 + 9 * (one.rows / most) ** 0.5, 1)}
        for one in found.bins
    ]  # fmt: skip
    axis: Options = {
        "type": "value",
        "min": 0,
        "max": 1,
        "interval": 0.5,
        "axisLabel": text,
        "splitLine": {"lineStyle": {"color": colours.grid}},
    }
    even = line("as forecast", [[0, 0], [1, 1]], colours.muted) | {"showSymbol": False, "silent": True}
    even["lineStyle"] |= {"type": [4, 4], "width": 1}
    return base(colours) | {
        "grid": {"left": 36, "right": 14, "top": 12, "bottom": 24},
        "xAxis": axis,
        "yAxis": axis,
        "tooltip": tooltip(colours) | {"trigger": "item", ":formatter": _CALIBRATION_TOOLTIP},
        "series": [
            even,
            {"type": "scatter", "name": "came true", "data": points, "itemStyle": {"color": colours.accent},
             "animation": False},
        ],
    }  # fmt: skip


_CALIBRATION_TOOLTIP = """p => {
    const text = document.createElement('span');
    text.textContent = `forecast ${p.value[0]}: ${p.value[1]} came true, ${p.data.rows} rows`;
    return text.outerHTML;
}"""


def kpi(found: Kpi, colours: Palette) -> Options:
    """Return a KPI over time against its target."""
    points = list(found.points)
    series = [*band(found.name, points, colours.accent), values(found.name, points, colours.accent)]
    target = found.at_most if found.at_most is not None else found.at_least
    side = "at most" if found.at_most is not None else "at least"
    drawn = marks((), target, colours)
    if target is not None:
        drawn["markLine"]["data"][0]["label"]["formatter"] = f"{side} {target:.4g}"
    options = over_windows(points, [*series, drawn], colours)
    options["yAxis"] |= extent_of(points, [found.at_most, found.at_least], math.inf)
    options["yAxis"]["splitNumber"] = 3
    return options


def labels(found: Labels, colours: Palette) -> Options:
    """Return one bar for each window: the share of expected labels that came, and what is still on the way."""
    arrived, missing = [], []
    for window in found.windows:
        known = window.maturity is not None
        come = window.labelled / window.rows if window.rows else 0.0
        share = min(1.0, window.maturity if window.maturity is not None else come)
        ripe = window.state == "judged"
        colour = colours.good if ripe else colours.bad if window.state == "overdue" else colours.muted
        facts = {"labelled": window.labelled, "rows": window.rows, "state": window.state, "known": known}
        style: Options = {"color": colour, "opacity": 0.75}
        if window.state == "immature":
            style["decal"] = {"symbol": "rect", "dashArrayX": [1, 0], "dashArrayY": [2, 4], "rotation": 0.8}
        arrived.append({"value": [ms(window.start), round(100 * share, 1)], "itemStyle": style} | facts)
        missing.append({"value": [ms(window.start), round(100 * (1 - share), 1) if known else 0]} | facts)
    bar: Options = {"type": "bar", "stack": "labels", "animation": False, "barMaxWidth": 18}
    series = [
        bar | {"name": "arrived", "data": arrived},
        bar | {"name": "expected", "data": missing, "itemStyle": {"color": colours.line, "opacity": 0.6}},
    ]
    options = over_windows(found.windows, series, colours)
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
    text.textContent = `${at}: ${p.data.labelled} labels of ${p.data.rows} rows, ${share} % ${p.data.known ? 'of those expected' : 'of the rows'}, ${p.data.state}`;
    return text.outerHTML;
}"""


def drift(found: DriftMap, colours: Palette) -> Options:
    """Return the heat map of features by windows; a cell's colour is its effect divided by its limit."""
    # Plain rows of numbers: with names in each cell a page of 200 windows would be three times as large.
    cells = [
        [
            cell.window,
            cell.feature,
            _short(cell.ratio) or 0.0,
            _short(cell.value),
            _short(cell.limit),
            cell.rows,
            int(cell.fired),
        ]
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
                "label": {
                    "show": True,
                    ":formatter": "p => p.value[6] ? '•' : ''",
                    "color": colours.text,
                    "fontSize": 11,
                },
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
    names = json.dumps([one.name for one in found.features])
    return f"""p => {{
        const text = document.createElement('span');
        const [, feature, , effect, limit, rows] = p.value;
        const when = ({_moment(found.windows)})(p.name);
        text.textContent = `${{{names}[feature]}}, ${{when}}: PSI ${{effect}}, limit ${{limit}}, ${{rows}} rows`;
        return text.outerHTML;
    }}"""


def _moment(times: Sequence[datetime]) -> str:
    """Return JavaScript that writes a time: with its day where the chart covers more than one."""
    spans = bool(times) and (times[-1] - times[0]).total_seconds() > 20 * 3600
    day = "month: '2-digit', day: '2-digit', " if spans else ""
    return f"v => new Date(Number(v)).toLocaleString([], {{{day}hour: '2-digit', minute: '2-digit', hourCycle: 'h23'}})"


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


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")
