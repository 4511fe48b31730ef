"""Batch from and into a real PostgreSQL, killed between log and sink, and with rights taken away."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from four_modes import new_project, serve, wine, wine_version
from postgres import postgresql

from loopwright.config import Project
from loopwright.deploy import batch
from loopwright.errors import Denied, InvalidConfig, NotFound, SchemaMismatch, Unavailable
from loopwright.predictions import PredictionStore

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a private PostgreSQL on a free port and return its URL without a database."""
    with postgresql(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of wine/1, prepared."""
    root = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LOOPWRIGHT_LEDGER", raising=False)
        wine_version(new_project(root))
    return root


@pytest.fixture
def database(server: str, request: pytest.FixtureRequest) -> Iterator[sa.Engine]:
    """Return a new database with the wines in the table ``cellar.wines``."""
    name = f"d{abs(hash(request.node.name))}"
    owner = sa.create_engine(f"postgresql+psycopg://owner@{server}/postgres", isolation_level="AUTOCOMMIT")
    with owner.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    owner.dispose()
    engine = sa.create_engine(f"postgresql+psycopg://owner@{server}/{name}")
    rows = wine().drop(columns="grower")
    columns = ", ".join(
        f'"{column}" {"numeric" if column == "hue" else "double precision"}' for column in rows
    )
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE SCHEMA cellar"))
        connection.execute(sa.text(f"CREATE TABLE cellar.wines (bottle integer PRIMARY KEY, {columns})"))
        table = sa.table("wines", *(sa.column(name) for name in ["bottle", *rows]), schema="cellar")
        values: list[Any] = rows.reset_index(names="bottle").to_dict("records")
        connection.execute(sa.insert(table), values)
    yield engine
    engine.dispose()


def started(prepared: Path, root: Path, database: sa.Engine, **settings: str) -> Project:
    """Return a project with wine/1 in a batch deployment from and into the database."""
    place = f"postgresql://owner@{database.url.host}:{database.url.port}/{database.url.database}"
    chosen = {"source": f"{place}?table=cellar.wines", "sink": f"{place}?table=scores", **settings}
    project = new_project(root, **chosen)
    (project.state / "scorers").symlink_to(prepared / ".loopwright" / "scorers")
    serve(project, "wine-batch", 1)
    return project


@pytest.fixture(autouse=True)
def _own_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)


def scores(database: sa.Engine) -> list[dict[str, Any]]:
    """Return the rows of the sink."""
    with database.connect() as connection:
        found = connection.execute(sa.text("SELECT * FROM scores")).mappings()
        return [dict(row) for row in found]


def test_rows_go_from_table_to_table_once(prepared: Path, tmp_path: Path, database: sa.Engine) -> None:
    """The primary key names the rows; a second run adds none; a new row is scored alone."""
    project = started(prepared, tmp_path, database)
    assert batch.run(project, "wine-batch").new_rows == 178
    assert batch.run(project, "wine-batch").new_rows == 0
    found = scores(database)
    assert {row["key"] for row in found} == {str(number) for number in range(178)}
    assert {row["model"] for row in found} == {"wine"}
    assert sum(json.loads(found[0]["probability"]).values()) == pytest.approx(1)
    assert found[0]["at"].tzinfo is not None
    with database.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO cellar.wines SELECT 999, "
                + ", ".join(f'"{one}"' for one in wine().columns[:-1])
                + " FROM cellar.wines WHERE bottle = 0"
            )
        )
    assert batch.run(project, "wine-batch").new_rows == 1
    log = PredictionStore(project).query("select prediction_id from predictions")["prediction_id"].to_pylist()
    assert sorted(log) == sorted(row["prediction_id"] for row in scores(database))


#: A batch that kills its process in its second chunk, when that is logged and not yet written.
DYING = """
import os, signal, sys
from loopwright.deploy.batch import job
from loopwright.deploy.batch.run import main
from loopwright.deploy.batch.tables import TableSink

job.CHUNK_ROWS = 40
write, calls = TableSink.write, []

def dying(self, rows):
    calls.append(rows.num_rows)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, rows)

TableSink.write = dying
sys.exit(main(["wine-batch"]))
"""


def test_three_kills_lose_and_repeat_nothing(prepared: Path, tmp_path: Path, database: sa.Engine) -> None:
    """Killed between log and sink three times: then table and log hold the same 178 ids, each once."""
    project = started(prepared, tmp_path, database)
    environment = os.environ | {"LOOPWRIGHT_PROJECT": str(tmp_path)}
    for _ in range(3):
        died = subprocess.run(
            [sys.executable, "-c", DYING], env=environment, capture_output=True, text=True, check=False
        )
        assert died.returncode == -signal.SIGKILL, died.stderr
    last = subprocess.run(
        [sys.executable, "-m", "loopwright.deploy.batch.run", "wine-batch"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert last.returncode == 0, last.stderr
    assert "178 rows read" in last.stdout
    ids = [row["prediction_id"] for row in scores(database)]
    log = PredictionStore(project).query("select prediction_id from predictions")["prediction_id"].to_pylist()
    assert len(set(ids)) == len(ids) == 178
    assert sorted(log) == sorted(ids)


def test_what_is_wrong_in_the_database_is_said(
    prepared: Path, tmp_path: Path, database: sa.Engine, server: str
) -> None:
    """A missing table, schema, database and server; no rights; no key; and a value of the wrong type."""
    place = f"postgresql://owner@{server}/{database.url.database}"

    def run(**settings: str) -> None:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        batch.run(started(prepared, folder, database, **settings), "wine-batch")

    with pytest.raises(NotFound, match="Did you mean 'wines'"):
        run(source=f"{place}?table=cellar.wine")
    with pytest.raises(NotFound, match="does not exist"):
        run(source=f"postgresql://owner@{server}/nowhere?table=t")
    with pytest.raises(Unavailable, match="does not answer"):
        run(source=f"postgresql://owner@127.0.0.1:1/{database.url.database}?table=t")
    with database.begin() as connection:
        connection.execute(sa.text("CREATE ROLE guest LOGIN"))
        connection.execute(sa.text("GRANT USAGE ON SCHEMA cellar TO guest"))
        connection.execute(sa.text("CREATE TABLE keyless AS SELECT * FROM cellar.wines"))
        connection.execute(sa.text("CREATE TABLE texts AS SELECT * FROM cellar.wines"))
        connection.execute(sa.text("ALTER TABLE texts ALTER ash TYPE text, ADD PRIMARY KEY (bottle)"))
        connection.execute(sa.text("UPDATE texts SET ash = 'much' WHERE bottle = 5"))
    guest = place.replace("owner@", "guest@")
    with pytest.raises(Denied, match="permission denied"):
        run(source=f"{guest}?table=cellar.wines")
    with pytest.raises(Denied, match="permission denied"):
        run(sink=f"{guest}?table=mine")
    with pytest.raises(InvalidConfig, match="no primary key"):
        run(source=f"{place}?table=keyless")
    with pytest.raises(SchemaMismatch, match="column 'ash' is 'much', which does not fit the type double"):
        run(source=f"{place}?table=texts")
