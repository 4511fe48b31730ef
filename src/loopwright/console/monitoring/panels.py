"""The parts of the monitoring pages that are text: from answers to HTML. Nothing here reads anything."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import quote

from loopwright.console.formats import Reader, number, percent, size, span
from loopwright.console.fragments import empty, pill
from loopwright.console.markup import Html, el, join
from loopwright.console.monitoring.views import (
    Calibration,
    DriftMap,
    Estimated,
    FailedCheck,
    Found,
    Kpi,
    Labels,
    Logged,
    Monitored,
    Quality,
    Segments,
    WindowLine,
)
from loopwright.console.monitoring.words import name_of, value_of
from loopwright.console.views import Tone

__all__ = [
    "bar",
    "calibration",
    "drift_legend",
    "drift_table",
    "estimated",
    "failed",
    "feature_url",
    "interval",
    "kpi",
    "labels",
    "logged",
    "model_url",
    "others",
    "performance_table",
    "quality",
    "segments",
    "window_url",
    "windows",
]

_STATES: dict[str, Tone] = {"judged": "good", "immature": "plain", "overdue": "warn", "empty": "plain"}


def model_url(deployment: str) -> str:
    """Return the address of a deployment's page."""
    return f"/model/{quote(deployment, safe='')}"


def feature_url(deployment: str, feature: str) -> str:
    """Return the address of a feature's page."""
    return f"{model_url(deployment)}/feature/{quote(feature, safe='')}"


def window_url(deployment: str, start: datetime) -> str:
    """Return the address of a window's page."""
    return f"{model_url(deployment)}/window/{quote(start.isoformat(), safe='')}"


def interval(lower: float | None, upper: float | None) -> str:
    """Write a 95 % interval; empty where there is none."""
    return "" if lower is None or upper is None else f"{number(lower)} to {number(upper)}"


def bar(share: float, tone: str = "") -> Html:
    """Return a small bar for a share (0 to 1)."""
    width = round(100 * min(1.0, max(0.0, share)), 1)
    return el("span.meter", el(f"i{'.' + tone if tone else ''}", style=f"width:{width}%"), aria_hidden="true")


def table(names: list[tuple[str, str]], rows: list[Html], caption: str) -> Html:
    """Return a table that scrolls in itself on narrow screens; `names` are its columns with their classes."""
    head = el("tr", *(el(f"th{'.' + kind if kind else ''}", name, scope="col") for name, kind in names))
    made = el("table", el("caption.unseen", caption), el("thead", head), el("tbody", *rows))
    return el("div.wide", made, tabindex="0", role="region", aria_label=caption)


def fired(one: Found | None, *, good: str = "fine", bad: str = "fired") -> Html:
    """Return whether a window fired."""
    if one is None:
        return pill("plain", "not judged")
    return pill("bad", bad) if one.fired else pill("good", good)


def drift_legend(found: DriftMap) -> Html:
    """Return what the colours of the heat map mean, and how much of it is shown."""
    if not found.cells:
        return Html("")
    names = ("below half the limit", "below the limit", "over the limit", "over twice the limit")
    items = [el("span", el(f"i.h{place}"), name) for place, name in enumerate(names, 1)]
    newest = el("span", f"• fired: {found.firing} of {found.inputs} inputs in the newest window")
    return el("div.legend", *items, newest)


def drift_range(found: DriftMap) -> Html:
    """Say which features are shown."""
    if not found.total:
        return el("span.minor", "No feature has this in its name." if found.inputs else "")
    last = found.offset + len(found.features)
    return el("span.minor", f"{found.offset + 1} to {last} of {found.total} features")


def drift_table(found: DriftMap) -> Html:
    """Return the same as the heat map as a table: the features with links to their pages."""
    rows = [
        el(
            "tr",
            el("td", el("a.long", one.name, href=feature_url(found.deployment, one.name), title=one.name)),
            el("td", pill("bad", "fired") if one.firing else pill("good", "fine")),
            el("td.num", _times(one.newest)),
            el("td.num", _times(one.largest)),
            el("td.num", f"{one.fired:,}"),
        )
        for one in found.features
    ]
    names = [
        ("Feature", ""),
        ("Newest window", ""),
        ("Effect / limit", "num"),
        ("Largest", "num"),
        ("Fired in", "num"),
    ]
    return table(names, rows, "Drift by feature") if rows else Html("")


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def performance_table(view: Monitored, reader: Reader) -> Html:
    """Return the newest windows of the performance chart as a table."""
    found = view.performance
    rows = [
        el(
            "tr",
            el("td", el("a", reader.stamp(one.start), href=window_url(found.deployment, one.start))),
            el("td", f"version {one.version}"),
            el("td.num", number(one.value)),
            el("td.num", interval(one.lower, one.upper) or "-"),
            el("td.num", number(one.limit)),
            el("td.num", f"{one.rows:,}"),
            el("td", fired(one)),
        )
        for one in found.points[::-1][:40]
    ]
    names = [
        ("Window", ""), ("Version", ""), (found.metric.replace("_", " "), "num"), ("95 % interval", "num"),
        ("Limit", "num"), ("Labels", "num"), ("", ""),
    ]  # fmt: skip
    return table(names, rows, "Performance by window") if rows else Html("")


def performance_note(view: Monitored) -> Html:
    """Say how the newest value stands, and what the grey parts are."""
    held, waiting = view.health.metric, view.performance.waiting
    parts = []
    if held is not None and held.value is not None:
        range_ = interval(held.lower, held.upper)
        text = f"Newest: {held.metric.replace('_', ' ')} {number(held.value)}"
        text += f" ({range_})" if range_ else ""
        parts.append(el("span", text + (f", limit {number(held.limit)}" if held.limit is not None else "")))
    late = sum(one.state == "immature" for one in waiting)
    lost = len(waiting) - late
    if late:
        parts.append(
            el(
                "span",
                el("i.waiting"),
                f"{_windows(late)} {'waits' if late == 1 else 'wait'} for labels; until then nobody is alarmed",
            )
        )
    if lost:
        parts.append(el("span", f"{_windows(lost)} never got all labels"))
    return el("div.legend", *parts) if parts else Html("")


def _windows(n: int) -> str:
    return f"{n} window{'s' if n != 1 else ''}"


def segments(found: Segments) -> Html:
    """Return the table of the parts of the rows, the worst first."""
    if not found.segments:
        return empty(
            "No part of the rows is watched, or none has enough labels. In loopwright.toml:",
            'segments = ["<column>"]',
        )
    rows = [
        el(
            "tr",
            el("td", el("span.long", one.segment, title=one.segment)),
            el("td", pill("bad", "fired") if one.fired else pill("good", "fine")),
            el("td.num", el("b", number(one.value))),
            el("td.num", interval(one.lower, one.upper) or "-"),
            el("td.num", number(one.overall)),
            el("td.num", number(one.limit)),
            el("td.num", f"{one.rows:,}"),
            el("td.num", str(one.version)),
        )
        for one in found.segments
    ]
    names = [
        ("Segment", ""), ("", ""), (found.metric.replace("_", " "), "num"), ("95 % interval", "num"),
        ("Overall", "num"), ("Limit", "num"), ("Labels", "num"), ("Version", "num"),
    ]  # fmt: skip
    more = _more(len(rows), found.total, "segments")
    return join(table(names, rows, "Segments"), more)


def _more(shown: int, total: int, what: str) -> Html | None:
    return (
        el("p.minor", f"{shown} of {total} {what}; the rest by the JSON interface.")
        if total > shown
        else None
    )


def kpi(found: Kpi) -> Html:
    """Return a KPI's newest value against its target."""
    unit = f" {found.unit}" if found.unit else ""
    targets = [f"at most {found.at_most:.4g}{unit}"] if found.at_most is not None else []
    targets += [f"at least {found.at_least:.4g}{unit}"] if found.at_least is not None else []
    state = (
        pill("plain", "not known yet")
        if found.met is None
        else pill("good", "met")
        if found.met
        else pill("bad", "missed")
    )
    return el(
        "div.kpi-head",
        el("b", found.name),
        state,
        el("span.kpi-value", f"{number(found.value)}{unit}", data_kpi=found.name),
        el("span.minor", f"target: {' and '.join(targets)}" if targets else "no target"),
    )


def labels(found: Labels) -> Html:
    """Say how far labels have come."""
    if not found.windows:
        return Html("")
    waiting = sum(one.state == "immature" for one in found.windows)
    overdue = sum(one.state == "overdue" for one in found.windows)
    newest = next((one for one in reversed(found.windows) if one.state == "judged"), None)
    parts = []
    if newest is not None:
        come = f"{newest.labelled:,} labels of {newest.rows:,} rows"
        parts.append(el("span", el("i.good"), f"newest mature window: {come}"))
    if waiting:
        parts.append(el("span", el("i.waiting"), f"{waiting} on the way"))
    if overdue:
        parts.append(el("span", el("i.bad"), f"{overdue} given up"))
    if all(one.maturity is None for one in found.windows):
        parts.append(el("span", "how many are expected is not known yet: bars are labels by rows"))
    if found.label_delay_s is not None and found.label_delay_s >= 1:
        parts.append(el("span", f"label delay {span(found.label_delay_s)}"))
    return el("div.legend", *parts)


def estimated(found: Estimated) -> Html:
    """Say what the estimate is and on what it rests."""
    if not found.points:
        return Html("")
    newest = found.points[-1]
    range_ = interval(newest.lower, newest.upper)
    text = f"{found.metric.replace('_', ' ')} about {number(newest.value)}" + (
        f" ({range_})" if range_ else ""
    )
    assumption = (
        found.assumption or "assumes that the model's probabilities still mean what they did in training"
    )
    return join(
        el("p", el("b", text), f" over {newest.rows:,} predictions without labels."),
        el(
            "p.minor.assumption",
            f"Estimated: {assumption.rstrip('.')}. Blind to a change of what inputs mean.",
        ),
    )


def calibration(found: Calibration) -> Html:
    """Say how far probabilities are from what came true."""
    one = found.found
    if one is None:
        return Html("")
    of = f" of {found.of}" if found.of else ""
    return el(
        "p.minor",
        fired(one),
        f" {one.subject.replace('_', ' ')}{of}: off by {number(one.value)}, limit {number(one.limit)}, "
        f"{one.rows:,} labels",
    )


def quality(found: Quality) -> Html:
    """Return the table of data quality in the newest window."""
    if not found.found:
        return empty("No window was judged for data quality yet.")
    rows = [
        el(
            "tr",
            el("td", name_of(one.check)),
            el("td", _subject(found.deployment, one)),
            el("td", el("span.long", one.segment or "all rows", title=one.segment)),
            el("td", fired(one)),
            el("td.num", value_of(one.check, one.subject, one.value)),
            el("td.num", value_of(one.check, one.subject, one.limit)),
            el("td.num", f"{one.rows:,}"),
        )
        for one in found.found
    ]
    names = [
        ("Check", ""), ("About", ""), ("Where", ""), ("", ""), ("Value", "num"), ("Limit", "num"), ("Rows", "num"),
    ]  # fmt: skip
    return join(table(names, rows, "Data quality"), _more(len(rows), found.total, "findings"))


def _subject(deployment: str, one: Found) -> Html:
    of_inputs = one.check in {"drift", "missing", "unseen", "out_of_range"}
    if of_inputs and one.subject:
        return el("a.long", one.subject, href=feature_url(deployment, one.subject), title=one.subject)
    return el("span.long", one.subject or "-", title=one.subject)


def others(found: tuple[Found, ...]) -> Html:
    """Return the newest values of checks without a panel of their own."""
    lines = [
        el(
            "span.check",
            pill(
                "bad" if one.fired else "good",
                f"{name_of(one.check)}{' ' + one.subject if one.subject else ''}: "
                f"{value_of(one.check, one.subject, one.value)}",
            ),
            title=f"limit {value_of(one.check, one.subject, one.limit)}, {one.rows:,} rows, version {one.version}",
        )
        for one in found
    ]
    return el("div.checks", el("span.minor", "Also in the newest window "), *lines) if lines else Html("")


def failed(found: tuple[FailedCheck, ...], reader: Reader) -> Html:
    """Return which checks could not judge a window, and why."""
    if not found:
        return el("p.minor", "Every check could judge.")
    rows = [
        el(
            "li",
            pill("warn", name_of(one.check)),
            el("span", one.reason),
            el("time.minor", reader.stamp(one.at), datetime=one.at.isoformat()),
        )
        for one in found
    ]
    return el("ul.failed", *rows)


def logged(found: Logged, reader: Reader) -> Html:
    """Say what the prediction log holds."""
    if not found.rows or found.first is None:
        return el("p.minor", "Nothing is logged yet.")
    text = f" predictions since {reader.date(found.first)}"
    files = f"{size(found.bytes)} in {found.segments:,} sealed file{'s' if found.segments != 1 else ''}"
    lost = found.quarantined
    return join(
        el("p", el("b", f"{found.rows:,}", data_field="logged"), text),
        el("p.minor", files, " · ", el("a", "ask it in SQL", href="/sql")),
        el("p.bad-text", f"{lost} damaged file{'s' if lost != 1 else ''} set aside") if lost else None,
    )


def windows(found: tuple[WindowLine, ...], deployment: str, reader: Reader) -> Html:
    """Return the table of windows, newest first."""
    if not found:
        return empty("No window has been looked at yet.", "loopwright up")
    rows = [window_row(one, deployment, reader) for one in found]
    names = [
        ("Window", ""), ("Checks", ""), ("State", ""), ("Rows", "num"), ("Labels", "num"), ("Arrived", "num"),
        ("Fired", "num"),
    ]  # fmt: skip
    return table(names, rows, "Windows")


def window_row(one: WindowLine, deployment: str, reader: Reader) -> Html:
    """Return one window as a row."""
    what = "inputs" if one.phase == "inputs" else "labels"
    names = ", ".join(dict.fromkeys(name_of(text.partition(":")[0]) for text in one.failed))
    failures = el("div.bad-text", f"not judged: {names}", title="; ".join(one.failed)) if names else None
    return el(
        "tr",
        el("td", el("a", reader.stamp(one.start), href=window_url(deployment, one.start))),
        el("td", what, failures),
        el("td", pill(_STATES[one.state], one.state)),
        el("td.num", f"{one.rows:,}"),
        el("td.num", f"{one.labelled:,}" if one.phase == "labels" else "-"),
        el("td.num", percent(one.maturity) if one.maturity is not None else "-"),
        el("td.num", el("b.bad-text", f"{one.fired}") if one.fired else "0"),
    )
