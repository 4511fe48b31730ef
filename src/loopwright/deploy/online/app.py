"""The HTTP interface of all online deployments of a project: a plain ASGI application, without a framework.

Requests that are in no way unusual do not come here: `protocol` hands them to their deployment directly.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn
from urllib.parse import quote

import msgspec

from loopwright.config import Project
from loopwright.deploy.base import Predictor
from loopwright.deploy.online import labels as label_bodies
from loopwright.deploy.online import wire
from loopwright.deploy.online.batcher import LOOP_ROWS, Batcher
from loopwright.deploy.online.codecs.base import Reply
from loopwright.deploy.online.documents import ALIVE, Documents
from loopwright.deploy.online.keys import Keys, is_open, sent
from loopwright.deploy.online.limits import Admission, Limiter, TooMany
from loopwright.deploy.online.meters import Meters
from loopwright.deploy.online.notes import Notes
from loopwright.deploy.online.protocol import LOOK_S, Wire
from loopwright.deploy.online.refusals import refusal
from loopwright.deploy.online.request import Request
from loopwright.deploy.online.service import LARGE_BODY, RECORDS, Service
from loopwright.errors import InvalidInput, LoopwrightError, NotFound, listing
from loopwright.predictions import Ids, LabelLog
from loopwright.records import Mode

__all__ = ["App"]

logger = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode
_JSON = b"application/json"


class _Awaited(Request):
    """A request whose answer the ASGI side waits for."""

    __slots__ = ("answer",)

    def __init__(self, protocol: str, answer: asyncio.Future[Reply]) -> None:
        super().__init__()
        self.protocol = protocol
        self.answer = answer

    def reply(self, reply: Reply) -> None:
        """Hand over the answer."""
        self.sent = len(reply.body)
        if not self.answer.done():
            self.answer.set_result(reply)

    def fail(self, error: LoopwrightError) -> None:
        """Hand over an error."""
        if not self.answer.done():
            self.answer.set_exception(error)


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
    keys
        Who may ask; None where everybody may.
    worker
        The process's name.
    """

    def __init__(
        self,
        project: Project,
        predictors: dict[str, Predictor],
        labels: LabelLog,
        ids: Ids,
        *,
        keys: Keys | None = None,
        worker: str = "serving-1",
    ) -> None:
        serving = project.config.serving
        self._project = project
        self._labels = labels
        self._ids = ids
        self._keys = keys
        self._synced = serving.durability == "power"
        self._executor = ThreadPoolExecutor(max(2, os.cpu_count() or 2), thread_name_prefix="scoring")
        self._services: dict[str, Service] = {}
        self._watching = False
        #: Largest body in bytes.
        self.limit = serving.max_body
        #: Seconds for a request to arrive.
        self.body_s = serving.body_timeout.total_seconds()
        #: The services by the exact URL of their plain requests.
        self.short: dict[bytes, Service] = {}
        self.admission = Admission(serving.queue_rows, serving.queue_bytes)
        self.meters = Meters(worker)
        self.notes = Notes(project, worker)
        self._limiter = Limiter(serving.rate_limit, share=serving.workers) if serving.rate_limit else None
        self.documents = Documents(project)
        self.serve(project, predictors)

    @property
    def predictors(self) -> dict[str, Predictor]:
        """The predictors by deployment."""
        return {name: service.predictor for name, service in self._services.items()}

    def serve(self, project: Project, predictors: dict[str, Predictor]) -> None:
        """Serve these deployments from now on; those that were served already keep their requests."""
        known = self._services
        self._project = project
        for name in known.keys() - predictors.keys():
            self.meters.forget(name)
        services = {
            name: known[name]
            if name in known and known[name].predictor is predictor
            else self._service(name, predictor)
            for name, predictor in predictors.items()
        }
        self.notes.follow(project)
        for name, service in services.items():
            service.batcher.ended = self.notes.of(name, project)
        # Replaced as a whole: requests see the old tables or the new ones.
        self._services = services
        self.short = {
            f"/predict/{quote(name, safe='')}".encode(): service for name, service in services.items()
        }
        self.documents.follow(project)

    def _service(self, name: str, predictor: Predictor) -> Service:
        meter = self.meters.of(name)
        batcher = Batcher(
            predictor,
            self._executor,
            synced=self._synced,
            admission=self.admission,
            meter=meter,
        )
        return Service(predictor, batcher, self._executor)

    @property
    def guarded(self) -> bool:
        """Whether each request is checked for a key or a rate."""
        return self._limiter is not None or (self._keys is not None and self._keys.needed)

    def guard(self, headers: Mapping[bytes, bytes], client: tuple[str, int] | None) -> str | None:
        """Check who asks and how often, and return the name of the key.

        Raises
        ------
        Unauthorized
            A key is needed and none that is valid was sent.
        TooMany
            The caller asks too often.
        """
        key = self._keys.check(sent(headers.items())) if self._keys is not None else None
        if self._limiter is not None:
            who = key or (client[0] if client else "")
            wait = self._limiter.take(who, time.monotonic())
            if wait:
                raise TooMany.after(who, self._limiter.rate, wait)
        return key

    def watch(self, connections: set[Any], loop: asyncio.AbstractEventLoop) -> None:
        """Look at all connections once a second from now on."""
        if self._watching:
            return
        self._watching = True

        def look() -> None:
            now = time.monotonic()
            for connection in list(connections):
                if isinstance(connection, Wire):
                    connection.look(now, self.body_s)
            loop.call_later(LOOK_S, look)

        loop.call_later(LOOK_S, look)

    def close(self) -> None:
        """Give back the threads, and write what is left of the notes."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        self.notes.close()

    async def __call__(self, scope: wire.Scope, receive: wire.Receive, send: wire.Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        started = time.monotonic()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        protocol = RECORDS
        try:
            if not is_open(scope["path"]):
                scope["key"] = self.guard(headers, scope.get("client"))
            protocol = _protocol(scope["path"])
            status, reply = await self._answer(scope, headers, receive)
        except wire.Gone:
            return
        except LoopwrightError as error:
            status, reply = error.http_status, self._refusal(error, protocol, scope["path"], headers)
            if error.__cause__ is not None and status >= 500:
                logger.error("%s %s: %s", scope["method"], scope["path"], error, exc_info=error.__cause__)
        except Exception as error:
            logger.exception("%s %s", scope["method"], scope["path"])
            made = LoopwrightError(f"The request failed: {type(error).__name__}: {error}")
            status, reply = 500, refusal(made, protocol)
        lines = [
            (b"content-type", reply.content_type),
            (b"content-length", b"%d" % len(reply.body)),
            *reply.headers,
        ]
        if request_id := headers.get(b"x-request-id"):
            lines.append((b"x-request-id", request_id[: wire.LONGEST]))
        if self.notes.access is not None and not scope.get("noted"):
            self._note(scope, headers, status, len(reply.body), time.monotonic() - started)
        await send({"type": "http.response.start", "status": status, "headers": lines})
        await send({"type": "http.response.body", "body": reply.body})

    def _note(
        self, scope: wire.Scope, headers: Mapping[bytes, bytes], status: int, sent: int, seconds: float
    ) -> None:
        """Write a request that no deployment took note of into the access log."""
        assert self.notes.access is not None
        client = scope.get("client")
        self.notes.access.add(
            scope["method"],
            scope["path"],
            status,
            seconds,
            sent=sent,
            remote=client[0] if client else "",
            request_id=wire.text(headers.get(b"x-request-id", b"")[: wire.LONGEST]),
            key=scope.get("key") or "",
        )

    def _refusal(
        self, error: LoopwrightError, protocol: str, path: str, headers: Mapping[bytes, bytes]
    ) -> Reply:
        """Return what says that a request was refused: to a browser without a key, the page that asks for one."""
        found = refusal(error, protocol)
        if error.http_status == 401 and (path == "/" or path.startswith("/try/")):
            from loopwright.deploy.online import tryit

            if tryit.wants_page(headers.get(b"accept", b"")):
                door = tryit.door(self._project.name)
                return Reply(door.body, door.content_type, [*found.headers, *door.headers])
        return found

    async def _answer(
        self, scope: wire.Scope, headers: dict[bytes, bytes], receive: wire.Receive
    ) -> tuple[int, Reply]:
        method, path = scope["method"], scope["path"]
        found = _asked(path)
        if found is not None:
            name, version, protocol = found
            if method != "POST":
                _refuse_method(method, path, "POST")
            service = self._chosen(name, headers)
            return 200, await self._predict(scope, service, protocol, version, headers, receive)
        if path == "/labels":
            if method != "POST":
                _refuse_method(method, path, "POST")
            return 202, await self._label(headers, receive)
        if method not in {"GET", "HEAD"}:
            _refuse_method(method, path, "GET")
        if path == "/metrics":
            return 200, await self._in_thread(self._metrics)
        if path in ALIVE:
            return self.documents.answer(path, headers, self.predictors)
        found_there: tuple[int, Reply] = await self._in_thread(
            lambda: self.documents.answer(path, headers, self.predictors)
        )
        return found_there

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        """Do what reads files or writes long documents beside the loop."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def _chosen(self, name: str, headers: Mapping[bytes, bytes]) -> Service:
        """Return the service that a request is for; MLflow's path does not say which, where there is one it is that."""
        services = self._services
        if not name:
            name = wire.text(headers.get(b"x-deployment", b""))
            if not name and len(services) == 1:
                return next(iter(services.values()))
            if not name:
                raise InvalidInput(
                    f"The project has {len(services)} online deployments, and the request does not say which.",
                    valid=f"Online deployments: {listing(sorted(services))}.",
                    hint="POST /deployments/<name>/invocations, or send the header x-deployment",
                )
        service = services.get(name)
        if service is None:
            raise self._unknown(name)
        return service

    async def _predict(
        self,
        scope: wire.Scope,
        service: Service,
        protocol: str,
        version: str,
        headers: dict[bytes, bytes],
        receive: wire.Receive,
    ) -> Reply:
        protocol = _by_type(protocol, headers)
        request = _Awaited(protocol, asyncio.get_running_loop().create_future())
        request.details = wire.details_of(headers)
        request.path, request.key = scope["path"], scope.get("key")
        request.remote = client[0] if (client := scope.get("client")) else ""
        if version:
            request.details.variant = version
        scope["noted"] = True
        try:
            body = await wire.read_body(receive, headers, self.limit, self.body_s)
        except LoopwrightError as error:
            request.received = time.monotonic()
            service.batcher.meter.refuse(error.code)
            service.batcher.fail(request, error)
        else:
            service.take(request, body, headers)
        return await request.answer

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

    async def _label(self, headers: dict[bytes, bytes], receive: wire.Receive) -> Reply:
        _by_type(RECORDS, headers, only=True)
        body = await wire.read_body(receive, headers, self.limit, self.body_s)
        loop = asyncio.get_running_loop()
        if len(body) >= LARGE_BODY:
            found = await loop.run_in_executor(
                self._executor, label_bodies.decode, body, self._ids, self._labels
            )
        else:
            found = label_bodies.decode(body, self._ids, self._labels)
        if self._synced or len(found) > LOOP_ROWS:
            await loop.run_in_executor(self._executor, self._labels.append, found)
        else:
            self._labels.append(found)
        return Reply(_encode({"accepted": len(found)}))

    def _metrics(self) -> Reply:
        from loopwright.deploy.online import metrics
        from loopwright.deploy.online.levels import service_level
        from loopwright.deploy.online.meters import read

        # Saved, so that a scrape that the next worker answers shows no smaller numbers.
        own = self.meters.save(self._project)
        levels = [service_level(self._project, name) for name in self._services]
        made = metrics.exposition(
            own,
            read(self._project, without=own.worker),
            [level for level in levels if level is not None],
        )
        return Reply(made, metrics.CONTENT_TYPE)


def _protocol(path: str) -> str:
    """Return the protocol in whose form a path's errors are written."""
    if path.startswith("/v2"):
        return "v2"
    return "invocations" if path.endswith("/invocations") else RECORDS


def _asked(path: str) -> tuple[str, str, str] | None:
    """Return the deployment, version and protocol of a path that asks for predictions; None for others."""
    if path.startswith("/predict/"):
        return path.removeprefix("/predict/"), "", RECORDS
    if path == "/invocations":
        return "", "", "invocations"
    if path.startswith("/deployments/") and path.endswith("/invocations"):
        return path.removeprefix("/deployments/").removesuffix("/invocations"), "", "invocations"
    if path.startswith("/v2/models/") and path.endswith("/infer"):
        name, _, version = path.removeprefix("/v2/models/").removesuffix("/infer").partition("/versions/")
        return name, version, "v2"
    return None


def _by_type(protocol: str, headers: Mapping[bytes, bytes], *, only: bool = False) -> str:
    """Return the protocol that reads a body of the declared type.

    Raises
    ------
    WrongType
        None does. A page of another site cannot send any of these types unasked.
    """
    if headers.get(b"content-encoding", b"identity").strip().lower() not in {b"identity", b""}:
        raise wire.WrongType("A compressed body is not read here.", valid="Send it as it is.")
    if protocol != RECORDS:
        return protocol
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind == _JSON:
        return RECORDS
    from loopwright.deploy.online.codecs.tables import CONTENT_TYPES

    if kind in CONTENT_TYPES and not only:
        return "tables"
    known = ["application/json", *([] if only else [one.decode() for one in CONTENT_TYPES])]
    raise wire.WrongType(
        f"The content type {kind.decode('latin-1')[:100]!r} is not read here.",
        valid=f"Send content-type: {listing(known)}.",
        hint="curl -H 'content-type: application/json' ...",
    )


def _refuse_method(method: str, path: str, valid: str) -> NoReturn:
    raise wire.WrongMethod(f"{method} does not work on {path[:200]!r}.", valid=f"{valid} does.", allow=valid)
