"""Tags that every MLflow run gets inside a project."""

import subprocess
import sys
from pathlib import Path

import pytest
from git_repository import commit_all

from loopwright.lineage.context import Recorder, recorder
from loopwright.records import DatasetRef
from loopwright.tracking.context import RunContext


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project folder in a git repository, as the working folder."""
    monkeypatch.delenv("LOOPWRIGHT_PROJECT", raising=False)
    (tmp_path / "loopwright.toml").write_text('[project]\nname = "tagged"\n')
    (tmp_path / "uv.lock").write_text("locked\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_says_project_commit_and_packages(project: Path) -> None:
    """The commit and whether anything differs from it; the facts are asked for once, not at each run."""
    commit = commit_all(project)
    context = RunContext()
    assert context.in_context()
    tags = context.tags()
    assert (tags["loopwright.project"], tags["mlflow.source.git.commit"]) == ("tagged", commit)
    assert (tags["loopwright.git_dirty"], len(tags["loopwright.lock"])) == ("false", 64)
    (project / "new.py").touch()
    assert context.tags() == tags, "what was asked a moment ago is believed"
    assert RunContext().tags()["loopwright.git_dirty"] == "true"


def test_datasets_read_by_the_pipeline_are_named(project: Path) -> None:
    """Outside of git there is no commit; the digests of what was read are there."""
    token = recorder.set(Recorder(pipeline="train"))
    try:
        running = recorder.get()
        assert running is not None
        for digest in ("aa", "bb"):
            running.add(DatasetRef(digest, digest, 1, ("x",), ""))
        tags = RunContext().tags()
    finally:
        recorder.reset(token)
    assert tags["loopwright.datasets"] == "aa,bb"
    assert "mlflow.source.git.commit" not in tags


def test_outside_of_a_project_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor where the project's configuration is wrong."""
    monkeypatch.delenv("LOOPWRIGHT_PROJECT", raising=False)
    monkeypatch.chdir(tmp_path)
    assert not RunContext().in_context()
    (tmp_path / "loopwright.toml").write_text("[projekt]\n")
    assert not RunContext().in_context()


def test_prefect_runs_are_named(project: Path) -> None:
    """Inside a flow and a task both ids are there; a process without Prefect does not load it."""
    program = (
        "import sys\n"
        "from loopwright.tracking.context import RunContext\n"
        "RunContext().tags()\n"
        "assert not {'mlflow', 'prefect', 'pandas'} & set(sys.modules)\n"
        "import uuid\n"
        "from types import SimpleNamespace as Thing\n"
        "from prefect.client.schemas import TaskRun\n"
        "from prefect.context import FlowRunContext, TaskRunContext\n"
        "flow, task = uuid.uuid4(), uuid.uuid4()\n"
        "run = TaskRun.model_construct(id=task, flow_run_id=flow)\n"
        "with TaskRunContext.model_construct(task_run=run):\n"
        "    tags = RunContext().tags()\n"
        "assert (tags['prefect.flow_run_id'], tags['prefect.task_run_id']) == (str(flow), str(task)), tags\n"
        "with FlowRunContext.model_construct(flow_run=Thing(id=flow)):\n"
        "    tags = RunContext().tags()\n"
        "assert tags['prefect.flow_run_id'] == str(flow)\n"
        "assert 'prefect.task_run_id' not in tags\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_mlflow_loads_at_its_start_costs_nothing() -> None:
    """The plug-ins that every `import mlflow` loads import nothing of ours but themselves."""
    program = (
        "import sys\n"
        "import loopwright.tracking.addresses, loopwright.tracking.context\n"
        "ours = {name for name in sys.modules if name.startswith('loopwright')}\n"
        "assert ours == {'loopwright', 'loopwright.tracking', 'loopwright.tracking.addresses', 'loopwright.tracking.context'}\n"
        "assert not {'mlflow', 'sqlalchemy', 'pydantic', 'httpx'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
