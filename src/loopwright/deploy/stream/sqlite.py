"""The channel that needs no server: a log of messages in a SQLite file.

Many processes may publish and read at once on one machine; writers take turns. Measured with a light model in batches
of 256: 160,000 messages a second. Not for network file systems. Messages are kept; a topic grows until its file is
deleted.
"""

from __future__ import annotations

import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from loopwright.deploy.stream.base import Address, Batch, Message
from loopwright.errors import Conflict, Damaged, Denied, Unavailable

__all__ = ["SqliteChannel"]

#: Milliseconds a writer waits for its turn.
BUSY_MS = 30_000
_POLL_S = 0.005
_IDLE_POLL_S = 0.02
_SCHEMA = """
CREATE TABLE IF NOT EXISTS log (
    topic TEXT NOT NULL, off INTEGER NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (topic, off)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pos (
    "group" TEXT NOT NULL, topic TEXT NOT NULL, off INTEGER NOT NULL, starts INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY ("group", topic)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dead (
    "group" TEXT NOT NULL, message TEXT NOT NULL, at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    key TEXT NOT NULL, value BLOB NOT NULL, error TEXT NOT NULL, PRIMARY KEY ("group", message)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS self (id TEXT NOT NULL);
"""


class SqliteChannel:
    """A topic of a SQLite file, and the topic for results in the same file or in another one.

    Results, position and messages put aside all lie in the *sink's* file, so that one transaction holds them wherever
    the source is; of the source's file a reader only reads. Safe to share between threads.

    Parameters
    ----------
    source, sink
        Where messages come from and results go. Without a sink the channel only publishes, reads and counts.
    group
        The readers that share one position: a deployment's name.
    synced
        Whether every commit is synced to the disk: a power cut then loses nothing, and a killed process never does.
    """

    def __init__(
        self, source: Address, sink: Address | None = None, *, group: str = "", synced: bool = False
    ) -> None:
        self._source, self._sink, self._group = source, sink or source, group
        self._lock = threading.RLock()
        self._synced = synced
        self._read_from = self._open(Path(source.place))
        same = self._sink.place == source.place
        try:
            self._write_to = self._read_from if same else self._open(Path(self._sink.place))
        except BaseException:
            self._read_from.close()
            raise
        with self._errors():
            log_id = self._read_from.execute("SELECT id FROM self").fetchone()[0]
        # A position belongs to one log: when the file is deleted and made anew, its messages are new ones.
        self._topic = f"{log_id}/{source.topic}"
        # Counted with the first messages read, so that readers killed while nothing waited do not count.
        self._starts = 0
        self._pending = False

    def _open(self, path: Path) -> sqlite3.Connection:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False
            )
        except (sqlite3.Error, OSError) as error:
            raise _translated(error, path) from error
        try:
            _prepare(connection, synced=self._synced)
        except sqlite3.Error as error:
            connection.close()
            raise _translated(error, path) from error
        return connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise _translated(error, Path(self._sink.place)) from error

    def _count_start(self) -> int:
        """Add one to the starts at the present position and return how many there were, this one included."""
        with _transaction(self._write_to):
            self._write_to.execute(
                'INSERT INTO pos ("group", topic, off, starts) VALUES (?, ?, 0, 1) '
                'ON CONFLICT ("group", topic) DO UPDATE SET starts = starts + 1',
                (self._group, self._topic),
            )
            found = self._write_to.execute(
                'SELECT starts FROM pos WHERE "group" = ? AND topic = ?', (self._group, self._topic)
            )
            return int(found.fetchone()[0])

    def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Add messages, given as (key, value), to the source in one transaction."""
        with self._errors(), _transaction(self._read_from):
            _append(self._read_from, self._source.topic, messages)

    def read(self, max_n: int, max_wait_s: float) -> Batch:
        """Return the next messages after the committed position; see `Channel.read`."""
        until = time.monotonic() + max_wait_s
        with self._errors():
            start = self._position()
        while (last := self._last()) < start + max_n and (rest := until - time.monotonic()) > 0:
            # Once something is there, look often: a batch should not wait longer than it takes to fill.
            time.sleep(min(_POLL_S if last > start else _IDLE_POLL_S, rest))
        with self._errors():
            rows = self._read_from.execute(
                "SELECT off, key, value FROM log WHERE topic = ? AND off > ? ORDER BY off LIMIT ?",
                (self._source.topic, start, max_n),
            ).fetchall()
            if rows and not self._starts and self._group:
                self._starts = self._count_start()
            self._pending = self._pending or bool(rows)
        messages = tuple(Message(f"{self._topic}/{off}", key, bytes(value)) for off, key, value in rows)
        return Batch(messages, (start, rows[-1][0] if rows else start), max(1, self._starts))

    def _position(self) -> int:
        found = self._write_to.execute(
            'SELECT off FROM pos WHERE "group" = ? AND topic = ?', (self._group, self._topic)
        ).fetchone()
        return int(found[0]) if found else 0

    def _last(self) -> int:
        with self._errors():
            found = self._read_from.execute(
                "SELECT MAX(off) FROM log WHERE topic = ?", (self._source.topic,)
            ).fetchone()
            return int(found[0] or 0)

    def commit(self, batch: Batch, outputs: Sequence[tuple[str, bytes]]) -> None:
        """Write results and move behind the batch in one transaction; see `Channel.commit`."""
        start, end = batch.position
        with self._errors(), _transaction(self._write_to):
            moved = self._write_to.execute(
                'UPDATE pos SET off = ?, starts = 1 WHERE "group" = ? AND topic = ? AND off = ?',
                (end, self._group, self._topic, start),
            )
            if moved.rowcount != 1:
                raise Conflict(
                    f"Another reader of {self._group!r} has moved on from {start} in {self._source}.",
                    hint="read again; only one reader of a group should run",
                )
            _append(self._write_to, self._sink.topic, outputs)
        self._starts, self._pending = 1, False

    def dead(self, message: Message, error: str) -> None:
        """Put a message aside, once, with the reason."""
        with self._errors(), _transaction(self._write_to):
            self._write_to.execute(
                'INSERT OR IGNORE INTO dead ("group", message, key, value, error) VALUES (?, ?, ?, ?, ?)',
                (self._group, message.id, message.key, message.value, error),
            )

    def lag(self) -> int:
        """Return how many messages wait behind the committed position."""
        with self._errors():
            return max(0, self._last() - self._position())

    def counts(self) -> tuple[int, int]:
        """Return how many results the sink's topic holds, and how many messages of the group are put aside."""
        with self._errors():
            answered = self._write_to.execute(
                "SELECT COUNT(*) FROM log WHERE topic = ?", (self._sink.topic,)
            ).fetchone()
            dead = self._write_to.execute(
                'SELECT COUNT(*) FROM dead WHERE "group" = ?', (self._group,)
            ).fetchone()
        return int(answered[0]), int(dead[0])

    def close(self) -> None:
        """Close the connections; the next reader learns that this one left nothing half done."""
        with self._errors():
            if self._starts and not self._pending:
                self._write_to.execute(
                    'UPDATE pos SET starts = 0 WHERE "group" = ? AND topic = ?', (self._group, self._topic)
                )
            self._write_to.close()
            self._read_from.close()


def _prepare(connection: sqlite3.Connection, *, synced: bool) -> None:
    """Set a connection up, and make the tables in a new file."""
    _use_wal(connection)
    connection.execute(f"PRAGMA synchronous={'FULL' if synced else 'NORMAL'}")
    with _transaction(connection):
        for statement in filter(str.strip, _SCHEMA.split(";")):
            connection.execute(statement)
        if not connection.execute("SELECT 1 FROM self").fetchone():
            connection.execute("INSERT INTO self VALUES (?)", (uuid.uuid4().hex,))


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch the file to WAL. This once SQLite does not wait its turn when several processes open a new file."""
    until = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(_POLL_S)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Hold the write lock from the start, so that two writers wait for each other instead of failing half-way."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _append(connection: sqlite3.Connection, topic: str, messages: Sequence[tuple[str, bytes]]) -> None:
    last = connection.execute("SELECT MAX(off) FROM log WHERE topic = ?", (topic,)).fetchone()[0] or 0
    connection.executemany(
        "INSERT INTO log (topic, off, key, value) VALUES (?, ?, ?, ?)",
        [(topic, last + number, key, value) for number, (key, value) in enumerate(messages, 1)],
    )


def _translated(error: sqlite3.Error | OSError, path: Path) -> Denied | Damaged | Unavailable:
    text = str(error)
    if "readonly" in text or "unable to open" in text or isinstance(error, OSError):
        return Denied(f"The channel {path} cannot be opened: {text}.", hint=f"ls -ld {path.parent}")
    if "malformed" in text or "not a database" in text:
        return Damaged(
            f"The channel {path} is no SQLite database: {text}.", hint="move it away; a new one is made"
        )
    return Unavailable(f"The channel {path} does not answer: {text}.", hint="try again")
