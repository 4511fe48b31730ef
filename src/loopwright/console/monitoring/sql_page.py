"""The page of SQL over the prediction log.

No `from __future__ import annotations` here: NiceGUI reads the signatures of its pages while the program runs.
"""

from typing import Any

from fastapi import Request
from nicegui import ui

from loopwright.console.chart_parts import Options
from loopwright.console.fragments import code
from loopwright.console.guard import check_host
from loopwright.console.markup import Html, el, join
from loopwright.console.monitoring import feature_charts, sql
from loopwright.console.page import Page, not_found
from loopwright.console.refresh import Board
from loopwright.console.tokens import Palette
from loopwright.errors import LoopwrightError

__all__ = ["register"]


_ALL = "all deployments"
_NOTHING = "nothing asked yet"


class _Asked:
    """What the page has asked last, and the answer or what is wrong with the question."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.found: sql.Answered | LoopwrightError | str = _NOTHING

    async def ask(self, text: str, deployment: str) -> None:
        try:
            self.found = await self.board.query(text, deployment=deployment or None, since=None, until=None)
        except LoopwrightError as error:
            self.found = error

    async def answer(self) -> Any:
        return self.found


def register(board: Board) -> None:
    """Declare the page."""

    async def page(request: Request) -> None:
        try:
            # Everything in the log can be read from here, so not for a foreign name that points to this machine.
            check_host(request)
        except LoopwrightError as error:
            not_found(board, error)
            return
        ui.page_title(f"SQL · {board.project.name} · Loopwright")
        sheet = Page(board, request, ("SQL", ""), here="sql")
        asked = _Asked(board)
        feed = sheet.feed(asked.answer)

        async def run() -> None:
            button.props("disabled")
            try:
                await asked.ask(field.value or "", "" if chosen.value == _ALL else str(chosen.value))
            finally:
                button.props(remove="disabled")
            chart.set_visibility(_drawable(asked.found))
            await sheet.look()

        def example(number: int) -> None:
            field.value = sql.EXAMPLES[number][1]

        with sheet.shell():
            ui.html(_head(), sanitize=False).classes("section")
            with ui.element("section").classes("panel"):
                field = ui.textarea(value=sql.EXAMPLES[0][1]).props(
                    'outlined autogrow spellcheck=false aria-label="SQL" input-class="sql-text"'
                )
                field.classes("sql")
                field.on("keydown.ctrl.enter", run)
                with ui.element("div").classes("tools"):
                    button = _button("Run", run, "act main")
                    chosen = ui.select([_ALL, *board.project.config.deployment], value=_ALL).props(
                        'dense outlined aria-label="Deployment"'
                    )
                    chosen.classes("search")
                    save = el("button.act", "Save as CSV", type="button", data_csv=True)
                    ui.html(save, sanitize=False)
                    ui.html("", sanitize=False, tag="span").classes("act-said").props("role=status")
                with ui.element("div").classes("tools examples"):
                    for number, (name, _) in enumerate(sql.EXAMPLES):
                        _button(name, lambda number=number: example(number), "choice")
            with sheet.panel("", "Answer"):
                feed.text("note", lambda view, _: _note(view))
                chart = feed.chart(
                    "small", lambda view, colours: _chart(view, colours), label="The answer as a chart"
                )
                chart.set_visibility(False)
                feed.text("answer", lambda view, _: _table(view))
            ui.html(_what(), sanitize=False).classes("foot")
        await sheet.start()

    ui.page("/sql", title="SQL · Loopwright", response_timeout=30)(page)


def _button(text: str, act: Any, kind: str) -> ui.element:
    button = ui.element("button").classes(kind).props("type=button")
    button.on("click", act)
    with button:
        ui.html(text, sanitize=False, tag="span")
    return button


def _head() -> Html:
    return join(
        el("h1", "SQL over the prediction log"),
        el(
            "span.minor",
            f"read-only, DuckDB's dialect; the first {sql.ROWS:,} rows, {sql.TIMEOUT_S:g} s at most",
        ),
    )


def _what() -> Html:
    return el(
        "p",
        "Views: ",
        code("predictions"),
        " (one row each, with its label in ",
        code("actual"),
        "), ",
        code("shadows"),
        ", ",
        code("labels"),
        ". For programs: ",
        code("POST /api/sql"),
    )


def _drawable(found: Any) -> bool:
    return isinstance(found, sql.Answered) and sql.chart_of(found) is not None


def _chart(view: Any, colours: Palette) -> Options:
    return feature_charts.answer(view, colours) if isinstance(view, sql.Answered) else {}


def _note(view: Any) -> Html:
    if view is _NOTHING:
        return el("p.minor", "Press Run, or Ctrl and Enter in the text.")
    if isinstance(view, LoopwrightError):
        return join(
            el("p.bad-text", view.fact, role="alert"),
            el("p.minor", view.valid) if view.valid else None,
            el("p.minor", "Next: ", code(view.hint)) if view.hint else None,
        )
    rows = len(view.rows)
    more = f"the first {rows:,} rows" if view.truncated else f"{rows:,} row{'s' if rows != 1 else ''}"
    return el("p.minor", f"{more} in {view.seconds:.2f} s", data_field="answer")


def _table(view: Any) -> Html:
    if not isinstance(view, sql.Answered):
        return Html("")
    numeric = [kind.startswith(("int", "uint", "float", "double", "decimal")) for kind in view.types]
    head = el(
        "tr",
        *(
            el("th.num" if right else "th", name, title=kind, scope="col")
            for name, kind, right in zip(view.columns, view.types, numeric, strict=True)
        ),
    )
    rows = [
        el(
            "tr",
            *(
                el("td.num" if right else "td", _cell(value))
                for value, right in zip(row, numeric, strict=True)
            ),
        )
        for row in view.rows
    ]
    return el(
        "div.wide.tall",
        el("table", el("thead", head), el("tbody", *rows)),
        tabindex="0",
        role="region",
        aria_label="Answer",
    )


def _cell(value: Any) -> Html | str:
    if value is None:
        return el("span.minor", "null")
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return el("span.long", text, title=text) if len(text) > 40 else text
