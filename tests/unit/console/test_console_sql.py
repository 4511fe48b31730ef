"""SQL over the log: what it gives, what it refuses, and how it is drawn."""

import asyncio
import time
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from watched_bikes import API, BATCH, watched

from loopwright.config import Project
from loopwright.console import tokens
from loopwright.console.monitoring import feature_charts, sql
from loopwright.console.monitoring.api import csv_of
from loopwright.console.monitoring.sql import Answered, chart_of, plain
from loopwright.console.refresh import Board
from loopwright.errors import InvalidInput, NotFound


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project with about 1,500 logged predictions."""
    return watched(tmp_path_factory.mktemp("bikes"), windows=2, rows=700).project


def ask(project: Project, text: str, deployment: str | None = None, **span: Any) -> Answered:
    """Return the answer to a query."""
    board = Board(project)
    return asyncio.run(
        board.query(text, deployment=deployment, since=span.get("since"), until=span.get("until"))
    )


@pytest.mark.parametrize("number", range(len(sql.EXAMPLES)))
def test_the_examples_work(project: Project, number: int) -> None:
    """Each is answered, also where a deployment has logged nothing."""
    assert ask(project, sql.EXAMPLES[number][1]).columns
    ask(project, sql.EXAMPLES[number][1], BATCH)


def test_an_answer_is_cut_at_a_thousand_rows(project: Project) -> None:
    """And says so."""
    found = ask(project, "select prediction_id, at from predictions order by at -- all of them")
    assert (len(found.rows), found.truncated) == (sql.ROWS, True)
    assert found.types == ("string", "timestamp[us, tz=UTC]")
    times = [row[1] for row in found.rows]
    assert times == sorted(times)
    assert datetime.fromisoformat(times[0]).tzinfo is not None
    few = ask(project, "select count(*) as n from predictions", API)
    assert (few.columns, few.truncated) == (("n",), False)
    assert few.rows[0][0] > 1000


def test_columns_of_one_name_are_kept_apart(project: Project) -> None:
    """Two columns may be called alike."""
    found = ask(project, "select 1 as a, 2 as a, 'x' as b")
    assert found.rows == ((1, 2, "x"),)
    assert found.columns[0] == "a"
    assert len(found.columns) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("delete from predictions", "The log is only read, with one SELECT; this is DELETE"),
        ("select 1; select 2", "with one SELECT"),
        ("", "with one SELECT"),
        ("select nothing from predictions", "The query does not work"),
        ("select * from read_csv('/etc/passwd')", "The query does not work"),
        ("select * from '/etc/passwd'", "The query does not work"),
        ("copy predictions to '/tmp/stolen.csv'", "with one SELECT"),
        ("attach '/tmp/other.db'", "with one SELECT"),
        ("select * from duckdb_secrets() limit 0; install httpfs", "with one SELECT"),
    ],
)
def test_nothing_but_the_log_is_read(project: Project, text: str, said: str) -> None:
    """Changes, files and other statements are refused with what is valid."""
    with pytest.raises(InvalidInput, match="^.*" + said.replace("(", r"\(")):
        ask(project, text)


def test_a_query_that_never_ends_is_stopped(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the console goes on; the error says how long it may take."""
    monkeypatch.setattr(sql, "TIMEOUT_S", 0.3)
    cross = ", ".join(f"predictions as p{number}" for number in range(5))
    began = time.monotonic()
    with pytest.raises(InvalidInput, match=r"longer than 0\.3 s"):
        ask(
            project,
            f"select count(*) from {cross} where p0.latency_ms + p1.latency_ms > p2.latency_ms + p3.latency_ms",
        )
    assert time.monotonic() - began < 5


def test_an_unknown_deployment_is_told(project: Project) -> None:
    """With the known ones."""
    with pytest.raises(NotFound, match="bike-api"):
        ask(project, "select 1", "bike-apo")


def test_only_what_was_asked_for_is_read(project: Project) -> None:
    """A span without predictions has none."""
    past = datetime(2020, 1, 1, tzinfo=UTC)
    assert ask(project, "select count(*) from predictions", API, until=past).rows == ((0,),)


def test_values_are_json() -> None:
    """What JSON has no type for is text; what it has no number for is null."""
    values = [
        float("nan"),
        float("inf"),
        Decimal("1.5"),
        date(2026, 1, 2),
        b"x",
        [float("nan"), 1],
        {"a": 1},
        None,
    ]
    assert [plain(value) for value in values] == [
        None,
        None,
        1.5,
        "2026-01-02",
        "b'x'",
        [None, 1],
        {"a": 1},
        None,
    ]


def answer(types: tuple[str, ...], *rows: tuple[Any, ...]) -> Answered:
    """Return an answer with columns a, b, c..."""
    return Answered(tuple("abcdef"[: len(types)]), types, rows, False, 0.0)


@pytest.mark.parametrize(
    ("found", "drawn"),
    [
        (answer(("timestamp[us, tz=UTC]", "int64"), ("2026-01-01", 1), ("2026-01-02", 2)), (0, 1, True)),
        (answer(("string", "double"), ("x", 1.0), ("y", 2.0)), (0, 1, False)),
        (answer(("int32", "double"), (3, 0.9), (4, 0.8)), (0, 1, False)),
        (answer(("double", "string"), (1.0, "x"), (2.0, "y")), (1, 0, False)),
        (answer(("string", "double"), ("x", 1.0), ("x", 2.0)), None),
        (answer(("string", "string"), ("x", "y"), ("z", "y")), None),
        (answer(("int64",), (1,), (2,)), None),
        (answer(("string", "double"), ("x", 1.0)), None),
    ],
)
def test_what_can_be_drawn_is(found: Answered, drawn: tuple[int, int, bool] | None) -> None:
    """A time or a category and a number make a chart; repeated categories, texts and single rows do not."""
    chart = chart_of(found)
    assert (chart and (chart.across, chart.up, chart.time)) == drawn
    options = feature_charts.answer(found, tokens.LIGHT)
    assert bool(options) == (drawn is not None)
    if drawn is not None:
        assert len(options["series"][0]["data"]) == len(found.rows)


def test_csv_has_a_header_and_quotes() -> None:
    """What has commas, quotes or line breaks stays one value."""
    text = csv_of(answer(("string", "int64"), ('a,"b"\nc', 1), (None, 2)))
    assert text == 'a,b\r\n"a,""b""\nc",1\r\n,2\r\n'


def test_the_page_of_the_log_makes_nothing_on_disk(project: Project) -> None:
    """A query leaves no file in the project."""
    before = {path for path in Path(project.root).rglob("*") if path.is_file()}
    ask(project, "select count(*) from predictions")
    after = {path for path in Path(project.root).rglob("*") if path.is_file()}
    assert after - before <= {path for path in after if path.name.startswith("ledger.db")}
