"""Calls that go on beside each other: in threads of this process, each inside the same run."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import Any

from loopwright.pipelines.engine import prefect_context
from loopwright.pipelines.flows import Flow
from loopwright.tracking.active import Tracked

__all__ = ["Parallel"]


class Parallel:
    """The threads of one run.

    MLflow keeps the active run, and Prefect the current flow run, for each thread: both are set in each.
    """

    def __init__(self, tracked: Tracked, flow: Flow, workers: int | None) -> None:
        self._tracked = tracked
        self._flow = flow
        self._workers = workers or max(4, os.cpu_count() or 1)
        self._pool: ThreadPoolExecutor | None = None
        self._inside = threading.local()

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Start a call in a thread; in a thread of the pool it is carried out at once, for a full pool would wait for itself."""
        if getattr(self._inside, "yes", False):
            future: Future[Any] = Future()
            try:
                future.set_result(call())
            except Exception as error:  # noqa: BLE001 - it is the caller's, who gets it from `result()`
                future.set_exception(error)
            return future
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="step")
        return self._pool.submit(copy_context().run, self._in_thread, call)

    def _in_thread(self, call: Callable[[], Any]) -> Any:
        self._inside.yes = True
        with prefect_context(self._flow), self._tracked.active():
            return call()

    def all(self, calls: list[Callable[[], Any]], advance: Callable[[], None]) -> list[Any]:
        """Carry out all calls and return their results in order; `advance` is called after each.

        The first that raises is raised; the calls that have not begun then do not begin.
        """
        futures = [self.submit(call) for call in calls]
        waiting = set(futures)
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                    advance()
        finally:
            for future in waiting:
                future.cancel()
        return [future.result() for future in futures]

    def close(self) -> None:
        """Wait for what has begun; what has not does not begin."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
