"""Turning tails into Parquet segments, by their owner or, when that died, by whoever looks next."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from loopwright.config import Project
from loopwright.errors import Unavailable
from loopwright.ledger import Ledger
from loopwright.predictions import columns, files
from loopwright.predictions.files import LogFolder, Segment
from loopwright.predictions.tail import lock, read_batches, sync_folder

__all__ = ["catalogue", "seal", "seal_orphans"]

#: Rows of a Parquet row group, unless a few large batches make more: what a query over a short span has to decode.
ROW_GROUP = 32_768


def seal(folder: LogFolder, tail: Path) -> Segment | None:
    """Write the complete rows of a tail as a segment, then delete the tail; None when it holds no complete row.

    The segment appears under its name at once and whole. Between that and the deletion both files exist; readers
    know by the stem not to count the tail then. Only the owner of the tail, or who holds its lock, may call this.

    Raises
    ------
    Unavailable
        The disk does not take it. The tail stays, and with it every row.
    """
    temporary: Path | None = None
    try:
        found = next((segment for segment in folder.segments() if segment.stem == tail.stem), None)
        if found is None:
            temporary = folder.root / f".{files.new_stem()}.tmp"
            found = _write(folder, tail, temporary)
        if found:
            sync_folder(found.path.parent)
        tail.unlink(missing_ok=True)
    except (OSError, pa.ArrowException) as error:
        if temporary:
            temporary.unlink(missing_ok=True)
        raise Unavailable(
            f"{tail} could not be sealed: {error}.",
            valid="Its rows stay in it and can be read.",
            hint=f"df -h {folder.root}",
            path=str(tail),
        ) from error
    return found


def _write(folder: LogFolder, tail: Path, temporary: Path) -> Segment | None:
    from pyarrow.parquet import ParquetWriter

    first, last, rows = 0, 0, 0
    writer: Any = None
    try:
        for table in _row_groups(tail):
            if writer is None:
                writer = ParquetWriter(str(temporary), table.schema, **_encoding(table.schema))
            writer.write_table(table)
            for times in table.column(_time_column(table.schema)).chunks:
                moments = columns.values_of(times, "int64")
                first = min(first, int(moments.min())) if rows else int(moments.min())
                last = max(last, int(moments.max())) if rows else int(moments.max())
                rows += len(moments)
    finally:
        if writer is not None:
            writer.close()
    if not rows:
        return None
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    day = folder.day(first)
    day.mkdir(parents=True, exist_ok=True)
    segment = Segment(day, tail.stem, first, last, rows)
    return dataclasses.replace(segment, path=temporary.rename(day / segment.name))


def _encoding(schema: Any) -> dict[str, Any]:
    """Return how columns are written: a third of the time and less than half the bytes of the same for all.

    Dictionaries only where texts repeat, bounds only of what queries look rows up by, and ids, which begin alike, by
    what they differ in.
    """
    unique = {"prediction_id", "entity", "request_id", "trace"}
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    return {
        "compression": "zstd",
        "use_dictionary": [name for name in texts if name not in unique] or False,
        "write_statistics": [name for name in ("prediction_id", "at", "received_at") if name in schema.names],
        "column_encoding": {"prediction_id": "DELTA_BYTE_ARRAY"},
    }


def _row_groups(tail: Path) -> Iterator[Any]:
    """Yield the rows of a tail in tables of a good size for a row group."""
    together: list[Any] = []
    for batch in read_batches(tail, finished=True):
        together.append(batch)
        if sum(map(len, together)) >= ROW_GROUP:
            yield pa.Table.from_batches(together)
            together = []
    if together:
        yield pa.Table.from_batches(together)


def _time_column(schema: Any) -> str:
    """Return by which time segments are looked up: predictions by when they were made, labels by their arrival."""
    return "received_at" if "received_at" in schema.names else "at"


def catalogue(project: Project, ledger: Ledger, segment: Segment) -> None:
    """Write a sealed segment's facts into the ledger, under its path within the project's state."""
    key = str(segment.path.relative_to(project.state))
    facts = dataclasses.asdict(segment) | {"path": key, "bytes": segment.path.stat().st_size}
    ledger.put("segment", key, facts)


def seal_orphans(project: Project) -> int:
    """Seal the tails of processes that are no more, and return how many were taken care of.

    A torn batch at the end, which was never acknowledged, is left out. Safe while others write, and while others do
    the same.

    Raises
    ------
    Unavailable
        A segment could not be written; its rows stay in the tail.
    """
    done = 0
    ledger: Ledger | None = None
    for folder in files.logs(project):
        for tail in folder.tails():
            sealed, segment = _seal_orphan(folder, tail)
            done += sealed
            if segment:
                ledger = ledger or Ledger.open(project)
                catalogue(project, ledger, segment)
        _remove_leftovers(folder)
    if ledger:
        ledger.close()
    return done


def _seal_orphan(folder: LogFolder, tail: Path) -> tuple[bool, Segment | None]:
    if files.owner_alive(tail):
        return False, None
    try:
        descriptor = os.open(tail, os.O_RDWR)
    except FileNotFoundError:
        return False, None
    try:
        # Without a link it was sealed by another process between our listing and the lock.
        if not lock(descriptor) or os.fstat(descriptor).st_nlink == 0:
            return False, None
        return True, seal(folder, tail)
    finally:
        os.close(descriptor)


def _remove_leftovers(folder: LogFolder) -> None:
    """Delete unfinished segments of processes that died while sealing; their tails are still there."""
    with contextlib.suppress(FileNotFoundError):
        for path in folder.root.glob(".*.tmp"):
            if not files.owner_alive(Path(path.name[1:])):
                path.unlink(missing_ok=True)
