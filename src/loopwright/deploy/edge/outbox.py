"""What a device has answered, kept until it is handed over: an SQLite file, with the standard library alone.

    from outbox import Outbox
    from predict import Predictor
    predictor = Predictor("bundle", outbox=Outbox("answers.db", device="pump-7"))

On the command line, to hand over what is in it, and to drop it when that has arrived:

    python outbox.py export answers.db answers.jsonl
    python outbox.py drop answers.db answers.jsonl
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)  # noqa: UP017  # devices may have an older Python
_TABLES = """
create table if not exists facts (name text primary key, value text not null);
create table if not exists answers (seq integer primary key autoincrement, at_us integer not null, body text not null);
"""


class Outbox:
    """Answers waiting to be handed over. Thread-safe; a process that is killed, or a power cut, loses none that was added.

    Parameters
    ----------
    path
        The file, made on first use.
    device
        What the device is called; told with each answer.
    most
        So many answers are kept at most: the oldest are dropped, and counted in `dropped`.
    """

    def __init__(self, path: str | Path, device: str = "", most: int = 1_000_000) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma synchronous = full")
        self._connection.executescript(_TABLES)
        # Numbers begin at 1 again in a new file: its own name keeps them apart from those of an earlier one.
        self._connection.execute("insert or ignore into facts values ('outbox', ?)", (uuid.uuid4().hex,))
        if device:
            self._connection.execute("insert or replace into facts values ('device', ?)", (device,))

    def add(
        self,
        bundle: dict[str, Any],
        rows: list[dict[str, Any]],
        answers: list[dict[str, Any]],
        *,
        latency_ms: float = 0.0,
        at_us: int | None = None,
    ) -> None:
        """Keep the answers to some rows, all or none; they are on the disk when this returns.

        Parameters
        ----------
        bundle
            Which model answered: `model`, `version`, `digest` and `deployment`, as the manifest has them.
        rows, answers
            The model's inputs, and what `Predictor.predict` returned for them.
        at_us
            When, in microseconds since 1970 UTC; else now.
        """
        at_us = time.time_ns() // 1000 if at_us is None else at_us
        bodies = [
            (at_us, json.dumps(bundle | answer | {"latency_ms": latency_ms, "inputs": row}, default=_plain))
            for row, answer in zip(rows, answers, strict=True)
        ]
        with self._lock:
            self._connection.execute("begin immediate")
            try:
                self._connection.executemany("insert into answers (at_us, body) values (?, ?)", bodies)
                self._make_room()
            except BaseException:
                self._connection.execute("rollback")
                raise
            self._connection.execute("commit")

    def _make_room(self) -> None:
        (last,) = self._connection.execute("select max(seq) from answers").fetchone()
        gone = self._connection.execute(
            "delete from answers where seq <= ?", ((last or 0) - self._most,)
        ).rowcount
        if gone:
            self._connection.execute(
                "insert or replace into facts values ('dropped', ?)", (str(self.dropped + gone),)
            )

    def _fact(self, name: str) -> str:
        found = self._connection.execute("select value from facts where name = ?", (name,)).fetchone()
        return found[0] if found else ""

    @property
    def dropped(self) -> int:
        """How many answers were dropped because there was no room."""
        return int(self._fact("dropped") or 0)

    def __len__(self) -> int:
        return int(self._connection.execute("select count(*) from answers").fetchone()[0])

    def export(self, path: str | Path) -> int:
        """Write all answers to a file, one JSON object per line, and return how many; the outbox keeps them."""
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        written = 0
        with temporary.open("w", encoding="utf-8") as file:
            for line in lines(self._connection):
                file.write(line + "\n")
                written += 1
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        return written

    def drop(self, path: str | Path) -> int:
        """Delete the answers that an exported file has, when it has arrived, and return how many."""
        own = self._fact("outbox")
        with Path(path).open(encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
        found = [line["seq"] for line in lines if line.get("outbox") == own]
        with self._lock:
            return self._connection.execute(
                "delete from answers where seq between ? and ?",
                (min(found, default=1), max(found, default=0)),
            ).rowcount

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def lines(connection: sqlite3.Connection) -> Iterator[str]:
    """Yield the answers in an outbox, each as one JSON object; also of one that is only read."""
    facts = dict(connection.execute("select name, value from facts"))
    for seq, at_us, body in connection.execute("select seq, at_us, body from answers order by seq"):
        at = (_EPOCH + timedelta(microseconds=at_us)).isoformat()
        told = {"seq": seq, "at": at, "outbox": facts["outbox"], "device": facts.get("device", "")}
        yield json.dumps(told | json.loads(body))


def _plain(value: Any) -> Any:
    """Return a value that JSON has no word for, such as one of NumPy's numbers or a time, as one that it has."""
    return (
        value.item()
        if hasattr(value, "item")
        else value.isoformat()
        if hasattr(value, "isoformat")
        else str(value)
    )


def main() -> int:
    """Export or drop, as the command line says."""
    if len(sys.argv) != 4 or sys.argv[1] not in {"export", "drop"}:
        print("usage: python outbox.py export|drop answers.db answers.jsonl", file=sys.stderr)  # noqa: T201
        return 2
    if not Path(sys.argv[2]).is_file():
        print(f"there is no {sys.argv[2]}", file=sys.stderr)  # noqa: T201
        return 1
    outbox = Outbox(sys.argv[2])
    if sys.argv[1] == "export":
        print(f"{outbox.export(sys.argv[3])} answers written to {sys.argv[3]}")  # noqa: T201
        if outbox.dropped:
            print(f"{outbox.dropped} older ones were dropped before: there was no room", file=sys.stderr)  # noqa: T201
    else:
        print(f"{outbox.drop(sys.argv[3])} answers dropped")  # noqa: T201
    outbox.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
