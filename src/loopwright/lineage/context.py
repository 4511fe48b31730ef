"""Which pipeline run the code is in: datasets that are read meanwhile are written down there."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from loopwright.records import DatasetRef

__all__ = ["Recorder", "is_plain", "plain", "recorder"]

#: Rows compared to notice that a frame was changed in place since it was hashed.
_WITNESSES = 64


@dataclass
class Recorder:
    """What one pipeline run has read so far. May be used by several threads."""

    pipeline: str = ""
    run_id: str = ""
    datasets: list[DatasetRef] = field(default_factory=list)
    _known: dict[int, tuple[weakref.ref[Any], str, str]] = field(default_factory=dict)
    _parent: Recorder | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def inner(self) -> Recorder:
        """Return a recorder for one step: what it writes down is in this one too, and has its own list besides."""
        return Recorder(self.pipeline, self.run_id, _known=self._known, _parent=self)

    def add(self, dataset: DatasetRef) -> None:
        """Write down that the run uses a dataset; the one added last comes last."""
        with self._lock:
            same = [
                known
                for known in self.datasets
                if (known.digest, known.name) == (dataset.digest, dataset.name)
            ]
            for known in same:
                self.datasets.remove(known)
            self.datasets.append(dataset)
        if self._parent is not None:
            self._parent.add(dataset)

    def remember(self, table: Any, digest: str) -> None:
        """Keep the fingerprint of a frame or table, so that it is hashed once although many steps take it."""
        key = id(table)
        self._known[key] = (weakref.ref(table), digest, _witness(table))

    def recall(self, table: Any) -> str | None:
        """Return the kept fingerprint of this very object, unless it looks changed since."""
        known = self._known.get(id(table))
        if known is None or known[0]() is not table or known[2] != _witness(table):
            return None
        return known[1]


def _witness(table: Any) -> str:
    """Return a cheap description of a frame that a change in place is likely to alter; Arrow tables never change."""
    step = max(1, len(table) // _WITNESSES)
    if hasattr(table, "iloc"):
        rows = hash(table.iloc[::step].to_csv(index=False))
    elif hasattr(table, "gather_every"):
        rows = hash(repr(table.gather_every(step).rows()))
    else:
        return ""
    return f"{table.shape} {list(table.columns)} {rows}"


#: The running pipeline's recorder; None outside of pipelines.
recorder: ContextVar[Recorder | None] = ContextVar("loopwright_recorder", default=None)

#: Where MLflow keeps its runs.
_STORE = "MLFLOW_TRACKING_URI"

_plain: ContextVar[bool] = ContextVar("loopwright_plain", default=False)


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Inside, pipelines are plain function calls: no server is asked and nothing is kept. For tests.

    `loopwright.dataset` only reads its source; `loopwright.register` checks what it is given and returns a model
    version with the number 0; plain MLflow calls go to a store that is thrown away.

    Examples
    --------
    >>> import loopwright as lw
    >>> @lw.pipeline
    ... def train(depth: int = 6) -> int:
    ...     return depth
    >>> with lw.plain():
    ...     train(depth=3)
    3
    """
    token = _plain.set(True)
    before = os.environ.get(_STORE)
    with tempfile.TemporaryDirectory(prefix="loopwright-plain-") as folder:
        os.environ[_STORE] = f"sqlite:///{folder}/mlflow.db"  # made when it is first used
        around = _active()
        try:
            yield
        finally:
            _plain.reset(token)
            while (run := _active()) is not None and run is not around:
                sys.modules["mlflow"].end_run()  # one that the first of the calls has started
            if before is None:
                del os.environ[_STORE]
            else:
                os.environ[_STORE] = before


def _active() -> Any:
    """Return the active MLflow run of the user's code, which may not have imported MLflow at all."""
    loaded = sys.modules.get("mlflow")
    return loaded.active_run() if loaded is not None else None


def is_plain() -> bool:
    """Whether the code runs inside of `plain`."""
    return _plain.get()
