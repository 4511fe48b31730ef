"""What a run depends on besides its data: the commit, what was not committed, the locked packages, the Python."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal

from loopwright.config import STATE, Project

__all__ = [
    "VARIABLES",
    "Environment",
    "capture",
    "commit",
    "git",
    "keep",
    "keep_text",
    "local_packages",
    "lock_digest",
    "stored",
]

#: Variables that results depend on: the order of sets, how sums are split among threads, what a local time is.
VARIABLES = (
    "PYTHONHASHSEED",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "TZ",
)

#: New files larger than this, or more than so many, are named in the diff and not copied into it.
_LARGEST = 1_000_000
_MOST_FILES = 200
_GIT_TIMEOUT_S = 20.0
#: The tree without files, which git knows everywhere: before the first commit all is new.
_NOTHING = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
#: The whole repository counts, not only the project's folder in it; our own state never does.
_PATHS = (":/", f":(exclude){STATE}")
#: A patch that ``git apply`` takes, whatever the user's own settings and attributes say.
_PATCH = (
    "--no-relative",
    "--no-ext-diff",
    "--no-textconv",
    "--no-color",
    "--binary",
    "--src-prefix=a/",
    "--dst-prefix=b/",
)


@dataclass(frozen=True, slots=True)
class Environment:
    """The surroundings of one run.

    `git_commit` is empty outside of a git repository or before its first commit. `diff` holds what was not committed,
    new files included, in a form that ``git apply`` takes; bytes that are no UTF-8 are escaped as surrogates. `lock` is the text of `uv.lock`, or the installed
    distributions, one ``name==version`` a line. Digests are SHA-256; `diff_digest` is empty when nothing differs.
    `local` are the installed distributions that are on no index, by name: the address of their folder or repository.
    `variables` are those of the process that results depend on, where they are set.
    """

    git_commit: str
    git_dirty: bool
    diff: str
    diff_digest: str
    lock: str
    lock_digest: str
    lock_source: str
    python: str
    platform: str
    local: dict[str, str]
    variables: dict[str, str]


def capture(project: Project) -> Environment:
    """Describe the present environment of a project. Takes some milliseconds: one call of git, two when dirty."""
    found, dirty, new_files = _git_state(project.root)
    diff = _diff(project.root, found, new_files) if dirty else ""
    lock, source = _lock(project.root)
    return Environment(
        git_commit=found,
        git_dirty=dirty,
        diff=diff,
        diff_digest=_digest(diff) if diff else "",
        lock=lock,
        lock_digest=_digest(lock),
        lock_source=source,
        python=platform.python_version(),
        platform=platform.platform(),
        local=local_packages(),
        variables={name: os.environ[name] for name in VARIABLES if name in os.environ},
    )


def commit(project: Project) -> tuple[str, bool]:
    """Return the commit and whether anything differs from it; empty outside of a git repository."""
    found, dirty, _ = _git_state(project.root)
    return found, dirty


def lock_digest(project: Project) -> str:
    """Return the digest of the locked packages, as `capture` does."""
    return _digest(_lock(project.root)[0])


def stored(project: Project, digest: str, kind: Literal["diff", "json", "lock"]) -> Path:
    """Return where a text with this digest is kept. Many runs share one."""
    return project.state / "environments" / digest[:2] / f"{digest}.{kind}"


def keep(project: Project, environment: Environment) -> dict[str, Path]:
    """Keep diff and lock under their digests, once, and return their files by the name they have with a run."""
    wanted: list[tuple[str, Literal["diff", "lock"], str, str]] = [
        ("uncommitted.diff", "diff", environment.diff_digest, environment.diff),
        ("requirements.lock", "lock", environment.lock_digest, environment.lock),
    ]
    files = {}
    for name, kind, digest, text in wanted:
        if not digest:
            continue
        files[name] = keep_text(stored(project, digest, kind), text)
    return files


def keep_text(path: Path, text: str) -> Path:
    """Write a file that is named by its content, unless it is there, and return its path."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
        temporary.write_bytes(_bytes(text))
        temporary.replace(path)
    return path


def git(folder: Path, *arguments: str, errors: str = "replace") -> str | None:
    """Return the output of a git command, or None where it fails or there is no git.

    `errors` says what becomes of bytes that are no UTF-8, as in `bytes.decode`.
    """
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, timeout=_GIT_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors=errors) if done.returncode == 0 else None


def _git_state(root: Path) -> tuple[str, bool, list[str]]:
    """Return the commit, whether anything differs from it, and the new files. One call of git for all three."""
    command = ("--no-optional-locks", "status", "--porcelain=v2", "--branch", "-z", "-uall", "--", *_PATHS)
    status = git(root, *command, errors="surrogateescape")
    if status is None:
        return "", False, []
    entries = [entry for entry in status.split("\0") if entry]
    commits = [entry.removeprefix("# branch.oid ") for entry in entries if entry.startswith("# branch.oid ")]
    commit = commits[0] if commits and commits[0] != "(initial)" else ""
    changes = [entry for entry in entries if not entry.startswith("# ")]
    return commit, bool(changes), [entry[2:] for entry in changes if entry.startswith("? ")]


def _diff(root: Path, commit: str, new_files: list[str]) -> str:
    # Text in other encodings than UTF-8 passes through as it is, or the patch would not fit the file.
    tracked = git(root, "diff", *_PATCH, commit or _NOTHING, "--", *_PATHS, errors="surrogateescape")
    top = Path((git(root, "rev-parse", "--show-toplevel") or str(root)).strip()) if new_files else root
    kept = "".join(_as_new(top, name) for name in new_files[:_MOST_FILES])
    return (
        (tracked or "")
        + kept
        + "".join(f"# new file, not kept: {name!r}\n" for name in new_files[_MOST_FILES:])
    )


def _as_new(top: Path, name: str) -> str:
    """Return a new file as a patch; one that is large or no text is only named, with its size."""
    path, size, text = top / name, -1, "\0"
    try:
        facts = path.lstat()
        size, mode = facts.st_size, _mode(facts.st_mode)
        if stat.S_ISLNK(facts.st_mode):
            text = str(path.readlink())
        elif size <= _LARGEST:
            text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        text = "\0"
    # A patch has other names, and all that is no text, in notations of their own.
    if "\0" in text or any(letter in '"\\' or ord(letter) < 32 for letter in name):
        return f"# new file, not kept: {name!r}" + (f", {size} bytes\n" if size >= 0 else "\n")
    head = f"diff --git a/{name} b/{name}\nnew file mode {mode}\n"
    if not text:
        return head
    # Only this byte ends a line for git; `splitlines` knows ten more.
    lines = text.removesuffix("\n").split("\n")
    end = "" if text.endswith("\n") else "\\ No newline at end of file\n"
    body = "".join(f"+{line}\n" for line in lines)
    tab = "\t" if " " in name else ""  # without it the name would end at the space
    return f"{head}--- /dev/null\n+++ b/{name}{tab}\n@@ -0,0 +1,{len(lines)} @@\n{body}{end}"


def _mode(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "120000"
    return "100755" if mode & stat.S_IXUSR else "100644"


def _lock(root: Path) -> tuple[str, str]:
    path = root / "uv.lock"
    if path.is_file():
        facts = path.stat()
        return _read(path, facts.st_mtime_ns, facts.st_size), "uv.lock"
    return _installed(), "installed distributions"


@lru_cache(maxsize=4)
def _read(path: Path, _mtime_ns: int, _size: int) -> str:
    return path.read_bytes().decode(errors="surrogateescape")


@cache
def _installed() -> str:
    """List the installed distributions by the names of their folders, which is 50x quicker than reading each."""
    found = {f"{name}=={version}" for name, version, _ in _distributions()}
    return "".join(f"{line}\n" for line in sorted(found))


@cache
def local_packages() -> dict[str, str]:
    """Return the installed distributions that came from a folder or a repository, as addresses that installers take.

    A folder whose files are used where they lie, an editable one, is marked by ``#editable``.
    """
    found = {}
    for name, _, folder in _distributions():
        with contextlib.suppress(OSError, ValueError, KeyError):
            facts = json.loads((folder / "direct_url.json").read_text())
            if source := facts.get("vcs_info"):
                found[name] = f"{source['vcs']}+{facts['url']}@{source['commit_id']}"
            else:
                editable = facts.get("dir_info", {}).get("editable", False)
                found[name] = facts["url"] + ("#editable" if editable else "")
    return found


def _distributions() -> Iterator[tuple[str, str, Path]]:
    for entry in sys.path:
        folder = Path(entry)
        if folder.is_dir():
            for path in folder.glob("*.dist-info"):
                name, _, version = path.name.removesuffix(".dist-info").partition("-")
                yield name.lower().replace("_", "-"), version, path


@lru_cache(maxsize=4)
def _digest(text: str) -> str:
    return hashlib.sha256(_bytes(text)).hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
