"""The files of one deployment's log as the follower reads them: open tails, sealed segments, what is new in either.

Looking whether there is anything new costs some microseconds: tails grow, and a file that comes or goes changes the
folder of the tails. Only then are the segments listed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from loopwright.predictions.files import LogFolder, Segment
from loopwright.predictions.tail import read_after

__all__ = ["Chunk", "Source"]

#: A folder changed so short a while ago may change again without a new time of change: its clock is coarse.
_COARSE_NS = 1_000_000_000
#: Segments are listed at least so often, whatever the folder says; so often those that other machines write.
_LIST_S, _LIST_ELSEWHERE_S = 300.0, 15.0
#: Rows that are handed on at once.
_ROWS = 32_768
#: What is not counted and need not be read.
_UNCOUNTED = frozenset(
    {"prediction_id", "deployment", "variant", "propensity", "entity", "request_id", "trace"}
)


class Chunk(NamedTuple):
    """Rows of one file; with them, its first `last` rows are read."""

    stem: str
    batch: Any
    last: int


class Source:
    """What is new in one log. Not thread-safe."""

    def __init__(self, folder: LogFolder) -> None:
        self._folder = folder
        #: Where the next batch of a tail begins: rows before it, and bytes.
        self._places: dict[str, tuple[int, int]] = {}
        #: How long a tail was when it was last read to its end.
        self._ends: dict[str, int] = {}
        self._open_ns = -1
        self._listed = float("-inf")
        self.tails: list[Path] = []
        self.segments: list[Segment] = []

    def look(self) -> bool:
        """Look at the files' names, and return whether the list of segments was read anew."""
        changed = self._changed_ns()
        self.tails = self._folder.tails()
        settled = changed == self._open_ns and time.time_ns() - changed > _COARSE_NS
        patience = _LIST_S if self._is_local else _LIST_ELSEWHERE_S
        if settled and time.monotonic() - self._listed < patience:
            return False
        # After the tails: one that is in neither list cannot be.
        self.segments = self._folder.segments()
        self._open_ns, self._listed = changed, time.monotonic()
        there = {path.stem for path in self.tails}
        self._places = {stem: place for stem, place in self._places.items() if stem in there}
        self._ends = {stem: end for stem, end in self._ends.items() if stem in there}
        return True

    @property
    def _is_local(self) -> bool:
        return self._folder.placed is None

    def _changed_ns(self) -> int:
        try:
            return self._folder.open.stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def grown(self) -> list[Path]:
        """Return the tails that are longer than when they were last read, oldest first."""
        return [path for path in self.tails if self._size(path) not in {None, self._ends.get(path.stem, 0)}]

    def _size(self, path: Path) -> int | None:
        try:
            return path.stat().st_size
        except FileNotFoundError:
            self._listed = float("-inf")  # sealed since: the next look finds its segment
            return None

    def was_cut(self, path: Path) -> bool:
        """Whether a tail is shorter than what was read of it: its writer took back a batch that the disk had refused."""
        place, size = self._places.get(path.stem), self._size(path)
        return place is not None and size is not None and size < place[1]

    def read_tail(self, path: Path, counted: int) -> Iterator[Chunk]:
        """Yield the rows of a tail behind the first `counted`, batch by batch."""
        rows, offset = self._places.get(path.stem, (0, 0))
        if rows != counted:
            rows, offset = 0, 0
        size = self._size(path)
        if size is None:
            return
        with contextlib.suppress(FileNotFoundError):
            for batch, end in read_after(path, offset):
                first, rows = rows, rows + batch.num_rows
                self._places[path.stem] = (rows, end)
                if rows > counted:
                    yield Chunk(path.stem, batch.slice(max(0, counted - first)), rows)
            self._ends[path.stem] = size

    def read_segment(self, segment: Segment, counted: int) -> Iterator[Chunk]:
        """Yield the rows of a segment behind the first `counted`, in the order of its tail, some ten thousand at a time.

        Raises
        ------
        Unavailable
            The store that has the file does not answer.
        OSError, pyarrow.ArrowException
            The file is gone or cannot be read.
        """
        from pyarrow.parquet import ParquetFile

        self._folder.shelf.fetch([segment])
        with ParquetFile(str(segment.path)) as file:
            names = [name for name in file.schema_arrow.names if name not in _UNCOUNTED]
            last = 0
            for group in range(file.num_row_groups):
                first, last = last, last + file.metadata.row_group(group).num_rows
                if last <= counted:
                    continue
                table = file.read_row_group(group, columns=names, use_threads=False)
                table = table.slice(max(0, counted - first)).combine_chunks()
                at = last - table.num_rows
                for batch in table.to_batches(max_chunksize=_ROWS):
                    at += batch.num_rows
                    yield Chunk(segment.stem, batch, at)
