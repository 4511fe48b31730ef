"""Model versions, aliases, signatures and reference profiles, over MLflow's registry.

The names below are imported when they are first used: a serving process needs the columns and none of the rest.
Reading goes over REST; only `register` and `log_model` load MLflow and pandas.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopwright.registry.artifacts import Shape, download, local_folder
    from loopwright.registry.catalog import (
        aliases,
        delete_alias,
        record,
        register_logged,
        register_run,
        set_alias,
        version,
        versions,
    )
    from loopwright.registry.columns import DTYPES, arrays_of, table_of
    from loopwright.registry.logged import log_model
    from loopwright.registry.profile import ColumnProfile, Profile, histogram, profile_of, read_profile
    from loopwright.registry.registration import register

__all__ = [
    "DTYPES",
    "ColumnProfile",
    "Profile",
    "Shape",
    "aliases",
    "arrays_of",
    "delete_alias",
    "download",
    "histogram",
    "local_folder",
    "log_model",
    "profile_of",
    "read_profile",
    "record",
    "register",
    "register_logged",
    "register_run",
    "set_alias",
    "table_of",
    "version",
    "versions",
]

_HOMES = {
    "artifacts": ("Shape", "download", "local_folder"),
    "catalog": (
        "aliases",
        "delete_alias",
        "record",
        "register_logged",
        "register_run",
        "set_alias",
        "version",
        "versions",
    ),
    "columns": ("DTYPES", "arrays_of", "table_of"),
    "logged": ("log_model",),
    "profile": ("ColumnProfile", "Profile", "histogram", "profile_of", "read_profile"),
    "registration": ("register",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Names: {', '.join(__all__)}")
