"""Shadow variants: they score the rows that others answer, after the answer, and can neither delay nor fail it.

One thread of a process does it for all of its deployments. What it cannot keep up with is dropped and counted: a
shadow is there to be compared, and a sample compares as well.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from loopwright.deploy.routing import Route
from loopwright.predictions import Predictions
from loopwright.registry.blocks import Blocks

__all__ = ["Shadowing", "Work"]

#: Rows that may wait; more are dropped.
WAITING_ROWS = 10_000
#: Rows that are scored together.
TOGETHER = 256

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Work:
    """Rows that were answered, for the shadows of their route.

    `columns` are as callers sent them; `rows` are as they were logged. `score` does the work, and `dropped` is called
    with the number of rows that nobody will score.
    """

    route: Route
    columns: Mapping[str, NDArray[Any]]
    rows: Predictions
    score: Callable[[Work], None]
    dropped: Callable[[int], None]


class Shadowing:
    """The thread, and what waits for it. Started with the first work; safe to call from several threads."""

    def __init__(self) -> None:
        self._waiting: deque[Work] = deque()
        self._rows = 0
        self._news = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def add(self, work: Work) -> None:
        """Take work, or drop it where too much waits. Never waits itself."""
        n = len(work.rows)
        with self._news:
            if self._closed or self._rows + n > WAITING_ROWS:
                taken = False
            else:
                taken = True
                self._rows += n
                self._waiting.append(work)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="shadows", daemon=True)
                    self._thread.start()
                self._news.notify()
        if not taken:
            work.dropped(n)

    def close(self, timeout_s: float = 1.0) -> None:
        """Finish what waits, for at most `timeout_s` seconds, and stop."""
        with self._news:
            self._closed = True
            self._news.notify()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._news:
                while not self._waiting:
                    if self._closed:
                        return
                    self._news.wait()
                works = self._next()
            try:
                work = _together(works)
                work.score(work)
            except Exception:
                # Whatever a candidate does wrong is its own affair.
                logger.exception("a shadow of %s failed", works[0].route.deployment.name)

    def _next(self) -> list[Work]:
        """Take work of one route and one kind, up to `TOGETHER` rows."""
        first = self._waiting.popleft()
        works, n = [first], len(first.rows)
        while self._waiting and isinstance(first.columns, Blocks):
            more = self._waiting[0]
            if (
                more.route is not first.route
                or not isinstance(more.columns, Blocks)
                or n + len(more.rows) > TOGETHER
            ):
                break
            works.append(self._waiting.popleft())
            n += len(more.rows)
        self._rows -= n
        return works


def _together(works: list[Work]) -> Work:
    """Return the rows of several works as one; of their answers only what a shadow's log needs is kept."""
    first = works[0]
    if len(works) == 1:
        return first
    columns = Blocks.concatenated([work.columns for work in works if isinstance(work.columns, Blocks)])
    parts = [work.rows for work in works]

    def each(values: Any, n: int) -> list[Any]:
        return [values] * n if isinstance(values, int | float) else list(values)

    entities = None
    if any(part.entity for part in parts):
        entities = [one for part in parts for one in (part.entity or [""] * len(part))]
    rows = Predictions(
        prediction_id=[one for part in parts for one in part.prediction_id],
        at_us=[moment for part in parts for moment in each(part.at_us, len(part))],  # type: ignore[arg-type]
        version=0,
        variant="",
        propensity=1.0,
        entity=entities,
        latency_ms=0.0,
        inputs=columns,
        prediction=parts[0].prediction,
    )
    return Work(first.route, columns, rows, first.score, first.dropped)
