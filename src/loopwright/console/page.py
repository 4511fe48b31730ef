"""One open page in a browser: what it shows, from where, and showing it anew when there is something new.

No `from __future__ import annotations` here: NiceGUI reads the signatures of its pages while the program runs.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

from fastapi import Request
from nicegui import events, ui

from loopwright.console import fragments, tokens
from loopwright.console.formats import Reader
from loopwright.console.markup import Html, el, join
from loopwright.console.refresh import Board
from loopwright.errors import LoopwrightError

__all__ = ["Crumb", "Feed", "Page", "not_found"]

log = logging.getLogger(__name__)
#: Seconds between two looks whether there is something new to show.
LOOK_S = 0.5
Show = Callable[[Any, Reader], Html]
Options = Callable[[Any, tokens.Palette], dict[str, Any]]
#: A step of the way to a page: its name and its address, empty for the page itself.
Crumb = tuple[str, str]


class Feed:
    """One source of a page and the texts and charts that show it; they are written anew when it gives another object."""

    def __init__(self, get: Callable[[], Awaitable[Any]]) -> None:
        self.get = get
        self.view: Any = None
        self._texts: list[tuple[ui.html, Show]] = []
        self._charts: list[tuple[ui.echart, Options, Callable[[Any], int] | None]] = []

    def text(self, kind: str, show: Show, tag: str = "div") -> ui.html:
        """Add a part that is text."""
        element = ui.html("", sanitize=False, tag=tag).classes(kind)
        self._texts.append((element, show))
        return element

    def cover(self, show: Callable[[Any], Html | None]) -> None:
        """Add what covers the chart before it while there is nothing to draw."""
        self.text("cover", lambda view, _: show(view) or Html(""))

    def chart(
        self, size: str, options: Options, *, label: str = "", height: Callable[[Any], int] | None = None
    ) -> ui.echart:
        """Add a chart; `label` says to those who cannot see it what it shows, `height` its pixels where they vary."""
        element = ui.echart({}).classes(f"chart {size}")

        def labelled(view: Any, colours: tokens.Palette) -> dict[str, Any]:
            made = options(view, colours)
            # The chart writes this itself, over whatever the element has.
            return made | {"aria": {"enabled": True, "label": {"description": label}}} if label else made

        self._charts.append((element, labelled, height))
        return element

    def show(self, reader: Reader) -> None:
        """Write what has changed; the browser gets nothing of the rest."""
        if self.view is None:
            return
        for element, show in self._texts:
            element.content = show(self.view, reader)
        colours = tokens.palette(reader.dark)
        for chart, make, height in self._charts:
            if height is not None:
                chart.style(f"height: {height(self.view)}px")
            options = make(self.view, colours)
            if options != chart.options:
                chart.options.clear()
                chart.options.update(options)
                chart.update()


class Page:
    """One open page of a board.

    Parameters
    ----------
    crumbs
        The way from the project to this page.
    here
        Which of the places in the bar this is: ``models``, ``alerts``, ``sql``.
    """

    def __init__(self, board: Board, request: Request, *crumbs: Crumb, here: str = "models") -> None:
        self.board = board
        self.reader = _reader(request)
        self._feeds: list[Feed] = []
        self._live = _bar(board, crumbs, here)

    def shell(self) -> ui.element:
        """Return the element that holds the page."""
        return ui.element("main").classes("shell")

    def panel(self, width: str, name: str, note: str = "", *, anchor: str = "") -> ui.element:
        """Return a panel with its title; `anchor` makes it a place that a link can lead to."""
        panel = ui.element("section").classes(f"panel {width}")
        if anchor:
            panel.props(f"id={anchor}")
        with panel:
            title = el("div.panel-head", el("h2", name), el("span.panel-note", note) if note else None)
            ui.html(title, sanitize=False)
        return panel

    def feed(self, get: Callable[[], Awaitable[Any]]) -> Feed:
        """Add a source."""
        feed = Feed(get)
        self._feeds.append(feed)
        return feed

    async def start(self) -> None:
        """Show what there is and keep it fresh while the page is open."""
        ui.on("reader", self._met)
        ui.context.client.on_connect(lambda: ui.run_javascript("loopwright.report()"))
        await self.look()
        # A timer has the page sent as it is by then: only now everything is on it.
        ui.timer(LOOK_S, self.look, immediate=False)

    async def look(self) -> None:
        """Ask all sources and show those that gave something new."""
        error = self.board.error
        for feed in self._feeds:
            try:
                view = await feed.get()
            except LoopwrightError as refused:
                error = refused.fact
                continue
            except Exception as failure:  # the page says what is wrong and the next look tries again
                if not error:
                    log.warning("A page was not refreshed", exc_info=failure)
                error = f"{type(failure).__name__}: {failure}"
                continue
            if view is not feed.view:
                feed.view = view
                feed.show(self.reader)
        self._say(error)

    def _say(self, error: str) -> None:
        at = next((feed.view.at for feed in self._feeds if hasattr(feed.view, "at")), None)
        self._live.content = fragments.live(at, error, self.reader)

    def _met(self, event: events.GenericEventArguments) -> None:
        """Take note of the browser's theme and time zone."""
        facts = event.args if isinstance(event.args, dict) else {}
        reader = Reader(bool(facts.get("dark")), str(facts.get("zone", "")))
        if reader != self.reader:
            self.reader = reader
            for feed in self._feeds:
                feed.show(reader)


def _reader(request: Request) -> Reader:
    """Read theme and time zone from the cookie that the page's script wrote on an earlier visit."""
    theme, _, zone = unquote(request.cookies.get("loopwright-reader", "")).partition(" ")
    return Reader(theme == "dark", zone)


_PLACES = (("models", "Models", "/"), ("alerts", "Alerts", "/alerts"), ("sql", "SQL", "/sql"))


def _bar(board: Board, crumbs: tuple[Crumb, ...] = (), here: str = "") -> ui.html:
    """Lay out the bar at the top and return the part that says how fresh the page is."""
    with ui.element("header").classes("bar"):
        ui.html(fragments.breadcrumb(board.project.name, crumbs), sanitize=False).classes("bar-left")
        with ui.element("div").classes("bar-right"):
            places = join(
                *(
                    el("a.place", name, href=url, aria_current="page" if key == here else None)
                    for key, name, url in _PLACES
                )
            )
            ui.html(places, sanitize=False, tag="nav").classes("places").props('aria-label="Places"')
            fresh = ui.html("", sanitize=False)
            label = "Switch between light and dark"
            button = el(
                "button.theme",
                el("span.sign", "◐"),
                type="button",
                onclick="loopwright.toggle()",
                aria_label=label,
                title=label,
            )
            ui.html(button, sanitize=False)
    return fresh


def not_found(board: Board, error: LoopwrightError | str) -> None:
    """Lay out the page of something that does not exist."""
    _bar(board)
    known = list(board.project.config.deployment)
    fact, valid, hint = (error, "", "") if isinstance(error, str) else (error.fact, error.valid, error.hint)
    with ui.element("main").classes("shell"):
        ui.html(fragments.missing(fact, valid, hint, known), sanitize=False)
    ui.context.client.status_code = 404 if isinstance(error, str) else error.http_status
