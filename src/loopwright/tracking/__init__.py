"""Tracked runs, over MLflow. Reading goes over REST; only `begin` loads MLflow.

The names below are imported when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopwright.tracking.active import Tracked, begin
    from loopwright.tracking.rest import Run, best, end, get, runs, tag, ui_url

__all__ = ["Run", "Tracked", "begin", "best", "end", "get", "runs", "tag", "ui_url"]

_HOMES = {
    "active": ("Tracked", "begin"),
    "rest": ("Run", "best", "end", "get", "runs", "tag", "ui_url"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Names: {', '.join(__all__)}")
