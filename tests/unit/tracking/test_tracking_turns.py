"""Threads that write to one SQLite file do so in the order in which they come."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from loopwright.tracking import sqlite
from loopwright.tracking.turns import Turns

INSERT = sa.text("INSERT INTO numbers VALUES (:n)")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    """Return an engine with our settings and a table of unique numbers."""
    made = sa.create_engine(f"sqlite:///{tmp_path / 'store.db'}")
    sqlite.tune(made)
    with made.begin() as connection:
        connection.execute(sa.text("CREATE TABLE numbers (n INTEGER UNIQUE)"))
    yield made
    made.dispose()


def insert(engine: sa.Engine, number: int) -> None:
    """Write one number in a transaction of its own."""
    with engine.begin() as connection:
        connection.execute(INSERT, {"n": number})


def numbers(engine: sa.Engine) -> list[int]:
    """Return what was written, in its order."""
    with engine.connect() as connection:
        return list(connection.execute(sa.text("SELECT n FROM numbers ORDER BY rowid")).scalars())


def test_who_comes_first_writes_first(engine: sa.Engine) -> None:
    """Ten writers wait for one long transaction and follow in their order; reading waits for nobody."""
    threads = [threading.Thread(target=insert, args=(engine, number)) for number in range(1, 11)]
    with engine.begin() as connection:
        connection.execute(INSERT, {"n": 0})
        for thread in threads:
            thread.start()
            time.sleep(0.02)
        assert numbers(engine) == []
    for thread in threads:
        thread.join(10)
    assert numbers(engine) == list(range(11))


def test_a_transaction_that_fails_passes_the_turn_on(engine: sa.Engine) -> None:
    """An error ends the turn as a commit does."""
    insert(engine, 1)
    with pytest.raises(sa.exc.IntegrityError):
        insert(engine, 1)
    other = threading.Thread(target=insert, args=(engine, 2))
    other.start()
    other.join(5)
    assert numbers(engine) == [1, 2]


def test_a_thread_does_not_wait_for_itself(engine: sa.Engine) -> None:
    """With one connection still in hand, a second one of the same thread writes at once."""
    with engine.connect() as first:
        first.execute(INSERT, {"n": 1})
        first.commit()
        started = time.monotonic()
        insert(engine, 2)
        assert time.monotonic() - started < 5
    assert numbers(engine) == [1, 2]


def test_patience_ends() -> None:
    """Who is never given the turn goes on without it, and leaves the queue."""
    turns = Turns(patience_s=0.05)
    assert turns.take()
    assert not turns.take(), "this thread has it"
    got: list[bool] = []
    other = threading.Thread(target=lambda: got.append(turns.take()))
    other.start()
    other.join(5)
    assert got == [False]
    turns.give()
    late = threading.Thread(target=lambda: got.append(turns.take()))
    late.start()
    late.join(5)
    assert got == [False, True]
