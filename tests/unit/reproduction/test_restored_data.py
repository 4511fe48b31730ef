"""Reading recorded datasets in place of their sources."""

from pathlib import Path

import msgspec
import pandas as pd
import pytest

from loopwright.config import Project
from loopwright.errors import InvalidInput, NotFound
from loopwright.lineage import dataset, recorder
from loopwright.lineage.context import Recorder
from loopwright.lineage.restored import VARIABLE
from loopwright.records import DatasetRef


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project with one file."""
    (tmp_path / "loopwright.toml").write_text("")
    (tmp_path / "wine.csv").write_text("a,b\n1,x\n2,\n,z\n")
    return Project(tmp_path)


def recorded(
    project: Project, monkeypatch: pytest.MonkeyPatch, *reads: tuple[str, object]
) -> list[DatasetRef]:
    """Read datasets as a run does, and have them restored from then on."""
    token = recorder.set(run := Recorder("pipelines:train"))
    for name, source in reads:
        dataset(name, source, project=project)
    recorder.reset(token)
    path = project.state / f"recorded-{len(run.datasets)}.json"
    path.write_bytes(msgspec.json.encode(run.datasets))
    monkeypatch.setenv(VARIABLE, str(path))
    return run.datasets


def test_a_changed_or_deleted_file_is_read_as_it_was(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values, gaps and types are those of then, and so is the record of the dataset."""
    before = dataset("wine", "wine.csv", project=project)
    (then,) = recorded(project, monkeypatch, ("wine", "wine.csv"))
    for change in (lambda path: path.write_text("a\n9\n"), Path.unlink):
        change(project.root / "wine.csv")
        token = recorder.set(run := Recorder("pipelines:train"))
        pd.testing.assert_frame_equal(dataset("wine", "wine.csv", project=project), before)
        recorder.reset(token)
        (now,) = run.datasets
        assert (now.digest, now.source, now.source_digest) == (then.digest, then.source, then.source_digest)
    with pytest.raises(NotFound, match=r"no file .*wine.csv"):
        dataset("grapes", "wine.csv", project=project)


def test_a_table_at_hand_is_replaced_only_when_it_differs(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rows keep their index; other rows, as a live query gives them today, are those of then."""
    then = pd.DataFrame({"a": [1.5, 2.5]}, index=[7, 9])
    recorded(project, monkeypatch, ("query", then))
    assert list(dataset("query", then.copy(), project=project).index) == [7, 9]
    assert list(dataset("query", pd.DataFrame({"a": [0.0]}), project=project)["a"]) == [1.5, 2.5]


def test_datasets_of_one_name_are_told_apart_where_that_is_possible(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their source or their content; a third one is refused rather than guessed."""
    (project.root / "more.csv").write_text("a,b\n5,y\n")
    recorded(project, monkeypatch, ("wine", "wine.csv"), ("wine", "more.csv"))
    (project.root / "more.csv").unlink()
    assert list(dataset("wine", "more.csv", project=project)["a"]) == [5]
    assert len(dataset("wine", "wine.csv", project=project)) == 3
    with pytest.raises(InvalidInput, match="2 datasets called 'wine'"):
        dataset("wine", pd.DataFrame({"a": [1]}), project=project)
