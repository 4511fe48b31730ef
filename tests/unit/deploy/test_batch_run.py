"""Batch runs: each row once, also after a crash, logged and written."""

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from four_modes import new_project, serve, wine, wine_version, with_bands

from loopwright.config import Project
from loopwright.deploy import batch
from loopwright.deploy.base import Predictor
from loopwright.deploy.batch import job
from loopwright.deploy.batch.tables import TableSink
from loopwright.errors import Conflict, InvalidInput, NotFound, SchemaMismatch, Unavailable
from loopwright.ledger import Ledger
from loopwright.predictions import Ids, PredictionStore
from loopwright.scoring import load
from loopwright.scoring.base import GOLDEN, Band

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project's folder with wine/1 and wine/2 prepared, which tests copy."""
    root = tmp_path_factory.mktemp("batch")
    project = new_project(root)
    wine_version(project)
    wine_version(project, seed_rows=120)
    rows = wine().drop(columns="grower")
    rows.insert(0, "bottle", [f"b{number}" for number in range(len(rows))])
    rows.to_parquet(root / "rows.parquet")
    rows.to_csv(root / "rows.csv", index=False)
    return root


@pytest.fixture
def root(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the project's folder, in which chunks are small."""
    shutil.copytree(prepared, tmp_path / "project")
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    monkeypatch.setattr(job, "CHUNK_ROWS", 50)
    return tmp_path / "project"


def started(root: Path, **settings: str) -> Project:
    """Return the project with wine/1 served in batch."""
    project = new_project(root, **settings)
    serve(project, "wine-batch", 1)
    return project


def written(root: Path) -> list[dict[str, Any]]:
    """Return the rows of the sink."""
    with sqlite3.connect(root / "out.db") as connection:
        connection.row_factory = sqlite3.Row
        found = [dict(row) for row in connection.execute("SELECT * FROM p ORDER BY rowid")]
    connection.close()
    return found


def logged(project: Project) -> list[str]:
    """Return all prediction ids in the log."""
    return list(
        PredictionStore(project).query("select prediction_id from predictions")["prediction_id"].to_pylist()
    )


@pytest.mark.parametrize(
    ("source", "sink", "key"),
    [
        ("rows.parquet", "sqlite:///out.db?table=p", "bottle"),
        ("rows.csv", "sqlite:///out.db?table=p", ""),
        ("rows.csv", "out", "bottle"),
    ],
)
def test_a_run_writes_and_logs_each_row_once(source: str, sink: str, key: str, root: Path) -> None:
    """All rows are in the sink and in the log under the same ids, with the scorer's answers; a second run adds none."""
    project = started(root, source=source, sink=sink, key=key)
    steps: list[tuple[int, int | None]] = []
    done = batch.run(project, "wine-batch", progress=lambda rows, total: steps.append((rows, total)))
    assert (done.rows, done.new_rows, done.repeated, done.versions) == (178, 178, 0, {1: 178})
    assert steps[-1] == (178, 178 if source.endswith("parquet") else None)
    rows = pq.read_table(root / "out").to_pylist() if sink == "out" else written(root)
    assert sorted(row["prediction_id"] for row in rows) == sorted(logged(project))
    columns = {name: values.to_numpy() for name, values in wine().drop(columns="grower").items()}
    expected = load(project.scorer("wine", 1)).score({str(name): values for name, values in columns.items()})
    assert sorted(row["prediction"] for row in rows) == sorted(expected.prediction.tolist())
    if sink != "out":
        assert expected.probability is not None
        shares = dict(zip(("anna", "bruno", "carla"), expected.probability[0].tolist(), strict=True))
        assert json.loads(rows[0]["probability"]) == pytest.approx(shares)
        assert (rows[0]["model"], rows[0]["version"]) == ("wine", 1)
    if key:
        assert {row["key"] for row in rows} == {f"b{number}" for number in range(178)}
        assert Ids.open(project).derive("wine-batch", "1", "b7") in {row["prediction_id"] for row in rows}
    again = batch.run(project, "wine-batch")
    assert (again.rows, again.new_rows) == (178, 0)
    assert len(logged(project)) == 178
    event = Ledger.open(project).last("batch.completed", "wine-batch")
    assert event is not None
    assert event.payload["new_rows"] == 0


def test_new_rows_and_a_new_version_are_scored(root: Path) -> None:
    """Rows added to the source are scored alone; another version scores all of them."""
    project = started(root, key="bottle")
    table = pq.read_table(root / "rows.parquet")
    pq.write_table(table.slice(0, 100), root / "rows.parquet")
    assert batch.run(project, "wine-batch").new_rows == 100
    pq.write_table(table, root / "rows.parquet")
    assert batch.run(project, "wine-batch").new_rows == 78
    serve(project, "wine-batch", 2)
    assert batch.run(project, "wine-batch").versions == {2: 178}
    assert len(written(root)) == 356


@pytest.mark.parametrize("moment", ["before the log", "before the sink", "behind the sink"])
def test_a_run_that_dies_is_taken_up_without_loss_or_repetition(
    moment: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed around the log or the sink in its second chunk, twice: sink and log hold each row once in the end."""
    project = started(root, key="bottle")
    write, predict = TableSink.write, Predictor.predict
    calls = {"write": 0, "predict": 0}

    def dying_write(self: TableSink, rows: pa.RecordBatch) -> None:
        calls["write"] += 1
        if calls["write"] == 2 and moment == "before the sink":
            raise KeyboardInterrupt
        write(self, rows)
        if calls["write"] == 2 and moment == "behind the sink":
            raise KeyboardInterrupt

    def dying_predict(self: Any, *arguments: Any, **options: Any) -> Any:
        calls["predict"] += 1
        if calls["predict"] == 2 and moment == "before the log":
            raise KeyboardInterrupt
        return predict(self, *arguments, **options)

    monkeypatch.setattr(TableSink, "write", dying_write)
    monkeypatch.setattr(Predictor, "predict", dying_predict)
    for _ in range(2):
        calls.update(write=0, predict=0)
        with pytest.raises(KeyboardInterrupt):
            batch.run(project, "wine-batch")
    monkeypatch.undo()
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    batch.run(project, "wine-batch")
    ids = [row["prediction_id"] for row in written(root)]
    assert len(ids) == len(set(ids)) == 178
    assert sorted(logged(project)) == sorted(ids)
    assert not list((project.state / "batch").glob("*.unfinished"))


def test_a_key_that_comes_twice_is_scored_once_and_counted(root: Path) -> None:
    """Rows with the key of an earlier row are not scored, and the run says how many there were."""
    project = started(root, key="bottle")
    table = pq.read_table(root / "rows.parquet")
    pq.write_table(pa.concat_tables([table, table.slice(0, 60)]), root / "rows.parquet")
    done = batch.run(project, "wine-batch")
    assert (done.rows, done.new_rows, done.repeated) == (238, 178, 60)
    assert len(logged(project)) == 178


def test_a_wrong_row_stops_the_run_behind_the_rows_before_it(root: Path) -> None:
    """The error names file, row, column and value; what was scored before stays and the next run goes on."""
    project = started(root, source="rows.csv", key="bottle")
    good = (root / "rows.csv").read_text()
    lines = good.splitlines()
    lines[121] = lines[121].replace(lines[121].split(",")[3], "wet", 1)
    (root / "rows.csv").write_text("\n".join(lines))
    with pytest.raises(SchemaMismatch, match=r"Row 120 of .*rows\.csv: column 'ash' is 'wet'"):
        batch.run(project, "wine-batch")
    assert len(written(root)) == 100
    (root / "rows.csv").write_text(good)
    assert batch.run(project, "wine-batch").new_rows == 78


def test_two_runs_of_one_deployment_do_not_mix(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one is refused while the first holds the deployment."""
    project = started(root)

    def second(_rows: int, _total: int | None) -> None:
        with pytest.raises(Conflict, match="running already"):
            batch.run(project, "wine-batch")

    assert batch.run(project, "wine-batch", progress=second).new_rows == 178


def test_what_cannot_run_says_why(root: Path) -> None:
    """A deployment of another mode, one never started, and a version that cannot be loaded."""
    project = new_project(root)
    with pytest.raises(InvalidInput, match="mode edge"):
        batch.run(project, "wine-edge")
    with pytest.raises(NotFound, match="started deployment"):
        batch.run(project, "wine-batch")
    serve(project, "wine-batch", 1)
    (project.scorer("wine", 1) / "model.onnx").write_bytes(b"broken")
    with pytest.raises(Unavailable, match="is not what was prepared"):
        batch.run(project, "wine-batch")


def test_large_chunks_are_answered_by_the_runtime_for_them_from_the_first_on(root: Path) -> None:
    """No chunk is left to the runtime for single rows while the other is loaded; small chunks need no other."""
    project = started(root, key="bottle")
    # The model for large batches is another one here, so that its answers can be told.
    (project.scorer("wine", 1) / GOLDEN).unlink()
    with_bands(
        project.scorer("wine", 1), Band("onnx", 20), Band("native"), native=root / "models" / "wine" / "2"
    )
    table = pq.read_table(root / "rows.parquet")
    batch.run(project, "wine-batch")
    pq.write_table(
        table.slice(0, 10).set_column(0, "bottle", [[f"n{n}" for n in range(10)]]), root / "rows.parquet"
    )
    batch.run(project, "wine-batch")
    found = np.array([list(json.loads(row["probability"]).values()) for row in written(root)])
    columns = {name: table[name].to_numpy() for name in table.column_names if name != "bottle"}
    first = {name: values[:10] for name, values in columns.items()}
    large, small = (
        load(project.scorer("wine", version)).score(rows).probability
        for version, rows in ((2, columns), (1, first))
    )
    assert large is not None
    assert small is not None
    # The last chunk of the first run has 28 rows: all are above 20.
    np.testing.assert_allclose(found[:178], large, atol=1e-9)
    np.testing.assert_allclose(found[178:], small, atol=1e-9)
    assert np.abs(large[:10] - small).max() > 1e-4
