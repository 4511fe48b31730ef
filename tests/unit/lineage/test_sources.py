"""Datasets from files and databases: the same rows have one fingerprint however they lie on the disk."""

import itertools
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from loopwright.config import Project
from loopwright.errors import Conflict, Denied, InvalidInput, NotFound, Unavailable
from loopwright.ledger import Ledger
from loopwright.lineage import Recorder, dataset, files, fingerprint, read_snapshot, recorder, table_from
from loopwright.lineage.addresses import expand, without_secrets
from loopwright.lineage.snapshots import snapshot
from loopwright.lineage.steady import steady
from loopwright.records import DatasetRef


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project without data."""
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    (tmp_path / "loopwright.toml").write_text("")
    return Project(tmp_path)


@pytest.fixture(scope="module")
def place() -> Iterator[Project]:
    """Return one project for all examples of a property."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.delenv("LOOPWRIGHT_LEDGER", raising=False)
        (Path(folder) / "loopwright.toml").write_text("")
        yield Project(folder)


def refs(project: Project) -> list[DatasetRef]:
    """Return all datasets of a project."""
    ledger = Ledger.open(project)
    try:
        return [state.read(DatasetRef) for state in ledger.states("dataset")]
    finally:
        ledger.close()


def digest_of(project: Project, *arguments: Any, **options: Any) -> str:
    """Read a dataset and return its fingerprint."""
    running = Recorder()
    token = recorder.set(running)
    try:
        dataset("d", *arguments, project=project, **options)
    finally:
        recorder.reset(token)
    return running.datasets[0].digest


TEXTS = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FFF, exclude_categories=["Cs"]), min_size=1)
ROWS = st.lists(
    st.tuples(
        st.integers(-(2**53), 2**53),
        st.floats(allow_nan=False, allow_infinity=False, width=64),
        TEXTS.map(lambda text: "t" + text.replace('"', "")),
        st.booleans(),
    ),
    min_size=2,
    max_size=40,
)


@settings(
    max_examples=20,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(rows=ROWS, data=st.data())
def test_one_content_has_one_fingerprint(place: Project, rows: list[Any], data: st.DataObject) -> None:
    """Row groups, compression, part files, chunks, CSV, pandas, polars and Arrow: all the same digest."""
    columns = list(map(list, zip(*rows, strict=True)))
    table = pa.table(dict(zip(("whole", "real", "text", "flag"), columns, strict=True)))
    folder = Path(tempfile.mkdtemp(dir=place.root))
    cut = data.draw(st.integers(1, len(rows) - 1))
    size = data.draw(st.integers(1, len(rows)))
    pq.write_table(table, folder / "one.parquet")
    pq.write_table(
        table,
        folder / "other.parquet",
        row_group_size=size,
        compression=data.draw(st.sampled_from(["none", "gzip", "zstd"])),
        use_dictionary=data.draw(st.booleans()),
    )
    parts = folder / "parts"
    parts.mkdir()
    pq.write_table(table[:cut], parts / "part-0.parquet")
    pq.write_table(table[cut:], parts / "part-1.parquet")
    (parts / "_SUCCESS").write_text("")
    table.to_pandas().to_csv(folder / "one.csv", index=False)
    expected = fingerprint(table)
    for name in ("one.parquet", "other.parquet", "parts", "one.csv"):
        found = files.read(place, str(folder / name)).table
        assert fingerprint(table_from(found)) == expected, name
        assert (
            fingerprint(table_from(found.to_pandas() if hasattr(found, "to_pandas") else found)) == expected
        )
    chunks = pa.concat_tables([table[:cut], table[cut:]])
    for frame in (chunks, pl.DataFrame(pl.from_arrow(chunks)), table.to_pandas()):
        assert fingerprint(table_from(frame)) == expected
    assert fingerprint(pa.concat_tables([table, table[:1]])) != expected
    shutil.rmtree(folder)


def test_every_kind_comes_back_as_it_was_given(project: Project) -> None:
    """A polars frame, lazy or not, comes back as polars, an Arrow table as Arrow; and all can be asked for."""
    table = pa.table({"x": [1, 2]})
    pq.write_table(table, project.root / "x.parquet")
    frame = pl.DataFrame({"x": [1, 2]})
    assert dataset("d", frame, project=project) is frame
    assert dataset("d", frame.lazy(), project=project).equals(frame)
    assert dataset("d", table, project=project) is table
    assert isinstance(dataset("d", "x.parquet", project=project), pd.DataFrame)
    assert isinstance(dataset("d", "x.parquet", as_="polars", project=project), pl.DataFrame)
    assert isinstance(dataset("d", frame, as_="pandas", project=project), pd.DataFrame)
    assert len(refs(project)) == 1
    with pytest.raises(InvalidInput, match="given back as 'spark'"):
        dataset("d", "x.parquet", as_="spark", project=project)  # type: ignore[call-overload]


def test_a_polars_frame_that_changes_in_a_pipeline_is_hashed_again() -> None:
    """A remembered fingerprint is not taken for a frame that was changed in place."""
    running, frame = Recorder(), pl.DataFrame({"x": [1, 2]})
    running.remember(frame, "digest")
    assert running.recall(frame) == "digest"
    frame[0, "x"] = 7
    assert running.recall(frame) is None


def test_a_folder_is_one_dataset(project: Project) -> None:
    """Part files of several folders, with a column in the folders' names, checked against the files later."""
    for year, value in ((2023, 1.5), (2024, 2.5)):
        folder = project.root / "sales" / f"year={year}" / "region=nord"
        folder.mkdir(parents=True)
        pd.DataFrame({"amount": [value]}).to_parquet(folder / "p.parquet")
    frame = dataset("sales", "sales", project=project)
    assert frame.to_dict("list") == {"amount": [1.5, 2.5], "year": [2023, 2024], "region": ["nord"] * 2}
    assert (refs(project)[0].source, len(refs(project)[0].source_digest)) == ("sales", 64)
    pd.DataFrame({"price": [1.0]}).to_parquet(project.root / "sales" / "year=2024" / "z.parquet")
    with pytest.raises(InvalidInput, match=r"z\.parquet has other columns than p\.parquet"):
        dataset("sales", "sales", project=project)
    (project.root / "sales" / "notes.txt").write_text("x")
    with pytest.raises(InvalidInput, match="no part files of one kind"):
        dataset("sales", "sales", project=project)


def test_csv_parts_and_archives(project: Project) -> None:
    """CSV part files go one after the other; .csv.gz and .tsv are read."""
    folder = project.root / "log"
    folder.mkdir()
    (folder / "a.csv").write_text("x,y\n1,a\n")
    pd.DataFrame({"x": [2], "y": ["b"]}).to_csv(folder / "b.csv.gz", index=False)
    assert dataset("log", "log", project=project).to_dict("list") == {"x": [1, 2], "y": ["a", "b"]}
    (project.root / "t.tsv").write_text("x\ty\n1\ta\n")
    assert list(dataset("t", "t.tsv", project=project)) == ["x", "y"]


def test_a_source_that_changes_once_is_read_again() -> None:
    """The second reading counts; a source that never rests is refused, and a broken one that rests stays broken."""
    content = iter([1, 2, 2, 2])
    assert steady(lambda: next(content), lambda _: "rows", "s") == "rows"
    endless = itertools.count()
    with pytest.raises(Conflict, match="changed while it was read"):
        steady(lambda: next(endless), lambda _: "rows", "s")

    def broken(_: object) -> str:
        raise InvalidInput("half a file")

    with pytest.raises(InvalidInput, match="half a file"):
        steady(lambda: 1, broken, "s")


def test_a_file_that_is_being_written_is_refused(project: Project) -> None:
    """Another process appends to the file without a pause."""
    path = project.root / "growing.csv"
    path.write_text("x,y\n" + "1,2\n" * 200_000)
    code = f"import itertools\nwith open({str(path)!r}, 'a', buffering=1) as f:\n  f.write('1,2\\n'); print(flush=True)\n  for _ in itertools.count(): f.write('1,2\\n')"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        try:
            with pytest.raises(Conflict, match="changed while it was read"):
                dataset("growing", "growing.csv", project=project)
        finally:
            writer.kill()
    assert refs(project) == []


def test_a_full_disk_leaves_nothing_half_written(project: Project) -> None:
    """A file may grow to 1 MB only: the snapshot is refused, and what was there is whole."""
    small = snapshot(project, pa.table({"x": [1]}), "small", "")
    code = f"""
import resource, numpy as np, pandas as pd, loopwright as lw
from loopwright.errors import Unavailable
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    lw.dataset("big", pd.DataFrame({{"x": np.random.default_rng(0).random(1_000_000)}}), project=lw.Project({str(project.root)!r}))
except Unavailable as error:
    print(error)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "The disk is full" in ended.stdout
    assert "df -h" in ended.stdout
    kept = [path for path in project.datasets.rglob("*") if path.is_file()]
    assert kept == [project.root / small.snapshot]
    assert [ref.name for ref in refs(project)] == ["small"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


@pytest.fixture
def full(project: Project) -> Iterator[Project]:
    """Return a project whose datasets lie on a file system of 256 kB."""
    project.datasets.mkdir(parents=True)
    options = ["-o", "size=256k", "tmpfs", str(project.datasets)]
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", *options], check=False).returncode:
        pytest.skip("a small file system needs the right to mount one")
    yield project
    subprocess.run(["umount", str(project.datasets)], check=True)


def test_a_full_file_system_is_said(full: Project) -> None:
    """No room is left: the message names the folder; a small dataset fits afterwards."""
    big = pd.DataFrame({"x": [os.urandom(1000).hex() for _ in range(1000)]})
    with pytest.raises(Unavailable, match="The disk is full"):
        dataset("big", big, project=full)
    dataset("small", big.head(3), project=full)
    assert [ref.name for ref in refs(full)] == ["small"]


def test_rows_of_a_query(project: Project) -> None:
    """SQLite, by query and by table; types of columns with gaps; the database is never made nor written."""
    with sqlite3.connect(project.root / "shop.db") as connection:
        connection.execute('create table orders (id integer, amount real, "who?" text)')
        connection.executemany("insert into orders values (?, ?, ?)", [(1, 2.5, "a"), (2, None, None)])
    connection.close()
    frame = dataset(
        "o", sql="select id, amount from orders where id+0 > 0", source="sqlite:///shop.db", project=project
    )
    assert frame["amount"].tolist()[0] == 2.5
    assert dataset("o", "sqlite:///shop.db?query=select id from orders where id = 1+1", project=project)[
        "id"
    ].tolist() == [2]
    assert list(dataset("o", "sqlite:///shop.db?table=orders", project=project)) == ["id", "amount", "who?"]
    assert {ref.source for ref in refs(project)} == {
        "sqlite:///shop.db?query=select id, amount from orders where id+0 > 0",
        "sqlite:///shop.db?query=select id from orders where id = 1+1",
        "sqlite:///shop.db?table=orders",
    }
    for sql, error, text in (
        ("select price from orders", NotFound, "no such column"),
        ("selct 1", InvalidInput, "syntax error"),
        ("delete from orders", Denied, "readonly"),
        ("select 1 as x union all select 'a'", InvalidInput, "'x' of the query mixes types"),
        ("select id from orders where id > 9", InvalidInput, "has no rows"),
    ):
        with pytest.raises(error, match=text):
            dataset("o", sql=sql, source="sqlite:///shop.db", project=project)
    with pytest.raises(NotFound, match=r"Did you mean 'shop\.db'"):
        dataset("o", sql="select 1", source="sqlite:///shp.db", project=project)
    assert not (project.root / "shp.db").exists()
    with pytest.raises(InvalidInput, match="does not say which rows"):
        dataset("o", "sqlite:///shop.db", project=project)


def test_addresses_hold_no_secrets(monkeypatch: pytest.MonkeyPatch, project: Project) -> None:
    """A password in an address is refused without being shown; a reference is taken from the environment when used."""
    for address in (
        "postgresql://me:hunter2@db/shop?table=t",
        "s3://key:hunter2@bucket/a.csv",
        "postgresql://db/shop?password=hunter2&table=t",
    ):
        with pytest.raises(InvalidInput, match="holds a password") as caught:
            dataset("o", address, project=project)
        assert "hunter2" not in str(caught.value)
    safe = "postgresql://me:${SHOP_PASSWORD}@db/shop?table=t"
    assert without_secrets(safe) == safe
    monkeypatch.setenv("SHOP_PASSWORD", "p@ss/word")
    assert expand(safe) == "postgresql://me:p%40ss%2Fword@db/shop?table=t"
    monkeypatch.delenv("SHOP_PASSWORD")
    with pytest.raises(InvalidInput, match="SHOP_PASSWORD, which is not set"):
        expand(safe)


def test_what_is_no_source_is_refused(project: Project) -> None:
    """Unknown schemes, objects and files name what would be right."""
    with pytest.raises(InvalidInput, match=r"Known: file, postgres, postgresql, s3, sqlite"):
        dataset("d", "mysql://db/x?table=t", project=project)
    with pytest.raises(InvalidInput, match="needs a source"):
        dataset("d", project=project)
    with pytest.raises(InvalidInput, match="is none"):
        dataset("d", "x.csv", sql="select 1", project=project)
    (project.root / "data.csv").write_text("x\n1\n")
    with pytest.raises(NotFound, match=r"Did you mean data\.csv"):
        dataset("d", "dta.csv", project=project)
    with pytest.raises(InvalidInput, match="read from a int"):
        dataset("d", 3, project=project)
    assert read_snapshot(project, digest_of(project, "data.csv")).num_rows == 1
