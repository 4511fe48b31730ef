"""Where MLflow's clients are pointed, and which store they get there."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from loopwright import parts
from loopwright.config import Project

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
URL = "http://127.0.0.1:9/mlflow"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project whose server is said to run at an address, in an environment without settings."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "LOOPWRIGHT_BUFFERED_URI", "PREFECT_API_URL"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    (tmp_path / "loopwright.toml").touch()
    project = Project(tmp_path)
    me = parts.claim(project)
    parts.write(project, {"server": replace(me, name="server", url="http://127.0.0.1:9")})
    return project


def test_connecting_sets_the_plain_address_and_has_points_gathered_there(project: Project) -> None:
    """Links and REST calls are made from the address, so it is HTTP; a child that connects again gathers too."""
    parts.connect(project)
    names = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "LOOPWRIGHT_BUFFERED_URI")
    assert [os.environ[name] for name in names] == [URL] * 3
    parts.connect(project)
    assert os.environ["LOOPWRIGHT_BUFFERED_URI"] == URL


def test_an_address_that_is_set_is_left_alone(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain one gets MLflow's own client; one of ours is understood by what reads over REST."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", URL)
    parts.connect(project)
    assert "LOOPWRIGHT_BUFFERED_URI" not in os.environ
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"loopwright+{URL}")
    assert parts.mlflow_url(project) == URL


def test_stores_by_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """MLflow finds ours under our schemes and, for the one address that was set, under HTTP; else its own."""
    from mlflow.tracking._model_registry.utils import _get_store as registry
    from mlflow.tracking._tracking_service.utils import _get_store as tracking

    monkeypatch.setenv("LOOPWRIGHT_BUFFERED_URI", f"{URL}/set")
    assert type(tracking(f"{URL}/set")).__name__ == "BufferedRestStore"
    assert type(tracking(f"{URL}/other")).__name__ == "RestStore"
    assert type(tracking(f"loopwright+{URL}")).__name__ == "BufferedRestStore"
    for store in (tracking(f"loopwright+{URL}"), registry(f"loopwright+{URL}")):
        assert store.get_host_creds().host == URL


def test_a_servers_proxied_artifacts_are_reached_by_our_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's repository behind a server takes HTTP addresses only; ours is one with a word before it."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository("mlflow-artifacts:/1/abc", tracking_uri=f"loopwright+{URL}")
    assert repository.artifact_uri == f"{URL}/api/2.0/mlflow-artifacts/artifacts/1/abc"
