"""Describe pipelines to Prefect: ``python -m loopwright.pipelines.describe ENTRYPOINT ...``.

A transient process of the runner: the user's module may load gigabytes of libraries, and the runner lives for weeks.
Prints one JSON object: entrypoint -> name, description, parameter schema; or the error that importing it gave.
"""

import inspect
import json
import math
import sys
from typing import Any

from loopwright.config import Project
from loopwright.errors import LoopwrightError
from loopwright.pipelines.definition import Pipeline
from loopwright.pipelines.entrypoints import load

__all__ = ["describe", "main"]

_JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


def describe(pipeline: Pipeline[Any, Any]) -> dict[str, Any]:
    """Return what Prefect shows of a pipeline: enough for its form to run it with other parameters."""
    properties: dict[str, Any] = {}
    required = []
    for position, (name, parameter) in enumerate(pipeline.signature.parameters.items()):
        field: dict[str, Any] = {"title": name, "position": position}
        kind = parameter.annotation
        if isinstance(kind, type) and kind in _JSON_TYPES:  # other annotations need not even be hashable
            field["type"] = _JSON_TYPES[kind]
        if parameter.default is parameter.empty:
            required.append(name)
        elif _is_json(parameter.default):
            field["default"] = parameter.default
        properties[name] = field
    return {
        "name": pipeline.name,
        "description": inspect.getdoc(pipeline.function) or "",
        "schema": {"title": "Parameters", "type": "object", "properties": properties, "required": required},
    }


def _is_json(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, (bool, int, str))


def main(entrypoints: list[str]) -> None:
    """Print the descriptions."""
    project = Project.find()
    found: dict[str, Any] = {}
    for entrypoint in entrypoints:
        try:
            found[entrypoint] = describe(load(project, entrypoint))
        except LoopwrightError as error:
            found[entrypoint] = {"error": str(error)}
    sys.stdout.write(f"\n{json.dumps(found)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
