"""Run one batch deployment: ``python -m loopwright.deploy.batch.run NAME``. What schedules start."""

from __future__ import annotations

import sys

from loopwright import parts
from loopwright.config import Project
from loopwright.deploy.batch.job import run
from loopwright.errors import LoopwrightError

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Run the deployment named on the command line and return the exit code."""
    if len(arguments) != 1:
        print("usage: python -m loopwright.deploy.batch.run DEPLOYMENT", file=sys.stderr)  # noqa: T201
        return 2
    parts.follow_supervisor()
    try:
        done = run(Project.find(), arguments[0])
    except LoopwrightError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return error.exit_code
    print(  # noqa: T201
        f"{done.deployment}: {done.rows} rows read, {done.new_rows} new predictions written to {done.sink} "
        f"in {done.seconds:.1f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
