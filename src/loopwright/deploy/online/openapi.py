"""The OpenAPI document of a serving worker, made from the signatures of what it serves now."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from loopwright.deploy.online import schemas
from loopwright.deploy.online.described import Described
from loopwright.deploy.online.schemas import Schema

__all__ = ["document"]

JSON = "application/json"
CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
ARROW_FILE = "application/vnd.apache.arrow.file"
PARQUET = "application/vnd.apache.parquet"
BINARY = "application/octet-stream"
#: Types of the Open Inference Protocol that a tensor can have here.
DATATYPES = (
    "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16", "FP32", "FP64", "BYTES",
)  # fmt: skip
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
_REFUSALS: dict[int, tuple[str, str, dict[str, Any]]] = {
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
_ERRORS = {"records": "Error", "invocations": "MLflowError", "v2": "InferenceError"}
_POSTED = (400, 401, 404, 405, 408, 413, 415, 422, 429, 503, 504)


def document(project_name: str, deployments: Mapping[str, Described], *, version: str = "") -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of what is served.

    Each deployment has paths of its own, because each has a schema of its own.

    Parameters
    ----------
    project_name
        Whose deployments these are.
    deployments
        What is served now, by the deployments' names.
    version
        Loopwright's version.

    Returns
    -------
    dict
        JSON values only.

    Examples
    --------
    >>> document("wines", {})["openapi"]
    '3.1.0'
    """
    names = _component_names(deployments)
    paths = dict(_common(deployments, names))
    for name, one in deployments.items():
        paths |= _plain(name, one, names[name])
    for name, one in deployments.items():
        paths |= _mlflow(name, one, names[name])
    for name, one in deployments.items():
        paths |= _inference(name, one)
    made = {names[name]: one for name, one in deployments.items()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Predictions of {project_name}",
            "version": version or "1",
            "description": "Made from the signatures of the models that are served at this moment.",
        },
        "tags": [
            {"name": "predict", "description": "Records in, predictions with ids out."},
            {"name": "labels", "description": "What turned out to be true."},
            {"name": "mlflow", "description": "As MLflow's scoring server."},
            {"name": "v2", "description": "The Open Inference Protocol."},
            {"name": "state", "description": "What is served, and how it does."},
        ],
        "paths": paths,
        "components": {
            "schemas": _components(made),
            "responses": {
                _refusal_name(status, protocol): _refusal(text, headers, protocol)
                for protocol in _ERRORS
                for status, (_, text, headers) in _REFUSALS.items()
            },
            "parameters": _PARAMETERS,
        },
    }


def _component_names(deployments: Iterable[str]) -> dict[str, str]:
    """Return a name for each deployment that a reference can hold, each different."""
    found: dict[str, str] = {}
    for name in deployments:
        plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)
        while plain in found.values():
            plain += "_"
        found[name] = plain
    return found


def _components(made: Mapping[str, Described]) -> dict[str, Schema]:
    found: dict[str, Schema] = {
        "Error": schemas.error(),
        "MLflowError": schemas.mlflow_error(),
        "InferenceError": schemas.inference_error(),
        "Label": schemas.labels(),
        "InferenceRequest": _INFERENCE_REQUEST,
        "InferenceResponse": _INFERENCE_RESPONSE,
    }
    for name, one in made.items():
        found[f"{name}.Record"] = schemas.record(one)
        found[f"{name}.Answer"] = schemas.answer(one)
        found[f"{name}.Output"] = schemas.output(one)
    return found


_PARAMETERS: dict[str, Any] = {
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
_ASKING = [{"$ref": f"#/components/parameters/{name}"} for name in _PARAMETERS]


_WHICH: dict[str, Any] = {
    "name": "x-deployment",
    "in": "header",
    "description": "Which deployment, where there are several.",
    "schema": {"type": "string"},
}


def _asking(one: Described) -> list[dict[str, Any]]:
    """Return the parameters of a request to one deployment, whose variants are known."""
    names = [variant.name for variant in one.variants if not variant.shadow]
    at = list(_PARAMETERS).index("variant")
    return [*_ASKING[:at], _PARAMETERS["variant"] | {"schema": {"enum": names}}, *_ASKING[at + 1 :]]


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _refusal_name(status: int, protocol: str) -> str:
    """Return what a refusal is called among the components."""
    prefix = {"records": "", "invocations": "MLflow", "v2": "Inference"}[protocol]
    return prefix + _REFUSALS[status][0]


def _refusal(text: str, headers: dict[str, Any], protocol: str) -> dict[str, Any]:
    made: dict[str, Any] = {"description": text, "content": {JSON: {"schema": _ref(_ERRORS[protocol])}}}
    return made | {"headers": headers} if headers else made


def _refusals(statuses: Iterable[int], protocol: str = "records") -> dict[str, Any]:
    return {
        str(status): {"$ref": f"#/components/responses/{_refusal_name(status, protocol)}"}
        for status in statuses
    }


def _ok(schema: Schema, text: str, content_type: str = JSON, **more: Any) -> dict[str, Any]:
    return {"200": {"description": text, "content": {content_type: {"schema": schema} | more}}}


def _get(
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
    responses = _ok(schema, summary, content_type) | _refusals((*refused, 405), protocol)
    if not_ready is not None:
        said = {"anyOf": [not_ready, _ref(_ERRORS[protocol])]}
        responses["503"] = {"description": "Not yet.", "content": {JSON: {"schema": said}}, "headers": _RETRY}
    return {"get": {"operationId": operation, "tags": [tag], "summary": summary, "responses": responses}}


def _post(
    operation: str,
    tag: str,
    summary: str,
    content: dict[str, Any],
    responses: dict[str, Any],
    parameters: list[dict[str, Any]],
) -> dict[str, Any]:
    protocol = {"v2": "v2", "mlflow": "invocations"}.get(tag, "records")
    return {
        "post": {
            "operationId": operation,
            "tags": [tag],
            "summary": summary,
            "parameters": parameters,
            "requestBody": {"required": True, "content": content},
            "responses": responses | _refusals(_POSTED, protocol),
        }
    }


def _common(deployments: Mapping[str, Described], names: Mapping[str, str]) -> Iterable[tuple[str, Any]]:
    """Yield the paths that stand for all deployments together."""
    label = _post(
        "label",
        "labels",
        "Hand in labels: all of the request or none",
        {JSON: {"schema": schemas.one_or_many(_ref("Label"))}},
        {
            "202": {
                "description": "All of them are kept.",
                "content": {
                    JSON: {"schema": _object({"accepted": {"type": "integer", "minimum": 1}}, ["accepted"])}
                },
            }
        },
        [_ASKING[list(_PARAMETERS).index("key")]],
    )
    yield "/labels", label
    served = {"type": "array", "items": _DEPLOYMENT}
    yield "/deployments", _get("deployments", "state", "What is served, and what it takes", served)
    for name in deployments:
        own = _get(f"deployment_{names[name]}", "state", f"What {name} serves and takes", _DEPLOYMENT)
        yield f"/deployments/{_quoted(name)}", own
    alive = _object({"status": {"const": "ok"}}, ["status"])
    yield "/health", _get("health", "state", "The process is alive", alive, refused=())
    ready = _object({"status": {"const": "ready"}}, ["status"])
    yield "/ready", _get("ready", "state", "Everything that was started is loaded", ready, refused=(503,))
    text = {"type": "string"}
    yield "/", _get("index", "state", "A page of what is served; JSON for programs", {"type": "object"})
    yield "/metrics", _get("metrics", "state", "Figures for Prometheus", text, content_type="text/plain")
    yield "/openapi.json", _get("openapi", "state", "This document", {"type": "object"})
    if deployments:
        answers = _unique(_mlflow_answer(names[name], one) for name, one in deployments.items())
        yield (
            "/invocations",
            _post(
                "invocations",
                "mlflow",
                "Ask the only deployment, or the one that x-deployment names, as MLflow's scoring server is asked",
                _mlflow_content(next(iter(deployments.values())), ()),
                _ok(answers, "The predictions, in the order of the rows."),
                [*_ASKING, _WHICH],
            ),
        )
    ping = _get("ping", "mlflow", "Everything is loaded, as MLflow asks for it", {}, refused=(503,))
    # The body is an empty line, which is what MLflow's own server answers.
    ping["get"]["responses"]["200"]["content"] = {JSON: {}}
    yield "/ping", ping
    version = "The version of MLflow whose protocol this is"
    yield "/version", _get("version", "mlflow", version, text, content_type="text/plain")
    server = _object(
        {
            "name": text,
            "version": text,
            "extensions": {"type": "array", "items": text},
        },
        ["name", "version", "extensions"],
    )
    yield "/v2", _get("v2_server", "v2", "What this server is", server)
    live = _object({"live": {"type": "boolean"}}, ["live"])
    yield "/v2/health/live", _get("v2_live", "v2", "The process is alive", live, refused=())
    up = _object({"live": {"type": "boolean"}, "ready": {"type": "boolean"}}, ["ready"])
    yield "/v2/health/ready", _get("v2_ready", "v2", "Everything is loaded", up, refused=(), not_ready=up)


def _plain(name: str, one: Described, component: str) -> dict[str, Any]:
    record, answer = _ref(f"{component}.Record"), _ref(f"{component}.Answer")
    many = list(one.examples[:3]) or [one.example]
    content = {
        JSON: {
            "schema": schemas.one_or_many(record),
            "examples": {
                "one": {"summary": "One record", "value": one.example},
                "many": {"summary": "Several records", "value": many},
            },
        },
        CSV: {"schema": {"type": "string"}, "example": _csv(many)},
        ARROW: {"schema": _FILE | {"description": "An Arrow IPC stream with the inputs as columns."}},
        ARROW_FILE: {"schema": _FILE | {"description": "An Arrow IPC file with the inputs as columns."}},
        PARQUET: {"schema": _FILE | {"description": "A Parquet file with the inputs as columns."}},
    }
    said = {
        "200": {
            "description": "One answer for one record; for a list or a table, one for each row in its order. A table is "
            "answered in the form that the header accept names. All are in the prediction log.",
            "content": {JSON: {"schema": {"oneOf": [answer, schemas.answers(answer)]}}}
            | {kind: {"schema": {"type": "string"}} for kind in (CSV, ARROW, ARROW_FILE, PARQUET)},
        }
    }
    which = f"Predict {one.signature.target!r} with {one.model}"
    page = _get(
        f"try_{component}", "predict", f"A page to try {name}", {"type": "string"}, content_type="text/html"
    )
    return {
        f"/predict/{_quoted(name)}": _post(
            f"predict_{component}", "predict", which, content, said, _asking(one)
        ),
        f"/try/{_quoted(name)}": page,
    }


def _mlflow(name: str, one: Described, component: str) -> dict[str, Any]:
    said = _ok(_mlflow_answer(component, one), "The predictions, in the order of the rows.")
    content = _mlflow_content(one, one.examples[:3])
    which = f"Ask {one.model} as MLflow's scoring server is asked"
    path = f"/deployments/{_quoted(name)}/invocations"
    return {path: _post(f"invocations_{component}", "mlflow", which, content, said, _asking(one))}


def _mlflow_content(one: Described, examples: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """Return the bodies that MLflow's protocol has: exactly one of four keys, or CSV."""
    anything: Schema = {}
    row = {"type": "object"}
    split = _object(
        {
            "columns": {"type": "array", "items": {"type": "string"}},
            "index": {"type": "array"},
            "data": {"type": "array", "items": {"type": "array"}},
        },
        ["data"],
    )
    forms: dict[str, Schema] = {
        "dataframe_split": split,
        "dataframe_records": {"type": "array", "items": row},
        "instances": {"type": "array"},
        "inputs": anything,
    }
    also = {"params": {"type": ["object", "null"]}}
    content: dict[str, Any] = {
        JSON: {"schema": {"oneOf": [_object({key: form} | also, [key]) for key, form in forms.items()]}},
        CSV: {"schema": {"type": "string"}},
        PARQUET: {"schema": _FILE},
    }
    if examples:
        names = list(one.signature.names)
        data = [[example[name] for name in names] for example in examples]
        content[JSON]["examples"] = {
            "split": {"value": {"dataframe_split": {"columns": names, "data": data}}},
            "records": {"value": {"dataframe_records": list(examples)}},
        }
        content[CSV]["example"] = _csv(examples)
    return content


def _mlflow_answer(component: str, one: Described) -> Schema:
    """Return what MLflow's clients read: labels or numbers, lists of them where there are several outputs; and the ids."""
    output = _ref(f"{component}.Output")
    items = {"type": "array", "items": output} if one.signature.outputs else output
    ids = {"type": "array", "items": {"type": "string"}, "minItems": 1}
    predictions = {"type": "array", "items": items, "minItems": 1}
    return _object({"predictions": predictions, "prediction_ids": ids}, ["predictions"])


def _inference(name: str, one: Described) -> dict[str, Any]:
    """Return the paths of the Open Inference Protocol: without a version, and with each that is served."""
    base, asking = f"/v2/models/{_quoted(name)}", _asking(one)
    found: dict[str, Any] = {}
    for number, path in (("", base), *((str(one), f"{base}/versions/{one}") for one in one.versions)):
        operation = f"{name}_{number}" if number else name
        what = f"{name}, version {number}" if number else name
        found[path] = _get(
            f"v2_model_{operation}", "v2", f"The tensors of {what}", _MODEL, refused=(401, 404, 503)
        )
        ready = _object({"name": {"type": "string"}, "ready": {"type": "boolean"}}, ["ready"])
        found[f"{path}/ready"] = _get(
            f"v2_ready_{operation}",
            "v2",
            f"Whether {what} is loaded",
            ready,
            refused=(401, 404),
            not_ready=ready,
        )
        content = {
            JSON: {"schema": _ref("InferenceRequest")},
            BINARY: {
                "schema": _FILE
                | {
                    "description": "The JSON part and the tensors' bytes; inference-header-content-length parts them."
                }
            },
        }
        said = {
            "200": {
                "description": "The outputs. They are in the prediction log.",
                "content": {JSON: {"schema": _ref("InferenceResponse")}, BINARY: {"schema": _FILE}},
            }
        }
        found[f"{path}/infer"] = _post(f"v2_infer_{operation}", "v2", f"Ask {what}", content, said, asking)
    return found


_FILE: Schema = {"type": "string", "format": "binary"}
_SHAPE: Schema = {"type": "array", "items": {"type": "integer", "minimum": 0}}


def _object(properties: dict[str, Schema], required: list[str], *, closed: bool = True) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": not closed,
    }


_TENSOR: dict[str, Schema] = {
    "name": {"type": "string"},
    "shape": _SHAPE,
    "datatype": {"enum": list(DATATYPES)},
    "parameters": {"type": "object"},
}
_INFERENCE_REQUEST = _object(
    {
        "id": {"type": ["string", "null"]},
        "parameters": {"type": ["object", "null"]},
        "inputs": {
            "type": "array",
            "minItems": 1,
            "items": _object(
                _TENSOR | {"data": {"type": "array"}}, ["name", "shape", "datatype"], closed=False
            ),
        },
        "outputs": {
            "type": ["array", "null"],
            "items": _object(
                {"name": {"type": "string"}, "parameters": {"type": ["object", "null"]}},
                ["name"],
                closed=False,
            ),
        },
        "model_name": {"type": ["string", "null"]},
        "model_version": {"type": ["string", "null"]},
    },
    ["inputs"],
)
_INFERENCE_RESPONSE = _object(
    {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "parameters": {"type": "object"},
        "outputs": {
            "type": "array",
            "minItems": 1,
            "items": _object(_TENSOR | {"data": {"type": "array"}}, ["name", "shape", "datatype"]),
        },
    },
    ["model_name", "outputs"],
)
_DESCRIBED_TENSOR = _object(
    {
        "name": {"type": "string"},
        "datatype": {"enum": list(DATATYPES)},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": -1}},
        "parameters": {"type": "object"},
    },
    ["name", "datatype", "shape"],
)
_MODEL = _object(
    {
        "name": {"type": "string"},
        "versions": {"type": "array", "items": {"type": "string"}},
        "platform": {"type": "string"},
        "inputs": {"type": "array", "items": _DESCRIBED_TENSOR},
        "outputs": {"type": "array", "items": _DESCRIBED_TENSOR},
        "parameters": {"type": "object"},
    },
    ["name", "platform", "inputs", "outputs"],
)
_DEPLOYMENT = _object(
    {
        "name": {"type": "string"},
        "model": {"type": "string"},
        "entity": {"type": ["string", "null"]},
        "state": {"type": "string", "examples": ["serving", "loading", "not started"]},
        "variants": {
            "type": "array",
            "items": _object(
                {
                    "name": {"type": "string"},
                    "version": {"type": "integer", "minimum": 1},
                    "weight": {"type": "number", "minimum": 0},
                    "runtime": {"type": "string"},
                },
                ["name", "version", "weight"],
                closed=False,
            ),
        },
        "runtime": {"type": "string"},
        "signature": {"type": "object"},
        "refused": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    ["name", "model", "state", "variants"],
    closed=False,
)


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _unique(found: Iterable[Schema]) -> Schema:
    """Return one schema, or any of several."""
    different: list[Schema] = []
    for schema in found:
        if schema not in different:
            different.append(schema)
    return different[0] if len(different) == 1 else {"anyOf": different}


def _csv(rows: Iterable[Mapping[str, Any]]) -> str:
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
