"""The rows of one window: exact, whatever the size, and the same from a log as from arrays."""

import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monitored import API, CITIES, HOUR, SHOP, START, Shop, shop_inputs

from loopwright.errors import InvalidInput, NotFound
from loopwright.monitor.arrays import ArrayWindow
from loopwright.monitor.base import ALL, Segment
from loopwright.monitor.blocks import Plan
from loopwright.monitor.data import LoggedWindow
from loopwright.predictions import PredictionStore
from loopwright.records import Window
from loopwright.registry.column_profile import MISSING

WINDOW = Window(START, START + HOUR)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Return a project with one hour of two versions, and something before and after it."""
    made = Shop(tmp_path_factory.mktemp("shop"), versions=2)
    made.answer(START - HOUR, 100)
    made.answer(START, 1000, labelled=0.5)
    some: dict[str, Any] = {"city": lambda one: np.where(np.arange(len(one)) % 5 == 0, None, one)}
    made.answer(START + timedelta(minutes=1), 300, version=2, labelled=0.0, **some)
    made.answer(START + HOUR, 100)
    yield made
    made.close()


def window(shop: Shop, **settings: Any) -> LoggedWindow:
    """Open the hour."""
    facts: dict[str, Any] = {
        "plan": Plan.of(shop.profile, SHOP),
        "classes": (0, 1),
        "segments": ("city", "member", "variant"),
    }
    return LoggedWindow(PredictionStore(shop.project), API, WINDOW, **facts | settings)


def test_rows_versions_and_columns(shop: Shop) -> None:
    """Only the window's rows are there; inputs without their prefix."""
    with window(shop) as data:
        assert data.versions == {1: 1000, 2: 300}
        assert (data.rows(), data.rows(1), data.rows(3)) == (1300, 1000, 0)
        assert data.names == SHOP.names
        assert data.types["input_age"] == "DOUBLE"


def test_segments_are_the_most_frequent_values_and_null_is_one(shop: Shop) -> None:
    """In each column the most frequent first; rows without a value are a segment of their own; booleans as in profiles."""
    with window(shop, most_segments=5) as data:
        found = data.segments()
        cities = [one.value for one in found if one.column == "city"]
        assert set(cities) == {*CITIES, MISSING}
        assert [one.value for one in found if one.column == "member"] == ["False", "True"]
        assert [str(one) for one in found if one.column == "variant"] == ["variant=champion"]
        assert sum(data.rows(segment=Segment("city", city)) for city in cities) == 1300
        assert data.rows(2, Segment("city", MISSING)) == 60
    with window(shop, most_segments=2) as data:
        assert [one.value for one in data.segments() if one.column == "city"] == ["berlin", "rome"]
        assert data.rows(1, Segment("city", "oslo")) == 0


@pytest.mark.parametrize("most_rows", [2_000_000, 100])
def test_counts_are_exact_for_every_size_version_and_segment(shop: Shop, most_rows: int) -> None:
    """A window that is counted in batches gives the counts of one that is read at once."""
    with window(shop) as whole, window(shop, most_rows=most_rows) as data:
        segments = (ALL, *data.segments())
        for version in (None, 1, 2):
            for segment in segments:
                mine, theirs = data.counts(version, segment), whole.counts(version, segment)
                assert (mine.counts == theirs.counts).all()
                assert mine.rows == data.rows(version, segment)
        cities = [one for one in segments if one.column == "city"]
        parts = sum(data.counts(1, segment).rows for segment in cities)
        assert parts == data.counts(1).rows == 1000


def test_a_large_window_gives_the_same_sample_each_time(shop: Shop) -> None:
    """About as many values as may be held, of the same rows at each reading; counts of rows stay exact."""
    with (
        window(shop, most_rows=200, labelled=True) as data,
        window(shop, most_rows=200, labelled=True) as again,
    ):
        values = data.values("input_age")
        assert 100 < len(values) < 300
        assert (values == again.values("input_age")).all()
        assert len(data.values("prediction")) == len(values)
        assert 30 < len(data.labelled()) < 150
        assert data.rows() == 1300


def test_values_are_arrays_of_the_column(shop: Shop) -> None:
    """Numbers with NaN, text with None, times, probabilities as a matrix; row by row of the same predictions."""
    with window(shop) as data:
        assert data.values("input_age").dtype == np.float64
        city = data.values("input_city", 2)
        assert sum(one is None for one in city) == 60
        assert data.values("at").dtype.kind == "M"
        assert data.values("at").min() >= np.datetime64("2026-03-02T00:00", "us")
        probability, prediction = data.values("probability", 1), data.values("prediction", 1)
        assert probability.shape == (1000, 2)
        assert (probability.argmax(axis=1) == prediction).all()
        assert set(data.values("input_member").tolist()) == {True, False}
        with pytest.raises(NotFound, match="no column 'input_size'"):
            data.values("input_size")


def test_labels_are_read_only_where_they_are_asked_for(shop: Shop) -> None:
    """Without labels no row has one; with them their rows, of a version and of a segment."""
    with window(shop) as data:
        assert len(data.labelled()) == 0
    with window(shop, labelled=True) as data:
        rows = data.labelled(1)
        assert data.labels == len(rows) == 500
        assert len(data.labelled(2)) == 0
        assert rows.probability is not None
        assert rows.probability.shape == (500, 2)
        assert 0.85 < (rows.actual == rows.prediction).mean() < 0.95
        of_cities = [one for one in data.segments() if one.column == "city"]
        assert sum(len(data.labelled(1, one)) for one in of_cities) == 500
        assert len(data.labelled(1, Segment("city", "nowhere"))) == 0


def test_what_the_log_does_not_keep_as_it_came_is_not_there(shop: Shop) -> None:
    """A hidden input is in no count, no value and no segment."""
    with window(shop, hidden=frozenset({"city"})) as data:
        assert "city" not in data.names
        assert "input_city" not in data.table().column_names
        assert not [one for one in data.segments() if one.column == "city"]
        assert data.without() == ("city",)


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("select count(*) from range(10000000000) a, range(1000000) b", "longer than 0.3 s"),
        ("insert into predictions values (1)", "only read"),
        ("select 1; select 2", "one SELECT"),
        ("select nothing from predictions", "Columns of predictions"),
        ("select version, at from predictions", "1300 rows of 2 columns"),
        ("select version from predictions", "1300 rows of 1 columns"),
        ("select * from read_csv('/etc/passwd')", "does not work"),
    ],
)
def test_a_query_that_is_wrong_or_never_ends_says_so(shop: Shop, sql: str, says: str) -> None:
    """And the window can be asked again afterwards."""
    with window(shop) as data:
        with pytest.raises(InvalidInput, match=says):
            data.query(sql, 0.3)
        assert data.query("select avg(prediction >= 0) from predictions", 5) == 1
        assert data.query("select at from predictions where version = 9", 5) is None


def test_an_empty_window_answers_everything(shop: Shop) -> None:
    """No rows, no segments, empty counts; nothing raises."""
    span = Window(START + 10 * HOUR, START + 11 * HOUR)
    with LoggedWindow(
        PredictionStore(shop.project), API, span, plan=Plan.of(shop.profile, SHOP), segments=("city",)
    ) as data:
        assert (data.rows(), dict(data.versions), data.segments()) == (0, {}, ())
        assert data.counts(1).rows == 0
        assert len(data.labelled()) == 0
        assert data.names == SHOP.names


def test_a_log_that_was_never_written_is_an_empty_window(tmp_path: Path) -> None:
    """A deployment that has not answered yet."""
    made = Shop(tmp_path)
    with LoggedWindow(PredictionStore(made.project), API, WINDOW, plan=Plan.of(None)) as data:
        assert data.rows() == 0
        assert data.counts().rows == 0
    made.close()


def test_arrays_make_the_window_that_a_log_makes(shop: Shop) -> None:
    """The same rows, counted alike."""
    with window(shop, labelled=True) as logged:
        inputs = {name: logged.values(f"input_{name}", 1) for name in SHOP.names}
        made = ArrayWindow(
            inputs,
            Plan.of(shop.profile, SHOP),
            prediction=logged.values("prediction", 1),
            probability=logged.values("probability", 1),
            latency_ms=logged.values("latency_ms", 1),
            classes=(0, 1),
            segments=("city", "member"),
        )
        assert (made.counts(1).counts == logged.counts(1).counts).all()
        assert made.versions == {1: 1000}
        for segment in made.segments():
            assert made.rows(1, segment) == logged.rows(1, segment)
            assert (made.counts(1, segment).counts == logged.counts(1, segment).counts).all()
        assert made.query("select max(input_age) from predictions", 5) == inputs["age"].max()
        assert len(made.labelled()) == 0


def test_arrays_with_labels() -> None:
    """Rows without a label are left out."""
    inputs = shop_inputs(4, np.random.default_rng(0))
    made = ArrayWindow(
        inputs, Plan.of(None), prediction=np.array([0, 1, 1, 0]), actual=np.array([0, None, 0, 0], object)
    )
    assert made.labelled().actual.tolist() == [0, 0, 0]
    assert made.labelled(2).actual.tolist() == []


def test_reading_a_window_loads_no_pandas(shop: Shop) -> None:
    """45 MB in a process that lives for months."""
    import subprocess

    code = """
import sys
from loopwright.config import Project
from loopwright.monitor.base import Segment
from loopwright.monitor.blocks import Plan
from loopwright.monitor.data import LoggedWindow
from loopwright.predictions import PredictionStore
from loopwright.records import Window
from loopwright.registry.profile import read_profile
from loopwright.registry.column_profile import MISSING
from datetime import UTC, datetime, timedelta
project = Project(sys.argv[1])
plan = Plan.of(read_profile(project.scorer("shop", 1) / "profile.json"))
start = datetime(2026, 3, 2, tzinfo=UTC)
window = Window(start, start + timedelta(hours=1))
with LoggedWindow(PredictionStore(project), "shop-api", window, plan=plan, segments=("city", "member"), labelled=True) as data:
    for segment in data.segments():
        data.counts(1, segment), data.labelled(1, segment)
    for column in ("at", "input_age", "input_city", "input_member", "probability", "prediction"):
        data.values(column)
    data.query("select count(*) from predictions", 5.0)
assert "pandas" not in sys.modules, "pandas was loaded"
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(shop.project.root)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
