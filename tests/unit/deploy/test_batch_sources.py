"""Batch sources and sinks: addresses, keys, columns, and errors that name what is wrong."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from loopwright import plugins
from loopwright.config import Config, Project
from loopwright.deploy.batch.base import Address, Chunk, parse
from loopwright.deploy.batch.columns import to_columns
from loopwright.deploy.batch.files import CsvSource, ParquetSink, ParquetSource
from loopwright.deploy.batch.keys import IdSet
from loopwright.deploy.batch.tables import TableSink, TableSource
from loopwright.errors import Conflict, InvalidConfig, InvalidInput, NotFound, SchemaMismatch
from loopwright.predictions.ids import Ids
from loopwright.records import Column, Signature, Task

SIGNATURE = Signature(
    (
        Column("size", "double"),
        Column("floor", "long"),
        Column("street", "string", required=False),
        Column("sold", "datetime", required=False),
    ),
    Task.regression,
)
ROWS = pa.table(
    {
        "id": [f"h{number}" for number in range(10)],
        "size": [float(number) for number in range(10)],
        "floor": list(range(10)),
        "street": ["a", None] * 5,
        "other": ["ignored"] * 10,
    }
)


def everything(source: Any, size: int = 4) -> tuple[list[Chunk], dict[str, np.ndarray[Any, Any]]]:
    """Return all chunks of a source and their rows as columns."""
    chunks = list(source.chunks(size))
    columns = [to_columns(chunk.rows, SIGNATURE, chunk.first, "x") for chunk in chunks]
    source.close()
    return chunks, {name: np.concatenate([part[name] for part in columns]) for name in SIGNATURE.names}


def sqlite_table(path: Path, *, primary: str = "") -> Address:
    """Write the rows into a SQLite table and return its address."""
    with sqlite3.connect(path) as connection:
        connection.execute(
            f"CREATE TABLE houses (id TEXT {primary}, size REAL, floor INTEGER, street TEXT, other TEXT)"
        )
        values = [tuple(row.values()) for row in ROWS.to_pylist()]
        connection.executemany("INSERT INTO houses VALUES (?, ?, ?, ?, ?)", values)
    connection.close()
    return Address("sqlite", str(path), "houses")


def source_of(kind: str, folder: Path, key: str | None) -> Any:
    """Return a source of each kind with the same rows."""
    if kind == "parquet":
        pq.write_table(ROWS, folder / "rows.parquet")
        return ParquetSource(Address(kind, str(folder / "rows.parquet")), SIGNATURE, key)
    if kind == "folder":
        (folder / "parts").mkdir()
        pq.write_table(ROWS.slice(0, 7), folder / "parts" / "a.parquet")
        pq.write_table(ROWS.slice(7), folder / "parts" / "b.parquet")
        return ParquetSource(Address("parquet", str(folder / "parts")), SIGNATURE, key)
    if kind == "csv":
        pyarrow.csv.write_csv(ROWS, folder / "rows.csv")
        return CsvSource(Address(kind, str(folder / "rows.csv")), SIGNATURE, key)
    return TableSource(sqlite_table(folder / "rows.db"), SIGNATURE, key)


@pytest.mark.parametrize("key", ["id", None])
@pytest.mark.parametrize("kind", ["parquet", "folder", "csv", "sqlite"])
def test_every_source_gives_the_same_rows_in_chunks(kind: str, key: str | None, tmp_path: Path) -> None:
    """The values, the order and the sizes are the same; keys are those of the key column, or all different."""
    source = source_of(kind, tmp_path, key)
    assert source.rows == (None if kind == "csv" else 10)
    chunks, columns = everything(source)
    assert [chunk.rows.num_rows for chunk in chunks] == ([4, 3, 3] if kind == "folder" else [4, 4, 2])
    assert columns["size"].tolist() == [float(number) for number in range(10)]
    assert columns["floor"].dtype == np.int64
    assert columns["street"].tolist() == ["a", None] * 5
    assert np.isnat(columns["sold"]).all()
    keys = [one for chunk in chunks for one in chunk.keys]
    assert keys == ROWS["id"].to_pylist() if key else len(set(keys)) == 10


@pytest.mark.parametrize("kind", ["parquet", "folder", "csv", "sqlite"])
def test_keys_without_a_key_column_are_the_same_in_the_next_run(kind: str, tmp_path: Path) -> None:
    """A second reader of the same rows computes the same keys, whatever the size of its chunks."""
    first = [key for chunk in source_of(kind, tmp_path, None).chunks(4) for key in chunk.keys]
    address: dict[str, tuple[Any, Address]] = {
        "parquet": (ParquetSource, Address("parquet", str(tmp_path / "rows.parquet"))),
        "folder": (ParquetSource, Address("parquet", str(tmp_path / "parts"))),
        "csv": (CsvSource, Address("csv", str(tmp_path / "rows.csv"))),
        "sqlite": (TableSource, Address("sqlite", str(tmp_path / "rows.db"), "houses")),
    }
    make, place = address[kind]
    again = [key for chunk in make(place, SIGNATURE, None).chunks(3) for key in chunk.keys]
    assert again == first


def test_a_primary_key_names_the_rows_of_a_table(tmp_path: Path) -> None:
    """Without a key in the configuration the table's own is taken; a view without one is refused."""
    address = sqlite_table(tmp_path / "rows.db", primary="PRIMARY KEY")
    source = TableSource(address, SIGNATURE, None)
    assert [key for chunk in source.chunks(99) for key in chunk.keys] == ROWS["id"].to_pylist()
    with sqlite3.connect(address.place) as connection:
        connection.execute("CREATE VIEW cheap AS SELECT * FROM houses WHERE size < 5")
    connection.close()
    with pytest.raises(InvalidConfig, match="no primary key"):
        TableSource(Address("sqlite", address.place, "cheap"), SIGNATURE, None)
    assert TableSource(Address("sqlite", address.place, "cheap"), SIGNATURE, "id").rows == 5


def test_a_corrected_row_without_a_key_is_a_new_row(tmp_path: Path) -> None:
    """The content is part of the key: a value that changed is scored again."""
    keys = []
    for value in (1.0, 2.0):
        table = ROWS.set_column(1, "size", pa.array([value] * 10))
        pq.write_table(table, tmp_path / "rows.parquet")
        source = ParquetSource(Address("parquet", str(tmp_path / "rows.parquet")), SIGNATURE, None)
        keys.append({key for chunk in source.chunks(99) for key in chunk.keys})
    assert not keys[0] & keys[1]


def test_a_wrong_value_is_named_with_its_row(tmp_path: Path) -> None:
    """CSV text, a SQLite value of another type, and a missing required value say row, column and value."""
    lines = ["size,floor", *("1.5,2" for _ in range(20)), "1.5,two", "1.5,3"]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    source = CsvSource(Address("csv", str(tmp_path / "rows.csv")), SIGNATURE, None)
    with pytest.raises(
        SchemaMismatch, match=r"Row 20 of x: column 'floor' is 'two', which does not fit the type long"
    ):
        everything(source, 8)
    with sqlite3.connect(tmp_path / "rows.db") as connection:
        connection.execute("CREATE TABLE houses (size, floor)")
        connection.executemany("INSERT INTO houses VALUES (?, ?)", [(1.0, 1), (2, 2), ("large", 3)])
    connection.close()
    table = TableSource(Address("sqlite", str(tmp_path / "rows.db"), "houses"), SIGNATURE, None)
    with pytest.raises(SchemaMismatch, match=r"Row 2 of x: column 'size' is 'large'"):
        everything(table)
    rows = pa.RecordBatch.from_pydict({"size": [1.0, None], "floor": [1, 2]})
    with pytest.raises(SchemaMismatch, match=r"Row 101 of x: column 'size' is empty") as caught:
        to_columns(rows, SIGNATURE, 100, "x")
    assert caught.value.attrs == {"row": 101, "field": "size"}


def test_what_is_missing_is_named_with_the_nearest(tmp_path: Path) -> None:
    """A missing file, table, column and key column each name what is there."""
    source_of("parquet", tmp_path, None)
    with pytest.raises(NotFound, match=r"Did you mean '.*rows\.parquet'"):
        ParquetSource(Address("parquet", str(tmp_path / "row.parquet")), SIGNATURE, None)
    with pytest.raises(NotFound, match=r"folder .*none does not exist"):
        ParquetSource(Address("parquet", str(tmp_path / "none" / "row.parquet")), SIGNATURE, None)
    with pytest.raises(NotFound, match=r"key column .* 'ident'.*Known: id"):
        ParquetSource(Address("parquet", str(tmp_path / "rows.parquet")), SIGNATURE, "ident")
    address = sqlite_table(tmp_path / "rows.db")
    with pytest.raises(NotFound, match=r"table in rows\.db 'house'. Did you mean 'houses'"):
        TableSource(Address("sqlite", address.place, "house"), SIGNATURE, None)
    with pytest.raises(NotFound, match=r"There is no database"):
        TableSource(Address("sqlite", str(tmp_path / "raws.db"), "houses"), SIGNATURE, None)
    other = Signature((Column("sizes", "double"),), Task.regression)
    with pytest.raises(SchemaMismatch, match=r"no column 'sizes'.*Did you mean 'size'"):
        TableSource(address, other, None)
    (tmp_path / "broken.parquet").write_text("no parquet")
    with pytest.raises(InvalidInput, match=r"broken\.parquet cannot be read"):
        ParquetSource(Address("parquet", str(tmp_path / "broken.parquet")), SIGNATURE, None)


def predictions(ids: list[str]) -> pa.RecordBatch:
    """Return rows for a sink."""
    n = len(ids)
    return pa.RecordBatch.from_pydict(
        {
            "prediction_id": ids,
            "key": [f"k{one[:4]}" for one in ids],
            "prediction": [1.5] * n,
            "probability": pa.array([None] * n, pa.string()),
            "model": ["m"] * n,
            "version": pa.array([3] * n, pa.int32()),
            "at": pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * n, pa.timestamp("us", "UTC")),
        }
    )


@pytest.mark.parametrize("kind", ["sqlite", "parquet"])
def test_a_sink_never_holds_an_id_twice(kind: str, tmp_path: Path) -> None:
    """Ids that are written stay as they are, in the same sink and in one that is opened later."""
    ids = [Ids(bytes(32)).derive(str(number)) for number in range(50)]
    address = Address(kind, str(tmp_path / "out"), "scores")
    make: Any = {"sqlite": TableSink, "parquet": ParquetSink}[kind]
    sink = make(address, SIGNATURE)
    assert sink.known(ids) == set()
    sink.write(predictions(ids[:20]))
    sink.write(predictions(ids[10:30]))
    assert sink.known(ids) == set(ids[:30])
    sink.close()
    again = make(address, SIGNATURE)
    assert again.known(ids) == set(ids[:30])
    again.write(predictions(ids))
    again.close()
    if kind == "parquet":
        found = pq.read_table(tmp_path / "out")["prediction_id"].to_pylist()
    else:
        with sqlite3.connect(address.place) as connection:
            found = [one for (one,) in connection.execute("SELECT prediction_id FROM scores")]
        connection.close()
    assert sorted(found) == sorted(ids)


def test_a_sink_that_is_something_else_is_refused(tmp_path: Path) -> None:
    """A table of another shape, a folder of other files and a file are not written to."""
    address = sqlite_table(tmp_path / "rows.db")
    with pytest.raises(Conflict, match="has no column 'prediction_id'"):
        TableSink(address, SIGNATURE)
    pq.write_table(ROWS, tmp_path / "rows.parquet")
    with pytest.raises(Conflict, match="no column 'prediction_id'"):
        ParquetSink(Address("parquet", str(tmp_path)), SIGNATURE)
    with pytest.raises(Conflict, match="is a file"):
        ParquetSink(Address("parquet", str(tmp_path / "rows.parquet")), SIGNATURE)


def test_an_id_set_finds_what_was_added() -> None:
    """Sets that grow in many steps hold exactly what was added."""
    ids = [Ids(bytes(32)).derive(str(number)) for number in range(2000)]
    known = IdSet()
    for start in range(0, 1000, 7):
        known.add(ids[start : min(start + 7, 1000)])
    assert known.contains(ids).tolist() == [True] * 1000 + [False] * 1000
    assert len(known) == 1000


@pytest.mark.parametrize(
    ("text", "kind", "place", "table"),
    [
        ("data/rows.csv", "csv", "{root}/data/rows.csv", ""),
        ("/abs/rows.parquet", "parquet", "/abs/rows.parquet", ""),
        ("out", "parquet", "{root}/out", ""),
        ("sqlite:///a.db?table=t", "sqlite", "{root}/a.db", "t"),
        ("sqlite:////abs/a.db?table=t", "sqlite", "/abs/a.db", "t"),
        (
            "postgresql://me:pw@h/d?table=s.t&sslmode=require",
            "postgresql",
            "postgresql+psycopg://me:pw@h/d?sslmode=require",
            "s.t",
        ),
        ("postgres://h/d?table=t", "postgresql", "postgresql+psycopg://h/d", "t"),
        ("s3://bucket/rows", "s3", "s3://bucket/rows", ""),
    ],
)
def test_addresses_are_read(text: str, kind: str, place: str, table: str, tmp_path: Path) -> None:
    """Paths start at the project's folder, databases name their table, and a password is never shown."""
    project = Project(tmp_path, Config())
    found = parse(project, text)
    assert found == Address(kind, place.format(root=project.root), table)
    assert ":pw@" not in str(found)


def test_wrong_addresses_say_what_is_known(tmp_path: Path) -> None:
    """No table, a misspelled parameter and an unknown kind are refused with what is valid."""
    project = Project(tmp_path, Config())
    with pytest.raises(InvalidConfig, match="which table"):
        parse(project, "sqlite:///a.db")
    with pytest.raises(InvalidConfig, match="Did you mean 'table' instead of 'tabel'"):
        parse(project, "sqlite:///a.db?tabel=t")
    with pytest.raises(NotFound, match=r"There is no batch source 's3'\. Known: csv, parquet"):
        plugins.load("batch_source", parse(project, "s3://bucket/rows").kind)
