"""The console's process: ``python -m loopwright.console.app --port P``, on 127.0.0.1.

Pages of all models (``/``), one (``/model/<deployment>``), its features and windows, alerts (``/alerts``) and SQL over the
log (``/sql``). The same figures as JSON below ``/api``, described at ``/api/openapi.json``; ``/metrics`` for Prometheus;
``/health``. No `from __future__ import annotations` here: FastAPI reads the signatures of its routes while the program
runs.
"""

import argparse
import logging
import signal
import sys
from typing import Any

import msgspec
from fastapi import APIRouter, FastAPI, Response
from fastapi.exceptions import RequestValidationError
from nicegui import app, background_tasks, ui

from loopwright import parts
from loopwright.config import Project
from loopwright.console import pages
from loopwright.console.monitoring import api
from loopwright.console.refresh import Board
from loopwright.console.views import Glance, Story
from loopwright.errors import InvalidInput, LoopwrightError
from loopwright.maturity import Assessment
from loopwright.monitor.live.prometheus import CONTENT_TYPE

__all__ = ["main", "make_routes", "register_api"]

_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><circle cx="8" cy="8" r="5.5" fill="none" '
    'stroke="#1f5fc4" stroke-width="3" stroke-dasharray="26 9" transform="rotate(20 8 8)"/></svg>'
)


def _refused(_: Any, error: LoopwrightError) -> Response:
    return Response(msgspec.json.encode(error.to_dict()), error.http_status, media_type="application/json")


def _wrong(_: Any, error: RequestValidationError) -> Response:
    """Answer a request whose parameters or body are not as the document says, in the form of all other errors."""
    problems = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
    return _refused(_, InvalidInput(f"{problems}.", valid="See /api/openapi.json."))


def _health() -> Response:
    return Response("OK", media_type="text/plain")


def make_routes(board: Board) -> list[APIRouter]:
    """Return the JSON interface: every number of a page is here too."""
    basic = APIRouter(prefix="/api", tags=["deployments"])

    async def deployments() -> Response:
        """Return all deployments and schedules at a glance."""
        return api.answered(await board.overview())

    async def deployment(name: str) -> Response:
        """Return one deployment, live: traffic, latency, release, how it answers, and what happened."""
        return api.answered(await board.story(name))

    async def maturity() -> Response:
        """Return the maturity level of the project, with the facts that were observed."""
        return api.answered(await board.assessment())

    basic.get("/deployments", response_model=Glance)(deployments)
    basic.get("/deployments/{name}", response_model=Story, responses={404: {"model": api.Faulty}})(deployment)
    basic.get("/maturity", response_model=Assessment)(maturity)
    return [basic, api.router(board), api.sql_router(board)]


def register_api(board: Board, application: FastAPI) -> None:
    """Declare the JSON interface and its document on an application."""
    routers = make_routes(board)
    document = msgspec.json.encode(api.document(*routers))

    def openapi() -> Response:
        return Response(document, media_type="application/json")

    async def metrics() -> Response:
        return Response(await board.metrics(), media_type=CONTENT_TYPE)

    # Called, not used as decorators: those of NiceGUI's application carry no types.
    application.get("/metrics")(metrics)
    application.get("/health")(_health)
    application.get("/api/openapi.json")(openapi)
    for router in routers:
        application.include_router(router)
    application.exception_handler(LoopwrightError)(_refused)
    application.exception_handler(RequestValidationError)(_wrong)


def main() -> None:
    """Serve on 127.0.0.1 until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m loopwright.console.app")
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    board = Board(Project.find())
    # For the time before uvicorn takes over, and again when it hands the signal on after its own orderly end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    parts.follow_supervisor()
    register_api(board, app)
    pages.register(board)
    app.on_startup(lambda: background_tasks.create(board.run(), name="refresh"))
    ui.run(
        host="127.0.0.1",
        port=port,
        title="Loopwright",
        favicon=_ICON,
        dark=None,
        reload=False,
        show=False,
        show_welcome_message=False,
        tailwind=False,
        binding_refresh_interval=None,
        reconnect_timeout=10.0,
        timeout_graceful_shutdown=2,
        access_log=False,
    )


if __name__ == "__main__":
    main()
