"""JSON schemas of records and answers, from a model's signature; strict enough to generate requests from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from loopwright.deploy.online.described import Described
from loopwright.deploy.online.faults import FLOAT32, INT32, INT64
from loopwright.predictions.labels import LONGEST_WITHIN_S
from loopwright.records import Column, Scalar, Task
from loopwright.registry.profile import ColumnProfile

__all__ = [
    "answer",
    "answers",
    "error",
    "inference_error",
    "labels",
    "mlflow_error",
    "one_or_many",
    "output",
    "prediction",
    "record",
]

Schema = dict[str, Any]

FLOAT64 = 1.7976931348623157e308
#: Categories of a column that a description lists.
_LISTED = 8
_TYPES: dict[str, Schema] = {
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer", "format": "int32", "minimum": INT32[0], "maximum": INT32[1]},
    "long": {"type": "integer", "format": "int64", "minimum": INT64[0], "maximum": INT64[1]},
    "float": {"type": "number", "format": "float", "minimum": -FLOAT32, "maximum": FLOAT32},
    "double": {"type": "number", "format": "double", "minimum": -FLOAT64, "maximum": FLOAT64},
    "string": {"type": "string"},
    "datetime": {"type": "string", "format": "date-time"},
}


def record(one: Described) -> Schema:
    """Return the schema of one row: nothing missing, nothing unknown, every value in range."""
    properties = {
        column.name: _value(column, one.seen.get(column.name), one.example.get(column.name))
        for column in one.signature.inputs
    }
    if one.extra is not None:
        properties[one.extra] = {
            "type": ["string", "integer", "null"],
            "description": "Who or what the row is about: the same entity keeps its variant.",
        }
    return {
        "type": "object",
        "properties": properties,
        "required": [column.name for column in one.signature.inputs if column.required],
        "additionalProperties": False,
        "examples": [one.example],
    }


def one_or_many(item: Schema) -> Schema:
    """Return the schema of one of something, or a list of at least one."""
    return {"oneOf": [item, {"type": "array", "items": item, "minItems": 1}]}


def _value(column: Column, seen: ColumnProfile | None, example: Any) -> Schema:
    schema = dict(_TYPES[column.type])
    if not column.required:
        schema["type"] = [schema["type"], "null"]
    said = _seen(column, seen) if seen is not None else ""
    if said:
        schema["description"] = said
    if example is not None or not column.required:
        schema["examples"] = [example]
    return schema


def _seen(column: Column, seen: ColumnProfile) -> str:
    """Say what the training data held."""
    if seen.kind == "categorical" and seen.categories:
        more = len(seen.categories) - _LISTED
        listed = ", ".join(seen.categories[:_LISTED])
        return f"In the training data: {listed}" + (" and others." if more > 0 or seen.other else ".")
    if seen.minimum is None or seen.maximum is None or column.type == "datetime":
        return ""
    return (
        f"In the training data: {seen.minimum:.6g} to {seen.maximum:.6g}, on average {seen.mean or 0.0:.6g}."
    )


def output(one: Described) -> Schema:
    """Return the schema of one output: one of the classes, or a number."""
    return _classes(one.classes) if one.signature.task is Task.classification else _NUMBER


def prediction(one: Described) -> Schema:
    """Return the schema of a prediction: one of the classes, a number, or a list of what several outputs give."""
    single = output(one)
    if not one.signature.outputs:
        return single
    count = len(one.signature.outputs)
    return {
        "type": "array",
        "items": single,
        "minItems": count,
        "maxItems": count,
        "description": f"In this order: {', '.join(one.signature.outputs)}.",
    }


_NUMBER: Schema = {"type": ["number", "null"], "description": "null where the model gives no finite number."}


def _classes(classes: Iterable[Scalar]) -> Schema:
    known = list(classes)
    return {"enum": known} if known else {"type": ["string", "number", "boolean"]}


def _probability(one: Described) -> Schema:
    share = {"type": "number", "minimum": 0, "maximum": 1}
    names = [str(label) for label in one.classes]
    return {
        "type": ["object", "null"],
        "properties": dict.fromkeys(names, share),
        "required": names,
        "additionalProperties": False,
        "description": "By class, summing to 1; null where the model gives none.",
    }


def answer(one: Described) -> Schema:
    """Return the schema of what answers one row."""
    classified = one.signature.task is Task.classification and not one.signature.outputs
    return {
        "type": "object",
        "properties": {
            "prediction_id": {
                "type": "string",
                "description": "Names this prediction for ever: labels and traces take it.",
            },
            "prediction": prediction(one),
            "probability": _probability(one) if classified else {"type": "null"},
            "model": {"type": "string"},
            "version": {"type": "integer", "minimum": 1},
            "variant": {"type": "string", "examples": [variant.name for variant in one.variants]},
        },
        "required": ["prediction_id", "prediction", "model", "version", "variant"],
        "additionalProperties": False,
    }


def answers(item: Schema) -> Schema:
    """Return the schema of what answers a list: one for each row, in the order of the rows."""
    return {
        "type": "object",
        "properties": {"predictions": {"type": "array", "items": item, "minItems": 1}},
        "required": ["predictions"],
        "additionalProperties": False,
    }


def labels() -> Schema:
    """Return the schema of one label: by prediction id, or by entity and moment."""
    actual = {
        "type": ["boolean", "number", "string"],
        "description": "What turned out to be true: a class, or a finite number.",
    }
    at = {"type": "string", "format": "date-time", "description": "When it was true, with a time zone."}
    by_id = {
        "title": "By prediction id",
        "type": "object",
        "properties": {
            "prediction_id": {
                "type": "string",
                "minLength": 1,
                "description": "The id that came with the prediction.",
            },
            "actual": actual,
            "at": at,
        },
        "required": ["prediction_id", "actual"],
        "additionalProperties": False,
    }
    by_entity = {
        "title": "By entity and moment",
        "type": "object",
        "description": "Belongs to the entity's last prediction at or before `at`, if that is no older than `within`.",
        "properties": {
            "deployment": {"type": "string", "minLength": 1},
            "entity": {"type": "string", "minLength": 1, "description": "Who the prediction was about."},
            "at": at,
            "actual": actual,
            "within": {
                "oneOf": [
                    {
                        "type": "number",
                        "exclusiveMinimum": 0,
                        "maximum": LONGEST_WITHIN_S,
                        "description": "Seconds.",
                    },
                    {"type": "string", "pattern": "^[1-9][0-9]{0,2}(ms|s|m|min|h|d|w)$", "examples": ["2h"]},
                ],
                "default": 86400,
            },
        },
        "required": ["deployment", "entity", "at", "actual"],
        "additionalProperties": False,
    }
    return {"oneOf": [by_id, by_entity]}


def error() -> Schema:
    """Return the schema of an error of the plain routes."""
    return {
        "type": "object",
        "properties": {
            "error": {
                "type": "object",
                "properties": {
                    "code": {"type": "string", "examples": ["schema_mismatch"]},
                    "message": {
                        "type": "string",
                        "description": "What is wrong, with the value that is wrong.",
                    },
                    "valid": {"type": "string", "description": "What would be right."},
                    "hint": {"type": "string", "description": "The next step, usually a command."},
                    "row": {"type": "integer", "minimum": 0},
                    "field": {"type": "string"},
                },
                "required": ["code", "message"],
                "additionalProperties": True,
            }
        },
        "required": ["error"],
        "additionalProperties": False,
    }


def mlflow_error() -> Schema:
    """Return the schema of an error as MLflow's scoring server has it."""
    return {
        "type": "object",
        "properties": {"error_code": {"type": "string"}, "message": {"type": "string"}},
        "required": ["error_code", "message"],
        "additionalProperties": True,
    }


def inference_error() -> Schema:
    """Return the schema of an error of the Open Inference Protocol: text, and what programs need beside it."""
    return {
        "type": "object",
        "properties": {"error": {"type": "string"}, "code": {"type": "string"}},
        "required": ["error"],
        "additionalProperties": True,
    }
