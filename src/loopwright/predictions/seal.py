"""Turning tails into Parquet segments, by their owner or, when that died, by whoever looks next."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from loopwright.config import Project
from loopwright.errors import Denied, LoopwrightError, Unavailable
from loopwright.ledger import Ledger
from loopwright.predictions import columns, files
from loopwright.predictions.catalogue import Catalogue, Entry
from loopwright.predictions.files import LogFolder, Segment
from loopwright.predictions.shelves import QUARANTINE, NamedShelf
from loopwright.predictions.tail import holds_more, lock, read_after

__all__ = ["catalogue", "removed_leftovers", "seal", "seal_orphans", "time_column", "wish", "write_segment"]

logger = logging.getLogger(__name__)
#: Rows of a Parquet row group, unless a few large batches make more: what a query over a short span has to decode.
ROW_GROUP = 32_768
#: Beside a tail: its owner shall seal it soon.
WISH = ".seal"


def wish(tail: Path) -> None:
    """Ask the process that a tail belongs to, to seal it at its next look."""
    with contextlib.suppress(OSError):
        tail.with_suffix(WISH).touch()


def seal(folder: LogFolder, tail: Path) -> Segment | None:
    """Write the complete rows of a tail as a segment, then delete the tail; None when it holds no row that was not sealed.

    The segment appears under its name at once and whole. Between that and the deletion both files exist; readers
    know by the stem not to count the tail then. Only the owner of the tail, or who holds its lock, may call this.

    Raises
    ------
    Unavailable
        The disk, or the store, does not take it. The tail stays, and with it every row.
    """
    temporary = folder.root / f".{files.new_stem()}.tmp"
    found: Segment | None = None
    try:
        if not folder.shelf.knows(tail.stem):
            tracked = _Tracked(tail)
            rows = write_segment(temporary, tracked)
            if rows:
                found = folder.shelf.publish(temporary, dataclasses.replace(rows, stem=tail.stem))
            if holds_more(tail, tracked.end):
                _keep(folder, tail, tracked.end)
        tail.unlink(missing_ok=True)
        tail.with_suffix(WISH).unlink(missing_ok=True)
    except (OSError, pa.ArrowException, sa.exc.SQLAlchemyError, Unavailable, Denied) as error:
        raise Unavailable(
            f"{tail} could not be sealed: {error.fact if isinstance(error, LoopwrightError) else error}.",
            valid="Its rows stay in it and can be read.",
            hint=f"df -h {folder.root}" if isinstance(error, OSError) else "loopwright status",
            path=str(tail),
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return found


class _Tracked:
    """The rows of a finished tail, and the offset up to which they were good."""

    def __init__(self, tail: Path) -> None:
        self._tail = tail
        self.end = 0

    def __iter__(self) -> Iterator[Any]:
        for batch, end in read_after(self._tail, finished=True):
            self.end = end
            yield batch


def _keep(folder: LogFolder, tail: Path, end: int) -> None:
    """Keep a tail that was damaged before its end, for who may want to look at what is behind the damage."""
    size = tail.stat().st_size
    aside = folder.root / QUARANTINE
    aside.mkdir(exist_ok=True)
    reason = f"its bytes from {end} to {size} are damaged; the rows before them are in the log"
    (aside / f"{tail.stem}.txt").write_text(reason, encoding="utf-8")
    tail.rename(aside / tail.name)
    logger.warning("%s is damaged: %s", tail, reason)


def write_segment(path: Path, batches: Iterable[Any], schema: Any = None) -> Segment | None:
    """Write batches to a new Parquet file, durably, and return what it holds, with an empty stem.

    Parameters
    ----------
    path
        The file.
    batches
        Record batches of one schema, in the order they are kept in.
    schema
        Of the file: then it is written without rows, too. Without, there is no file and None where there are no rows.
    """
    from pyarrow.parquet import ParquetWriter

    first, last, rows = 0, 0, 0
    writer: Any = None
    try:
        if schema is not None:
            writer = ParquetWriter(str(path), schema, **_encoding(schema))
        for table in _row_groups(batches):
            if writer is None:
                writer = ParquetWriter(str(path), table.schema, **_encoding(table.schema))
            writer.write_table(table)
            for times in table.column(time_column(table.schema)).chunks:
                moments = columns.values_of(times, "int64")
                first = min(first, int(moments.min())) if rows else int(moments.min())
                last = max(last, int(moments.max())) if rows else int(moments.max())
                rows += len(moments)
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return Segment(path, "", first, last, rows)


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
        "write_page_checksum": True,
    }


def _row_groups(batches: Iterable[Any]) -> Iterator[Any]:
    """Yield batches in tables of a good size for a row group."""
    together: list[Any] = []
    rows = 0
    for batch in batches:
        if not len(batch):
            continue
        together.append(batch)
        rows += len(batch)
        if rows >= ROW_GROUP:
            yield pa.Table.from_batches(together)
            together, rows = [], 0
    if together:
        yield pa.Table.from_batches(together)


def time_column(schema: Any) -> str:
    """Return by which time segments are looked up: predictions by when they were made, labels by their arrival."""
    return "received_at" if "received_at" in schema.names else "at"


def catalogue(project: Project, ledger: Ledger, folder: LogFolder, segments: Sequence[Segment]) -> None:
    """Write sealed segments into the catalogue, where their shelf did not do so itself."""
    if segments and isinstance(folder.shelf, NamedShelf):
        log, shelf = files.log_name(project, folder.root), folder.shelf
        Catalogue(ledger).add(
            [
                Entry.of(log, f"{log}/{shelf.path_of(segment)}", segment, shelf.size([segment]))
                for segment in segments
            ]
        )


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
    for folder in files.logs(project):
        found: list[Segment] = []
        for tail in folder.tails():
            sealed, segment = _seal_orphan(folder, tail)
            done += sealed
            found += [segment] if segment else []
        if found:
            ledger = Ledger.open(project)
            try:
                catalogue(project, ledger, folder, found)
            finally:
                ledger.close()
        removed_leftovers(folder)
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


def removed_leftovers(folder: LogFolder) -> None:
    """Delete unfinished segments of processes that died while sealing or merging; their rows are elsewhere still."""
    with contextlib.suppress(FileNotFoundError):
        for path in folder.root.glob(".*.tmp"):
            if not files.owner_alive(Path(path.name[1:])):
                path.unlink(missing_ok=True)
        for path in folder.open.glob(f"*{WISH}"):
            if not path.with_suffix(files.TAIL).exists():
                path.unlink(missing_ok=True)
