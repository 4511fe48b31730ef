"""One feature, and one window, as HTML."""

from __future__ import annotations

from loopwright.console.formats import Reader, number, percent
from loopwright.console.fragments import empty, pill
from loopwright.console.markup import Html, el, join
from loopwright.console.monitoring.panels import (
    feature_url,
    fired,
    model_url,
    table,
    window_row,
    window_url,
)
from loopwright.console.monitoring.views import FeatureStory, Found, WindowFound
from loopwright.console.monitoring.words import name_of, value_of

__all__ = [
    "categories",
    "distribution_note",
    "feature_head",
    "feature_tiles",
    "found",
    "segments",
    "versions",
    "window_head",
    "window_phases",
]


def feature_head(view: FeatureStory) -> Html:
    """Return the title of a feature's page."""
    state = pill("bad", "drifted") if view.firing else pill("good", "as before") if view.drift else None
    return join(
        el("div.title", el("h1.long", view.name), el("span.badge", view.type or "unknown"), state),
        el(
            "div.subtitle",
            "input of ",
            el("a", view.deployment, href=model_url(view.deployment)),
            f" · {view.model}" + (f" version {view.version}" if view.version else ""),
        ),
        el("p.summary", view.what) if view.what else None,
    )


def _tile(name: str, value: str, note: str, tone: str = "") -> Html:
    return el(
        f"div.tile{'.' + tone if tone else ''}",
        el("div.tile-name", name),
        el("div.tile-value", value),
        el("div.tile-note", note, title=note),
    )


def feature_tiles(view: FeatureStory) -> Html:
    """Return the key numbers of a feature."""
    missing, unseen, out = (
        found[-1] if found else None for found in (view.missing, view.unseen, view.out_of_range)
    )
    strange = out or unseen
    shift = ""
    if view.current_mean is not None and view.reference_mean is not None and view.reference_std:
        shift = f", {(view.current_mean - view.reference_mean) / view.reference_std:+.2f} sd"
    return join(
        _tile(
            "PSI now",
            number(view.psi),
            f"limit {number(view.limit)}" if view.limit is not None else "not judged yet",
            "bad" if view.firing else "",
        ),
        _tile("Missing", _share(missing), _against(missing), "bad" if missing and missing.fired else ""),
        _tile(
            "Out of range" if out or view.kind == "numeric" else "Unseen categories",
            _share(strange),
            _against(strange),
            "bad" if strange and strange.fired else "",
        ),
        _most_frequent(view)
        if view.kind == "categorical"
        else _tile("Mean now", number(view.current_mean), f"training {number(view.reference_mean)}{shift}"),
    )


def _most_frequent(view: FeatureStory) -> Html:
    top = max(view.bins, key=lambda one: one.current, default=None)
    if top is None:
        return _tile("Most frequent now", "-", "not counted yet")
    return _tile(
        "Most frequent now",
        top.label,
        f"{percent(top.current)} of rows, in training {percent(top.reference)}",
    )


def _share(one: Found | None) -> str:
    return "-" if one is None or one.value is None else percent(one.value)


def _against(one: Found | None) -> str:
    if one is None:
        return "not judged yet"
    limit = f"limit {percent(one.limit)}, " if one.limit is not None else ""
    return f"{limit}{one.rows:,} rows"


def distribution_note(view: FeatureStory) -> Html:
    """Say what is compared with what."""
    if not view.bins:
        return Html("")
    return el(
        "p.minor", f"Now is the {view.basis}; the reference is the training data of version {view.version}."
    )


def versions(view: FeatureStory) -> Html:
    """Return the table of versions."""
    if not view.versions:
        return empty("No window was judged yet.")
    rows = [
        el(
            "tr",
            el("td", f"version {one.version}"),
            el("td.num", number(one.psi)),
            el("td.num", percent(one.missing) if one.missing is not None else "-"),
            el("td.num", percent(one.unseen) if one.unseen is not None else "-"),
            el("td.num", percent(one.out_of_range) if one.out_of_range is not None else "-"),
            el("td.num", number(one.mean)),
            el("td.num", f"{one.rows:,}"),
        )
        for one in view.versions
    ]
    names = [
        ("Version", ""),
        *((name, "num") for name in ("PSI", "Missing", "Unseen", "Out of range", "Mean", "Rows")),
    ]
    return table(names, rows, "By version")


def categories(view: FeatureStory) -> Html:
    """Return the categories whose share changed most."""
    rows = [
        el(
            "tr",
            el("td", el("span.long", one.name, title=one.name)),
            el("td.num", percent(one.reference)),
            el("td.num", percent(one.current)),
            el("td.num", f"{100 * one.change:+.1f}"),
        )
        for one in view.categories
    ]
    names = [("Category", ""), ("Reference", "num"), ("Now", "num"), ("Change, points", "num")]
    return table(names, rows, "Categories") if rows else Html("")


def bins(view: FeatureStory) -> Html:
    """Return the distribution as a table, for those who do not see the chart."""
    rows = [
        el(
            "tr",
            el("td", one.label),
            el("td.num", percent(one.reference)),
            el("td.num", percent(one.current)),
        )
        for one in view.bins
    ]
    return (
        table([("Bin", ""), ("Reference", "num"), ("Now", "num")], rows, "Distribution") if rows else Html("")
    )


def segments(view: FeatureStory) -> Html:
    """Return what was found in parts of the rows of the newest window."""
    rows = [
        el(
            "tr",
            el("td", el("span.long", one.segment, title=one.segment)),
            el("td", name_of(one.check)),
            el("td", fired(one)),
            el("td.num", value_of(one.check, one.subject, one.value)),
            el("td.num", value_of(one.check, one.subject, one.limit)),
            el("td.num", f"{one.rows:,}"),
        )
        for one in view.segments
    ]
    names = [("Segment", ""), ("Check", ""), ("", ""), ("Value", "num"), ("Limit", "num"), ("Rows", "num")]
    return table(names, rows, "By segment") if rows else empty("Nothing was found in parts of the rows.")


def window_head(view: WindowFound, reader: Reader) -> Html:
    """Return the title of a window's page, with its neighbours."""
    neighbours = [
        el("a.link", text, href=window_url(view.deployment, at))
        for text, at in (("← earlier", view.earlier), ("later →", view.later))
        if at is not None
    ]
    count = sum(one.fired for one in view.phases)
    return join(
        el(
            "div.title",
            el("h1", f"{reader.stamp(view.start)} to {reader.stamp(view.end)}"),
            pill("bad", f"{count} fired") if count else pill("good", "nothing fired"),
        ),
        el(
            "div.subtitle",
            "window of ",
            el("a", view.deployment, href=model_url(view.deployment)),
            f" · {view.model}",
        ),
        el("nav.links", *neighbours, aria_label="Other windows"),
    )


def window_phases(view: WindowFound, reader: Reader) -> Html:
    """Return how the window stands in each phase of its checks."""
    names = [
        ("Window", ""), ("Checks", ""), ("State", ""), ("Rows", "num"), ("Labels", "num"), ("Arrived", "num"),
        ("Fired", "num"),
    ]  # fmt: skip
    return table(names, [window_row(one, view.deployment, reader) for one in view.phases], "Phases")


def found(view: WindowFound) -> Html:
    """Return all that was found in a window, what fired first."""
    if not view.found:
        return empty("Nothing was found in this window: it is empty, or its labels are on the way.")
    rows = [
        el(
            "tr",
            el("td", name_of(one.check)),
            el("td", _about(view, one)),
            el("td", el("span.long", one.segment or "all rows", title=one.segment)),
            el("td", fired(one)),
            el("td.num", value_of(one.check, one.subject, one.value)),
            el("td.num", "-" if one.lower is None else f"{number(one.lower)} to {number(one.upper)}"),
            el("td.num", value_of(one.check, one.subject, one.limit)),
            el("td.num", f"{one.rows:,}"),
            el("td.num", str(one.version)),
        )
        for one in view.found
    ]
    names = [
        ("Check", ""), ("About", ""), ("Where", ""), ("", ""), ("Value", "num"), ("95 % interval", "num"),
        ("Limit", "num"), ("Rows", "num"), ("Version", "num"),
    ]  # fmt: skip
    more = None
    if view.total > len(rows):
        more = el("p.minor", f"{len(rows)} of {view.total} findings; the rest by the JSON interface.")
    return join(table(names, rows, "What was found"), more)


def _about(view: WindowFound, one: Found) -> Html:
    if one.check in {"drift", "missing", "unseen", "out_of_range"} and one.subject:
        return el("a.long", one.subject, href=feature_url(view.deployment, one.subject), title=one.subject)
    return el("span.long", one.subject or "-", title=one.subject)
