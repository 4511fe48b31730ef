"""Snapshots: kept once, read back as they were, and refused when the file has changed."""

import decimal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from four_modes import wine

from loopwright.config import Project
from loopwright.errors import Damaged, InvalidInput, NotFound
from loopwright.ledger import Ledger
from loopwright.lineage import Recorder, dataset, fingerprint, read_snapshot, recorder, snapshot, table_from
from loopwright.lineage.snapshots import path_of
from loopwright.records import DatasetRef

TABLE = pa.table(
    {
        "x": [1.5, None, float("nan")],
        "name": pa.array(["ab", None, ""]).dictionary_encode(),
        "tags": [["a"], None, []],
        "at": pa.array([1, None, 3], pa.timestamp("s", tz="UTC")),
    }
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project without data."""
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    (tmp_path / "loopwright.toml").write_text("")
    return Project(tmp_path)


def files(project: Project) -> list[Path]:
    """Return all files below the snapshots, hidden ones too."""
    return [path for path in project.datasets.rglob("*") if path.is_file()]


def test_a_snapshot_is_stored_once(project: Project) -> None:
    """The same rows under another name, in other chunks and from many threads are one file, written once."""
    first = snapshot(project, TABLE, "first", "a.csv", "5" * 64)
    written = path_of(project, first.digest).stat()
    pieces = pa.concat_tables([TABLE[:1], TABLE[1:]])
    with ThreadPoolExecutor(4) as pool:
        refs = list(pool.map(lambda number: snapshot(project, pieces, f"copy-{number}", ""), range(4)))
    assert {ref.digest for ref in refs} == {first.digest}
    assert files(project) == [project.root / first.snapshot]
    assert path_of(project, first.digest).stat() == written
    # The rows came from a file: that stays known when they are given again without one.
    assert {(ref.source, ref.source_digest) for ref in refs} == {("a.csv", "5" * 64)}


def test_threads_that_are_first_together_write_one_whole_file(project: Project) -> None:
    """No thread fails on the unfinished file of another, and none is left behind."""
    with ThreadPoolExecutor(6) as pool:
        digests = set(pool.map(lambda _: snapshot(project, TABLE, "t", "").digest, range(6)))
    assert len(digests) == 1
    assert len(files(project)) == 1
    assert read_snapshot(project, digests.pop()).num_rows == 3


def test_a_snapshot_is_read_back_equal(project: Project) -> None:
    """The rows, their order and what describes them come back."""
    frame = wine()
    ref = snapshot(project, table_from(frame), "wine", "wine.csv")
    pd.testing.assert_frame_equal(read_snapshot(project, ref.digest).to_pandas(), frame)
    assert (ref.rows, ref.columns, ref.digest) == (178, tuple(frame), fingerprint(table_from(frame)))
    ledger = Ledger.open(project)
    state = ledger.get("dataset", ref.digest)
    ledger.close()
    assert state is not None
    assert state.read(DatasetRef) == ref


@pytest.mark.parametrize(
    "values",
    [
        TABLE["at"],
        pa.array([10**14], pa.timestamp("s")),
        pa.array([[1, 2], None], pa.list_(pa.int64(), 2)),
        pa.array([[1], None], pa.list_view(pa.int64())),
        pa.array([86_400_000, None], pa.date64()),
        pa.array([5, None], pa.time32("s")),
        pa.array([decimal.Decimal("1.20"), None]),
        pa.array([b"0" * 16, None], pa.uuid()),
        pa.array([[1], [None]], pa.list_(pa.timestamp("s"))),
        pa.array([], pa.float64()),
        pa.array([], pa.list_(pa.string())),
        pa.nulls(2),
        pa.table({"x": pd.cut(pd.Series([1, 2, 3]), 2)})["x"],
    ],
    ids=lambda values: str(values.type)[:24],
)
def test_every_kept_type_can_be_read_again(project: Project, values: Any) -> None:
    """What is accepted is found again under its fingerprint, with the same values."""
    table = pa.table({"x": values})
    read = read_snapshot(project, snapshot(project, table, "t", "").digest)
    assert read["x"].null_count == table["x"].null_count
    assert len(read) == len(table)


def test_a_truncated_file_is_damaged(project: Project) -> None:
    """A snapshot cut off anywhere is refused, and the hint says how to get a new one."""
    ref = snapshot(project, TABLE, "t", "")
    path = path_of(project, ref.digest)
    data = path.read_bytes()
    for length in (0, 1, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(Damaged, match="cannot be read") as caught:
            read_snapshot(project, ref.digest)
    assert caught.value.hint == f"rm {path}, then run the pipeline again to take a new snapshot"
    path.unlink()
    snapshot(project, TABLE, "t", "")
    assert read_snapshot(project, ref.digest).num_rows == 3


@pytest.mark.parametrize("bits", [1, 128, 255])
def test_a_changed_byte_is_damaged_or_harmless(project: Project, bits: int) -> None:
    """Whichever byte changes, the answer is the right rows or `Damaged`, never other rows or another error."""
    ref = snapshot(project, TABLE, "t", "")
    path = path_of(project, ref.digest)
    data = path.read_bytes()
    damaged = 0
    for position in range(0, len(data), 3):
        changed = bytearray(data)
        changed[position] ^= bits
        path.write_bytes(bytes(changed))
        try:
            read = read_snapshot(project, ref.digest)
        except Damaged:
            damaged += 1
        else:
            assert fingerprint(read) == ref.digest
    assert damaged > len(data) / 10


def test_another_table_in_its_place_is_damaged(project: Project) -> None:
    """A whole Parquet file with one other value is named by both fingerprints."""
    ref = snapshot(project, TABLE, "t", "")
    other = snapshot(project, TABLE.set_column(0, "x", pa.array([1.5, None, 0.0])), "o", "")
    path_of(project, other.digest).replace(path_of(project, ref.digest))
    with pytest.raises(Damaged, match=f"fingerprint {other.digest[:16]}, not {ref.digest[:16]}"):
        read_snapshot(project, ref.digest)
    with pytest.raises(NotFound, match="no snapshot"):
        read_snapshot(project, other.digest)


@pytest.mark.parametrize(
    "table",
    [
        pa.table({}),
        pa.table([[1], [2]], names=["x", "x"]),
        pa.table({"x": pa.array([{}], pa.struct([]))}),
        pa.table({"x": pa.array([pa.MonthDayNano([1, 2, 3])])}),
    ],
    ids=["no columns", "same names", "empty struct", "calendar interval"],
)
def test_what_cannot_be_kept_is_refused(project: Project, table: pa.Table) -> None:
    """Nothing is written or noted of a table that could not be read again."""
    with pytest.raises(InvalidInput):
        snapshot(project, table, "t", "")
    assert files(project) == []


def test_a_dataset_is_noted_in_the_run_that_reads_it(project: Project) -> None:
    """`dataset` keeps the file's rows and hash, and the running pipeline learns of it and of its fingerprint."""
    wine().to_csv(project.root / "wine.csv", index=False)
    running = Recorder("train:main")
    token = recorder.set(running)
    try:
        frame = dataset("wine", "wine.csv", project=project)
        dataset("wine", "wine.csv", project=project)
    finally:
        recorder.reset(token)
    (ref,) = running.datasets
    assert (ref.name, ref.source, len(ref.source_digest)) == ("wine", "wine.csv", 64)
    assert running.recall(frame) == ref.digest
    frame.loc[0, "alcohol"] = np.pi
    assert running.recall(frame) is None
    pd.testing.assert_frame_equal(read_snapshot(project, ref.digest).to_pandas(), wine(), check_dtype=False)
