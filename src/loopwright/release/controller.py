"""The loop: ``python -m loopwright.release.controller``. Runs the monitors, starts releases and takes them further.

Everything it knows is in the ledger and the prediction log, so that a killed controller goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time

from loopwright import monitor, parts
from loopwright.config import FILE, Project
from loopwright.deploy.labels import LabelSources
from loopwright.errors import LoopwrightError
from loopwright.ledger import Ledger
from loopwright.monitor import alerting, live
from loopwright.predictions import PredictionStore
from loopwright.records import Release, now
from loopwright.release import triggers
from loopwright.release.following import Following
from loopwright.release.stages import Stages
from loopwright.release.upkeep import Upkeep

__all__ = ["Controller", "main"]

log = logging.getLogger(__name__)
#: Seconds between two turns.
TURN_S = 0.5
#: Seconds between two looks whether the schedules do what they declare.
SCHEDULES_S = 5.0


class Controller:
    """One turn after the other."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.ledger = Ledger.open(project, actor="controller")
        self.store = PredictionStore(project)
        self.stages = Stages(project, self.ledger, self.store)
        self.follower = live.Follower(project, self.ledger)
        self._scheduled = 0.0
        self._declared = (0, project)
        self.sender = alerting.Sender(self.declared, self.ledger)

    def declared(self) -> Project:
        """Return the project as its file says now, or said last while it is half-edited."""
        return self._declared[1]

    def turn(self) -> None:
        """Do what is due; one thing that fails does not keep the others from their turn."""
        for name, work in (
            ("live numbers", self._follow),
            ("monitors", self._monitor),
            ("triggers", self._trigger),
            ("releases", self._advance),
            ("messages", self._tell),
        ):
            try:
                work()
            except Exception:
                log.exception("%s failed; trying again", name)
        if time.monotonic() - self._scheduled > SCHEDULES_S:
            self._scheduled = time.monotonic()
            try:
                self._watch()
            except Exception:
                log.exception("schedules failed; trying again")

    def _follow(self) -> None:
        """Count what was logged, as deployments are declared now."""
        self.follower.configure(self.declared())
        self.follower.turn(now())

    def _monitor(self) -> None:
        for alert in monitor.tick(self.project, self.ledger, self.store, now()):
            log.info("alert: %s", alert.message)

    def _watch(self) -> None:
        """Look after the schedules as they are declared now: the runner follows the file, and so must who watches it."""
        changed = (self.project.root / FILE).stat().st_mtime_ns
        if changed != self._declared[0]:
            project = self._declared[1]
            with contextlib.suppress(LoopwrightError):  # half-edited: what was there counts
                project = Project(self.project.root)
            self._declared = (changed, project)
        for alert in monitor.tick_schedules(self.declared(), self.ledger, now()):
            log.info("alert: %s", alert.message)

    def _tell(self) -> None:
        """Write down whom to tell of what; `sender` sends it, as the addresses are now."""
        alerting.tick(self.declared(), self.ledger, now())

    def _trigger(self) -> None:
        triggers.look(self.project, self.ledger, self.store)

    def _advance(self) -> None:
        for state in self.ledger.states("release"):
            self.stages.advance(state)
            after = self.ledger.get("release", state.key)
            if after is not None and after.revision != state.revision:
                release = after.read(Release)
                log.info(
                    "release %s of %s: %s %s", release.id, release.deployment, release.state, release.reason
                )


def main() -> None:
    """Run until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("httpx", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    signal.signal(signal.SIGINT, lambda *_: ended.set())
    parts.follow_supervisor()
    project = Project.find()
    controller = Controller(project)
    beside = [
        threading.Thread(target=work.run, name=name)
        for name, work in (
            ("following", Following(project, controller.ledger, ended)),
            ("labels", LabelSources(project, controller.ledger, ended)),
            ("upkeep", Upkeep(controller.declared, controller.ledger, ended)),
        )
    ]
    for thread in beside:
        thread.start()
    controller.sender.start()
    while not ended.is_set():
        controller.turn()
        parts.beat(project, "controller")
        ended.wait(TURN_S)
    controller.sender.stop()
    for thread in beside:
        thread.join()


if __name__ == "__main__":
    main()
