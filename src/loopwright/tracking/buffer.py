"""Points that wait to be written together: one call for a hundred of them instead of one call each.

Knows nothing of MLflow: what a point is and how points are written is the caller's.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["AGE_S", "SIZE", "NotStored", "PointBuffer", "flush"]

#: A run's points are written when so many wait, or so long after the first of them.
SIZE = 100
AGE_S = 0.5

_log = logging.getLogger(__name__)
_buffers: weakref.WeakSet[PointBuffer] = weakref.WeakSet()


class NotStored(Exception):
    """Points could not be written. `count` says how many, the cause is chained."""

    def __init__(self, run_id: str, count: int, cause: Exception) -> None:
        super().__init__(f"{count} metric points of run {run_id} were not stored: {cause}")
        self.run_id = run_id
        self.count = count
        self.cause = cause


@dataclass
class _Waiting:
    """What waits of one run. `writing` is held while points are on their way, so that they arrive in order."""

    points: deque[Any] = field(default_factory=deque)
    since: float = 0.0
    failure: NotStored | None = None
    writing: threading.RLock = field(default_factory=threading.RLock)


class PointBuffer:
    """Collects the points of runs and writes each run's in batches, in the order they came. Safe for threads.

    A failure to write is kept and raised by the run's next call, whichever it is; the points it names are given up.
    A forked child starts empty: what waits stays its parent's.

    Parameters
    ----------
    write
        Writes points of one run: called with the run's id and at most `SIZE` points, from one thread at a time
        for each run.

    Examples
    --------
    >>> buffer = PointBuffer(lambda run, points: print(run, points))
    >>> buffer.add("r", [1]); buffer.add("r", [2]); buffer.flush("r")
    r [1, 2]
    """

    def __init__(self, write: Callable[[str, list[Any]], None]) -> None:
        self._write = write
        self._reset()
        _buffers.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[str, _Waiting] = {}
        self._writer: threading.Thread | None = None
        self._due = threading.Event()

    def add(self, run_id: str, points: Iterable[Any]) -> None:
        """Take points of a run; the one that makes a batch full writes it before it returns.

        Raises
        ------
        NotStored
            Earlier points, or this full batch, could not be written.
        """
        _flush_at_exit()
        with self._lock:
            waiting = self._runs.setdefault(run_id, _Waiting())
            if not waiting.points:
                waiting.since = time.monotonic()
            waiting.points.extend(points)
            full = len(waiting.points) >= SIZE
            if self._writer is None:
                self._writer = threading.Thread(target=self._write_old, name="metric-points", daemon=True)
                self._writer.start()
        if full or waiting.failure:
            self.flush(run_id)
        else:
            self._due.set()

    def flush(self, run_id: str) -> None:
        """Write what waits of a run, now.

        Raises
        ------
        NotStored
            These points, or earlier ones, could not be written.
        """
        waiting = self._runs.get(run_id)
        if waiting is None:
            return
        self._drain(run_id, waiting)
        with self._lock:
            failure, waiting.failure = waiting.failure, None
        if failure:
            raise failure

    def flush_all(self) -> None:
        """Write what waits of all runs, now; of several failures the first is raised and the others are logged."""
        failures = []
        for run_id in list(self._runs):
            try:
                self.flush(run_id)
            except NotStored as failure:
                failures.append(failure)
        for other in failures[1:]:
            _log.error("%s", other)
        if failures:
            raise failures[0]

    def forget(self, run_id: str) -> None:
        """Drop the book-keeping of a run that has ended. What waits has been written: see `flush`."""
        with self._lock:
            waiting = self._runs.get(run_id)
            if waiting and not waiting.points:
                del self._runs[run_id]

    def _drain(self, run_id: str, waiting: _Waiting) -> None:
        with waiting.writing:
            while True:
                with self._lock:
                    batch = [waiting.points.popleft() for _ in range(min(SIZE, len(waiting.points)))]
                if not batch:
                    return
                try:
                    self._write(run_id, batch)
                except Exception as error:  # noqa: BLE001 - it is the caller's, and raised in the caller's next call
                    earlier = waiting.failure.count if waiting.failure else 0
                    waiting.failure = NotStored(run_id, earlier + len(batch), error)

    def _write_old(self) -> None:
        """Write each run's points once they are old enough: the body of the background thread."""
        while True:
            self._due.wait()
            with self._lock:
                waits = [(run_id, run) for run_id, run in self._runs.items() if run.points]
                if not waits:
                    self._due.clear()
                    continue
                oldest = min(run.since for _, run in waits)
            now = time.monotonic()
            if oldest + AGE_S > now:
                time.sleep(oldest + AGE_S - now)
                continue
            for run_id, run in waits:
                if run.since + AGE_S <= now:
                    self._drain(run_id, run)


def flush() -> None:
    """Write what waits in this process, of all runs; failures are logged. Costs nothing when nothing waits."""
    for buffer in list(_buffers):
        try:
            buffer.flush_all()
        except NotStored as failure:
            _log.error("%s", failure)


_exit_hook_of = 0


def _flush_at_exit() -> None:
    """Write what waits when this process ends, also one of `multiprocessing`, which runs no `atexit` hooks."""
    global _exit_hook_of
    if _exit_hook_of == os.getpid():
        return
    _exit_hook_of = os.getpid()
    atexit.register(flush)
    if util := sys.modules.get("multiprocessing.util"):
        util.Finalize(None, flush, exitpriority=100)


def _after_fork() -> None:
    for buffer in list(_buffers):
        buffer._reset()


os.register_at_fork(after_in_child=_after_fork)
