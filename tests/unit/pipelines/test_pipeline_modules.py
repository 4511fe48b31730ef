"""Running a pipeline by its entry point: what is wrong is said before a server is asked."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loopwright.config import Project
from loopwright.errors import InvalidInput, LoopwrightError, NotFound
from loopwright.pipelines import load, run

WEEKLY = """
import loopwright as lw
import tasks_shared

@lw.pipeline
def train(rows: int = 10, rate: float = 0.5) -> tuple:
    return {answer!r}, tasks_shared.ANSWER, __file__

def plain() -> None: ...
"""


@pytest.fixture(autouse=True)
def _own_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what a test has imported; no server can be reached."""
    for variable in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9/api")
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name in [name for name in sys.modules if name.startswith("tasks")]:
        del sys.modules[name]


def make(folder: Path, answer: str = "") -> Project:
    """Make a project with a package `tasks` and a module that it imports."""
    (folder / "tasks").mkdir(parents=True)
    (folder / "loopwright.toml").touch()
    (folder / "tasks_shared.py").write_text(f"ANSWER = {answer!r}\n")
    (folder / "tasks" / "__init__.py").touch()
    (folder / "tasks" / "weekly.py").write_text(WEEKLY.format(answer=answer))
    return Project(folder)


@pytest.mark.parametrize(
    ("entrypoint", "parameters", "error", "message"),
    [
        ("task.weekly:train", {}, NotFound, "'task.weekly'"),
        ("tasks.weakly:train", {}, NotFound, "'tasks.weakly'"),
        ("tasks.weekly:tarin", {}, NotFound, "Did you mean 'tasks.weekly:train'? Known: tasks.weekly:train"),
        ("tasks.weekly:plain", {}, InvalidInput, "is a function, not a pipeline. Pipelines in tasks.weekly: train"),
        ("tasks.weekly:train", {"row": 5}, InvalidInput, "no parameter 'row'. Did you mean 'rows'? Parameters: rows, rate"),
        ("tasks.weekly:train", {"rows": "5"}, InvalidInput, "is '5', of type str. It takes int"),
        ("tasks.weekly:train", {"rate": "low"}, InvalidInput, "is 'low', of type str. It takes float"),
    ],
)  # fmt: skip
def test_a_run_that_cannot_be_is_refused_before_it_starts(
    tmp_path: Path, entrypoint: str, parameters: dict[str, Any], error: type[LoopwrightError], message: str
) -> None:
    """Module, function and parameters are judged first, and no ledger and no run is made."""
    project = make(tmp_path / "project")
    with pytest.raises(error) as caught:
        run(project, entrypoint, parameters)
    assert message in str(caught.value)
    assert not (project.root / ".loopwright").exists()


def test_packages_of_one_name_in_two_projects_are_told_apart(tmp_path: Path) -> None:
    """Each project gets its own package, and its package the project's own module of a name both have."""
    one, two = make(tmp_path / "one", "one"), make(tmp_path / "two", "two")
    for project, answer in ((one, "one"), (two, "two"), (one, "one")):
        file = project.root / "tasks" / "weekly.py"
        assert load(project, "tasks.weekly:train").function() == (answer, answer, str(file))


def test_a_project_in_a_project_has_modules_of_its_own(tmp_path: Path) -> None:
    """A folder inside of another project is told apart from it like any other."""
    outer = make(tmp_path / "outer", "outer")
    nested = make(tmp_path / "outer" / "nested", "nested")
    answers = [load(each, "tasks.weekly:train").function()[:2] for each in (outer, nested, outer)]
    assert answers == [("outer", "outer"), ("nested", "nested"), ("outer", "outer")]


def test_a_module_is_imported_once_for_its_project(tmp_path: Path) -> None:
    """Asking again gives the same pipeline, whose state is kept."""
    project = make(tmp_path / "project")
    assert load(project, "tasks.weekly:train") is load(project, "tasks.weekly:train")


def test_libraries_stay_where_they_are(tmp_path: Path) -> None:
    """A file of the project with a library's name does not make other modules lose that library."""
    one, two = make(tmp_path / "one", "one"), make(tmp_path / "two", "two")
    before = sys.modules["json"]
    (two.root / "json.py").write_text("own = True\n")
    load(one, "tasks.weekly:train")
    load(two, "tasks.weekly:train")
    assert sys.modules["json"] is before
