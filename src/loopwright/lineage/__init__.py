"""Where things came from: datasets, the environment of a run, and the way back from a prediction to its data.

The names below are imported when they are first used: pyarrow is loaded with the first dataset, not before.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopwright.lineage.code import code_digest
    from loopwright.lineage.context import Recorder, plain, recorder
    from loopwright.lineage.digests import digest_of, file_digest
    from loopwright.lineage.environment import Environment, capture
    from loopwright.lineage.fingerprints import fingerprint
    from loopwright.lineage.labels import labelled
    from loopwright.lineage.snapshots import read_snapshot, snapshot
    from loopwright.lineage.sources import dataset, table_from
    from loopwright.lineage.walk import Trace, TraceLink, trace

__all__ = [
    "Environment",
    "Recorder",
    "Trace",
    "TraceLink",
    "capture",
    "code_digest",
    "dataset",
    "digest_of",
    "file_digest",
    "fingerprint",
    "labelled",
    "plain",
    "read_snapshot",
    "recorder",
    "snapshot",
    "table_from",
    "trace",
]

# No submodule has the name of a function here: once imported, it would hide it.
_HOMES = {
    "Environment": "environment",
    "Recorder": "context",
    "Trace": "walk",
    "TraceLink": "walk",
    "capture": "environment",
    "code_digest": "code",
    "dataset": "sources",
    "digest_of": "digests",
    "file_digest": "digests",
    "fingerprint": "fingerprints",
    "labelled": "labels",
    "plain": "context",
    "read_snapshot": "snapshots",
    "recorder": "context",
    "snapshot": "snapshots",
    "table_from": "sources",
    "trace": "walk",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Names: {', '.join(__all__)}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
