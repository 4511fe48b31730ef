"""How much is in a log, without opening a segment: from names, the catalogue, and what was appended since the last look."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from loopwright.predictions import columns
from loopwright.predictions.files import LogFolder
from loopwright.predictions.tail import read_after

__all__ = ["Extent", "extent_of"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Extent:
    """What a log holds now.

    `first` and `last` bound the moments of its rows, None without any. `bytes` and `segments` are of sealed files, `open` is
    how many tails are appended to, and `quarantined` how many damaged files were set aside, whose rows are not counted.
    """

    rows: int = 0
    first: datetime | None = None
    last: datetime | None = None
    bytes: int = 0
    segments: int = 0
    open: int = 0
    quarantined: int = 0


@dataclass(slots=True)
class _Counted:
    """What has been counted of a tail, up to an offset."""

    offset: int = 0
    rows: int = 0
    first_us: int = 1 << 62
    last_us: int = -(1 << 62)


#: One of each tail this process has looked at; tails that are gone are dropped at the next look.
_counted: dict[Path, _Counted] = {}
_lock = threading.Lock()


def extent_of(folders: Sequence[LogFolder]) -> Extent:
    """Return what some logs hold together; a row that is sealed meanwhile counts once."""
    rows = size = segments = tails = quarantined = 0
    first, last = 1 << 62, -(1 << 62)
    for folder in folders:
        found = {path.stem: counted for path in folder.tails() if (counted := _count(path))}
        look = folder.shelf.look(None, None, found)
        _drop(folder, set(found))
        for stem, counted in found.items():
            if stem not in look.sealed:
                tails += 1
                rows += counted.rows
                first, last = min(first, counted.first_us), max(last, counted.last_us)
        for segment in look.segments:
            rows += segment.rows
            if segment.rows:
                first, last = min(first, segment.first_us), max(last, segment.last_us)
        size += folder.shelf.size(look.segments)
        segments += len(look.segments)
        quarantined += folder.shelf.damaged()
    return Extent(
        rows,
        _EPOCH + timedelta(microseconds=first) if rows else None,
        _EPOCH + timedelta(microseconds=last) if rows else None,
        size,
        segments,
        tails,
        quarantined,
    )


def _count(path: Path) -> _Counted | None:
    """Count what was appended to a tail since the last time; None when it is gone."""
    with _lock:
        counted = _counted.setdefault(path, _Counted())
        try:
            for batch, offset in read_after(path, counted.offset):
                moments = columns.values_of(batch.column("at"), "int64")
                counted.rows += len(moments)
                counted.first_us = min(counted.first_us, int(moments.min()))
                counted.last_us = max(counted.last_us, int(moments.max()))
                counted.offset = offset
        except FileNotFoundError:
            _counted.pop(path, None)
            return None
        return _Counted(counted.offset, counted.rows, counted.first_us, counted.last_us)


def _drop(folder: LogFolder, stems: set[str]) -> None:
    with _lock:
        for path in [one for one in _counted if one.parent == folder.open and one.stem not in stems]:
            del _counted[path]
