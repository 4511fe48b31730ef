"""What MLflow's SQLite store needs and MLflow does not set: made once, settings of a connection, statistics."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from loopwright.tracking import schema
from loopwright.tracking.turns import queue_writers

__all__ = ["analyze", "locked", "path_of", "prepare", "tune"]

#: How long a writer waits for its turn.
_BUSY_S = 20.0
_MAKE_S = 300.0


def path_of(url: str) -> Path | None:
    """Return the file of a ``sqlite:///`` address, or None for another store or one in memory."""
    if not url.startswith("sqlite:///"):
        return None
    name = url.removeprefix("sqlite:///").partition("?")[0]
    return Path(name) if name and name != ":memory:" else None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes from making or migrating the store at this path meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock"), timeout=_MAKE_S):
        yield


def prepare(path: Path) -> None:
    """Create MLflow's tables, or migrate them to this MLflow's, once for all processes that open it; then `analyze`.

    A new store gets its name when it is complete: MLflow does not recover from one whose making was interrupted.
    One that is migrated is copied first, to a file beside it that is named by its old revision.
    """
    from mlflow.store.db.utils import create_sqlalchemy_engine_with_retry

    with locked(path):
        new = path.with_name(f"{path.name}.new")
        made = path if path.exists() and path.stat().st_size else new
        for left in new.parent.glob(f"{new.name}*"):
            left.unlink()
        engine = create_sqlalchemy_engine_with_retry(f"sqlite:///{made}")
        try:
            schema.make(engine, lambda found: _copy(path, path.with_name(f"{path.name}.{found}")))
        finally:
            engine.dispose()
        with contextlib.closing(sqlite3.connect(made, timeout=_BUSY_S)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        if made is new:
            new.replace(path)
        analyze(path)


def _copy(path: Path, target: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(path, timeout=_BUSY_S)) as source,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        source.backup(copy)


def tune(engine: Any) -> None:
    """Set on each new SQLite connection of an SQLAlchemy engine, or of the class `Engine`, what a store needs.

    Threads of this process then write one after the other, in the order in which they come.
    """
    from sqlalchemy import event

    event.listen(engine, "connect", _settle)
    queue_writers(engine, _BUSY_S)


def _settle(connection: Any, _record: Any) -> None:
    if not type(connection).__module__.startswith("sqlite3"):
        return
    # Sync once per checkpoint, which is safe in WAL mode.
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute(f"PRAGMA busy_timeout={_BUSY_S * 1000:.0f}")
    # Take the write lock before the first write: a transaction that waits cannot fail half-way.
    connection.isolation_level = "IMMEDIATE"


def analyze(path: Path) -> bool:
    """Count the rows behind MLflow's indexes, if the store has doubled since they were counted last.

    Without, the best of 10,000 runs by a metric takes a hundred times as long. Asking whether costs microseconds, so
    it may be called often. Connections that are open keep their old counts.

    Returns
    -------
    bool
        Whether they were counted.
    """
    with contextlib.closing(sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)) as connection:
        now = connection.execute("SELECT coalesce(max(rowid), 0) FROM runs").fetchone()[0]
        try:
            found = connection.execute("SELECT stat FROM sqlite_stat1 WHERE tbl = 'runs'").fetchone()
        except sqlite3.OperationalError:  # never counted: there is no such table
            found = None
        before = int(found[0].split()[0]) if found else -1
        if found and now <= 2 * before + 10:
            return False
        connection.execute("ANALYZE")
        return True
