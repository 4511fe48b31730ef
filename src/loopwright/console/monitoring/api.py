"""The JSON interface of monitoring. Every figure of a page is here too, described by the document at `/api/openapi.json`.

No `from __future__ import annotations` here: FastAPI reads the signatures of its routes while the program runs.
"""

import csv
import io
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, Field

import loopwright
from loopwright.console.guard import check_same_origin
from loopwright.console.monitoring import (
    alerts,
    drift,
    features,
    health,
    live,
    performance,
    quality,
    sql,
    views,
)
from loopwright.console.monitoring import windows as of_windows
from loopwright.console.monitoring.model import MonitoredOf
from loopwright.console.monitoring.source import MOST_WINDOWS, WINDOWS
from loopwright.console.refresh import Board
from loopwright.monitor import alerting

__all__ = ["answered", "csv_of", "document", "router", "sql_router"]

Name = Annotated[str, Path(description="A deployment's name.")]
AlertName = Annotated[str, Path(description="An alert's id or short id, such as ``e987995f``.")]
Windows = Annotated[int, Query(ge=1, le=MOST_WINDOWS, description="So many of the newest windows.")]
Offset = Annotated[int, Query(ge=0)]
Limit = Annotated[int, Query(ge=1, le=1000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Acknowledgement(_Body):
    """Who looks after an alert. Without `by` it is the user that the console runs as."""

    by: str = Field(default="", max_length=200)
    note: str = Field(default="", max_length=2000)


class Resolution(_Body):
    """Why an alert is over."""

    by: str = Field(default="", max_length=200)
    reason: str = Field(default="", max_length=2000)


class Quiet(_Body):
    """No message for `seconds` of alerts whose fields match; empty fields match all."""

    seconds: int = Field(ge=1, le=366 * 86400)
    by: str = Field(default="", max_length=200)
    reason: str = Field(default="", max_length=2000)
    model: str = ""
    deployment: str = ""
    check: str = ""
    subject: str = ""
    segment: str = ""


class AlertQuiet(_Body):
    """No message for `seconds` of one alert."""

    seconds: int = Field(default=3600, ge=1, le=366 * 86400)
    by: str = Field(default="", max_length=200)
    reason: str = Field(default="", max_length=2000)


class Ended(_Body):
    """Who ends a silence."""

    by: str = Field(default="", max_length=200)


class Asked(_Body):
    """One SELECT over the views `predictions`, `shadows` and `labels`."""

    sql: str = Field(min_length=1, max_length=100_000)
    deployment: str | None = None
    since: str | None = Field(default=None, description="A moment, such as 2026-11-01T10:00:00Z.")
    until: str | None = None
    format: Literal["json", "csv"] = "json"


class Fault(BaseModel):
    """What is wrong, what would be right, and the next command."""

    code: str
    message: str
    valid: str = ""
    hint: str = ""


class Faulty(BaseModel):
    """An answer that is none."""

    error: Fault


def answered(body: Any) -> Response:
    """Return a record as JSON."""
    return Response(msgspec.json.encode(body), media_type="application/json")


def router(board: Board) -> APIRouter:
    """Return the routes of monitoring over a board."""
    routes = APIRouter(prefix="/api/monitoring", tags=["monitoring"])
    _reading(routes, board)
    _alerts(routes, board)
    return routes


def _get(routes: APIRouter, path: str, model: Any, route: Callable[..., Any]) -> None:
    """Declare a route that reads. The record is encoded as it is; `model` is for the document."""
    responses: dict[int | str, dict[str, Any]] = {404: {"model": Faulty}, 400: {"model": Faulty}}
    routes.get(path, response_model=model, responses=responses)(route)


def _post(routes: APIRouter, path: str, model: Any, route: Callable[..., Any]) -> None:
    """Declare a route that changes something: not for pages of others."""
    responses: dict[int | str, dict[str, Any]] = {code: {"model": Faulty} for code in (400, 403, 404, 409)}
    routes.post(path, response_model=model, responses=responses, dependencies=[Depends(_own)])(route)


def _own(request: Request) -> None:
    check_same_origin(request)


def _reading(routes: APIRouter, board: Board) -> None:
    async def overview() -> Response:
        """Return all deployments at a glance, the one with most trouble first."""
        return answered(await board.ask(health.OverviewOf()))

    async def one(name: Name) -> Response:
        """Return all panels of one deployment's page."""
        return answered(await board.ask(MonitoredOf(name)))

    async def of_health(name: Name) -> Response:
        """Return how a deployment is."""
        return answered(await board.ask(health.HealthOf(name)))

    async def series(
        name: Name,
        seconds: Annotated[int, Query(ge=60, le=366 * 86400, description="How far back.")] = 900,
    ) -> Response:
        """Return predictions and latency over time, by version."""
        return answered(await board.ask(live.LiveOf(name, seconds)))

    async def of_log(name: Name) -> Response:
        """Return how many predictions the log holds, since when, in how many files."""
        return answered(await board.ask(live.LoggedOf(name)))

    async def of_performance(
        name: Name, metric: str = "", segment: str = "", windows: Windows = WINDOWS
    ) -> Response:
        """Return a metric over labelled predictions, window by window, by version."""
        return answered(await board.ask(performance.PerformanceOf(name, metric, segment, windows)))

    async def of_estimated(name: Name, windows: Windows = WINDOWS) -> Response:
        """Return performance without labels, and the assumption it rests on."""
        return answered(await board.ask(performance.EstimatedOf(name, windows)))

    async def of_calibration(name: Name) -> Response:
        """Return whether probabilities are what they say, in the newest mature window."""
        return answered(await board.ask(performance.CalibrationOf(name)))

    async def of_segments(name: Name, metric: str = "", offset: Offset = 0, limit: Limit = 50) -> Response:
        """Return parts of the rows in the newest mature window, the worst first."""
        return answered(await board.ask(performance.SegmentsOf(name, metric, offset, limit)))

    async def of_kpis(name: Name, windows: Windows = WINDOWS) -> Response:
        """Return KPIs against their targets, window by window."""
        return answered(await board.ask(performance.KpisOf(name, windows)))

    async def of_labels(name: Name, windows: Windows = 60) -> Response:
        """Return how far the labels of the newest windows have come."""
        return answered(await board.ask(performance.LabelsOf(name, windows)))

    async def of_quality(
        name: Name, check: str = "", fired: bool = False, offset: Offset = 0, limit: Limit = 50
    ) -> Response:
        """Return what the checks of data quality said of the newest window."""
        return answered(await board.ask(quality.QualityOf(name, check, fired, offset, limit)))

    async def of_drift(
        name: Name, windows: Windows = WINDOWS, search: str = "", offset: Offset = 0, limit: Limit = 25
    ) -> Response:
        """Return the heat map: the effect of each feature in each window."""
        return answered(await board.ask(drift.DriftOf(name, windows, search, offset, limit)))

    async def of_features(name: Name, search: str = "", offset: Offset = 0, limit: Limit = 50) -> Response:
        """Return inputs in the newest window, those that drift most first."""
        return answered(await board.ask(features.FeaturesOf(name, search, offset, limit)))

    async def of_feature(name: Name, feature: str, windows: Windows = WINDOWS) -> Response:
        """Return one input: its distribution now against the reference, and how that came about."""
        return answered(await board.ask(features.FeatureOf(name, feature, windows)))

    async def list_windows(
        name: Name,
        phase: Literal["inputs", "labels", ""] = "",
        state: Literal["judged", "immature", "overdue", "empty", ""] = "",
        before: str = "",
        limit: Limit = 50,
    ) -> Response:
        """Return windows, newest first; `before` is that of the page before."""
        moment = of_windows.parsed(before, "before") if before else None
        return answered(await board.ask(of_windows.WindowsOf(name, phase, state, moment, limit)))

    async def window(
        name: Name, start: str, check: str = "", fired: bool = False, offset: Offset = 0, limit: Limit = 200
    ) -> Response:
        """Return one window with all that was found in it."""
        asked = of_windows.WindowOf(name, of_windows.parsed(start), check, fired, offset, limit)
        return answered(await board.ask(asked))

    of = "/deployments/{name}"
    for path, model, route in (
        ("/deployments", views.Overview, overview),
        (of, views.Monitored, one),
        (f"{of}/health", views.Health, of_health),
        (f"{of}/series", views.Live, series),
        (f"{of}/log", views.Logged, of_log),
        (f"{of}/performance", views.Performance, of_performance),
        (f"{of}/estimated", views.Estimated, of_estimated),
        (f"{of}/calibration", views.Calibration, of_calibration),
        (f"{of}/segments", views.Segments, of_segments),
        (f"{of}/kpis", list[views.Kpi], of_kpis),
        (f"{of}/labels", views.Labels, of_labels),
        (f"{of}/quality", views.Quality, of_quality),
        (f"{of}/drift", views.DriftMap, of_drift),
        (f"{of}/features", views.FeaturePage, of_features),
        (f"{of}/features/{{feature:path}}", views.FeatureStory, of_feature),
        (f"{of}/windows", views.WindowPage, list_windows),
        (f"{of}/windows/{{start}}", views.WindowFound, window),
    ):
        _get(routes, path, model, route)


def _alerts(routes: APIRouter, board: Board) -> None:
    async def listed(
        state: Literal["open", "all"] = "open",
        deployment: str = "",
        check: str = "",
        severity: Literal["info", "warning", "critical", ""] = "",
        offset: Offset = 0,
        limit: Limit = 20,
    ) -> Response:
        """Return alerts, what is open and gravest first, and the silences that hold."""
        asked = alerts.AlertsOf(state == "all", deployment, check, severity, offset, limit)
        return answered(await board.ask(asked))

    async def one(alert: AlertName) -> Response:
        """Return one alert with its history, its messages and the values around it."""
        return answered(await board.ask(alerts.AlertOf(alert)))

    async def acknowledge(alert: AlertName, body: Acknowledgement) -> Response:
        """Say that somebody looks after an alert: it is not escalated any more."""
        changed = await board.change(
            lambda ledger: alerting.acknowledge(ledger, alert, by=body.by, note=body.note)
        )
        return answered(await board.ask(alerts.AlertOf(changed.id)))

    async def resolve(alert: AlertName, body: Resolution) -> Response:
        """Declare an alert over. It opens again when the next windows find the same."""
        changed = await board.change(
            lambda ledger: alerting.resolve(ledger, alert, by=body.by, reason=body.reason)
        )
        return answered(await board.ask(alerts.AlertOf(changed.id)))

    async def silence_alert(alert: AlertName, body: AlertQuiet) -> Response:
        """Send no message of one alert for a while. It still shows."""
        await board.change(
            lambda ledger: alerts.silence_one(ledger, alert, body.seconds, body.by, body.reason)
        )
        return answered(await board.ask(alerts.AlertOf(alert)))

    async def silences() -> Response:
        """Return the silences that hold."""
        return answered((await board.ask(alerts.AlertsOf())).silences)

    async def silence(body: Quiet) -> Response:
        """Send no message, for a while, of alerts that match."""
        fields = body.model_dump(exclude={"seconds"})
        made = await board.change(
            lambda ledger: alerting.silence(ledger, timedelta(seconds=body.seconds), **fields)
        )
        return answered(made)

    async def end_silence(silence: str, body: Ended) -> Response:
        """End a silence now."""
        return answered(await board.change(lambda ledger: alerting.end_silence(ledger, silence, by=body.by)))

    _get(routes, "/alerts", views.AlertPage, listed)
    _get(routes, "/silences", list[views.SilenceLine], silences)
    _post(routes, "/silences", views.SilenceLine, silence)
    _post(routes, "/silences/{silence}/end", views.SilenceLine, end_silence)
    _post(routes, "/alerts/{alert:path}/acknowledge", views.AlertDetail, acknowledge)
    _post(routes, "/alerts/{alert:path}/resolve", views.AlertDetail, resolve)
    _post(routes, "/alerts/{alert:path}/silence", views.AlertDetail, silence_alert)
    _get(routes, "/alerts/{alert:path}", views.AlertDetail, one)


def sql_router(board: Board) -> APIRouter:
    """Return the route of SQL over the log."""
    routes = APIRouter(prefix="/api", tags=["predictions"])

    async def ask(body: Asked) -> Response:
        """Answer one SELECT over the prediction log: at most 1,000 rows, within 10 s."""
        since = of_windows.parsed(body.since, "since") if body.since else None
        until = of_windows.parsed(body.until, "until") if body.until else None
        found = await board.query(body.sql, deployment=body.deployment, since=since, until=until)
        if body.format == "json":
            return answered(found)
        named = {"Content-Disposition": 'attachment; filename="predictions.csv"'}
        return Response(csv_of(found), media_type="text/csv; charset=utf-8", headers=named)

    _post(routes, "/sql", sql.Answered, ask)
    return routes


def csv_of(found: sql.Answered) -> str:
    """Return an answer as CSV with a header."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(found.columns)
    writer.writerows(found.rows)
    return text.getvalue()


def document(*routers: APIRouter) -> dict[str, Any]:
    """Return the OpenAPI document of some routes."""
    return get_openapi(
        title="Loopwright console",
        version=loopwright.__version__,
        description="What the pages of the console show. It listens on 127.0.0.1 only; changes need JSON and no other "
        "site's page as their origin.",
        routes=[route for one in routers for route in one.routes],
    )
