"""A log of one process that rolls over: tails are filled, then sealed to Parquet."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa
from sqlalchemy.exc import SQLAlchemyError

from loopwright.config import Project
from loopwright.errors import LoopwrightError, Unavailable
from loopwright.ledger import Ledger
from loopwright.predictions.files import LogFolder, Segment, now_us, placed
from loopwright.predictions.seal import WISH, catalogue, seal
from loopwright.predictions.tail import Tail

__all__ = ["Durability", "RollingLog"]

#: ``process``: an acknowledged row survives `kill -9`. ``power``: it also survives a power cut.
Durability = Literal["process", "power"]
#: A tail this small is cheap to read and waits longer, so that a quiet deployment does not leave hundreds of tiny
#: segments a day: 2000 segments of 500 rows make a query six times slower than 100 of 10,000.
SMALL_BYTES = 1 << 20
PATIENCE = 12
#: After so many seconds without sealing, the memory that it took is given back.
QUIET_S = 20.0
#: Between two tries to seal there is at most so long, in seconds.
MOST_WAIT_S = 60.0

logger = logging.getLogger(__name__)


class RollingLog:
    """Appends record batches of one or more schemas to tails of its own, and seals them. Thread-safe.

    Parameters
    ----------
    project, folder
        The project and the folder of the log.
    durability
        What an append waits for.
    seal_rows, seal_bytes, seal_after_s
        A tail is full at so many rows or bytes, or at this age in seconds; one below 1 MB waits twelve times as long.
        Every tail also ends with the UTC day.
    """

    def __init__(
        self,
        project: Project,
        folder: LogFolder,
        *,
        durability: Durability,
        seal_rows: int,
        seal_bytes: int,
        seal_after_s: float,
    ) -> None:
        self._project = project
        self._folder = folder if folder.placed else placed(project, folder.root)
        self._synced = durability == "power"
        self._seal_rows = seal_rows
        self._seal_bytes = seal_bytes
        self._seal_after_us = int(seal_after_s * 1e6)
        self._append_lock = threading.Lock()
        self._seal_lock = threading.Lock()
        self._tails: dict[str, Tail] = {}
        self._full: deque[Tail] = deque()
        self._uncatalogued: deque[Segment] = deque()
        self._closed = False
        self._sealed_at = 0.0
        self._again_at = self._wait_s = 0.0

    def append(self, kind: str, schema: Any, body: Any, rows: int) -> None:
        """Append a batch to the tail of its kind.

        Parameters
        ----------
        kind
            A text that is equal for equal schemas.
        schema
            The batch's.
        body
            The batch as a message of an Arrow IPC stream.
        rows
            How many rows it has.

        Raises
        ------
        Unavailable
            The disk does not take it, or the log is closed; nothing of the batch is kept.
        """
        with self._append_lock:
            if self._closed:
                raise Unavailable(f"The log {self._folder.root} is closed.", hint="open a new one")
            tail = self._tails.get(kind) or self._open(kind, schema)
            try:
                tail.append(body, rows)
            finally:
                if tail.broken or tail.rows >= self._seal_rows or tail.size_bytes >= self._seal_bytes:
                    self._full.append(self._tails.pop(kind))

    def _open(self, kind: str, schema: Any) -> Tail:
        try:
            tail = self._tails[kind] = Tail(self._folder, schema, kind, synced=self._synced)
        except OSError as error:
            raise Unavailable(
                f"No file can be opened in {self._folder.open}: {error.strerror}.",
                valid="Nothing was kept.",
                hint=f"df -h {self._folder.root.parent}; ls -ld {self._folder.root.parent}",
                retry_after=1,
            ) from error
        return tail

    def _is_due(self, tail: Tail) -> bool:
        now = now_us()
        patience = 1 if tail.size_bytes >= SMALL_BYTES else PATIENCE
        old = now - tail.opened_us >= self._seal_after_us * patience or _day(now) != _day(tail.opened_us)
        return old or tail.path.with_suffix(WISH).exists()

    def maintain(self) -> None:
        """Seal what is full or old enough. Call it about once a second, from any thread; appends go on meanwhile.

        Raises
        ------
        Unavailable
            A tail could not be sealed; its rows can still be read, and the next call tries again, or when that is the
        second time, one a little later.
        """
        with self._append_lock:
            for kind in [kind for kind, tail in self._tails.items() if self._is_due(tail)]:
                self._full.append(self._tails.pop(kind))
        if time.monotonic() < self._again_at:
            return
        try:
            self._seal_full()
        except Unavailable:
            # Writing a segment anew each second, for a disk or a store that is out for an hour, would take a core.
            self._again_at = time.monotonic() + self._wait_s
            self._wait_s = min(max(1.0, 2 * self._wait_s), MOST_WAIT_S)
            raise
        self._wait_s = 0.0

    def close(self) -> None:
        """Seal everything and stop; what cannot be sealed stays in tails that can be read."""
        with self._append_lock:
            self._closed = True
            self._full.extend(self._tails.values())
            self._tails.clear()
        try:
            self._seal_full()
        except Unavailable as error:
            logger.warning("%s", error)
        while self._full:
            self._full.popleft().close()

    def _seal_full(self) -> None:
        with self._seal_lock:
            sealed = len(self._full)
            while self._full:
                tail = self._full[0]
                segment = seal(self._folder, tail.path)
                self._full.popleft()
                tail.close()
                if segment:
                    self._uncatalogued.append(segment)
            self._give_back(sealed)
            self._catalogue()

    def _give_back(self, sealed: int) -> None:
        """Give back the memory that sealing took, unless the next tail will soon be full: it would be asked for again."""
        now = time.monotonic()
        if sealed:
            self._sealed_at = now
        elif self._sealed_at and now - self._sealed_at > QUIET_S:
            self._sealed_at = 0.0
            pa.default_memory_pool().release_unused()

    def _catalogue(self) -> None:
        """Register the new segments. Reading needs no register, so a busy ledger is only asked again later."""
        if not self._uncatalogued:
            return
        with contextlib.suppress(LoopwrightError, SQLAlchemyError):
            ledger = Ledger.open(self._project)
            try:
                catalogue(self._project, ledger, self._folder, self._uncatalogued)
                self._uncatalogued.clear()
            finally:
                ledger.close()


def _day(at_us: int) -> int:
    return datetime.fromtimestamp(at_us / 1e6, UTC).toordinal()
