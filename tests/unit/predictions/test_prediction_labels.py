"""Late labels: typed at the join, the last one received wins, unknown ids never count."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prediction_rows import FLOWERS, project_in, rows

from loopwright.config import Project
from loopwright.errors import InvalidInput, Unavailable
from loopwright.predictions import LabelLog, PredictionLog, PredictionStore, rows_of
from loopwright.records import Column, Label, Scalar, Signature, Task, now


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a new project."""
    return project_in(tmp_path)


def _predict(project: Project, n: int, signature: Signature = FLOWERS, **changes: Any) -> list[str]:
    log = PredictionLog(project, "api", "iris", signature)
    batch = rows(project, n, **changes)
    log.append(batch)
    log.close()
    return batch.prediction_id


def _actual(project: Project) -> dict[str, Any]:
    table = PredictionStore(project).table(columns=["prediction_id", "actual"])
    return dict(zip(*(column.to_pylist() for column in table.columns), strict=True))


def test_the_label_received_last_wins_and_counts_once(project: Project) -> None:
    """A correction replaces a label whatever its own time says, and the same label twice is one label."""
    first, second, third = _predict(project, 3)
    log = LabelLog(project)
    log.append([Label(first, 1), Label(first, 2, at=now() - timedelta(days=9)), Label(second, 0)])
    log.append([Label(second, 0)])
    assert _actual(project) == {first: 2, second: 0, third: None}
    log.append([Label(first, 1)])
    assert _actual(project)[first] == 1
    log.close()
    other = LabelLog(project)
    other.append([Label(first, 0)])
    assert _actual(project)[first] == 0
    assert PredictionStore(project).count(labelled=True) == 2
    assert PredictionStore(project).count() == 3
    other.close()


def test_a_label_for_an_unknown_id_never_counts(project: Project) -> None:
    """Labels without a prediction, also those that arrive before it, change no number of predictions."""
    (known,) = _predict(project, 1)
    log = LabelLog(project)
    log.append([Label("f" * 32, 1), Label("0" * 32, 1), Label(known, 1)])
    store = PredictionStore(project)
    assert store.count() == 1
    assert store.count(labelled=True) == 1
    assert store.query("select count(*) as n from predictions where actual is not null").to_pylist() == [
        {"n": 1}
    ]
    assert store.query("select count(*) as n from labels").to_pylist() == [{"n": 3}]
    log.close()


def test_a_label_that_is_no_value_of_the_prediction_replaces_an_earlier_one(project: Project) -> None:
    """The last word counts also when it cannot be read: the row then has no label."""
    (known,) = _predict(project, 1)
    log = LabelLog(project)
    log.append([Label(known, 1)])
    log.append([Label(known, "a rose")])
    assert _actual(project) == {known: None}
    log.close()


@pytest.mark.parametrize(
    ("classes", "predicted", "label", "actual"),
    [
        ((0, 1), np.array([1]), 1, 1),
        ((0, 1), np.array([1]), "1", 1),
        ((0, 1), np.array([1]), 1.0, 1),
        ((0, 1), np.array([1]), True, 1),
        ((0, 2**53 + 1), np.array([0]), 2**53 + 1, 2**53 + 1),
        ((False, True), np.array([True]), True, True),
        ((False, True), np.array([True]), 0, False),
        ((False, True), np.array([True]), "true", True),
        (("7", "8"), np.array(["7"], object), 7, "7"),
        (("7", "8"), np.array(["7"], object), 7.0, "7"),
        (("a", "b"), np.array(["a"], object), "b", "b"),
        ((), np.array([0.5]), 3, 3.0),
        ((), np.array([0.5]), np.float64(0.25), 0.25),
        ((), np.array([0.5]), "2.5", 2.5),
        ((), np.array([0.5]), 10**400, None),
        ((), np.array([0.5]), "nan", None),
        ((), np.array([0.5]), "inf", None),
        ((0, 1), np.array([1]), 1.5, None),
        ((0, 1), np.array([1]), "1.5", None),
        ((0, 1), np.array([1]), "", None),
        ((False, True), np.array([True]), 7, None),
    ],
)
def test_labels_get_the_type_of_the_prediction(
    project: Project, classes: tuple[Scalar, ...], predicted: Any, label: Any, actual: Scalar | None
) -> None:
    """Whatever form a label came in, it is compared as what the model predicts."""
    task = Task.classification if classes else Task.regression
    (known,) = _predict(
        project, 1, Signature((Column("petal", "double"),), task, "y", classes), prediction=predicted
    )
    log = LabelLog(project)
    log.append([Label(known, label)])
    log.close()
    found = _actual(project)[known]
    assert found == actual
    assert type(found) is type(actual)


@pytest.mark.parametrize(
    "wrong",
    [
        Label("0" * 32, float("nan")),
        Label("0" * 32, float("inf")),
        Label("0" * 32, None),  # type: ignore[arg-type]
        Label("0" * 32, 1, at=datetime.fromisoformat("2026-01-31T12:00")),
    ],
)
def test_labels_that_say_nothing_are_refused_as_a_whole(project: Project, wrong: Label) -> None:
    """NaN, None and times without a zone are refused, and with them the labels of the same call."""
    (known,) = _predict(project, 1)
    log = LabelLog(project)
    with pytest.raises(InvalidInput):
        log.append([Label(known, 1), wrong])
    assert _actual(project) == {known: None}
    log.close()
    with pytest.raises(Unavailable):
        log.append([Label(known, 1)])


def test_labels_tell_when_they_arrived(project: Project) -> None:
    """`labelled_at` is when the label arrived, so that a reader who asks for what is new misses none."""
    first, second = _predict(project, 2, at_us=1_790_000_000_000_000)
    log = LabelLog(project)
    log.append([Label(first, 1, at=datetime(2026, 1, 1, tzinfo=UTC))])
    between = now()
    log.append([])
    log.append([Label(second, 1, at=datetime(2026, 1, 1, tzinfo=UTC))])
    store = PredictionStore(project)
    assert store.table(labelled_since=between).column("prediction_id").to_pylist() == [second]
    found = {row["prediction_id"]: row["labelled_at"] for row in rows_of(store.table(labelled=True))}
    assert found[first] < between <= found[second]
    given = rows_of(store.query('select "at" from labels where prediction_id = ' + f"'{first}'"))
    assert given == [{"at": datetime(2026, 1, 1, tzinfo=UTC)}]
    log.close()


def test_labels_are_found_for_a_span_of_time(project: Project) -> None:
    """A query over an earlier span of predictions still finds labels that arrived after its end."""
    (early,) = _predict(project, 1, at_us=1_790_000_000_000_000)
    _predict(project, 1, at_us=1_790_000_600_000_000)
    log = LabelLog(project, seal_rows=1)
    log.append([Label(early, 2)])
    log.maintain()
    log.append([Label(early, 1)])
    log.close()
    start = datetime.fromtimestamp(1_790_000_000, UTC)
    table = PredictionStore(project).table(since=start, until=start + timedelta(seconds=60))
    assert table.column("actual").to_pylist() == [1]
