"""Where the sealed segments of a log are kept: in a folder, by their names, or in a bucket, by the ledger's catalogue.

Merging and rewriting replace segments while readers in other processes, without a lock, must see each row once. In a
folder a merged segment has a list of what it replaces, which is there before the segment is: who lists a folder and finds
the segment leaves out what its list names, and who does not find it finds those. Files that were replaced stay for a
while, for queries that have listed them, and the list stays as long again. In a bucket one transaction of the ledger
stops counting the one and starts counting the other.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path

from loopwright.config import Project
from loopwright.errors import Conflict, LoopwrightError
from loopwright.predictions.catalogue import Catalogue, Entry, shared_ledger
from loopwright.predictions.files import SEALED, TAIL, Look, Segment, Shelf, day_name
from loopwright.predictions.places import Bucket, is_bucket, sync_folder
from loopwright.records import now

__all__ = ["QUARANTINE", "CataloguedShelf", "NamedShelf", "known_logs", "shelf_of"]

QUARANTINE = "quarantine"
#: A span of time that no row is in.
NOTHING = (1 << 62, -(1 << 62))
_LISTS = "merged"
#: A list stays at least so many seconds, for who has listed the files and is yet to read it.
_LIST_S = 60.0


class NamedShelf:
    """Segments in a folder, whose names say all that is to be known of them."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def look(self, since_us: int | None, until_us: int | None, stems: Collection[str]) -> Look:
        """Return what counts now, see `Shelf`."""
        found, replaced = self._listed()
        live = [segment for segment in found if segment.stem not in replaced]
        within = [segment for segment in live if segment.overlaps(since_us, until_us)]
        sealed = {segment.stem for segment in found} | replaced
        return Look(within, live[-1] if live and not within else None, sealed.intersection(stems))

    def knows(self, stem: str) -> bool:
        """Whether a tail was sealed, see `Shelf`."""
        for day in _names(self._root):
            if day.startswith("date=") and any(
                name.startswith(f"{stem}.") for name in _names(self._root / day)
            ):
                # Who sealed it may have died before its name was durable, and its tail is deleted next.
                sync_folder(self._root / day)
                return True
        return stem in self.replaced()

    def _listed(self) -> tuple[list[Segment], set[str]]:
        """Return all segments whose files are there, and the stems of those that merged ones among them replace.

        The lists are read after the files were: a merged segment that was found had its list before.
        """
        found = sorted(self._files(), key=lambda segment: segment.name)
        merged = {segment.stem for segment in found if segment.merged}
        replaced: set[str] = set()
        if merged:
            for stem in merged.intersection(self._lists()):
                replaced |= self._list(stem)
        return found, replaced

    def _files(self) -> Iterator[Segment]:
        for day in _names(self._root):
            if day.startswith("date="):
                for name in _names(self._root / day):
                    if name.endswith(SEALED) and not name.startswith("."):
                        segment = Segment.read(self._root / day / name)
                        if segment:
                            yield segment

    def _lists(self) -> list[str]:
        return [name for name in _names(self._root / _LISTS) if not name.startswith(".")]

    def _list(self, stem: str) -> set[str]:
        return set(_read(self._root / _LISTS / stem).split())

    def fetch(self, segments: Sequence[Segment]) -> None:
        """Do nothing: the files are here."""

    def refetch(self, segment: Segment) -> None:
        """Do nothing: the file is no copy."""

    def publish(self, temporary: Path, segment: Segment, replaced: Sequence[Segment] = ()) -> Segment:
        """Take a finished file over, see `Shelf`. With `replaced`, only who holds the log's lock may call this."""
        if replaced:
            found, before = self._listed()
            here = {one.stem for one in found} - before
            if gone := [one.stem for one in replaced if one.stem not in here]:
                raise Conflict(
                    f"{len(gone)} segments, such as {gone[0]}, were replaced by somebody else meanwhile."
                )
            stems = {one.stem for one in replaced}
            for stem in tuple(stems):
                stems |= self._list(stem)
            _write(self._root / _LISTS / segment.stem, "\n".join(sorted(stems)))
        day = self._root / day_name(segment.first_us)
        if not day.is_dir():
            day.mkdir(parents=True, exist_ok=True)
            sync_folder(self._root)
        path = _moved(temporary, day / segment.name)
        sync_folder(day)
        return Segment(path, segment.stem, segment.first_us, segment.last_us, segment.rows)

    def settle(self, grace_s: float) -> int:
        """Delete files that were replaced, see `Shelf`. Only who holds the log's lock may call this."""
        names = self._lists()
        if not names:
            return 0
        files = {segment.stem: segment for segment in self._files()}
        deleted = 0
        for stem in names:
            path = self._root / _LISTS / stem
            age = time.time() - path.stat().st_mtime
            left = [files[one] for one in self._list(stem) if one in files]
            if stem not in files:
                # The process died before the segment was there, or it was damaged: what it was to replace counts.
                path.unlink(missing_ok=True)
            elif left and age >= grace_s:
                for segment in left:
                    segment.path.unlink(missing_ok=True)
                deleted += len(left)
            elif not left and age >= max(2 * grace_s, _LIST_S):
                path.unlink(missing_ok=True)
        return deleted

    def expire(self, segments: Sequence[Segment]) -> list[Segment]:
        """Delete segments, see `Shelf`."""
        unsettled = set(self._lists())
        done = [segment for segment in segments if segment.stem not in unsettled]
        for segment in done:
            segment.path.unlink(missing_ok=True)
            # A day without files is no folder that every query should look into.
            with contextlib.suppress(OSError):
                segment.path.parent.rmdir()
        return done

    def set_aside(self, segment: Segment, reason: str) -> bool:
        """Move a damaged file away, see `Shelf`."""
        target = self._root / QUARANTINE / segment.name
        try:
            target.parent.mkdir(exist_ok=True)
            segment.path.rename(target)
        except OSError:
            return False
        _write(target.with_suffix(".txt"), reason)
        return True

    def damaged(self) -> int:
        """Return how many files were set aside."""
        return sum(name.endswith((SEALED, TAIL)) for name in _names(self._root / QUARANTINE))

    def aside(self) -> dict[str, str]:
        """Return the names of the files that were set aside, and why."""
        found = [name for name in _names(self._root / QUARANTINE) if name.endswith(SEALED)]
        return {name: _read(self._root / QUARANTINE / name.replace(SEALED, ".txt")) for name in found}

    def replaced(self) -> set[str]:
        """Return the stems that merged segments replace whose lists are still there."""
        return {one for stem in self._lists() for one in self._list(stem)}

    def size(self, segments: Sequence[Segment]) -> int:
        """Return how many bytes segments take; those that are gone take none."""
        total = 0
        for segment in segments:
            with contextlib.suppress(FileNotFoundError):
                total += segment.path.stat().st_size
        return total

    def path_of(self, segment: Segment) -> str:
        """Return a segment's path below the log's folder."""
        return segment.path.relative_to(self._root).as_posix()


class CataloguedShelf:
    """Segments in a bucket, listed by the catalogue.

    `log` is the prefix of the objects' keys within the bucket's; the catalogue has the whole address before it, so that
    segments in the project's own state, or in a bucket of before, are none of these.
    """

    def __init__(self, project: Project, log: str, bucket: Bucket) -> None:
        self._project = project
        self._log = log
        self._bucket = bucket
        self._listed_as = f"{bucket.address}/{log}"

    @property
    def _catalogue(self) -> Catalogue:
        return Catalogue(shared_ledger(self._project))

    def path_of(self, segment: Segment) -> str:
        """Return a segment's path below the log's folder."""
        return f"{day_name(segment.first_us)}/{segment.name}"

    def _key(self, segment: Segment) -> str:
        return f"{self._log}/{self.path_of(segment)}"

    def _path(self, segment: Segment) -> str:
        return self._path_of(self._key(segment))

    def _path_of(self, key: str) -> str:
        """Return what the catalogue calls an object."""
        return f"{self._bucket.address}/{key}"

    def _key_of(self, path: str) -> str:
        return path.removeprefix(f"{self._bucket.address}/")

    def _segment(self, entry: Entry) -> Segment:
        return Segment(
            self._bucket.cached(self._key_of(entry.path)),
            entry.stem,
            entry.first_us,
            entry.last_us,
            entry.rows,
        )

    def look(self, since_us: int | None, until_us: int | None, stems: Collection[str]) -> Look:
        """Return what counts now, see `Shelf`; one query, so that no segment comes between two answers."""
        entries = self._catalogue.look(self._listed_as, since_us, until_us, stems)
        known = {entry.stem for entry in entries}.intersection(stems)
        live = [self._segment(entry) for entry in entries if entry.state == "live"]
        live = sorted(
            (one for one in live if one.overlaps(since_us, until_us)), key=lambda segment: segment.name
        )
        outside = None
        if not live and (newest := self._catalogue.newest(self._listed_as)):
            outside = self._segment(newest)
        return Look(live, outside, known)

    def knows(self, stem: str) -> bool:
        """Whether a tail was sealed, by whichever machine, see `Shelf`."""
        return bool(self._catalogue.look(self._listed_as, *NOTHING, (stem,)))

    def fetch(self, segments: Sequence[Segment]) -> None:
        """Make copies of what is not here yet, see `Shelf`."""
        self._bucket.fetch([self._key(segment) for segment in segments])

    def refetch(self, segment: Segment) -> None:
        """Make a new copy, see `Shelf`."""
        self._bucket.cached(self._key(segment)).unlink(missing_ok=True)
        self.fetch([segment])

    def publish(self, temporary: Path, segment: Segment, replaced: Sequence[Segment] = ()) -> Segment:
        """Upload a finished file and catalogue it, see `Shelf`."""
        key = self._key(segment)
        size = temporary.stat().st_size
        path = self._bucket.put(temporary, key)
        try:
            self._catalogue.add(
                [Entry.of(self._listed_as, self._path_of(key), segment, size)],
                replacing=[self._path(one) for one in replaced],
                note=f"merged into {segment.stem}",
            )
        except Conflict:
            self._bucket.remove(key)
            raise
        return Segment(path, segment.stem, segment.first_us, segment.last_us, segment.rows)

    def settle(self, grace_s: float) -> int:
        """Delete objects that were replaced, and copies of what counts no more, see `Shelf`."""
        gone = self._catalogue.entries(self._listed_as, "replaced", before=now() - timedelta(seconds=grace_s))
        for entry in gone:
            self._bucket.remove(self._key_of(entry.path))
        self._catalogue.close([entry.path for entry in gone])
        live: set[str] | None = None
        for key, facts in self._bucket.copies(self._log):
            if time.time() - facts.st_mtime >= grace_s:
                live = live or {self._key_of(one.path) for one in self._catalogue.entries(self._listed_as)}
                if key not in live:
                    self._bucket.cached(key).unlink(missing_ok=True)
        return len(gone)

    def expire(self, segments: Sequence[Segment]) -> list[Segment]:
        """Stop to count segments; `settle` deletes the objects."""
        self._catalogue.mark([self._path(segment) for segment in segments], "replaced", "expired")
        return list(segments)

    def set_aside(self, segment: Segment, reason: str) -> bool:
        """Move a damaged object away, see `Shelf`; a copy that was damaged here is only fetched again."""
        key = self._key(segment)
        try:
            self._bucket.move(key, f"{self._log}/{QUARANTINE}/{segment.name}")
            self._catalogue.mark([self._path_of(key)], "quarantined", reason)
        except (LoopwrightError, OSError):
            return False
        self._catalogue.report(Entry.of(self._listed_as, self._path_of(key), segment, 0), reason)
        return True

    def reconcile(self) -> tuple[int, list[str]]:
        """Make the catalogue agree with the bucket; return how many entries that changed, and what is lost.

        Objects that the catalogue does not know come from a process that died on the way, or from before the ledger was
        lost. Only then is a merged one taken in: otherwise its rows are in others that count.
        """
        objects = {key: size for key, size in self._bucket.listed(self._log) if f"{self._log}/date=" in key}
        known = {self._key_of(path): state for path, state in self._catalogue.all(self._listed_as).items()}
        new: list[Entry] = []
        for key in objects.keys() - known.keys():
            segment = Segment.read(Path(key))
            if segment is None:
                continue
            if segment.merged and known:
                self._bucket.remove(key)
            else:
                new.append(Entry.of(self._listed_as, self._path_of(key), segment, objects[key]))
        self._catalogue.add(new)
        for key in objects.keys() & known.keys():
            if known[key] == "expired":
                self._bucket.remove(key)
        lost = sorted(key for key, state in known.items() if state == "live" and key not in objects)
        self._catalogue.mark(
            [self._path_of(key) for key in lost], "expired", "it was not in the store any more"
        )
        return len(new) + len(lost), lost

    def damaged(self) -> int:
        """Return how many objects were set aside."""
        return self._catalogue.count(self._listed_as, "quarantined")

    def size(self, segments: Sequence[Segment]) -> int:
        """Return how many bytes all segments of the log take."""
        return self._catalogue.bytes(self._listed_as) if segments else 0


@cache
def _bucket(_pid: int, address: str, folder: Path, limit: int) -> Bucket:
    return Bucket(address, folder, limit)


def bucket_of(project: Project) -> Bucket | None:
    """Return the bucket of `[log] store`; None where it is a folder or none."""
    store = project.config.log.store
    if not is_bucket(store):
        return None
    # Connections are not carried over a fork.
    return _bucket(os.getpid(), store, project.state / "cache" / "log", project.config.log.cache)


def shelf_of(project: Project, log: str) -> Shelf:
    """Return where `[log] store` keeps the segments of a log, which has a name as in the catalogue."""
    bucket = bucket_of(project)
    if bucket:
        return CataloguedShelf(project, log, bucket)
    return NamedShelf((project.root / project.config.log.store).resolve() / log)


def known_logs(project: Project, below: str) -> set[str]:
    """Return the names of the logs that the store has right below a folder."""
    bucket = bucket_of(project)
    if bucket:
        return Catalogue(shared_ledger(project)).logs(f"{bucket.address}/{below}")
    return set(_names(project.root / project.config.log.store / below))


def _names(folder: Path) -> list[str]:
    """Return the names in a folder; none where it is not there, or not any more."""
    try:
        return [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read(path: Path) -> str:
    """Return a small file's text; nothing where it is not there, or not any more."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _write(path: Path, text: str) -> None:
    """Write a small file that is there whole or not at all, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def _moved(source: Path, target: Path) -> Path:
    """Move a file so that it appears under its name at once and whole, also into another file system."""
    try:
        return source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    near = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        shutil.copyfile(source, near)
        with near.open("rb") as file:
            os.fsync(file.fileno())
        near.rename(target)
    finally:
        near.unlink(missing_ok=True)
    source.unlink()
    return target
