"""Steps and pipelines over Prefect, each pipeline run inside one MLflow run.

The names below are imported when they are first used; decorating a function loads neither Prefect nor MLflow.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopwright.pipelines.definition import Pipeline, Step, pipeline, step
    from loopwright.pipelines.entrypoints import load
    from loopwright.pipelines.execution import run
    from loopwright.pipelines.remote import FlowRun, flow_run, flow_run_url, submit

__all__ = [
    "FlowRun",
    "Pipeline",
    "Step",
    "flow_run",
    "flow_run_url",
    "load",
    "pipeline",
    "run",
    "step",
    "submit",
]

_HOMES = {
    "definition": ("Pipeline", "Step", "pipeline", "step"),
    "entrypoints": ("load",),
    "execution": ("run",),
    "remote": ("FlowRun", "flow_run", "flow_run_url", "submit"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Names: {', '.join(__all__)}")
