"""The level of a project with the console's history, as its repository grows."""

import itertools
import shutil
from pathlib import Path

import pytest
from console_seed import make_project, seed
from mature_project import git, reproduction

from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.maturity import Assessment, Fact, assess
from loopwright.maturity.assessment import level_of
from loopwright.records import PipelineRun, now

WORKFLOW, TESTS, LOCK = ".github/workflows/test.yml", "tests/test_pipelines.py", "uv.lock"


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a project with a history and without a repository."""
    project = make_project(tmp_path_factory.mktemp("history") / "project")
    seed(project, rate=0.2)
    (project.root / "pipelines.py").write_text("def train(): ...\n")
    return project.root


@pytest.fixture
def project(history: Path, tmp_path: Path) -> Project:
    """Return a copy of that project, in a repository without a commit."""
    folder = tmp_path / "project"
    shutil.copytree(history, folder)
    git(folder, "init", "-q", "-b", "main")
    (folder / ".git" / "info" / "exclude").write_text(".loopwright/\n")
    return Project(folder)


def judged(project: Project) -> Assessment:
    """Assess a project."""
    ledger = Ledger.open(project)
    try:
        return assess(project, ledger)
    finally:
        ledger.close()


def granted(found: Assessment) -> set[str]:
    """Return the facts that were observed."""
    return {fact.id for fact in found.facts if fact.ok is True}


def add(project: Project, *names: str, author: str = "ada") -> None:
    """Commit files, made empty where they are not there."""
    for name in names:
        path = project.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    git(project.root, "add", "--", *names)
    git(project.root, "commit", "-q", "-m", "Add", author=author)


def facts(*levels: tuple[int, bool | None]) -> list[Fact]:
    """Make facts of some levels."""
    return [Fact(f"L{level}.{n}", level, "people", "", ok, "", "") for n, (level, ok) in enumerate(levels, 1)]


@pytest.mark.parametrize(
    ("held", "level"),
    [
        ([(1, True)], 4),
        ([(1, False)], 0),
        ([(1, None)], 0),
        ([(1, True), (1, False)], 0),
        ([(1, True), (1, True), (2, None)], 1),
        ([(2, True), (3, True), (4, True), (1, None)], 0),
        ([(1, True), (2, False), (3, True), (4, True)], 1),
        ([(4, False), (1, True), (3, True), (2, True)], 3),
        ([(1, True), (3, None)], 2),
        ([(1, True), (2, True), (3, True), (4, True)], 4),
    ],
)
def test_one_fact_short_is_a_level_short(held: list[tuple[int, bool | None]], level: int) -> None:
    """Facts count in any order; nothing above a fact that is missing or unknown is granted."""
    assert level_of(facts(*held)) == level
    assert {level_of(order) for order in itertools.permutations(facts(*held))} == {level}


def test_a_bare_project_is_at_level_0(tmp_path: Path) -> None:
    """A folder with a configuration alone has no fact, and is told those of level 1."""
    found = judged(make_project(tmp_path / "project"))
    assert (found.level, granted(found)) == (0, set())
    assert {fact.id for fact in found.missing} == {"L1.1", "L1.2", "L1.3", "L1.4", "L1.5", "L1.6"}


def test_a_history_without_a_repository_is_at_level_0(project: Project) -> None:
    """However much the ledger shows, even facts of level 4, the first level needs a commit."""
    found = judged(project)
    assert found.level == 0
    assert {"L1.4", "L1.6", "L2.1", "L2.5", "L3.4", "L4.2"} <= granted(found)
    assert {fact.id for fact in found.missing} == {"L1.1", "L1.2", "L1.3", "L1.5"}


def test_each_commit_grants_what_it_adds(project: Project) -> None:
    """Code, workflow, tests, lock, owners: each brings its own facts and no other, and level 1 comes with the last of its own."""
    steps: list[tuple[tuple[str, ...], set[str], int]] = [
        (("loopwright.toml", "pipelines.py"), {"L1.1", "L1.5"}, 0),
        ((LOCK,), {"L2.6"}, 0),
        ((WORKFLOW,), {"L1.2"}, 0),
        (("README.md",), set(), 0),
        ((TESTS,), {"L1.3"}, 1),
        (("CODEOWNERS",), {"L3.7"}, 1),
    ]
    before = granted(judged(project))
    for names, expected, level in steps:
        add(project, *names)
        found = judged(project)
        assert (granted(found) - before, found.level) == (expected, level), names
        before = granted(found)


@pytest.mark.parametrize(
    ("name", "fact", "level"), [(WORKFLOW, "L1.2", 0), (TESTS, "L1.3", 0), ("pipelines.py", "L1.5", 0)]
)
def test_what_is_taken_out_of_git_is_not_granted_any_more(
    project: Project, name: str, fact: str, level: int
) -> None:
    """The level falls with the commit that removes a file, though the file is still in the folder."""
    add(project, "loopwright.toml", "pipelines.py", WORKFLOW, TESTS)
    assert judged(project).level == 1
    git(project.root, "rm", "-q", "--cached", name)
    git(project.root, "commit", "-q", "-m", "Remove")
    found = judged(project)
    assert (project.root / name).is_file()
    assert [one.id for one in found.missing] == [fact]
    assert found.level == level


def test_a_file_that_is_only_staged_is_not_granted(project: Project) -> None:
    """What no commit holds is in nobody else's copy: neither staged nor loose files count."""
    add(project, "loopwright.toml", "pipelines.py")
    before = granted(judged(project))
    (project.root / LOCK).touch()
    assert granted(judged(project)) == before
    git(project.root, "add", LOCK)
    assert granted(judged(project)) == before
    git(project.root, "commit", "-q", "-m", "Lock")
    assert granted(judged(project)) == before | {"L2.6"}


def test_an_unknown_fact_withholds_a_level(project: Project) -> None:
    """Two trainings do not show whether the last three were automatic: level 2 waits for them alone."""
    add(project, "loopwright.toml", "pipelines.py", WORKFLOW, TESTS, LOCK)
    (project.root / "pipelines.py").write_text("def train(): pass\n")
    add(project, "pipelines.py", author="grace")
    ledger = Ledger.open(project)
    ledger.put("reproduction", "1f" * 16, reproduction("1f" * 16))
    ledger.close()
    found = judged(project)
    assert [(fact.id, fact.ok) for fact in found.missing] == [("L2.2", None)]
    assert (found.level, found.dimensions["model creation"]) == (1, 1)
    ledger = Ledger.open(project)
    for number in range(3):
        run = PipelineRun(
            "pipelines:train", f"r{number}", "", "completed", now(), 1.0, {}, trigger="schedule"
        )
        ledger.put("pipeline_run", run.run_id, run)
    ledger.close()
    found = judged(project)
    assert (found.level, found.dimensions["model creation"]) == (2, 4)
    assert {"L3.3": None, "L3.1": False}.items() <= {fact.id: fact.ok for fact in found.missing}.items()


def test_pipelines_in_a_package_count_as_code(project: Project) -> None:
    """An entrypoint whose module is a package is versioned with the package's own file, and has its authors."""
    (project.root / "pipelines.py").unlink()
    add(project, "loopwright.toml")
    assert "L1.5" not in granted(judged(project))
    add(project, "pipelines/__init__.py")
    assert "L1.5" in granted(judged(project))
    (project.root / "pipelines" / "__init__.py").write_text("def train(): ...\n")
    add(project, "pipelines/__init__.py", author="grace")
    assert "L2.9" in granted(judged(project))


@pytest.mark.parametrize(
    ("name", "ok"),
    [
        ("tests/test_jobs.py", True),
        ("jobs_test.py", True),
        ("tests/conftest.py", False),
        ("tests/test_data.csv", False),
        ("latest.py", False),
    ],
)
def test_tests_are_the_files_that_pytest_collects(project: Project, name: str, ok: bool) -> None:
    """Both of its name patterns count, and nothing else does."""
    add(project, "loopwright.toml", name)
    assert ("L1.3" in granted(judged(project))) is ok


@pytest.mark.parametrize(
    ("state", "known"),
    [
        ("quiet", {"L3.4": None, "L3.6": False, "L4.2": None, "L4.4": None}),
        ("canary", {"L3.4": None, "L3.6": False, "L4.2": None, "L4.4": None}),
        ("promoted", {"L3.4": True, "L3.6": False, "L4.2": True, "L4.4": True}),
        ("rolled_back", {"L3.4": None, "L3.6": True, "L4.2": True, "L4.4": None}),
    ],
)
def test_facts_about_releases_follow_the_history(
    tmp_path: Path, state: str, known: dict[str, bool | None]
) -> None:
    """Before a release has ended nothing is known of it; its end tells a promotion from a rollback."""
    project = make_project(tmp_path / "project")
    seed(project, state=state, rate=0.2)
    found = {fact.id: fact.ok for fact in judged(project).facts}
    assert {name: found[name] for name in known} == known
