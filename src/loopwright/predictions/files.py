"""Where the files of a log lie and what their names say.

``<log>/open/<stem>.arrows`` are the tails that processes append to, ``<log>/date=YYYY-MM-DD/<stem>.<first>.<last>.<rows>.parquet``
the sealed segments, with the first and last moment of their rows in microseconds since 1970. A stem belongs to one tail
and to the segment it becomes. The names alone are enough to read a log: nothing has to be looked up or locked.

What shadow variants predict lies under a root of its own, ``shadows`` beside ``predictions``, so that nothing that reads
predictions can come upon it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from urllib.parse import quote, unquote

import psutil

from loopwright.config import Project

__all__ = [
    "LogFolder",
    "Segment",
    "deployments",
    "logs",
    "new_stem",
    "now_us",
    "of_deployment",
    "owner_alive",
    "process_mark",
]

TAIL = ".arrows"
SEALED = ".parquet"
_PREFIX = "deployment="
_SHADOWS = "shadows"
#: A process's start time is derived from the clock; two readings of it differ by less than this.
_START_TOLERANCE_MS = 2000


def now_us() -> int:
    """Return the present moment in microseconds since 1970 UTC."""
    return int(datetime.now(UTC).timestamp() * 1_000_000)


@dataclass(frozen=True, slots=True)
class Segment:
    """One sealed file. `first_us` and `last_us` bound the time of its rows, both included."""

    path: Path
    stem: str
    first_us: int
    last_us: int
    rows: int

    @classmethod
    def read(cls, path: Path) -> Segment | None:
        """Return what a file's name says, or None when it is no segment's name."""
        parts = path.name.removesuffix(SEALED).rsplit(".", 3)
        try:
            return cls(path, parts[0], int(parts[1]), int(parts[2]), int(parts[3]))
        except (IndexError, ValueError):
            return None

    @property
    def schema(self) -> str:
        """What the file's columns hash to: files with the same have the same columns."""
        return self.stem.rpartition("-")[2]

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.stem}.{self.first_us}.{self.last_us}.{self.rows}{SEALED}"

    def overlaps(self, since_us: int | None, until_us: int | None) -> bool:
        """Whether the segment can hold rows in [since, until)."""
        return (since_us is None or self.last_us >= since_us) and (
            until_us is None or self.first_us < until_us
        )


@dataclass(frozen=True, slots=True)
class LogFolder:
    """The folder of one log: of one deployment's predictions, or of all labels."""

    root: Path

    @property
    def open(self) -> Path:
        """The folder of the open tails."""
        return self.root / "open"

    def day(self, at_us: int) -> Path:
        """Return the folder of the segments of a moment's UTC day."""
        return self.root / f"date={datetime.fromtimestamp(at_us / 1e6, UTC):%Y-%m-%d}"

    def tails(self) -> list[Path]:
        """Return the open tails, oldest first."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(path for path in self.open.iterdir() if path.suffix == TAIL)
        return []

    def segments(self) -> list[Segment]:
        """Return the sealed segments in the order of their names.

        Listed after the tails were read, no row can be missed: a tail that has vanished was sealed before.
        """
        found = [
            Segment.read(path) for day in self._days() for path in day.iterdir() if path.suffix == SEALED
        ]
        return sorted((segment for segment in found if segment), key=lambda segment: segment.name)

    def _days(self) -> Iterator[Path]:
        with contextlib.suppress(FileNotFoundError):
            yield from sorted(path for path in self.root.iterdir() if path.name.startswith("date="))

    def exists(self) -> bool:
        """Whether anything was ever written."""
        return self.root.is_dir()


def _root(project: Project, shadow: bool) -> Path:
    return project.state / _SHADOWS if shadow else project.predictions


def of_deployment(project: Project, deployment: str, shadow: bool = False) -> LogFolder:
    """Return the folder of a deployment's predictions, or of its shadows'; any name makes a safe folder name."""
    return LogFolder(_root(project, shadow) / f"{_PREFIX}{quote(deployment, safe=' ')}")


def deployments(project: Project, shadow: bool = False) -> list[str]:
    """Return the deployments that ever logged a prediction, or a shadow's, sorted."""
    with contextlib.suppress(FileNotFoundError):
        names = (path.name for path in _root(project, shadow).iterdir())
        return sorted(unquote(name.removeprefix(_PREFIX)) for name in names if name.startswith(_PREFIX))
    return []


def logs(project: Project) -> list[LogFolder]:
    """Return the folders of all logs that there are: of predictions, of shadows' predictions, and of labels."""
    found = [
        of_deployment(project, name, shadow)
        for shadow in (False, True)
        for name in deployments(project, shadow)
    ]
    return [*found, LogFolder(project.labels), LogFolder(project.labels.with_name("labels-by-entity"))]


@cache
def _started_ms(pid: int) -> int:
    return int(psutil.Process(pid).create_time() * 1000)


def process_mark() -> str:
    """Return the part of a stem that names this process: its pid and its start time."""
    return f"p{os.getpid()}-c{_started_ms(os.getpid())}"


def new_stem(schema: str = "") -> str:
    """Return a stem for a new tail of this process; stems sort by time and end with what `schema` hashes to."""
    digest = hashlib.blake2s(schema.encode(), digest_size=4).hexdigest()
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{process_mark()}-{secrets.token_hex(3)}-{digest}"


def owner_alive(tail: Path) -> bool:
    """Whether the process that a tail's name gives still runs, and is no later one with the same pid."""
    try:
        pid, started = (int(part[1:]) for part in tail.stem.split("-")[1:3])
        process = psutil.Process(pid)
        same = abs(process.create_time() * 1000 - started) < _START_TOLERANCE_MS
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError):
        return False
