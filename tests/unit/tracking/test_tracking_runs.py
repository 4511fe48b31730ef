"""Runs read by SQL, and ``loopwright run``."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loopwright.cli import main
from loopwright.config import Project
from loopwright.errors import InvalidInput, NotFound
from loopwright.tracking.reading import best, details, find, open_reader
from loopwright.tracking.run import History
from loopwright.tracking.where import parse_order, parse_where

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Return a project whose store has four runs: three of a grid, one that failed elsewhere."""
    root = tmp_path_factory.mktemp("tracked")
    (root / "loopwright.toml").write_text('[project]\nname = "tracked"\n')
    project = Project(root)
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    import mlflow
    from mlflow.entities import Dataset, DatasetInput

    client = mlflow.MlflowClient(f"loopwright+{project.tracking_url}")
    experiment = client.create_experiment("tracked")
    for depth in (1, 2, 3):
        run = client.create_run(
            experiment, start_time=depth * 1000, run_name=f"grid-{depth}", tags={"kind": "[red]"}
        )
        run_id = run.info.run_id
        client.log_param(run_id, "depth", depth)
        client.log_param(run_id, "seed", 7)
        for step in range(100):
            client.log_metric(run_id, "loss", 1 / (step + depth), step=step)
        client.log_metric(run_id, "accuracy", 0.7 + depth / 10)
        client.log_inputs(run_id, [DatasetInput(Dataset("iris", f"{depth:032}", "local", "iris.csv"))])
        client.log_text(run_id, "hello", "notes/a.txt")
        client.set_terminated(run_id, end_time=depth * 1000 + 500)
    client.create_registered_model("iris")
    client.create_model_version("iris", client.get_run(run_id).info.artifact_uri, run_id)
    failed = client.create_run("0", start_time=9000, run_name="broken").info.run_id
    client.log_metric(failed, "loss", math.nan)
    client.set_terminated(failed, "FAILED")
    yield project
    client._tracking_client.store.engine.dispose()


@pytest.fixture
def reader(project: Project, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what reads the project's own store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("LOOPWRIGHT_PROJECT", str(project.root))
    return open_reader(project)


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("", ["broken", "grid-3", "grid-2", "grid-1"]),
        ("accuracy >= 0.89", ["grid-3", "grid-2"]),
        ("depth = '2'", ["grid-2"]),
        ("depth != '2' and status = 'FINISHED'", ["grid-3", "grid-1"]),
        ("loss < 5", ["grid-3", "grid-2", "grid-1"]),
        ("name LIKE 'grid%' and start_time <= 2000", ["grid-2", "grid-1"]),
        ("name ILIKE 'GRID-1'", ["grid-1"]),
        ("tags.kind = '[red]' and depth = '1'", ["grid-1"]),
        ("nothing > 1", []),
    ],
)
def test_conditions_choose_runs(reader: Any, where: str, names: list[str]) -> None:
    """Metrics, parameters, tags and attributes; a value that is no number meets no condition."""
    assert [run.name for run in reader.search(parse_where(where))] == names


def test_runs_are_sorted_with_those_that_lack_it_last(reader: Any) -> None:
    """Up and down, by a metric and by an attribute, and no more than asked for."""

    def names(order: str, **more: Any) -> list[str]:
        return [run.name for run in reader.search(order=parse_order(order), **more)]

    assert names("accuracy") == ["grid-3", "grid-2", "grid-1", "broken"]
    assert names("loss asc", limit=2) == ["grid-3", "grid-2"]
    assert names("params.depth asc") == ["grid-1", "grid-2", "grid-3", "broken"]
    assert names("name asc", experiment="tracked") == ["grid-1", "grid-2", "grid-3"]


def test_a_run_is_found_by_id_part_of_it_and_name(reader: Any) -> None:
    """What fits several is refused with them; what fits none names the nearest."""
    [newest] = reader.search(limit=1)
    assert find(reader, newest.run_id).name == "broken"
    assert find(reader, newest.run_id[:12]).run_id == newest.run_id
    assert find(reader, "grid-2").params == {"depth": "2", "seed": "7"}
    assert math.isnan(find(reader, "broken").metrics["loss"])
    with pytest.raises(NotFound, match="Did you mean 'grid-3'"):
        find(reader, "grid3")
    every = [run.run_id for run in reader.search()]
    shared = next((digit for digit in "0123456789abcdef" if sum(i.startswith(digit) for i in every) > 1), "")
    if shared:
        with pytest.raises(InvalidInput, match="Several runs have an id that starts with"):
            find(reader, shared)


def test_all_that_belongs_to_a_run_is_read(project: Project, reader: Any) -> None:
    """The course of a metric, datasets, artifacts, the version made from it."""
    found = details(project, reader, find(reader, "grid-3"))
    loss = next(history for history in found.histories if history.metric == "loss")
    assert (loss.points, loss.high, len(loss.course)) == (100, 1 / 3, 40)
    assert list(loss.course) == sorted(loss.course, reverse=True)
    assert [(one.name, one.source) for one in found.datasets] == [("iris", "iris.csv")]
    assert (found.artifacts, found.versions) == (("notes/",), ("iris version 1",))
    assert (found.experiment, found.page) == ("tracked", "")


def test_a_course_is_the_mean_of_its_parts() -> None:
    """Few points are kept as they are."""
    assert History.of("m", [1.0, 3.0]).course == (1.0, 3.0)
    long = History.of("m", [float(value) for value in range(400)])
    assert (long.points, long.low, long.high, long.course[0], long.course[-1]) == (400, 0, 399, 4.5, 394.5)


def test_the_best_run_is_found(reader: Any) -> None:
    """The highest or the lowest, among those that meet a condition; runs without a number do not count."""
    assert [run.name for run in best(reader, "accuracy")] == ["grid-3"]
    assert [run.name for run in best(reader, "accuracy", lower=True, limit=5)] == [
        "grid-1",
        "grid-2",
        "grid-3",
    ]
    assert best(reader, "loss", "depth != '1'")[0].name == "grid-2"
    with pytest.raises(NotFound, match="Did you mean 'accuracy'"):
        best(reader, "acuracy")


def test_commands_print_what_a_person_reads(
    reader: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables with the metrics and the parameters that differ, bars, differences; JSON for programs."""
    monkeypatch.setenv("COLUMNS", "200")

    def said(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["run", *words])
        assert ended.value.code == 0
        return capsys.readouterr().out

    table = said("list")
    assert table.split()[:5] == ["run", "name", "started", "experiment", "status"]
    assert "depth" in table
    assert "seed" not in table, "it is the same in all runs that have it"
    one = said("show", "grid-1")
    assert "█" in one
    assert "[red]" in one
    assert "iris" in one
    assert "notes/" in one
    both = said("compare", "grid-1", "grid-3")
    assert "(+0.2, +25.0%)" in both
    assert both.index("depth") < both.index("Parameters in common") < both.index("seed")
    assert "grid-3" in said("best", "accuracy")
    assert [run["name"] for run in json.loads(said("list", "--json", "--where", "depth = '1'"))] == ["grid-1"]
    assert json.loads(said("show", "grid-1", "--json"))["histories"]
    assert json.loads(said("compare", "grid-1", "grid-2", "--json"))["params"] == {"depth": ["1", "2"]}
    assert json.loads(said("best", "loss", "--lower", "--json"))[0]["name"] == "grid-3"
    assert said("list", "--where", "depth = '8'") == "No run meets this.\n"


def test_wrong_words_are_answered_without_a_traceback(
    reader: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each with its exit code and the next step."""
    for words, code, message in (
        (["show", "nothing"], 1, "There is no run 'nothing'"),
        (["best", "nothing"], 1, "There is no metric 'nothing'"),
        (["compare", "grid-1"], 2, "only one run to compare"),
        (["list", "--where", "loss ~ 1"], 2, "is not understood"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["run", *words])
        assert ended.value.code == code
        assert message in capsys.readouterr().err


def test_before_the_first_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """A new project has no runs, which is no error; there is none to show."""
    (tmp_path / "loopwright.toml").touch()
    monkeypatch.setenv("LOOPWRIGHT_PROJECT", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(SystemExit, match="0"):
        main(["run", "list"])
    assert "No run has been tracked yet" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["run", "show", "x"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "databricks")
    with pytest.raises(SystemExit):
        main(["run", "list"])
    assert "neither a server nor a database" in capsys.readouterr().err


def test_looking_at_runs_loads_no_mlflow(project: Project, reader: Any) -> None:
    """The command imports what it needs: seconds less than MLflow's own client."""
    program = (
        "import sys\n"
        "from loopwright.cli import main\n"
        "try: main(['run', 'list', '--json'])\n"
        "except SystemExit: pass\n"
        "assert not {'mlflow', 'prefect', 'pandas'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 4
