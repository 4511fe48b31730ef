"""The packages of a run: the present ones where they are the same, else an environment built from its lock."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from loopwright import __version__
from loopwright.config import Project
from loopwright.errors import Unavailable
from loopwright.lineage.environment import capture, local_packages
from loopwright.reproduction.sources import Sources
from loopwright.reproduction.subject import Subject, kept_text

__all__ = ["Packages", "build", "present"]

_BUILD_TIMEOUT_S = 1800.0
_LINES_SHOWN = 12
_EDITABLE = "#editable"
#: The project's own code, and that of its workspace, comes from the checked-out sources.
_EXPORT = ("--frozen", "--no-header", "--no-annotate", "--no-emit-workspace", "--quiet")


@dataclass(frozen=True, slots=True)
class Packages:
    """A Python with the packages for a repetition; what they are, in words.

    `paths` are folders of the checked-out sources that are imported from. `differences` say in what the packages are
    known to be others than those of the run, `notes` what is not known of them.
    """

    python: Path
    text: str
    paths: tuple[Path, ...] = ()
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def present(project: Project, subject: Subject, sources: Sources, *, asked: bool) -> Packages | None:
    """Return the present environment where it has the lock and Python of the run, or where it is `asked` for."""
    here, run = capture(project), subject.run
    differences = []
    if here.lock_digest != run.lock_digest:
        differences.append("the packages are those of today, and the lock has changed")
    if here.python != run.python:
        differences.append(f"Python is {here.python}, it was {run.python}")
    if differences and not asked:
        return None
    return Packages(
        Path(sys.executable),
        "the present ones" + ("" if differences else ", with the same lock"),
        _own_paths(sources, here.local),
        tuple(differences),
        tuple(_notes(here.local, sources)),
    )


def build(project: Project, subject: Subject, sources: Sources, say: Callable[[str], None]) -> Packages:
    """Build the environment of a run from its lock, or return the one that was built from it before.

    Raises
    ------
    Unavailable
        It cannot be built; the message ends with the last lines that uv wrote.
    """
    local = subject.surroundings.get("local") or local_packages()
    lines = list(_requirements(project, subject, sources, local))
    facts = [subject.run.lock_digest, subject.run.python, platform.machine(), *lines]
    folder = project.state / "reproduce" / hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
    folder.parent.mkdir(exist_ok=True)
    python, complete = folder / "bin" / "python", folder / "complete"
    with FileLock(folder.with_suffix(".lock")):
        if complete.is_file():
            version = complete.read_text()
            say(f"packages built before, {folder.relative_to(project.root)}")
        else:
            count = sum(not line.startswith(" ") for line in lines)
            say(f"building {count} packages for Python {subject.run.python}")
            version = _venv(folder, subject.run.python, sources.root)
            requirements = folder / "requirements.txt"
            requirements.write_text("\n".join(lines) + "\n")
            _uv(
                ["pip", "install", "--python", str(python), "--no-deps", "-r", str(requirements)],
                sources.root,
            )
            complete.write_text(version)
    differences = (
        [] if version == subject.run.python else [f"Python is {version}, it was {subject.run.python}"]
    )
    return Packages(
        python,
        f"built from the {'uv.lock' if _has_lock(subject) else 'list of packages'} of the run",
        _own_paths(sources, local),
        tuple(differences),
        tuple(_notes(local, sources)),
    )


def _has_lock(subject: Subject) -> bool:
    return bool(subject.surroundings.get("lock_source", "uv.lock") == "uv.lock")


def _requirements(
    project: Project, subject: Subject, sources: Sources, local: Mapping[str, str]
) -> Iterator[str]:
    """Yield the lines of a requirements file. What lies in a folder is one line, an absolute path."""
    path = kept_text(project, subject.run.lock_digest, "lock", "The list of packages")
    found = False
    if _has_lock(subject):
        shutil.copyfile(path, sources.root / "uv.lock")
        for line in _uv(["export", *_EXPORT], sources.root).splitlines():
            absolute = _absolute(line, project)
            found = found or line.startswith("loopwright==") or _name_in(absolute) == "loopwright"
            yield absolute
    else:
        for line in path.read_text().splitlines():
            name = line.partition("==")[0]
            found = found or name == "loopwright"
            yield _from(local[name]) if name in local else line
    if not found:  # it was installed beside what the lock names
        yield _from(local["loopwright"]) if "loopwright" in local else f"loopwright=={__version__}"


def _absolute(line: str, project: Project) -> str:
    """Return a line of an export; a path in it is relative to the project, which has moved for the repetition."""
    editable = line.startswith("-e ")
    path = line.removeprefix("-e ").strip()
    if not (editable or path.startswith(".")):
        return line
    return ("-e " if editable else "") + str((project.root / path).resolve())


def _name_in(line: str) -> str:
    """Return the name of the distribution in the folder that a line names, or an empty text."""
    path = Path(line.removeprefix("-e ")) / "pyproject.toml"
    try:
        return str(tomllib.loads(path.read_text())["project"]["name"])
    except (OSError, ValueError, KeyError):
        return ""


def _from(address: str) -> str:
    """Return the line for an address as `local_packages` gives it."""
    folder = _folder(address)
    if folder is None:
        return address
    return f"-e {folder}" if address.endswith(_EDITABLE) else str(folder)


def _folder(address: str) -> Path | None:
    parts = urlsplit(address)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def _own_paths(sources: Sources, local: Mapping[str, str]) -> tuple[Path, ...]:
    """Return where the checked-out sources are imported from.

    A package of the repository that is installed as editable leads to the user's own files; these go before it.
    """
    folders = [sources.root]
    for address in local.values():
        folder = _folder(address)
        if folder and folder.is_relative_to(sources.original):
            folders.append(sources.top / folder.relative_to(sources.original))
    paths = [path for folder in folders for path in (folder / "src", folder)]
    return tuple(dict.fromkeys(path for path in paths if path.is_dir()))


def _notes(local: Mapping[str, str], sources: Sources) -> Iterator[str]:
    for name, address in sorted(local.items()):
        folder = _folder(address)
        if folder and not folder.is_relative_to(sources.original):
            yield f"{name} is installed from {folder}: what was changed there since is not undone"


def _venv(folder: Path, python: str, root: Path) -> str:
    """Make an empty environment with the Python of the run, or one that differs in the last number; return which."""
    minor = python.rpartition(".")[0]
    same = platform.python_version() == python
    wanted = [sys._base_executable if same else python, minor]  # type: ignore[attr-defined]
    for attempt in wanted:
        try:
            _uv(["venv", "--clear", "--no-project", "--python", attempt, str(folder)], root)
            break
        except Unavailable:
            if attempt == wanted[-1]:
                raise
    command = [str(folder / "bin" / "python"), "-c", "import platform; print(platform.python_version())"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _uv(arguments: list[str], folder: Path) -> str:
    """Run uv in a folder, whose own settings of indexes then hold, and return its output."""
    import uv

    variables = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    try:
        done = subprocess.run(
            [uv.find_uv_bin(), *arguments],
            cwd=folder,
            env=variables | {"NO_COLOR": "1", "UV_NO_PROGRESS": "1"},
            capture_output=True,
            text=True,
            timeout=_BUILD_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"uv {arguments[0]} does not work: {error}.", hint="uv --version") from error
    if done.returncode:
        lines = "\n".join(done.stderr.strip().splitlines()[-_LINES_SHOWN:])
        raise Unavailable(
            f"The environment of the run cannot be built: uv {' '.join(arguments[:2])} failed.\n{lines}",
            hint="--same-environment takes the present packages and says so in the verdict",
        )
    return done.stdout
