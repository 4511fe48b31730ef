"""The HTTP interface of all online deployments of a project: a plain ASGI application, without a framework."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from loopwright.config import Project
from loopwright.deploy.base import Answers, Predictor
from loopwright.deploy.online.batcher import Batcher
from loopwright.deploy.online.decode import Decoder
from loopwright.errors import InvalidInput, LoopwrightError, NotFound, SchemaMismatch, Unavailable, listing
from loopwright.predictions import Ids, LabelLog
from loopwright.records import Label, Signature

__all__ = ["App"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode
_ROUTES = "POST /predict/<deployment>, POST /labels, GET /deployments, GET /ready, GET /health"


class _WrongMethod(LoopwrightError):
    code = "wrong_method"
    http_status = 405


class _WrongType(InvalidInput):
    code = "wrong_content_type"
    http_status = 415


class _TooLarge(InvalidInput):
    code = "too_large"
    http_status = 413


class _Gone(Exception):
    """The caller hung up before its request was complete."""


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
        self.predictors = predictors
        self._labels = labels
        self._ids = ids
        self._max_body = project.config.serving.max_body
        self._synced = project.config.serving.durability == "power"
        self._batchers = {
            name: Batcher(predictor, threaded=self._synced) for name, predictor in predictors.items()
        }
        self._decoders: dict[str, Decoder] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        try:
            status, body = await self._answer(scope, receive)
        except _Gone:
            return
        except LoopwrightError as error:
            status, body = error.http_status, _encode(error.to_dict())
            if status >= 500 and error.__cause__ is not None:
                log.error("%s %s: %s", scope["method"], scope["path"], error, exc_info=error.__cause__)
        except Exception as error:
            log.exception("%s %s", scope["method"], scope["path"])
            status = 500
            body = _encode(LoopwrightError(f"{type(error).__name__}: {error}").to_dict())
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if status == 503:
            headers.append((b"retry-after", b"1"))
        request_id = _header(scope, b"x-request-id")
        if request_id:
            headers.append((b"x-request-id", request_id.encode("latin-1")))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, bytes]:
        method, path = scope["method"], scope["path"]
        if path.startswith("/predict/"):
            _must(method, "POST", path)
            return await self._predict(path[9:], scope, receive)
        if path == "/labels":
            _must(method, "POST", path)
            return await self._label(scope, receive)
        if path in {"/health", "/ready", "/deployments", "/"}:
            _must(method, "GET", path)
            if path == "/health":
                return 200, b'{"status":"ok"}'
            if path == "/ready":
                return self._ready()
            if path == "/deployments":
                return 200, _encode([self._facts(name) for name in self.predictors])
            return 200, _encode({"routes": _ROUTES, "deployments": sorted(self.predictors)})
        raise NotFound(f"There is nothing at {path!r}.", valid=f"Here are: {_ROUTES}.")

    def _ready(self) -> tuple[int, bytes]:
        loading = [
            name for name, predictor in self.predictors.items() if predictor.started and not predictor.ready
        ]
        if loading:
            raise Unavailable(f"Not loaded yet: {listing(loading)}.", hint="loopwright status")
        return 200, b'{"status":"ready"}'

    def _facts(self, name: str) -> dict[str, Any]:
        predictor = self.predictors[name]
        if not predictor.ready:
            return {"name": name, "model": predictor.config.model, "variants": []}
        scorer = predictor.scorer
        return {
            "name": name,
            "model": predictor.config.model,
            "variants": predictor.deployment.variants,
            "runtime": scorer.runtime,
            "signature": scorer.signature,
        }

    def _predictor(self, name: str) -> Predictor:
        predictor = self.predictors.get(name)
        if predictor is None:
            raise NotFound.among(
                "online deployment", name, sorted(self.predictors), hint="loopwright deployment list"
            )
        return predictor

    def _decoder(self, name: str, signature: Signature) -> Decoder:
        known = self._decoders.get(name)
        if known is None or known.signature is not signature:
            known = self._decoders[name] = Decoder(signature)
        return known

    async def _predict(self, name: str, scope: Scope, receive: Receive) -> tuple[int, bytes]:
        predictor = self._predictor(name)
        signature = predictor.signature
        _must_be_json(scope)
        body = await self._body(scope, receive)
        received = time.monotonic()
        decoder = self._decoder(name, signature)
        rows, single = decoder.rows(body)
        entities = _entities(predictor, decoder, rows, _header(scope, b"x-entity"))
        answers, at = await self._batchers[name].submit(
            rows, decoder, entities, _header(scope, b"x-request-id"), received
        )
        answered = [_row(answers, row, predictor.config.model) for row in range(at, at + len(rows))]
        return 200, _encode(answered[0] if single else {"predictions": answered})

    async def _label(self, scope: Scope, receive: Receive) -> tuple[int, bytes]:
        _must_be_json(scope)
        labels = _labels(await self._body(scope, receive), self._ids)
        if self._synced:
            await asyncio.to_thread(self._labels.append, labels)
        else:
            self._labels.append(labels)
        return 200, _encode({"accepted": len(labels)})

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """Read the body, and stop reading where it gets too large."""
        declared = _header(scope, b"content-length")
        size = int(declared) if declared.isdigit() else 0
        chunks: list[bytes] = []
        while size <= self._max_body:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            chunk = message.get("body", b"")
            if not message.get("more_body", False):
                body = b"".join((*chunks, chunk)) if chunks else chunk
                if len(body) <= self._max_body:
                    return bytes(body)
            chunks.append(chunk)
            size = sum(map(len, chunks))
        raise _TooLarge(
            f"The body has more than {self._max_body} bytes.",
            valid="Send fewer records at once, or raise max_body in [serving].",
        )


def _must(method: str, valid: str, path: str) -> None:
    if method != valid:
        raise _WrongMethod(f"{method} does not work on {path!r}.", valid=f"{valid} does.")


def _header(scope: Scope, name: bytes) -> str:
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return ""


def _must_be_json(scope: Scope) -> None:
    kind = _header(scope, b"content-type").partition(";")[0].strip().lower()
    if kind not in {"application/json", ""}:
        raise _WrongType(
            f"The content type {kind!r} is not read here.", valid="Send content-type: application/json."
        )


def _entities(predictor: Predictor, decoder: Decoder, rows: list[Any], header: str) -> list[str] | None:
    """Return who each row is about: the declared field, else the header, else nobody in particular."""
    field = predictor.config.entity
    if field is not None and field in decoder.signature.names:
        return [str(decoder.value(row, field)) for row in rows]
    return [header] * len(rows) if header else None


def _row(answers: Answers, row: int, model: str) -> dict[str, Any]:
    body: dict[str, Any] = {
        "prediction_id": answers.prediction_id[row],
        "prediction": answers.prediction[row].item()
        if hasattr(answers.prediction[row], "item")
        else answers.prediction[row],
    }
    if answers.probability is not None:
        shares = answers.probability[row].tolist()
        body["probability"] = {str(name): share for name, share in zip(answers.classes, shares, strict=True)}
    return body | {"model": model, "version": int(answers.version[row]), "variant": answers.variant[row]}


class _LabelBody(msgspec.Struct, forbid_unknown_fields=True):
    prediction_id: str
    actual: bool | int | float | str


_label_decoder = msgspec.json.Decoder(_LabelBody | list[_LabelBody])


def _labels(body: bytes, ids: Ids) -> list[Label]:
    """Decode and check labels; one that is wrong refuses all of the request."""
    try:
        found = _label_decoder.decode(body)
    except msgspec.ValidationError as error:
        raise SchemaMismatch(
            f"This is no label: {error}.",
            valid='Send {"prediction_id": "...", "actual": 1}, or a list of these; actual is a number, text or boolean.',
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"The body is not JSON: {error}.", valid="Send one label or a list of labels."
        ) from None
    labels = []
    for row, one in enumerate(found if isinstance(found, list) else [found]):
        try:
            ids.check(one.prediction_id)
        except NotFound as error:
            raise NotFound(error.fact, valid=error.valid, hint=error.hint, row=row) from None
        if isinstance(one.actual, float) and not math.isfinite(one.actual):
            raise SchemaMismatch(
                f"The label in row {row} is {one.actual}.", valid="A label is finite.", row=row
            )
        labels.append(Label(one.prediction_id, one.actual))
    return labels
