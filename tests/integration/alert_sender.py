"""A process that sends what is in the outbox of a project, for the tests beside this file."""

import sys
import time

from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.monitor import alerting
from loopwright.records import now


def main() -> None:
    """Enqueue and send until the process is killed."""
    project = Project(sys.argv[1])
    ledger = Ledger.open(project, actor="controller")
    sender = alerting.Sender(lambda: project, ledger)
    sender.start()
    print("ready", flush=True)
    while True:
        alerting.tick(project, ledger, now())
        time.sleep(0.1)


if __name__ == "__main__":
    main()
