"""The pages of one feature, one window, alerts and SQL.

No `from __future__ import annotations` here: NiceGUI reads the signatures of its pages while the program runs.
"""

from urllib.parse import quote, urlencode

from fastapi import Request
from nicegui import ui

from loopwright.console import fragments
from loopwright.console.chart_parts import Options
from loopwright.console.formats import Reader
from loopwright.console.fragments import empty
from loopwright.console.markup import Html, el, join
from loopwright.console.monitoring import alert_panels, feature_charts, feature_panels, panels, sql_page
from loopwright.console.monitoring.alerts import AlertOf, AlertsOf
from loopwright.console.monitoring.features import FeatureOf
from loopwright.console.monitoring.views import AlertPage, FeatureStory
from loopwright.console.monitoring.windows import WindowOf, parsed
from loopwright.console.page import Feed, Page, not_found
from loopwright.console.refresh import Board
from loopwright.console.tokens import Palette
from loopwright.errors import LoopwrightError

__all__ = ["register"]

_PAGE = 20


def register(board: Board) -> None:
    """Declare the pages."""

    async def feature(request: Request, name: str, feature: str) -> None:
        question = FeatureOf(name, feature)
        try:
            found = await board.ask(question)
        except LoopwrightError as error:
            not_found(board, error)
            return
        ui.page_title(f"{feature} · {name} · Loopwright")
        page = Page(board, request, (name, panels.model_url(name)), (feature, ""))
        feed = page.feed(lambda: board.ask(question))
        with page.shell():
            _feature(page, feed, found.kind)
            _foot(
                feed, f"/api/monitoring/deployments/{quote(name, safe='')}/features/{quote(feature, safe='')}"
            )
        await page.start()

    async def window(request: Request, name: str, start: str) -> None:
        try:
            question = WindowOf(name, parsed(start))
            await board.ask(question)
        except LoopwrightError as error:
            not_found(board, error)
            return
        ui.page_title(f"Window {start} · {name} · Loopwright")
        page = Page(board, request, (name, panels.model_url(name)), ("window", ""))
        feed = page.feed(lambda: board.ask(question))
        with page.shell():
            feed.text("head", feature_panels.window_head, tag="header")
            with ui.element("div").classes("board"):
                with page.panel("span-8", "Phases"):
                    feed.text("phases", feature_panels.window_phases)
                with page.panel("span-4", "Checks that could not judge it"):
                    feed.text("failures", lambda view, reader: panels.failed(view.failed, reader))
                with page.panel("span-12", "What was found", "what fired first"):
                    feed.text("found", lambda view, _: feature_panels.found(view))
            _foot(feed, f"/api/monitoring/deployments/{quote(name, safe='')}/windows/{quote(start, safe='')}")
        await page.start()

    async def alerts(
        request: Request, state: str = "open", deployment: str = "", severity: str = "", page: int = 1
    ) -> None:
        every = state == "all"
        question = AlertsOf(every, deployment, "", severity, _PAGE * (max(page, 1) - 1), _PAGE)
        sheet = Page(board, request, ("Alerts", ""), here="alerts")
        ui.page_title(f"Alerts · {board.project.name} · Loopwright")
        feed = sheet.feed(lambda: board.ask(question))
        with sheet.shell():
            feed.text("section", lambda view, _: _alerts_head(view, question))
            feed.text("alert-list", _alerts)
            feed.text("pages", lambda view, _: _turn(view, question))
            feed.text("silences-now", alert_panels.silences)
            _foot(feed, f"/api/monitoring/alerts?state={'all' if every else 'open'}")
        await sheet.start()

    async def alert(request: Request, name: str) -> None:
        question = AlertOf(name)
        try:
            found = await board.ask(question)
        except LoopwrightError as error:
            not_found(board, error)
            return
        ui.page_title(f"Alert {found.alert.short} · {board.project.name} · Loopwright")
        page = Page(board, request, ("Alerts", "/alerts"), (found.alert.short, ""), here="alerts")
        feed = page.feed(lambda: board.ask(question))
        with page.shell():
            feed.text("alert-list", alert_panels.full)
            _foot(feed, f"/api/monitoring/alerts/{found.alert.short}")
        await page.start()

    # Called, not used as decorators: those of NiceGUI carry no types.
    ui.page("/model/{name}/feature/{feature:path}", title="Loopwright", response_timeout=30)(feature)
    ui.page("/model/{name}/window/{start}", title="Loopwright", response_timeout=30)(window)
    ui.page("/alerts", title="Alerts · Loopwright", response_timeout=30)(alerts)
    ui.page("/alerts/{name:path}", title="Alert · Loopwright", response_timeout=30)(alert)
    sql_page.register(board)


def _foot(feed: Feed, *addresses: str) -> None:
    feed.text("foot", lambda _, __: fragments.foot(*addresses, "/api/openapi.json"), tag="footer")


def _feature(page: Page, feed: Feed, kind: str) -> None:
    """Lay out the page of one feature."""
    feed.text("head", lambda view, _: feature_panels.feature_head(view), tag="header")
    feed.text("tiles", lambda view, _: feature_panels.feature_tiles(view))
    texts = kind == "categorical"
    with ui.element("div").classes("board"):
        with page.panel("span-7", "Distribution", "reference against now"):
            feed.text("note", lambda view, _: feature_panels.distribution_note(view))
            feed.chart(
                "tall",
                lambda view, colours: feature_charts.distribution(view.bins, colours),
                label="Distribution now against the reference; the table below has the same figures",
            )
            feed.cover(_no_bins)
            with ui.element("details").classes("as-table"):
                ui.html("As a table", sanitize=False, tag="summary")
                feed.text("scroll", lambda view, _: feature_panels.bins(view))
        with ui.element("div").classes("column span-5"):
            with page.panel("", "By version", "the newest window of each"):
                feed.text("scroll", lambda view, _: feature_panels.versions(view))
            if texts:
                with page.panel("", "Categories", "the largest change first"):
                    feed.text("scroll", lambda view, _: feature_panels.categories(view))
            else:
                _segments(page, feed, "")
        with page.panel("span-6", "Drift over time", "PSI and its limit, by window"):
            feed.chart(
                "small",
                lambda view, colours: feature_charts.drift(view.drift, colours),
                label="PSI and its limit by window",
            )
            feed.cover(
                lambda view: None if view.drift else empty("No window was judged yet.", "loopwright up")
            )
        with page.panel("span-6", "Missing, unseen and out of range", "share of rows, by window"):
            feed.chart("small", _shares, label="Shares of missing, unseen and out-of-range values by window")
            feed.cover(_no_shares)
        if texts:
            _segments(page, feed, "span-12")
        else:
            _mean(page, feed)
        with page.panel("span-12", "Alerts"):
            feed.text("alerts-now", lambda view, reader: alert_panels.brief(view.alerts, reader))


def _segments(page: Page, feed: Feed, width: str) -> None:
    with page.panel(width, "By segment", "the newest window"):
        feed.text("scroll", lambda view, _: feature_panels.segments(view))


def _mean(page: Page, feed: Feed) -> None:
    with page.panel("span-12", "Mean over time", "the band is one standard deviation of the training data"):
        feed.chart("small", feature_charts.moved, label="Mean over time against the training data")
        feed.cover(lambda view: None if view.moved else empty("No window kept its mean yet."))


def _shares(view: FeatureStory, colours: Palette) -> Options:
    parts = {"missing": view.missing, "unseen": view.unseen, "out of range": view.out_of_range}
    return feature_charts.shares({name: found for name, found in parts.items() if found}, colours)


def _no_bins(view: FeatureStory) -> Html | None:
    if view.bins:
        return None
    return empty(
        "No distribution: the version has no reference profile, or the log does not keep this input.",
        "loopwright model show MODEL",
    )


def _no_shares(view: FeatureStory) -> Html | None:
    known = view.missing or view.unseen or view.out_of_range
    return None if known else empty("No window was judged for missing, unseen or out-of-range values yet.")


def _alerts_head(view: AlertPage, asked: AlertsOf) -> Html:
    def choice(text: str, **changes: str) -> Html:
        values = {"deployment": asked.deployment, "severity": asked.severity}
        values |= {"state": "all" if asked.resolved else "open"} | changes
        address = "/alerts?" + urlencode({key: value for key, value in values.items() if value})
        here = all(str(values[key]) == str(_now(asked)[key]) for key in changes)
        return el("a.choice", text, href=address, aria_current="true" if here else None)

    severities = join(
        choice("any severity", severity=""),
        *(choice(name, severity=name) for name in ("critical", "warning", "info")),
    )
    return join(
        el("h1", "Alerts"),
        el(
            "span.minor",
            f"{view.open} open, {view.total} shown" + (f" of {asked.deployment}" if asked.deployment else ""),
        ),
        el("nav.choices", choice("open", state="open"), choice("all", state="all"), aria_label="State"),
        el("nav.choices", severities, aria_label="Severity"),
    )


def _now(asked: AlertsOf) -> dict[str, str]:
    return {
        "state": "all" if asked.resolved else "open",
        "deployment": asked.deployment,
        "severity": asked.severity,
    }


def _alerts(view: AlertPage, reader: Reader) -> Html:
    if not view.alerts:
        return empty(
            "No alert: nothing has been wrong for long enough to say so.", "loopwright alert list --all"
        )
    return join(*(alert_panels.card(one, reader) for one in view.alerts))


def _turn(view: AlertPage, asked: AlertsOf) -> Html:
    """Return the links to the pages before and after."""
    pages = -(-view.total // asked.limit)
    if pages < 2:
        return Html("")
    here = asked.offset // asked.limit + 1

    def to(text: str, page: int) -> Html:
        address = "/alerts?" + urlencode(
            {key: value for key, value in _now(asked).items() if value} | {"page": page}
        )
        return el("a.choice", text, href=address)

    return el(
        "nav.choices",
        to("← newer", here - 1) if here > 1 else None,
        el("span.minor", f"page {here} of {pages}"),
        to("older →", here + 1) if here < pages else None,
        aria_label="Pages",
    )
