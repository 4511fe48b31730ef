"""The paths of MLflow's scoring protocol and of the Open Inference Protocol in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from loopwright.deploy.online.described import Described
from loopwright.deploy.online.openapi_parts import (
    BINARY,
    CSV,
    FILE,
    JSON,
    PARQUET,
    asking_of,
    csv_of,
    get,
    object_of,
    ok,
    post,
    quoted,
    ref,
)
from loopwright.deploy.online.schemas import Schema

__all__ = [
    "INFERENCE_REQUEST",
    "INFERENCE_RESPONSE",
    "inference",
    "mlflow",
    "mlflow_answer",
    "mlflow_content",
]

#: Types of the Open Inference Protocol that a tensor can have here.
DATATYPES = (
    "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16", "FP32", "FP64", "BYTES",
)  # fmt: skip
_SHAPE: Schema = {"type": "array", "items": {"type": "integer", "minimum": 0}}


def mlflow(name: str, one: Described, component: str) -> dict[str, Any]:
    """Return the path of MLflow's protocol for one deployment."""
    said = ok(mlflow_answer(component, one), "The predictions, in the order of the rows.")
    content = mlflow_content(one, one.examples[:3])
    which = f"Ask {one.model} as MLflow's scoring server is asked"
    path = f"/deployments/{quoted(name)}/invocations"
    return {path: post(f"invocations_{component}", "mlflow", which, content, said, asking_of(one))}


def mlflow_content(one: Described, examples: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """Return the bodies that MLflow's protocol has: exactly one of four keys, or CSV."""
    anything: Schema = {}
    row = {"type": "object"}
    split = object_of(
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
        JSON: {"schema": {"oneOf": [object_of({key: form} | also, [key]) for key, form in forms.items()]}},
        CSV: {"schema": {"type": "string"}},
        PARQUET: {"schema": FILE},
    }
    if examples:
        names = list(one.signature.names)
        data = [[example[name] for name in names] for example in examples]
        content[JSON]["examples"] = {
            "split": {"value": {"dataframe_split": {"columns": names, "data": data}}},
            "records": {"value": {"dataframe_records": list(examples)}},
        }
        content[CSV]["example"] = csv_of(examples)
    return content


def mlflow_answer(component: str, one: Described) -> Schema:
    """Return what MLflow's clients read: labels or numbers, lists of them where there are several outputs; and the ids."""
    output = ref(f"{component}.Output")
    items = {"type": "array", "items": output} if one.signature.outputs else output
    ids = {"type": "array", "items": {"type": "string"}, "minItems": 1}
    predictions = {"type": "array", "items": items, "minItems": 1}
    return object_of({"predictions": predictions, "prediction_ids": ids}, ["predictions"])


def inference(name: str, one: Described) -> dict[str, Any]:
    """Return the paths of the Open Inference Protocol: without a version, and with each that is served."""
    base, asking = f"/v2/models/{quoted(name)}", asking_of(one)
    found: dict[str, Any] = {}
    for number, path in (("", base), *((str(one), f"{base}/versions/{one}") for one in one.versions)):
        operation = f"{name}_{number}" if number else name
        what = f"{name}, version {number}" if number else name
        found[path] = get(
            f"v2_model_{operation}", "v2", f"The tensors of {what}", _MODEL, refused=(401, 404, 503)
        )
        ready = object_of({"name": {"type": "string"}, "ready": {"type": "boolean"}}, ["ready"])
        found[f"{path}/ready"] = get(
            f"v2_ready_{operation}",
            "v2",
            f"Whether {what} is loaded",
            ready,
            refused=(401, 404),
            not_ready=ready,
        )
        content = {
            JSON: {"schema": ref("InferenceRequest")},
            BINARY: {
                "schema": FILE
                | {
                    "description": "The JSON part and the tensors' bytes; inference-header-content-length parts them."
                }
            },
        }
        said = {
            "200": {
                "description": "The outputs. They are in the prediction log.",
                "content": {JSON: {"schema": ref("InferenceResponse")}, BINARY: {"schema": FILE}},
            }
        }
        found[f"{path}/infer"] = post(f"v2_infer_{operation}", "v2", f"Ask {what}", content, said, asking)
    return found


_TENSOR: dict[str, Schema] = {
    "name": {"type": "string"},
    "shape": _SHAPE,
    "datatype": {"enum": list(DATATYPES)},
    "parameters": {"type": "object"},
}
INFERENCE_REQUEST = object_of(
    {
        "id": {"type": ["string", "null"]},
        "parameters": {"type": ["object", "null"]},
        "inputs": {
            "type": "array",
            "minItems": 1,
            "items": object_of(
                _TENSOR | {"data": {"type": "array"}}, ["name", "shape", "datatype"], closed=False
            ),
        },
        "outputs": {
            "type": ["array", "null"],
            "items": object_of(
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
INFERENCE_RESPONSE = object_of(
    {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "parameters": {"type": "object"},
        "outputs": {
            "type": "array",
            "minItems": 1,
            "items": object_of(_TENSOR | {"data": {"type": "array"}}, ["name", "shape", "datatype"]),
        },
    },
    ["model_name", "outputs"],
)
_DESCRIBED_TENSOR = object_of(
    {
        "name": {"type": "string"},
        "datatype": {"enum": list(DATATYPES)},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": -1}},
        "parameters": {"type": "object"},
    },
    ["name", "datatype", "shape"],
)
_MODEL = object_of(
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
