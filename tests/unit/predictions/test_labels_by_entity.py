"""Labels that name an entity and a moment: of the entity's last prediction, whatever span is looked at."""

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prediction_rows import FLOWERS, project_in, rows

from loopwright.config import Project
from loopwright.errors import InvalidInput, NotFound
from loopwright.predictions import LabelLog, PredictionLog, PredictionStore, files, rows_of
from loopwright.predictions.privacy import Privacy, secret_of
from loopwright.records import Label

START = datetime(2026, 3, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
#: How a log may be laid out: all in open tails, or all sealed in small segments.
LAYOUTS = ("open", "sealed")


def project_with(folder: Path, log: str = "") -> Project:
    """Return a project that serves two deployments of one model."""
    (folder / "loopwright.toml").write_text(
        '[model.iris]\ntarget = "species"\n'
        f'[deployment.api]\nmodel = "iris"\nmode = "online"\n{log}\n'
        '[deployment.other]\nmodel = "iris"\nmode = "online"\n'
    )
    return Project(folder)


def predict(
    project: Project, moments: list[tuple[str, float]], deployment: str = "api", seal: int = 0
) -> list[str]:
    """Log one prediction of 0 for each entity and second, in this order; return their ids."""
    log = PredictionLog(project, deployment, "iris", FLOWERS, seal_rows=seal or 131_072)
    ids = []
    for entity, second in moments:
        at_us = round((START.timestamp() + second) * 1e6)
        batch = rows(project, 1, at_us=at_us, entity=[entity])
        log.append(batch)
        ids += batch.prediction_id
        if seal:
            log.maintain()
    if seal:
        log.close()
    return ids


def told(
    entity: str, second: float, actual: int = 1, within_s: float = 1e6, deployment: str = "api"
) -> Label:
    """Return a label of an entity at a second."""
    return Label("", actual, START + second * SECOND, deployment, entity, within_s)


def truths(
    project: Project, since: float | None = None, until: float | None = None, **which: Any
) -> dict[str, Any]:
    """Return the label of each prediction of a span that has one."""
    table = PredictionStore(project).table(
        since=None if since is None else START + since * SECOND,
        until=None if until is None else START + until * SECOND,
        labelled=True,
        columns=["prediction_id", "actual"],
        **which,
    )
    return dict(zip(*(column.to_pylist() for column in table.columns), strict=True))


def test_a_label_is_of_the_last_prediction_at_or_before_it(tmp_path: Path) -> None:
    """Not of a later one, of another entity or deployment, or of one that is too old."""
    project = project_with(tmp_path)
    first, second, other = predict(project, [("a", 0), ("a", 10), ("b", 5)])
    (elsewhere,) = predict(project, [("a", 9)], "other")
    log = LabelLog(project)
    log.append([told("a", 9.5, 1), told("b", 4, 1), told("c", 9, 1), told("b", 8, 2, within_s=2.9)])
    assert truths(project) == {first: 1}
    log.append([told("a", 10, 2), told("b", 8, 2, within_s=3)])
    assert truths(project) == {first: 1, second: 2, other: 2}
    log.append([told("a", 99, 0, deployment="other")])
    assert truths(project) == {first: 1, second: 2, other: 2, elsewhere: 0}
    assert truths(project, deployment="other") == {elsewhere: 0}
    log.close()
    assert truths(project, deployment="api") == {first: 1, second: 2, other: 2}


def test_a_prediction_that_is_logged_after_its_label_gets_it(tmp_path: Path) -> None:
    """Devices deliver late: the label waits, and belongs to whichever prediction is the last one by then."""
    project = project_with(tmp_path)
    log = LabelLog(project)
    log.append([told("a", 10, 2)])
    (early,) = predict(project, [("a", 1)])
    assert truths(project) == {early: 2}
    (late,) = predict(project, [("a", 7)])
    assert truths(project) == {late: 2}
    log.close()


def test_of_rows_of_one_moment_the_last_one_is_meant(tmp_path: Path) -> None:
    """A request with several rows of an entity has one time: always the same row gets the label."""
    project = project_with(tmp_path)
    log = PredictionLog(project, "api", "iris", FLOWERS)
    at_us = round(START.timestamp() * 1e6)
    made = rows(project, 3, at_us=at_us, entity=["a"] * 3)
    batch = dataclasses.replace(made, at_us=np.full(3, at_us, np.int64))
    log.append(batch)
    labels = LabelLog(project)
    labels.append([told("a", 1, 2)])
    for _ in range(5):
        assert truths(project) == {max(batch.prediction_id): 2}
    log.close()
    labels.close()


@pytest.mark.parametrize("seal", [0, 1], ids=LAYOUTS)
def test_a_label_is_no_windows_whose_prediction_lies_outside(tmp_path: Path, seal: int) -> None:
    """In the window, before and after it: each label is of one window, the same as without a window."""
    project = project_with(tmp_path)
    before, inside, after = predict(project, [("a", 5), ("a", 15), ("a", 25)], seal=seal)
    log = LabelLog(project)
    log.append([told("a", 12, 0), told("a", 18, 1), told("a", 29, 2)])
    whole = truths(project)
    assert whole == {before: 0, inside: 1, after: 2}
    assert truths(project, 0, 10) == {before: 0}
    assert truths(project, 10, 20) == {inside: 1}
    assert truths(project, 20, 30) == {after: 2}
    # The prediction after the window is what keeps the third label from being the window's.
    assert truths(project, 10, 20, deployment="api") == {inside: 1}
    log.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    predictions=st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 30)), min_size=1, max_size=12, unique=True
    ),
    labels=st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 40), st.integers(0, 2), st.integers(1, 20)),
        max_size=12,
    ),
    span=st.tuples(st.integers(0, 30), st.integers(1, 20)),
    seal=st.sampled_from([0, 3]),
)
def test_the_join_is_that_of_a_plain_loop(
    tmp_path_factory: pytest.TempPathFactory,
    predictions: list[tuple[str, int]],
    labels: list[tuple[str, int, int, int]],
    span: tuple[int, int],
    seal: int,
) -> None:
    """Any predictions and labels, any window, tails or segments: as looking through all of them for each label."""
    project = project_with(tmp_path_factory.mktemp("any"))
    ids = predict(project, list(predictions), seal=seal)
    log = LabelLog(project)
    expected: dict[str, int] = {}
    for entity, second, actual, within in labels:
        log.append([told(entity, second, actual, within)])
        earlier = [
            (at, one)
            for (who, at), one in zip(predictions, ids, strict=True)
            if who == entity and at <= second
        ]
        if earlier and second - max(earlier)[0] <= within:
            expected[max(earlier)[1]] = actual
    since, until = span[0], span[0] + span[1]
    places = {one: at for (_, at), one in zip(predictions, ids, strict=True)}
    assert truths(project) == expected
    inside = {one: actual for one, actual in expected.items() if since <= places[one] < until}
    assert truths(project, since, until, deployment="api") == inside
    log.close()


def test_of_labels_of_both_kinds_the_last_one_counts(tmp_path: Path) -> None:
    """By id, by entity, by id again: whichever arrived last; and all of them are in the prediction's history."""
    project = project_with(tmp_path)
    (one,) = predict(project, [("a", 0)])
    log = LabelLog(project)
    store = PredictionStore(project)
    for number, label in enumerate((Label(one, 0), told("a", 1, 1), Label(one, 2), told("a", 3, 0))):
        log.append([label], source="feed" if number == 1 else None)
        assert truths(project) == {one: label.actual}
        assert store.find(one).actual == label.actual
    found = store.labels_of(one)
    assert [label.actual for label in found] == [0, 1, 2, 0]
    assert [label.counts for label in found] == [False, False, False, True]
    assert [(label.source, label.entity) for label in found] == [("", ""), ("feed", "a"), ("", ""), ("", "a")]
    assert [label.received for label in found] == sorted(label.received for label in found)
    log.close()
    assert [label.actual for label in store.labels_of(one)] == [0, 1, 2, 0]
    assert [label.text for label in store.labels_of("f" * 32)] == []
    listed = rows_of(store.query("select entity, prediction_id, source from labels order by received_at"))
    assert [row["entity"] for row in listed] == [None, "a", None, "a"]
    assert {row["prediction_id"] for row in listed} == {one}


def test_labels_of_shadows_are_those_of_the_predictions_they_stand_beside(tmp_path: Path) -> None:
    """A shadow has the ids of the predictions; what names an entity finds both."""
    project = project_with(tmp_path)
    ids = predict(project, [("a", 0)])
    shadow = PredictionLog(project, "api", "iris", FLOWERS, shadow=True)
    at_us = round(START.timestamp() * 1e6)
    shadow.append(rows(project, 1, at_us=at_us, entity=["a"], prediction_id=ids, version=2))
    log = LabelLog(project)
    log.append([told("a", 1, 2)])
    found = PredictionStore(project).query(
        "select p.actual as a, s.actual as b from predictions p join shadows s using (prediction_id)"
    )
    assert found.to_pylist() == [{"a": 2, "b": 2}]
    log.close()
    shadow.close()


def test_where_entities_are_hashed_labels_find_them(tmp_path: Path) -> None:
    """The log has no entity in plain, neither of the predictions nor of the labels, and the join works."""
    project = project_with(tmp_path, 'log = { hash = ["entity"] }')
    privacy = Privacy.of(project.config.deployment["api"].log, FLOWERS, secret_of(project))
    assert privacy is not None
    batch = privacy.apply(rows(project, 1, at_us=round(START.timestamp() * 1e6), entity=["anna"]))
    assert batch is not None
    writer = PredictionLog(project, "api", "iris", FLOWERS)
    writer.append(batch)
    writer.close()
    log = LabelLog(project)
    log.append([told("anna", 1, 2), told("anna", 1, 1, deployment="other")])
    log.close()
    assert list(truths(project).values()) == [2]
    kept = [path for path in (tmp_path / ".loopwright").rglob("*.parquet") if "deployment=api" in str(path)]
    assert kept
    assert not any(b"anna" in path.read_bytes() for path in kept)
    stored = rows_of(
        PredictionStore(project).query("select deployment, entity from labels order by deployment")
    )
    assert stored[0]["entity"] != "anna"
    assert stored[1] == {"deployment": "other", "entity": "anna"}


def test_where_entities_are_dropped_a_label_by_entity_is_refused(tmp_path: Path) -> None:
    """And with it those of the same call; the message says what would work."""
    project = project_with(tmp_path, 'log = { drop = ["entity"] }')
    (one,) = predict(project, [("a", 0)], "other")
    log = LabelLog(project)
    with pytest.raises(InvalidInput, match=r"keeps no entities.*\n*.*log.hash"):
        log.append([told("a", 1, deployment="other"), Label(one, 1), told("a", 1)])
    assert truths(project) == {}
    log.close()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: Label("", 1), "no prediction_id and no entity"),
        (lambda: Label("", 1, deployment="api"), "has deployment"),
        (lambda: Label("", 1, entity="a"), "has entity"),
        (
            lambda: Label("0" * 32, 1, deployment="api", entity="a"),
            "has prediction_id and deployment and entity",
        ),
        (lambda: Label("", 1, datetime(2026, 1, 1), "api", "a"), "without a zone"),  # noqa: DTZ001
        (
            lambda: Label("", 1, datetime.now(UTC) + timedelta(days=1, minutes=1), "api", "a"),
            "which is to come",
        ),
        (lambda: Label("0" * 32, 1, datetime.now(UTC) + timedelta(days=400)), "which is to come"),
        (lambda: Label("", float("inf"), START, "api", "a"), "cannot be used"),
        (lambda: Label("", 1, START, "api", "a", 0.0), "within 0 s"),
        (lambda: Label("", 1, START, "api", "a", float("nan")), "within nan s"),
        (lambda: Label("", 1, START, "api", "a", 1e300), "within 1e\\+300 s"),
    ],
)
def test_a_label_that_says_nothing_is_refused(tmp_path: Path, wrong: Callable[[], Label], says: str) -> None:
    """It is named with what is wrong; what came with it is not kept."""
    log = LabelLog(project_with(tmp_path))
    with pytest.raises(InvalidInput, match=says):
        log.append([told("a", 1), wrong()])
    assert PredictionStore(project_with(tmp_path)).query("select count(*) as n from labels").to_pylist() == [
        {"n": 0}
    ]
    with pytest.raises(NotFound, match="apo"):
        log.append([told("a", 1, deployment="apo")])
    log.append([Label("", 1, datetime.now(UTC) + timedelta(hours=23), "api", "a")])
    log.close()


def test_labels_keep_their_order_when_the_clock_is_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within one process the later label wins, also of another log, an hour ago by the clock."""
    project = project_with(tmp_path)
    (one,) = predict(project, [("a", 0)])
    first, second = LabelLog(project), LabelLog(project)
    first.append([Label(one, 1)])
    real = files.now_us
    monkeypatch.setattr("loopwright.predictions.labels.now_us", lambda: real() - 3_600_000_000)
    second.append([Label(one, 2)])
    assert truths(project) == {one: 2}
    first.append([told("a", 1, 0)])
    assert truths(project) == {one: 0}
    received = [label.received for label in PredictionStore(project).labels_of(one)]
    assert received == sorted(set(received))
    first.close()
    second.close()


def test_label_files_of_an_earlier_release_are_read(tmp_path: Path) -> None:
    """They have no column that says where a label came from; beside those that have, and alone."""
    import pyarrow as pa

    from loopwright.predictions.labels import LABELS
    from loopwright.predictions.rolling import RollingLog
    from loopwright.records import micros

    project = project_with(tmp_path)
    first, second = predict(project, [("a", 0), ("a", 1)])
    earlier = pa.schema([field for field in LABELS if field.name != "source"])
    at = micros(START)
    values = {"prediction_id": [first], "number": [2.0], "text": ["2"], "at": [at], "received_at": [at]}
    batch = pa.RecordBatch.from_pydict(values, schema=earlier)
    log = RollingLog(
        project,
        files.labels(project),
        durability="process",
        seal_rows=1,
        seal_bytes=1 << 20,
        seal_after_s=300,
    )
    log.append("labels", earlier, batch.serialize(), 1)
    log.close()
    assert truths(project) == {first: 2}
    assert [label.source for label in PredictionStore(project).labels_of(first)] == [""]
    new = LabelLog(project)
    new.append([Label(second, 1), told("a", 0.5, 0)], source="feed")
    assert truths(project) == {first: 0, second: 1}
    new.close()
    assert truths(project) == {first: 0, second: 1}


def test_what_became_of_labels_is_counted(tmp_path: Path) -> None:
    """Late, corrected, said twice, of no use, before their time, and of nothing: each by itself, of a span as of all."""
    project = project_with(tmp_path)
    ids = predict(project, [(f"e{number}", number) for number in range(10)])
    elsewhere = predict(project, [("x", 1)], "other")
    log = LabelLog(project)
    at = START + timedelta(minutes=1)
    log.append([Label(one, 1, at) for one in ids[:6]])
    log.append([Label(ids[0], 2, at), Label(ids[0], 2, at), Label(ids[1], 1, at)])  # corrected, twice; twice
    log.append(
        [Label(ids[2], "a rose", at), Label(ids[6], 1.5, at), Label(ids[3], 77, at)]
    )  # 77 is a class like any
    log.append([Label(ids[7], 1, START - timedelta(minutes=1))])
    log.append([Label("f" * 32, 1, at), told("nobody", 3), Label(elsewhere[0], 1, at)])
    log.append([told("e8", 9), told("e9", 8)])  # the second is too early for any prediction of its
    store = PredictionStore(project)
    found = store.label_summary("api")
    assert (found.rows, found.labels, found.labelled) == (10, 14, 7)
    assert (found.corrected, found.duplicates, found.unusable, found.before) == (3, 2, 2, 1)
    assert found.unknown == 3
    some = store.label_summary("api", START + 2 * SECOND, START + 4 * SECOND, unknown=False)
    assert (some.rows, some.labelled, some.corrected, some.unusable, some.unknown) == (2, 1, 2, 1, 0)
    whole = store.label_summary()
    assert (whole.rows, whole.labelled, whole.unknown) == (11, 8, 3)
    assert store.label_summary("other").labelled == 1
    log.close()
    assert store.label_summary("api") == found
    with pytest.raises(NotFound):
        store.label_summary("nowhere")
    assert store.labels_of(ids[3])[-1].actual == 77
    assert [label.actual for label in store.labels_of(ids[2])] == [1, None]


def test_who_has_no_labels_by_entity_pays_nothing(tmp_path: Path) -> None:
    """No folder is made and no prediction of another span is read."""
    project = project_in(tmp_path)
    log = LabelLog(project)
    log.append([Label("0" * 32, 1)])
    log.close()
    assert not (project.state / "labels-by-entity").exists()
