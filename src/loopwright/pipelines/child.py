"""One scheduled flow run, in a process of its own: ``python -m loopwright.pipelines.child FLOW_RUN_ID ENTRYPOINT``."""

from __future__ import annotations

import sys

from loopwright import parts
from loopwright.config import Project
from loopwright.errors import LoopwrightError
from loopwright.pipelines import rest
from loopwright.pipelines.entrypoints import load
from loopwright.pipelines.execution import execute
from loopwright.pipelines.remote import TRIGGER_TAG, tagged

__all__ = ["main"]


def main(flow_run_id: str, entrypoint: str) -> int:
    """Run it and return the exit code."""
    project = Project.find()
    parts.connect(project)
    found = rest.get_flow_run(project, flow_run_id)
    trigger = tagged(found["tags"], TRIGGER_TAG) or ("schedule" if found.get("auto_scheduled") else "Prefect")
    try:
        pipeline = load(project, entrypoint)
        execute(
            project, pipeline, pipeline.bind(found["parameters"]), trigger=trigger, flow_run_id=flow_run_id
        )
    except LoopwrightError as error:
        sys.stderr.write(f"{error}\n")
        rest.end(project, flow_run_id, "FAILED", error.fact)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
