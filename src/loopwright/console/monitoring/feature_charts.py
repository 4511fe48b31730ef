"""The charts of one feature, and of an answer to SQL, as options of ECharts."""

from __future__ import annotations

from collections.abc import Sequence

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
from loopwright.console.monitoring.views import Bin, FeatureStory, Found
from loopwright.console.monitoring.window_charts import over_windows, values
from loopwright.console.tokens import Palette

__all__ = ["answer", "distribution", "drift", "moved", "shares"]


def distribution(bins: Sequence[Bin], colours: Palette) -> Options:
    """Return the shares of bins or categories in the reference and now, side by side."""
    text = axis_text(colours)

    def bar(name: str, shares_: list[float], colour: str, opacity: float) -> Options:
        return {
            "type": "bar",
            "name": name,
            "data": [round(100 * value, 3) for value in shares_],
            "itemStyle": {"color": colour, "opacity": opacity, "borderRadius": [2, 2, 0, 0]},
            "barGap": "0%",
            "barCategoryGap": "24%",
            "animation": False,
        }

    return base(colours) | {
        "grid": {"left": 44, "right": 12, "top": 30, "bottom": 60 if len(bins) > 6 else 26},
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


def drift(found: Sequence[Found], colours: Palette) -> Options:
    """Return the effect over time and, beside it, the limit of each window: it depends on the number of rows."""
    limits: list[list[float | None]] = [[ms(one.start), one.limit] for one in found]
    bound = line("limit", limits, colours.bad)
    bound["lineStyle"] |= {"type": [4, 4], "width": 1}
    bound["showSymbol"] = False
    effect = values("PSI", list(found), colours.accent)
    options = over_windows(found, [effect, bound], colours)
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
    options = over_windows(every, series, colours)
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
    means = [one.mean for one in found.moved if one.mean is not None]
    if mean is not None and std:
        band = [{"yAxis": mean - std}, {"yAxis": mean + std}]
        drawn["markArea"] = {
            "silent": True,
            "data": [band],
            "itemStyle": {"color": colours.muted, "opacity": 0.1},
            "animation": False,
        }
        means += [mean - std, mean + std]
    options = over_windows(found.moved, [line("mean", middle, colours.accent), drawn], colours)
    options["yAxis"] |= extent(means)
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
