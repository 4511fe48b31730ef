"""The prediction log against kill -9 and against readers: nothing acknowledged is lost, nothing counts twice."""

import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import IO

import pytest

from loopwright.config import Project
from loopwright.predictions import PredictionStore, files, seal_orphans

pytestmark = pytest.mark.integration

WRITER = Path(__file__).with_name("prediction_writer.py")
KILLS = 8


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a new project."""
    (tmp_path / "loopwright.toml").write_text("")
    return Project(tmp_path)


def _start(project: Project, seal_rows: int, *batches: int, out: IO[bytes]) -> subprocess.Popen[bytes]:
    arguments = [str(project.root), str(seal_rows), *map(str, batches)]
    return subprocess.Popen([sys.executable, str(WRITER), *arguments], stdout=out)


def _acknowledged(path: Path) -> list[list[str]]:
    """Return the ids of each batch that a writer has acknowledged; a line cut off by its death is none."""
    return [line.split() for line in path.read_text().rpartition("\n")[0].splitlines()]


def _wait_for_rows(writer: subprocess.Popen[bytes], path: Path) -> None:
    until = time.monotonic() + 60
    while not _acknowledged(path):
        assert writer.poll() is None, "the writer died before its first batch"
        assert time.monotonic() < until, "the writer wrote nothing for a minute"
        time.sleep(0.01)


def test_killed_writers_lose_nothing_they_acknowledged(project: Project, tmp_path: Path) -> None:
    """After SIGKILL at random moments, also while sealing, every acknowledged row is found exactly once."""
    moments = random.Random(20260131)
    acknowledged: list[str] = []
    for number in range(KILLS):
        path = tmp_path / f"acknowledged-{number}"
        # Every other writer seals all the time, so that some kills hit a sealing.
        with path.open("wb") as out:
            writer = _start(project, 40 if number % 2 else 1_000_000, out=out)
        _wait_for_rows(writer, path)
        time.sleep(moments.uniform(0, 0.7))
        writer.kill()
        writer.wait()
        acknowledged += [found for ids in _acknowledged(path) for found in ids]
    store = PredictionStore(project)
    _check(store, acknowledged)
    assert seal_orphans(project) >= 1
    _check(store, acknowledged)
    assert seal_orphans(project) == 0
    folder = files.of_deployment(project, "digits-api")
    assert folder.tails() == []
    assert list(folder.root.glob(".*.tmp")) == []
    assert sum(segment.rows for segment in folder.segments()) == store.count()


def _check(store: PredictionStore, acknowledged: list[str]) -> None:
    times = Counter(store.table(columns=["prediction_id"]).column(0).to_pylist())
    assert not [found for found in acknowledged if times[found] != 1]
    assert max(times.values()) == 1
    # At most the one batch that each was killed in was written and not acknowledged.
    assert len(times) - len(acknowledged) <= 40 * KILLS


def test_a_reader_never_sees_the_log_shrink_or_double(project: Project, tmp_path: Path) -> None:
    """While two writers append and seal all the time, each query sees every acknowledged row, once."""
    paths = [tmp_path / f"acknowledged-{number}" for number in range(2)]
    writers = []
    for path in paths:
        with path.open("wb") as out:
            writers.append(_start(project, 100, 150, out=out))
    for writer, path in zip(writers, paths, strict=True):
        _wait_for_rows(writer, path)
    store = PredictionStore(project)
    sql = "select count(*) as n, count(distinct prediction_id) as ids, count(actual) as labelled from predictions"
    last = last_labelled = looks = 0
    while any(writer.poll() is None for writer in writers):
        before = sum(len(ids) for path in paths for ids in _acknowledged(path))
        (found,) = store.query(sql).to_pylist()
        seal_orphans(project)
        assert found["n"] == found["ids"], "a row was counted twice"
        assert found["n"] >= before, "an acknowledged row was missed"
        assert found["n"] >= last
        assert found["labelled"] >= last_labelled
        last, last_labelled, looks = found["n"], found["labelled"], looks + 1
    assert [writer.wait() for writer in writers] == [0, 0]
    assert looks >= 5
    batches = [ids for path in paths for ids in _acknowledged(path)]
    assert store.count() == sum(len(ids) for ids in batches)
    assert store.count(labelled=True) == len(batches) == 300
    assert files.of_deployment(project, "digits-api").tails() == []
