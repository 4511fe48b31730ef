"""Requests by the minute, as serving processes count them: also those that failed and so left no row in the log.

Each process keeps a file per UTC day below ``.loopwright/levels``, one line for each minute; `loopwright.deploy.online`
writes them, and whoever asks how a deployment did reads them here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = ["Minute", "files", "folder", "minutes"]

_NOTHING: NDArray[np.int64] = np.empty((0, 4), dtype=np.int64)


class Minute(msgspec.Struct):
    """One minute since 1970 UTC: requests, errors and quick answers of each deployment."""

    minute: int
    counts: dict[str, tuple[int, int, int]]


_decode = msgspec.json.Decoder(Minute).decode


def folder(state: Path) -> Path:
    """Return where the files are, below the folder of a project's state."""
    return state / "levels"


def files(state: Path) -> Iterator[tuple[Path, date]]:
    """Yield all files with their days, sorted."""
    for path in sorted(folder(state).glob("*.jsonl")):
        with contextlib.suppress(ValueError):
            yield path, date.fromisoformat(path.name[:10])


def minutes(state: Path, deployment: str, since: datetime) -> NDArray[np.int64]:
    """Return the minutes of a deployment from the day of `since` on, as all processes counted them.

    Parameters
    ----------
    state
        The folder of the project's state.

    Returns
    -------
    NDArray[np.int64]
        Shape (n, 4): the minute since 1970 UTC, requests, errors of the server, quick answers. A minute is there once for
        each process.
    """
    first = since.date()
    found = [_NOTHING]
    for path, day in files(state):
        if day >= first:
            with contextlib.suppress(FileNotFoundError):
                facts = path.stat()
                found.append(_read(path, facts.st_mtime_ns, facts.st_size).get(deployment, _NOTHING))
    return np.concatenate(found)


@lru_cache(maxsize=1024)
def _read(path: Path, _changed: int, _size: int) -> dict[str, NDArray[np.int64]]:
    """Read one file; the last line may be torn. Cached until the file changes."""
    rows: dict[str, list[tuple[int, int, int, int]]] = {}
    for text in path.read_bytes().splitlines():
        with contextlib.suppress(msgspec.MsgspecError):
            line = _decode(text)
            for name, counts in line.counts.items():
                rows.setdefault(name, []).append((line.minute, *counts))
    return {name: np.array(made, dtype=np.int64) for name, made in rows.items()}
