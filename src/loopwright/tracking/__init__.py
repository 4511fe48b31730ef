"""Tracked runs, over MLflow. Reading goes over SQL or REST; only `begin` loads MLflow.

The names below are imported when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopwright.tracking.active import Tracked, begin
    from loopwright.tracking.reading import Details, Reader, find, open_reader
    from loopwright.tracking.rest import best, end, get, runs, tag, ui_url
    from loopwright.tracking.run import Dataset, History, Run

__all__ = [
    "Dataset",
    "Details",
    "History",
    "Reader",
    "Run",
    "Tracked",
    "begin",
    "best",
    "end",
    "find",
    "get",
    "open_reader",
    "runs",
    "tag",
    "ui_url",
]

_HOMES = {
    "active": ("Tracked", "begin"),
    "reading": ("Details", "Reader", "find", "open_reader"),
    "rest": ("best", "end", "get", "runs", "tag", "ui_url"),
    "run": ("Dataset", "History", "Run"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Names: {', '.join(__all__)}")
