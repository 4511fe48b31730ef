"""The catalogue of the prediction log: each sealed segment in a table of the ledger, and what became of it.

A log of this machine is read without it, by the names of its files; counts, retention and the history of what was merged
use it. Segments in a store elsewhere are listed by it alone, so that a query asks the store for nothing but the files it
needs.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from loopwright.config import Project
from loopwright.errors import Conflict
from loopwright.ledger import Ledger
from loopwright.ledger.schema import segments as _segments
from loopwright.predictions.files import Segment, deployment_of
from loopwright.records import now

__all__ = ["Catalogue", "Entry", "State", "close_shared", "shared_ledger"]

#: ``live`` counts; ``replaced`` was merged or rewritten; ``expired`` was deleted; ``quarantined`` was damaged.
State = Literal["live", "replaced", "expired", "quarantined"]
#: How many rows of one statement: SQLite takes 32,766 values in one.
_TOGETHER = 400


@dataclass(frozen=True, slots=True)
class Entry:
    """One segment as the catalogue has it.

    `path` ends with its name. It is the place within the project's state, or within the folder that is the store, or the
    whole address of an object; `log` is that of the folder or prefix that the segments of a log have in common.
    """

    path: str
    log: str
    first_us: int
    last_us: int
    rows: int
    bytes: int
    state: State = "live"
    note: str = ""
    layout: str = ""

    @classmethod
    def of(cls, log: str, path: str, segment: Segment, size: int) -> Entry:
        """Return the entry of a segment of so many bytes."""
        return cls(
            path, log, segment.first_us, segment.last_us, segment.rows, size, layout=segment.schema[:16]
        )

    @property
    def stem(self) -> str:
        """The stem of the segment's name."""
        return self.path.rpartition("/")[2].rsplit(".", 4)[0]


class Catalogue:
    """The catalogue in one ledger. Safe to share between threads."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def add(
        self,
        entries: Sequence[Entry],
        replacing: Collection[str] = (),
        note: str = "",
        *,
        again: bool = False,
    ) -> None:
        """Add segments, and in the same transaction stop to count those at the paths `replacing`.

        A segment that is there already stays as it is; with `again` it counts from now on.

        Raises
        ------
        Conflict
            One of those to be replaced does not count any more; nothing was changed.
        """
        with self._ledger.writing() as connection:
            for paths in _slices(list(replacing)):
                done = connection.execute(
                    sa.update(_segments)
                    .where(_segments.c.path.in_(paths) & (_segments.c.state == "live"))
                    .values(state="replaced", changed=now(), note=note)
                )
                if done.rowcount != len(paths):
                    raise Conflict(
                        f"{len(paths) - done.rowcount} of {len(paths)} segments were replaced by somebody else meanwhile.",
                        hint="loopwright prediction repair",
                    )
            known: set[str] = set()
            for paths in _slices([entry.path for entry in entries]):
                known |= set(
                    connection.execute(
                        sa.select(_segments.c.path).where(_segments.c.path.in_(paths))
                    ).scalars()
                )
            if again and known:
                for paths in _slices(sorted(known)):
                    connection.execute(
                        sa.update(_segments)
                        .where(_segments.c.path.in_(paths))
                        .values(state="live", changed=now(), note="")
                    )
            if rows := [_row(entry) for entry in entries if entry.path not in known]:
                connection.execute(sa.insert(_segments), rows)

    def mark(self, paths: Sequence[str], state: State, note: str = "") -> None:
        """Say what became of segments; a path that is not known is left out."""
        if not paths:
            return
        with self._ledger.writing() as connection:
            for some in _slices(list(paths)):
                connection.execute(
                    sa.update(_segments)
                    .where(_segments.c.path.in_(some))
                    .values(state=state, changed=now(), note=note[:2000])
                )

    def entries(
        self,
        log: str,
        state: State = "live",
        *,
        since_us: int | None = None,
        until_us: int | None = None,
        before: datetime | None = None,
    ) -> list[Entry]:
        """Return the segments of a log in one state, by path.

        Parameters
        ----------
        log, state
            Which.
        since_us, until_us
            Only those that can hold rows in [since, until), in microseconds since 1970.
        before
            Only those that came into the state before.
        """
        where = [_segments.c.log == log, _segments.c.state == state]
        where += [_segments.c.last_us >= since_us] if since_us is not None else []
        where += [_segments.c.first_us < until_us] if until_us is not None else []
        where += [_segments.c.changed < before] if before is not None else []
        query = sa.select(_segments).where(*where).order_by(_segments.c.path)
        with self._ledger.reading() as connection:
            return [_entry(row) for row in connection.execute(query)]

    def look(
        self, log: str, since_us: int | None, until_us: int | None, stems: Collection[str]
    ) -> list[Entry]:
        """Return what counts in [since, until), and what became of some stems, as they are at one moment."""
        live = [_segments.c.state == "live"]
        live += [_segments.c.last_us >= since_us] if since_us is not None else []
        live += [_segments.c.first_us < until_us] if until_us is not None else []
        named = [_segments.c.path.like(f"%/{_plain(stem)}.%", escape="\\") for stem in stems]
        query = sa.select(_segments).where((_segments.c.log == log) & sa.or_(sa.and_(*live), *named))
        with self._ledger.reading() as connection:
            return [_entry(row) for row in connection.execute(query)]

    def newest(self, log: str) -> Entry | None:
        """Return the segment of a log with the newest row, or None."""
        query = (
            sa.select(_segments)
            .where((_segments.c.log == log) & (_segments.c.state == "live"))
            .order_by(_segments.c.last_us.desc())
            .limit(1)
        )
        with self._ledger.reading() as connection:
            row = connection.execute(query).first()
        return _entry(row) if row else None

    def close(self, paths: Sequence[str]) -> None:
        """Say that the files of segments are deleted; why they are is noted already."""
        if not paths:
            return
        with self._ledger.writing() as connection:
            for some in _slices(list(paths)):
                connection.execute(
                    sa.update(_segments)
                    .where(_segments.c.path.in_(some))
                    .values(state="expired", changed=now())
                )

    def all(self, log: str) -> dict[str, State]:
        """Return the state of each segment of a log, by path."""
        query = sa.select(_segments.c.path, _segments.c.state).where(_segments.c.log == log)
        with self._ledger.reading() as connection:
            return {row.path: row.state for row in connection.execute(query)}

    def report(self, entry: Entry, reason: str) -> None:
        """Write an event about a segment that cannot be read any more."""
        self._ledger.append(
            "predictions.quarantined",
            deployment_of(entry.log.rpartition("/")[2]),
            {"segment": entry.path, "rows": entry.rows, "reason": reason},
        )

    def count(self, log: str, state: State) -> int:
        """Return how many segments of a log are in a state."""
        query = sa.select(sa.func.count()).where((_segments.c.log == log) & (_segments.c.state == state))
        with self._ledger.reading() as connection:
            return int(connection.execute(query).scalar() or 0)

    def bytes(self, log: str) -> int:
        """Return how many bytes the segments of a log take that count."""
        query = sa.select(sa.func.sum(_segments.c.bytes)).where(
            (_segments.c.log == log) & (_segments.c.state == "live")
        )
        with self._ledger.reading() as connection:
            return int(connection.execute(query).scalar() or 0)

    def logs(self, below: str) -> set[str]:
        """Return the names of the logs right below a folder, without the folder, that the catalogue knows."""
        query = sa.select(_segments.c.log).where(_segments.c.log.like(f"{_plain(below)}/%", escape="\\"))
        with self._ledger.reading() as connection:
            return {log.removeprefix(f"{below}/") for log in connection.execute(query.distinct()).scalars()}

    def forget_old(self, age: timedelta) -> None:
        """Drop the entries of segments that were replaced or expired so long ago that no tail of theirs can turn up."""
        gone = _segments.c.state.in_(("replaced", "expired")) & (_segments.c.changed < now() - age)
        with self._ledger.reading() as connection:
            if connection.execute(sa.select(_segments.c.path).where(gone).limit(1)).first() is None:
                return
        with self._ledger.writing() as connection:
            connection.execute(sa.delete(_segments).where(gone))


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "path": entry.path,
        "log": entry.log,
        "first_us": entry.first_us,
        "last_us": entry.last_us,
        "rows": entry.rows,
        "bytes": entry.bytes,
        "layout": entry.layout,
        "state": entry.state,
        "changed": now(),
        "note": entry.note,
    }


def _entry(row: Any) -> Entry:
    return Entry(
        row.path,
        row.log,
        row.first_us,
        row.last_us,
        row.rows,
        row.bytes,
        row.state,
        row.note,
        row.layout,
    )


def _slices(values: list[str]) -> list[list[str]]:
    return [values[at : at + _TOGETHER] for at in range(0, len(values), _TOGETHER)]


def _plain(text: str) -> str:
    """Return text that LIKE takes as it is."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


_ledgers: dict[tuple[int, str], Ledger] = {}


def shared_ledger(project: Project) -> Ledger:
    """Return a ledger that this process keeps open for the log; after a fork the child has one of its own."""
    key = os.getpid(), project.ledger_url
    if key not in _ledgers:
        _ledgers[key] = Ledger.open(project)
    return _ledgers[key]


def close_shared() -> None:
    """Close the ledgers that this process keeps open; they are opened again when they are needed."""
    for key in list(_ledgers):
        ledger = _ledgers.pop(key)
        if key[0] == os.getpid():
            ledger.close()


atexit.register(close_shared)
