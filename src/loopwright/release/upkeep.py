"""Keeping the prediction log and its live numbers in order, beside the controller's turns.

Merging segments can take seconds, in which monitors and releases must not wait.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.monitor import live
from loopwright.predictions import maintain
from loopwright.records import now

__all__ = ["Upkeep"]

log = logging.getLogger(__name__)
#: Seconds until the first time, and between two.
FIRST_S, EVERY_S = 5.0, 60.0


class Upkeep:
    """Looks after the log of one project, as it is declared at each time, until told to stop."""

    def __init__(self, project: Callable[[], Project], ledger: Ledger, stop: threading.Event) -> None:
        self.project, self.ledger, self.stop = project, ledger, stop

    def run(self) -> None:
        """Work until `stop` is set; what fails is logged and tried again."""
        wait_s = FIRST_S
        while not self.stop.wait(wait_s):
            self.turn()
            wait_s = EVERY_S

    def turn(self) -> None:
        """Seal what dead writers left, merge, delete what is too old, and drop the blocks that nothing needs any more."""
        for name, work in (("the prediction log", self._log), ("live numbers", self._blocks)):
            try:
                work()
            except Exception:
                log.exception("upkeep of %s failed; trying again", name)

    def _log(self) -> None:
        maintain(self.project(), self.ledger)

    def _blocks(self) -> None:
        live.roll_up(self.project(), self.ledger, now())
