"""Results of steps on disk: those that a later run may use again, and those of a run that did not get to its end.

``.loopwright/steps/cache/<key>/`` holds results of steps with ``cache=True``; ``.loopwright/steps/runs/<run>/<key>/``
those of one run, for as long as it may be resumed. Each is a folder with the pickled value and a description, which
names the value's SHA-256. The folder gets its name when it is complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from loopwright.config import Project
from loopwright.errors import Damaged
from loopwright.records import DatasetRef

__all__ = ["Entry", "Unkeepable", "cached", "drop", "of_run", "read", "tidy", "write"]

_VALUE, _ABOUT = "value.pickle", "about.json"
#: A run that failed can be resumed for so long; a cached result that nobody has used for so long is removed.
_KEPT_S = 30 * 86400.0


class Unkeepable(Exception):
    """A value cannot be kept: it cannot be pickled, or the disk does not take it. The text says which."""


class Entry(msgspec.Struct, frozen=True):
    """What is known of a kept result besides its value.

    `digest` is the SHA-256 of the pickled value, empty before it is written. `outputs` are the fingerprints of the
    tables in the value. `datasets` were read while the step ran; `sources` are the size in bytes and the modification
    time in ns of their files then. `metrics` and `params` were logged to MLflow meanwhile.
    """

    step: str
    run_id: str
    seconds: float
    digest: str = ""
    outputs: tuple[str, ...] = ()
    datasets: tuple[DatasetRef, ...] = ()
    sources: tuple[tuple[int, int], ...] = ()
    metrics: dict[str, float] = {}
    params: dict[str, str] = {}


def _root(project: Project) -> Path:
    return project.state / "steps"


def cached(project: Project, key: str) -> Path:
    """Return where the result with this key lies that any run may use."""
    return _root(project) / "cache" / key


def of_run(project: Project, run_id: str, key: str, occurrence: int) -> Path:
    """Return where a result of one run lies: the n-th, from 0, of the calls with this key."""
    return _root(project) / "runs" / run_id / f"{key}-{occurrence}"


class _Hashed(io.RawIOBase):
    """A file that hashes what is written to it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self.digest = hashlib.sha256()

    def write(self, data: Any, /) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def write(folders: list[Path], value: Any, entry: Entry) -> None:
    """Keep a value in all these folders; the second is a hard link of the first. What is there already stays.

    Raises
    ------
    Unkeepable
        The value cannot be pickled, or the disk is full; nothing is left of it.
    """
    missing = [folder for folder in folders if not folder.is_dir()]
    if not missing:
        return
    first = missing[0]
    temporary = first.with_name(f".{first.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        temporary.mkdir(parents=True)
        digest = _pickle(value, temporary / _VALUE)
        about = msgspec.structs.replace(entry, digest=digest)
        (temporary / _ABOUT).write_bytes(msgspec.json.encode(about))
        for other in missing[1:]:
            _link(temporary, other)
        _put(temporary, first)
    except OSError as error:
        raise Unkeepable(f"the disk does not take it ({error.strerror or error})") from error
    except Exception as error:
        # Objects raise anything when they are pickled: TypeError, PicklingError, RecursionError, their own.
        raise Unkeepable(f"a {type(value).__name__} cannot be pickled ({error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _pickle(value: Any, path: Path) -> str:
    import cloudpickle

    with contextlib.closing(_Hashed(path)) as file:
        cloudpickle.Pickler(file, protocol=5).dump(value)
        return file.digest.hexdigest()


def _link(source: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        shutil.copytree(source, temporary, copy_function=os.link)
        _put(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put(temporary: Path, target: Path) -> None:
    """Give a complete folder its name, unless another process has been quicker."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def read(folder: Path) -> tuple[Entry, Any] | None:
    """Return a kept result, or None when there is none.

    Raises
    ------
    Damaged
        It is not what was written; it is removed, so that it is computed anew.
    """
    try:
        entry = msgspec.json.decode((folder / _ABOUT).read_bytes(), type=Entry)
        data = (folder / _VALUE).read_bytes()
    except FileNotFoundError:
        if folder.is_dir():
            raise _damaged(folder, "a file of it is missing") from None
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise _damaged(folder, str(error)) from error
    if hashlib.sha256(data).hexdigest() != entry.digest:
        raise _damaged(folder, "its digest is another one")
    try:
        value = pickle.loads(data)  # noqa: S301 - written by this project, and its digest holds
    except Exception as error:
        # Most often a class that was renamed since, or another version of a library.
        raise _damaged(folder, f"it cannot be read any more: {type(error).__name__}: {error}") from error
    with contextlib.suppress(OSError):
        os.utime(folder)  # used: `tidy` goes by it
    return entry, value


def _damaged(folder: Path, why: str) -> Damaged:
    shutil.rmtree(folder, ignore_errors=True)
    return Damaged(f"The kept result {folder} is damaged: {why}.", hint="it is computed anew")


def drop(project: Project, run_id: str) -> None:
    """Remove the results of a run that has got to its end."""
    shutil.rmtree(_root(project) / "runs" / run_id, ignore_errors=True)


def tidy(project: Project) -> None:
    """Remove what nobody has used for 30 days."""
    before = time.time() - _KEPT_S
    for folder in (*_root(project).glob("cache/*"), *_root(project).glob("runs/*")):
        with contextlib.suppress(OSError):
            if folder.stat().st_mtime < before:
                shutil.rmtree(folder, ignore_errors=True)
