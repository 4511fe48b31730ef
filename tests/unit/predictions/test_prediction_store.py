"""Reading: spans of time, splits, versions with other inputs, and SQL that can only read."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from prediction_rows import FLOWERS, project_in, rows, run_apart

from loopwright.config import Project
from loopwright.errors import InvalidInput, NotFound
from loopwright.ledger import Ledger
from loopwright.predictions import (
    HOLDOUT_DIGITS,
    Ids,
    LabelLog,
    PredictionLog,
    PredictionStore,
    files,
    rows_of,
)
from loopwright.predictions.shelves import NamedShelf
from loopwright.predictions.snapshots import read_snapshot
from loopwright.records import Column, Label, ModelVersion, Signature, Task

START = datetime(2026, 9, 21, 12, tzinfo=UTC)
START_US = int(START.timestamp() * 1e6)
MINUTE_US = 60_000_000


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a new project."""
    return project_in(tmp_path)


@pytest.fixture
def ten_minutes(project: Project) -> PredictionStore:
    """Return the store of a project with 10 predictions in each of 10 minutes, half sealed, half in a tail."""
    log = PredictionLog(project, "api", "iris", FLOWERS, seal_rows=10)
    for minute in range(10):
        log.append(rows(project, 10, at_us=START_US + minute * MINUTE_US, version=1 + minute // 5))
        if minute < 5:
            log.maintain()
    return PredictionStore(project)


def _write(project: Project, signature: Signature, deployment: str = "api", **changes: Any) -> list[str]:
    log = PredictionLog(project, deployment, "iris", signature)
    batch = rows(project, len(changes["prediction"]), **changes)
    log.append(batch)
    log.close()
    return batch.prediction_id


def test_an_empty_log_gives_typed_empty_tables(project: Project) -> None:
    """Before the first prediction a query works and its columns have their types."""
    store = PredictionStore(project)
    table = store.table()
    assert table.num_rows == 0
    assert table.schema.field("at").type == pa.timestamp("us", tz="UTC")
    assert table.schema.field("version").type == pa.int32()
    assert table.schema.names[-5:] == ["prediction", "probability", "actual", "labelled_at", "actual_at"]
    assert store.count() == store.count(deployment="quiet") == 0
    assert store.rates().num_rows == 0
    assert store.logged(["0" * 32]) == set()
    assert store.query("select avg(actual = prediction) as a from predictions").to_pylist() == [{"a": None}]


def test_an_empty_log_has_the_columns_of_the_newest_version(project: Project) -> None:
    """A KPI over an input works before the first prediction when a version of the model is registered."""
    ledger = Ledger.open(project)
    ledger.put("model_version", "iris/1", ModelVersion("iris", 1, "run", "uri", signature=FLOWERS))
    ledger.put("model_version", "rose/1", ModelVersion("rose", 1, "run", "uri"))
    ledger.close()
    table = PredictionStore(project).query(
        "select max(input_petal) as petal, max(prediction) as most from predictions", deployment="quiet"
    )
    assert table.schema.types == [pa.float64(), pa.int64()]


def test_unknown_names_are_refused_with_those_there_are(project: Project) -> None:
    """An unknown deployment, column or id is named, with the nearest known ones."""
    _write(project, FLOWERS, prediction=np.array([1]))
    store = PredictionStore(project)
    with pytest.raises(NotFound, match=r"Did you mean 'quiet'\? Known: api, quiet"):
        store.count(deployment="quite")
    with pytest.raises(InvalidInput, match=r"no column 'petal'.*input_petal"):
        store.table(columns=["petal"])
    with pytest.raises(NotFound, match="no prediction 'xyz'"):
        store.find("xyz")
    with pytest.raises(NotFound, match="no prediction"):
        store.find("0" * 32)
    with pytest.raises(InvalidInput, match="newest = 0"):
        store.table(newest=0)
    with pytest.raises(InvalidInput, match=r"since = .* has no time zone"):
        store.count(since=datetime.fromisoformat("2026-01-31"))


def test_a_span_of_time_includes_its_start_and_not_its_end(ten_minutes: PredictionStore) -> None:
    """Rows in [since, until) are given, from segments and tails alike."""
    end = START + timedelta(minutes=7)
    assert ten_minutes.table(since=START + timedelta(minutes=3), until=end).num_rows == 40
    one_us = timedelta(microseconds=1)
    assert ten_minutes.table(since=START + one_us, until=START + 3 * one_us).num_rows == 2
    assert ten_minutes.count(since=end) == 30
    assert ten_minutes.count(since=START + timedelta(days=1)) == 0
    empty = ten_minutes.query(
        "select max(input_petal) as p from predictions", until=START - timedelta(days=1)
    )
    assert empty.to_pylist() == [{"p": None}]


def test_segments_outside_a_span_are_not_opened(project: Project, ten_minutes: PredictionStore) -> None:
    """Segments are left out by the times in their names, so old files cost nothing."""
    folder = files.of_deployment(project, "api")
    assert len(read_snapshot([folder]).segments) == 5
    within = read_snapshot([folder], START_US + 60_000_000, START_US + 120_000_000).segments
    assert [segment.first_us for segment in within] == [START_US + MINUTE_US]
    for segment in folder.segments()[2:]:
        segment.path.write_bytes(b"damaged")
    assert ten_minutes.table(since=START, until=START + timedelta(minutes=1)).num_rows == 10
    # Three cannot be read: a query that needs them sets them aside and goes on with the others.
    assert ten_minutes.table().num_rows == 70
    assert folder.shelf.damaged() == 3


def test_sealing_while_the_log_is_read_loses_and_doubles_nothing(project: Project) -> None:
    """Whether a tail is sealed after it was listed or after it was read, its rows are in the snapshot once."""
    log = PredictionLog(project, "api", "iris", FLOWERS, seal_rows=3)

    class SealsAfterListing(files.LogFolder):
        def tails(self) -> list[Path]:
            found = super().tails()
            log.maintain()
            return found

    class SealsAfterReading(NamedShelf):
        def look(self, *asked: Any) -> files.Look:
            log.maintain()
            return super().look(*asked)

    root = files.of_deployment(project, "api").root
    for number, folder in enumerate(
        (SealsAfterListing(root), files.LogFolder(root, SealsAfterReading(root))), 1
    ):
        log.append(rows(project, 3))
        log.append(rows(project, 1))
        snapshot = read_snapshot([folder])
        assert (
            sum(table.num_rows for table in snapshot.tables)
            + sum(segment.rows for segment in snapshot.segments)
            == 4 * number
        )
    log.close()


def test_the_newest_rows_come_oldest_first(ten_minutes: PredictionStore) -> None:
    """`newest` takes the last rows, and every table is in the order of time."""
    table = ten_minutes.table(newest=15, columns=["at", "version"])
    times = [row["at"] for row in rows_of(table)]
    assert len(times) == 15
    assert times == sorted(times)
    assert times[-1] == START + timedelta(minutes=9, microseconds=9)
    assert table.schema.names == ["at", "version"]


def test_rates_count_rows_per_interval(ten_minutes: PredictionStore) -> None:
    """Traffic per interval and version, with latencies."""
    found = rows_of(ten_minutes.rates(every_s=300))
    assert [(row["start"], row["version"], row["rows"]) for row in found] == [
        (START, 1, 50),
        (START + timedelta(minutes=5), 2, 50),
    ]
    assert found[0]["latency_p50_ms"] == found[0]["latency_p99_ms"] == 1.5


def test_the_split_is_fixed_by_the_id(project: Project) -> None:
    """Each row is in exactly one split, always the same one."""
    ids = _write(project, FLOWERS, prediction=np.zeros(400, np.int64))
    store = PredictionStore(project)
    train = store.table(split="train").column("prediction_id").to_pylist()
    holdout = store.table(split="holdout").column("prediction_id").to_pylist()
    assert sorted([*train, *holdout]) == sorted(ids)
    assert {found[-1] for found in holdout} == set(HOLDOUT_DIGITS)
    assert not {found[-1] for found in train} & set(HOLDOUT_DIGITS)


def test_versions_with_other_inputs_are_put_together_by_name(project: Project) -> None:
    """An input that a version does not have is null in its rows, and a wider type takes both."""
    first = Signature((Column("petal", "long"),), Task.regression)
    second = Signature((Column("petal", "double"), Column("weight", "double")), Task.regression)
    one, two = np.array([1.0]), np.array([2.0])
    _write(project, first, inputs={"petal": np.array([4])}, prediction=one, at_us=START_US)
    log = PredictionLog(project, "api", "iris", second)
    log.append(rows(project, 1, inputs={"petal": np.array([0.5]), "weight": two}, prediction=two))
    table = PredictionStore(project).table()
    assert table.select(["input_petal", "input_weight", "prediction"]).to_pylist() == [
        {"input_petal": 4.0, "input_weight": None, "prediction": 1.0},
        {"input_petal": 0.5, "input_weight": 2.0, "prediction": 2.0},
    ]
    assert table.schema.names[11:] == [
        "input_petal",
        "input_weight",
        "prediction",
        "probability",
        "actual",
        "labelled_at",
        "actual_at",
    ]
    log.close()


def test_models_with_other_classes_can_be_read_together(project: Project) -> None:
    """Text labels of one deployment and numbers of another become text when they are asked for together."""
    words = Signature((Column("petal", "double"),), Task.classification, "y", ("rose", "tulip"))
    _write(project, FLOWERS, prediction=np.array([1]), at_us=START_US)
    _write(project, words, deployment="words", prediction=np.array(["rose"], object), at_us=START_US + 5)
    store = PredictionStore(project)
    assert store.table().column("prediction").to_pylist() == ["1", "rose"]
    assert store.table(deployment="api").column("prediction").to_pylist() == [1]
    assert store.table(model="iris").num_rows == 2
    assert store.table(model="oak").num_rows == 0


def test_a_prediction_is_found_with_its_own_inputs(project: Project) -> None:
    """Sealed or not, by an issued or a derived id: the row comes back with its inputs, missing ones as None."""
    other = Signature((Column("weight", "double"),), Task.regression)
    derived = Ids.open(project).derive("nightly", "row 1")
    _write(
        project,
        other,
        prediction=np.array([1.0]),
        prediction_id=[derived],
        inputs={"weight": np.array([0.5])},
    )
    log = PredictionLog(project, "api", "iris", FLOWERS)
    batch = rows(project, 3, inputs={"petal": np.array([1.0, np.nan, 3.0])})
    log.append(batch)
    labels = LabelLog(project)
    labels.append([Label(batch.prediction_id[1], 2)])
    store = PredictionStore(project)
    for _ in ("open", "sealed"):
        found = store.find(batch.prediction_id[1])
        assert found.inputs == {"petal": None, "sepal": None, "colour": None}
        assert (found.deployment, found.model, found.version, found.variant) == ("api", "iris", 1, "champion")
        assert (found.prediction, found.probability, found.actual) == (1, (0.2, 0.3, 0.5), 2)
        assert found.at == datetime.fromtimestamp(np.asarray(batch.at_us)[1] / 1e6, UTC)
        assert found.labelled is not None
        assert (found.entity, found.propensity, found.latency_ms) == ("flower-1", 0.9, 1.5)
        log.close()
    assert store.find(derived).inputs == {"weight": 0.5}
    assert store.find(derived).actual is None
    assert store.logged([derived, "0" * 32]) == {derived}
    labels.close()


def test_the_column_at_needs_no_quotes(ten_minutes: PredictionStore) -> None:
    """DuckDB reserves the word `at`; a query over the log may use it as it is, and text stays text."""
    found = ten_minutes.query(
        "select max(at) as last, 'at ''at' as word, \"at\" at time zone 'UTC' as naive, p.at as p -- at\n"
        "from predictions as p where AT >= '2026-09-21' /* at */ group by at order by p.at desc limit 1"
    )
    (row,) = rows_of(found)
    assert row["last"] == row["p"] == START + timedelta(minutes=9, microseconds=9)
    assert row["word"] == "at 'at"
    assert row["naive"] == row["last"].replace(tzinfo=None)


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "-- nothing",
        "select 1; select 2",
        "delete from predictions",
        "insert into labels values (1)",
        "create table copied as select * from predictions",
        "drop view predictions",
        "copy predictions to 'out.csv'",
        "copy (select 1) to '/tmp/out.csv'",
        "attach 'other.db'",
        "install httpfs",
        "load httpfs",
        "set threads = 8",
        "set enable_external_access = true",
        "pragma database_list",
        "call pragma_version()",
        "explain analyze select 1",
        "with gone as (select 1) insert into labels select * from gone",
        "select * from read_csv('/etc/passwd')",
        "select * from '/etc/passwd'",
        "select * from read_text('loopwright.toml')",
        "select * from glob('/*')",
        "select * from rows",
        "select * from sys",
        "select nothing from predictions",
        "selec 1",
    ],
)
def test_sql_can_only_read_the_log(
    ten_minutes: PredictionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    """Anything but one SELECT over the log is refused, and no file appears."""
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InvalidInput):
        ten_minutes.query(sql)
    assert sorted(tmp_path.rglob("*")) == before


def test_sql_may_be_any_one_select(ten_minutes: PredictionStore) -> None:
    """A WITH, a trailing semicolon and a comment are fine; values and joins work."""
    sql = "with few as (select * from predictions limit 7) select count(*) as n from few; -- seven"
    assert ten_minutes.query(sql).to_pylist() == [{"n": 7}]
    assert ten_minutes.query("from predictions select count(*) as n").to_pylist() == [{"n": 100}]


def test_a_share_is_the_average_of_a_condition(ten_minutes: PredictionStore) -> None:
    """An accuracy or a KPI may be written as avg(condition), beside averages of numbers."""
    sql = "select avg(prediction = 0) as share, avg(latency_ms) as ms, max(avg(actual > 1)) over () as k from predictions"
    assert ten_minutes.query(sql).to_pylist() == [{"share": 0.4, "ms": 1.5, "k": None}]


def test_neither_writing_nor_reading_imports_pandas(tmp_path: Path) -> None:
    """Serving workers, the controller and the console stay small: pandas alone would be 45 MB in each."""
    project_in(tmp_path)
    code = """
import sys
from pathlib import Path
from prediction_rows import *
from loopwright.predictions import *
from loopwright.records import Label
assert "duckdb" not in sys.modules
project = Project(Path(sys.argv[1]))
log = PredictionLog(project, "api", "iris", FLOWERS)
batch = rows(project, 3)
log.append(batch)
labels = LabelLog(project)
labels.append([Label(batch.prediction_id[0], 1)])
store = PredictionStore(project)
for _ in range(2):
    store.find(batch.prediction_id[0])
    rows_of(store.table(labelled=True))
    rows_of(store.rates())
    store.count(labelled=True), store.logged(batch.prediction_id), store.query("select 1 as one").to_pylist()
    log.close(), labels.close()
seal_orphans(project)
heavy = {"pandas", "sklearn", "mlflow", "prefect"} & set(sys.modules)
assert not heavy, heavy
"""
    done = run_apart(code, tmp_path)
    assert done.returncode == 0, done.stderr
