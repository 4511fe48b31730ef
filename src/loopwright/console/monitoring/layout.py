"""The monitoring panels of a deployment's page: where things are.

No `from __future__ import annotations` here: NiceGUI reads the signatures of its handlers while the program runs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nicegui import events, ui

from loopwright.console import charts as live_charts
from loopwright.console.chart_parts import Options
from loopwright.console.fragments import empty
from loopwright.console.markup import Html, el
from loopwright.console.monitoring import alert_panels, charts, panels
from loopwright.console.monitoring.drift import DriftOf
from loopwright.console.monitoring.model import MonitoredOf
from loopwright.console.monitoring.views import DriftMap, Monitored
from loopwright.console.page import Feed, Page
from loopwright.console.tokens import Palette
from loopwright.console.views import Story

__all__ = ["monitored"]

#: KPIs that get a chart of their own, and features of the heat map at a time.
_KPIS, _FEATURES = 12, 25


def monitored(page: Page, name: str, unmonitored: Callable[[], Html], beside: Callable[[], None]) -> None:
    """Lay out what the monitors found of a deployment.

    `unmonitored` says what to do while they found nothing; `beside` lays out what stands beside the performance.
    """
    board = page.board
    feed = page.feed(lambda: board.ask(MonitoredOf(name)))
    with page.panel(
        "span-8",
        "Performance by version",
        "on labelled predictions, with 95 % intervals",
        anchor="performance",
    ):
        feed.text("note", lambda view, _: panels.performance_note(view))
        feed.chart("tall", lambda view, colours: _performance(view, board.stories.get(name), colours),
                   label="Performance by version and window; the table below has the same figures")  # fmt: skip
        feed.cover(lambda view: _no_labels(view, board.stories.get(name), unmonitored))
        _as_table(feed, lambda view, reader: panels.performance_table(view, reader))
    beside()
    with page.panel("span-12", "Alerts", "", anchor="alerts"):
        feed.text("alerts-now", lambda view, reader: alert_panels.brief(view.alerts, reader))
    _drift(page, name, unmonitored)
    _kpis(page, feed, name)
    with page.panel("span-6", "Label maturity", "share of the expected labels that has arrived, by window"):
        feed.text("note", lambda view, _: panels.labels(view.labels))
        feed.chart("small", lambda view, colours: charts.labels(view.labels, colours),
                   label="Share of expected labels that arrived, by window")  # fmt: skip
        feed.cover(lambda view: None if view.labels.windows else unmonitored())
    with page.panel("span-6", "Estimated performance", "without labels"):
        feed.text("note", lambda view, _: panels.estimated(view.estimated))
        feed.chart("small", lambda view, colours: charts.estimated(view.estimated, colours),
                   label="Estimated performance by window")  # fmt: skip
        feed.cover(_no_estimate)
    with page.panel("span-8", "Segments", "the newest mature window, the worst first", anchor="segments"):
        feed.text("scroll", lambda view, _: panels.segments(view.segments))
    with page.panel("span-4", "Calibration", "how often forecasts came true"):
        feed.text("note", lambda view, _: panels.calibration(view.calibration))
        feed.chart(
            "small",
            lambda view, colours: charts.calibration(view.calibration, colours),
            label="How often forecasts came true, by forecast probability",
        )
        feed.cover(_no_calibration)
    with page.panel("span-8", "Data quality", "the newest window", anchor="quality"):
        feed.text("scroll grow", lambda view, _: panels.quality(view.quality))
        feed.text("others", lambda view, _: panels.others(view.others))
    with ui.element("div").classes("column span-4"):
        with page.panel("", "Checks that could not judge", ""):
            feed.text("failures", lambda view, reader: panels.failed(view.failed, reader))
        with page.panel("", "Prediction log", ""):
            feed.text("logged", lambda view, reader: panels.logged(view.log, reader))
        with page.panel("", "Windows", "newest first"):
            feed.text("scroll", lambda view, reader: panels.windows(view.windows, name, reader))


def _as_table(feed: Feed, show: Any) -> None:
    """Add the figures of a chart as a table that opens on demand."""
    with ui.element("details").classes("as-table"):
        ui.html("As a table", sanitize=False, tag="summary")
        feed.text("scroll", show)


def _performance(view: Monitored, story: Story | None, colours: Palette) -> Options:
    """Return the chart of windows; while no monitor has judged one, that of the log's last minutes."""
    if not view.performance.points and not view.performance.waiting and story is not None and story.metric:
        return live_charts.metric(story, colours)
    return charts.performance(view.performance, view.markers, colours)


def _no_labels(view: Monitored, story: Story | None, unmonitored: Callable[[], Html]) -> Html | None:
    if view.performance.points or view.performance.waiting or (story is not None and story.metric):
        return None
    if not view.health.monitored or view.health.last_window is None:
        return unmonitored()
    return empty(
        "Not enough labels yet: hand in what turned out to be true.", "loopwright label PREDICTION-ID ACTUAL"
    )


def _no_calibration(view: Monitored) -> Html | None:
    found = view.calibration
    if found.bins or found.found is not None:
        return None
    return empty("Not judged: it needs labels, and the probabilities of a classifier.")


def _no_estimate(view: Monitored) -> Html | None:
    if view.estimated.points:
        return None
    return empty(
        "No estimate: it needs the probabilities of a classifier and a reference of how well they hold."
    )


def _kpis(page: Page, feed: Feed, name: str) -> None:
    """Lay out one chart for each KPI that is declared."""
    project = page.board.project
    model = project.deployment(name).model
    monitor = project.config.monitor.get(model)
    declared = list(monitor.kpi)[:_KPIS] if monitor else []
    with page.panel("span-12", "KPIs", "against their targets", anchor="kpis"):
        if not declared:
            example = '{ sql = "select avg(prediction) from predictions", at_most = 0.1 }'
            text = el("code", f"kpi.<name> = {example}")
            ui.html(
                el(
                    "div.empty",
                    el("p", "No KPI is declared. In loopwright.toml, below "),
                    el("code", f"[monitor.{model}]"),
                    text,
                ),
                sanitize=False,
            )
            return
        with ui.element("div").classes("kpis"):
            for place in range(len(declared)):
                with ui.element("div").classes("kpi"):
                    _kpi(feed, place)


def _kpi(feed: Feed, place: int) -> None:
    feed.text("kpi-text", lambda view, _: panels.kpi(view.kpis[place]))
    feed.chart(
        "kpi-chart",
        lambda view, colours: charts.kpi(view.kpis[place], colours),
        label=f"KPI {place + 1} by window",
    )


@dataclass(slots=True)
class _Asked:
    """Which features of the heat map one reader wants to see."""

    search: str = ""
    offset: int = 0


def _drift(page: Page, name: str, unmonitored: Callable[[], Html]) -> None:
    """Lay out the heat map with its search and its pages."""
    board = page.board
    asked = _Asked()

    async def read() -> DriftMap:
        question = DriftOf(name, search=asked.search, offset=asked.offset, limit=_FEATURES)
        return await board.ask(question)

    feed = page.feed(read)

    async def search(event: events.ValueChangeEventArguments) -> None:
        asked.search, asked.offset = str(event.value or ""), 0
        await page.look()

    async def turn(step: int) -> None:
        total = feed.view.total if feed.view else 0
        offset = asked.offset + step * _FEATURES
        if 0 <= offset < total:
            asked.offset = offset
            await page.look()

    def opened(event: events.GenericEventArguments) -> None:
        facts = event.args if isinstance(event.args, dict) else {}
        value, known = facts.get("value"), [one.name for one in feed.view.features] if feed.view else []
        # A cell gives its row of numbers, the axis the name.
        if isinstance(value, list) and len(value) > 1 and value[1] in range(len(known)):
            value = known[value[1]]
        if value in known:
            ui.navigate.to(panels.feature_url(name, str(value)))

    with page.panel(
        "span-12",
        "Drift by feature",
        "PSI against the training data; a click opens the feature",
        anchor="drift",
    ):
        with ui.element("div").classes("tools"):
            field = ui.input(placeholder="Search features", on_change=search).props(
                'dense outlined debounce=250 clearable aria-label="Search features"'
            )
            field.classes("search")
            feed.text("range", lambda view, _: panels.drift_range(view))
            for text, label, step in (("←", "Earlier features", -1), ("→", "More features", 1)):
                button = ui.element("button").classes("act").props(f'type=button aria-label="{label}"')
                button.on("click", lambda _, step=step: turn(step))
                with button:
                    ui.html(text, sanitize=False, tag="span")
        feed.text("note", lambda view, _: panels.drift_legend(view))
        chart = feed.chart(
            "heat",
            charts.drift,
            label="Drift by feature and window; the table below has the same figures",
            height=lambda view: 70 + 18 * max(6, len(view.features)),
        )
        chart.on("componentClick", opened, ["componentType", "value"])
        feed.cover(lambda view: None if view.inputs else unmonitored())
        _as_table(feed, lambda view, _: panels.drift_table(view))
