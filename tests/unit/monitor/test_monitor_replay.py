"""Monitors tried out on the past: rows judged in their own time, by the real log and the real runner."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from four_modes import add_version
from sklearn.linear_model import LogisticRegression

from loopwright.config import Project
from loopwright.errors import Conflict, InvalidInput, NotFound, SchemaMismatch
from loopwright.monitor.replay import DEPLOYMENT, replay

TOML = """
[model.loans]
target = "paid"
[monitor.loans]
window = "1d"
retrain_on = ["performance"]
performance = { metric = "accuracy", worse_than = 0.75 }
kpi.share = { sql = "select avg(prediction) from predictions", at_most = 0.9, labelled = false }
"""
DAY, PER_DAY = timedelta(days=1), 400


def loans(days: int, *, seed: int, drift_from: int = 999, flip_from: int = 999) -> pd.DataFrame:
    """Return 400 rows a day; from a day on incomes move by a standard deviation, or a half of the truths is wrong."""
    random = np.random.default_rng(seed)
    n = days * PER_DAY
    day = np.arange(n) // PER_DAY
    income = random.normal(0, 1, n) + (day >= drift_from)
    paid = (income + random.normal(0, 0.3, n) > 0).astype(np.int64)
    flipped = (day >= flip_from) & (random.random(n) < 0.5)
    moments = pd.Timestamp("2025-03-01") + pd.to_timedelta(np.arange(n) * 86400 / PER_DAY, unit="s")
    return pd.DataFrame(
        {
            "at": moments,
            "income": income,
            "age": random.integers(18, 90, n).astype(float),
            "customer": [f"c{number % 50}" for number in range(n)],
            "paid": np.where(flipped, 1 - paid, paid),
        }
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project with a model that learnt ten days."""
    root = tmp_path_factory.mktemp("loans")
    (root / "loopwright.toml").write_text(TOML)
    project = Project(root)
    table = loans(10, seed=1)[["income", "age", "paid"]]
    add_version(
        project, LogisticRegression().fit(table[["income", "age"]], table["paid"]), table, "paid", "loans"
    )
    return project


def arrow(table: pd.DataFrame) -> pa.Table:
    """Return a frame as Arrow."""
    return pa.Table.from_pandas(table, preserve_index=False)


def test_what_moved_is_found_on_the_day_it_moved(project: Project, tmp_path: Path) -> None:
    """An input that moves on day 5 drifts from then on, truths that turn on day 8 cost accuracy from then on; not before."""
    rows = arrow(loans(12, seed=2, drift_from=5, flip_from=8))
    seen: list[tuple[int, int]] = []

    found = replay(
        project,
        "loans",
        1,
        rows.take(pa.array(np.random.default_rng(0).permutation(rows.num_rows))),  # in any order
        time="at",
        into=tmp_path / "replay",
        label_delay=timedelta(hours=2),
        entity="customer",
        progress=lambda done, of: seen.append((done, of)),
    )

    first = datetime(2025, 3, 1, tzinfo=UTC)
    drift = [signal for signal in found.fired if signal.check == "drift" and signal.subject == "income"]
    assert [signal.window.start for signal in drift] == [first + number * DAY for number in range(5, 12)]
    bad = [signal for signal in found.fired if signal.check == "performance"]
    assert [signal.window.start for signal in bad] == [first + number * DAY for number in range(8, 12)]
    assert {alert.check for alert in found.alerts} >= {"drift", "performance"}
    labels = [one for one in found.windows if one.phase == "labels"]
    assert [one.labelled for one in labels] == [PER_DAY] * 12
    assert seen[-1] == (12, 12)


def test_without_a_change_nothing_alarms(project: Project, tmp_path: Path) -> None:
    """Twelve days like those the model learnt open no alert."""
    found = replay(project, "loans", 1, arrow(loans(12, seed=3)), time="at", into=tmp_path / "replay")

    assert len(found.windows) == 24
    assert not found.alerts


def test_the_folder_is_a_project_and_the_first_one_is_left_alone(project: Project, tmp_path: Path) -> None:
    """The monitor is taken over as it is declared, but for what starts trainings; nothing is written elsewhere."""
    before = sorted(path for path in project.root.rglob("*"))

    found = replay(
        project,
        "loans",
        1,
        arrow(loans(2, seed=4)),
        time="at",
        into=tmp_path / "replay",
        window=timedelta(hours=12),
    )

    made = Project(found.folder)
    assert made.config.monitor["loans"].window == timedelta(hours=12)
    assert made.config.monitor["loans"].kpi["share"].at_most == 0.9
    assert not made.config.monitor["loans"].retrain_on  # a replay trains nothing
    assert list(made.config.deployment) == [DEPLOYMENT]
    assert sorted(path for path in project.root.rglob("*")) == before


def test_rows_without_labels_are_judged_by_their_inputs(project: Project, tmp_path: Path) -> None:
    """Without a column of the truth the inputs are judged all the same."""
    rows = arrow(loans(4, seed=5, drift_from=0).drop(columns="paid"))

    found = replay(project, "loans", 1, rows, time="at", into=tmp_path / "replay")

    assert {signal.check for signal in found.fired} >= {"drift"}
    assert not [
        one for one in found.windows if one.phase == "labels" and one.state == "judged" and one.labelled
    ]


@pytest.mark.parametrize(
    ("change", "options", "error", "named"),
    [
        (lambda rows: rows, {"time": "moment"}, NotFound, "moment"),
        (lambda rows: rows.drop(columns="age"), {}, SchemaMismatch, "age"),
        (lambda rows: rows.assign(at=None), {}, InvalidInput, "have no time"),
        (lambda rows: rows.assign(at="yesterday"), {}, InvalidInput, "holds no moments"),
        (lambda rows: rows.head(0), {}, InvalidInput, "0 of 0"),
        (lambda rows: rows, {"target": "outcome"}, NotFound, "outcome"),
        (lambda rows: rows, {"entity": "person"}, NotFound, "person"),
    ],
)
def test_what_cannot_be_replayed_is_said_and_leaves_no_folder(
    project: Project,
    tmp_path: Path,
    change: object,
    options: dict[str, Any],
    error: type[Exception],
    named: str,
) -> None:
    """Wrong columns and moments are named before anything is made."""
    assert callable(change)
    rows = arrow(change(loans(1, seed=6)))

    with pytest.raises(error, match=named):
        replay(project, "loans", 1, rows, into=tmp_path / "replay", **({"time": "at"} | options))

    assert not (tmp_path / "replay").exists()


def test_a_folder_that_is_there_is_not_touched(project: Project, tmp_path: Path) -> None:
    """Nothing is written into a folder of somebody else."""
    (tmp_path / "mine.txt").write_text("mine")

    with pytest.raises(Conflict, match="is there already"):
        replay(project, "loans", 1, arrow(loans(1, seed=7)), time="at", into=tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
