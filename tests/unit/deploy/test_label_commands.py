"""``loopwright label``: one label, a file of them, and what became of all."""

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prediction_rows import FLOWERS, rows

from loopwright.cli import main
from loopwright.config import LabelSourceConfig, Project
from loopwright.deploy.labels.importing import import_file
from loopwright.errors import InvalidInput
from loopwright.predictions import LabelLog, PredictionLog, PredictionStore
from loopwright.records import Label

NOW = datetime.now(UTC)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return the project of the working folder."""
    (tmp_path / "loopwright.toml").write_text(
        '[model.iris]\ntarget = "species"\n[deployment.api]\nmodel = "iris"\nmode = "online"\n'
        '[deployment.quiet]\nmodel = "iris"\nmode = "online"\n[monitor.iris]\nwindow = "1m"\n[labels.feed]\nsource = "feed.csv"\nid = "id"\nvalue = "v"\n'
    )
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


def predict(project: Project, n: int, at: datetime = NOW) -> list[str]:
    """Log predictions and return their ids."""
    log = PredictionLog(project, "api", "iris", FLOWERS)
    batch = rows(project, n, at_us=round(at.timestamp() * 1e6))
    log.append(batch)
    log.close()
    return batch.prediction_id


def run(*words: str) -> int:
    """Run the command line; return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(["label", *words])
    code = ended.value.code
    return code if isinstance(code, int) else 0


def test_one_label_by_id_and_by_entity(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """Values are numbers, booleans or text, as JSON has them."""
    first, second = predict(project, 2)
    store = PredictionStore(project)
    assert run(first, "2") == 0
    later = (NOW + timedelta(seconds=5)).isoformat()
    assert run("--deployment", "api", "--entity", "flower-1", "--at", later, "--within", "1h", "1") == 0
    assert [store.find(one).actual for one in (first, second)] == [2, 1]
    assert "Labelled flower-1 as 1." in capsys.readouterr().out
    for words, says in (
        ((first,), "is not an id and a value"),
        (("--deployment", "api", "--entity", "a"), "Nothing is not a value"),
        (("--deployment", "api", "--entity", "a", "--at", "noon", "1"), "'noon' is no time"),
        (("--deployment", "apo", "--entity", "a", "1"), "Did you mean 'api'?"),
        (("--deployment", "api", "--entity", "a", "--at", "2026-01-01T00:00", "1"), "without a zone"),
        ((first, "1", "--at", "2999-01-01T00:00Z"), "which is to come"),
        (("abc", "1"), "no prediction 'abc'"),
    ):
        assert run(*words) != 0
        assert says in " ".join(capsys.readouterr().err.split()), words
    assert [store.find(one).actual for one in (first, second)] == [2, 1]


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    """At the top and for each command below, within 80 columns."""
    for words in ((), ("import",), ("status",), ("sources",), ("sync",)):
        assert run(*words, "--help") == 0
        said = capsys.readouterr().out
        assert f"    loopwright label {' '.join(words)}".rstrip() in said


def test_a_file_is_taken_but_for_the_rows_that_are_no_labels(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rows refused are named with their numbers; ids that were given out and not logged are told apart."""
    ids = predict(project, 4)
    unlogged = rows(project, 1).prediction_id
    with Path("truth.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["other", "id", "truth"])
        writer.writerows([["x", one, number % 3] for number, one in enumerate(ids)])
        writer.writerows([["x", "abc", 1], ["x", ids[0], ""], ["x", "", 2], ["x", unlogged[0], 1]])
    assert run("import", "truth.csv", "--id", "id", "--value", "truth", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["taken"], found["unlogged"]) == (8, 5, 1)
    assert found["examples"] == [[5, "an id that this project never gave out"], [6, "no value"], [7, "no id"]]
    store = PredictionStore(project)
    assert [store.find(one).actual for one in ids] == [0, 1, 2, 0]
    assert run("import", "truth.csv", "--id", "id", "--value", "truth") == 0
    said = capsys.readouterr().out
    assert "5 of 8 rows of truth.csv were taken as labels." in said
    assert "row 5: an id that this project never gave out" in said
    for words, says in (
        (("truth.csv", "--id", "i", "--value", "truth"), "has no column 'i'"),
        (("truth.csv", "--value", "truth"), "write either id"),
        (("truth.csv", "--entity", "id", "--value", "truth"), "entity needs at"),
        (("none.csv", "--id", "id", "--value", "truth"), "There is no file none.csv"),
        (("loopwright.toml", "--id", "id", "--value", "truth"), "neither CSV nor Parquet"),
        (("truth.csv", "--id", "id", "--value", "truth", "--within", "long"), "is no duration"),
    ):
        assert run("import", *words) != 0
        assert says in " ".join(capsys.readouterr().err.split()), words
    Path("broken.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(InvalidInput, match="cannot be read as Parquet"):
        import_file(project, Path("broken.parquet"), LabelSourceConfig(source="", id="id", value="v"))


def test_two_hundred_thousand_labels_are_imported(project: Project) -> None:
    """Each once, with progress, by entity and moment as well."""
    ids = predict(project, 100_000)
    table = pa.table({"id": ids, "v": [number % 3 for number in range(len(ids))]})
    pq.write_table(table, "many.parquet")
    seen: list[tuple[int, int]] = []
    found = import_file(
        project,
        Path("many.parquet"),
        LabelSourceConfig(source="", id="id", value="v"),
        lambda *told: seen.append(told),
    )
    assert (found.rows, found.taken, found.unlogged, found.refused) == (100_000, 100_000, 0, {})
    assert seen[-1] == (100_000, 100_000)
    store = PredictionStore(project)
    asked = "select count(*) as n from predictions where actual = prediction"
    assert store.query(asked).to_pylist() == [{"n": 100_000}]
    at = (NOW + timedelta(seconds=1)).isoformat()
    whose = [f"flower-{number}" for number in range(len(ids))]
    entities = pa.table({"e": whose, "t": [at] * len(ids), "v": [1] * len(ids)})
    pq.write_table(entities, "entities.parquet")
    config = LabelSourceConfig(source="", entity="e", at="t", value="v", deployment="api")
    assert import_file(project, Path("entities.parquet"), config).taken == 100_000
    asked = "select count(*) as n from predictions where actual = 1"
    assert store.query(asked).to_pylist() == [{"n": 100_000}]


def test_status_tells_how_long_labels_take(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is known it says so; then the curve, the share and the counts."""
    assert run("status", "quiet") == 0
    assert "not known yet" in capsys.readouterr().out
    log = LabelLog(project)
    for minute in range(60, 0, -1):
        at = NOW - timedelta(minutes=minute)
        for place, one in enumerate(predict(project, 20, at)[:10]):
            log.append([Label(one, 1, at)], received=at + timedelta(seconds=10 + place))
    log.close()
    assert run("status", "api", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["final"] == 0.5
    assert found["counts"]["labelled"] == 600
    assert found["curve"][-1]["share"] == 1.0
    assert run("status", "api") == 0
    said = capsys.readouterr().out
    assert "600 of 1,200 predictions of the last 30 days have a label." in said
    assert "In the end 50% of the predictions have one." in said
    assert run("status", "apo") == 1


def test_sources_are_listed_and_read_on_request(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """What is down is said with its reason, and ends with an error."""
    (one,) = predict(project, 1)
    assert run("sources") == 0
    assert "never read" in capsys.readouterr().out
    assert run("sync", "feed") == 1
    assert "There is no file" in capsys.readouterr().err
    Path("feed.csv").write_text(f"id,v\n{one},2\nabc,1\n")
    assert run("sync", "feed") == 0
    assert "feed: 2 rows read, 1 labels taken." in capsys.readouterr().out
    assert run("sources", "--json") == 0
    [found] = json.loads(capsys.readouterr().out)
    assert (found["name"], found["state"]["state"], found["state"]["taken"]) == ("feed", "ok", 1)
    assert run("sync", "fed") == 1
    assert "Did you mean 'feed'?" in capsys.readouterr().err
