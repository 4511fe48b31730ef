"""Datasets out of a real PostgreSQL and a real S3 server."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from object_store import object_store
from one_server import free_port
from postgres import postgresql

from loopwright.config import Project
from loopwright.errors import Denied, InvalidInput, NotFound, Unavailable
from loopwright.ledger import Ledger
from loopwright.lineage import dataset
from loopwright.records import DatasetRef

pytestmark = [
    pytest.mark.integration,
    # pyarrow asks pandas for times with a zone in a way that pandas will drop.
    pytest.mark.filterwarnings("ignore:Series.values:DeprecationWarning"),
]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project without data."""
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    (tmp_path / "loopwright.toml").write_text("")
    return Project(tmp_path)


def sources(project: Project) -> set[str]:
    """Return the source of each dataset."""
    ledger = Ledger.open(project)
    try:
        return {state.read(DatasetRef).source for state in ledger.states("dataset")}
    finally:
        ledger.close()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a database with orders."""
    with postgresql(tmp_path_factory.mktemp("postgres")) as place:
        engine = sa.create_engine(f"postgresql+psycopg://owner@{place}/postgres")
        with engine.begin() as connection:
            for statement in (
                "create table orders (id bigint, amount numeric(8, 2), at timestamptz, who text, key uuid, note text)",
                (
                    "insert into orders select i, i * 1.5, timestamptz '2024-01-01' + i * interval '1 h', 'w1', "
                    "gen_random_uuid(), null from generate_series(1, 45000) i"
                ),
                "create sequence numbers",
                "create role guest login password 'p@ss/word'",
            ):
                connection.exec_driver_sql(statement)
        engine.dispose()
        yield f"postgresql://owner@{place}/postgres"


def test_rows_of_postgresql(project: Project, shop: str) -> None:
    """Numbers, times, text and UUIDs have usable types, a column of gaps its own; one result has one fingerprint."""
    sql = "select *, id % 10 as digit from orders where who like 'w%' order by id"
    frame = dataset("orders", sql=sql, source=shop, project=project)
    assert len(frame) == 45_000
    assert str(frame["amount"].dtype) == "float64"
    assert frame["at"].iloc[0] == pd.Timestamp("2024-01-01 01:00", tz="UTC").tz_convert(frame["at"].dt.tz)
    table = dataset("orders", sql=sql, source=shop, as_="arrow", project=project)
    assert table.schema.field("note").type == pa.string()
    dataset("orders", f"{shop}?query={sql}", project=project)
    assert sources(project) == {f"{shop}?query={sql}"}
    assert len(list(project.datasets.rglob("*.parquet"))) == 1


def test_what_is_wrong_in_the_database_is_said(
    project: Project, shop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing table, database and server; no rights; a query that writes; no secret in any message or record."""
    monkeypatch.setenv("SHOP_PASSWORD", "p@ss/word")
    guest = shop.replace("owner@", "guest:${SHOP_PASSWORD}@")
    cases: list[tuple[str, str, Any, str]] = [
        (shop, "select * from order_s", NotFound, "does not exist"),
        (shop, "select nothing from orders", NotFound, "does not exist"),
        (shop, "selct 1", InvalidInput, "syntax error"),
        (shop, "select nextval('numbers')", InvalidInput, "read-only"),
        (shop.replace("/postgres", "/nowhere"), "select 1", NotFound, "does not exist"),
        (f"postgresql://owner@127.0.0.1:{free_port()}/x", "select 1", Unavailable, "does not answer"),
        (guest, "select * from orders", Denied, "permission denied"),
    ]
    for source, sql, error, text in cases:
        with pytest.raises(error, match=text) as caught:
            dataset("orders", sql=sql, source=source, project=project)
        assert "p@ss" not in str(caught.value)
    dataset("one", sql="select 1 as one", source=guest, project=project)
    assert sources(project) == {f"{guest}?query=select 1 as one"}
    monkeypatch.setenv("SHOP_URL", shop)
    dataset("two", sql="select 2 as two", source="${SHOP_URL}", project=project)
    assert "${SHOP_URL}?query=select 2 as two" in sources(project)


@pytest.fixture(scope="module")
def store() -> Iterator[pafs.S3FileSystem]:
    """Run an S3 server and point the environment at it."""
    with object_store("lake") as made:
        yield made


def test_rows_of_an_object_store(project: Project, store: pafs.S3FileSystem) -> None:
    """Parquet, CSV and a folder of parts of one content are one snapshot."""
    table = pa.table({"x": [1, 2, 3], "who": ["a", "b", "ä"]})
    pq.write_table(table, "lake/one.parquet", filesystem=store)
    pq.write_table(table[:1], "lake/parts/p0.parquet", filesystem=store)
    pq.write_table(table[1:], "lake/parts/p1.parquet", filesystem=store)
    with store.open_output_stream("lake/one.csv") as out:
        out.write("x,who\n1,a\n2,b\n3,ä\n".encode())
    for key in ("one.parquet", "parts", "parts/", "one.csv"):
        assert dataset("x", f"s3://lake/{key}", project=project)["who"].tolist() == ["a", "b", "ä"]
    assert len(list(project.datasets.rglob("*.parquet"))) == 1
    with pytest.raises(NotFound, match=r"Did you mean s3://lake/one\.parquet"):
        dataset("x", "s3://lake/on.parquet", project=project)
    with pytest.raises(NotFound, match=r"There is no s3://nobucket/x\.csv"):
        dataset("x", "s3://nobucket/x.csv", project=project)
    with pytest.raises(InvalidInput, match="names no object"):
        dataset("x", "s3://lake", project=project)


def test_a_store_that_is_gone_is_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens at the address."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, os.environ.get(name, "test"))
    with pytest.raises(Unavailable, match="does not answer"):
        dataset("x", "s3://lake/one.parquet", project=project)
