"""Statistics of snapshots, and what changed from one to another."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from loopwright.cli import main
from loopwright.config import Project
from loopwright.errors import InvalidInput, NotFound
from loopwright.ledger import Ledger
from loopwright.lineage.comparison import compare
from loopwright.lineage.history import history, names, resolve, users
from loopwright.lineage.snapshots import path_of, snapshot
from loopwright.lineage.statistics import statistics, statistics_of
from loopwright.records import DatasetRef, ModelVersion, PipelineRun, now


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project without data."""
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    (tmp_path / "loopwright.toml").write_text("")
    return Project(tmp_path)


ORDERS = pd.DataFrame(
    {
        "id": range(8),
        "amount": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, None],
        "city": ["Rom", "Rom", "Bern", "Bern", None, "Rom", "Rom", "Rom"],
    }
)


def command(*words: str) -> object:
    """Run a command and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return ended.value.code


def kept(project: Project, frame: pd.DataFrame, name: str = "orders") -> DatasetRef:
    """Keep a frame as the next snapshot of a name."""
    return snapshot(project, pa.Table.from_pandas(frame, preserve_index=False), name, "orders.csv")


def test_statistics_are_those_of_pandas_and_kept(project: Project) -> None:
    """Numbers, text and gaps; the second time they come from the file beside the snapshot."""
    ref = kept(project, ORDERS)
    found = statistics(project, ref.digest)
    by = {column.name: column for column in found.columns}
    amount, city = by["amount"], by["city"]
    assert (amount.nulls, amount.distinct, amount.minimum, amount.maximum) == (1, 7, 1.0, 7.0)
    assert amount.mean == ORDERS["amount"].mean()
    assert amount.std == pytest.approx(ORDERS["amount"].std())
    assert amount.quantiles == tuple(ORDERS["amount"].quantile([0.05, 0.25, 0.5, 0.75, 0.95]))
    assert city.top == (("Rom", 5), ("Bern", 2))
    assert (city.nulls, city.mean, city.type) == (1, None, "string")
    path_of(project, ref.digest).unlink()
    assert statistics(project, ref.digest) == found


def test_every_type_has_statistics() -> None:
    """Times, booleans, categories, lists, NaN, decimals, an empty and an all-missing column."""
    table = pa.table(
        {
            "at": pa.array([0, 86_400_000_000], pa.timestamp("us", tz="UTC")),
            "day": pa.array([0, 1], pa.date32()),
            "flag": [True, None],
            "kind": pa.array(["a", "b"]).dictionary_encode(),
            "tags": [["x"], None],
            "real": [1.0, float("nan")],
            "none": pa.nulls(2),
            'a "quoted" name': ["x", "y"],
        }
    )
    by = {column.name: column for column in statistics_of(table).columns}
    assert (by["at"].kind, by["at"].maximum, by["day"].maximum) == ("time", 86_400.0, 86_400.0)
    assert (by["flag"].top, by["flag"].nulls) == ((("true", 1),), 1)
    assert (by["kind"].type, by["kind"].distinct) == ("string", 2)
    assert (by["tags"].kind, by["tags"].nulls, by["tags"].distinct) == ("other", 1, None)
    assert (by["real"].nulls, by["real"].maximum) == (1, 1.0)
    assert by["none"].nulls == 2
    assert statistics_of(table[:0]).rows == 0


def test_rows_are_told_apart_by_key_or_counted(project: Project) -> None:
    """One changed, one removed, two added: with the key, and without."""
    after = pd.concat(
        [ORDERS.iloc[1:], pd.DataFrame({"id": [9, 10], "amount": [1.0, 1.0], "city": ["Rom"] * 2})]
    )
    after.loc[after["id"] == 3, "city"] = "Paris"
    before, now_ = kept(project, ORDERS), kept(project, after)
    keyed = compare(project, before, now_, ["id"]).rows
    assert (keyed.added, keyed.removed, keyed.changed, keyed.same) == (2, 1, 1, 6)
    assert keyed.by_column == {"city": 1}
    counted = compare(project, before, now_).rows
    assert (counted.added, counted.removed, counted.changed, counted.same) == (3, 2, 0, 6)
    twice = kept(project, pd.concat([ORDERS, ORDERS]))
    assert compare(project, before, twice).rows.added == 8
    with pytest.raises(InvalidInput, match="2 rows have id="):
        compare(project, before, twice, ["id"])
    with pytest.raises(NotFound, match="Did you mean 'id'"):
        compare(project, before, now_, ["idd"])


def test_the_same_and_the_same_in_another_order(project: Project) -> None:
    """One content is the same; shuffled rows are said to be only that."""
    before = kept(project, ORDERS)
    assert compare(project, before, before).same
    shuffled = compare(project, before, kept(project, ORDERS.iloc[::-1]))
    assert (shuffled.same, shuffled.reordered) == (False, True)


def test_columns_that_come_go_and_change_their_type(project: Project) -> None:
    """A number that becomes a decimal has the same values; one that becomes text has not."""
    after = ORDERS.drop(columns="city").assign(id=ORDERS["id"].astype(float), new=1)
    found = compare(project, kept(project, ORDERS), kept(project, after), ["id"])
    assert (found.columns_added, found.columns_removed) == (("new",), ("city",))
    assert found.types_changed == {"id": ("int64", "double")}
    assert (found.rows.same, found.reordered) == (8, False)
    text = compare(project, kept(project, ORDERS), kept(project, ORDERS.assign(amount="x")), ["id"])
    assert text.rows.by_column == {"amount": 8}


def test_the_column_that_moved_most_comes_first(project: Project) -> None:
    """A shifted number, a category that grew, a column with new gaps, and one that stayed."""
    random = np.random.default_rng(0)
    before = pd.DataFrame(
        {
            "still": random.normal(size=2000),
            "gaps": random.normal(size=2000),
            "city": random.choice(["a", "b"], 2000),
            "shift": random.normal(size=2000),
        }
    )
    after = before.assign(shift=before["shift"] + 3)
    after.loc[:499, "gaps"] = None
    after.loc[after["city"].eq("b") & (after.index < 1000), "city"] = "c"
    moves = compare(project, kept(project, before), kept(project, after)).moves
    assert (moves[0].name, moves[-1].name) == ("shift", "still")
    by = {move.name: move for move in moves}
    # Two normal distributions three deviations apart: 2 Phi(1.5) - 1.
    assert by["shift"].effect == pytest.approx(0.866, abs=0.02)
    assert by["gaps"].effect == 0.25
    assert by["gaps"].missing == (0.0, 0.25)
    assert by["city"].effect == pytest.approx((after["city"] == "c").mean(), abs=1e-4)
    assert by["still"].effect == 0
    assert sum(by["shift"].shares_before) == pytest.approx(1)


def test_references_name_snapshots(project: Project) -> None:
    """A name, its n-th snapshot, a prefix of a fingerprint; going back to an old content is a snapshot of its own."""
    first, second = kept(project, ORDERS), kept(project, ORDERS[:3])
    kept(project, ORDERS[:3])
    kept(project, ORDERS)
    assert [ref.digest for ref in history(project, "orders")] == [first.digest, second.digest, first.digest]
    assert resolve(project, "orders").digest == resolve(project, "orders@3").digest == first.digest
    assert resolve(project, "orders@2").digest == resolve(project, second.digest[:8]).digest == second.digest
    kept(project, ORDERS[:3], "copy@home")
    assert resolve(project, "copy@home").name == "copy@home"
    assert list(names(project)) == ["copy@home", "orders"]
    for wrong, text in (
        ("ordes", "Did you mean 'orders'"),
        ("orders@9", "orders@1 to orders@3"),
        ("ffffff", "no dataset"),
    ):
        with pytest.raises(NotFound, match=text):
            resolve(project, wrong)


def test_the_ledger_knows_who_used_it(project: Project) -> None:
    """Runs that read it and versions that learned from it."""
    ref = kept(project, ORDERS)
    ledger = Ledger.open(project)
    run = PipelineRun("pipelines:train", "r1", "f1", "completed", now(), datasets=(ref,))
    ledger.put("pipeline_run", "r1", run)
    ledger.put("model_version", "demand/1", ModelVersion("demand", 1, "r1", "", training=ref))
    ledger.close()
    found = users(project, ref.digest)
    assert (found.runs, found.versions) == ((("r1", "pipelines:train"),), ("demand/1",))
    assert users(project, "f" * 64).runs == ()


def test_the_command_line(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """List, show and diff say it in words and in JSON."""
    place = ["--project", str(project.root)]
    assert command("dataset", "list", *place) == 0
    assert "No dataset was read yet" in capsys.readouterr().out
    kept(project, ORDERS)
    kept(project, ORDERS.assign(city="Köln"))
    assert command("dataset", "list", "--json", *place) == 0
    assert [len(one["snapshots"]) for one in json.loads(capsys.readouterr().out)] == [2]
    assert command("dataset", "show", "orders@1", *place) == 0
    shown = capsys.readouterr().out
    assert "orders@1 of 2" in shown
    assert "Rom" in shown
    assert command("dataset", "diff", "orders@1", "orders", "--key", "id", *place) == 0
    told = capsys.readouterr().out
    assert "0 added, 0 removed, 8 changed, 0 alike" in told
    assert "█" in told
    assert command("dataset", "diff", "orders", "orders", *place) == 0
    assert "The same" in capsys.readouterr().out
    assert command("dataset", "diff", "orders@1", "orders", "--json", *place) == 0
    assert json.loads(capsys.readouterr().out)["rows"]["added"] == 8
    assert command("dataset", "diff", "orders@1", "orders", "--key", "city", *place) == 2
    assert "does not tell the rows" in capsys.readouterr().err
