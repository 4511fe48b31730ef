"""The code of a run in a temporary folder: its commit and what was not committed, or a copy of the present files."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loopwright.config import FILE, STATE, Project
from loopwright.errors import Conflict, Damaged, InvalidInput, NotFound, Unavailable, listing
from loopwright.lineage.code import digests_in
from loopwright.lineage.environment import git
from loopwright.records import PipelineRun
from loopwright.reproduction.subject import kept_text

__all__ = ["Sources", "commit_of", "present_files"]

_TIMEOUT_S = 600.0
#: What a git that started this process has set would lead ours into the user's own working tree.
_GIT_VARIABLES = ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "GIT_PREFIX")
#: Folders of a project that are no source.
_NOT_COPIED = (STATE, ".git", ".venv", "venv", "__pycache__", "node_modules")
_NOT_KEPT = "# new file, not kept: "


@dataclass(frozen=True, slots=True)
class Sources:
    """The project's folder `root` below `top`, the folder that stands for `original`; and what they are, in words.

    `notes` say what of the code is not proven to be that of the run.
    """

    root: Path
    top: Path
    original: Path
    text: str
    notes: tuple[str, ...] = ()


@contextlib.contextmanager
def commit_of(project: Project, run: PipelineRun, folder: Path) -> Iterator[Sources]:
    """Check the run's commit out below `folder`, with its uncommitted changes; the user's own files are not touched.

    Raises
    ------
    InvalidInput
        The run was made outside of git.
    NotFound
        The repository does not have the commit, or the kept changes are gone.
    Damaged
        The kept changes do not apply.
    """
    top = _repository(project, run)
    tree = folder / top.name
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, tree, ignore_errors=True)
        _checkout(top, run.git_commit, tree, stack)
        notes = _submodules(top, tree, stack)
        if run.diff_digest:
            notes += _apply(project, run, tree)
        root = _project_in(tree, project.root.relative_to(top))
        text = f"commit {run.git_commit[:12]}" + (" with the changes of then" if run.diff_digest else "")
        yield Sources(root, tree, top, text, tuple(notes))


def _repository(project: Project, run: PipelineRun) -> Path:
    again = f"loopwright reproduce {run.run_id[:8]} --here"
    if not run.git_commit:
        raise InvalidInput(
            f"The run {run.run_id} was made outside of git: its code is not on record.",
            valid="The present files can stand in for it, as far as its steps are unchanged.",
            hint=again,
        )
    top = (git(project.root, "rev-parse", "--show-toplevel") or "").strip()
    if not top:
        raise NotFound(
            f"{project.root} is in no git repository any more, and the run was made from commit {run.git_commit[:12]}.",
            hint=again,
        )
    if git(project.root, "cat-file", "-e", f"{run.git_commit}^{{commit}}") is None:
        raise NotFound(
            f"The repository {top} does not have commit {run.git_commit[:12]} any more, from which the run was made: its "
            "history was rewritten, or this is a shallow clone.",
            hint=f"git fetch origin {run.git_commit}   (or, with the present files: {again})",
        )
    return Path(top).resolve()


def _git(folder: Path, *arguments: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in _GIT_VARIABLES}
    # Hooks of the repository are for its users' own checkouts.
    command = ["git", "-c", "core.hooksPath=/dev/null", *arguments]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"git {arguments[0]} does not work: {error}.", hint="git --version") from error
    if done.returncode:
        message = done.stderr.decode(errors="replace").strip()
        raise Damaged(f"git {arguments[0]} failed in {folder}: {message}")


def _checkout(repository: Path, commit: str, tree: Path, stack: contextlib.ExitStack) -> None:
    """Check a commit out as a worktree that is taken away again, also from the repository's list of them."""
    stack.callback(git, repository, "worktree", "remove", "--force", "--force", str(tree))
    _git(repository, "worktree", "add", "--quiet", "--detach", str(tree), commit)


def _submodules(top: Path, tree: Path, stack: contextlib.ExitStack) -> list[str]:
    """Check out the submodules of a tree from where the user's own copy has them; a note for each that is not there."""
    notes = []
    listed = git(tree, "ls-files", "--stage", "-z") or ""
    for entry in listed.split("\0"):
        facts, _, name = entry.partition("\t")
        if not facts.startswith("160000 "):
            continue
        commit, own = facts.split()[1], top / name
        if (own / ".git").exists() and git(own, "cat-file", "-e", f"{commit}^{{commit}}") is not None:
            _checkout(own, commit, tree / name, stack)  # into the empty folder that git has made for it
            notes += _submodules(own, tree / name, stack)
        else:
            notes.append(f"the submodule {name} has no commit {commit[:12]} here and was left empty")
    return notes


def _apply(project: Project, run: PipelineRun, tree: Path) -> list[str]:
    path = kept_text(project, run.diff_digest, "diff", "The diff of uncommitted changes")
    lines = path.read_bytes().decode(errors="replace").splitlines()
    if any(line.startswith("diff --git ") for line in lines):
        try:
            _git(tree, "apply", "--whitespace=nowarn", str(path))
        except Damaged as error:
            raise Damaged(
                f"The changes that were not committed do not apply to commit {run.git_commit[:12]}: {error.fact}",
                hint=f"git apply --check {path}   (in a checkout of that commit)",
            ) from error
    left_out = [line.removeprefix(_NOT_KEPT) for line in lines if line.startswith(_NOT_KEPT)]
    return [f"a new file was not kept with the run and is missing: {name}" for name in left_out]


def _project_in(tree: Path, place: Path) -> Path:
    """Return the project's folder in a checkout: where it is today, or the only one there was."""
    if (tree / place / FILE).is_file():
        return tree / place
    listed = (git(tree, "ls-files", "-z", f":(glob)**/{FILE}") or "").split("\0")
    found = [name for name in listed if name]
    if len(found) == 1:
        return (tree / found[0]).parent
    raise NotFound(
        f"The commit has no {place / FILE}.",
        valid=f"Projects in it: {listing(found)}.",
        hint="git log --follow",
    )


@contextlib.contextmanager
def present_files(project: Project, run: PipelineRun, folder: Path) -> Iterator[Sources]:
    """Copy the project's present files below `folder`.

    Raises
    ------
    Conflict
        A step's code is not what it was: the copy would repeat another run.
    """
    _refuse_changed(project, run)
    root = folder / project.root.name
    shutil.copytree(project.root, root, symlinks=True, ignore=shutil.ignore_patterns(*_NOT_COPIED))
    unproven = "the pipeline's own function, helpers and other files are not on record"
    notes = [f"the code is that of today: its steps are unchanged, but {unproven}"]
    unknown = sorted({step.name for step in run.steps if not step.code_digest})
    notes += [f"the code of step {name} is not on record" for name in unknown]
    yield Sources(root, root, project.root, "the present files", tuple(notes))


def _refuse_changed(project: Project, run: PipelineRun) -> None:
    known: set[str] = set()
    for path in project.root.rglob("*.py"):
        if not set(path.relative_to(project.root).parts) & set(_NOT_COPIED):
            text = path.read_text(encoding="utf-8", errors="replace")
            known.update(digest for digests in digests_in(text).values() for digest in digests)
    changed = sorted({step.name for step in run.steps if step.code_digest and step.code_digest not in known})
    if changed:
        raise Conflict(
            f"The code of {listing(changed)} is not what it was in the run {run.run_id[:8]}.",
            valid="Without its code a run cannot be repeated.",
            hint="undo the changes to these steps, or run the pipeline anew: loopwright pipeline run",
        )
