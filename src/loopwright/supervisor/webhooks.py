"""The local server's route for MLflow's webhooks."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from loopwright.config import Project
from loopwright.errors import InvalidInput, LoopwrightError
from loopwright.ledger import Ledger
from loopwright.registry import webhooks

__all__ = ["Receiver", "subscribe"]

log = logging.getLogger(__name__)
#: A call of MLflow's has some hundred bytes.
_MOST_BYTES = 1_000_000


def subscribe(project: Project, port: int) -> None:
    """Have MLflow call this server; without, the controller still looks by itself every few seconds."""
    try:
        webhooks.subscribe(project, f"http://127.0.0.1:{port}{webhooks.PATH}")
    except Exception:
        log.exception("MLflow takes no webhook; changes made on its pages are seen some seconds later")


class Receiver:
    """Takes the calls: proves them and writes them to the ledger, where the controller waits for them."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._ledger: Ledger | None = None

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        """Answer 202 to a proven call, else 400, 403 or 405."""
        status, answer = 202, {"status": "taken"}
        try:
            if scope["method"] != "POST":
                status, answer = 405, {"status": "MLflow posts here"}
            else:
                body = await _body(receive)
                headers = {
                    name.decode("latin-1").lower(): value.decode("latin-1")
                    for name, value in scope["headers"]
                }
                call = webhooks.proven(self._project, headers, body, time.time())
                await asyncio.to_thread(self._note, call)
        except LoopwrightError as error:
            status, answer = error.http_status, error.to_dict()
        head = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    def _note(self, call: webhooks.Call) -> None:
        if self._ledger is None:
            self._ledger = Ledger.open(self._project, actor="mlflow")
        self._ledger.append(webhooks.CALLED, call.model, {"what": call.what})


async def _body(receive: Callable[[], Awaitable[Any]]) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if len(body) > _MOST_BYTES:
            raise InvalidInput(f"The call is larger than {_MOST_BYTES} bytes.")
        if not message.get("more_body"):
            return body
