"""Following the prediction log: every row is counted once into the blocks of its version's minute, hour and day.

What is counted and of which rows is written in one transaction, by the number of rows of each file. A tail that becomes
a segment keeps its stem and the order of its rows, so the count goes on where it was. A process that is killed at any
moment, or two that count at once, neither lose nor double a row.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Iterator
from datetime import datetime

import pyarrow as pa

from loopwright.config import Project
from loopwright.errors import Conflict, Damaged, InvalidInput, Unavailable
from loopwright.ledger import Ledger
from loopwright.monitor.blocks import Block, Plan
from loopwright.monitor.live.counter import Counted
from loopwright.monitor.live.kept import Kept, Key, Known, Stored
from loopwright.monitor.live.plans import Plans, model_of
from loopwright.monitor.live.rebuilding import begin
from loopwright.monitor.live.source import Chunk, Source
from loopwright.monitor.live.spans import horizon_us
from loopwright.predictions import files
from loopwright.predictions.files import Segment
from loopwright.predictions.privacy import left_out
from loopwright.predictions.schema import INPUT

__all__ = ["Follower"]

log = logging.getLogger(__name__)
#: Rows, and seconds, of one turn; and seconds between two looks for new deployments.
TURN_ROWS, TURN_S = 100_000, 0.25
DEPLOYMENTS_S = 2.0
#: Blocks kept at hand: those of the present minute, hour and day of some versions.
AT_HAND = 64
#: A log whose counts were wrong is counted anew at most once in so many seconds; one that fails is tried again after some.
ANEW_S, AGAIN_S = 600.0, 10.0
#: Seconds between two looks for positions of files that are long gone.
FORGET_S = 6 * 3600.0


class Follower:
    """Follows the logs of all deployments of a project; for one thread. Tables of the ledger are all it changes."""

    def __init__(self, project: Project, ledger: Ledger) -> None:
        self._project = project
        self._ledger = ledger
        self._kept = Kept(ledger)
        self._logs: dict[str, _Followed] = {}
        self._first = 0
        self._looked = float("-inf")
        #: Whether rows are left that the last turn had no time for.
        self.behind = True

    def configure(self, project: Project) -> None:
        """Take over the configuration as it is now, where it is another one."""
        if project is not self._project:
            self._project = project
            for followed in self._logs.values():
                followed.configure(project)

    def turn(self, now: datetime, *, rows: int = TURN_ROWS, seconds: float = TURN_S) -> int:
        """Count what is new and return how many rows that were.

        Deployments take turns, and each has an equal share of what is left of the turn, so that one with a long past
        does not keep the others from their present. What cannot be read or counted is logged and tried again.

        Parameters
        ----------
        now
            The present moment; rows older than two days are not counted by the minute any more.
        rows, seconds
            About how much is done at most.
        """
        self._look()
        minutes_from_us = horizon_us(now)
        until = time.perf_counter() + seconds
        done, behind = 0, False
        names = list(self._logs)
        self._first = (self._first + 1) % max(1, len(names))
        for place, name in enumerate(names[self._first :] + names[: self._first]):
            share, left = len(names) - place, until - time.perf_counter()
            if place and (left <= 0 or done >= rows):
                behind = True
                break
            limit = _Limit((rows - done) // share, left / share)
            counted, more = self._follow(self._logs[name], limit, minutes_from_us)
            done += counted
            behind |= more
        self.behind = behind
        return done

    def _look(self) -> None:
        """Find new deployments, and those whose counts somebody else has changed."""
        if time.monotonic() - self._looked < DEPLOYMENTS_S:
            return
        self._looked = time.monotonic()
        changes = self._kept.changes()
        for name in files.deployments(self._project):
            followed = self._logs.get(name)
            if followed is None:
                self._logs[name] = _Followed(self._project, self._ledger, name)
            elif followed.changes is not None and followed.changes != changes.get(name):
                followed.forget()

    def _follow(self, followed: _Followed, limit: _Limit, minutes_from_us: int) -> tuple[int, bool]:
        if time.monotonic() < followed.not_before:
            return 0, False
        try:
            return followed.turn(limit, minutes_from_us)
        except Conflict as error:
            log.info("%s", error.fact)
            followed.forget()
        except Exception:
            log.exception("predictions of %s could not be counted; trying again", followed.name)
            followed.forget()
            followed.not_before = time.monotonic() + AGAIN_S
        return 0, True


class _Limit:
    """How much may still be done."""

    def __init__(self, rows: int, seconds: float) -> None:
        self._rows, self._until = max(1, rows), time.perf_counter() + max(0.0, seconds)

    def take(self, rows: int) -> None:
        self._rows -= rows

    @property
    def reached(self) -> bool:
        return self._rows <= 0 or time.perf_counter() >= self._until


class _Followed:
    """One deployment's log, and how far it is counted."""

    def __init__(self, project: Project, ledger: Ledger, name: str) -> None:
        self.name = name
        #: When it is looked at again after it has failed.
        self.not_before = float("-inf")
        self._project = project
        self._ledger = ledger
        self._kept = Kept(ledger)
        self._anew_at = self._forgot_at = self._store_at = float("-inf")
        self.forget()

    def configure(self, project: Project) -> None:
        """Take over another configuration: what is logged as it came, and where segments lie, may have changed."""
        self._project = project
        self.forget()

    def forget(self) -> None:
        """Forget what is in memory, after something went otherwise than it was to: the ledger knows how far it was."""
        config = self._project.config.deployment.get(self.name)
        self._hidden = frozenset(INPUT + one for one in left_out(config)) if config else frozenset()
        self._model = model_of(self._project, self._ledger, self.name)
        self._plans = Plans(self._project, self._ledger)
        self._folder = files.of_deployment(self._project, self.name)
        self._source = Source(self._folder)
        self._known: Known | None = None
        self._todo: list[Segment] = []
        self._unreadable: set[str] = set()
        self._at_hand: OrderedDict[Key, Block] = OrderedDict()

    @property
    def changes(self) -> int | None:
        """How often the counts were changed, as far as is known here."""
        return self._known.changes if self._known else None

    def turn(self, limit: _Limit, minutes_from_us: int) -> tuple[int, bool]:
        """Count what is new; return how many rows, and whether some are left."""
        if self._source.look() or self._known is None:
            known = self._known = self._known or self._begin()
            # What was merged is noted as counted before it can be seen.
            new = [one.stem for one in self._source.segments if one.stem not in known.rows]
            known.rows.update(self._kept.positions(self.name, new))
            self._todo = self._unfinished(known)
            self._forget_files(known)
        known = self._known
        counted = Counted(self._plan, self._hidden, minutes_from_us)
        more = False
        for chunk in self._chunks(known):
            counted.add(chunk.batch, self._model)
            counted.rows[chunk.stem] = chunk.last
            limit.take(chunk.batch.num_rows)
            if limit.reached:
                more = True
                break
        if counted.rows:
            self._write(known, counted)
        return counted.total, more or bool(self._todo)

    def _plan(self, version: int) -> Plan:
        return self._plans.of(self._model, version).plan

    def _begin(self) -> Known:
        """Return how far the log is counted. One that never was, or in other bins, is counted from its beginning."""
        known = self._kept.known(self.name)
        if known.changes is not None and self._same_bins():
            return known
        return self._anew(known)

    def _same_bins(self) -> bool:
        for stored in self._kept.samples(self.name):
            try:
                self._plan(stored.key.version).loads(stored.data)
            except (Damaged, InvalidInput) as error:
                log.warning("the live numbers of %s are counted anew: %s", self.name, error.fact)
                return False
        return True

    def _anew(self, known: Known) -> Known:
        """Forget what was counted, and note what is there to be counted."""
        if time.monotonic() - self._anew_at < ANEW_S:
            raise Damaged(
                f"The live numbers of {self.name!r} were counted anew a moment ago and are wrong again.",
                hint=f"loopwright monitor rebuild {self.name}",
            )
        begun = begin(self._kept, self._folder, self.name, known)
        self._anew_at = time.monotonic()
        return begun

    def _unfinished(self, known: Known) -> list[Segment]:
        """Return the segments that are not counted to their end, newest last."""
        found = []
        for segment in self._source.segments:
            counted = known.rows.get(segment.stem, 0)
            if counted > segment.rows:
                raise self._lost(
                    known, f"{segment.path} has {segment.rows} rows, and {counted} were counted of it."
                )
            if counted < segment.rows and segment.stem not in self._unreadable:
                found.append(segment)
        return sorted(found, key=lambda segment: segment.last_us)

    def _lost(self, known: Known, fact: str) -> Conflict:
        self._anew(known)
        return Conflict(fact)

    def _forget_files(self, known: Known) -> None:
        if time.monotonic() - self._forgot_at < FORGET_S:
            return
        self._forgot_at = time.monotonic()
        there = {segment.stem for segment in self._source.segments} | {
            path.stem for path in self._source.tails
        }
        for stem in self._kept.forget_files(self.name, sorted(known.rows.keys() - there)):
            del known.rows[stem]

    def _chunks(self, known: Known) -> Iterator[Chunk]:
        """Yield what is new: of the tails first, which are the present, then of the segments, newest first."""
        sealed = {segment.stem for segment in self._source.segments}
        for path in self._source.grown():
            if path.stem in sealed:
                continue
            if self._source.was_cut(path):
                raise self._lost(known, f"{path} lost rows that were counted.")
            yield from self._source.read_tail(path, known.rows.get(path.stem, 0))
        while self._todo and time.monotonic() >= self._store_at:
            segment = self._todo[-1]
            try:
                yield from self._source.read_segment(segment, known.rows.get(segment.stem, 0))
            except Unavailable as error:
                log.warning("%s", error.fact)
                self._store_at = time.monotonic() + AGAIN_S
                return
            except FileNotFoundError:
                pass  # deleted or set aside meanwhile, and its rows with it
            except (OSError, pa.ArrowException) as error:
                log.warning("%s cannot be read and is not counted: %s", segment.path, error)
                self._unreadable.add(segment.stem)
            self._todo.pop()

    def _write(self, known: Known, counted: Counted) -> None:
        """Add what was counted to what is in the ledger, with the positions."""
        missing = [key for key in counted.blocks if key not in self._at_hand]
        before = {stored.key: stored for stored in self._kept.read(self.name, missing)}
        whole: dict[Key, Block] = {}
        for key, block in counted.blocks.items():
            if key in self._at_hand:
                block.add(self._at_hand[key])
            elif key in before:
                block.add(block.plan.loads(before[key].data))
            whole[key] = block
        changed = [Stored(key, block.rows, block.dumps()) for key, block in whole.items()]
        self._kept.commit(self.name, known, changed, counted.rows)
        for key, block in whole.items():
            self._at_hand[key] = block
            self._at_hand.move_to_end(key)
        while len(self._at_hand) > AT_HAND:
            self._at_hand.popitem(last=False)
