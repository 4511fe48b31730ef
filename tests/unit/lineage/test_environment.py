"""What is written down of the surroundings of a run: commit, uncommitted changes, packages."""

import hashlib
import platform
import subprocess
from pathlib import Path

import pytest
from git_repository import commit_all, git

from loopwright.config import Project
from loopwright.lineage import capture, file_digest
from loopwright.lineage.environment import keep, stored


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project that is in no git repository, whatever lies above it."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.resolve()))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    root = tmp_path / "repository" / "project"
    root.mkdir(parents=True)
    (root / "loopwright.toml").write_text("")
    (root / "train.py").write_text("rate = 1\n")
    return Project(root)


def repository(project: Project) -> Path:
    """Commit the project, which lies in a folder of its repository, and return the repository's folder."""
    commit_all(project.root.parent)
    return project.root.parent


def clone_with(project: Project, top: Path, into: Path) -> Path:
    """Return a clone of the commit with the kept changes applied."""
    environment = capture(project)
    subprocess.run(["git", "clone", "--quiet", str(top), str(into)], check=True)
    patch = keep(project, environment)["uncommitted.diff"]
    git(into, "apply", "--whitespace=nowarn", str(patch))
    return into


def test_outside_of_git_there_is_no_commit(project: Project) -> None:
    """Everything about git is empty, and the rest is there."""
    found = capture(project)
    assert (found.git_commit, found.git_dirty, found.diff, found.diff_digest) == ("", False, "", "")
    assert found.python == platform.python_version()
    assert found.platform
    assert set(keep(project, found)) == {"requirements.lock"}


def test_a_clean_repository_has_its_commit_and_no_diff(project: Project) -> None:
    """The commit is named in full; what the project itself keeps in its state folder is no change."""
    top = repository(project)
    (project.state / "ledger.db").write_text("state")
    found = capture(project)
    assert found.git_commit == git(top, "rev-parse", "HEAD")
    assert (found.git_dirty, found.diff_digest) == (False, "")


def test_before_the_first_commit_all_is_uncommitted(project: Project) -> None:
    """Without a commit the diff has the staged and the new files."""
    git(project.root, "init", "--quiet")
    git(project.root, "add", "train.py")
    found = capture(project)
    assert (found.git_commit, found.git_dirty) == ("", True)
    assert "+rate = 1" in found.diff
    assert "b/loopwright.toml" in found.diff


def test_uncommitted_changes_are_kept_under_their_hash(project: Project) -> None:
    """Changes anywhere in the repository count; the diff lies under its SHA-256, once."""
    top = repository(project)
    (project.root / "train.py").write_text("rate = 2\n")
    (top / "shared.py").write_text("new = True\n")
    found = capture(project)
    assert found.git_dirty
    assert "-rate = 1\n+rate = 2\n" in found.diff
    assert "+++ b/shared.py" in found.diff
    path = keep(project, found)["uncommitted.diff"]
    assert path == stored(project, found.diff_digest, "diff")
    assert file_digest(path) == found.diff_digest
    written = path.stat()
    assert keep(project, capture(project))["uncommitted.diff"].stat() == written
    (project.root / "train.py").write_text("rate = 3\n")
    assert capture(project).diff_digest != found.diff_digest


def test_the_kept_diff_restores_every_file(project: Project, tmp_path: Path) -> None:
    """`git apply` on the commit gives the same bytes: other encodings, odd line ends, names, modes and links."""
    contents = {
        "latin.txt": b"caf\xe9\nc\xf4t\xe9\n",
        "binary.bin": bytes(range(256)),
        "deep/a b.txt": "form\x0cfeed\u2028line\rreturn\r\nno end".encode(),
        "ünï.py": b"x = 1\n",
        "empty.txt": b"",
        "run.sh": b"#!/bin/sh\n",
    }
    for name in ("latin.txt", "binary.bin"):
        (project.root / name).write_bytes(b"caf\xe9\n")
    top = repository(project)
    (project.root / "deep").mkdir()
    for name, content in contents.items():
        (project.root / name).write_bytes(content)
    (project.root / "run.sh").chmod(0o755)
    (project.root / "link").symlink_to("run.sh")
    (project.root / "train.py").unlink()
    copy = clone_with(project, top, tmp_path / "copy") / "project"
    assert {name: (copy / name).read_bytes() for name in contents} == contents
    assert (copy / "run.sh").stat().st_mode & 0o100
    assert (copy / "link").readlink() == Path("run.sh")
    assert not (copy / "train.py").exists()


def test_the_users_git_settings_do_not_change_the_diff(project: Project, tmp_path: Path) -> None:
    """Prefixes, colours, external tools and converters that somebody has set are left out."""
    top = repository(project)
    (project.root / "train.py").write_text("rate = 2\n")
    plain = capture(project).diff
    attributes = tmp_path / "attributes"
    attributes.write_text("*.py diff=shout\n")
    (tmp_path / "gitconfig").write_text(
        '[diff]\nnoprefix = true\nexternal = false\n[color]\nui = always\n[diff "shout"]\ntextconv = wc -c\n'
        f"[core]\nattributesFile = {attributes}\n"
    )
    assert capture(project).diff == plain
    assert (clone_with(project, top, tmp_path / "copy") / "project/train.py").read_text() == "rate = 2\n"


def test_new_files_that_are_no_text_are_named(project: Project, tmp_path: Path) -> None:
    """Large and binary new files are named with their size, and the rest can still be applied."""
    top = repository(project)
    (project.root / "data.bin").write_bytes(b"\0" * 10)
    (project.root / "large.csv").write_text("1\n" * 600_000)
    (project.root / "train.py").write_text("rate = 2\n")
    diff = capture(project).diff
    assert "# new file, not kept: 'project/data.bin', 10 bytes\n" in diff
    assert "# new file, not kept: 'project/large.csv', 1200000 bytes\n" in diff
    assert (clone_with(project, top, tmp_path / "copy") / "project/train.py").read_text() == "rate = 2\n"


def test_the_lock_of_the_project_is_kept(project: Project) -> None:
    """`uv.lock` is taken byte by byte, and a change to it is seen at once."""
    lock = project.root / "uv.lock"
    lock.write_bytes(b"version = 1\r\n# caf\xe9\n")
    found = capture(project)
    assert (found.lock_source, found.lock_digest) == ("uv.lock", file_digest(lock))
    kept = keep(project, found)["requirements.lock"]
    assert kept == stored(project, found.lock_digest, "lock")
    assert kept.read_bytes() == lock.read_bytes()
    lock.write_text("version = 22\n")
    assert capture(project).lock_digest == file_digest(lock)


def test_without_a_lock_the_installed_packages_are_listed(project: Project) -> None:
    """The list names what is installed, one `name==version` a line, and its hash is that of its text."""
    found = capture(project)
    assert found.lock_source == "installed distributions"
    assert any(line.startswith("scikit-learn==") for line in found.lock.splitlines())
    assert found.lock_digest == hashlib.sha256(found.lock.encode()).hexdigest()
