"""Repeating a run whose code and data have changed since: the verdict, its cause, and that nothing else is touched."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from git_repository import commit_all, git
from one_server import Server, environment, serve
from sklearn.datasets import load_wine

from loopwright import tracking
from loopwright.config import Project
from loopwright.errors import Conflict, Damaged, InvalidInput, NotFound
from loopwright.ledger import Ledger
from loopwright.lineage.snapshots import path_of
from loopwright.records import ModelVersion, PipelineRun
from loopwright.reproduction import Reproduction, reproduce, subject

pytestmark = pytest.mark.integration

MODULE = """
import mlflow
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import loopwright as lw
from helpers import KEEP

@lw.step
def load() -> pd.DataFrame:
    return lw.dataset("wine", "data/wine.csv")

@lw.step
def thin(raw: pd.DataFrame) -> pd.DataFrame:
    return raw.sample(frac=KEEP, random_state=1)

@lw.step
def shuffle(raw: pd.DataFrame) -> pd.DataFrame:
    return raw.sample(frac=0.8)

@lw.step
def fit(table: pd.DataFrame, strength: float) -> object:
    inputs, target = table.drop(columns="target"), table["target"]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength)).fit(inputs, target)
    mlflow.log_metric("accuracy", model.score(inputs, target))
    mlflow.log_metric("first", float(table["alcohol"].iloc[0]))
    return model

@lw.pipeline
def train(strength: float = 1.0, steady: bool = True) -> lw.ModelVersion:
    table = load()
    table = thin(table) if steady else shuffle(table)
    return lw.register("wine", fit(table, strength), table)
"""
CONFIG = """
[project]
name = "cellar"

[model.wine]
pipeline = "pipelines:train"
target = "target"
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Give a project in a folder of a repository, after two runs and three more commits."""
    root = tmp_path_factory.mktemp("work") / "my wines" / "cellar"
    (root / "data").mkdir(parents=True)
    (root / "loopwright.toml").write_text(CONFIG)
    (root / "pipelines.py").write_text(MODULE)
    (root / "helpers.py").write_text("KEEP = 0.5\n")
    (root / ".gitignore").write_text(".loopwright/\nserver.log\n__pycache__/\n")
    load_wine(as_frame=True).frame.to_csv(root / "data" / "wine.csv", index=False)
    top = root.parent
    commit_all(top)
    with serve(root) as server, environment(root, server):
        (root / "helpers.py").write_text("KEEP = 0.9\n")  # not committed when the runs are made
        (root / "new.txt").write_text("neither is this\n")
        train(server, {"strength": 0.5}, {"steady": False})
        (root / "pipelines.py").write_text(MODULE.replace("def thin", "def thinned"))
        commit_all(top)
        (root / "data" / "wine.csv").write_text("alcohol,target\n1,2\n")
        commit_all(top)
        (root / "data" / "wine.csv").unlink()
        (root / "pipelines.py").rename(root / "training.py")
        commit_all(top)
        (root / "helpers.py").write_text("KEEP = 'not saved yet'\n")
        yield Project(root)


def train(server: Server, *parameters: dict[str, object]) -> None:
    """Run the pipeline in a process of its own, once with each set of parameters."""
    code = f"""
from loopwright import Project, pipelines
for one in {parameters!r}:
    pipelines.run(Project.find(), "pipelines:train", one)
"""
    variables = os.environ | {"PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code], cwd=server.root, check=True, env=variables)


def loopwright(project: Project, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in the project."""
    command = [sys.executable, "-m", "loopwright", *arguments]
    return subprocess.run(command, cwd=project.root, capture_output=True, text=True, check=False)


def state_of(project: Project) -> dict[str, object]:
    """Return all that a repetition must leave alone."""
    ledger = Ledger.open(project)
    top = project.root.parent
    return {
        "status": git(top, "status", "--porcelain=v2", "--branch"),
        "refs": git(top, "for-each-ref"),
        "worktrees": git(top, "worktree", "list"),
        "files": sorted(
            str(path) for path in top.rglob("*") if {".git", ".loopwright"}.isdisjoint(path.parts)
        ),
        "versions": [state.key for state in ledger.states("model_version")],
        "runs": [state.key for state in ledger.states("pipeline_run")],
        "tracked": sorted(run.run_id for run in tracking.runs(project)),
        "datasets": [state.key for state in ledger.states("dataset")],
    }


def version(project: Project, number: int) -> ModelVersion:
    """Return a registered version."""
    state = Ledger.open(project).get("model_version", f"wine/{number}")
    assert state is not None
    return state.read(ModelVersion)


def test_an_old_run_is_reproduced_and_nothing_else_is_touched(project: Project) -> None:
    """Commit, changes, data and parameters of then give the same metrics, tables and answers, to the last bit."""
    before = state_of(project)
    done = loopwright(project, "reproduce", "wine/1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)

    assert (found["outcome"], found["cause"]) == ("reproduced", "")
    run_id = version(project, 1).run_id
    assert found["run_id"] == run_id
    metrics = {one["name"]: one for one in found["metrics"]}
    assert metrics.keys() == {"accuracy", "first"}
    assert (
        metrics["first"]["then"] == metrics["first"]["now"] == tracking.get(project, run_id).metrics["first"]
    )
    assert [(one["version"], one["rows"], one["difference"], one["flips"]) for one in found["models"]] == [
        ("wine/1", 160, 0.0, 0)
    ]
    assert [(one["name"], one["problem"]) for one in found["steps"]] == [
        ("load", ""),
        ("thin", ""),
        ("fit", ""),
    ]
    assert {one["name"] for one in found["datasets"]} == {"wine", "wine-training"}
    assert all(one["then"] == one["now"] for one in found["datasets"])
    assert not [note for note in found["notes"] if "PYTHONHASHSEED" in note]

    assert state_of(project) == before
    kept = Ledger.open(project).get("reproduction", run_id)
    assert kept is not None
    assert kept.read(Reproduction).ok
    assert tracking.get(project, run_id).tags["loopwright.reproduced"] == "reproduced"


def test_a_step_without_a_seed_is_named(project: Project) -> None:
    """A second repetition that differs from the first one tells chance from what has changed."""
    done = loopwright(project, "reproduce", version(project, 2).run_id[:10])
    assert done.returncode == 1, done.stderr
    assert "not reproduced" in done.stdout
    assert "nondeterministic step: step shuffle" in " ".join(done.stdout.split())
    kept = Ledger.open(project).get("reproduction", version(project, 2).run_id)
    assert kept is not None
    steps = {step.name: step.problem for step in kept.read(Reproduction).steps}
    assert steps == {"load": "", "shuffle": "outputs", "fit": "inputs"}
    assert list(steps) == ["load", "shuffle", "fit"]
    assert subject.find(project, "last").run_id == version(project, 2).run_id


def test_what_cannot_be_repeated_says_why(project: Project) -> None:
    """A failed run, a commit that is gone, code outside of git, and lost or damaged data each have their own words."""
    ledger = Ledger.open(project)
    run_id = version(project, 1).run_id
    state = ledger.get("pipeline_run", run_id)
    assert state is not None
    for key, changes in {
        "failed00": {"status": "failed", "error": "step fit: ValueError: no"},
        "unknown0": {},
    }.items():
        ledger.put("pipeline_run", key, {**state.value, "run_id": key, **changes})
    with pytest.raises(InvalidInput, match="failed: step fit: ValueError: no"):
        reproduce(project, "failed00")
    with pytest.raises(NotFound, match="no run 'unknown0'"):
        reproduce(project, "unknown0")

    for changes, error, words in (
        ({"git_commit": "1" * 40}, NotFound, "does not have commit 111111111111 any more"),
        ({"git_commit": ""}, InvalidInput, "was made outside of git"),
        (
            {"diff_digest": "2" * 64},
            NotFound,
            "diff of uncommitted changes that the run was made with is gone",
        ),
        ({"lock_digest": "3" * 64}, NotFound, "list of packages that the run was made with is gone"),
    ):
        ledger.put("pipeline_run", run_id, {**state.value, **changes})
        with pytest.raises(error, match=words):
            reproduce(project, "wine/1")
    ledger.put("pipeline_run", run_id, state.value)

    with pytest.raises(Conflict, match=r"code of thin is not what it was"):
        reproduce(project, "wine/1", here=True)
    snapshot = path_of(project, state.read(PipelineRun).datasets[0].digest)
    content = snapshot.read_bytes()
    snapshot.write_bytes(content[:100])
    with pytest.raises(Damaged, match="cannot be read"):
        reproduce(project, "wine/1")
    snapshot.unlink()
    with pytest.raises(NotFound, match="no snapshot of the dataset"):
        reproduce(project, "wine/1")
    snapshot.write_bytes(content)
    assert git(project.root, "worktree", "list").count("\n") == 0
