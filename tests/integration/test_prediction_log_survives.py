"""The prediction log against kill -9 and against readers: nothing acknowledged is lost, nothing counts twice."""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import IO

import pytest
from prediction_rows import project_in, run_apart

from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.predictions import PredictionStore, files, maintain, seal_orphans
from loopwright.predictions.catalogue import Catalogue

pytestmark = pytest.mark.integration

WRITER = Path(__file__).with_name("prediction_writer.py")
KEEPER = Path(__file__).with_name("prediction_keeper.py")
#: Rounds of two kills each.
ROUNDS = 10
DISK = "320k"


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


def test_killed_writers_and_keepers_lose_nothing_that_was_acknowledged(
    project: Project, tmp_path: Path
) -> None:
    """After SIGKILL at 20 random moments, while appending, sealing and merging, each acknowledged row is found once."""
    moments = random.Random(20260131)
    acknowledged: list[str] = []
    sealing = merging = 0
    for number in range(ROUNDS):
        path = tmp_path / f"acknowledged-{number}"
        # Every other writer seals all the time, so that some kills hit a sealing.
        with path.open("wb") as out:
            writer = _start(project, 40 if number % 2 else 1_000_000, out=out)
        keeper = subprocess.Popen([sys.executable, str(KEEPER), str(project.root)], stdout=subprocess.PIPE)
        _wait_for_rows(writer, path)
        assert keeper.stdout is not None
        keeper.stdout.readline()
        time.sleep(moments.uniform(0, 0.7))
        for process in moments.sample((writer, keeper), 2):
            process.kill()
            process.wait()
        keeper.stdout.close()
        acknowledged += [found for ids in _acknowledged(path) for found in ids]
        left = [one.name for one in files.of_deployment(project, "digits-api").root.glob(".*.tmp")]
        sealing += any(f"-p{writer.pid}-" in name for name in left)
        merging += any(f"-p{keeper.pid}-" in name for name in left)
    store = PredictionStore(project)
    _check(store, acknowledged)
    ledger = Ledger.open(project)
    for _ in range(3):
        assert maintain(project, ledger, few=2, grace_s=0).problems == []
        _check(store, acknowledged)
    folder = files.of_deployment(project, "digits-api")
    assert folder.tails() == []
    assert list(folder.root.glob(".*.tmp")) == []
    assert sum(segment.rows for segment in folder.segments()) == store.count() == store.extent().rows
    entries = Catalogue(ledger).entries("predictions/deployment=digits-api")
    assert {entry.stem for entry in entries} == {segment.stem for segment in folder.segments()}
    ledger.close()
    print(
        f"{ROUNDS} kills of a writer and {ROUNDS} of a keeper, {sealing} while sealing and {merging} while merging: "
        f"{len(acknowledged)} rows acknowledged, 0 lost, 0 doubled"
    )


def _check(store: PredictionStore, acknowledged: list[str]) -> None:
    times = Counter(store.table(columns=["prediction_id"]).column(0).to_pylist())
    assert not [found for found in acknowledged if times[found] != 1]
    assert max(times.values()) == 1
    # At most the one batch that each was killed in was written and not acknowledged.
    assert len(times) - len(acknowledged) <= 40 * ROUNDS


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


FULL = """
import os, sys
from pathlib import Path
import numpy as np
from prediction_rows import *
from loopwright.errors import Unavailable
from loopwright.ledger import Ledger
from loopwright.predictions import PredictionLog, files, maintain
from loopwright.predictions.seal import wish
project = Project(Path(sys.argv[1]))
ledger = Ledger.open(project)
chance = np.random.default_rng(1)
def append(log):
    inputs = {"petal": chance.random(20), "sepal": chance.random(20), "colour": np.array(["red"] * 20, object)}
    batch = rows(project, 20, inputs=inputs)
    log.append(batch)
    print(" ".join(batch.prediction_id))
def free():
    found = os.statvfs(project.predictions)
    return found.f_bavail / found.f_blocks
small = PredictionLog(project, "api", "iris", FLOWERS, seal_rows=100)
while free() > 0.2:
    append(small)
    small.maintain()
merging = maintain(project, ledger, few=2).problems
large = PredictionLog(project, "api", "iris", FLOWERS)
refused = 0
while refused < 50:
    try:
        append(large)
    except Unavailable as error:
        assert "No space left" in error.fact, error
        refused += 1
for tail in files.of_deployment(project, "api").tails():
    wish(tail)
sealing = 0
for log in (large, small):
    try:
        log.maintain()
    except Unavailable as error:
        assert "could not be sealed" in error.fact, error
        sealing += 1
print("refused", refused, sealing, len(merging))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk_refuses_rows_and_keeps_those_it_took(tmp_path: Path) -> None:
    """On a small file system appending, sealing and merging fail, and no acknowledged row is lost; with room all goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("this machine does not let root mount a file system")
    project = project_in(tmp_path)
    project.predictions.symlink_to(disk)
    try:
        done = run_apart(FULL, tmp_path)
        assert done.returncode == 0, done.stderr
        *lines, last = done.stdout.splitlines()
        refused, sealing, merging = (int(word) for word in last.split()[1:])
        acknowledged = sorted(" ".join(lines).split())
        assert min(refused, sealing, merging) > 0, last
        assert len(acknowledged) >= 500
        assert _all_ids(project) == acknowledged
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        ledger = Ledger.open(project)
        for _ in range(2):
            assert maintain(project, ledger, few=2, grace_s=0).problems == []
            assert _all_ids(project) == acknowledged
        ledger.close()
        assert files.of_deployment(project, "api").tails() == []
        assert [one for one in disk.rglob("*") if one.name.endswith(".tmp")] == []
        print(
            f"{refused} appends and {sealing} sealings refused by a full disk, {len(acknowledged)} rows kept"
        )
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def _all_ids(project: Project) -> list[str]:
    return sorted(PredictionStore(project).table(columns=["prediction_id"]).column(0).to_pylist())
