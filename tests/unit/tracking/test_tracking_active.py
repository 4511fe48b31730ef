"""The MLflow run of a pipeline, on a real store in a file: how it begins, what it takes, how it ends."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from loopwright.config import Project
from loopwright.errors import Unavailable
from loopwright.records import DatasetRef
from loopwright.tracking import begin

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    # MLflow leaves connections of its stores to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Return a project whose MLflow store is a file."""
    root = tmp_path_factory.mktemp("tracked")
    (root / "loopwright.toml").write_text('[project]\nname = "cellar"\n')
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{root / 'mlflow.db'}"
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    here = Path.cwd()
    os.chdir(root)  # MLflow puts artifacts into the current folder
    import mlflow

    mlflow.set_tracking_uri(None)
    yield Project(root)
    os.chdir(here)


def test_a_run_is_the_active_one_until_it_ends(project: Project) -> None:
    """Plain MLflow calls go into it; parameters, tags and datasets are on it; the experiment is the project's."""
    import mlflow

    tracked = begin(project, "train", {"loopwright.trigger": "test"})
    with tracked.active():
        mlflow.log_metric("accuracy", 0.9)
    assert tracked.logged() == ({"accuracy": 0.9}, {})
    tracked.log({"depth": 6, "text": "x" * 7000}, {"prefect.flow_run_id": "f"})
    tracked.log_datasets([DatasetRef("wine", "ab" * 32, 178, ("alcohol",), "wine.csv")])
    tracked.end("FINISHED")
    assert mlflow.active_run() is None
    run = mlflow.get_run(tracked.run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "train")
    assert mlflow.get_experiment(run.info.experiment_id).name == "cellar"
    assert run.data.metrics == {"accuracy": 0.9}
    assert (run.data.params["depth"], len(run.data.params["text"])) == ("6", 6000)
    assert {"loopwright.trigger": "test", "prefect.flow_run_id": "f"}.items() <= run.data.tags.items()
    assert run.inputs.dataset_inputs[0].dataset.name == "wine"


def test_many_parameters_are_all_logged(project: Project) -> None:
    """MLflow takes a hundred at a time."""
    import mlflow

    tracked = begin(project, "wide", {})
    tracked.log({f"p{number}": number for number in range(105)}, {})
    tracked.end("FINISHED")
    assert len(mlflow.get_run(tracked.run_id).data.params) == 105


def test_a_parameter_that_the_code_has_logged_differently_stays(project: Project) -> None:
    """The others and the tags arrive all the same: a finished training does not fail for it."""
    import mlflow

    tracked = begin(project, "train", {})
    with tracked.active():
        mlflow.log_param("depth", 7)
    tracked.log({"depth": 6, "rows": 3}, {"prefect.flow_run_id": "f"})
    tracked.end("FINISHED")
    data = mlflow.get_run(tracked.run_id).data
    assert data.params == {"depth": "7", "rows": "3"}
    assert data.tags["prefect.flow_run_id"] == "f"


def test_files_are_kept_as_artifacts(project: Project, tmp_path: Path) -> None:
    """In an artifact folder on this machine they are the very same files; twice is once."""
    import mlflow

    (tmp_path / "a.lock").write_text("numpy==2.0\n")
    tracked = begin(project, "train", {})
    for _ in range(2):
        tracked.keep({"requirements.lock": tmp_path / "a.lock"})
    tracked.end("FINISHED")
    assert mlflow.artifacts.load_text(f"runs:/{tracked.run_id}/requirements.lock") == "numpy==2.0\n"
    assert (tmp_path / "a.lock").stat().st_nlink == 2


def test_a_run_around_it_stays_open(project: Project) -> None:
    """Runs that were left open inside are ended with it, the one that it was started in is not."""
    import mlflow

    with mlflow.start_run() as outer:
        tracked = begin(project, "train", {})
        with tracked.active("FAILED"):
            inner = mlflow.start_run(nested=True)
        active = mlflow.active_run()
        assert active is not None
        assert active.info.run_id == outer.info.run_id
        tracked = begin(project, "train", {})
        with tracked.active():
            mlflow.end_run()
        tracked.end("FAILED")
        active = mlflow.active_run()
        assert active is not None
        assert active.info.run_id == outer.info.run_id
    assert mlflow.get_run(inner.info.run_id).info.status == "FAILED"
    assert mlflow.get_run(inner.info.run_id).data.tags["mlflow.parentRunId"] != outer.info.run_id
    assert mlflow.get_run(tracked.run_id).data.tags["mlflow.parentRunId"] == outer.info.run_id
    assert mlflow.get_run(tracked.run_id).info.status == "FAILED", "although the code had called it finished"
    assert mlflow.get_run(outer.info.run_id).info.status == "FINISHED"


def test_a_deleted_experiment_is_named(project: Project) -> None:
    """Runs cannot go into an experiment that was deleted: what to do is said."""
    import mlflow

    (project.root / "other").mkdir()
    (project.root / "other" / "loopwright.toml").write_text('[project]\nname = "deleted"\n')
    mlflow.delete_experiment(mlflow.create_experiment("deleted"))
    with pytest.raises(Unavailable, match="'deleted' was deleted") as caught:
        begin(Project(project.root / "other"), "train", {})
    assert "restore it" in caught.value.hint
