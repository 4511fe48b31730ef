"""Ending the runs of dead processes while no server answers; schedules; and pipelines that are hard to describe."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest

from loopwright.config import Project
from loopwright.errors import Unavailable
from loopwright.ledger import Ledger
from loopwright.pipelines import journal, pipeline
from loopwright.pipelines.describe import describe
from loopwright.pipelines.plan import entrypoints, schedules
from loopwright.records import PipelineRun, now


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return an empty project whose servers cannot be reached."""
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    (tmp_path / "loopwright.toml").touch()
    return Project(tmp_path)


@pytest.fixture
def ledger(project: Project) -> Iterator[Ledger]:
    """Return its ledger."""
    opened = Ledger.open(project, actor="runner")
    yield opened
    opened.close()


def leave_behind(project: Project, ledger: Ledger, status: str, flow_run_id: str) -> journal.Entry:
    """Leave a run whose process is gone, with its record in the ledger, and return what the journal finds."""
    record = PipelineRun("jobs:train", "r", flow_run_id, "running", now(), 0.0, {})
    ledger.put("pipeline_run", "r", record if status == "running" else {**_facts(record), "status": status})
    journal.write(project, "r", flow_run_id)
    path = project.run / "flows" / "r.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "created": 1.0}))
    (entry,) = journal.dead(project)
    return entry


def _facts(record: PipelineRun) -> dict[str, object]:
    return {
        "pipeline": record.pipeline,
        "run_id": record.run_id,
        "flow_run_id": record.flow_run_id,
        "started": record.started,
        "seconds": 3.0,
        "parameters": {},
    }


@pytest.mark.parametrize("flow_run_id", ["", "0" * 32])
def test_a_dead_run_is_ended_in_the_ledger_once_and_kept_until_the_servers_answer(
    project: Project, ledger: Ledger, flow_run_id: str
) -> None:
    """The ledger needs no server; the entry stays for the next try, which says nothing twice."""
    entry = leave_behind(project, ledger, "running", flow_run_id)
    for _ in range(2):
        with pytest.raises(Unavailable):
            journal.bury(project, entry, ledger)
    state = ledger.get("pipeline_run", "r")
    assert state is not None
    record = state.read(PipelineRun)
    assert (record.status, record.error) == ("failed", journal.KILLED)
    assert record.seconds >= 0
    assert [event.subject for event in ledger.events("pipeline.failed")] == ["jobs:train"]
    assert journal.dead(project) == [entry]


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_a_run_with_an_end_keeps_it(project: Project, ledger: Ledger, status: str) -> None:
    """A process that was killed after its run had ended changes nothing in the ledger."""
    entry = leave_behind(project, ledger, status, "0" * 32)
    with pytest.raises(Unavailable):
        journal.bury(project, entry, ledger)
    state = ledger.get("pipeline_run", "r")
    assert state is not None
    record = state.read(PipelineRun)
    assert (record.status, record.seconds, record.error) == (status, 3.0, "")
    assert ledger.events("pipeline.failed") == []


def test_a_dead_run_that_the_ledger_never_saw_is_still_to_be_ended(project: Project, ledger: Ledger) -> None:
    """A process killed before it had written its record leaves nothing in the ledger, and its entry waits."""
    journal.write(project, "early")
    path = project.run / "flows" / "early.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "created": 1.0}))
    (entry,) = journal.dead(project)
    with pytest.raises(Unavailable):
        journal.bury(project, entry, ledger)
    assert ledger.get("pipeline_run", "early") is None
    assert journal.dead(project) == [entry]


def test_a_project_without_a_journal_has_no_runs(project: Project) -> None:
    """Before the first run nothing is going on, nothing is dead, and forgetting is no error."""
    assert (journal.alive(project), journal.dead(project)) == ([], [])
    journal.forget(project, "r")


def test_an_empty_project_serves_nothing(project: Project) -> None:
    """Without models and deployments there is nothing to schedule."""
    assert (entrypoints(project), schedules(project)) == ([], {})


def test_a_pipeline_without_a_schedule_is_served_for_being_asked(project: Project) -> None:
    """Retraining on a signal, and no monitor at all, give no schedule; the pipeline is there all the same."""
    (project.root / "loopwright.toml").write_text(
        '[model.a]\npipeline = "jobs:train"\ntarget = "y"\n'
        '[model.b]\npipeline = "jobs:other"\ntarget = "y"\n'
        '[monitor.a]\nretrain_on = ["performance", "labels: 10"]\n'
    )
    assert entrypoints(Project(project.root)) == ["jobs:train", "jobs:other"]
    assert schedules(Project(project.root)) == {}


def test_annotations_of_any_kind_are_described() -> None:
    """One that cannot be hashed, a union or a container has no type in the form; the plain ones have theirs."""

    @pipeline
    def train(
        marked: Annotated[int, ["unhashable"]], words: list[str], either: int | None = None, rows: int = 3
    ) -> None: ...

    found = describe(train)
    types = {name: field.get("type") for name, field in found["schema"]["properties"].items()}
    assert types == {"marked": None, "words": None, "either": None, "rows": "integer"}
    assert found["schema"]["required"] == ["marked", "words"]
    assert found["description"] == ""
