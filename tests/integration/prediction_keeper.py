"""A process that keeps a prediction log in order without a pause, until it is killed.

``python prediction_keeper.py PROJECT`` prints a line when it begins.
"""

import random
import sys
from pathlib import Path

from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.predictions import maintain


def main(root: str) -> None:
    """Seal orphans, merge whatever there are two of, and delete what was replaced, now or later."""
    project = Project(Path(root))
    ledger = Ledger.open(project)
    print("ready", flush=True)
    while True:
        maintain(project, ledger, few=2, grace_s=random.choice((0, 0.5)))


if __name__ == "__main__":
    main(sys.argv[1])
