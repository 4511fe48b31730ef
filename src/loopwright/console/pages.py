"""The pages of all deployments and of one: where things are. What they say is in `fragments`, `charts` and the panels.

No `from __future__ import annotations` here: NiceGUI reads the signatures of its pages while the program runs.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import Request
from nicegui import ui

from loopwright import parts
from loopwright.config import Project
from loopwright.console import charts, fragments, serving_panel, tokens
from loopwright.console.cards import cards
from loopwright.console.formats import span
from loopwright.console.markup import Html, el
from loopwright.console.maturity_panel import maturity
from loopwright.console.monitoring import pages as monitoring_pages
from loopwright.console.monitoring.layout import monitored
from loopwright.console.page import Feed, Page, not_found
from loopwright.console.refresh import Board
from loopwright.console.release_panel import release
from loopwright.console.schedules import schedules
from loopwright.console.views import Serving, Story
from loopwright.errors import NotFound
from loopwright.records import Mode

__all__ = ["register"]

_HERE = Path(__file__).parent


def register(board: Board) -> None:
    """Declare the pages."""
    script = (_HERE / "console.js").read_text(encoding="utf-8")
    style = tokens.css() + "".join(
        (_HERE / name).read_text(encoding="utf-8") for name in ("console.css", "monitoring.css")
    )
    ui.add_head_html(f"<script>{script}</script><style>{style}</style>", shared=True)

    async def index(request: Request) -> None:
        await board.overview()
        page = Page(board, request)
        feed = page.feed(board.overview)
        with page.shell():
            feed.text("section", lambda view, _: _section("Models at a glance", len(view.deployments)))
            feed.text("cards", lambda view, _: cards(view))
            feed.text("scroll", schedules)
            feed.text("maturity", lambda _, __: maturity(board.maturity), tag="section")
            api = ("/api/monitoring/deployments", "/api/deployments", "/api/maturity", "/api/openapi.json")
            feed.text("foot", lambda _, __: fragments.foot(*api), tag="footer")
        await page.start()

    async def model(request: Request, name: str) -> None:
        try:
            await board.story(name)
        except NotFound as error:
            not_found(board, error)
            return
        ui.page_title(f"{name} · {board.project.name} · Loopwright")
        page = Page(board, request, (name, ""))
        with page.shell():
            _story(page, name)
        await page.start()

    def anything(path: str) -> None:
        not_found(board, f"There is no page /{path}.")

    # Called, not used as decorators: those of NiceGUI carry no types.
    ui.page("/", title=f"{board.project.name} · Loopwright", response_timeout=30)(index)
    ui.page("/model/{name}", title="Loopwright", response_timeout=30)(model)
    monitoring_pages.register(board)
    ui.page("/{path:path}", title="Not found · Loopwright")(anything)


def _section(name: str, count: int) -> Html:
    return el("div.section", el("h1", name), el("span.minor", f"{count} deployments"))


def _story(page: Page, name: str) -> None:
    """Lay out the page of one deployment."""
    board = page.board
    declared = board.project.deployment(name)
    feed = page.feed(lambda: board.story(name))
    feed.text("head", lambda story, _: fragments.heading(story), tag="header")
    feed.text("tiles", lambda story, _: fragments.tiles(story))
    with ui.element("div").classes("board"):
        kept = f", {100 * declared.log.sample:.3g} % are logged" if declared.log.sample < 1 else ""
        with page.panel("span-6", f"{fragments.WHAT[declared.mode]} per second", f"last 15 min{kept}"):
            feed.chart("small", charts.traffic, label="Predictions per second over the last 15 minutes")
            feed.cover(_no_traffic)
        with page.panel("span-6", "Latency", "milliseconds"):
            feed.chart("small", charts.latency, label="Median and 99th percentile of latency")
            feed.cover(_no_traffic)
        monitored(page, name, partial(_unmonitored, board.project, name), partial(_release, page, feed))
        if declared.mode == Mode.online:
            _serving(page, feed)
        with page.panel("span-12", "What happened", "newest first", anchor="events"):
            feed.text("happened", lambda story, reader: fragments.timeline(story.timeline, reader))
    api = (
        f"/api/deployments/{quote(name)}",
        f"/api/monitoring/deployments/{quote(name)}",
        "/api/openapi.json",
    )
    feed.text("foot", lambda _, __: fragments.foot(*api), tag="footer")


def _release(page: Page, feed: Feed) -> None:
    with page.panel("span-4", "Release", ""):
        feed.text("release", release)


def _serving(page: Page, feed: Feed) -> None:
    """Lay out how an online deployment answers."""

    def figure(
        chart: Callable[[Serving, tokens.Palette], dict[str, Any]],
    ) -> Callable[[Any, tokens.Palette], Any]:
        return lambda story, colours: chart(story.serving, colours) if story.serving else {}

    with page.panel("span-7", "Latency by stage", "logarithmic", anchor="serving"):
        feed.chart(
            "stages", figure(charts.stages), label="Latency by stage; the table below has the same figures"
        )
        feed.text("stages-now", lambda story, _: serving_panel.stages(story))
        feed.cover(serving_panel.absent)
    with ui.element("div").classes("column span-5"):
        with page.panel("", "Error budget", ""):
            feed.text("budgets-now", lambda story, _: serving_panel.budget(story))
        with page.panel("", "Who may ask, and what is kept", ""):
            feed.text("rules-now", lambda story, _: serving_panel.rules(story))
    with page.panel("span-6", "Micro-batches", "rows"):
        feed.chart("batches", figure(charts.batches), label="Shares of micro-batches by number of rows")
        feed.text("queue", lambda story, _: serving_panel.queue(story))
        feed.cover(serving_panel.absent)
    with page.panel("span-6", "Requests by status", ""):
        feed.text("requests", lambda story, _: serving_panel.requests(story))
        feed.cover(serving_panel.absent)
    with page.panel("span-12", "What computes the answers", "proven on real rows, then timed"):
        feed.text("runtimes", lambda story, _: serving_panel.runtimes(story))


def _no_traffic(story: Story) -> Html | None:
    if story.traffic:
        return None
    if story.card.numbers.rows:
        return fragments.empty("The first interval is not over yet.")
    if not story.card.started:
        return fragments.empty("Not in service yet.", story.card.hint)
    return fragments.empty("No predictions in the last 15 minutes.", story.card.hint)


def _unmonitored(project: Project, name: str) -> Html:
    """Say why no window has been judged, and what to do."""
    model = project.deployment(name).model
    monitor = project.config.monitor.get(model)
    if monitor is None:
        return fragments.empty(
            "No monitor watches this model. In loopwright.toml, add:", f"[monitor.{model}]"
        )
    if parts.ready(project, "controller"):
        return fragments.empty(
            f"No window has been judged yet; each is {span(monitor.window.total_seconds())} long."
        )
    return fragments.empty(
        "No window has been judged yet. Monitors run with the other parts:", "loopwright up"
    )
