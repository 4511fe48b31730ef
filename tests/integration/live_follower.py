"""A process that follows the prediction log and merges its segments, until it is killed.

``python live_follower.py PROJECT`` prints a line after each turn that counted rows.
"""

import os
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.monitor.live import Follower
from loopwright.predictions import maintain


def merge(project: Project, ledger: Ledger) -> None:
    """Merge segments all the time."""
    while True:
        maintain(project, ledger, few=2, grace_s=1.0)


def main(root: str) -> None:
    """Follow and merge."""
    project = Project(Path(root))
    ledger = Ledger.open(project)
    threading.Thread(target=merge, args=(project, ledger), daemon=True).start()
    follower = Follower(project, ledger)
    while True:
        if follower.turn(datetime.now(UTC), rows=500):
            os.write(1, b".\n")


if __name__ == "__main__":
    main(sys.argv[1])
