"""The tables `blocks` and `positions`: what is counted, and of which rows, changed together or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa

from loopwright.errors import Conflict
from loopwright.ledger import Ledger
from loopwright.ledger.schema import blocks as _blocks
from loopwright.ledger.schema import positions as _positions
from loopwright.monitor.live.spans import Piece
from loopwright.records import now

__all__ = ["Kept", "Key", "Known", "Stored"]

#: The stem of a deployment's own row in `positions`: it counts the changes, so that two that count at once are noticed.
_CHANGES = ""
#: Values in one statement; SQLite takes 32,766.
_TOGETHER = 400
#: The position of a file that is gone is kept for so long, should it turn up again.
_REMEMBERED = timedelta(days=7)


class Key(NamedTuple):
    """One block of a deployment: a version's rows in one span."""

    version: int
    span_s: int
    start_us: int


class Stored(NamedTuple):
    """A block as it lies in the table."""

    key: Key
    rows: int
    data: bytes


@dataclass(slots=True)
class Known:
    """How far a deployment's log is counted.

    Attributes
    ----------
    changes
        How often this was changed; None where nothing was ever counted.
    rows
        How many rows of each file are counted, by its stem.
    """

    changes: int | None = None
    rows: dict[str, int] = field(default_factory=dict)


class Kept:
    """Reads and changes both tables. Safe to share between threads."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def known(self, deployment: str) -> Known:
        """Return how far a deployment's log is counted."""
        query = sa.select(_positions.c.stem, _positions.c.rows).where(_positions.c.deployment == deployment)
        with self._ledger.reading() as connection:
            rows = {row.stem: int(row.rows) for row in connection.execute(query)}
        changes = rows.pop(_CHANGES, None)
        return Known(changes, rows)

    def positions(self, deployment: str, stems: Sequence[str]) -> dict[str, int]:
        """Return how many rows of some files are counted, of those that have a position."""
        found: dict[str, int] = {}
        for at in range(0, len(stems), _TOGETHER):
            some = _positions.c.stem.in_(stems[at : at + _TOGETHER])
            query = sa.select(_positions.c.stem, _positions.c.rows)
            with self._ledger.reading() as connection:
                rows = connection.execute(query.where((_positions.c.deployment == deployment) & some))
                found |= {row.stem: int(row.rows) for row in rows}
        return found

    def begin(self, deployment: str, stems: Iterable[str], expect: int | None) -> Known:
        """Forget all that was counted, and note that no row of some files is.

        Raises
        ------
        Conflict
            Somebody else counted meanwhile.
        """
        with self._ledger.writing() as connection:
            changes = self._step(connection, deployment, expect)
            connection.execute(sa.delete(_blocks).where(_blocks.c.deployment == deployment))
            others = (_positions.c.deployment == deployment) & (_positions.c.stem != _CHANGES)
            connection.execute(sa.delete(_positions).where(others))
            found = dict.fromkeys(stems, 0)
            _insert_positions(connection, deployment, found)
        return Known(changes, found)

    def commit(
        self, deployment: str, known: Known, changed: Sequence[Stored], rows: Mapping[str, int]
    ) -> None:
        """Write changed blocks and how far the files are counted by them, in one transaction; `known` follows.

        Raises
        ------
        Conflict
            Somebody else counted meanwhile; nothing was written.
        """
        with self._ledger.writing() as connection:
            changes = self._step(connection, deployment, known.changes)
            if changed:
                keys = [
                    {"d": deployment, "v": one.key.version, "s": one.key.span_s, "t": one.key.start_us}
                    for one in changed
                ]
                connection.execute(_DELETE_BLOCK, keys)
                connection.execute(sa.insert(_blocks), [_row(deployment, one) for one in changed])
            if rows:
                connection.execute(_DELETE_POSITION, [{"d": deployment, "f": stem} for stem in rows])
                _insert_positions(connection, deployment, rows)
        known.changes = changes
        known.rows.update(rows)

    def _step(self, connection: sa.Connection, deployment: str, expect: int | None) -> int:
        """Count one more change of a deployment, which must be at `expect`."""
        where = (_positions.c.deployment == deployment) & (_positions.c.stem == _CHANGES)
        seen = connection.execute(sa.select(_positions.c.rows).where(where)).scalar()
        if seen != expect:
            raise Conflict(
                f"The live numbers of {deployment!r} were changed by somebody else: {seen} changes, not {expect}.",
                hint="loopwright monitor status",
            )
        changes = (seen or 0) + 1
        if seen is None:
            _insert_positions(connection, deployment, {_CHANGES: changes})
        else:
            connection.execute(sa.update(_positions).where(where).values(rows=changes, changed=now()))
        return changes

    def read(self, deployment: str, keys: Sequence[Key]) -> list[Stored]:
        """Return those of some blocks that are there."""
        found: list[Stored] = []
        with self._ledger.reading() as connection:
            for at in range(0, len(keys), _TOGETHER):
                some = keys[at : at + _TOGETHER]
                named = sa.tuple_(_blocks.c.version, _blocks.c.span_s, _blocks.c.start_us).in_(some)
                query = sa.select(_blocks).where((_blocks.c.deployment == deployment) & named)
                found += [_stored(row) for row in connection.execute(query)]
        return found

    def within(self, deployment: str, pieces: Sequence[Piece], version: int | None = None) -> list[Stored]:
        """Return the blocks of some spans, by version and start; of all versions or of one."""
        if not pieces:
            return []
        with self._ledger.reading() as connection:
            return [
                _stored(row)
                for row in connection.execute(self._query(sa.select(_blocks), deployment, pieces, version))
            ]

    def rows(self, deployment: str, pieces: Sequence[Piece]) -> list[tuple[Key, int]]:
        """Return how many rows the blocks of some spans have, without reading these."""
        if not pieces:
            return []
        columns = sa.select(_blocks.c.version, _blocks.c.span_s, _blocks.c.start_us, _blocks.c.rows)
        with self._ledger.reading() as connection:
            found = connection.execute(self._query(columns, deployment, pieces, None))
            return [(Key(row.version, row.span_s, row.start_us), int(row.rows)) for row in found]

    def _query(self, columns: Any, deployment: str, pieces: Sequence[Piece], version: int | None) -> Any:
        spans = [
            (_blocks.c.span_s == piece.span_s)
            & (_blocks.c.start_us >= piece.start_us)
            & (_blocks.c.start_us < piece.end_us)
            for piece in pieces
        ]
        where = [_blocks.c.deployment == deployment, sa.or_(*spans)]
        where += [_blocks.c.version == version] if version is not None else []
        return columns.where(*where).order_by(_blocks.c.version, _blocks.c.start_us, _blocks.c.span_s)

    def totals(self, span_s: int) -> dict[tuple[str, int], int]:
        """Return how many rows each deployment and version has in all spans of one length."""
        query = (
            sa.select(_blocks.c.deployment, _blocks.c.version, sa.func.sum(_blocks.c.rows))
            .where(_blocks.c.span_s == span_s)
            .group_by(_blocks.c.deployment, _blocks.c.version)
        )
        with self._ledger.reading() as connection:
            return {(row[0], row[1]): int(row[2]) for row in connection.execute(query)}

    def samples(self, deployment: str) -> list[Stored]:
        """Return one block of each version, to see whether its bins are still those of the version."""
        newest = (
            sa.select(_blocks.c.version, sa.func.max(_blocks.c.start_us).label("start_us"))
            .where((_blocks.c.deployment == deployment) & (_blocks.c.span_s == 86400))
            .group_by(_blocks.c.version)
            .subquery()
        )
        query = sa.select(_blocks).join(
            newest, (_blocks.c.version == newest.c.version) & (_blocks.c.start_us == newest.c.start_us)
        )
        with self._ledger.reading() as connection:
            found = connection.execute(
                query.where((_blocks.c.deployment == deployment) & (_blocks.c.span_s == 86400))
            )
            return [_stored(row) for row in found]

    def changes(self) -> dict[str, int]:
        """Return the deployments of which anything is counted, or to be counted, and how often that was changed."""
        query = sa.select(_positions.c.deployment, _positions.c.rows).where(_positions.c.stem == _CHANGES)
        with self._ledger.reading() as connection:
            return {row[0]: int(row[1]) for row in connection.execute(query)}

    def drop(self, span_s: int, before_us: int, deployment: str | None = None, most: int = 1000) -> int:
        """Delete at most so many blocks of one length that start before a moment, oldest first, and return how many."""
        where = [_blocks.c.span_s == span_s, _blocks.c.start_us < before_us]
        where += [_blocks.c.deployment == deployment] if deployment is not None else []
        keys = [_blocks.c.deployment, _blocks.c.version, _blocks.c.start_us]
        with self._ledger.reading() as connection:
            gone = connection.execute(
                sa.select(*keys).where(*where).order_by(_blocks.c.start_us).limit(most)
            ).all()
        if not gone:
            return 0
        with self._ledger.writing() as connection:
            rows = [{"d": row[0], "v": row[1], "s": span_s, "t": row[2]} for row in gone]
            connection.execute(_DELETE_BLOCK, rows)
        return len(gone)

    def forget_files(self, deployment: str, stems: Sequence[str]) -> list[str]:
        """Drop the positions of those of some files that nothing was counted of for long, and return which."""
        dropped: list[str] = []
        for at in range(0, len(stems), _TOGETHER):
            gone = (
                (_positions.c.deployment == deployment)
                & _positions.c.stem.in_(stems[at : at + _TOGETHER])
                & (_positions.c.changed < now() - _REMEMBERED)
            )
            with self._ledger.writing() as connection:
                dropped += connection.execute(sa.select(_positions.c.stem).where(gone)).scalars()
                connection.execute(sa.delete(_positions).where(gone))
        return dropped


_DELETE_BLOCK = sa.delete(_blocks).where(
    (_blocks.c.deployment == sa.bindparam("d"))
    & (_blocks.c.version == sa.bindparam("v"))
    & (_blocks.c.span_s == sa.bindparam("s"))
    & (_blocks.c.start_us == sa.bindparam("t"))
)
_DELETE_POSITION = sa.delete(_positions).where(
    (_positions.c.deployment == sa.bindparam("d")) & (_positions.c.stem == sa.bindparam("f"))
)


def _insert_positions(connection: sa.Connection, deployment: str, rows: Mapping[str, int]) -> None:
    at: datetime = now()
    if rows:
        connection.execute(
            sa.insert(_positions),
            [{"deployment": deployment, "stem": stem, "rows": n, "changed": at} for stem, n in rows.items()],
        )


def _row(deployment: str, stored: Stored) -> dict[str, Any]:
    return {"deployment": deployment, **stored.key._asdict(), "rows": stored.rows, "data": stored.data}


def _stored(row: Any) -> Stored:
    return Stored(Key(row.version, row.span_s, row.start_us), int(row.rows), bytes(row.data))
