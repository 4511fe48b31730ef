"""The HTTP interface of all online deployments of a project: a plain ASGI application, without a framework."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import msgspec

from loopwright.config import Project
from loopwright.deploy.base import Predictor, Route
from loopwright.deploy.online import labels as label_bodies
from loopwright.deploy.online import wire
from loopwright.deploy.online.batcher import LOOP_ROWS, Batcher, Request
from loopwright.deploy.online.decode import Decoder
from loopwright.errors import LoopwrightError, NotFound, Unavailable, listing
from loopwright.predictions import Ids, LabelLog
from loopwright.records import Mode

__all__ = ["App"]

#: Bodies from here on are decoded in a thread.
LARGE_BODY = 256 * 1024

logger = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode
_ROUTES = {
    "POST /predict/<deployment>": "one record {...} or a list of records",
    "POST /labels": 'one {"prediction_id": ..., "actual": ...} or a list of them',
    "GET /deployments": "what is served, and what it takes",
    "GET /ready": "whether everything that was started is loaded",
    "GET /health": "whether the process is alive",
}
_Answered = tuple[int, bytes]


class _Service:
    """One deployment: its predictor, its batches, and the decoder for what it serves now."""

    def __init__(self, predictor: Predictor, batcher: Batcher) -> None:
        self.predictor = predictor
        self.batcher = batcher
        self._decoder: Decoder | None = None

    def decoder(self, route: Route) -> Decoder:
        """Return the decoder of a route; a new version with the same inputs keeps it."""
        known, entity = self._decoder, self.predictor.config.entity
        if known is None or known.entity != entity or known.signature.inputs != route.signature.inputs:
            known = self._decoder = Decoder(route.signature, entity)
        return known


class App:
    """The ASGI application.

    Parameters
    ----------
    project
        Whose online deployments are served.
    predictors
        One per online deployment, by name.
    labels
        Where labels are appended.
    ids
        Checks the ids of labels.
    """

    def __init__(
        self, project: Project, predictors: dict[str, Predictor], labels: LabelLog, ids: Ids
    ) -> None:
        self._project = project
        self._labels = labels
        self._ids = ids
        self._limit = project.config.serving.max_body
        self._synced = project.config.serving.durability == "power"
        self._executor = ThreadPoolExecutor(max(2, os.cpu_count() or 2), thread_name_prefix="scoring")
        self._services: dict[str, _Service] = {}
        self.serve(project, predictors)

    @property
    def predictors(self) -> dict[str, Predictor]:
        """The predictors by deployment."""
        return {name: service.predictor for name, service in self._services.items()}

    def serve(self, project: Project, predictors: dict[str, Predictor]) -> None:
        """Serve these deployments from now on; those that were served already keep their requests."""
        known = self._services
        self._project = project
        # Replaced as a whole: requests see the old table or the new one.
        self._services = {
            name: known[name]
            if name in known and known[name].predictor is predictor
            else _Service(predictor, Batcher(predictor, self._executor, synced=self._synced))
            for name, predictor in predictors.items()
        }

    def close(self) -> None:
        """Give back the threads."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, scope: wire.Scope, receive: wire.Receive, send: wire.Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        headers = wire.Headers.of(scope)
        extra: list[tuple[bytes, bytes]] = []
        try:
            status, body = await self._answer(scope, headers, receive)
        except wire.Gone:
            return
        except LoopwrightError as error:
            status, body = error.http_status, _encode(error.to_dict())
            extra = _headers_for(error)
            if error.__cause__ is not None and status >= 500:
                logger.error("%s %s: %s", scope["method"], scope["path"], error, exc_info=error.__cause__)
        except Exception as error:
            logger.exception("%s %s", scope["method"], scope["path"])
            status = 500
            body = _encode(LoopwrightError(f"The request failed: {type(error).__name__}: {error}").to_dict())
        sent = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            *extra,
        ]
        if headers.request_id:
            sent.append((b"x-request-id", headers.request_id))
        await send({"type": "http.response.start", "status": status, "headers": sent})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: wire.Scope, headers: wire.Headers, receive: wire.Receive) -> _Answered:
        method, path = scope["method"], scope["path"]
        if path.startswith("/predict/"):
            if method != "POST":
                _refuse_method(method, path, "POST")
            return 200, await self._predict(path.removeprefix("/predict/"), headers, receive)
        if path == "/labels":
            if method != "POST":
                _refuse_method(method, path, "POST")
            return await self._label(headers, receive)
        pages = {"/": self._index, "/health": self._health, "/ready": self._ready, "/deployments": self._list}
        if path not in pages:
            raise NotFound(f"There is nothing at {path[:200]!r}.", valid=f"Here are: {listing(_ROUTES)}.")
        if method not in {"GET", "HEAD"}:
            _refuse_method(method, path, "GET")
        return 200, _encode(pages[path]())

    async def _predict(self, name: str, headers: wire.Headers, receive: wire.Receive) -> bytes:
        service = self._services.get(name)
        if service is None:
            raise self._unknown(name)
        route = service.predictor.route
        if route is None:
            raise service.predictor.absent()
        headers.check()
        body = await wire.read_body(receive, headers, self._limit)
        received = time.monotonic()
        decoder = service.decoder(route)
        if len(body) < LARGE_BODY:
            rows, single = decoder.decode(body)
        else:
            loop = asyncio.get_running_loop()
            rows, single = await loop.run_in_executor(self._executor, decoder.decode, body)
        entities: list[str | None] = decoder.entities(rows) or [None] * len(rows)
        if headers.entity:
            given = wire.text(headers.entity)
            entities = [entity or given for entity in entities]
        request_id = wire.text(headers.request_id) if headers.request_id else ""
        return await service.batcher.submit(
            Request(rows, single, decoder, route, entities, request_id, received)
        )

    def _unknown(self, name: str) -> NotFound:
        declared = self._project.config.deployment.get(name)
        if declared is not None and declared.mode is not Mode.online:
            return NotFound(
                f"The deployment {name!r} is in mode {declared.mode} and answers no requests.",
                valid=f"Online deployments: {listing(sorted(self._services))}.",
                hint="loopwright deployment list",
            )
        known = sorted(self._services)
        return NotFound.among("online deployment", name[:200], known, hint="loopwright deployment list")

    async def _label(self, headers: wire.Headers, receive: wire.Receive) -> _Answered:
        headers.check()
        body = await wire.read_body(receive, headers, self._limit)
        loop = asyncio.get_running_loop()
        if len(body) >= LARGE_BODY:
            found = await loop.run_in_executor(self._executor, label_bodies.decode, body, self._ids)
        else:
            found = label_bodies.decode(body, self._ids)
        if self._synced or len(found) > LOOP_ROWS:
            await loop.run_in_executor(self._executor, self._labels.append, found)
        else:
            self._labels.append(found)
        return 202, _encode({"accepted": len(found)})

    def _index(self) -> Any:
        return {"project": self._project.name, "routes": _ROUTES, "deployments": sorted(self._services)}

    def _health(self) -> Any:
        return {"status": "ok"}

    def _ready(self) -> Any:
        missing = [name for name, one in self.predictors.items() if one.started and not one.ready]
        if missing:
            reasons = {name: self.predictors[name].absent().fact for name in missing}
            raise Unavailable(
                f"Not loaded yet: {listing(missing)}.", hint="loopwright status", missing=reasons
            )
        return {"status": "ready"}

    def _list(self) -> Any:
        return [_facts(name, predictor) for name, predictor in sorted(self.predictors.items())]


def _facts(name: str, predictor: Predictor) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": name, "model": predictor.config.model, "entity": predictor.config.entity}
    route = predictor.route
    if route is None:
        return facts | {"state": "loading" if predictor.started else "not started", "variants": []}
    variants = [
        {
            "name": variant.name,
            "version": variant.version,
            "weight": variant.weight,
            "runtime": route.loaded[variant.version].scorer.runtime,
        }
        for variant in route.deployment.variants
    ]
    refused = {str(version): reason for version, reason in predictor.refused.items()}
    return facts | {
        "model": route.deployment.model,
        "state": "serving",
        "variants": variants,
        "runtime": predictor.scorer.runtime,
        "signature": route.signature,
        "refused": refused,
    }


def _refuse_method(method: str, path: str, valid: str) -> NoReturn:
    raise wire.WrongMethod(f"{method} does not work on {path[:200]!r}.", valid=f"{valid} does.", allow=valid)


def _headers_for(error: LoopwrightError) -> list[tuple[bytes, bytes]]:
    if isinstance(error, wire.WrongMethod):
        return [(b"allow", error.attrs["allow"].encode())]
    if isinstance(error, wire.TooLarge | wire.TooSlow):
        # What is left of the body must not be taken for the next request.
        return [(b"connection", b"close")]
    return [(b"retry-after", b"1")] if error.http_status == 503 else []
