"""The pieces that an OpenAPI document is put together from: operations, their parameters, and how each can refuse."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from loopwright.deploy.online.described import Described
from loopwright.deploy.online.schemas import Schema

__all__ = [
    "ARROW",
    "ARROW_FILE",
    "ASKING",
    "BINARY",
    "CSV",
    "ERRORS",
    "FILE",
    "JSON",
    "PARAMETERS",
    "PARQUET",
    "REFUSALS",
    "asking_of",
    "csv_of",
    "get",
    "object_of",
    "ok",
    "post",
    "quoted",
    "ref",
    "refusal",
    "refusal_name",
]

JSON = "application/json"
CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
ARROW_FILE = "application/vnd.apache.arrow.file"
PARQUET = "application/vnd.apache.parquet"
BINARY = "application/octet-stream"
_LONGEST = 256

_RETRY = {
    "Retry-After": {
        "description": "Seconds after which trying again makes sense.",
        "schema": {"type": "integer", "minimum": 0},
    }
}
_CHALLENGE = {"WWW-Authenticate": {"description": "How to send a key.", "schema": {"type": "string"}}}
_ALLOW = {"Allow": {"description": "What works.", "schema": {"type": "string"}}}
#: Every refusal by status: its component, what it means, and the headers it has.
REFUSALS: dict[int, tuple[str, str, dict[str, Any]]] = {
    400: ("Unreadable", "The body is no such document, or holds no rows; the message says where.", {}),
    401: ("Unauthorized", "A key is needed, and none that is valid was sent.", _CHALLENGE),
    404: (
        "Unknown",
        "There is no such deployment, version, variant or prediction; the nearest is named.",
        {},
    ),
    405: ("WrongMethod", "The path is right, the method is not.", _ALLOW),
    408: ("TooSlow", "The body did not arrive in time.", {}),
    413: ("TooLarge", "The body is larger than `serving.max_body`.", {}),
    415: ("WrongType", "This content type is not read here.", {}),
    422: ("Mismatch", "A row does not fit the model; the message names row and field.", {}),
    429: ("TooMany", "More requests than `serving.rate_limit` allows this key.", _RETRY),
    503: ("Refused", "Nothing was done: not loaded yet, or too much is waiting.", _RETRY),
    504: ("TooLate", "There was no answer within the time that the caller or the deployment gives.", {}),
}
#: What a protocol's error schema is called, and its refusals after it.
ERRORS = {"records": "Error", "invocations": "MLflowError", "v2": "InferenceError"}
_POSTED = (400, 401, 404, 405, 408, 413, 415, 422, 429, 503, 504)


PARAMETERS: dict[str, Any] = {
    "entity": {
        "name": "x-entity",
        "in": "header",
        "description": "Who or what the rows are about, where they do not say so: the same entity keeps its variant.",
        "schema": {"type": "string", "maxLength": _LONGEST},
    },
    "request_id": {
        "name": "x-request-id",
        "in": "header",
        "description": "The caller's own id: logged with the predictions, and sent back.",
        "schema": {"type": "string", "maxLength": _LONGEST},
    },
    "variant": {
        "name": "x-variant",
        "in": "header",
        "description": "Ask this variant whoever the entity is: for tests. Such predictions count for no release.",
        "schema": {"type": "string", "maxLength": _LONGEST},
    },
    "timeout": {
        "name": "x-timeout-ms",
        "in": "header",
        "description": "Milliseconds after which the answer is of no use; by default the deployment's `timeout`.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 600_000},
    },
    "key": {
        "name": "x-api-key",
        "in": "header",
        "description": "Who asks: needed as soon as the project has a key; `serving.rate_limit` counts by it.",
        "schema": {"type": "string"},
    },
    "traceparent": {
        "name": "traceparent",
        "in": "header",
        "description": "The caller's trace (W3C Trace Context), kept with the prediction; one that is none is left out.",
        "schema": {"type": "string", "examples": ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]},
    },
}
ASKING = [{"$ref": f"#/components/parameters/{name}"} for name in PARAMETERS]


def asking_of(one: Described) -> list[dict[str, Any]]:
    """Return the parameters of a request to one deployment, whose variants are known."""
    names = [variant.name for variant in one.variants if not variant.shadow]
    at = list(PARAMETERS).index("variant")
    return [*ASKING[:at], PARAMETERS["variant"] | {"schema": {"enum": names}}, *ASKING[at + 1 :]]


def ref(name: str) -> Schema:
    """Return a reference to a schema among the components."""
    return {"$ref": f"#/components/schemas/{name}"}


def refusal_name(status: int, protocol: str) -> str:
    """Return what a refusal is called among the components."""
    prefix = {"records": "", "invocations": "MLflow", "v2": "Inference"}[protocol]
    return prefix + REFUSALS[status][0]


def refusal(text: str, headers: dict[str, Any], protocol: str) -> dict[str, Any]:
    """Return the response of a refusal, in the form that a protocol has for errors."""
    made: dict[str, Any] = {"description": text, "content": {JSON: {"schema": ref(ERRORS[protocol])}}}
    return made | {"headers": headers} if headers else made


def refusals(statuses: Iterable[int], protocol: str = "records") -> dict[str, Any]:
    return {
        str(status): {"$ref": f"#/components/responses/{refusal_name(status, protocol)}"}
        for status in statuses
    }


def ok(schema: Schema, text: str, content_type: str = JSON, **more: Any) -> dict[str, Any]:
    """Return the response of a success."""
    return {"200": {"description": text, "content": {content_type: {"schema": schema} | more}}}


def get(
    operation: str,
    tag: str,
    summary: str,
    schema: Schema,
    *,
    refused: tuple[int, ...] = (401,),
    content_type: str = JSON,
    not_ready: Schema | None = None,
) -> dict[str, Any]:
    """Return the operation that reads something; `not_ready` is what it says with a 503."""
    protocol = "v2" if tag == "v2" else "records"
    responses = ok(schema, summary, content_type) | refusals((*refused, 405), protocol)
    if not_ready is not None:
        said = {"anyOf": [not_ready, ref(ERRORS[protocol])]}
        responses["503"] = {"description": "Not yet.", "content": {JSON: {"schema": said}}, "headers": _RETRY}
    return {"get": {"operationId": operation, "tags": [tag], "summary": summary, "responses": responses}}


def post(
    operation: str,
    tag: str,
    summary: str,
    content: dict[str, Any],
    responses: dict[str, Any],
    parameters: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return the operation that sends something, with all the ways in which it can be refused."""
    protocol = {"v2": "v2", "mlflow": "invocations"}.get(tag, "records")
    return {
        "post": {
            "operationId": operation,
            "tags": [tag],
            "summary": summary,
            "parameters": parameters,
            "requestBody": {"required": True, "content": content},
            "responses": responses | refusals(_POSTED, protocol),
        }
    }


FILE: Schema = {"type": "string", "format": "binary"}


def object_of(properties: dict[str, Schema], required: list[str], *, closed: bool = True) -> Schema:
    """Return the schema of an object; a closed one has no other properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": not closed,
    }


def quoted(name: str) -> str:
    """Return a name as it stands in a path."""
    return quote(name, safe="")


def csv_of(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as CSV with a line of names; what is missing is empty."""
    made = list(rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(made[0])
    for row in made:
        writer.writerow(["" if value is None else _cell(value) for value in row.values()])
    return text.getvalue()


def _cell(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value
