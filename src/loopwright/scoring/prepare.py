"""``python -m loopwright.scoring.prepare MODEL VERSION [--force]``: prepare one version, then end.

Compiling loads scikit-learn, the converters and sometimes MLflow. A serving process starts this one instead, so that
it never carries them. Nothing imports this module.
"""

from __future__ import annotations

import argparse
import sys

from loopwright.config import Project
from loopwright.errors import LoopwrightError
from loopwright.scoring.preparation import prepare


def main() -> int:
    """Prepare the version named on the command line and print its folder; errors go to stderr."""
    parser = argparse.ArgumentParser(prog="python -m loopwright.scoring.prepare", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("version", type=int)
    parser.add_argument("--force", action="store_true", help="prepare again what is prepared already")
    given = parser.parse_args()
    try:
        folder = prepare(Project.find(), given.model, given.version, force=given.force)
    except LoopwrightError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return error.exit_code
    print(folder)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
