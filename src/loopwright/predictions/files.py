"""Where the files of a log lie and what their names say.

``<log>/open/<stem>.arrows`` are the tails that processes append to, ``<log>/date=YYYY-MM-DD/<stem>.<first>.<last>.<rows>.parquet``
the sealed segments, with the first and last moment of their rows in microseconds since 1970. A stem belongs to one tail
and to the segment it becomes. ``<log>/merged/<stem>`` lists the stems that a merged segment replaces, as long as their
files may still be there. The names alone are enough to read a log of this machine: nothing has to be looked up or locked.

What shadow variants predict lies under a root of its own, ``shadows`` beside ``predictions``, so that nothing that reads
predictions can come upon it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import quote, unquote

import psutil

from loopwright.config import Project

__all__ = [
    "LogFolder",
    "Look",
    "Segment",
    "Shelf",
    "day_name",
    "deployment_of",
    "deployments",
    "labels",
    "log_name",
    "logs",
    "merged_stem",
    "new_stem",
    "now_us",
    "of_deployment",
    "owner_alive",
    "placed",
    "process_mark",
]

TAIL = ".arrows"
SEALED = ".parquet"
_PREFIX = "deployment="
_SHADOWS = "shadows"
_MERGED = "-m-"
_STAMP = "%Y%m%dT%H%M%S%f"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_US = int(datetime(1, 1, 2, tzinfo=UTC).timestamp()) * 1_000_000
_LAST_US = int(datetime(9999, 12, 30, tzinfo=UTC).timestamp()) * 1_000_000
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

    @property
    def merged(self) -> bool:
        """Whether the rows were in other segments before, which this one replaced."""
        return _MERGED in self.stem

    @property
    def sealed_us(self) -> int:
        """When the tail was begun that became the segment, of a merged one the newest; 0 where the name does not say."""
        try:
            begun = datetime.strptime(self.stem.partition("-")[0], _STAMP).replace(tzinfo=UTC)
        except ValueError:
            return 0
        return int(begun.timestamp() * 1_000_000)

    def overlaps(self, since_us: int | None, until_us: int | None) -> bool:
        """Whether the segment can hold rows in [since, until)."""
        return (since_us is None or self.last_us >= since_us) and (
            until_us is None or self.first_us < until_us
        )


def day_name(at_us: int) -> str:
    """Return the name of the folder of the segments whose first row is of a moment's UTC day."""
    # Moments that no calendar has, as of a broken clock, must not stop a log.
    at_us = min(max(at_us, _FIRST_US), _LAST_US)
    return f"date={_EPOCH + timedelta(microseconds=at_us):%Y-%m-%d}"


class Look(NamedTuple):
    """What a shelf holds at one moment.

    `segments` count and overlap the span that was asked for; `outside` is one that does not, for its columns, where there
    is none that does. `sealed` are those of the stems asked for whose tails have become segments, whatever became of them.
    """

    segments: list[Segment]
    outside: Segment | None
    sealed: set[str]


class Shelf(Protocol):
    """Where the sealed segments of one log are kept, and how readers learn of them without a lock."""

    def look(self, since_us: int | None, until_us: int | None, stems: Collection[str]) -> Look:
        """Return what is there now for [since, until), in microseconds since 1970, in the order of the names."""

    def knows(self, stem: str) -> bool:
        """Whether a tail has become a segment already, whatever became of it since."""

    def fetch(self, segments: Sequence[Segment]) -> None:
        """Make sure that the segments' files are on this machine. Raises `Unavailable` where they cannot be had."""

    def refetch(self, segment: Segment) -> None:
        """Fetch a segment's file anew, where it is a copy."""

    def publish(self, temporary: Path, segment: Segment, replaced: Sequence[Segment] = ()) -> Segment:
        """Take a finished file over as a segment, at once and whole, and from then on count it instead of others.

        Raises
        ------
        Conflict
            One of those it is to replace does not count any more; nothing was changed.
        """

    def settle(self, grace_s: float) -> int:
        """Delete the files of segments that were replaced so many seconds ago, and return how many."""

    def expire(self, segments: Sequence[Segment]) -> list[Segment]:
        """Delete segments, and return which; those that were merged only now stay until a later call."""

    def set_aside(self, segment: Segment, reason: str) -> bool:
        """Move a damaged file out of the log; False when it is gone already or cannot be moved."""

    def damaged(self) -> int:
        """Return how many files were set aside."""

    def size(self, segments: Sequence[Segment]) -> int:
        """Return how many bytes segments take."""

    def path_of(self, segment: Segment) -> str:
        """Return a segment's path below the log's folder."""


@dataclass(frozen=True, slots=True)
class LogFolder:
    """The folder of one log: of one deployment's predictions, or of all labels.

    `placed` is where its sealed segments are; None for the folder itself.
    """

    root: Path
    placed: Shelf | None = field(default=None, compare=False)

    @property
    def open(self) -> Path:
        """The folder of the open tails."""
        return self.root / "open"

    @property
    def shelf(self) -> Shelf:
        """Where its sealed segments are."""
        from loopwright.predictions.shelves import NamedShelf

        return self.placed or NamedShelf(self.root)

    def day(self, at_us: int) -> Path:
        """Return the folder of the segments of a moment's UTC day, where they lie in the log's own folder."""
        return self.root / day_name(at_us)

    def tails(self) -> list[Path]:
        """Return the open tails, oldest first."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(path for path in self.open.iterdir() if path.suffix == TAIL)
        return []

    def segments(self) -> list[Segment]:
        """Return the sealed segments that count, in the order of their names.

        Listed after the tails were read, no row can be missed: a tail that has vanished was sealed before.
        """
        return self.shelf.look(None, None, ()).segments

    def exists(self) -> bool:
        """Whether anything was ever written."""
        return self.root.is_dir()


def _root(project: Project, shadow: bool) -> Path:
    return project.state / _SHADOWS if shadow else project.predictions


def placed(project: Project, root: Path) -> LogFolder:
    """Return the log whose tails lie below `root`, with its segments where `[log] store` says."""
    if not project.config.log.store:
        return LogFolder(root)
    from loopwright.predictions.shelves import shelf_of

    return LogFolder(root, shelf_of(project, log_name(project, root)))


def log_name(project: Project, root: Path) -> str:
    """Return what a log is called in the catalogue and in a store: the path of its folder within the project's state."""
    return root.relative_to(project.state).as_posix()


def of_deployment(project: Project, deployment: str, shadow: bool = False) -> LogFolder:
    """Return the log of a deployment's predictions, or of its shadows'; any name makes a safe folder name."""
    return placed(project, _root(project, shadow) / f"{_PREFIX}{quote(deployment, safe=' ')}")


def deployment_of(name: str) -> str:
    """Return whose log has a folder of this name."""
    return unquote(name.removeprefix(_PREFIX))


def labels(project: Project, *, by_entity: bool = False) -> LogFolder:
    """Return the log of all labels that name a prediction, or of those that name an entity and a moment."""
    root = project.labels
    return placed(project, root.with_name(f"{root.name}-by-entity") if by_entity else root)


def deployments(project: Project, shadow: bool = False) -> list[str]:
    """Return the deployments that ever logged a prediction, or a shadow's, sorted."""
    names: set[str] = set()
    with contextlib.suppress(FileNotFoundError):
        names = {path.name for path in _root(project, shadow).iterdir()}
    if project.config.log.store:
        from loopwright.predictions.shelves import known_logs

        names |= known_logs(project, log_name(project, _root(project, shadow)))
    return sorted(deployment_of(name) for name in names if name.startswith(_PREFIX))


def logs(project: Project) -> list[LogFolder]:
    """Return all logs that there are: of predictions, of shadows' predictions, and of labels."""
    found = [
        of_deployment(project, name, shadow)
        for shadow in (False, True)
        for name in deployments(project, shadow)
    ]
    return [*found, labels(project), labels(project, by_entity=True)]


@cache
def _started_ms(pid: int) -> int:
    return int(psutil.Process(pid).create_time() * 1000)


def process_mark() -> str:
    """Return the part of a stem that names this process: its pid and its start time."""
    return f"p{os.getpid()}-c{_started_ms(os.getpid())}"


def new_stem(schema: str = "") -> str:
    """Return a stem for a new tail of this process; stems sort by time and end with what `schema` hashes to."""
    digest = hashlib.blake2s(schema.encode(), digest_size=4).hexdigest()
    return f"{datetime.now(UTC):{_STAMP}}-{process_mark()}-{secrets.token_hex(3)}-{digest}"


def merged_stem(segments: Sequence[Segment]) -> str:
    """Return a stem for what segments of the same columns are merged into; it sorts where the newest of them does."""
    newest = max(segment.stem for segment in segments)
    return f"{newest.partition('-')[0]}{_MERGED}{secrets.token_hex(5)}-{newest.rpartition('-')[2]}"


def owner_alive(tail: Path) -> bool:
    """Whether the process that a tail's name gives still runs, and is no later one with the same pid."""
    try:
        pid, started = (int(part[1:]) for part in tail.stem.split("-")[1:3])
        process = psutil.Process(pid)
        same = abs(process.create_time() * 1000 - started) < _START_TOLERANCE_MS
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError):
        return False
