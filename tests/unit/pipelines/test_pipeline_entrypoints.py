"""From an entrypoint to the pipeline: the user's own module, and what can be wrong with it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loopwright.config import Project
from loopwright.errors import InvalidInput, NotFound, StepFailed
from loopwright.pipelines import load
from loopwright.pipelines.entrypoints import source_file

MODULE = """
import loopwright as lw

@lw.pipeline
def train() -> str:
    return {answer!r}

@lw.pipeline
def score() -> None: ...

@lw.step
def clean() -> None: ...

nothing = None
"""


@pytest.fixture(autouse=True)
def _own_modules() -> Iterator[None]:
    """Forget the modules and folders that a test has brought in."""
    modules, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("jobs"):
            del sys.modules[name]


def make(folder: Path, answer: str = "", **files: str) -> Project:
    """Make a project with a module `jobs` and others."""
    folder.mkdir(exist_ok=True)
    (folder / "loopwright.toml").touch()
    (folder / "jobs.py").write_text(MODULE.format(answer=answer))
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return Project(folder)


def test_an_entrypoint_names_a_pipeline(tmp_path: Path) -> None:
    """The module is imported from the project's folder; a pipeline that is given is itself."""
    project = make(tmp_path)
    found = load(project, "jobs:train")
    assert (found.name, found.entrypoint) == ("train", "jobs:train")
    assert load(project, found) is found


def test_packages_have_entrypoints_too(tmp_path: Path) -> None:
    """A dotted module is found in its folder, and its file is known without importing it."""
    project = make(tmp_path)
    (tmp_path / "jobs_of_ours").mkdir()
    (tmp_path / "jobs_of_ours" / "__init__.py").touch()
    (tmp_path / "jobs_of_ours" / "weekly.py").write_text(MODULE.format(answer=""))
    assert load(project, "jobs_of_ours.weekly:score").name == "score"
    assert source_file(project, "jobs_of_ours.weekly:score") == project.root / "jobs_of_ours" / "weekly.py"
    assert source_file(project, "jobs_of_ours:score") == project.root / "jobs_of_ours" / "__init__.py"
    (tmp_path / "jobs").mkdir()  # a folder without code beside the module does not count
    assert source_file(project, "jobs:train") == project.root / "jobs.py"


@pytest.mark.parametrize(
    ("entrypoint", "error", "message"),
    [
        ("train", InvalidInput, "'train' names no pipeline. Write '<module>:<function>'"),
        (":train", InvalidInput, "names no pipeline"),
        ("jobs:", InvalidInput, "names no pipeline"),
        (".jobs:train", InvalidInput, "names no pipeline"),
        ("job:train", NotFound, "called 'job'. Did you mean 'jobs'?"),
        ("jobs.py:train", NotFound, "called 'jobs.py'. Did you mean 'jobs'?"),
        ("no_such.module:train", NotFound, "Known: jobs"),
        (
            "jobs:trian",
            NotFound,
            "no pipeline 'jobs:trian'. Did you mean 'jobs:train'? Known: jobs:train, jobs:score",
        ),
        ("jobs:nothing", NotFound, "Known: jobs:train, jobs:score"),
        ("jobs:clean", InvalidInput, "jobs:clean is a Step, not a pipeline. Pipelines in jobs: train, score"),
        ("jobs:lw", InvalidInput, "is a module, not a pipeline"),
    ],
)
def test_wrong_entrypoints_are_named(
    tmp_path: Path, entrypoint: str, error: type[Exception], message: str
) -> None:
    """Unknown modules and functions give the nearest and the known ones; other things what they are."""
    with pytest.raises(error) as caught:
        load(make(tmp_path), entrypoint)
    assert message in str(caught.value)


def test_a_plain_function_is_no_pipeline(tmp_path: Path) -> None:
    """A function that was not decorated is refused with the decorator to use."""
    with pytest.raises(InvalidInput, match=r"decorate it with @loopwright.pipeline"):
        load(make(tmp_path), make)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = x / 0\n", "ZeroDivisionError: division by zero (jobs_bad.py:2)"),
        ("def f(:\n", "SyntaxError: invalid syntax (jobs_bad.py:1)"),
        ("import no_such_library\n", "No module named 'no_such_library' (jobs_bad.py:1)"),
        ("import json\n\njson.loads('{')\n", "(jobs_bad.py:3)"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3 (jobs_bad.py:2)"),
    ],
)
def test_what_a_module_raises_is_said_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    """An error on import names the user's own line, not one in a library, and how to see it."""
    project = make(tmp_path, jobs_bad=text)
    with pytest.raises(StepFailed) as caught:
        load(project, "jobs_bad:train")
    assert message in str(caught.value)
    assert caught.value.__cause__ is not None
    (tmp_path / "jobs_bad.py").write_text(MODULE.format(answer="repaired"))
    assert load(project, "jobs_bad:train").function() == "repaired"


def test_modules_of_one_name_in_two_projects_are_told_apart(tmp_path: Path) -> None:
    """Each project gets its own module, also when they take turns in one process."""
    one, two = make(tmp_path / "one", "one"), make(tmp_path / "two", "two")
    answers = [load(project, "jobs:train").function() for project in (one, two, one, two)]
    assert answers == ["one", "two", "one", "two"]
