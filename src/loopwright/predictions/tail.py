"""Open tails: an Arrow IPC stream that one process appends to, and the loop that reads any of them.

Each append is one record batch in one write into the page cache, so that a process killed at any moment leaves whole
batches and at most one torn one at the end, which was never acknowledged. `pyarrow`'s own ``read_all`` refuses such a
file as a whole; reading batch by batch keeps every complete batch, and the checksum of each tells what a power cut left
of it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from loopwright.errors import Unavailable
from loopwright.predictions.checksums import (
    frames,
    head_length,
    is_damaged,
    is_marked,
    marked,
    schema_of,
    seed_of,
    with_trailer,
)
from loopwright.predictions.files import TAIL, LogFolder, new_stem, now_us
from loopwright.predictions.places import sync_folder
from loopwright.predictions.schema import Layout

if sys.platform != "win32":
    import fcntl

__all__ = ["Tail", "holds_more", "lock", "read_after", "read_batches"]

#: So many appended batches are put together while reading: single-row batches would cost kilobytes of objects each.
_TOGETHER = 1024
#: And at most about so many rows, which is a row group of a segment: memory for one is used again for the next.
_TOGETHER_ROWS = 32_768
#: How much of a tail is read to find its schema, and how much more where that was not enough.
_HEAD_GUESS, _HEAD_MOST = 1 << 14, 1 << 24


def lock(descriptor: int) -> bool:
    """Lock a tail until its file is closed or its process dies; False when somebody else holds it.

    The kernel gives the lock back with the process, so it tells a living owner from a dead one even where pids or
    clocks mislead. True without a lock where the system has none.
    """
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


class Tail:
    """One open tail. Not thread-safe: its log serialises the calls.

    Parameters
    ----------
    folder
        The log it belongs to.
    schema, name
        Of every batch that will be appended, and a text that is equal for equal schemas. Batches of a schema that says
        so end with a checksum, see `checksums`; others get one here.
    synced
        Whether an append waits until the disk has it (a power cut loses nothing), or only the page cache (the death
        of the process loses nothing).
    """

    def __init__(self, folder: LogFolder, schema: Any, name: str, *, synced: bool) -> None:
        columns = f"{name} {schema.remove_metadata()}"
        self.path = folder.open / f"{new_stem(columns)}{TAIL}"
        self.opened_us = now_us()
        self.rows = 0
        self.size_bytes = 0
        self.broken = False
        self._synced = synced
        self._plain = not is_marked(schema)
        self._head: bytes = (marked(schema) if self._plain else schema).serialize().to_pybytes()
        self._seed = seed_of(self._head)
        folder.open.mkdir(parents=True, exist_ok=True)
        self.descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        lock(self.descriptor)
        if synced:
            sync_folder(folder.open)

    def append(self, body: Any, rows: int) -> None:
        """Append one record batch, written as a message of the stream, and return when it is durable.

        Raises
        ------
        Unavailable
            The disk does not take it. Nothing of the batch is kept: what was written of it is cut off again, and
            where even that fails the tail is `broken`: it is read up to its last whole batch and never appended to.
        """
        if self._plain:
            body = with_trailer(bytes(body), self._seed)
        if not self.size_bytes:
            body = self._head + bytes(body)
        size = len(memoryview(body))
        try:
            if (written := os.write(self.descriptor, body)) < size:
                _write(self.descriptor, memoryview(body)[written:])
            if self._synced:
                getattr(os, "fdatasync", os.fsync)(self.descriptor)
        except OSError as error:
            self._cut()
            raise Unavailable(
                f"{rows} rows could not be written to {self.path}: {error.strerror}.",
                valid="Nothing of them was kept.",
                hint=f"df -h {self.path.parent}",
                path=str(self.path),
                retry_after=1,
            ) from error
        self.size_bytes += size
        self.rows += rows

    def _cut(self) -> None:
        try:
            os.ftruncate(self.descriptor, self.size_bytes)
        except OSError:
            self.broken = True

    def close(self) -> None:
        """Close the file, which also gives back its lock."""
        with contextlib.suppress(OSError):
            os.close(self.descriptor)


def _write(descriptor: int, view: memoryview) -> None:
    """Write the rest, where the disk took only a part of it at once."""
    while view:
        view = view[os.write(descriptor, view) :]


def read_batches(path: Path, *, finished: bool = False) -> Iterator[Any]:
    """Yield the complete rows of a tail as record batches of the table, up to the first torn batch.

    Parameters
    ----------
    path
        The tail.
    finished
        Whether nobody appends to it any more.

    Raises
    ------
    FileNotFoundError
        The tail is gone: it was sealed.
    """
    for batch, _ in read_after(path, finished=finished):
        yield batch


def read_after(path: Path, offset: int = 0, *, finished: bool = False) -> Iterator[tuple[Any, int]]:
    """Yield the complete rows behind an offset as `read_batches` does, each batch with the offset to go on from.

    Parameters
    ----------
    path, finished
        As for `read_batches`.
    offset
        Where an earlier call ended; 0 for all rows. What lies before it is not read.

    Raises
    ------
    FileNotFoundError
        The tail is gone: it was sealed. Rows keep their order in the segment.
    """
    head, data, offset = _parts(path, offset, finished)
    schema = schema_of(head) if head else None
    if schema is None:
        return
    layout: Layout | None = None
    plain = schema.remove_metadata()
    together: list[Any] = []
    rows = good = 0
    for start, end in frames(memoryview(data).cast("B"), seed_of(head) if is_marked(schema) else None):
        try:
            if not good:
                # Only now: a batch that verifies says that the schema is whole, too.
                layout = Layout.read(schema)
            together.append(pa.ipc.read_record_batch(data.slice(start, end - start), plain))
        except (OSError, TypeError, ValueError, KeyError, pa.ArrowException):
            break
        good = end
        rows += len(together[-1])
        if len(together) >= _TOGETHER or rows >= _TOGETHER_ROWS:
            yield _expanded(together, layout), offset + good
            together, rows = [], 0
    if together:
        yield _expanded(together, layout), offset + good


def holds_more(path: Path, end: int) -> bool:
    """Whether a finished tail, whose rows end at an offset, holds more than those and a write that was cut short."""
    return is_damaged(memoryview(_parts(path, end, finished=True)[1]).cast("B"))


def _parts(path: Path, offset: int, finished: bool) -> tuple[bytes, Any, int]:
    """Return the schema's message, empty when it is not whole; the messages behind it or the offset; and where they begin."""
    # Read, not mapped, while somebody may append: the owner may cut a torn batch off, and a mapped page beyond the end
    # kills the reader. A tail that is finished is mapped, so that sealing needs memory for a part of it at a time.
    if finished and path.stat().st_size:
        whole = pa.memory_map(str(path)).read_buffer()
    elif not offset:
        whole = pa.py_buffer(path.read_bytes())
    else:
        with path.open("rb") as file:
            prefix = file.read(_HEAD_GUESS)
            length = head_length(prefix) or head_length(prefix + file.read(_HEAD_MOST))
            if length is None:
                return b"", pa.py_buffer(b""), offset
            file.seek(0)
            head = file.read(length)
            file.seek(max(offset, length))
            return head, pa.py_buffer(file.read()), max(offset, length)
    length = head_length(memoryview(whole))
    if length is None:
        return b"", whole, offset
    offset = max(offset, length)
    return bytes(memoryview(whole)[:length]), whole.slice(min(offset, whole.size)), offset


def _expanded(together: list[Any], layout: Layout | None) -> Any:
    batch = pa.concat_batches(together) if len(together) > 1 else together[0]
    return layout.expand(batch) if layout else batch
