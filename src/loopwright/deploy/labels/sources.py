"""`[labels.<name>]`: reading what is due, once each, and saying what came of it.

Only what is new or corrected is appended; what was taken before is known from the label log, so that a process may be
killed at any moment: what it had appended is skipped the next time, and what it had not is taken.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from loopwright.config import FILE, PROJECT_VARIABLE, LabelSourceConfig, Project
from loopwright.deploy.labels.rows import Rows
from loopwright.deploy.labels.stream import is_topic, take_topic
from loopwright.errors import Conflict, LoopwrightError, NotFound
from loopwright.ledger import Ledger
from loopwright.predictions import Ids, LabelLog
from loopwright.predictions.label_sources import only_new
from loopwright.predictions.tail import lock
from loopwright.records import Label, now

__all__ = ["KIND", "LabelSources", "SourceState", "states", "sync", "tick"]

log = logging.getLogger(__name__)
#: The kind of the states in the ledger.
KIND = "label_source"
#: Seconds between two looks whether a source is due, and the longest wait for one that is down.
_LOOK_S = 1.0
_LONGEST_WAIT = timedelta(hours=1)
#: Labels that are appended at a time.
_CHUNK = 10_000
#: Seconds after which reading a table is given up.
_TIMEOUT_S = 3600.0


@dataclass(frozen=True, slots=True)
class SourceState:
    """What came of the last time a label source was read.

    Attributes
    ----------
    state
        ``down`` when it could not be read, for the `reason`; `failures` times in a row.
    read
        Rows that were read.
    taken
        Labels that were new, or said something else than before.
    refused
        How many rows were no labels, for each reason; and the first of them, each with its number from 1 on.
    next
        When it is read again.
    """

    name: str
    state: Literal["ok", "down"]
    at: datetime
    next: datetime
    read: int = 0
    taken: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    examples: tuple[tuple[int, str], ...] = ()
    reason: str = ""
    failures: int = 0


def states(project: Project, ledger: Ledger) -> dict[str, SourceState | None]:
    """Return what came of each declared source; None of one that was never read."""
    found = {name: ledger.get(KIND, name) for name in project.config.labels}
    return {name: state.read(SourceState) if state else None for name, state in found.items()}


def sync(
    project: Project, ledger: Ledger, name: str, at: datetime | None = None, *, given: LabelLog | None = None
) -> SourceState:
    """Read one source now, append what is new, and keep what came of it in the ledger.

    Parameters
    ----------
    name
        Of a `[labels.<name>]`.
    at
        The present moment.
    given
        The label log to append to; by default one of its own.

    Raises
    ------
    NotFound
        There is no such source.
    Conflict
        It is being read by another process.
    """
    config = _config(project, name)
    at = at or now()
    with _alone(project, name):
        before = ledger.get(KIND, name)
        failures = before.read(SourceState).failures if before else 0
        target = given or LabelLog(project, durability=project.config.serving.durability)
        taking = _Taking(project, name, config, target)
        try:
            taking.take()
        except Exception as error:
            if not isinstance(error, LoopwrightError):
                log.exception("reading the label source %s failed", name)
            reason = str(error) if isinstance(error, LoopwrightError) else repr(error)
            found = taking.state(at, _wait(config, failures), reason, failures + 1)
        else:
            found = taking.state(at, config.every)
        finally:
            if given is None:
                target.close()
        ledger.put(KIND, name, found)
        if found.failures == 1:
            ledger.append("labels.down", name, {"reason": found.reason})
        elif failures and not found.failures:
            ledger.append("labels.up", name, {"failures": failures})
    return found


class _Taking:
    """One reading of one source."""

    def __init__(self, project: Project, name: str, config: LabelSourceConfig, target: LabelLog) -> None:
        self._project, self._name, self._source, self._target = project, name, config.source, target
        self._topic = is_topic(config.source)
        self._rows = Rows(config, Ids.open(project), target, textual=not self._topic and _textual(config))
        self._taken = 0

    def take(self) -> None:
        """Append what is new."""
        if self._topic:
            take_topic(self._project, self._name, self._source, self._rows, self._append)
            return
        from loopwright.deploy.labels.table import table_labels

        # All at once: of several rows about one prediction the last one counts, wherever in the table they are.
        found = [
            label for labels in table_labels(self._project, self._source, self._rows) for label in labels
        ]
        self._append(found, True)

    def _append(self, labels: list[Label], known: bool) -> None:
        """Append labels; with `known` those that may have been appended before are left out."""
        new = only_new(self._project, self._target, labels, self._name) if known else labels
        for start in range(0, len(new), _CHUNK):
            chunk = new[start : start + _CHUNK]
            self._target.append(chunk, source=self._name)
            self._taken += len(chunk)

    def state(self, at: datetime, wait: timedelta, reason: str = "", failures: int = 0) -> SourceState:
        """Return what came of it."""
        refused = self._rows.refused
        return SourceState(
            name=self._name,
            state="down" if failures else "ok",
            at=at,
            next=at + wait,
            read=self._rows.seen,
            taken=self._taken,
            refused=dict(refused.reasons),
            examples=tuple(refused.rows),
            reason=reason,
            failures=failures,
        )


def _wait(config: LabelSourceConfig, failures: int) -> timedelta:
    """Return how long a source that is down is left alone: twice as long each time, up to an hour."""
    doubled: timedelta = config.every * (1 << min(failures, 20))
    return min(doubled, max(_LONGEST_WAIT, config.every))


def _textual(config: LabelSourceConfig) -> bool:
    from loopwright.deploy.labels.table import is_textual

    return is_textual(config.source)


def _config(project: Project, name: str) -> LabelSourceConfig:
    if name not in project.config.labels:
        raise NotFound.among(
            "label source", name, project.config.labels, hint=f"add [labels.{name}] to {FILE}"
        )
    return project.config.labels[name]


@contextlib.contextmanager
def _alone(project: Project, name: str) -> Iterator[None]:
    """Hold a source: two that read it at once would both append what is new."""
    path = project.run / f"labels-{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not lock(descriptor):
            raise Conflict(
                f"The label source {name!r} is being read by another process.",
                hint=f"loopwright label sources   (says when it was read; then: loopwright label sync {name})",
            )
        yield
    finally:
        os.close(descriptor)


def tick(
    project: Project,
    ledger: Ledger,
    at: datetime,
    *,
    given: LabelLog | None = None,
    stop: threading.Event | None = None,
) -> list[str]:
    """Read the sources that are due, and return their names.

    Topics are read in this process. Tables are read in one of their own: it may load pandas, and takes the memory that a
    whole table needs only for as long as it lasts.
    """
    read = []
    for name, state in states(project, ledger).items():
        if state is not None and state.next > at and state.at <= at:
            continue
        if stop is not None and stop.is_set():
            break
        with contextlib.suppress(Conflict):  # somebody does so by hand
            if is_topic(project.config.labels[name].source):
                sync(project, ledger, name, at, given=given)
            else:
                _apart(project, ledger, name, at, stop or threading.Event())
            read.append(name)
    return read


def _apart(project: Project, ledger: Ledger, name: str, at: datetime, stop: threading.Event) -> None:
    """Read a table in a process of its own; it writes down what came of it, and when it could not, that is."""
    before = ledger.get(KIND, name)
    process = subprocess.Popen(
        [sys.executable, "-m", "loopwright.deploy.labels", name],
        cwd=project.root,
        env=os.environ | {PROJECT_VARIABLE: str(project.root)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    left = _TIMEOUT_S
    try:
        while process.poll() is None and left > 0 and not stop.wait(0.1):
            left -= 0.1
    finally:
        if process.poll() is None:
            process.kill()
        code = process.wait()
    after = ledger.get(KIND, name)
    if stop.is_set() or (after is not None and (before is None or after.revision != before.revision)):
        return
    failures = before.read(SourceState).failures if before else 0
    wait = _wait(project.config.labels[name], failures)
    reason = (
        f"The process that read it took longer than {_TIMEOUT_S:g} s."
        if left <= 0
        else f"It ended with {code}."
    )
    ledger.put(KIND, name, SourceState(name, "down", at, at + wait, reason=reason, failures=failures + 1))


class LabelSources:
    """Reads the label sources of one project until told to stop."""

    def __init__(self, project: Project, ledger: Ledger, stop: threading.Event) -> None:
        self._project, self._ledger, self._stop = project, ledger, stop
        self._changed = _modified(project.root)
        self._log: LabelLog | None = None
        self._complaint = ""

    def run(self) -> None:
        """Work until `stop` is set; what fails is logged once and tried again."""
        try:
            while not self._stop.wait(_LOOK_S):
                try:
                    self.turn()
                    self._complaint = ""
                except Exception as error:
                    if repr(error) != self._complaint:
                        log.exception("reading labels failed; trying again")
                    self._complaint = repr(error)
        finally:
            if self._log is not None:
                self._log.close()

    def turn(self) -> None:
        """Read what is due, as it is declared now."""
        changed = _modified(self._project.root)
        if changed != self._changed:
            with contextlib.suppress(LoopwrightError):  # half-edited: what was there counts
                self._project = Project(self._project.root)
            self._changed = changed
        if not self._project.config.labels:
            return
        if self._log is None:
            self._log = LabelLog(self._project, durability=self._project.config.serving.durability)
        tick(self._project, self._ledger, now(), given=self._log, stop=self._stop)
        self._log.maintain()


def _modified(root: Path) -> int:
    with contextlib.suppress(OSError):
        return (root / FILE).stat().st_mtime_ns
    return 0
