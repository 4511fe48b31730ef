"""The console's process: ``python -m loopwright.console.app --port P``, on 127.0.0.1.

Pages at ``/`` and ``/model/<deployment>``; the same figures as JSON at ``/api/deployments``,
``/api/deployments/<name>`` and ``/api/maturity``, named in the foot of each page; ``/health``. No `from __future__ import annotations` here: FastAPI
reads the signatures of its routes while the program runs.
"""

import argparse
import logging
import signal
import sys
from typing import Any

import msgspec
from fastapi import Response
from nicegui import app, background_tasks, ui

from loopwright import parts
from loopwright.config import Project
from loopwright.console import pages
from loopwright.console.refresh import Board
from loopwright.errors import LoopwrightError

__all__ = ["main"]

_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><circle cx="8" cy="8" r="5.5" fill="none" '
    'stroke="#1f5fc4" stroke-width="3" stroke-dasharray="26 9" transform="rotate(20 8 8)"/></svg>'
)


def _json(body: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")


def _register_api(board: Board) -> None:
    """Declare the JSON interface: every number of a page is here too."""

    def health() -> Response:
        return Response("OK", media_type="text/plain")

    async def deployments() -> Response:
        return _json(await board.overview())

    async def deployment(name: str) -> Response:
        return _json(await board.story(name))

    async def maturity() -> Response:
        return _json(await board.assessment())

    def refused(_: Any, error: LoopwrightError) -> Response:
        return _json(error.to_dict(), error.http_status)

    # Called, not used as decorators: those of NiceGUI's application carry no types.
    app.get("/health")(health)
    app.get("/api/deployments")(deployments)
    app.get("/api/deployments/{name}")(deployment)
    app.get("/api/maturity")(maturity)
    app.exception_handler(LoopwrightError)(refused)


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
    _register_api(board)
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
