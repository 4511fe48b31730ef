"""The code of a run in a temporary folder, and the user's own repository left as it is."""

from pathlib import Path

import pytest
from git_repository import commit_all, git

from loopwright.config import Project
from loopwright.errors import Conflict, Damaged, NotFound
from loopwright.lineage import capture, code_digest
from loopwright.lineage.environment import keep
from loopwright.records import PipelineRun, StepRun, now
from loopwright.reproduction.sources import commit_of, present_files

STEP = "def clean(table):\n    return table\n"


def clean(table: object) -> object:  # noqa: D103  (the same code as in the project: a docstring would count)
    return table


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project in a folder of a repository, with a space and a letter beyond ASCII in its path."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    root = tmp_path / "my répository" / "a project"
    root.mkdir(parents=True)
    (root / "loopwright.toml").write_text("")
    (root / "train.py").write_text(STEP)
    (root / "picture.png").write_bytes(bytes(range(256)))
    (root / ".gitignore").write_text(".loopwright/\n")
    commit_all(root.parent)
    return Project(root)


def run_of(project: Project) -> PipelineRun:
    """Return a run made now, with what is kept of it."""
    environment = capture(project)
    keep(project, environment)
    return PipelineRun(
        "train:train", "5" * 32, "", "completed", now(), git_commit=environment.git_commit,
        git_dirty=environment.git_dirty, diff_digest=environment.diff_digest, lock_digest=environment.lock_digest,
    )  # fmt: skip


def facts(project: Project) -> tuple[str, ...]:
    """Return what git says of the repository."""
    return tuple(
        git(project.root, *words.split()) for words in ("status --porcelain", "for-each-ref", "worktree list")
    )


def files(folder: Path) -> dict[str, bytes]:
    """Return the content of all files of a project."""
    own = [path for path in folder.rglob("*") if path.is_file() and ".loopwright" not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in own if path.name != ".git"}


def test_a_commit_with_its_changes_is_there_again(project: Project, tmp_path: Path) -> None:
    """Changed binary files, deleted and new files, from a detached head; later commits and changes do not show."""
    git(project.root, "checkout", "--quiet", "--detach")
    (project.root / "picture.png").write_bytes(bytes(range(255, -1, -1)))
    (project.root / "new file.txt").write_text("new, without an end of line")
    (project.root.parent / "beside.txt").write_text("in the repository, not in the project\n")
    git(project.root, "add", "new file.txt")
    run, then = run_of(project), files(project.root)
    commit_all(project.root.parent)
    (project.root / "train.py").write_text("today")
    before = facts(project)
    with commit_of(project, run, tmp_path / "tree") as found:
        assert files(found.root) == then
        assert (found.top / "beside.txt").is_file()
        assert found.root.relative_to(found.top) == Path("a project")
        assert found.notes == ()
        (found.root / "train.py").write_text("the repetition may write what it likes")
    assert facts(project) == before
    assert (project.root / "train.py").read_text() == "today"
    assert not (tmp_path / "tree" / project.root.parent.name).exists()


def test_submodules_are_taken_from_where_they_are(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At their commit of then, without the network; one that is not here is named."""
    library = tmp_path / "library"
    library.mkdir()
    (library / "code.py").write_text("then")
    commit_all(library)
    top = project.root.parent
    for name in ("library", "other"):
        git(top, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), name)
    commit_all(top)
    run = run_of(project)
    (top / "library" / "code.py").write_text("today")
    commit_all_in_submodule = git(top / "library", "commit", "--quiet", "--all", "--message", "today")
    assert commit_all_in_submodule == ""
    commit_all(top)
    git(top, "submodule", "--quiet", "deinit", "--force", "other")
    with commit_of(project, run, tmp_path / "tree") as found:
        assert (found.top / "library" / "code.py").read_text() == "then"
        assert [note.split(" has ")[0] for note in found.notes] == ["the submodule other"]
    assert git(top / "library", "worktree", "list").count("\n") == 0


def test_changes_that_do_not_apply_are_said_to_be_damaged(project: Project, tmp_path: Path) -> None:
    """A commit that is another one than the changes were made to; nothing is left behind."""
    (project.root / "train.py").write_text(STEP + "\n# changed\n")
    run = run_of(project)
    git(project.root, "checkout", "--quiet", "train.py")
    (project.root / "train.py").write_text("all of it is new\n")
    other = commit_all(project.root.parent)
    record = PipelineRun(
        "train:train", "5" * 32, "", "completed", now(), git_commit=other, diff_digest=run.diff_digest
    )
    with (
        pytest.raises(Damaged, match="do not apply to commit"),
        commit_of(project, record, tmp_path / "tree"),
    ):
        pass
    assert git(project.root, "worktree", "list").count("\n") == 0


def test_a_project_that_has_moved_is_found_where_it_was(project: Project, tmp_path: Path) -> None:
    """The commit's only project is meant; without any there is nothing to run."""
    run = run_of(project)
    moved = project.root.parent / "deeper" / "project"
    moved.parent.mkdir()
    project.root.rename(moved)
    commit_all(moved.parent.parent)
    with commit_of(Project(moved), run, tmp_path / "tree") as found:
        assert found.root.name == "a project"
    git(moved, "rm", "--quiet", "--cached", "loopwright.toml")
    git(moved, "commit", "--quiet", "--message", "no project")
    without = PipelineRun(
        "train:train", "5" * 32, "", "completed", now(), git_commit=git(moved, "rev-parse", "HEAD")
    )
    with (
        pytest.raises(NotFound, match="has no deeper/project"),
        commit_of(Project(moved), without, tmp_path / "tree"),
    ):
        pass


def test_present_files_stand_in_while_the_steps_are_unchanged(project: Project, tmp_path: Path) -> None:
    """The copy leaves the state out and says what is not proven; a changed step refuses it."""
    (project.state / "ledger.db").write_text("state")
    source = "def clean(table: object) -> object:\n    return table\n"
    (project.root / "train.py").write_text(source)
    step = StepRun("clean", code_digest(clean), "completed", 1.0)
    run = PipelineRun("train:train", "5" * 32, "", "completed", now(), steps=(step,))
    with present_files(project, run, tmp_path / "copy") as found:
        assert files(found.root) == files(project.root)
        assert not (found.root / ".loopwright").exists()
        assert "not on record" in found.notes[0]
    (project.root / "train.py").write_text(source.replace("return table", "return None"))
    with (
        pytest.raises(Conflict, match="code of clean is not what it was"),
        present_files(project, run, tmp_path),
    ):
        pass
