"""Reading one label source, in a process of its own: ``python -m loopwright.deploy.labels NAME``."""

import sys

from loopwright.config import Project
from loopwright.deploy.labels.sources import sync
from loopwright.errors import Conflict
from loopwright.ledger import Ledger

__all__ = ["main"]


def main(name: str) -> None:
    """Read the source and keep what came of it in the ledger."""
    project = Project.find()
    ledger = Ledger.open(project, actor="labels")
    try:
        sync(project, ledger, name)
    except Conflict as error:
        sys.exit(str(error))
    finally:
        ledger.close()


if __name__ == "__main__":
    main(sys.argv[1])
