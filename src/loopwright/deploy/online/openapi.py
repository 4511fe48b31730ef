"""The OpenAPI document of a serving worker, made from the signatures of what it serves now."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from loopwright.deploy.online import schemas
from loopwright.deploy.online.described import Described
from loopwright.deploy.online.openapi_parts import (
    ARROW,
    ARROW_FILE,
    ASKING,
    CSV,
    ERRORS,
    FILE,
    JSON,
    PARAMETERS,
    PARQUET,
    REFUSALS,
    asking_of,
    csv_of,
    get,
    object_of,
    ok,
    post,
    quoted,
    ref,
    refusal,
    refusal_name,
)
from loopwright.deploy.online.openapi_protocols import (
    INFERENCE_REQUEST,
    INFERENCE_RESPONSE,
    inference,
    mlflow,
    mlflow_answer,
    mlflow_content,
)
from loopwright.deploy.online.schemas import Schema

__all__ = ["document"]

_WHICH: dict[str, Any] = {
    "name": "x-deployment",
    "in": "header",
    "description": "Which deployment, where there are several.",
    "schema": {"type": "string"},
}


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
        paths |= mlflow(name, one, names[name])
    for name, one in deployments.items():
        paths |= inference(name, one)
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
                refusal_name(status, protocol): refusal(text, headers, protocol)
                for protocol in ERRORS
                for status, (_, text, headers) in REFUSALS.items()
            },
            "parameters": PARAMETERS,
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
        "InferenceRequest": INFERENCE_REQUEST,
        "InferenceResponse": INFERENCE_RESPONSE,
    }
    for name, one in made.items():
        found[f"{name}.Record"] = schemas.record(one)
        found[f"{name}.Answer"] = schemas.answer(one)
        found[f"{name}.Output"] = schemas.output(one)
    return found


def _common(deployments: Mapping[str, Described], names: Mapping[str, str]) -> Iterable[tuple[str, Any]]:
    """Yield the paths that stand for all deployments together."""
    label = post(
        "label",
        "labels",
        "Hand in labels: all of the request or none",
        {JSON: {"schema": schemas.one_or_many(ref("Label"))}},
        {
            "202": {
                "description": "All of them are kept.",
                "content": {
                    JSON: {"schema": object_of({"accepted": {"type": "integer", "minimum": 1}}, ["accepted"])}
                },
            }
        },
        [ASKING[list(PARAMETERS).index("key")]],
    )
    yield "/labels", label
    served = {"type": "array", "items": _DEPLOYMENT}
    yield "/deployments", get("deployments", "state", "What is served, and what it takes", served)
    for name in deployments:
        own = get(f"deployment_{names[name]}", "state", f"What {name} serves and takes", _DEPLOYMENT)
        yield f"/deployments/{quoted(name)}", own
    alive = object_of({"status": {"const": "ok"}}, ["status"])
    yield "/health", get("health", "state", "The process is alive", alive, refused=())
    ready = object_of({"status": {"const": "ready"}}, ["status"])
    yield "/ready", get("ready", "state", "Everything that was started is loaded", ready, refused=(503,))
    text = {"type": "string"}
    yield "/", get("index", "state", "A page of what is served; JSON for programs", {"type": "object"})
    yield "/metrics", get("metrics", "state", "Figures for Prometheus", text, content_type="text/plain")
    yield "/openapi.json", get("openapi", "state", "This document", {"type": "object"})
    if deployments:
        answers = _unique(mlflow_answer(names[name], one) for name, one in deployments.items())
        yield (
            "/invocations",
            post(
                "invocations",
                "mlflow",
                "Ask the only deployment, or the one that x-deployment names, as MLflow's scoring server is asked",
                mlflow_content(next(iter(deployments.values())), ()),
                ok(answers, "The predictions, in the order of the rows."),
                [*ASKING, _WHICH],
            ),
        )
    ping = get("ping", "mlflow", "Everything is loaded, as MLflow asks for it", {}, refused=(503,))
    # The body is an empty line, which is what MLflow's own server answers.
    ping["get"]["responses"]["200"]["content"] = {JSON: {}}
    yield "/ping", ping
    version = "The version of MLflow whose protocol this is"
    yield "/version", get("version", "mlflow", version, text, content_type="text/plain")
    server = object_of(
        {
            "name": text,
            "version": text,
            "extensions": {"type": "array", "items": text},
        },
        ["name", "version", "extensions"],
    )
    yield "/v2", get("v2_server", "v2", "What this server is", server)
    live = object_of({"live": {"type": "boolean"}}, ["live"])
    yield "/v2/health/live", get("v2_live", "v2", "The process is alive", live, refused=())
    up = object_of({"live": {"type": "boolean"}, "ready": {"type": "boolean"}}, ["ready"])
    yield "/v2/health/ready", get("v2_ready", "v2", "Everything is loaded", up, refused=(), not_ready=up)


def _plain(name: str, one: Described, component: str) -> dict[str, Any]:
    record, answer = ref(f"{component}.Record"), ref(f"{component}.Answer")
    many = list(one.examples[:3]) or [one.example]
    content = {
        JSON: {
            "schema": schemas.one_or_many(record),
            "examples": {
                "one": {"summary": "One record", "value": one.example},
                "many": {"summary": "Several records", "value": many},
            },
        },
        CSV: {"schema": {"type": "string"}, "example": csv_of(many)},
        ARROW: {"schema": FILE | {"description": "An Arrow IPC stream with the inputs as columns."}},
        ARROW_FILE: {"schema": FILE | {"description": "An Arrow IPC file with the inputs as columns."}},
        PARQUET: {"schema": FILE | {"description": "A Parquet file with the inputs as columns."}},
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
    page = get(
        f"try_{component}", "predict", f"A page to try {name}", {"type": "string"}, content_type="text/html"
    )
    return {
        f"/predict/{quoted(name)}": post(
            f"predict_{component}", "predict", which, content, said, asking_of(one)
        ),
        f"/try/{quoted(name)}": page,
    }


_DEPLOYMENT = object_of(
    {
        "name": {"type": "string"},
        "model": {"type": "string"},
        "entity": {"type": ["string", "null"]},
        "state": {"type": "string", "examples": ["serving", "loading", "not started"]},
        "variants": {
            "type": "array",
            "items": object_of(
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


def _unique(found: Iterable[Schema]) -> Schema:
    """Return one schema, or any of several."""
    different: list[Schema] = []
    for schema in found:
        if schema not in different:
            different.append(schema)
    return different[0] if len(different) == 1 else {"anyOf": different}
