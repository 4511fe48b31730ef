"""Pipelines on real MLflow and Prefect: what is written down, what fails how, and runs that the runner carries out."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psutil
import pytest
import waiting
from one_server import Server, environment, serve
from sklearn.datasets import load_wine

from loopwright import pipelines, tracking
from loopwright.config import Project
from loopwright.errors import InvalidInput, NotFound, StepFailed
from loopwright.ledger import Ledger
from loopwright.lineage import file_digest, fingerprint, read_snapshot
from loopwright.pipelines import rest
from loopwright.records import PipelineRun

eventually = partial(waiting.eventually, seconds=120)

pytestmark = [
    pytest.mark.integration,
    # MLflow and Prefect warn of what is about to change in pydantic, starlette and each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    # Their clients leave connections to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

MODULE = '''
import os, time
from pathlib import Path
import mlflow
import pandas as pd
import loopwright as lw

@lw.step
def load() -> pd.DataFrame:
    return lw.dataset("wine", "data/wine.csv")

@lw.step
def clean(raw: pd.DataFrame) -> pd.DataFrame:
    return raw[raw["alcohol"] > 12]

@lw.step
def boom(table: pd.DataFrame) -> None:
    raise ValueError(f"no luck with {len(table)} rows")

@lw.step(retries=2)
def third_time_lucky(counter: str) -> int:
    tries = len(list(Path(counter).parent.glob("try-*")))
    (Path(counter).parent / f"try-{tries}").touch()
    if tries < 2:
        raise ConnectionError("again")
    return tries

@lw.pipeline
def train(rows: int = 100, seed: int = 7) -> int:
    """Count wines."""
    table = clean(load())
    mlflow.log_metric("rows", len(table))
    return len(table)

@lw.pipeline
def broken() -> None:
    boom(load())

@lw.pipeline
def flaky(counter: str) -> int:
    return third_time_lucky(counter)

@lw.step
def sleep(seconds: float, mark: str) -> None:
    Path(mark).write_text(str(os.getpid()))
    time.sleep(seconds)

@lw.pipeline
def slow(mark: str, seconds: float = 60) -> None:
    sleep(seconds, mark)

def no_pipeline() -> None: ...
'''

CONFIG = """
[project]
name = "cellar"

[model.wine]
pipeline = "pipelines:train"
target = "target"

[model.slow]
pipeline = "pipelines:slow"
target = "target"

[model.broken]
pipeline = "pipelines:broken"
target = "target"

[monitor.wine]
retrain_on = ["schedule: 0 3 * * 0"]

[deployment.nightly]
model = "wine"
mode = "batch"
source = "data/wine.csv"
sink = "out.parquet"
schedule = "0 2 * * *"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run the local server of a project under git with pipelines."""
    root = tmp_path_factory.mktemp("cellar")
    (root / "loopwright.toml").write_text(CONFIG)
    (root / "pipelines.py").write_text(MODULE)
    (root / ".gitignore").write_text(".loopwright/\nserver.log\n__pycache__/\n")
    (root / "data").mkdir()
    load_wine(as_frame=True).frame.to_csv(root / "data" / "wine.csv", index=False)
    identity = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    for words in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    with serve(root) as server, environment(root, server):
        yield server


@pytest.fixture(scope="module")
def project(server: Server) -> Project:
    """Return the project of the server."""
    return Project(server.root)


@pytest.fixture
def runner(project: Project) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the project's runner."""
    with running(project) as process:
        yield process


class running:  # noqa: N801
    """A runner as a subprocess: a context manager that ends it."""

    def __init__(self, project: Project) -> None:
        log = (project.root / "server.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "loopwright.pipelines.runner"], cwd=project.root, stdout=log, stderr=log
        )
        log.close()

    def __enter__(self) -> "subprocess.Popen[bytes]":
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(15)


def record(project: Project, run_id: str) -> PipelineRun:
    """Return what the ledger has of a run."""
    state = Ledger.open(project).get("pipeline_run", run_id)
    assert state is not None
    return state.read(PipelineRun)


def test_a_run_is_written_down_in_all_three_places(project: Project) -> None:
    """MLflow, Prefect and the ledger name each other, and hold parameters, environment, steps and datasets."""
    run = pipelines.run(project, "pipelines:train", {"rows": 5}, trigger="test")

    assert (run.pipeline, run.status, run.trigger, run.seed) == ("pipelines:train", "completed", "test", 7)
    assert record(project, run.run_id) == run
    kinds = [event.kind for event in Ledger.open(project).events(subject="pipelines:train")]
    assert kinds[-2:] == ["pipeline.started", "pipeline.completed"]

    tracked = tracking.get(project, run.run_id)
    assert (tracked.status, tracked.name, tracked.params) == ("FINISHED", "train", {"rows": "5", "seed": "7"})
    wines = load_wine(as_frame=True).frame
    assert tracked.metrics == {"rows": float((wines["alcohol"] > 12).sum())}
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=project.root, capture_output=True, text=True, check=True
    )
    wanted = {
        "loopwright.pipeline": "pipelines:train",
        "loopwright.trigger": "test",
        "loopwright.dataset": run.datasets[-1].digest,
        "prefect.flow_run_id": run.flow_run_id,
        "mlflow.source.git.commit": commit.stdout.strip(),
    }
    assert wanted.items() <= tracked.tags.items()
    assert (run.git_commit, run.git_dirty, run.diff_digest) == (commit.stdout.strip(), False, "")

    folder = Path(unquote(urlsplit(tracked.artifact_uri).path))
    assert file_digest(folder / "requirements.lock") == run.lock_digest
    assert json.loads((folder / "environment.json").read_text())["git_commit"] == run.git_commit

    flow_run = pipelines.flow_run(project, run.flow_run_id)
    assert (flow_run.state, flow_run.run_id) == ("completed", run.run_id)
    tasks = eventually("the tasks' arrival", lambda: _tasks(project, run.flow_run_id, 2))
    assert sorted(task["name"].rpartition("-")[0] for task in tasks) == ["clean", "load"]
    assert tracking.ui_url(project, run.run_id).startswith(os.environ["MLFLOW_TRACKING_URI"])


def _tasks(project: Project, flow_run_id: str, at_least: int) -> list[Any]:
    condition = {"task_runs": {"flow_run_id": {"any_": [flow_run_id]}}}
    found: list[Any] = rest.call(project, "POST", "task_runs/filter", condition)
    return found if len(found) >= at_least else []


def test_steps_name_the_datasets_that_went_in_and_came_out(project: Project) -> None:
    """The digest of the snapshot is what the first step gives and the second takes; the source file has its own."""
    run = pipelines.run(project, "pipelines:train", {})
    load, clean = run.steps
    (dataset,) = run.datasets
    assert load.outputs == clean.inputs == (dataset.digest,)
    assert clean.outputs != clean.inputs
    assert (dataset.source, dataset.source_digest) == (
        "data/wine.csv",
        file_digest(project.root / "data" / "wine.csv"),
    )
    assert fingerprint(read_snapshot(project, dataset.digest)) == dataset.digest


def test_uncommitted_changes_are_kept_with_the_run(project: Project) -> None:
    """A changed file makes the run dirty, and its difference can be applied to the commit."""
    path = project.root / "pipelines.py"
    path.write_text(MODULE + "\n# changed\n")
    try:
        run = pipelines.run(project, "pipelines:train", {})
    finally:
        path.write_text(MODULE)
    assert run.git_dirty
    folder = Path(unquote(urlsplit(tracking.get(project, run.run_id).artifact_uri).path))
    assert file_digest(folder / "uncommitted.diff") == run.diff_digest
    assert "+# changed" in (folder / "uncommitted.diff").read_text()


def test_a_failing_step_is_named_and_ends_both_runs(project: Project) -> None:
    """The error names the step and its cause; MLflow, Prefect and the ledger say failed; the next pipeline runs."""
    with pytest.raises(
        StepFailed, match=r"Step 'boom' of the pipeline 'broken' failed: ValueError: no luck"
    ) as caught:
        pipelines.run(project, "pipelines:broken", {})
    assert isinstance(caught.value.__cause__, ValueError)
    run = record(project, caught.value.attrs["run_id"])
    assert (run.status, [step.status for step in run.steps]) == ("failed", ["completed", "failed"])
    assert run.error == "step boom: ValueError: no luck with 178 rows"
    assert tracking.get(project, run.run_id).status == "FAILED"
    assert pipelines.flow_run(project, run.flow_run_id).state == "failed"
    assert pipelines.run(project, "pipelines:train", {}).status == "completed"


def test_a_step_is_tried_again(project: Project, tmp_path: Path) -> None:
    """`retries` runs a step again until it succeeds, within one run."""
    run = pipelines.run(project, "pipelines:flaky", {"counter": str(tmp_path / "x")})
    assert (run.status, [step.status for step in run.steps]) == ("completed", ["completed"])
    assert len(list(tmp_path.glob("try-*"))) == 3


def test_a_pipeline_returns_what_its_function_returns(project: Project) -> None:
    """Called as a function a pipeline is still a tracked run, and gives back the value."""
    module = pipelines.load(project, "pipelines:train")
    before = len(tracking.runs(project))
    assert module(rows=1) > 100
    assert len(tracking.runs(project)) == before + 1
    assert tracking.best(project, "rows").metrics["rows"] > 100
    with pytest.raises(NotFound, match="rows"):
        tracking.best(project, "row")


def test_wrong_entrypoints_and_parameters_start_no_run(project: Project) -> None:
    """What is wrong is said with what exists, before anything is tracked."""
    before = len(tracking.runs(project))
    with pytest.raises(NotFound, match="Did you mean 'pipelines:train'"):
        pipelines.run(project, "pipelines:trian", {})
    with pytest.raises(NotFound, match="Did you mean 'pipelines'"):
        pipelines.run(project, "pipeline:train", {})
    with pytest.raises(InvalidInput, match=r"Pipelines in pipelines: train, broken"):
        pipelines.run(project, "pipelines:no_pipeline", {})
    with pytest.raises(InvalidInput, match="Did you mean 'rows'"):
        pipelines.run(project, "pipelines:train", {"row": 1})
    with pytest.raises(InvalidInput, match="It takes int"):
        pipelines.run(project, "pipelines:train", {"rows": "many"})
    with pytest.raises(NotFound, match="Known: pipelines:train"):
        pipelines.submit(project, "pipelines:nothing", {}, trigger="test")
    with pytest.raises(NotFound):
        pipelines.flow_run(project, "no-such-run")
    assert len(tracking.runs(project)) == before


def test_the_runner_carries_out_what_is_submitted(
    project: Project, runner: "subprocess.Popen[bytes]"
) -> None:
    """A submitted run is taken, keeps its trigger, and has the id that `submit` gave; schedules are in Prefect."""
    flow_run_id = pipelines.submit(project, "pipelines:train", {"rows": 3}, trigger="performance 0.71 < 0.9")
    assert pipelines.flow_run(project, flow_run_id).state == "scheduled"
    done = eventually("the run", lambda: _when(project, flow_run_id, {"completed", "failed", "crashed"}))
    assert done.state == "completed", done.message
    run = record(project, done.run_id)
    assert (run.flow_run_id, run.trigger, run.parameters["rows"]) == (
        flow_run_id,
        "performance 0.71 < 0.9",
        3,
    )
    assert tracking.get(project, done.run_id).tags["loopwright.trigger"] == "performance 0.71 < 0.9"

    failing = pipelines.submit(project, "pipelines:broken", {}, trigger="test")
    failed = eventually("the failure", lambda: _when(project, failing, {"completed", "failed", "crashed"}))
    assert failed.state == "failed"
    wrong = pipelines.submit(project, "pipelines:train", {"row": 3}, trigger="test")
    refused = eventually("the refusal", lambda: _when(project, wrong, {"completed", "failed", "crashed"}))
    assert (refused.state, "Did you mean 'rows'" in refused.message) == ("failed", True)

    served = {deployment["name"]: deployment for deployment in rest.deployments(project)}
    assert set(served) == {"pipelines:train", "pipelines:slow", "pipelines:broken", "batch-nightly"}
    crons = {
        name: [schedule["schedule"]["cron"] for schedule in deployment["schedules"]]
        for name, deployment in served.items()
    }
    assert crons["pipelines:train"] == ["0 3 * * 0"]
    assert crons["batch-nightly"] == ["0 2 * * *"]
    assert set(served["pipelines:train"]["parameter_openapi_schema"]["properties"]) == {"rows", "seed"}
    assert (project.run / "runner.beat").exists()


def _when(project: Project, flow_run_id: str, states: set[str]) -> Any:
    found = pipelines.flow_run(project, flow_run_id)
    return found if found.state in states else None


def _killed_in_mlflow(project: Project, run_id: str) -> bool:
    return tracking.get(project, run_id).status == "KILLED"


def test_a_cancelled_run_is_stopped(
    project: Project, runner: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    """Cancelling on Prefect's page ends the process, and MLflow's run with it."""
    mark = tmp_path / "mark"
    flow_run_id = pipelines.submit(project, "pipelines:slow", {"mark": str(mark)}, trigger="test")
    eventually("the start", mark.exists)
    rest.set_state(project, flow_run_id, "CANCELLING", force=True)
    # For a moment Prefect's engine in the terminated process calls it crashed.
    eventually("the end", lambda: _state(project, flow_run_id) == "CANCELLED", seconds=30)
    run_id = pipelines.flow_run(project, flow_run_id).run_id
    eventually("the end in MLflow", lambda: tracking.get(project, run_id).status == "KILLED")


def _state(project: Project, flow_run_id: str) -> str:
    return str(rest.get_flow_run(project, flow_run_id)["state"]["type"])


def test_runs_under_a_killed_runner_are_marked_crashed(project: Project, tmp_path: Path) -> None:
    """After kill -9 of runner and run, the next runner ends the run everywhere, and an interactive one likewise."""
    mark = tmp_path / "mark"
    with running(project) as first:
        flow_run_id = pipelines.submit(project, "pipelines:slow", {"mark": str(mark)}, trigger="test")
        eventually("the start", mark.exists)
        os.kill(first.pid, signal.SIGKILL)
        os.kill(int(mark.read_text()), signal.SIGKILL)
    by_hand = tmp_path / "by-hand"
    program = f"import pipelines; pipelines.slow({str(by_hand)!r})"
    interactive = subprocess.Popen([sys.executable, "-c", program], cwd=project.root)
    eventually("its start", by_hand.exists)
    interactive.kill()
    interactive.wait()
    alone = next(run for run in _records(project) if run.status == "running" and run.trigger == "manual")

    assert pipelines.flow_run(project, flow_run_id).state == "running", "Prefect alone does not notice"
    with running(project):
        for flow_run in (flow_run_id, alone.flow_run_id):
            done = eventually("the verdict", partial(_when, project, flow_run, {"crashed"}), seconds=40)
            assert "killed" in done.message
            eventually("the end in MLflow", partial(_killed_in_mlflow, project, done.run_id))
            run = record(project, done.run_id)
            assert (run.status, run.error) == ("failed", "the process was killed")
    assert list((project.run / "flows").glob("*.json")) == []


def _records(project: Project) -> list[PipelineRun]:
    return [state.read(PipelineRun) for state in Ledger.open(project).states("pipeline_run")]


def test_what_was_taken_and_not_begun_is_run(project: Project) -> None:
    """A runner that was killed between taking a flow run and starting its process has lost nothing."""
    flow_run_id = pipelines.submit(project, "pipelines:train", {"rows": 4}, trigger="test")
    rest.set_state(project, flow_run_id, "PENDING")
    with running(project):
        done = eventually("the run", lambda: _when(project, flow_run_id, {"completed", "failed", "crashed"}))
    assert done.state == "completed", done.message


def test_what_is_deleted_on_prefects_pages_stops_nothing(
    project: Project, runner: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    """Without its flow run a process ends as usual; a deployment that is gone is made again, paused or not."""
    mark = tmp_path / "mark"
    flow_run_id = pipelines.submit(project, "pipelines:slow", {"mark": str(mark)}, trigger="test")
    eventually("the start", mark.exists)
    rest.call(project, "DELETE", f"flow_runs/{flow_run_id}")
    for deployment in rest.deployments(project):
        if deployment["name"] == "pipelines:train":
            rest.delete_deployment(project, deployment["id"])
        elif deployment["name"] == "batch-nightly":
            schedule_id = deployment["schedules"][0]["id"]
            path = f"deployments/{deployment['id']}/schedules/{schedule_id}"
            rest.call(project, "PATCH", path, {"active": False})
    os.kill(int(mark.read_text()), signal.SIGKILL)
    eventually("the deployment", lambda: rest.deployments(project, "pipelines:train"))
    (nightly,) = rest.deployments(project, "batch-nightly")
    assert [schedule["active"] for schedule in nightly["schedules"]] == [False]
    again = pipelines.submit(project, "pipelines:train", {}, trigger="test")
    done = eventually("the run", lambda: _when(project, again, {"completed", "failed", "crashed"}))
    assert (done.state, runner.poll()) == ("completed", None)
    eventually("the notes' end", lambda: not list((project.run / "flows").glob("*.json")))


def test_a_killed_server_stops_no_run(
    project: Project, server: Server, runner: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    """A run that goes on while the server is started again completes, and the runner takes the next one."""
    mark = tmp_path / "mark"
    parameters = {"mark": str(mark), "seconds": 1}
    flow_run_id = pipelines.submit(project, "pipelines:slow", parameters, trigger="test")
    eventually("the start", mark.exists)
    server.restart()
    again = pipelines.submit(project, "pipelines:train", {}, trigger="test")
    for each in (flow_run_id, again):
        done = eventually("the end", partial(_when, project, each, {"completed", "failed", "crashed"}))
        assert done.state == "completed", done.message
        assert tracking.get(project, done.run_id).status == "FINISHED"
    assert runner.poll() is None


def test_runner_and_runs_end_with_their_supervisor(project: Project, tmp_path: Path) -> None:
    """When the process that has started the runner is killed, nothing is left behind, and the run is ended."""
    mark = tmp_path / "mark"
    program = (
        "import os, subprocess, sys, time\n"
        "os.environ |= {'LOOPWRIGHT_PART': 'runner', 'LOOPWRIGHT_PARENT': str(os.getpid())}\n"
        "runner = subprocess.Popen([sys.executable, '-m', 'loopwright.pipelines.runner'])\n"
        "print(runner.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    supervisor = subprocess.Popen(
        [sys.executable, "-c", program], cwd=project.root, stdout=subprocess.PIPE, text=True
    )
    try:
        assert supervisor.stdout is not None
        runner_pid = int(supervisor.stdout.readline())
        flow_run_id = pipelines.submit(project, "pipelines:slow", {"mark": str(mark)}, trigger="test")
        eventually("the start", mark.exists)
        supervisor.kill()
        for pid in (runner_pid, int(mark.read_text())):
            eventually("the end", partial(_gone, pid), seconds=30)
    finally:
        supervisor.kill()
        supervisor.communicate()
    assert pipelines.flow_run(project, flow_run_id).state == "crashed"


def _gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_the_runner_stops_in_time_and_ends_what_it_ran(project: Project, tmp_path: Path) -> None:
    """SIGTERM stops the runner within five seconds, with the run that goes on, which is then marked crashed."""
    mark = tmp_path / "mark"
    with running(project) as process:
        flow_run_id = pipelines.submit(project, "pipelines:slow", {"mark": str(mark)}, trigger="test")
        eventually("the start", mark.exists)
        asked = time.monotonic()
        process.terminate()
        assert process.wait(15) == 0
        assert time.monotonic() - asked < 8
    assert pipelines.flow_run(project, flow_run_id).state == "crashed"


def test_a_module_that_cannot_be_imported_stops_no_other(project: Project, tmp_path: Path) -> None:
    """A syntax error in the user's module is named with its line; the file repaired, the pipeline runs again."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "loopwright.toml").write_text('[project]\nname = "cellar"\n')
    (other / "damaged.py").write_text("import loopwright as lw\nx = 1 / 0\n")
    with pytest.raises(StepFailed, match=r"ZeroDivisionError: division by zero \(damaged.py:2\)"):
        pipelines.load(Project(other), "damaged:train")
    (other / "damaged.py").write_text(
        "import loopwright as lw\n\n@lw.pipeline\ndef train() -> int:\n    return 1\n"
    )
    assert pipelines.run(Project(other), "damaged:train", {}).status == "completed"
