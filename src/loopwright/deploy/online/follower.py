"""What a serving process does beside answering: follow what is to be served, and tend the logs.

Both run in threads of their own, so that neither ever holds a request; and they are two, because preparing a new
version can take minutes in which the logs still need to be sealed.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from loopwright.config import FILE, Project
from loopwright.deploy.base import Predictor
from loopwright.deploy.online.app import App
from loopwright.deploy.shadowing import Shadowing
from loopwright.errors import LoopwrightError
from loopwright.ledger import Ledger
from loopwright.predictions import Ids, LabelLog, seal_orphans
from loopwright.records import Mode

__all__ = ["Follower", "Repeat", "Upkeep", "online"]

#: Seconds between two looks at the ledger; looking costs one small query.
FOLLOW_S = 0.25
#: Seconds between two looks at whether a log is to be sealed, and for what dead processes left behind.
UPKEEP_S = 1.0
ORPHANS_S = 300.0

logger = logging.getLogger(__name__)


def online(
    project: Project, ledger: Ledger, ids: Ids, worker: str, shadowing: Shadowing | None = None
) -> dict[str, Predictor]:
    """Return a predictor for each online deployment of a project."""
    return {
        name: Predictor(project, name, ledger=ledger, ids=ids, worker=worker, shadowing=shadowing)
        for name, config in project.config.deployment.items()
        if config.mode is Mode.online
    }


class Repeat(threading.Thread):
    """Calls something again and again until told to end; an error is logged, and it goes on."""

    def __init__(self, name: str, every_s: float, work: Callable[[], object]) -> None:
        super().__init__(name=name, daemon=True)
        self._every_s = every_s
        self._work = work
        self._ended = threading.Event()

    def run(self) -> None:
        """Work until `end`."""
        complaint = ""
        while not self._ended.wait(self._every_s):
            try:
                self._work()
                complaint = ""
            except Exception as error:
                # A thread that dies would leave the process behind for ever.
                if repr(error) != complaint:
                    logger.exception("%s failed; it is tried again", self.name)
                complaint = repr(error)

    def end(self) -> None:
        """Let the work under way be the last, and wait a moment for it."""
        self._ended.set()
        if self.is_alive():
            self.join(1.0)


class Follower:
    """Follows the ledger and the configuration.

    Parameters
    ----------
    project, ledger, ids, worker
        The project and this process's name.
    app
        The application whose deployments are kept up to date.
    shadowing
        What scores for the shadows of the process.
    """

    def __init__(
        self,
        project: Project,
        ledger: Ledger,
        ids: Ids,
        worker: str,
        app: App,
        shadowing: Shadowing | None = None,
    ) -> None:
        self._project, self._ledger, self._ids, self._worker, self._app = project, ledger, ids, worker, app
        self._shadowing = shadowing
        self._revision = -1
        self._configured = _changed_at(project)
        self._generation = 0
        self._noted: dict[str, Any] = {}
        self._trim = False

    def turn(self, *, prepare: bool = True) -> None:
        """Load what the deployments serve now, where that is news.

        Parameters
        ----------
        prepare
            Whether versions that are not prepared for scoring are prepared, which can take minutes.
        """
        if self._trim:
            _give_back_memory()
            self._trim = False
        self._reconfigure()
        revision = self._ledger.revision()
        predictors = self._app.predictors
        for name, predictor in predictors.items():
            if predictor.unload_idle():
                logger.info("%s gave back its memory: nobody has asked for it", name)
                self._trim = True
        asleep = [name for name, one in predictors.items() if one.asleep]
        if (revision, asleep) == (self._revision, self._noted.get("asleep", [])) and not any(
            one.due for one in predictors.values()
        ):
            return
        for name, predictor in predictors.items():
            try:
                if not predictor.asleep and predictor.refresh(prepare=prepare):
                    self._app.meters.of(name).swaps += 1
                    logger.info("%s serves %s", name, predictor.route.served if predictor.route else {})
                    self._trim = True
            except LoopwrightError as error:
                logger.error("%s does not follow the ledger: %s", name, error)
        self._revision = revision
        self._note(predictors)

    def _reconfigure(self) -> None:
        """Take over deployments that were added to the configuration, without a restart."""
        changed = _changed_at(self._project)
        if changed == self._configured:
            return
        self._configured = changed
        try:
            project = Project(self._project.root)
        except LoopwrightError as error:
            logger.error("the new configuration is not taken over: %s", error)
            return
        known = self._app.predictors
        wanted = online(project, self._ledger, self._ids, self._worker, self._shadowing)
        self._project, self._revision = project, -1
        for name in wanted:
            if name in known:
                known[name].configure(project)
        self._app.serve(project, {name: known.get(name, predictor) for name, predictor in wanted.items()})
        for name, predictor in known.items():
            if name not in wanted:
                predictor.close()

    def _note(self, predictors: dict[str, Predictor]) -> None:
        """Write to the ledger what this process serves, refuses and has unloaded, when that has changed."""
        serving = {name: one.route.served for name, one in predictors.items() if one.route is not None}
        refused = {
            name: {str(version): reason for version, reason in one.refused.items()}
            for name, one in predictors.items()
            if one.refused
        }
        facts = {
            "serving": serving,
            "refused": refused,
            "asleep": [name for name, one in predictors.items() if one.asleep],
        }
        if facts != self._noted:
            self._generation += 1
            numbers = {"pid": os.getpid(), "generation": self._generation}
            self._ledger.put("worker", self._worker, numbers | facts)
            self._noted = facts


class Upkeep:
    """Seals the logs of this process when that is due, and now and then those of dead ones."""

    def __init__(self, project: Project, app: App, labels: LabelLog) -> None:
        self._project, self._app, self._labels = project, app, labels
        self._next_orphans = time.monotonic() + 5.0

    def turn(self) -> None:
        """Do what is due."""
        app = self._app
        for name, predictor in app.predictors.items():
            predictor.maintain()
            meter = app.meters.of(name)
            meter.shadow_rows, meter.shadow_dropped = predictor.shadow_rows, predictor.shadow_dropped
        with contextlib.suppress(OSError):
            # Numbers for others to look at; the next ones replace them in a second.
            app.meters.facts |= app.notes.dropped
            app.meters.save(self._project)
            app.notes.maintain()
        self._labels.maintain()
        if time.monotonic() >= self._next_orphans:
            self._next_orphans = time.monotonic() + ORPHANS_S
            seal_orphans(self._project)


def _changed_at(project: Project) -> int:
    try:
        return (project.root / FILE).stat().st_mtime_ns
    except OSError:
        return 0


def _give_back_memory() -> None:
    """Return freed memory to the system: the parts of a dropped model are too small for the allocator to do so."""
    # What a loaded model leaves behind refers to itself. The collector counts objects, of which these are few, and not
    # their size: left alone, it let 300 MB pile up over a hundred swaps under load.
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
