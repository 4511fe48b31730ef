"""What is in the log at one moment, for readers in any process: open tails and the files of sealed segments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pyarrow as pa

from loopwright.errors import Damaged, LoopwrightError
from loopwright.predictions import columns
from loopwright.predictions.files import LogFolder, Look, Segment, Shelf
from loopwright.predictions.quarantine import mend
from loopwright.predictions.tail import read_batches

__all__ = ["Snapshot", "Unreadable", "read_snapshot", "steady"]

#: How often the log is looked at anew where files are gone that were just there.
_TRIES = 8
_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


@dataclass(slots=True)
class Snapshot:
    """The rows of one or more logs at one moment: sealed segments, and tables read from open tails.

    `homes` says on which shelf each segment's file is.
    """

    segments: list[Segment] = field(default_factory=list)
    tables: list[Any] = field(default_factory=list)
    homes: dict[Path, Shelf] = field(default_factory=dict)

    def bounds(self) -> tuple[int | None, int | None]:
        """Return the span [since, until) of microseconds that all rows lie in; None where that is not known."""
        found = [(segment.first_us, segment.last_us) for segment in self.segments]
        for table in self.tables:
            times = [columns.values_of(chunk, "int64") for chunk in table.column("at").chunks if len(chunk)]
            found += [(int(part.min()), int(part.max())) for part in times]
        if not found:
            return None, None
        return min(first for first, _ in found), max(last for _, last in found) + 1


class Unreadable(Damaged):
    """Files of a snapshot could not be read: they are gone by now, or damaged."""

    def __init__(
        self, words: str, snapshots: Sequence[Snapshot], otherwise: LoopwrightError | None = None
    ) -> None:
        super().__init__(
            f"The prediction log cannot be read: {words}",
            hint="loopwright prediction repair",
        )
        self._snapshots = snapshots
        #: What is wrong when nothing is wrong with the files.
        self.otherwise = otherwise or self

    def mended(self) -> bool:
        """Whether it is worth looking again: files were replaced meanwhile, or damaged ones are set aside by now."""
        found = [
            (one.homes[segment.path], segment)
            for one in self._snapshots
            for segment in one.segments
            if segment.path in one.homes
        ]
        return mend(found, self.fact)


def steady(work: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """Do the work of a reader again where the files it had listed were replaced meanwhile, or damaged ones set aside."""

    @wraps(work)
    def again(*args: _Given.args, **kwargs: _Given.kwargs) -> _Result:
        for _ in range(_TRIES - 1):
            try:
                return work(*args, **kwargs)
            except Unreadable as error:
                if not error.mended():
                    raise error.otherwise from error.__cause__
        return work(*args, **kwargs)

    return again


def read_snapshot(
    folders: list[LogFolder], since_us: int | None = None, until_us: int | None = None
) -> Snapshot:
    """Return what is in some logs now: every row that was acknowledged before the call, each once.

    The order matters while writers seal: tails are read first and segments listed afterwards, so a tail that vanished
    in between is found as a segment, and one that was read is left out when it was sealed by now. Segments outside
    [since, until) are left out; one is kept for its columns when nothing else is left.

    Raises
    ------
    Unavailable
        Segments are in a store that does not answer, and there are no copies of them on this machine.
    """
    snapshot = Snapshot()
    outside: tuple[Segment, Shelf] | None = None
    for folder in folders:
        shelf = folder.shelf
        batches, look = _look(folder, shelf, since_us, until_us)
        snapshot.tables += _tables(batches)
        snapshot.segments += look.segments
        snapshot.homes |= dict.fromkeys((segment.path for segment in look.segments), shelf)
        if look.outside:
            outside = look.outside, shelf
    if outside and not snapshot.segments and not snapshot.tables:
        outside[1].fetch([outside[0]])
        snapshot.segments = [outside[0]]
        snapshot.homes[outside[0].path] = outside[1]
    return snapshot


def _look(
    folder: LogFolder, shelf: Shelf, since_us: int | None, until_us: int | None
) -> tuple[list[Any], Look]:
    """Return the batches of the open tails and the segments, whose files are on this machine by then."""
    for tries in range(_TRIES):
        tails: dict[str, list[Any]] = {}
        for path in folder.tails():
            try:
                tails[path.stem] = list(read_batches(path))
            except FileNotFoundError:
                continue
        look = shelf.look(since_us, until_us, tails)
        try:
            shelf.fetch(look.segments)
        except FileNotFoundError:
            # It was replaced between the look and the fetch: look again.
            if tries == _TRIES - 1:
                raise
            continue
        break
    return [batch for stem, found in tails.items() if stem not in look.sealed for batch in found], look


def _tables(batches: list[Any]) -> list[Any]:
    """Put batches of the same schema together."""
    found: dict[str, list[Any]] = {}
    for batch in batches:
        found.setdefault(batch.schema.to_string(), []).append(batch)
    return [pa.Table.from_batches(same) for same in found.values()]
