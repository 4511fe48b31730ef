"""What keeps a log in order: orphans sealed, small segments merged, old ones deleted, the catalogue brought up to date."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import pyarrow as pa
import sqlalchemy as sa

from loopwright.config import Project
from loopwright.errors import LoopwrightError
from loopwright.ledger import Ledger
from loopwright.ledger.schema import positions
from loopwright.predictions import files
from loopwright.predictions.catalogue import Catalogue, Entry
from loopwright.predictions.compaction import FEW, FULL_ROWS, Counted, compact, locked
from loopwright.predictions.files import LogFolder, Segment
from loopwright.predictions.quarantine import set_aside
from loopwright.predictions.retention import expire, go_on_forgetting
from loopwright.predictions.seal import removed_leftovers, seal_orphans
from loopwright.predictions.shelves import CataloguedShelf, NamedShelf
from loopwright.records import now

__all__ = ["GRACE_S", "Upkeep", "adopt", "agree", "counted_of", "maintain", "repair"]

#: A file that was replaced stays so long for queries that have listed it.
GRACE_S = 600.0
#: So long the catalogue remembers what became of segments.
MEMORY = timedelta(days=30)

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Upkeep:
    """What was done.

    Tails `sealed`; segments `merged` and how many were `made` of them; files `deleted` that had been replaced; segments
    `expired` with age, `quarantined` as damaged, or `moved` into a store that was set since; entries of the catalogue that changed; and what is wrong, in words.
    """

    sealed: int = 0
    merged: int = 0
    made: int = 0
    deleted: int = 0
    expired: int = 0
    quarantined: int = 0
    moved: int = 0
    catalogued: int = 0
    problems: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def trying(self, what: str) -> Iterator[None]:
        """Take note of what fails, and go on."""
        try:
            yield
        except (LoopwrightError, OSError, sa.exc.SQLAlchemyError, pa.ArrowException) as error:
            words = error.fact if isinstance(error, LoopwrightError) else str(error)
            self.problems.append(f"{what}: {words}")
            logger.warning("%s: %s", what, words)


def maintain(
    project: Project,
    ledger: Ledger,
    *,
    few: int = FEW,
    most_rows: int = FULL_ROWS,
    grace_s: float = GRACE_S,
) -> Upkeep:
    """Do what is due for all logs of a project; once a minute is often enough, and no two processes do the same.

    Parameters
    ----------
    project, ledger
        Whose.
    few
        From how many on small segments of one size are merged.
    most_rows
        About so many rows are merged at most in each log, which bounds how long a call takes.
    grace_s
        How long, in seconds, a file that was replaced stays.

    Returns
    -------
    Upkeep
        What fails for one log is in its `problems` and keeps no other from its turn.
    """
    done = Upkeep()
    with done.trying("sealing"):
        done.sealed = seal_orphans(project)
    with done.trying("retention"):
        done.expired = expire(project, ledger, now())
    for folder in files.logs(project):
        name = files.log_name(project, folder.root)
        with done.trying(name):
            done.moved += adopt(ledger, folder, name)
        if not folder.root.is_dir() and folder.placed is None:
            continue
        with done.trying(name):
            merged = compact(folder, few=few, most_rows=most_rows, counted=counted_of(ledger, name))
            done.made += len(merged)
            done.merged += sum(len(sources) for _, sources in merged)
        with done.trying(name), locked(folder) as mine:
            if mine:
                done.deleted += folder.shelf.settle(grace_s)
                done.catalogued += agree(ledger, folder, name)
    with done.trying("requests to forget"):
        go_on_forgetting(project, ledger)
    with done.trying("the catalogue"):
        Catalogue(ledger).forget_old(MEMORY)
    return done


def repair(project: Project, ledger: Ledger) -> Upkeep:
    """Look at every segment whole, set damaged ones aside, and make the catalogue agree with what is there.

    Reads all of the log, from a store elsewhere too. Returns what was done, as `maintain` does.
    """
    done = Upkeep()
    with done.trying("sealing"):
        done.sealed = seal_orphans(project)
    for folder in files.logs(project):
        name = files.log_name(project, folder.root)
        with done.trying(name), locked(folder) as mine:
            if not mine:
                done.problems.append(f"{name}: another process is at it; try again in a minute")
                continue
            removed_leftovers(folder)
            done.moved += _adopt(ledger, folder, name)
            if isinstance(folder.shelf, CataloguedShelf):
                found, lost = folder.shelf.reconcile()
                done.catalogued += found
                done.problems += [f"{name}: {path} is not in the store any more" for path in lost]
            for segment in folder.segments():
                with done.trying(segment.name):
                    folder.shelf.fetch([segment])
                    if reason := set_aside(folder.shelf, segment):
                        done.quarantined += 1
                        done.problems.append(f"{name}: {segment.name} was damaged: {reason}")
            done.catalogued += agree(ledger, folder, name)
    return done


class _Positions:
    """What `positions` says of a deployment's log, see `Counted`."""

    def __init__(self, ledger: Ledger, deployment: str) -> None:
        self._ledger = ledger
        self._deployment = deployment
        self._rows: dict[str, int] = {}

    def among(self, segments: Sequence[Segment]) -> list[Segment]:
        """Return the segments that are counted; all where nobody counts. Asked anew while the log's lock is held."""
        query = sa.select(positions.c.stem, positions.c.rows).where(
            positions.c.deployment == self._deployment
        )
        with self._ledger.reading() as connection:
            self._rows = {row.stem: row.rows for row in connection.execute(query)}
        if not self._rows:
            return list(segments)
        return [one for one in segments if self._rows.get(one.stem, -1) >= one.rows]

    def carry(self, made: Segment) -> None:
        """Note that the rows of a merged segment are counted, where anybody counts."""
        if self._rows:
            key = {"deployment": self._deployment, "stem": made.stem}
            with self._ledger.writing() as connection:
                connection.execute(sa.insert(positions).values(**key, rows=made.rows, changed=now()))
            self._rows[made.stem] = made.rows


def counted_of(ledger: Ledger, log: str) -> Counted | None:
    """Return what the live numbers have counted of a log; None where it is none that they count."""
    root, _, folder = log.partition("/")
    if root != "predictions" or not folder:
        return None
    return _Positions(ledger, files.deployment_of(folder))


def adopt(ledger: Ledger, folder: LogFolder, log: str) -> int:
    """Move segments that were sealed before `[log] store` was set into the store, and return how many."""
    if folder.placed is None or not NamedShelf(folder.root).look(None, None, ()).segments:
        return 0
    with locked(folder) as mine:
        return _adopt(ledger, folder, log) if mine else 0


def _adopt(ledger: Ledger, folder: LogFolder, log: str) -> int:
    if folder.placed is None:
        return 0
    here = NamedShelf(folder.root)
    # First what merged ones have replaced: without them it would count again.
    here.settle(0)
    found = here.look(None, None, ()).segments
    for segment in found:
        if not folder.placed.knows(segment.stem):
            temporary = folder.root / f".{files.new_stem()}.tmp"
            shutil.copyfile(segment.path, temporary)
            folder.placed.publish(temporary, segment)
        segment.path.unlink(missing_ok=True)
    if isinstance(folder.placed, CataloguedShelf):
        paths = [f"{log}/{here.path_of(segment)}" for segment in found]
        Catalogue(ledger).mark(paths, "expired", "moved into the store")
    return len(found)


def agree(ledger: Ledger, folder: LogFolder, log: str) -> int:
    """Make the catalogue agree with the names of a log's files, and return how many entries that changed.

    Does nothing for a store that is listed by the catalogue itself.
    """
    shelf = folder.shelf
    if not isinstance(shelf, NamedShelf):
        return 0
    catalogue = Catalogue(ledger)
    here = {f"{log}/{shelf.path_of(segment)}": segment for segment in shelf.look(None, None, ()).segments}
    known = {entry.path: entry for entry in catalogue.entries(log)}
    new = [path for path in here if path not in known]
    gone = [path for path in known if path not in here]
    if not new and not gone:
        return 0
    aside = shelf.aside()
    damaged = [path for path in gone if path.rpartition("/")[2] in aside]
    for path in damaged:
        catalogue.mark([path], "quarantined", aside[path.rpartition("/")[2]])
        catalogue.report(known[path], aside[path.rpartition("/")[2]])
    replaced = shelf.replaced()
    catalogue.mark([path for path in gone if known[path].stem in replaced], "replaced", "merged")
    others = [path for path in gone if path not in damaged and known[path].stem not in replaced]
    catalogue.mark(others, "expired")
    catalogue.add([Entry.of(log, path, here[path], shelf.size([here[path]])) for path in new], again=True)
    return len(new) + len(gone)
