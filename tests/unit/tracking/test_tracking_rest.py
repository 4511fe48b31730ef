"""MLflow over REST, where there is no MLflow."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from loopwright import tracking
from loopwright.config import Project
from loopwright.errors import InvalidInput, Unavailable
from loopwright.tracking.rest import run_of


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return an empty project."""
    (tmp_path / "loopwright.toml").touch()
    return Project(tmp_path)


def test_a_server_that_does_not_run_is_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the local server, and with an address where nobody answers, the next command is said."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(Unavailable, match=r"'server' of project .* is not running") as caught:
        tracking.runs(project)
    assert caught.value.hint == "loopwright up"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(Unavailable, match=r"http://127.0.0.1:9 does not answer"):
        tracking.get(project, "r")


@pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "./mlruns", "databricks"])
def test_a_tracking_uri_without_a_server_is_refused(
    project: Project, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    """A store that only MLflow itself can open is named with what is valid."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(InvalidInput, match="is no server"):
        tracking.best(project, "accuracy")


def test_a_run_is_read_from_what_mlflow_answers() -> None:
    """Times are UTC; a run that goes on has no end; what is missing is empty."""
    info = {"run_id": "r", "status": "RUNNING", "start_time": 1_700_000_000_000, "experiment_id": "1"}
    run = run_of({"info": info})
    assert (run.started, run.ended) == (datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC), None)
    assert (run.metrics, run.params, run.tags, run.name) == ({}, {}, {}, "")
    data = {
        "metrics": [{"key": "loss", "value": "NaN"}, {"key": "n", "value": 3}],
        "params": [{"key": "depth", "value": "6"}],
        "tags": [{"key": "t", "value": "v"}],
    }
    run = run_of({"info": info | {"end_time": 1_700_000_001_500}, "data": data})
    assert run.ended == datetime(2023, 11, 14, 22, 13, 21, 500_000, tzinfo=UTC)
    assert (run.metrics["n"], run.metrics["loss"] != run.metrics["loss"]) == (3.0, True)
    assert (run.params, run.tags) == ({"depth": "6"}, {"t": "v"})


def test_reading_runs_loads_no_mlflow() -> None:
    """Only `begin` needs it."""
    program = (
        "import sys\n"
        "from loopwright.tracking import Reader, Run, best, end, find, get, open_reader, runs, ui_url\n"
        "assert not {'mlflow', 'prefect', 'pandas'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    with pytest.raises(AttributeError, match="Names: Dataset, Details, History"):
        tracking.nothing  # noqa: B018
