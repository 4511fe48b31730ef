"""Steps on real servers: used again, resumed, beside each other, on a Dask cluster, stopped, killed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import waiting
from one_server import Server, environment, serve

from loopwright import pipelines, tracking
from loopwright.config import Config, Project
from loopwright.errors import Conflict, StepFailed, Unavailable
from loopwright.ledger import Ledger
from loopwright.pipelines import graph, history, journal, rest
from loopwright.records import PipelineRun

eventually = partial(waiting.eventually, seconds=60)

pytestmark = [
    pytest.mark.integration,
    # MLflow, Prefect and Dask warn of what is about to change in what they stand on, and leave connections to the
    # garbage collector.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

MODULE = '''
import os, threading, time
from pathlib import Path
import mlflow
import pandas as pd
import prefect
import loopwright as lw
from own import scaled

HERE = Path(__file__).parent

def called(name):
    """Note a call in a file: what is used again is not called."""
    with (HERE / "calls.txt").open("a") as file:
        print(name, file=file)

@lw.step(cache=True)
def load() -> pd.DataFrame:
    called("load")
    return lw.dataset("numbers", "numbers.csv")

@lw.step(cache=True)
def scale(table: pd.DataFrame, factor: int) -> pd.DataFrame:
    called("scale")
    mlflow.log_metric("rows", len(table))
    return scaled(table, factor)

@lw.pipeline
def cached(factor: int = 2) -> int:
    return int(scale(load(), factor)["n"].sum())

@lw.step
def first(n: int) -> dict:
    called("first")
    mlflow.log_metric("first", n)
    return {"n": n}

@lw.step
def second(made: dict) -> dict:
    called("second")
    return {"n": made["n"] + 1}

@lw.step
def third(made: dict, mark: str) -> int:
    called("third")
    if not (HERE / "mended").exists():
        (HERE / mark).write_text(str(os.getpid()))
        if mark == "wait":
            time.sleep(60)
        raise ValueError("not mended yet")
    return made["n"] + 1

@lw.step
def fourth(n: int) -> int:
    called("fourth")
    return n + 1

@lw.pipeline
def fragile(n: int = 1, mark: str = "fail") -> int:
    return fourth(third(second(first(n)), mark))

@lw.step(concurrency=2)
def one_of_many(item: int, delay: float) -> int:
    called("begin")
    mlflow.log_metric(f"item{item}", item)
    time.sleep(delay)
    called("end")
    return item * item

@lw.step
def add(parts: list, more: int) -> int:
    return sum(parts) + more

@lw.pipeline
def mapped(items: int = 4, delay: float = 0.2) -> int:
    more = fourth.submit(10)
    return add(one_of_many.map(range(items), delay=delay), more)

@lw.step
def bad_item(item: int) -> int:
    if item == 1:
        raise ValueError(f"item {item}")
    time.sleep(0.2)
    called(f"item {item}")
    return item

@lw.pipeline
def one_fails(items: int = 40) -> int:
    return sum(bad_item.map(range(items)))

@prefect.task
def plain_task(x: int) -> int:
    prefect.get_run_logger().info("said by a plain task")
    return x + 1

@lw.step
def with_prefect(x: int) -> int:
    return plain_task(x)

@lw.pipeline
def mixed() -> int:
    return with_prefect(plain_task(1))

@lw.step(timeout_s=0.3)
def too_slow() -> None:
    for _ in range(100):
        time.sleep(0.05)

@lw.pipeline
def late() -> None:
    too_slow()

@lw.step(cache=True)
def unkept():
    return (n for n in range(4))

@lw.pipeline
def generator() -> int:
    return sum(unkept())

@lw.step
def where(x: int) -> tuple:
    mlflow.log_metric("worker", x)
    return os.getpid(), len(lw.dataset("numbers", "numbers.csv"))

@lw.pipeline
def spread(n: int = 4) -> list:
    return where.map(range(n))
'''
OWN = "def scaled(table, factor):\n    return table * factor\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run the local server of a project."""
    root = tmp_path_factory.mktemp("steps")
    (root / "loopwright.toml").write_text('[project]\nname = "steps"\n')
    (root / "steps_of.py").write_text(MODULE)
    (root / "own.py").write_text(OWN)
    (root / "numbers.csv").write_text("n\n1\n2\n3\n")
    with serve(root) as server, environment(root, server):
        yield server


@pytest.fixture
def project(server: Server) -> Project:
    """Return the project of the server, with no calls noted and nothing mended."""
    for name in ("calls.txt", "mended", "fail", "wait"):
        (server.root / name).unlink(missing_ok=True)
    return Project(server.root)


def calls(project: Project) -> list[str]:
    """Return the names of the steps that were called since the test began."""
    path = project.root / "calls.txt"
    return path.read_text().split("\n")[:-1] if path.exists() else []


def in_own_process(project: Project, name: str, *options: str) -> PipelineRun:
    """Run a pipeline as a user does, in a process of its own."""
    command = [sys.executable, "-m", "loopwright", "pipeline", "run", f"steps_of:{name}", "--json", *options]
    done = subprocess.run(command, cwd=project.root, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return record(project, json.loads(done.stdout)["run_id"])


def record(project: Project, run_id: str) -> PipelineRun:
    """Return what the ledger has of a run."""
    state = Ledger.open(project).get("pipeline_run", run_id)
    assert state is not None
    return state.read(PipelineRun)


def statuses(run: PipelineRun) -> dict[str, str]:
    """Return how each step ended."""
    return {step.name: step.status for step in run.steps}


def test_a_result_is_used_again_until_something_it_depends_on_changes(project: Project) -> None:
    """In a new process; not after another argument, a changed helper of another module, or a changed file."""
    made = in_own_process(project, "cached")
    assert (statuses(made), calls(project)) == (
        {"load": "completed", "scale": "completed"},
        ["load", "scale"],
    )
    again = in_own_process(project, "cached")
    assert (statuses(again), calls(project)) == ({"load": "cached", "scale": "cached"}, ["load", "scale"])
    assert again.datasets == made.datasets
    assert [step.outputs for step in again.steps] == [step.outputs for step in made.steps]
    assert tracking.get(project, again.run_id).metrics == {"rows": 3.0}, (
        "what the step logged is there all the same"
    )

    other = in_own_process(project, "cached", "-p", "factor=3")
    assert statuses(other) == {"load": "cached", "scale": "completed"}

    (project.root / "own.py").write_text(OWN.replace("* factor", "+ factor"))
    helped = in_own_process(project, "cached")
    assert statuses(helped) == {"load": "cached", "scale": "completed"}
    (project.root / "own.py").write_text(OWN)

    (project.root / "numbers.csv").write_text("n\n1\n2\n4\n")
    changed = in_own_process(project, "cached")
    assert statuses(changed) == {"load": "completed", "scale": "completed"}


def test_a_damaged_result_is_computed_anew_and_said(project: Project) -> None:
    """A kept result whose bytes have changed is found out by its digest."""
    pipelines.run(project, "steps_of:cached", {"factor": 7})
    for path in (project.state / "steps" / "cache").glob("*/value.pickle"):
        data = bytearray(path.read_bytes())
        data[-20] ^= 1
        path.write_bytes(data)
    run = pipelines.run(project, "steps_of:cached", {"factor": 7})
    assert statuses(run) == {"load": "completed", "scale": "completed"}
    assert all("damaged and is computed anew" in step.note for step in run.steps)
    assert statuses(pipelines.run(project, "steps_of:cached", {"factor": 7}))["scale"] == "cached"


def test_a_failed_run_is_resumed_at_the_step_that_failed(project: Project) -> None:
    """Steps before it are not called again; what they logged is in the new run; a completed run is not resumed."""
    with pytest.raises(StepFailed, match="'third'") as caught:
        pipelines.run(project, "steps_of:fragile", {"n": 5})
    assert "pipeline resume" in caught.value.hint
    failed = history.find(project, caught.value.attrs["run_id"][:10])
    (project.root / "mended").touch()
    run = history.resume(project, failed)
    assert calls(project) == ["first", "second", "third", "third", "fourth"]
    assert statuses(run) == {
        "first": "cached",
        "second": "cached",
        "third": "completed",
        "fourth": "completed",
    }
    assert (run.status, run.resumed, run.parameters) == ("completed", failed.run_id, failed.parameters)
    assert tracking.get(project, run.run_id).metrics == {"first": 5.0}
    assert [step.after for step in run.steps] == [(), (0,), (1,), ()]
    with pytest.raises(Conflict, match="has completed"):
        history.resume(project, run)
    assert not list((project.state / "steps" / "runs").glob(f"{failed.run_id}*")), "nothing is left to resume"


def fragile_in_step_three(project: Project) -> "subprocess.Popen[bytes]":
    """Start the fragile pipeline in a process of its own, and return it once its third step goes on."""
    program = (
        "from loopwright.cli import main; main(['pipeline', 'run', 'steps_of:fragile', '-p', 'mark=wait'])"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=project.root, stderr=subprocess.DEVNULL)
    mark = project.root / "wait"
    eventually("the third step", lambda: mark.exists() and mark.read_text())
    return process


def test_a_killed_run_is_resumed_at_the_step_it_was_killed_in(project: Project) -> None:
    """Kill -9 in step 3: the run is marked as crashed and only step 3 and what follows is done again."""
    process = fragile_in_step_three(project)
    process.kill()
    process.wait()
    killed = history.find(project, "last")
    (project.root / "mended").touch()
    run = history.resume(project, killed)
    assert calls(project) == ["first", "second", "third", "third", "fourth"]
    assert (record(project, killed.run_id).status, run.status) == ("failed", "completed")
    assert tracking.get(project, killed.run_id).status == "KILLED"
    assert pipelines.flow_run(project, killed.flow_run_id).state == "crashed"


def test_a_run_is_cancelled_from_another_process(project: Project) -> None:
    """The process gets its chance to end by itself; all three places say cancelled."""
    process = fragile_in_step_three(project)
    run = history.find(project, "last")
    assert history.cancel(project, run.flow_run_id) == "cancelled"
    assert process.wait(20) == 130
    assert record(project, run.run_id).status == "cancelled"
    assert pipelines.flow_run(project, run.flow_run_id).state == "cancelled"
    assert tracking.get(project, run.run_id).status == "KILLED"
    assert journal.alive(project) == []
    with pytest.raises(Conflict, match="has ended"):
        history.cancel(project, run.run_id)


def test_mapped_steps_go_on_beside_each_other_in_one_mlflow_run(project: Project) -> None:
    """At most as many at a time as the step allows; plain MLflow calls in threads open no runs of their own."""
    before = len(tracking.runs(project))
    run = pipelines.run(project, "steps_of:mapped", {"items": 4})
    assert len(tracking.runs(project)) == before + 1
    tracked = tracking.get(project, run.run_id)
    assert tracked.metrics == {f"item{item}": float(item) for item in range(4)}
    going = most = 0
    for line in calls(project):
        going += {"begin": 1, "end": -1}.get(line, 0)
        most = max(most, going)
    assert most == 2
    assert sum(step.name == "one_of_many" for step in run.steps) == 4
    tasks = eventually("the tasks' arrival", lambda: _tasks(project, run.flow_run_id, 6))
    assert {task["state_type"] for task in tasks} == {"COMPLETED"}
    drawn = graph.graph_of(pipelines.load(project, "steps_of:mapped"))
    assert [(node.name, node.after, node.many) for node in drawn.nodes] == [
        ("fourth", (), False),
        ("one_of_many", (), True),
        ("add", (0, 1), False),
    ]


def _tasks(project: Project, flow_run_id: str, at_least: int) -> list[Any]:
    condition = {"task_runs": {"flow_run_id": {"any_": [flow_run_id]}}}
    found: list[Any] = rest.call(project, "POST", "task_runs/filter", condition)
    ended = all(task["state_type"] in {"COMPLETED", "FAILED", "CRASHED"} for task in found)
    return found if len(found) >= at_least and ended else []


def test_an_item_that_fails_stops_those_that_have_not_begun(project: Project) -> None:
    """Its error is the run's."""
    with pytest.raises(StepFailed, match=r"Step 'bad_item' of .* failed: ValueError: item 1"):
        pipelines.run(project, "steps_of:one_fails", {})
    assert len(calls(project)) < 20


def test_prefect_in_the_users_code_belongs_to_the_run(project: Project) -> None:
    """Plain Prefect tasks, in the pipeline and in its steps, are tasks of the same flow run; so are their logs."""
    run = pipelines.run(project, "steps_of:mixed", {})
    tasks = eventually("the tasks' arrival", lambda: _tasks(project, run.flow_run_id, 3))
    assert sorted(task["name"].rpartition("-")[0] for task in tasks) == [
        "plain_task",
        "plain_task",
        "with_prefect",
    ]


def test_a_step_that_takes_too_long_is_stopped(project: Project) -> None:
    """It fails with the time it had; Prefect says timed out."""
    with pytest.raises(StepFailed, match=r"Step 'too_slow' .* timed out after 0.3") as caught:
        pipelines.run(project, "steps_of:late", {})
    (task,) = eventually("the task", lambda: _tasks(project, caught.value.attrs["flow_run_id"], 1))
    assert task["state_name"] == "TimedOut"


def test_what_cannot_be_kept_is_said_and_stops_nothing(project: Project) -> None:
    """A generator cannot be pickled: the run goes on with it, and the note says so."""
    run = pipelines.run(project, "steps_of:generator", {})
    (step,) = run.steps
    assert (run.status, step.status) == ("completed", "completed")
    assert "not kept: a generator cannot be pickled" in step.note


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_said_and_stops_nothing(project: Project, tmp_path: Path) -> None:
    """The result of a step is not kept, the run completes, and nothing half-written is left."""
    cache = project.state / "steps"
    subprocess.run(["rm", "-rf", str(cache)], check=True)
    cache.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(cache)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        (project.root / "numbers.csv").write_text("n\n" + "\n".join(map(str, range(20_000))) + "\n")
        run = pipelines.run(project, "steps_of:cached", {"factor": 11})
        assert run.status == "completed"
        assert "not kept: the disk does not take it (No space left" in run.steps[0].note
        assert not list(cache.rglob("value.pickle"))
    finally:
        subprocess.run(["umount", str(cache)], check=True)


def test_steps_go_to_a_dask_cluster_by_one_setting(project: Project) -> None:
    """A real cluster of two processes: plain MLflow calls go into the run, datasets are known; a wrong address is said."""
    pytest.importorskip("prefect_dask", reason="prefect-dask is not installed")
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        settings = {"pipelines": {"run_on": "dask", "address": cluster.scheduler_address}}
        spread = Project(project.root, Config.model_validate({"project": {"name": "steps"}} | settings))
        run = pipelines.run(spread, "steps_of:spread", {})
        pids = {worker.pid for worker in cluster.workers.values()}
    assert [step.status for step in run.steps] == ["completed"] * 4
    assert os.getpid() not in pids
    assert tracking.get(project, run.run_id).metrics["worker"] in {0.0, 1.0, 2.0, 3.0}
    assert [dataset.name for dataset in run.datasets] == ["numbers"]


def test_plain_makes_a_pipeline_a_function_call(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests: no run is tracked and nothing is kept."""
    import loopwright as lw

    before = len(tracking.runs(project))
    pipeline = pipelines.load(project, "steps_of:mapped")
    with lw.plain():
        assert pipeline(items=3, delay=0.0) == 0 + 1 + 4 + 11
    assert len(tracking.runs(project)) == before


def test_a_dask_scheduler_that_is_not_there_is_named(project: Project) -> None:
    """The error has the address and says what an address looks like."""
    pytest.importorskip("prefect_dask", reason="prefect-dask is not installed")
    settings = {"pipelines": {"run_on": "dask", "address": "tcp://127.0.0.1:9"}}
    nowhere = Project(project.root, Config.model_validate({"project": {"name": "steps"}} | settings))
    with pytest.raises(Unavailable, match=r"No Dask scheduler answers at 'tcp://127.0.0.1:9'"):
        pipelines.run(nowhere, "steps_of:spread", {})


def test_sigterm_is_no_way_to_leave_a_run_open(project: Project) -> None:
    """A run whose process is terminated is ended by whoever comes next."""
    process = fragile_in_step_three(project)
    process.send_signal(signal.SIGTERM)
    process.wait(20)
    run = history.find(project, "last")
    (project.root / "mended").touch()
    history.resume(project, run)
    assert tracking.get(project, run.run_id).status == "KILLED"
