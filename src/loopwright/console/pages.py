"""The pages: where things are. What they say is in `fragments`, `release_panel` and `charts`.

No `from __future__ import annotations` here: NiceGUI reads the signatures of its pages while the program runs.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from fastapi import Request
from nicegui import events, ui

from loopwright import parts
from loopwright.config import Project
from loopwright.console import charts, fragments, serving_panel, tokens
from loopwright.console.cards import cards
from loopwright.console.formats import Reader, span
from loopwright.console.markup import Html, el
from loopwright.console.maturity_panel import maturity
from loopwright.console.refresh import Board
from loopwright.console.release_panel import release
from loopwright.console.schedules import schedules
from loopwright.console.views import Serving, Story
from loopwright.errors import NotFound
from loopwright.records import Mode

__all__ = ["register"]

_HERE = Path(__file__).parent
#: Seconds between two looks whether there is something new to show.
LOOK_S = 0.5
Show = Callable[[Any, Reader], Html]


def register(board: Board) -> None:
    """Declare the pages."""
    script = (_HERE / "console.js").read_text(encoding="utf-8")
    style = tokens.css() + (_HERE / "console.css").read_text(encoding="utf-8")
    ui.add_head_html(f"<script>{script}</script><style>{style}</style>", shared=True)

    async def index(request: Request) -> None:
        await board.overview()
        page = _Page(board, request, "")
        with page.shell():
            page.text("section", lambda view, _: _section("Models at a glance", len(view.deployments)))
            page.text("cards", lambda view, _: cards(view))
            page.text("scroll", schedules)
            page.text("maturity", lambda _, __: maturity(board.maturity), tag="section")
            page.text("foot", lambda _, __: fragments.foot("/api/deployments", "/api/maturity"), tag="footer")
        page.start()

    async def model(request: Request, name: str) -> None:
        try:
            await board.story(name)
        except NotFound as error:
            _not_found(board, error.fact, error.valid, error.hint)
            return
        ui.page_title(f"{name} · {board.project.name} · Loopwright")
        page = _Page(board, request, name)
        with page.shell():
            _story(page, board.project.deployment(name).mode)
        page.start()

    def anything(path: str) -> None:
        _not_found(board, f"There is no page /{path}.", "", "")

    # Called, not used as decorators: those of NiceGUI carry no types.
    ui.page("/", title=f"{board.project.name} · Loopwright", response_timeout=30)(index)
    ui.page("/model/{name}", title="Loopwright", response_timeout=30)(model)
    ui.page("/{path:path}", title="Not found · Loopwright")(anything)


def _section(name: str, count: int) -> Html:
    return el("div.section", el("h1", name), el("span.minor", f"{count} deployments"))


def _story(page: "_Page", mode: str) -> None:
    """Lay out the page of one deployment of a mode."""
    page.text("head", lambda story, _: fragments.heading(story), tag="header")
    page.text("tiles", lambda story, _: fragments.tiles(story))
    with ui.element("div").classes("board"):
        log = page.board.project.deployment(page.name).log
        kept = f", {100 * log.sample:.3g} % are logged" if log.sample < 1 else ""
        with page.panel("span-6", f"{fragments.WHAT[mode]} per second", f"10 s intervals{kept}"):
            page.chart("small", lambda story, colours: charts.traffic(story, colours))
            page.cover(_no_traffic)
        with page.panel("span-6", "Latency", "milliseconds"):
            page.chart("small", lambda story, colours: charts.latency(story, colours))
            page.cover(_no_traffic)
        if mode == Mode.online:
            _serving(page)
        with page.panel("span-8", "Performance by version", "on labelled predictions"):
            page.chart("tall", lambda story, colours: charts.metric(story, colours))
            page.cover(_no_labels)
        with page.panel("span-4", "Release", ""):
            page.text("release", release)
        with page.panel("span-7", "Drift by feature", "PSI against the training data, largest first"):
            page.text("legend", lambda story, _: _legend(story))
            page.chart("heat", lambda story, colours: charts.drift(story.drift, colours))
            page.cover(partial(_no_drift, page.board.project))
        with page.panel("span-5", "Alerts", ""):
            page.text("checks-now", lambda story, _: fragments.checks(story.checks))
            page.text("scroll", lambda story, reader: fragments.alerts(story.alerts, reader))
        with page.panel("span-12", "What happened", "newest first"):
            page.text("happened", lambda story, reader: fragments.timeline(story.timeline, reader))
    page.text("foot", lambda _, __: fragments.foot(f"/api/deployments/{quote(page.name)}"), tag="footer")


def _serving(page: "_Page") -> None:
    """Lay out how an online deployment answers."""

    def figure(
        chart: Callable[[Serving, tokens.Palette], dict[str, Any]],
    ) -> Callable[[Any, tokens.Palette], Any]:
        return lambda story, colours: chart(story.serving, colours) if story.serving else {}

    with page.panel("span-7", "Latency by stage", "logarithmic"):
        page.chart("stages", figure(charts.stages))
        page.text("stages-now", lambda story, _: serving_panel.stages(story))
        page.cover(serving_panel.absent)
    with ui.element("div").classes("column span-5"):
        with page.panel("", "Error budget", ""):
            page.text("budgets-now", lambda story, _: serving_panel.budget(story))
        with page.panel("", "Who may ask, and what is kept", ""):
            page.text("rules-now", lambda story, _: serving_panel.rules(story))
    with page.panel("span-6", "Micro-batches", "rows"):
        page.chart("batches", figure(charts.batches))
        page.text("queue", lambda story, _: serving_panel.queue(story))
        page.cover(serving_panel.absent)
    with page.panel("span-6", "Requests by status", ""):
        page.text("requests", lambda story, _: serving_panel.requests(story))
        page.cover(serving_panel.absent)
    with page.panel("span-12", "What computes the answers", "proven on real rows, then timed"):
        page.text("runtimes", lambda story, _: serving_panel.runtimes(story))


def _no_traffic(story: Story) -> Html | None:
    if story.traffic:
        return None
    if story.card.numbers.rows:
        return fragments.empty("The first interval is not over yet.")
    if not story.card.started:
        return fragments.empty("Not in service yet.", story.card.hint)
    return fragments.empty("No predictions in the last 15 minutes.", story.card.hint)


def _no_labels(story: Story) -> Html | None:
    if story.metric:
        return None
    if not story.traffic:
        return _no_traffic(story)
    return fragments.empty(
        "Not enough labels yet: hand in what turned out to be true.", "loopwright label PREDICTION-ID ACTUAL"
    )


def _no_drift(project: Project, story: Story) -> Html | None:
    if story.drift.cells:
        return None
    monitor = project.config.monitor.get(story.card.model)
    if monitor is None:
        return fragments.empty(
            "No monitor watches this model. In loopwright.toml, add:", f"[monitor.{story.card.model}]"
        )
    if parts.ready(project, "controller"):
        return fragments.empty(
            f"No window has been judged yet; each is {span(monitor.window.total_seconds())} long."
        )
    return fragments.empty(
        "No window has been judged yet. Monitors run with the other parts:", "loopwright up"
    )


def _legend(story: Story) -> Html:
    if not story.drift.cells:
        return Html("")
    names = ("below half the limit", "below the limit", "over the limit", "over twice the limit")
    items = [el("span", el(f"i.h{place}"), name) for place, name in enumerate(names, 1)]
    fired = el("span", f"• fired: {story.drift.fired} of {story.drift.inputs} inputs in the newest window")
    return el("div.legend", *items, fired)


def _reader(request: Request) -> Reader:
    """Read theme and time zone from the cookie that the page's script wrote on an earlier visit."""
    theme, _, zone = unquote(request.cookies.get("loopwright-reader", "")).partition(" ")
    return Reader(theme == "dark", zone)


def _bar(board: Board, name: str = "") -> ui.html:
    """Lay out the bar at the top and return the part that says how fresh the page is."""
    with ui.element("header").classes("bar"):
        ui.html(fragments.breadcrumb(board.project.name, name), sanitize=False).classes("bar-left")
        with ui.element("div").classes("bar-right"):
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


def _not_found(board: Board, fact: str, valid: str, hint: str) -> None:
    _bar(board)
    known = list(board.project.config.deployment)
    with ui.element("main").classes("shell"):
        ui.html(fragments.missing(fact, valid, hint, known), sanitize=False)
    ui.context.client.status_code = 404


class _Page:
    """One open page: its texts and charts, and showing them anew when the board has something new."""

    def __init__(self, board: Board, request: Request, name: str) -> None:
        self.board, self.name, self.reader = board, name, _reader(request)
        self._texts: list[tuple[ui.html, Show]] = []
        self._charts: list[tuple[ui.echart, Callable[[Any, tokens.Palette], dict[str, Any]]]] = []
        self._turn = -1
        self._live = _bar(board, name)

    def shell(self) -> ui.element:
        """Return the element that holds the page."""
        return ui.element("main").classes("shell")

    def panel(self, width: str, name: str, note: str) -> ui.element:
        """Return a panel with its title."""
        panel = ui.element("section").classes(f"panel {width}")
        with panel:
            title = el("div.panel-head", el("h2", name), el("span.panel-note", note) if note else None)
            ui.html(title, sanitize=False)
        return panel

    def text(self, kind: str, show: Show, tag: str = "div") -> None:
        """Add a part that is text."""
        self._texts.append((ui.html("", sanitize=False, tag=tag).classes(kind), show))

    def cover(self, show: Callable[[Any], Html | None]) -> None:
        """Add what covers the chart before it while there is nothing to draw."""
        self.text("cover", lambda view, _: show(view) or Html(""))

    def chart(self, size: str, options: Callable[[Any, tokens.Palette], dict[str, Any]]) -> None:
        """Add a chart."""
        self._charts.append((ui.echart({}).classes(f"chart {size}"), options))

    def start(self) -> None:
        """Show what there is and keep it fresh while the page is open."""
        self._show()
        ui.on("reader", self._met)
        ui.context.client.on_connect(lambda: ui.run_javascript("loopwright.report()"))
        ui.timer(LOOK_S, self._look)

    def _met(self, event: events.GenericEventArguments) -> None:
        """Take note of the browser's theme and time zone."""
        facts = event.args if isinstance(event.args, dict) else {}
        reader = Reader(bool(facts.get("dark")), str(facts.get("zone", "")))
        if reader != self.reader:
            self.reader = reader
            self._show()

    def _look(self) -> None:
        self.board.ask(self.name)
        if self.board.turn != self._turn:
            self._show()

    def _show(self) -> None:
        """Write what has changed; the browser gets nothing of the rest."""
        board = self.board
        view = board.stories.get(self.name) if self.name else board.glance
        self._turn = board.turn
        self._live.content = fragments.live(view, board.error, self.reader)
        if view is None:
            return
        for element, show in self._texts:
            element.content = show(view, self.reader)
        colours = tokens.palette(self.reader.dark)
        for chart, make in self._charts:
            options = make(view, colours)
            if options != chart.options:
                chart.options.clear()
                chart.options.update(options)
                chart.update()
