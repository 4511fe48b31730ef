"""Ends the runs of killed processes while no runner is there to do it: those started by hand, or in a notebook."""

from __future__ import annotations

import sys
import threading

from loopwright import parts
from loopwright.config import Project
from loopwright.errors import LoopwrightError
from loopwright.ledger import Ledger
from loopwright.pipelines import journal

__all__ = ["reap", "start"]

#: Seconds between two looks; a killed run is to be marked within thirty.
LOOK_S = 10.0


def start(project: Project, ledger: Ledger) -> threading.Event:
    """Look for killed runs until the returned event is set. In a thread: a server may take its time to answer."""
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(LOOK_S):
            if parts.ready(project, "server") and not parts.ready(project, "runner"):
                reap(project, ledger)

    threading.Thread(target=look, name="reaper", daemon=True).start()
    return stop


def reap(project: Project, ledger: Ledger) -> None:
    """End the runs whose process is gone."""
    for entry in journal.dead(project):
        try:
            journal.bury(project, entry, ledger)
            print(f"run {entry.run_id}: its process was killed", file=sys.stderr, flush=True)  # noqa: T201
        except LoopwrightError as error:  # a server is being restarted: next time
            print(error, file=sys.stderr, flush=True)  # noqa: T201
