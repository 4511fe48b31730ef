"""The access log: one JSON line for each request, written by a thread, in files that never grow without end.

Off by default: ``[serving] access_log = true``. It is for operating the service and may be lost by a killed process,
up to the last `FLUSH_S` seconds; what was predicted is in the prediction log, which may not.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import msgspec

from loopwright.config import Project

__all__ = ["FLUSH_S", "AccessLog"]

#: Seconds between two writes, and lines that are encoded and written together: about 64 KiB.
FLUSH_S, _TOGETHER = 0.2, 256
#: Lines that may wait for a disk that does not keep up; what comes on top is dropped and counted.
_WAITING = 100_000

logger = logging.getLogger(__name__)


class _Line(msgspec.Struct, omit_defaults=True, gc=False):
    """One line; `key` is the name of an API key, never the key."""

    time: datetime
    method: str
    path: str
    status: int
    latency_ms: float
    deployment: str = ""
    rows: int = 0
    received: int = 0
    sent: int = 0
    remote: str = ""
    request_id: str = ""
    key: str = ""
    traceparent: str = ""


_encode = msgspec.json.Encoder().encode_lines


class AccessLog:
    """Writes ``.loopwright/run/access-<worker>.log``.

    Parameters
    ----------
    project, worker
        Whose requests these are, and the process's name.
    size
        Bytes after which a file is set aside, as ``.1`` and then ``.2``.
    files
        How many files there are at most, the one that is written to among them.
    """

    def __init__(self, project: Project, worker: str, *, size: int = 32 * 1000**2, files: int = 3) -> None:
        self.path = project.run / f"access-{quote(worker, safe='')}.log"
        #: Lines that were not written: too many waited, or the disk did not take them.
        self.dropped = 0
        self._size, self._files = size, files
        self._waiting: deque[tuple[Any, ...]] = deque()
        self._descriptor = -1
        self._written = 0
        self._failed = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
        self._thread.start()

    def add(
        self,
        method: str,
        path: str,
        status: int,
        seconds: float,
        deployment: str = "",
        rows: int = 0,
        received: int = 0,
        sent: int = 0,
        remote: str = "",
        request_id: str = "",
        key: str = "",
        traceparent: str | None = None,
    ) -> None:
        """Take note of one request that was answered. Never waits and never raises.

        Parameters
        ----------
        method, path
            As they were asked, without the query.
        status, seconds
            The answer, and how long it took from the arrival.
        deployment, rows
            What was asked for, and how many rows.
        received, sent
            Bytes of the request's body and of the answer's.
        remote
            The caller's address.
        request_id, key, traceparent
            What the caller sent to be recognised by; of an API key its name only.
        """
        if len(self._waiting) >= _WAITING:
            self.dropped += 1
            return
        about = deployment, rows, received, sent, remote, request_id, key, traceparent or ""
        self._waiting.append((time.time(), method, path, status, seconds, about))

    def close(self) -> None:
        """Write what waits and close the file."""
        self._ended.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        while not self._ended.wait(FLUSH_S):
            self._flush()
        self._flush()
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def _flush(self) -> None:
        while self._waiting:
            taken = [self._waiting.popleft() for _ in range(min(_TOGETHER, len(self._waiting)))]
            try:
                self._write(_encode([_line(*one) for one in taken]))
                self._failed = False
            except OSError as error:
                self.dropped += len(taken)
                if not self._failed:
                    logger.error("the access log cannot be written: %s", error)
                self._failed = True

    def _write(self, lines: bytes) -> None:
        if self._descriptor < 0:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            # Addresses of callers are nobody else's business.
            self._descriptor = os.open(self.path, flags, 0o600)
            self._written = os.fstat(self._descriptor).st_size
        if self._written and self._written + len(lines) > self._size:
            self._rotate()
            self._write(lines)
            return
        rest = memoryview(lines)
        while rest:
            done = os.write(self._descriptor, rest)
            self._written += done
            rest = rest[done:]

    def _rotate(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1
        for number in range(self._files - 1, 0, -1):
            older = self.path if number == 1 else self.path.with_name(f"{self.path.name}.{number - 1}")
            if older.exists():
                older.replace(self.path.with_name(f"{self.path.name}.{number}"))
        if self._files == 1:
            self.path.unlink()


def _line(
    at: float,
    method: str,
    path: str,
    status: int,
    seconds: float,
    about: tuple[str, int, int, int, str, str, str, str],
) -> _Line:
    moment = datetime.fromtimestamp(at, UTC)
    return _Line(moment, method, path, status, round(seconds * 1000, 3), *about)
