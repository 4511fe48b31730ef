"""The SQLite channel: positions and results in one transaction, safe between threads and processes."""

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from loopwright.deploy.stream.base import Address
from loopwright.deploy.stream.sqlite import SqliteChannel
from loopwright.errors import Conflict, Damaged, Denied


def channel(folder: Path, group: str = "g", sink_file: str = "s.db") -> SqliteChannel:
    """Open a channel from topic `in` to topic `out`."""
    return SqliteChannel(
        Address("sqlite", str(folder / "s.db"), "in"),
        Address("sqlite", str(folder / sink_file), "out"),
        group=group,
    )


def topic(folder: Path, name: str, file: str = "s.db") -> list[tuple[int, str, bytes]]:
    """Return all messages of a topic."""
    with sqlite3.connect(folder / file) as connection:
        return connection.execute(
            "SELECT off, key, value FROM log WHERE topic = ? ORDER BY off", (name,)
        ).fetchall()


def test_messages_are_read_in_order_until_they_are_committed(tmp_path: Path) -> None:
    """Reading again gives the same messages; a commit moves behind them and writes the results."""
    it = channel(tmp_path)
    it.publish([(str(number), b"%d" % number) for number in range(5)])
    first = it.read(3, 0)
    assert [message.key for message in first.messages] == ["0", "1", "2"]
    assert it.read(3, 0).messages == first.messages
    assert it.lag() == 5
    it.commit(first, [("r0", b"x"), ("r1", b"y")])
    assert [message.value for message in it.read(9, 0).messages] == [b"3", b"4"]
    assert it.lag() == 2
    assert it.counts() == (2, 0)
    assert topic(tmp_path, "out") == [(1, "r0", b"x"), (2, "r1", b"y")]


def test_message_ids_are_the_same_after_a_restart_and_never_come_twice(tmp_path: Path) -> None:
    """Two messages with one key have two ids; a new reader sees the same ids."""
    it = channel(tmp_path)
    it.publish([("a", b"1"), ("a", b"1")])
    ids = [message.id for message in it.read(9, 0).messages]
    it.close()
    assert len(set(ids)) == 2
    assert [message.id for message in channel(tmp_path).read(9, 0).messages] == ids


def test_each_group_reads_everything(tmp_path: Path) -> None:
    """One group's position does not move another's."""
    one, other = channel(tmp_path, "one"), channel(tmp_path, "other")
    one.publish([("a", b"1")])
    one.commit(one.read(9, 0), [])
    assert one.lag() == 0
    assert len(other.read(9, 0).messages) == 1


def test_a_second_reader_of_a_group_cannot_commit_the_same_messages(tmp_path: Path) -> None:
    """The later commit is refused as a whole: no result is written twice."""
    one, other = channel(tmp_path), channel(tmp_path)
    one.publish([("a", b"1")])
    mine, theirs = one.read(9, 0), other.read(9, 0)
    one.commit(mine, [("r", b"1")])
    with pytest.raises(Conflict, match="moved on"):
        other.commit(theirs, [("r", b"1")])
    assert len(topic(tmp_path, "out")) == 1


def test_results_and_position_go_together_into_the_file_of_the_sink(tmp_path: Path) -> None:
    """With the sink in another file the source's file is only read."""
    it = channel(tmp_path, sink_file="t.db")
    it.publish([("a", b"1")])
    it.commit(it.read(9, 0), [("r", b"1")])
    assert topic(tmp_path, "out", "t.db") == [(1, "r", b"1")]
    with sqlite3.connect(tmp_path / "s.db") as connection:
        assert connection.execute("SELECT COUNT(*) FROM pos").fetchone() == (0,)
    assert channel(tmp_path, sink_file="t.db").lag() == 0


def test_a_log_that_is_made_anew_is_read_from_its_start(tmp_path: Path) -> None:
    """The position of a deleted file does not hide the messages of a new one."""
    it = channel(tmp_path, sink_file="t.db")
    it.publish([("a", b"1")])
    it.commit(it.read(9, 0), [])
    it.close()
    for path in tmp_path.glob("s.db*"):
        path.unlink()
    anew = channel(tmp_path, sink_file="t.db")
    anew.publish([("b", b"2")])
    assert [message.key for message in anew.read(9, 0).messages] == ["b"]


def test_a_message_put_aside_twice_is_there_once(tmp_path: Path) -> None:
    """Putting aside is repeatable, because a crash may come between it and the commit."""
    it = channel(tmp_path)
    it.publish([("a", b"?")])
    batch = it.read(9, 0)
    it.dead(batch.messages[0], "no JSON")
    it.dead(batch.messages[0], "no JSON")
    assert it.counts() == (0, 1)
    with sqlite3.connect(tmp_path / "s.db") as connection:
        assert connection.execute("SELECT key, value, error FROM dead").fetchall() == [("a", b"?", "no JSON")]


def test_readers_that_die_at_one_position_are_counted_and_those_that_end_well_are_not(tmp_path: Path) -> None:
    """`starts` rises with each reader that read and neither committed nor closed, and is 1 after one that ended well."""
    channel(tmp_path).publish([("a", b"1")])
    abandoned = [channel(tmp_path) for _ in range(3)]
    assert [it.read(9, 0).starts for it in abandoned] == [1, 2, 3]
    last = channel(tmp_path)
    batch = last.read(9, 0)
    assert batch.starts == 4
    last.commit(batch, [])
    last.publish([("b", b"2")])
    assert last.read(9, 0).starts == 1
    # Whoever comes after a reader that was killed is told, and after one that committed all and closed is not.
    heir = channel(tmp_path)
    batch = heir.read(9, 0)
    assert batch.starts == 2
    heir.commit(batch, [])
    heir.close()
    idle = channel(tmp_path)
    assert idle.read(9, 0).messages == ()
    idle.publish([("c", b"3")])
    assert channel(tmp_path).read(9, 0).starts == 1


def test_reading_waits_for_a_full_batch_or_the_time(tmp_path: Path) -> None:
    """A message that comes while a reader waits is in its batch."""
    it = channel(tmp_path)
    assert it.read(1, 0.01).messages == ()
    sender = threading.Timer(0.05, lambda: channel(tmp_path).publish([("a", b"1")]))
    sender.start()
    assert len(it.read(1, 10).messages) == 1
    sender.join()


def test_many_processes_publish_into_one_topic(tmp_path: Path) -> None:
    """Four processes open a new file at once and publish: every message is there, in one numbering."""
    code = (
        "import sys; from loopwright.deploy.stream.base import Address;"
        "from loopwright.deploy.stream.sqlite import SqliteChannel;"
        "it = SqliteChannel(Address('sqlite', sys.argv[1], 'in'));"
        "[it.publish([(f'{sys.argv[2]}-{n}', b'1')]) for n in range(50)]"
    )
    file = str(tmp_path / "s.db")
    running = [subprocess.Popen([sys.executable, "-c", code, file, str(number)]) for number in range(4)]
    assert [process.wait(60) for process in running] == [0] * 4
    found = topic(tmp_path, "in")
    assert [off for off, _, _ in found] == list(range(1, 201))
    assert len({key for _, key, _ in found}) == 200


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    """A broken file and a place that cannot be written to give errors that name it."""
    (tmp_path / "s.db").write_bytes(b"this is no database, certainly not" * 100)
    with pytest.raises(Damaged, match=r"s\.db"):
        channel(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(Denied, match=r"file"):
        channel(tmp_path / "file")
