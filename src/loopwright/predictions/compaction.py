"""Merging small segments: 2000 of 500 rows make a query six times slower than a few large ones.

Segments of one log, one day and the same columns become one, sorted by time. How readers see each row once meanwhile is
said in `shelves`. A segment is merged a few times in its life at most: only with others of its size, or when its day is
over.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from loopwright.errors import Conflict, Damaged, Unavailable
from loopwright.predictions import files
from loopwright.predictions.files import LogFolder, Segment, day_name, merged_stem, now_us
from loopwright.predictions.quarantine import set_aside
from loopwright.predictions.seal import time_column, write_segment
from loopwright.predictions.tail import lock

__all__ = [
    "FEW",
    "FULL_BYTES",
    "FULL_ROWS",
    "Counted",
    "compact",
    "in_list",
    "locked",
    "mergeable",
    "plan",
    "rewrite",
]

#: A merged segment has at most about so many rows and bytes.
FULL_ROWS, FULL_BYTES = 1 << 20, 128 << 20
#: So many segments of one size are worth merging at once.
FEW = 8
#: Sizes in rows: segments below the same bound are of one size; those of half a full one and more stay as they are.
SIZES = (1 << 14, 1 << 17, FULL_ROWS // 2)
#: When nothing was sealed for a day that is over for so long, its last segments are merged however few they are.
QUIET_US = 3600 * 1_000_000
#: What sorting may take, tried in this order. It is little, because the controller merges beside all else it does.
_MEMORY = ("128MB", "512MB", "2GB")
_BATCH = 32_768

logger = logging.getLogger(__name__)


class Counted(Protocol):
    """What the live numbers have counted of a deployment's log: rows must not be counted again where they are merged."""

    def among(self, segments: Sequence[Segment]) -> list[Segment]:
        """Return those of some segments that may be merged."""

    def carry(self, made: Segment) -> None:
        """Take note that the rows of a new segment are counted; called before it can be seen."""


@contextlib.contextmanager
def locked(folder: LogFolder) -> Iterator[bool]:
    """Hold a log's lock, which who merges, rewrites or deletes its segments needs; False where another process has it."""
    folder.root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder.root / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield lock(descriptor)
    finally:
        os.close(descriptor)


def plan(
    segments: Sequence[Segment], sizes: Callable[[Segment], int], at_us: int, few: int = FEW
) -> list[list[Segment]]:
    """Return which segments are to be merged with which, those that gain most first.

    Parameters
    ----------
    segments
        Of one log.
    sizes
        How many bytes a segment has.
    at_us
        The present moment, in microseconds since 1970 UTC.
    few
        From how many on segments of one size are merged.
    """
    groups: dict[tuple[str, str], list[Segment]] = {}
    for segment in segments:
        if segment.rows < SIZES[-1] and sizes(segment) < FULL_BYTES // 2:
            groups.setdefault((day_name(segment.first_us), segment.schema), []).append(segment)
    found: list[list[Segment]] = []
    for (day, _), group in groups.items():
        if day < day_name(at_us) and max(one.sealed_us for one in group) < at_us - QUIET_US:
            found += _filled(group, sizes, 2)
            continue
        for size in range(len(SIZES)):
            same = [one for one in group if sum(one.rows >= bound for bound in SIZES) == size]
            found += _filled(same, sizes, few)
    return sorted(found, key=len, reverse=True)


def _filled(segments: Sequence[Segment], sizes: Callable[[Segment], int], few: int) -> list[list[Segment]]:
    """Put segments together, in the order of time, until they make a full one; at least `few` each."""
    groups: list[list[Segment]] = [[]]
    rows = size = 0
    for segment in sorted(segments, key=lambda one: (one.first_us, one.stem)):
        if groups[-1] and (rows + segment.rows > FULL_ROWS or size + sizes(segment) > FULL_BYTES):
            groups.append([])
            rows = size = 0
        groups[-1].append(segment)
        rows += segment.rows
        size += sizes(segment)
    return [group for group in groups if len(group) >= few]


def compact(
    folder: LogFolder,
    *,
    few: int = FEW,
    most_rows: int = FULL_ROWS,
    counted: Counted | None = None,
) -> list[tuple[Segment, list[Segment]]]:
    """Merge the small segments of a log, and return what was made of what.

    Parameters
    ----------
    folder
        The log. Nothing is done while another process merges it.
    few
        From how many on segments of one size are merged.
    most_rows
        After about so many rows the rest is left for the next time; at least one group is merged.
    counted
        Which segments are counted in the live numbers, where it is the log of a deployment.

    Raises
    ------
    Unavailable
        The store does not answer. Nothing is lost.
    OSError
        The disk does not take a merged segment, or a segment cannot be read. Nothing is lost.
    """
    done: list[tuple[Segment, list[Segment]]] = []
    with locked(folder) as mine:
        if not mine:
            return done
        rows = 0
        for group in plan(mergeable(folder, counted), lambda one: folder.shelf.size([one]), now_us(), few):
            if done and rows + sum(one.rows for one in group) > most_rows:
                break
            for same in _same_columns(folder, group):
                if len(same) > 1:
                    with contextlib.suppress(Conflict):
                        done.append((rewrite(folder, same, counted=counted), same))
                        rows += done[-1][0].rows
    if done:
        pa.default_memory_pool().release_unused()
    return done


def mergeable(folder: LogFolder, counted: Counted | None = None) -> list[Segment]:
    """Return the segments that may be replaced: a tail that is still there must find the segment it became."""
    tails = {path.stem for path in folder.tails()}
    found = [one for one in folder.segments() if one.stem not in tails]
    return counted.among(found) if counted else found


def _same_columns(folder: LogFolder, group: list[Segment]) -> list[list[Segment]]:
    """Leave out damaged segments, and keep apart those of an earlier release that had other columns."""
    from pyarrow.parquet import read_schema

    folder.shelf.fetch(group)
    found: list[tuple[Any, list[Segment]]] = []
    for segment in group:
        # Read whole: merging a damaged page would make it look sound.
        try:
            if set_aside(folder.shelf, segment):
                continue
            schema = read_schema(segment.path).remove_metadata()
        except FileNotFoundError:
            continue
        for known, same in found:
            if known.equals(schema):
                same.append(segment)
                break
        else:
            found.append((schema, [segment]))
    return [same for _, same in found]


def rewrite(
    folder: LogFolder,
    segments: Sequence[Segment],
    where: str = "true",
    counted: Counted | None = None,
) -> Segment:
    """Replace segments of the same columns by one with those of their rows for which an SQL condition holds.

    Only who holds the log's lock may call this; `counted` is as for `compact`.

    Raises
    ------
    Conflict
        One of them was replaced by somebody else meanwhile; nothing was changed.
    Damaged
        What was written does not have the rows it should have; nothing was changed.
    Unavailable, OSError
        The disk or the store does not take it; nothing was changed.
    """
    from pyarrow.parquet import read_metadata, read_schema

    temporary = folder.root / f".{files.new_stem()}.tmp"
    schema = read_schema(segments[0].path).remove_metadata()
    try:
        made = _written(temporary, segments, schema, where)
        expected = sum(one.rows for one in segments)
        written = read_metadata(temporary).num_rows
        if written != made.rows or (where == "true" and written != expected):
            raise Damaged(
                f"{len(segments)} segments of {expected} rows gave a file of {written} rows.",
                valid="It was thrown away; the segments stay.",
                hint="loopwright prediction repair",
            )
        if not made.rows:
            made = replace(made, first_us=segments[0].first_us, last_us=segments[0].last_us)
        made = replace(made, stem=merged_stem(segments))
        if counted:
            counted.carry(made)
        return folder.shelf.publish(temporary, made, segments)
    finally:
        temporary.unlink(missing_ok=True)


def _written(path: Path, segments: Sequence[Segment], schema: Any, where: str) -> Segment:
    """Write the rows of segments to a file; with more memory where that is not enough, as for hundreds of columns."""
    import duckdb

    for memory in _MEMORY:
        try:
            with _sorted(segments, schema, where, memory) as batches:
                made = write_segment(path, batches, schema)
            assert made is not None
            return made
        except duckdb.OutOfMemoryException as error:
            refused: Exception = error
        except duckdb.Error as error:
            refused = error
            break
    raise Unavailable(
        f"{len(segments)} segments could not be merged: {' '.join(str(refused).split())[:300]}",
        valid="They stay as they are.",
        hint="loopwright prediction repair",
    ) from refused


@contextlib.contextmanager
def _sorted(
    segments: Sequence[Segment], schema: Any, where: str, memory: str = _MEMORY[0]
) -> Iterator[Iterator[Any]]:
    """Give the rows of segments in the order of time, as batches; what does not fit into memory waits on disk."""
    import duckdb

    spill = Path(tempfile.gettempdir()) / f"loopwright-duckdb-{secrets.token_hex(8)}"
    settings = {
        "threads": 1,
        "memory_limit": memory,
        "temp_directory": str(spill),
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "python_enable_replacements": "false",
    }
    connection = duckdb.connect(":memory:", config=settings)
    try:
        connection.execute("SET TimeZone = 'UTC'")
        paths = ", ".join(_text(str(segment.path)) for segment in segments)
        rows = connection.sql(
            f"select * from read_parquet([{paths}], hive_partitioning = false, union_by_name = false) "
            f'where {where} order by "{time_column(schema)}"'
        )
        yield (_cast(batch, schema) for batch in rows.to_arrow_reader(_BATCH))
    finally:
        connection.close()


def _cast(batch: Any, schema: Any) -> Any:
    """Return a batch with the names and types that the segments have, where DuckDB has others for the same."""
    if batch.schema.equals(schema):
        return batch
    return pa.RecordBatch.from_arrays(
        [batch.column(field.name).cast(field.type) for field in schema], schema=schema
    )


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def in_list(values: Collection[str]) -> str:
    """Return values as the list of an SQL ``in``; one that nothing is in for none."""
    return ", ".join(_text(value) for value in values) or "null"
