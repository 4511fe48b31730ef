"""What of `loopwright.toml` runs through Prefect, and how pipelines are described to it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loopwright.config import PROJECT_VARIABLE, Project
from loopwright.errors import NotFound, Unavailable
from loopwright.pipelines import pipeline, plan, submit
from loopwright.pipelines.describe import describe
from loopwright.pipelines.serving import Describing, Served, sources
from loopwright.pipelines.timing import Timing

CONFIG = """
[model.a]
pipeline = "jobs:train"
target = "y"

[model.b]
pipeline = "jobs:train"
target = "y"

[model.by-hand]
target = "y"

[monitor.a]
retrain_on = ["performance", "schedule: 0 3 * * 0", "labels: 10"]

[monitor.b]
retrain_on = ["schedule: 0 3 * * 0", "schedule: 30 4 * * *"]

[deployment.nightly]
model = "a"
mode = "batch"
source = "rows.csv"
sink = "out.parquet"
schedule = "0 2 * * *"

[deployment.on-demand]
model = "a"
mode = "batch"
source = "rows.csv"
sink = "out.parquet"
"""
JOBS = '''
import loopwright as lw

@lw.pipeline(name="training")
def train(rows: int, rate: float = 0.5, limit: float = float("inf"), words: list = [], deep: bool = True):
    """Train it."""
print("noise while importing")
'''


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project with schedules, in Berlin."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    (tmp_path / "loopwright.toml").write_text(CONFIG)
    (tmp_path / "jobs.py").write_text(JOBS)
    return Project(tmp_path)


def test_pipelines_have_the_schedules_of_their_models(project: Project) -> None:
    """One entrypoint of two models is served once, with the schedules of both, each once."""
    assert plan.entrypoints(project) == ["jobs:train"]
    found = {name: (one.target, one.timing) for name, one in plan.schedules(project).items() if not one.batch}
    assert found == {
        "retrain-a": ("jobs:train", Timing(cron="0 3 * * 0", zone="Europe/Berlin")),
        "retrain-b-2": ("jobs:train", Timing(cron="30 4 * * *", zone="Europe/Berlin")),
    }


def test_only_scheduled_batch_deployments_are_served(project: Project) -> None:
    """A batch deployment without a schedule is run by hand."""
    (one,) = [one for one in plan.schedules(project).values() if one.batch]
    assert (one.name, one.target, one.deployment) == ("batch-nightly", "nightly", "batch-nightly")
    assert one.timing == Timing(cron="0 2 * * *", zone="Europe/Berlin")


@pytest.mark.parametrize(
    ("variable", "zone"),
    [("Asia/Tokyo", "Asia/Tokyo"), (":Asia/Tokyo", "Asia/Tokyo"), ("CET-1CEST", "UTC"), ("../x", "UTC")],
)
def test_the_time_zone_is_one_that_prefect_knows(
    project: Project, monkeypatch: pytest.MonkeyPatch, variable: str, zone: str
) -> None:
    """A zone that is a rule or unknown would be refused there: schedules are then in UTC."""
    monkeypatch.setenv("TZ", variable)
    timing = plan.schedule(project, "batch-nightly").timing
    assert timing is not None
    assert timing.zone == zone


def test_without_a_variable_the_machines_zone_counts(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There always is a zone, whatever the machine says."""
    monkeypatch.delenv("TZ")
    timing = plan.schedule(project, "batch-nightly").timing
    assert timing is not None
    assert timing.zone


def test_a_pipeline_is_described_with_its_parameters() -> None:
    """Types, defaults and what is required are in the schema that Prefect's form is made from."""

    @pipeline(name="nightly")
    def train(rows: int, rate: float = 0.5, deep: bool = True, text: str | None = None) -> None:
        """Train it."""

    found = describe(train)
    assert (found["name"], found["description"]) == ("nightly", "Train it.")
    assert found["schema"]["required"] == ["rows"]
    assert found["schema"]["properties"] == {
        "rows": {"title": "rows", "position": 0, "type": "integer"},
        "rate": {"title": "rate", "position": 1, "type": "number", "default": 0.5},
        "deep": {"title": "deep", "position": 2, "type": "boolean", "default": True},
        "text": {"title": "text", "position": 3, "default": None},
    }


def test_descriptions_come_from_a_process_of_their_own(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runner gets them without importing anything; defaults that are no JSON are left out."""
    monkeypatch.setenv(PROJECT_VARIABLE, str(project.root))
    describing = Describing(project)
    while not describing.done:
        time.sleep(0.05)
    facts = describing.result()["jobs:train"]
    assert (facts["name"], facts["description"]) == ("training", "Train it.")
    defaults = {name: field.get("default", "none") for name, field in facts["schema"]["properties"].items()}
    assert defaults == {"rows": "none", "rate": 0.5, "limit": "none", "words": "none", "deep": True}
    json.dumps(facts, allow_nan=False)
    assert "jobs" not in sys.modules


def test_a_module_that_ends_the_process_is_an_error_of_its_pipelines(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even when nothing is printed, each entrypoint gets an error that says so."""
    monkeypatch.setenv(PROJECT_VARIABLE, str(project.root))
    (project.root / "jobs.py").write_text("import os\nos._exit(7)\n")
    describing = Describing(project)
    while not describing.done:
        time.sleep(0.05)
    assert describing.result() == {"jobs:train": {"error": "importing its module ended with 7"}}


def test_an_error_of_one_module_is_said_for_it_alone(project: Project) -> None:
    """The pipelines of other modules are described all the same."""
    (project.root / "broken.py").write_text("1 / 0\n")
    done = subprocess.run(
        [sys.executable, "-m", "loopwright.pipelines.describe", "broken:train", "jobs:train"],
        cwd=project.root,
        env=os.environ | {PROJECT_VARIABLE: str(project.root)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert "division by zero (broken.py:1)" in found["broken:train"]["error"]
    assert found["jobs:train"]["name"] == "training"


def test_a_change_of_configuration_or_code_is_seen(project: Project) -> None:
    """The runner compares these: a touched, a missing and a new file all differ."""
    before = sources(project)
    assert [path.name for path, _ in before] == ["jobs.py", "loopwright.toml"]
    os.utime(project.root / "jobs.py", (1, 1))
    touched = sources(project)
    (project.root / "jobs.py").unlink()
    assert len({before, touched, sources(project)}) == 3


def test_commands_of_what_is_served() -> None:
    """A pipeline's command is told its flow run and reports itself; a batch deployment's is not."""
    trains = Served("1", "loopwright.pipelines.execute", "jobs:train")
    assert (trains.command("f")[1:], trains.reports) == (
        ["-m", "loopwright.pipelines.execute", "f", "jobs:train"],
        True,
    )
    batch = Served("2", "loopwright.deploy.batch.run", "nightly")
    assert (batch.command("f")[1:], batch.reports) == (
        ["-m", "loopwright.deploy.batch.run", "nightly"],
        False,
    )


def test_only_pipelines_of_models_can_be_submitted(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown one gives the known ones; without a Prefect server the known one cannot be reached."""
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(NotFound, match="Did you mean 'jobs:train'"):
        submit(project, "jobs:trian", {}, trigger="test")
    with pytest.raises(Unavailable, match="does not answer"):
        submit(project, "jobs:train", {}, trigger="test")
