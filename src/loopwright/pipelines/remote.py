"""Starting pipelines from elsewhere and following them: for the controller and the console."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from loopwright import parts
from loopwright.config import Project
from loopwright.errors import InvalidInput, NotFound
from loopwright.pipelines import rest
from loopwright.pipelines.plan import entrypoints

__all__ = ["RUN_TAG", "TRIGGER_TAG", "FlowRun", "flow_run", "flow_run_url", "submit", "tagged"]

State = Literal["scheduled", "running", "completed", "failed", "crashed", "cancelled"]
_STATES: dict[str, State] = {"PENDING": "scheduled", "PAUSED": "scheduled", "CANCELLING": "cancelled"}
#: Tags of a flow run that carry what Prefect has no field for.
RUN_TAG = "mlflow.run_id:"
TRIGGER_TAG = "trigger:"


@dataclass(frozen=True, slots=True)
class FlowRun:
    """Where a flow run is. `run_id` is its MLflow run, empty until it has started; `message` is Prefect's."""

    id: str
    state: State
    run_id: str
    message: str


def submit(project: Project, entrypoint: str, parameters: dict[str, Any], *, trigger: str) -> str:
    """Ask the runner to run a pipeline, and return the id of the flow run.

    Returns at once: the runner takes it within about two seconds, or when it is started.

    Parameters
    ----------
    entrypoint
        A pipeline that `loopwright.toml` names.
    parameters
        JSON values; the pipeline's defaults apply for the rest.
    trigger
        Why: kept with the run.

    Raises
    ------
    NotFound
        `loopwright.toml` does not name this pipeline.
    InvalidInput
        A parameter is no JSON value.
    Unavailable
        The Prefect server does not answer.
    """
    known = entrypoints(project)
    if entrypoint not in known:
        raise NotFound.among(
            "pipeline", entrypoint, known, hint="add it to a [model.<name>] in loopwright.toml"
        )
    found = rest.deployments(project, entrypoint)
    if found:
        deployment_id = found[0]["id"]
    else:
        # The runner has not been up yet; it completes the deployment when it comes.
        flow = entrypoint.partition(":")[2]
        deployment_id = rest.put_deployment(project, entrypoint, flow, entrypoint=entrypoint)
    try:
        created = rest.create_flow_run(project, deployment_id, parameters, [f"{TRIGGER_TAG}{trigger}"])
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"The parameters of {entrypoint} cannot be sent: {error}.", valid="They are JSON values."
        ) from error
    return str(created["id"])


def flow_run(project: Project, flow_run_id: str) -> FlowRun:
    """Return where a flow run is, or raise `NotFound`."""
    found = rest.get_flow_run(project, flow_run_id)
    state = found.get("state") or {"type": found.get("state_type") or "SCHEDULED", "message": ""}
    kind = state["type"].lower()
    return FlowRun(
        id=flow_run_id,
        state=kind if kind in get_args(State) else _STATES.get(state["type"], "scheduled"),
        run_id=tagged(found["tags"], RUN_TAG),
        message=state.get("message") or "",
    )


def tagged(tags: list[str], prefix: str) -> str:
    """Return what the tag with this prefix carries, or an empty text."""
    return next((tag.removeprefix(prefix) for tag in tags if tag.startswith(prefix)), "")


def flow_run_url(project: Project, flow_run_id: str) -> str:
    """Return the address of a flow run's page in Prefect."""
    return f"{parts.prefect_url(project).removesuffix('/').removesuffix('/api')}/runs/flow-run/{flow_run_id}"
