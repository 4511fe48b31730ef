"""Run one scheduled flow run in a process of its own: ``python -m loopwright.pipelines.execute FLOW_RUN ENTRYPOINT``.

Started by the runner. The user's module is imported here, with the project folder as the current one.
"""

import sys

from loopwright import parts
from loopwright.config import Project
from loopwright.errors import LoopwrightError, StepFailed
from loopwright.pipelines import rest
from loopwright.pipelines.entrypoints import load
from loopwright.pipelines.execution import execute
from loopwright.pipelines.remote import TRIGGER_TAG, tagged

__all__ = ["main"]


def main(flow_run_id: str, entrypoint: str) -> int:
    """Run the flow run and return the exit code: 0 when it completed."""
    parts.follow_supervisor()
    project = Project.find()
    parts.connect(project)
    try:
        pipeline = load(project, entrypoint)
        found = rest.get_flow_run(project, flow_run_id)
        if found["state"]["type"] in rest.FINAL:  # cancelled while the module was being imported
            return 0
        trigger = tagged(found["tags"], TRIGGER_TAG) or ("schedule" if found["auto_scheduled"] else "Prefect")
        parameters = pipeline.bind(found["parameters"])
        execute(project, pipeline, parameters, trigger=trigger, flow_run_id=flow_run_id)
    except LoopwrightError as error:
        print(error, file=sys.stderr)  # noqa: T201
        if isinstance(error, StepFailed) and error.__cause__ is not None:
            sys.excepthook(type(error.__cause__), error.__cause__, error.__cause__.__traceback__)
        # A run that did not even start has no state of its own yet; one that failed keeps its own.
        rest.end(project, flow_run_id, "FAILED", str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
