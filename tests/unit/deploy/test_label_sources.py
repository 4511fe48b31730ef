"""Labels that come by themselves: each once, corrections too, bad rows counted, and a source that is down said."""

import json
import os
import sqlite3
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prediction_rows import FLOWERS, rows

from loopwright import plugins
from loopwright.config import Project
from loopwright.deploy.labels import LabelSources, SourceState, states, sync, tick
from loopwright.deploy.stream.base import parse
from loopwright.errors import Conflict, NotFound
from loopwright.ledger import Ledger
from loopwright.predictions import LabelLog, PredictionLog, PredictionStore
from loopwright.predictions.tail import lock
from loopwright.records import Label

START = datetime(2026, 3, 1, tzinfo=UTC)
TOPIC = "sqlite:///events.db?topic=outcomes"


class World:
    """A project with predictions of ten entities, and one label source called ``truth``."""

    def __init__(self, folder: Path, source: str) -> None:
        (folder / "loopwright.toml").write_text(
            '[model.iris]\ntarget = "species"\n[deployment.api]\nmodel = "iris"\nmode = "online"\n'
            f"[labels.truth]\n{source}\n"
        )
        self.project = Project(folder)
        self.ledger = Ledger.open(self.project, actor="test")
        self.store = PredictionStore(self.project)
        log = PredictionLog(self.project, "api", "iris", FLOWERS)
        batch = rows(
            self.project,
            10,
            at_us=round(START.timestamp() * 1e6),
            entity=[f"00{number}" for number in range(10)],
        )
        log.append(batch)
        log.close()
        self.ids = batch.prediction_id

    def sync(self) -> SourceState:
        """Read the source."""
        return sync(self.project, self.ledger, "truth")

    def truths(self) -> list[Any]:
        """Return the label of each prediction."""
        table = self.store.table(columns=["prediction_id", "actual"])
        found = dict(zip(*(column.to_pylist() for column in table.columns), strict=True))
        return [found[one] for one in self.ids]

    def kept(self) -> int:
        """How many labels are in the log."""
        return int(self.store.query("select count(*) as n from labels").to_pylist()[0]["n"])

    def table(self, name: str, values: list[tuple[Any, ...]], columns: str) -> None:
        """Write a table of a database anew."""
        with sqlite3.connect(self.project.root / "shop.db") as connection:
            connection.execute(f"drop table if exists {name}")
            connection.execute(f"create table {name} ({columns})")
            marks = ", ".join("?" * (columns.count(",") + 1))
            connection.executemany(f"insert into {name} values ({marks})", values)
        connection.close()


def test_a_table_by_id_is_taken_once_and_corrections_again(tmp_path: Path) -> None:
    """What did not change is not appended; what did is, also back to what it was before."""
    world = World(tmp_path, 'source = "sqlite:///shop.db?table=t"\nid = "id"\nvalue = "v"')
    world.table("t", [(one, number % 3) for number, one in enumerate(world.ids[:5])], "id text, v integer")
    first = world.sync()
    assert (first.state, first.read, first.taken, first.refused) == ("ok", 5, 5, {})
    assert world.truths() == [0, 1, 2, 0, 1, *[None] * 5]
    assert world.sync().taken == 0
    for value in (2, 0, 2):
        world.table("t", [(world.ids[0], value), (world.ids[1], 1)], "id text, v integer")
        assert world.sync().taken == 1
        assert world.truths()[0] == value
        assert world.sync().taken == 0
    assert world.kept() == 8
    assert {label.source for label in world.store.labels_of(world.ids[0])} == {"truth"}


def test_what_somebody_corrected_by_hand_stays_until_the_source_says_something_new(tmp_path: Path) -> None:
    """The source still has the old value: it does not win by being read again."""
    world = World(tmp_path, 'source = "sqlite:///shop.db?table=t"\nid = "id"\nvalue = "v"')
    world.table("t", [(world.ids[0], 1)], "id text, v integer")
    world.sync()
    log = LabelLog(world.project)
    log.append([Label(world.ids[0], 2)])
    assert world.sync().taken == 0
    assert world.truths()[0] == 2
    world.table("t", [(world.ids[0], 0)], "id text, v integer")
    assert world.sync().taken == 1
    assert world.truths()[0] == 0
    log.close()


def test_of_several_rows_about_one_prediction_the_last_one_counts(tmp_path: Path) -> None:
    """A table that keeps its history settles: reading it again takes nothing."""
    world = World(tmp_path, 'source = "history.parquet"\nid = "id"\nvalue = "v"')
    table = pa.table({"id": [world.ids[0], world.ids[1], world.ids[0]], "v": [0, 1, 2]})
    pq.write_table(table, tmp_path / "history.parquet")
    assert world.sync().taken == 2
    assert world.truths()[:2] == [2, 1]
    assert world.sync().taken == 0


def test_a_csv_file_by_entity_keeps_names_as_they_are_written(tmp_path: Path) -> None:
    """``007`` is no 7; times have zones; a new moment of the same entity is a new label, a new value a correction."""
    world = World(
        tmp_path,
        'source = "sales.csv"\ndeployment = "api"\nentity = "shop"\nat = "day"\nvalue = "sold"\nwithin = "2h"',
    )
    lines = ["shop,day,sold,other", "001,2026-03-01T01:00:00Z,1,x", "007,2026-03-01T02:30:00+01:00,2,y"]
    (tmp_path / "sales.csv").write_text("\n".join([*lines, "008,2026-03-01T09:00:00Z,2,too late"]))
    assert world.sync().taken == 3
    assert world.truths() == [None, 1, *[None] * 5, 2, None, None]
    assert world.sync().taken == 0
    lines[1] = "001,2026-03-01T01:00:00Z,0,x"
    (tmp_path / "sales.csv").write_text("\n".join([*lines, "001,2026-03-01T01:30:00Z,2,z"]))
    assert world.sync().taken == 2
    assert world.truths()[1] == 2
    assert world.sync().taken == 0


def test_bad_rows_are_counted_and_stop_nothing(tmp_path: Path) -> None:
    """Without a value or id, of an unknown type, never given out, naive or to come: each with its reason and number."""
    world = World(
        tmp_path, 'source = "truth.parquet"\ndeployment = "api"\nentity = "e"\nat = "t"\nvalue = "v"'
    )
    good = START + timedelta(hours=1)
    later = datetime.now(UTC) + timedelta(days=3)
    rows_ = [
        ("001", good.isoformat(), "1"),
        (None, good.isoformat(), "1"),
        ("002", good.isoformat(), None),
        ("003", "2026-03-01T01:00:00", "1"),
        ("004", "yesterday", "1"),
        ("005", None, "1"),
        ("006", later.isoformat(), "1"),
        ("007", good.isoformat(), "2"),
    ]
    table = pa.table({name: [row[place] for row in rows_] for place, name in enumerate("etv")})
    pq.write_table(table, tmp_path / "truth.parquet")
    found = world.sync()
    assert (found.state, found.read, found.taken) == ("ok", 8, 2)
    assert found.refused == {
        "no entity": 1,
        "no value": 1,
        "a time without a zone": 1,
        "a time that cannot be read": 1,
        "no time": 1,
        "a time that is to come": 1,
    }
    assert [row for row, _ in found.examples] == [2, 3, 4, 5, 6, 7]
    assert states(world.project, world.ledger) == {"truth": found}
    # A list, a date, infinity, an id of another project.
    ids = World(tmp_path, 'source = "other.parquet"\nid = "id"\nvalue = "v"')
    pq.write_table(pa.table({"id": ids.ids[:2], "v": [[1], [2]]}), tmp_path / "other.parquet")
    assert ids.sync().refused == {"a value that is no number, text or boolean but a list": 2}
    wrong = ["f" * 32, ids.ids[1], ids.ids[2]]
    pq.write_table(
        pa.table({"id": wrong, "v": [1.0, float("inf"), float("nan")]}), tmp_path / "other.parquet"
    )
    assert ids.sync().refused == {
        "an id that this project never gave out": 1,
        "an infinite value": 1,
        "no value": 1,
    }


def test_a_source_that_is_down_is_said_and_asked_less_often(tmp_path: Path) -> None:
    """Each failure doubles the wait up to an hour; the first one and the recovery are events."""
    world = World(tmp_path, 'source = "truth.csv"\nid = "id"\nvalue = "v"\nevery = "1m"')
    at = datetime(2026, 6, 1, tzinfo=UTC)
    waits = []
    for _ in range(9):
        found = sync(world.project, world.ledger, "truth", at)
        assert (found.state, "There is no file" in found.reason) == ("down", True)
        waits.append((found.next - at).total_seconds() / 60)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    (tmp_path / "truth.csv").write_text(f"id,w\n{world.ids[0]},1\n")
    missing = sync(world.project, world.ledger, "truth", at)
    assert (missing.failures, "no column 'v'" in missing.reason) == (10, True)
    (tmp_path / "truth.csv").write_text(f"id,v\n{world.ids[0]},1\n")
    back = sync(world.project, world.ledger, "truth", at)
    assert (back.state, back.failures, back.next - at) == ("ok", 0, timedelta(minutes=1))
    assert len(world.ledger.events("labels.down", "truth")) == 1
    assert [event.payload for event in world.ledger.events("labels.up", "truth")] == [{"failures": 10}]
    with pytest.raises(NotFound, match="Did you mean 'truth'"):
        sync(world.project, world.ledger, "truht")


def test_only_one_process_reads_a_source_at_a_time(tmp_path: Path) -> None:
    """Two at once would both append what is new."""
    world = World(tmp_path, 'source = "truth.csv"\nid = "id"\nvalue = "v"')
    path = world.project.run / "labels-truth.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    other = os.open(path, os.O_RDWR | os.O_CREAT)
    assert lock(other)
    with pytest.raises(Conflict, match="being read by another process"):
        world.sync()
    assert tick(world.project, world.ledger, datetime.now(UTC)) == [
        "truth"
    ]  # in a process of its own, which is told
    os.close(other)
    assert world.sync().state == "down"


def publish(world: World, *messages: bytes) -> None:
    """Write messages into the topic."""
    address = parse(world.project, TOPIC)
    channel = plugins.load("channel", "sqlite")(address, None)
    channel.publish([("", message) for message in messages])
    channel.close()


def said(prediction_id: str, actual: Any, **more: Any) -> bytes:
    """Return a message."""
    return json.dumps({"id": prediction_id, "v": actual, **more}).encode()


def test_a_topic_is_taken_once_and_what_is_no_label_put_aside(tmp_path: Path) -> None:
    """Messages that are no JSON, no object, or lack a field do not hold up the others, and are kept."""
    world = World(tmp_path, f'source = "{TOPIC}"\nid = "id"\nvalue = "v"')
    bad = [b"\xff{", b"[1]", b'{"id": "x", "v": 1}', said(world.ids[3], None)]
    publish(world, said(world.ids[0], 1, more=2), *bad, said(world.ids[1], 2), said(world.ids[0], 0))
    found = world.sync()
    assert (found.read, found.taken) == (7, 3)
    assert found.refused == {"no value": 3, "an id that this project never gave out": 1}
    assert world.truths()[:3] == [0, 2, None]
    assert world.sync().read == 0
    publish(world, said(world.ids[2], 1))
    assert world.sync().taken == 1
    assert world.kept() == 4
    channel = plugins.load("channel", "sqlite")(parse(world.project, TOPIC), None, group="labels/truth")
    assert channel.counts()[1] == 4
    channel.close()


def test_a_topic_is_taken_once_though_the_process_dies_before_the_commit(tmp_path: Path) -> None:
    """What was appended and not committed is read again, and recognised."""
    world = World(tmp_path, f'source = "{TOPIC}"\nid = "id"\nvalue = "v"')
    publish(world, *(said(one, 1) for one in world.ids[:5]))
    dying = plugins.load("channel", "sqlite")(parse(world.project, TOPIC), None, group="labels/truth")
    batch = dying.read(100, 0.0)
    assert (len(batch.messages), batch.starts) == (5, 1)
    log = LabelLog(world.project)
    log.append([Label(one, 1) for one in world.ids[:3]], source="truth")
    log.close()
    del dying  # without a word, as when it is killed
    publish(world, said(world.ids[5], 2))
    assert world.sync().taken == 3
    assert world.truths()[:6] == [1, 1, 1, 1, 1, 2]
    assert world.kept() == 6


def test_what_is_due_is_read_and_nothing_else(tmp_path: Path) -> None:
    """Tables in a process of their own, topics here; then each waits for its time; one that crashes is down."""
    world = World(
        tmp_path,
        f'source = "truth.csv"\nid = "id"\nvalue = "v"\nevery = "1h"\n[labels.topic]\nsource = "{TOPIC}"\n'
        'id = "id"\nvalue = "v"\nevery = "1m"',
    )
    (tmp_path / "truth.csv").write_text(f"id,v\n{world.ids[0]},2\n")
    publish(world, said(world.ids[1], 1))
    now = datetime.now(UTC)
    assert tick(world.project, world.ledger, now) == ["truth", "topic"]
    assert world.truths()[:3] == [2, 1, None]
    assert tick(world.project, world.ledger, now + timedelta(seconds=30)) == []
    assert tick(world.project, world.ledger, now + timedelta(seconds=90)) == ["topic"]
    # The clock was set back: nothing waits until the old time comes again.
    assert tick(world.project, world.ledger, now - timedelta(days=1)) == ["truth", "topic"]


def test_the_controllers_thread_follows_the_file(tmp_path: Path) -> None:
    """A source that is added while it runs is read; it ends when told to."""
    world = World(tmp_path, f'source = "{TOPIC}"\nid = "id"\nvalue = "v"\nevery = "1s"')
    publish(world, said(world.ids[0], 1))
    stop = threading.Event()
    sources = LabelSources(world.project, world.ledger, stop)
    sources.turn()
    assert world.truths()[0] == 1
    toml = tmp_path / "loopwright.toml"
    toml.write_text(toml.read_text() + '[labels.more]\nsource = "more.csv"\nid = "id"\nvalue = "v"\n')
    (tmp_path / "more.csv").write_text(f"id,v\n{world.ids[1]},2\n")
    sources.turn()
    assert world.truths()[:2] == [1, 2]
    thread = threading.Thread(target=sources.run)
    thread.start()
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
