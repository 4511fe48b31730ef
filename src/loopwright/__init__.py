"""Loopwright: one model, one scoring path, four ways to deploy it, and one ledger that remembers everything.

The public names below are imported when they are first used, so that ``import loopwright`` costs next to nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopwright.config import Config, Project
    from loopwright.deploy.online.client import Client, label, labels
    from loopwright.deploy.online.client_async import AsyncClient
    from loopwright.lineage import dataset, labelled, plain, trace
    from loopwright.pipelines import pipeline, step
    from loopwright.predictions.frames import predictions
    from loopwright.records import Label, ModelVersion, Signature
    from loopwright.registry import log_model, register
    from loopwright.scoring import load

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "Client",
    "Config",
    "Label",
    "ModelVersion",
    "Project",
    "Signature",
    "dataset",
    "label",
    "labelled",
    "labels",
    "load",
    "log_model",
    "pipeline",
    "plain",
    "predictions",
    "register",
    "step",
    "trace",
]

_HOMES = {
    "AsyncClient": "loopwright.deploy.online.client_async",
    "Client": "loopwright.deploy.online.client",
    "Config": "loopwright.config",
    "Label": "loopwright.records",
    "ModelVersion": "loopwright.records",
    "Project": "loopwright.config",
    "Signature": "loopwright.records",
    "dataset": "loopwright.lineage",
    "label": "loopwright.deploy.online.client",
    "labelled": "loopwright.lineage",
    "labels": "loopwright.deploy.online.client",
    "load": "loopwright.scoring",
    "log_model": "loopwright.registry",
    "pipeline": "loopwright.pipelines",
    "plain": "loopwright.lineage",
    "predictions": "loopwright.predictions.frames",
    "register": "loopwright.registry",
    "step": "loopwright.pipelines",
    "trace": "loopwright.lineage",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(
            f"module 'loopwright' has no attribute {name!r}. Public names: {', '.join(__all__)}"
        )
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


def load_ipython_extension(ipython: Any) -> None:
    """Add `%lw_track`, `%lw_dataset` and `%lw_register` to a notebook: ``%load_ext loopwright``."""
    importlib.import_module("loopwright.tracking.notebooks.extension").load(ipython)
