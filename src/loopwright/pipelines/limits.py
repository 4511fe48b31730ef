"""How many calls of a step go on at a time on this machine, over all runs of a project.

Each slot is a lock file: the system gives it back when its process dies, however it dies.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from filelock import FileLock, Timeout

from loopwright.config import Project

__all__ = ["slot"]

_POLL_S = 0.05


@contextlib.contextmanager
def slot(project: Project, name: str, most: int | None) -> Iterator[None]:
    """Wait for one of `most` slots with this name and hold it; None sets no limit."""
    if most is None:
        yield
        return
    folder = project.run / "limits"
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        for number in range(most):
            lock = FileLock(folder / f"{name}.{number}.lock", thread_local=False)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            try:
                yield
            finally:
                lock.release()
            return
        time.sleep(_POLL_S)
