"""The log in Python and on the command line: frames, exports, and commands."""

import csv
import json
import resource
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prediction_rows import FLOWERS, project_in, rows, run_apart

import loopwright as lw
from loopwright.cli import main
from loopwright.config import Project
from loopwright.errors import Conflict, Denied, InvalidInput, NotFound
from loopwright.predictions import LabelLog, PredictionLog, files
from loopwright.predictions.exports import export
from loopwright.predictions.frames import moment
from loopwright.records import Column, Label, Signature, Task, now

START = datetime(2026, 9, 21, 12, tzinfo=UTC)
START_US = int(START.timestamp() * 1e6)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project with 30 predictions of three minutes, 20 sealed and 10 open, and one label."""
    project = project_in(tmp_path)
    monkeypatch.setenv("LOOPWRIGHT_PROJECT", str(tmp_path))
    ids = []
    for number in range(3):
        log = PredictionLog(project, "api", "iris", FLOWERS)
        batch = rows(project, 10, at_us=START_US + number * 60_000_000, version=number)
        log.append(batch)
        ids += batch.prediction_id
        if number < 2:
            log.close()
    labels = LabelLog(project)
    labels.append([Label(ids[0], 2)])
    labels.close()
    return project


def test_predictions_in_every_form(project: Project) -> None:
    """Arrow, polars, pandas and DuckDB have the same rows, in the order of time, labels among them."""
    frame = lw.predictions("api")
    assert frame.count() == 30
    table = frame.arrow()
    assert table.schema.names == frame.columns
    assert table.column("at").cast("int64").to_pylist() == sorted(
        table.column("at").cast("int64").to_pylist()
    )
    assert table.column("actual").to_pylist().count(2) == 1
    pandas = frame.pandas()
    assert (pandas.shape, float(pandas["input_petal"].sum())) == ((30, len(frame.columns)), 135.0)
    polars = frame.polars()
    assert (polars.shape, polars["input_petal"].sum()) == ((30, len(frame.columns)), 135.0)
    relation = frame.duckdb()
    counted = relation.filter("version > 0").aggregate("version, count(*) as n").order("version").fetchall()
    assert counted == [(1, 10), (2, 10)]
    with pytest.raises(duckdb.PermissionException):
        relation.query("p", "select * from read_csv('/etc/passwd')")
    assert frame.sql("select max(version) as v from predictions").to_pylist() == [{"v": 2}]
    assert frame.pandas(columns=["prediction", "version"]).columns.tolist() == ["prediction", "version"]
    assert sum(len(batch) for batch in frame.batches(rows=7)) == 30
    assert "30 rows" in repr(frame)
    assert "<table>" in frame._repr_html_()


def test_a_span_may_be_written_in_many_ways(project: Project) -> None:
    """Datetimes, dates, ISO texts with and without a zone, and spans ago; the end is left out."""
    minute = timedelta(minutes=1)
    assert lw.predictions("api", since=START + minute).count() == 20
    assert lw.predictions("api", since=START + minute, until=START + 2 * minute).count() == 10
    assert lw.predictions("api", since="2026-09-21T12:01").count() == 20
    assert lw.predictions("api", since="2026-09-21T14:01+02:00").count() == 20
    assert lw.predictions("api", since="2026-09-21", until="2026-09-22").count() == 30
    assert lw.predictions("api", until=date(2026, 9, 21)).count() == 0
    assert lw.predictions(model="iris").count() == 30
    assert lw.predictions(model="oak").count() == 0
    assert lw.predictions("quiet", shadows=True).count() == 0
    week = moment("7d", "since")
    assert week is not None
    assert abs(now() - timedelta(days=7) - week) < timedelta(seconds=5)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"deployment": "apu"}, NotFound, "Did you mean 'api'"),
        ({"since": "yesterday"}, InvalidInput, r"since = 'yesterday' is no moment.*'2026-11-01'"),
        ({"until": datetime(2026, 1, 1)}, InvalidInput, "has no time zone"),  # noqa: DTZ001
        ({"since": "2026-02-01", "until": "2026-01-01"}, InvalidInput, "is not before until"),
    ],
)
def test_what_is_asked_wrongly_is_said(project: Project, given: Any, error: Any, text: str) -> None:
    """Before anything is read."""
    with pytest.raises(error, match=text):
        lw.predictions(**given)
    with pytest.raises(InvalidInput, match="no column 'pedal'"):
        lw.predictions("api").arrow(columns=["pedal"])


def test_exports_hold_the_same_rows(project: Project, tmp_path: Path) -> None:
    """Parquet, Arrow, CSV and JSON lines, whole and in parts; lists are JSON in CSV, missing values empty."""
    frame = lw.predictions("api")
    table = frame.arrow()
    told: list[int] = []
    for suffix in ("parquet", "arrow", "feather", "csv", "jsonl", "ndjson"):
        assert export(frame, tmp_path / f"out.{suffix}", told=told.append) == 30
        assert told[-1] == 30
    assert pq.read_table(tmp_path / "out.parquet").equals(table)
    with pa.ipc.open_file(tmp_path / "out.arrow") as reader:
        assert reader.read_all().equals(table)
    with (tmp_path / "out.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["input_petal"]) for line in lines] == table.column("input_petal").to_pylist()
    assert json.loads(lines[0]["probability"]) == [0.2, 0.3, 0.5]
    assert [line["actual"] for line in lines].count("") == 29
    texts = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(text)["prediction_id"] for text in texts] == table.column("prediction_id").to_pylist()
    assert export(frame, tmp_path / "few.csv", columns=["version", "at"]) == 30
    assert (tmp_path / "few.csv").read_text().splitlines()[0] == '"version","at"'
    assert export(lw.predictions("quiet"), tmp_path / "none.parquet") == 0
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0


def test_an_export_appears_whole_or_not_at_all(project: Project, tmp_path: Path) -> None:
    """No file is replaced without a word, and neither a wrong column nor a missing folder leaves anything behind."""
    frame = lw.predictions("api")
    path = tmp_path / "out.csv"
    path.write_text("mine")
    with pytest.raises(Conflict, match="is there already"):
        export(frame, path)
    with pytest.raises(InvalidInput, match=r"\.parquet, \.csv"):
        export(frame, tmp_path / "out.xlsx")
    with pytest.raises(InvalidInput, match="no column"):
        export(frame, path, columns=["nothing"], force=True)
    with pytest.raises(Denied, match="cannot be written"):
        export(frame, tmp_path / "no" / "out.csv")
    assert path.read_text() == "mine"
    assert export(frame, path, force=True) == 30
    assert sorted(one.name for one in tmp_path.iterdir() if "out" in one.name) == ["out.csv"]


def test_a_full_disk_ends_an_export_cleanly(project: Project, tmp_path: Path) -> None:
    """With a limit on the size of files the export fails, and leaves no part of a file."""
    code = """
import resource, sys
from pathlib import Path
import loopwright as lw
from loopwright.config import Project
from loopwright.errors import Denied
from loopwright.predictions.exports import export
root = Path(sys.argv[1])
frame = lw.predictions("api", project=Project(root))
frame.count()
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
for suffix in ("jsonl", "csv", "arrow", "parquet"):
    try:
        export(frame, root / f"big.{suffix}")
        print("written", suffix)
    except Denied as error:
        assert "big" in str(error), error
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    done = run_apart(code, tmp_path)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert [one.name for one in tmp_path.iterdir() if "big" in one.name] == []


def _run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    code = ended.value.code
    shown = capsys.readouterr()
    return int(code or 0), shown.out + shown.err


def _json(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    code, text = _run(capsys, *words, "--json")
    assert code == 0, text
    return json.loads(text)


def test_the_list_can_be_narrowed(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """By time, version, variant, label and a condition; and a query says what it is asked."""
    command = ("prediction", "list", "api")
    assert len(_json(capsys, *command)) == 20
    assert len(_json(capsys, *command, "--limit", "100")) == 30
    assert len(_json(capsys, *command, "--limit", "100", "--since", "2026-09-21T12:01")) == 20
    assert len(_json(capsys, *command, "--limit", "100", "--until", "2026-09-21T12:01")) == 10
    assert {row["version"] for row in _json(capsys, *command, "--version", "1")} == {1}
    assert _json(capsys, *command, "--variant", "it's") == []
    (labelled,) = _json(capsys, *command, "--labelled")
    assert labelled["actual"] == 2
    assert len(_json(capsys, *command, "--where", "prediction = 2 and version = 0")) == 3
    code, text = _run(capsys, *command, "--where", "pedal = 2")
    assert (code, "pedal" in text) == (2, True)
    code, text = _run(capsys, *command, "--where", "1 = 1); drop view predictions; select (1")
    assert code == 2
    assert len(_json(capsys, "prediction", "list", "--sql", "select 1 as one")) == 1


def test_the_commands_of_the_log(
    project: Project, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Status, export, repair, show and forget, as people and as programs ask for them."""
    assert _json(capsys, "prediction", "status")["api"]["rows"] == 30
    code, text = _run(capsys, "prediction", "status")
    assert (code, "30" in text) == (0, True)
    out = tmp_path / "out.parquet"
    assert _json(capsys, "prediction", "export", "api", str(out), "--columns", "at, version")["rows"] == 30
    assert pq.read_table(out).schema.names == ["at", "version"]
    code, text = _run(capsys, "prediction", "export", "api", str(out))
    assert (code, "--force" in text) == (1, True)
    code, text = _run(
        capsys, "prediction", "export", "api", str(out), "--force", "--since", "2026-09-21T12:02"
    )
    assert (code, "10 predictions are in" in text) == (0, True)
    code, text = _run(capsys, "prediction", "repair")
    assert (code, "2 segments with 30 predictions are sound" in text) == (0, True)
    segment = files.of_deployment(project, "api").segments()[0]
    segment.path.write_bytes(b"gone")
    assert _json(capsys, "prediction", "repair")["quarantined"] == 1
    code, text = _run(capsys, "prediction", "list", "api")
    assert "1 damaged segment is set aside" in text
    code, text = _run(capsys, "prediction", "status")
    assert "quarantine" in text
    (one, *_) = _json(capsys, "prediction", "list", "api", "--version", "1")
    shown = json.loads(_run(capsys, "prediction", "show", one["prediction_id"])[1])
    assert (shown["version"], shown["inputs"]["colour"], shown["labels"]) == (1, "blue", [])
    code, text = _run(capsys, "prediction", "forget", "--id", one["prediction_id"])
    assert "Nothing was deleted" in text
    code, text = _run(capsys, "prediction", "forget", "--id", one["prediction_id"], "--yes", "--wait", "0")
    assert (code, "1 predictions" in text) == (0, True)
    code, text = _run(capsys, "prediction", "show", one["prediction_id"])
    assert (code, "deleted on request" in text) == (1, True)
    code, text = _run(capsys, "prediction", "forget")
    assert (code, "--entity or --id" in text) == (2, True)


OTHER_TYPES = [
    ("double", np.array([1.5]), "long", np.array([2]), "DOUBLE", [1.5, 2.0]),
    ("float", np.array([1.5], np.float32), "long", np.array([2**24 + 1]), "DOUBLE", [1.5, 16_777_217.0]),
    ("integer", np.array([1]), "long", np.array([2**40]), "BIGINT", [1, 2**40]),
    ("boolean", np.array([True]), "long", np.array([7]), "BIGINT", [1, 7]),
    ("double", np.array([1.5]), "string", np.array(["x"], object), "VARCHAR", ["1.5", "x"]),
    ("boolean", np.array([True]), "string", np.array(["x"], object), "VARCHAR", ["true", "x"]),
    (
        "double",
        np.array([1.5]),
        "datetime",
        np.array(["2026-01-01"], "M8[us]"),
        "VARCHAR",
        ["1.5", "2026-01-01 00:00:00"],
    ),
]


@pytest.mark.parametrize(("before", "old", "after", "new", "kind", "expected"), OTHER_TYPES)
def test_an_input_that_changed_its_type(
    tmp_path: Path, before: Any, old: Any, after: Any, new: Any, kind: str, expected: list[Any]
) -> None:
    """Numbers widen, anything else beside them becomes text; in tails, segments and merged ones alike."""
    project = project_in(tmp_path)
    logs = []
    for number, (name, values) in enumerate(((before, old), (after, new))):
        signature = Signature((Column("x", name),), Task.regression)
        log = PredictionLog(project, "api", "iris", signature)
        batch = rows(project, 1, at_us=START_US + number, inputs={"x": values}, prediction=np.array([0.5]))
        batch.probability = None
        log.append(batch)
        logs.append(log)
    for _ in ("open", "one sealed", "sealed"):
        frame = lw.predictions("api", project=project)
        assert frame.arrow(["input_x"]).column(0).to_pylist() == expected
        assert frame._store.columns(deployment="api")["input_x"] == kind
        if logs:
            logs.pop().close()


def test_predictions_of_other_kinds_and_several_outputs_are_one_table(tmp_path: Path) -> None:
    """Booleans, then words, then several outputs: each version's rows are there, as text where they differ."""
    project = project_in(tmp_path)
    inputs = (Column("petal", "double"),)
    kinds = [
        (Signature(inputs, Task.classification, "y", (False, True)), np.array([True])),
        (Signature(inputs, Task.classification, "y", ("no", "yes")), np.array(["yes"], object)),
        (Signature(inputs, Task.regression, outputs=("a", "b")), np.array([[1.0, 2.0]])),
    ]
    ids = []
    log = PredictionLog(project, "api", "iris", kinds[0][0])
    for number, (signature, prediction) in enumerate(kinds):
        batch = rows(project, 1, at_us=START_US + number, inputs={"petal": np.ones(1)}, prediction=prediction)
        batch.probability = None
        log.append(batch, signature)
        ids += batch.prediction_id
    labels = LabelLog(project)
    labels.append([Label(ids[0], True), Label(ids[1], "no")])
    labels.close()
    for _ in ("open", "sealed"):
        table = lw.predictions("api", project=project).arrow(["prediction", "actual"])
        assert table.column("prediction").to_pylist() == ["true", "yes", "[1.0, 2.0]"]
        assert table.column("actual").to_pylist() == ["true", "no", None]
        log.close()


def test_inputs_that_were_renamed_added_and_removed(tmp_path: Path) -> None:
    """All names that ever were are columns; a version's rows have nulls where it did not have the input."""
    project = project_in(tmp_path)
    log = PredictionLog(project, "api", "iris", FLOWERS)
    for number, names in enumerate((("a",), ("a", "b"), ("c",))):
        signature = Signature(tuple(Column(name, "double") for name in names), Task.regression)
        inputs = {name: np.full(1, float(number)) for name in names}
        batch = rows(project, 1, at_us=START_US + number, inputs=inputs, prediction=np.zeros(1))
        batch.probability = None
        log.append(batch, signature)
    log.close()
    table = lw.predictions("api", project=project).arrow(["input_a", "input_b", "input_c"])
    assert [tuple(row.values()) for row in table.to_pylist()] == [
        (0.0, None, None),
        (1.0, 1.0, None),
        (None, None, 2.0),
    ]


def test_a_segment_of_an_earlier_release_is_read_and_merged(project: Project) -> None:
    """One that lacks columns of today is put together by name, and is merged with its like only."""
    from loopwright.ledger import Ledger
    from loopwright.predictions import maintain

    folder = files.of_deployment(project, "api")
    new = folder.segments()[0]
    table = pq.read_table(new.path).drop_columns(["trace", "request_id"])
    for number in range(2):
        name = f"20250101T00000{number}000000-p1-c2-abcdef-0a0a0a0a.{new.first_us}.{new.last_us}.10.parquet"
        pq.write_table(table, new.path.with_name(name))
    assert lw.predictions("api").count() == 50
    before = lw.predictions("api").arrow()
    ledger = Ledger.open(project)
    assert maintain(project, ledger, few=2).problems == []
    ledger.close()
    assert lw.predictions("api").arrow().equals(before)
    assert len(folder.segments()) < 4
