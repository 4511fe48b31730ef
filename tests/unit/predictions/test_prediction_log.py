"""Writing predictions: whole batches or nothing, rollover, sealing, orphans, torn tails, disk errors."""

import os
import random
import threading
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prediction_rows import FLOWERS, project_in, rows, run_apart

from loopwright.config import Project
from loopwright.errors import Unavailable
from loopwright.ledger import Ledger
from loopwright.predictions import PredictionLog, PredictionStore, files, rolling, seal_orphans, tail
from loopwright.predictions.catalogue import Catalogue
from loopwright.predictions.files import LogFolder, Segment
from loopwright.predictions.tail import read_batches
from loopwright.records import Column, Signature, Task


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a new project."""
    return project_in(tmp_path)


def _log(project: Project, **limits: Any) -> PredictionLog:
    return PredictionLog(project, "api", "iris", FLOWERS, **limits)


def _folder(project: Project) -> LogFolder:
    return files.of_deployment(project, "api")


def _tail_of(log: PredictionLog) -> tail.Tail:
    return next(iter(log._log._tails.values()))


def _ids(path: Path) -> list[str]:
    return [found for batch in read_batches(path) for found in batch.column("prediction_id").to_pylist()]


def _orphaned(path: Path) -> Path:
    """Rename a tail so that its name gives this process's pid with the start time of an earlier one."""
    mark = files.process_mark()
    other = f"p{os.getpid()}-c{int(mark.rpartition('c')[2]) - 3_600_000}"
    return path.rename(path.with_name(path.name.replace(mark, other)))


@pytest.mark.parametrize("durability", ["process", "power"])
def test_an_append_is_in_the_file_when_it_returns(
    project: Project, durability: Literal["process", "power"]
) -> None:
    """After each append the rows can be read from the file, as one record batch each."""
    log = _log(project, durability=durability)
    expected: list[str] = []
    for n in (1, 3, 2):
        batch = rows(project, n)
        log.append(batch)
        expected += batch.prediction_id
        (path,) = _folder(project).tails()
        assert _ids(path) == expected
    with pa.ipc.open_stream(path.read_bytes()) as stream:
        assert [len(batch) for batch in stream] == [1, 3, 2]
    log.close()


def test_closing_seals_to_parquet_and_registers_the_segment(project: Project) -> None:
    """A closed log leaves one zstd Parquet file in its day's folder, no tail, and its facts in the ledger."""
    log = _log(project)
    log.append(rows(project, 5, at_us=1_790_000_000_000_000))
    log.append(rows(project, 0))
    log.close()
    assert _folder(project).tails() == []
    (segment,) = _folder(project).segments()
    assert segment.path.parent.name == "date=2026-09-21"
    assert (segment.first_us, segment.last_us, segment.rows) == (
        1_790_000_000_000_000,
        1_790_000_000_000_004,
        5,
    )
    parquet = pq.ParquetFile(segment.path)
    assert parquet.metadata.row_group(0).column(0).compression == "ZSTD"
    assert parquet.read().column("input_petal").to_pylist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    ledger = Ledger.open(project)
    (entry,) = Catalogue(ledger).entries("predictions/deployment=api")
    assert project.state / entry.path == segment.path
    assert (entry.rows, entry.bytes, entry.layout) == (5, segment.path.stat().st_size, segment.schema)
    assert (entry.first_us, entry.last_us) == (segment.first_us, segment.last_us)
    ledger.close()
    with pytest.raises(Unavailable, match="is closed"):
        log.append(rows(project, 1))


def test_a_full_tail_rolls_over_and_maintain_seals_it(project: Project) -> None:
    """At its limit of rows or bytes a tail ends; the next append starts another; maintain seals only the full one."""
    log = _log(project, seal_rows=10)
    for _ in range(3):
        log.append(rows(project, 5))
    assert len(_folder(project).tails()) == 2
    log.maintain()
    assert [segment.rows for segment in _folder(project).segments()] == [10]
    assert len(_folder(project).tails()) == 1
    log.close()
    small = _log(project, seal_bytes=1)
    small.append(rows(project, 1))
    small.append(rows(project, 1))
    small.maintain()
    assert sorted(segment.rows for segment in _folder(project).segments()) == [1, 1, 5, 10]
    small.close()


def test_age_and_the_end_of_the_day_end_a_tail(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tail is sealed when it is old, a small one only when it is very old, and every one when the day ends."""
    noon_us = 1_790_078_400_000_000
    clock = [noon_us]
    for module in (rolling, tail):
        monkeypatch.setattr(module, "now_us", lambda: clock[0])
    log = _log(project, seal_after_s=300)

    def sealed_after(seconds: int) -> int:
        clock[0] = noon_us + seconds * 1_000_000
        log.maintain()
        return len(_folder(project).segments())

    log.append(rows(project, 1))
    assert sealed_after(301) == 0
    assert sealed_after(3601) == 1
    clock[0] = noon_us
    log.append(rows(project, 12_000))
    assert sealed_after(299) == 1
    assert sealed_after(301) == 2
    clock[0] = noon_us + 12 * 3600 * 1_000_000 - 1_000_000
    log.append(rows(project, 1))
    assert sealed_after(12 * 3600 - 1) == 2
    assert sealed_after(12 * 3600) == 3
    log.close()


def test_threads_share_one_log(project: Project) -> None:
    """Eight threads append while another one maintains; every row is there once."""
    log = _log(project, seal_rows=50)
    done = threading.Event()

    def write() -> None:
        for _ in range(20):
            log.append(rows(project, 3))

    def maintain() -> None:
        while not done.is_set():
            log.maintain()

    writers = [threading.Thread(target=write) for _ in range(8)]
    keeper = threading.Thread(target=maintain)
    for thread in (*writers, keeper):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    keeper.join()
    log.close()
    found = PredictionStore(project).query(
        "select count(*) as n, count(distinct prediction_id) as ids from predictions"
    )
    assert found.to_pylist() == [{"n": 480, "ids": 480}]


def test_rows_of_another_signature_go_to_a_tail_of_their_own(project: Project) -> None:
    """While a candidate with other inputs takes a share, both kinds of rows are kept whole."""
    other = Signature(
        (Column("petal", "double"), Column("weight", "long")), Task.classification, "species", (0, 1)
    )
    log = _log(project)
    log.append(rows(project, 2))
    log.append(rows(project, 3, inputs={"petal": np.ones(3), "weight": np.arange(3)}, version=2), other)
    assert len(_folder(project).tails()) == 2
    log.close()
    table = PredictionStore(project).table(columns=["version", "input_sepal", "input_weight"])
    assert sorted(map(str, table.to_pylist())) == sorted(
        [str({"version": 1, "input_sepal": 0.5, "input_weight": None})] * 2
        + [str({"version": 2, "input_sepal": None, "input_weight": number}) for number in range(3)]
    )


def test_any_deployment_name_is_a_safe_folder_name(project: Project) -> None:
    """A name with slashes or dots stays inside the log and is read back as it was."""
    for name in ("../evil", "a/b", "übung 1", "x=y"):
        log = PredictionLog(project, name, "iris", FLOWERS)
        log.append(rows(project, 1))
        log.close()
    assert files.deployments(project) == sorted(["../evil", "a/b", "übung 1", "x=y"])
    assert {path.parent for path in project.predictions.iterdir()} == {project.predictions}
    assert PredictionStore(project).count(deployment="../evil") == 1


def test_a_tail_cut_anywhere_gives_every_complete_batch(project: Project) -> None:
    """At 50 random bytes and at all ends of batches: what was whole before the cut is read, nothing else."""
    log = _log(project)
    ends, ids = [], []
    for n in [random.Random(7).randint(1, 40) for _ in range(20)]:
        batch = rows(project, n)
        log.append(batch)
        ends.append(_tail_of(log).size_bytes)
        ids.append(batch.prediction_id)
    (path,) = _folder(project).tails()
    whole = path.read_bytes()
    assert len(whole) == ends[-1]
    cuts = [random.Random(1).randrange(len(whole)) for _ in range(50)]
    torn = path.with_name("torn")
    for cut in [*cuts, *ends, 0]:
        torn.write_bytes(whole[:cut])
        complete = sum(end <= cut for end in ends)
        assert _ids(torn) == [found for batch_ids in ids[:complete] for found in batch_ids]
    torn.unlink()
    log.close()


def test_the_tail_of_a_living_process_is_left_alone(project: Project) -> None:
    """Neither a living owner's tail nor one whose file is still locked is sealed by somebody else."""
    log = _log(project)
    log.append(rows(project, 2))
    assert seal_orphans(project) == 0
    _orphaned(_tail_of(log).path)  # the name says dead, as after a jump of the clock; the lock says alive
    assert seal_orphans(project) == 0
    assert len(_folder(project).tails()) == 1


def test_the_tail_of_a_dead_process_is_sealed_without_its_torn_end(project: Project) -> None:
    """A reused pid is not taken for the owner; whole batches become a segment and the torn one is left out."""
    log = _log(project)
    batch = rows(project, 4)
    log.append(batch)
    log.append(rows(project, 4))
    path = _tail_of(log).path
    os.truncate(path, path.stat().st_size - 9)
    _tail_of(log).close()
    assert files.owner_alive(path)
    path = _orphaned(path)
    assert not files.owner_alive(path)
    assert seal_orphans(project) == 1
    assert seal_orphans(project) == 0
    (segment,) = _folder(project).segments()
    assert segment.rows == 4
    assert pq.read_table(segment.path).column("prediction_id").to_pylist() == batch.prediction_id
    assert PredictionStore(project).count() == 4


def test_a_tail_without_one_whole_batch_is_removed(project: Project) -> None:
    """A process that died in its first append leaves nothing behind; a foreign file is no reason to fail."""
    folder = _folder(project)
    folder.open.mkdir(parents=True)
    for name, content in {"a": b"", "b": b"\xff\xff\xff\xff\x10", "c": b"what is this" * 99}.items():
        (folder.open / f"{name}.arrows").write_bytes(content)
    assert PredictionStore(project).count() == 0
    assert seal_orphans(project) == 3
    assert folder.tails() == []
    assert folder.segments() == []


def test_death_between_rename_and_delete_counts_no_row_twice(project: Project) -> None:
    """While a tail and its segment both exist the segment counts, and the next sealing removes the tail."""
    log = _log(project)
    log.append(rows(project, 3))
    path = _tail_of(log).path
    _tail_of(log).close()
    path = _orphaned(path)
    content = path.read_bytes()
    assert seal_orphans(project) == 1
    path.write_bytes(content)
    leftover = _folder(project).root / f".{path.stem}.tmp"
    leftover.write_bytes(b"half a segment")
    assert PredictionStore(project).count() == 3
    assert seal_orphans(project) == 1
    assert not path.exists()
    assert not leftover.exists()
    assert [segment.rows for segment in _folder(project).segments()] == [3]


def test_a_full_disk_refuses_the_append_and_keeps_what_was_acknowledged(project: Project) -> None:
    """When a write fails the caller hears it, nothing of the batch is kept, and the log goes on when it can."""
    log = _log(project)
    kept = rows(project, 3)
    log.append(kept)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, _tail_of(log).descriptor)
    os.close(full)
    with pytest.raises(Unavailable, match=r"3 rows could not be written.*No space left"):
        log.append(rows(project, 3))
    store = PredictionStore(project)
    assert store.count() == 3
    more = rows(project, 2)
    log.append(more)
    assert store.count() == 5
    log.close()
    assert set(store.table().column("prediction_id").to_pylist()) == {
        *kept.prediction_id,
        *more.prediction_id,
    }


def test_a_write_that_the_disk_takes_in_part_is_cut_off_again(tmp_path: Path) -> None:
    """With a file size limit the kernel takes a part of a batch: the part is cut off, and with room the log goes on."""
    project_in(tmp_path)
    code = """
import resource, sys
from pathlib import Path
from prediction_rows import *
from loopwright.errors import Unavailable
from loopwright.predictions import PredictionLog
project = Project(Path(sys.argv[1]))
log = PredictionLog(project, "api", "iris", FLOWERS)
kept = []
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
try:
    while True:
        batch = rows(project, 20)
        log.append(batch)
        kept += batch.prediction_id
except Unavailable as error:
    assert "File too large" in str(error), error
tail = next(iter(log._log._tails.values()))
assert tail.path.stat().st_size == tail.size_bytes and not tail.broken
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
batch = rows(project, 1)
log.append(batch)
print(" ".join(kept + batch.prediction_id))
"""
    done = run_apart(code, tmp_path)
    assert done.returncode == 0, done.stderr
    kept = done.stdout.split()
    assert len(kept) > 40
    store = PredictionStore(Project(tmp_path))
    assert sorted(store.table().column("prediction_id").to_pylist()) == sorted(kept)
    assert seal_orphans(Project(tmp_path)) == 1
    assert sorted(store.table().column("prediction_id").to_pylist()) == sorted(kept)


def test_a_tail_that_cannot_be_opened_or_sealed_is_unavailable(project: Project) -> None:
    """No folder, no append; and a log that cannot seal keeps its rows readable and tries again."""
    folder = _folder(project)
    folder.root.mkdir(parents=True)
    folder.open.write_text("in the way")
    log = _log(project, seal_rows=1)
    with pytest.raises(Unavailable, match="No file can be opened"):
        log.append(rows(project, 1))
    folder.open.unlink()
    log.append(rows(project, 1, at_us=1_790_000_000_000_000))
    folder.day(1_790_000_000_000_000).write_text("in the way")
    with pytest.raises(Unavailable, match="could not be sealed"):
        log.maintain()
    folder.day(1_790_000_000_000_000).unlink()
    assert PredictionStore(project).count() == 1
    log.maintain()
    assert [segment.rows for segment in folder.segments()] == [1]
    assert list(folder.root.glob(".*.tmp")) == []
    log.close()


def test_names_of_files_tell_what_is_in_them(tmp_path: Path) -> None:
    """A segment's name is read back; other files in the folder are no segments; a foreign name has no owner."""
    segment = Segment(tmp_path, "20260131T1-p1-c2-abc-def", 10, 20, 3)
    assert Segment.read(tmp_path / segment.name) == Segment(tmp_path / segment.name, segment.stem, 10, 20, 3)
    assert Segment.read(tmp_path / "export.parquet") is None
    assert segment.schema == "def"
    assert segment.overlaps(20, None)
    assert not segment.overlaps(21, None)
    assert segment.overlaps(None, 11)
    assert not segment.overlaps(None, 10)
    assert not files.owner_alive(tmp_path / "export.arrows")
    assert psutil.pid_exists(os.getpid())
    assert files.owner_alive(tmp_path / f"{files.new_stem()}.arrows")
