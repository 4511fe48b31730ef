"""A notebook becomes a pipeline that computes the same, runs tracked, and knows the registry from inside."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from one_server import environment, serve
from written_notebooks import WINE, write_notebook, write_wines

from loopwright import pipelines, tracking
from loopwright.config import Project
from loopwright.errors import InvalidInput, NotFound, StepFailed
from loopwright.ledger import Ledger
from loopwright.records import ModelVersion, PipelineRun
from loopwright.tracking.notebooks.convert import Conversion, convert

pytestmark = [
    pytest.mark.integration,
    # MLflow and Prefect warn of what is about to change in pydantic, starlette and each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    # Their clients and kernels leave connections to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def wines(tmp_path: Path, *cells: str) -> Path:
    """Write the wine data, a project and a notebook."""
    write_wines(tmp_path)
    (tmp_path / "loopwright.toml").write_text('[project]\nname = "cellar"\n')
    return write_notebook(tmp_path / "wine.ipynb", *(cells or WINE))


T = TypeVar("T")


def stored(project: Project, kind: str, key: str, record: type[T]) -> T:
    """Return a record as the ledger has it."""
    return next(state.read(record) for state in Ledger.open(project).states(kind) if state.key == key)


def differing(done: Conversion) -> list[str]:
    """Return the names of the values that differ."""
    assert done.proof is not None
    return [row.name for row in done.proof.comparisons if not row.equal]


def test_the_pipeline_computes_what_the_notebook_computes(tmp_path: Path) -> None:
    """All that flows between the steps is equal, unseeded draws included, although a look drew numbers too."""
    unseeded = [cell.replace(", random_state=seed", "") for cell in WINE]
    done = convert(wines(tmp_path, *unseeded))
    assert done.proof is not None
    assert done.proof.failures == {}
    assert done.ok, differing(done)
    assert {row.name for row in done.proof.comparisons} >= {"df", "X_train", "accuracy", "f1"}
    assert (tmp_path / "pipelines.py").is_file()
    assert not (tmp_path / ".loopwright").exists()


def test_a_changed_step_is_kept_and_shown_to_differ(tmp_path: Path) -> None:
    """The command line keeps an edit, shows what differs and ends with exit code 1; JSON says the same."""
    path = wines(tmp_path)
    convert(path, prove=False)
    file = tmp_path / "pipelines.py"
    file.write_text(file.read_text().replace('df["alcohol"] > weakest', 'df["alcohol"] > weakest + 1'))
    command = [sys.executable, "-m", "loopwright", "notebook", "convert", str(path)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert shown.returncode == 1, shown.stderr
    assert "kept as you changed it: clean" in shown.stdout
    assert "DIFFERS" in shown.stdout
    assert "weakest + 1" in file.read_text()


def test_the_projects_files_are_not_written_to(tmp_path: Path) -> None:
    """What notebook and pipeline write while they are compared stays away from the project."""
    path = wines(
        tmp_path,
        "import pandas as pd",
        'df = pd.read_csv("data/wine.csv")',
        'df = df.dropna().head(5)\ndf.to_csv("data/wine.csv")\ndf.to_csv("new.csv")\nfirst = len(pd.read_csv("new.csv"))',
    )
    before = (tmp_path / "data" / "wine.csv").read_bytes()
    done = convert(path)
    assert done.ok, done.proof
    assert (tmp_path / "data" / "wine.csv").read_bytes() == before
    assert not (tmp_path / "new.csv").exists()
    assert any("writes" in note for note in done.notes)


def test_what_does_not_run_is_said(tmp_path: Path) -> None:
    """A missing file fails both sides; cell and step are named. A loop without end is stopped."""
    broken = wines(
        tmp_path, "import pandas as pd", 'df = pd.read_csv("nope.csv", sep=";")', "df = df.dropna()"
    )
    done = convert(broken)
    assert done.proof is not None
    assert not done.ok
    assert done.proof.failures["notebook"].startswith("cell 2: FileNotFoundError")
    assert done.proof.failures["pipeline"].startswith("load: FileNotFoundError")
    endless = write_notebook(tmp_path / "endless.ipynb", "a = 1\nb = [a]\nwhile True:\n    b[0] += 1")
    stopped = convert(endless, out=tmp_path / "endless.py", timeout_s=5)
    assert stopped.proof is not None
    assert "stopped after 5 s" in stopped.proof.failures["notebook"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Give a project with a notebook, its data, and a running server."""
    root = tmp_path_factory.mktemp("cellar")
    wines(root)
    with serve(root) as server, environment(root, server):
        yield Project(root)


def test_the_pipeline_runs_and_registers(project: Project) -> None:
    """The file that was written runs as it is: steps, parameters, metrics and a registered model."""
    done = convert(project.root / "wine.ipynb", prove=False)
    assert done.entrypoint == "pipelines:wine"
    record = pipelines.run(project, done.entrypoint, {"depth": 4})
    assert [step.name for step in record.steps] == ["load", "clean", "features", "train", "evaluate"]
    assert record.datasets[0].source == "data/wine.csv"
    run = tracking.get(project, record.run_id)
    assert run.params["depth"] == "4"
    assert run.metrics["accuracy"] > 0.8
    assert stored(project, "model_version", "wine/1", ModelVersion).run_id == record.run_id


FIT = """X = wine.drop(columns="grower")
model = DecisionTreeClassifier(max_depth=depth).fit(X, wine.grower)
mlflow.log_metric("wide", wide)
made = %lw_register tree model wine --target grower
print(made.run_id)"""

INSIDE = (
    "import mlflow\nfrom sklearn.tree import DecisionTreeClassifier\ndepth = 2\nwide = depth * 2",
    "%load_ext loopwright\nwine = %lw_dataset wine data/wine.csv",
    FIT,
)


def test_a_notebook_runs_as_a_tracked_run(project: Project) -> None:
    """A copy runs with new parameters; its metrics, model, datasets and the copy itself are in one MLflow run."""
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    from loopwright.tracking.notebooks.run import run

    path = write_notebook(project.root / "inside.ipynb", *INSIDE)
    before = path.read_bytes()
    done = run(project, path, {"depth": 3})
    tracked = tracking.get(project, done.run_id)
    assert (tracked.status, tracked.params["depth"], tracked.metrics["wide"]) == ("FINISHED", "3", 6.0)
    assert done.datasets[0].source == "data/wine.csv"
    assert tracked.tags["loopwright.dataset"] == done.datasets[-1].digest
    assert tracked.tags["loopwright.notebook"] == "inside.ipynb"
    assert stored(project, "model_version", "tree/1", ModelVersion).run_id == done.run_id
    executed = json.loads(
        (project.artifacts / tracked.experiment_id / done.run_id / "artifacts" / "inside.ipynb").read_text()
    )
    assert executed["cells"][1]["source"][-1].strip() == "depth = 3"
    assert done.run_id in json.dumps(executed["cells"][-1]["outputs"])
    assert path.read_bytes() == before
    assert stored(project, "pipeline_run", done.run_id, PipelineRun).pipeline == "notebook:inside.ipynb"


def test_a_failing_notebook_is_a_failed_run(project: Project) -> None:
    """The cell is named, the run is marked failed and keeps the copy up to there."""
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    from loopwright.tracking.notebooks.run import run

    path = write_notebook(project.root / "fails.ipynb", "n = 1", "1 / (n - n)", "n = 2")
    with pytest.raises(StepFailed, match=r"Code cell 2 of fails\.ipynb .*ZeroDivisionError"):
        run(project, path, {})
    newest = tracking.runs(project, limit=1)[0]
    assert (newest.name, newest.status) == ("fails", "FAILED")


def test_parameters_must_be_the_notebooks(project: Project) -> None:
    """An unknown parameter names the known ones; a value of another type says which it takes."""
    pytest.importorskip("nbformat")
    from loopwright.tracking.notebooks.injection import with_parameters

    path = write_notebook(project.root / "inside.ipynb", *INSIDE)
    with pytest.raises(NotFound, match="Did you mean 'depth'"):
        with_parameters(path, {"dept": 3})
    with pytest.raises(InvalidInput, match="takes int"):
        with_parameters(path, {"depth": "deep"})


def test_the_magics_track_inside_a_notebook(project: Project) -> None:
    """`%lw_track` opens a run that plain MLflow calls, datasets and registered models go into, and `--end` ends it."""
    pytest.importorskip("IPython")
    program = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in (
    "%load_ext loopwright",
    "%lw_track forest depth=6",
    "import mlflow\\nfrom sklearn.tree import DecisionTreeClassifier\\nwine = %lw_dataset wine data/wine.csv",
    "mlflow.log_metric('m', 2.5)\\nmodel = DecisionTreeClassifier().fit(wine.drop(columns='grower'), wine.grower)",
    "scores = {'accuracy': 0.5}\\nmade = %lw_register forest model wine --target grower --metrics scores",
    "%lw_track --end",
    "assert mlflow.active_run() is None",
):
    shell.run_cell(cell, store_history=True).raise_error()
print("RUN", shell.user_ns["made"].run_id)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=project.root,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run_id = done.stdout.split("RUN ")[-1].strip()
    tracked = tracking.get(project, run_id)
    assert (tracked.name, tracked.status, tracked.params) == ("forest", "FINISHED", {"depth": "6"})
    assert (tracked.metrics["m"], tracked.metrics["accuracy"]) == (2.5, 0.5)
    assert "loopwright.dataset" in tracked.tags
    kept = project.artifacts / tracked.experiment_id / run_id / "artifacts" / "cells.py"
    assert "mlflow.log_metric('m', 2.5)" in kept.read_text()
