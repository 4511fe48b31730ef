"""Turns to write to a SQLite file, for the threads of one process: first come, first served.

SQLite itself has no queue. Who finds the file locked looks again at growing intervals of up to a tenth of a second, and who
looks at the right moment is next: of eight that write all the time, one waits for more than a second.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import Any

__all__ = ["Turns", "queue_writers"]

_WRITES = ("INSERT", "UPDATE", "DELETE", "REPLACE")
_TURN = "loopwright_turn"


class Turns:
    """Whose turn it is to write to one file.

    Parameters
    ----------
    patience_s
        Who has waited so long goes on without the turn; SQLite's own lock decides then.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._holder = 0
        self._waiting: deque[tuple[int, threading.Event]] = deque()

    def take(self) -> bool:
        """Wait for the turn; False when this thread has it already or its patience has ended."""
        thread = threading.get_ident()
        with self._lock:
            if self._holder == thread:
                return False
            if not self._holder:
                self._holder = thread
                return True
            mine = (thread, threading.Event())
            self._waiting.append(mine)
        if mine[1].wait(self._patience_s):
            return True
        with self._lock:
            if mine[1].is_set():  # it came in this moment
                return True
            self._waiting.remove(mine)
        return False

    def give(self) -> None:
        """Pass the turn on to who has waited longest."""
        with self._lock:
            self._holder = 0
            if self._waiting:
                self._holder, theirs = self._waiting.popleft()
                theirs.set()


_turns: dict[str, Turns] = {}
os.register_at_fork(after_in_child=_turns.clear)


def queue_writers(engine: Any, patience_s: float) -> None:
    """Have the writers of an SQLAlchemy engine, or of all engines when it is the class, take turns for each SQLite file.

    A turn begins before the first statement that writes and ends when the connection goes back to its pool, where no
    transaction is open any more.
    """
    from sqlalchemy import event

    def take(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        raw = connection.connection.dbapi_connection
        if not type(raw).__module__.startswith("sqlite3") or raw.in_transaction:
            return
        record = connection.connection.record_info
        if _TURN in record or not statement.lstrip()[:7].upper().startswith(_WRITES):
            return
        turns = _turns.setdefault(str(connection.engine.url.database), Turns(patience_s))
        if turns.take():
            record[_TURN] = turns

    def give(_raw: Any, record: Any) -> None:
        if turns := record.record_info.pop(_TURN, None):
            turns.give()

    event.listen(engine, "before_cursor_execute", take)
    event.listen(engine, "checkin", give)
