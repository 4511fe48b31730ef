"""Prefect's API over HTTP, without importing Prefect: what the runner and the controller need of it."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

from loopwright import calls, parts
from loopwright.config import Project
from loopwright.errors import Denied, InvalidInput, NotFound, Unavailable

__all__ = [
    "FINAL",
    "call",
    "create_flow_run",
    "delete_deployment",
    "deployments",
    "due",
    "end",
    "end_tasks",
    "flow_runs",
    "get_flow_run",
    "log",
    "planned",
    "put_deployment",
    "set_active",
    "set_state",
    "update_flow_run",
]

#: Types of state after which nothing happens any more.
FINAL = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})


def call(project: Project, method: str, path: str, body: Any = None) -> Any:
    """Call one endpoint and return its answer.

    Raises
    ------
    Unavailable
        The server does not answer or fails.
    NotFound, InvalidInput, Denied
        What the server says.
    """
    base = parts.prefect_url(project).rstrip("/")
    headers = {}
    if key := os.environ.get("PREFECT_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    user, colon, password = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
    answer = calls.request(
        method,
        f"{base}/{path}",
        what=f"Prefect at {base}",
        json=body,
        headers=headers,
        auth=(user, password) if colon else None,
    )
    if answer.is_success:
        return answer.json() if answer.content else None
    text = f"Prefect at {base}: {answer.text[:300]}"
    if answer.status_code == 404:
        raise NotFound(text)
    if answer.status_code in {401, 403}:
        raise Denied(text, hint="set PREFECT_API_KEY or PREFECT_API_AUTH_STRING")
    if answer.status_code < 500:
        raise InvalidInput(text)
    raise Unavailable(text, hint="loopwright status")


def _tag(project: Project) -> str:
    # One Prefect server may hold several projects.
    return f"project:{project.name}"


def deployments(project: Project, name: str | None = None) -> list[dict[str, Any]]:
    """Return this project's Prefect deployments, or the one called `name`."""
    condition: dict[str, Any] = {"tags": {"all_": [_tag(project)]}}
    if name is not None:
        condition["name"] = {"any_": [name]}
    found: list[dict[str, Any]] = call(project, "POST", "deployments/filter", {"deployments": condition})
    return found


def put_deployment(
    project: Project,
    name: str,
    flow: str,
    *,
    entrypoint: str = "",
    schedules: list[dict[str, Any]] | None = None,
    schema: dict[str, Any] | None = None,
    description: str = "",
    known: dict[str, Any] | None = None,
) -> str:
    """Create or replace a deployment and return its id.

    Parameters
    ----------
    flow
        What Prefect lists its runs under.
    schedules
        As Prefect takes them, each with a slug.
    known
        The deployment as it is in Prefect already. It stays under its flow, for with another one it would be another
        deployment, without the runs that wait; and when it was paused on Prefect's pages it stays paused. Nothing is
        sent when nothing would change, for Prefect then plans all runs anew.
    """
    flow_id = known["flow_id"] if known else call(project, "POST", "flows/", {"name": flow})["id"]
    body = {
        "name": name,
        "flow_id": flow_id,
        "entrypoint": entrypoint or None,
        "description": description or None,
        "tags": [_tag(project)],
        "enforce_parameter_schema": False,
        "parameter_openapi_schema": schema or {"type": "object", "properties": {}},
        "schedules": schedules or [],
        "paused": bool(known and known["paused"]),
    }
    if known and _as_sent(known) == _as_sent(body):
        return str(known["id"])
    return str(call(project, "POST", "deployments/", body)["id"])


def _as_sent(deployment: dict[str, Any]) -> dict[str, Any]:
    """Return what of a deployment is sent by `put_deployment`, in a form in which two can be compared."""
    keys = ("entrypoint", "description", "parameter_openapi_schema", "paused")
    schedules = [
        {key: schedule.get(key) for key in ("slug", "active")}
        | {"parameters": schedule.get("parameters") or {}, "timing": _timing(schedule["schedule"])}
        for schedule in deployment["schedules"]
    ]
    schedules.sort(key=lambda one: (one["slug"] or "", str(one["timing"])))
    return {key: deployment.get(key) for key in keys} | {"schedules": schedules}


def _timing(schedule: dict[str, Any]) -> dict[str, Any]:
    kept = {key: schedule.get(key) for key in ("cron", "interval", "rrule", "timezone")}
    anchor = schedule.get("anchor_date") or ""
    return kept | {"anchor_date": anchor.replace("Z", "+00:00")}


def set_active(project: Project, deployment_id: str, schedule_id: str, active: bool) -> None:
    """Pause one schedule of a deployment, or let it go on."""
    call(project, "PATCH", f"deployments/{deployment_id}/schedules/{schedule_id}", {"active": active})


def delete_deployment(project: Project, deployment_id: str) -> None:
    """Delete a deployment; its flow runs stay."""
    call(project, "DELETE", f"deployments/{deployment_id}")


def create_flow_run(
    project: Project,
    deployment_id: str,
    parameters: dict[str, Any],
    tags: list[str],
    *,
    at: datetime | None = None,
    key: str = "",
) -> dict[str, Any]:
    """Schedule a flow run of a deployment: for now, or a time in the past. With a key, once however often it is asked."""
    state: dict[str, Any] = {"type": "SCHEDULED"}
    if at is not None:
        state["state_details"] = {"scheduled_time": at.isoformat()}
    body = {"parameters": parameters, "tags": tags, "state": state}
    if key:
        body["idempotency_key"] = key
    created: dict[str, Any] = call(project, "POST", f"deployments/{deployment_id}/create_flow_run", body)
    return created


def get_flow_run(project: Project, flow_run_id: str) -> dict[str, Any]:
    """Return a flow run, or raise `NotFound`."""
    try:
        found: dict[str, Any] = call(project, "GET", f"flow_runs/{flow_run_id}")
    except (NotFound, InvalidInput):
        raise NotFound(f"There is no flow run {flow_run_id!r}.", hint="loopwright pipeline list") from None
    return found


def flow_runs(project: Project, deployment_ids: list[str], states: list[str]) -> list[dict[str, Any]]:
    """Return the flow runs of these deployments that are in one of the states, oldest first."""
    condition = {"deployment_id": {"any_": deployment_ids}, "state": {"type": {"any_": states}}}
    found: list[dict[str, Any]] = call(
        project, "POST", "flow_runs/filter", {"flow_runs": condition, "limit": 200}
    )
    return sorted(found, key=lambda run: run["created"])


def update_flow_run(project: Project, flow_run_id: str, parameters: dict[str, Any], tags: list[str]) -> None:
    """Replace the parameters and the tags of a flow run that has not begun."""
    call(project, "PATCH", f"flow_runs/{flow_run_id}", {"parameters": parameters, "tags": tags})


def planned(project: Project, deployment_id: str, first: datetime, last: datetime) -> list[dict[str, Any]]:
    """Return the flow runs of a deployment that were planned for a span, whatever has become of them."""
    condition = {
        "deployment_id": {"any_": [deployment_id]},
        "expected_start_time": {"after_": first.isoformat(), "before_": last.isoformat()},
    }
    found: list[dict[str, Any]] = call(
        project, "POST", "flow_runs/filter", {"flow_runs": condition, "limit": 200}
    )
    return found


def due(project: Project, deployment_ids: list[str]) -> list[dict[str, Any]]:
    """Return the flow runs of these deployments that should start by now, in order of their time.

    Asking also tells Prefect that the deployments are being served.
    """
    now = datetime.now(UTC).isoformat()
    body = {"deployment_ids": deployment_ids, "scheduled_before": now, "limit": 200}
    found: list[dict[str, Any]] = call(project, "POST", "deployments/get_scheduled_flow_runs", body)
    return sorted(found, key=lambda run: run.get("next_scheduled_start_time") or run["created"])


def set_state(
    project: Project,
    flow_run_id: str,
    kind: str,
    message: str = "",
    *,
    name: str = "",
    at: str = "",
    force: bool = False,
) -> str:
    """Propose a state and return the type the flow run is in afterwards; Prefect may refuse without `force`.

    `at` is the time of a scheduled state.
    """
    state: dict[str, Any] = {"type": kind, "message": message} | ({"name": name} if name else {})
    if at:
        state["state_details"] = {"scheduled_time": at}
    answer = call(project, "POST", f"flow_runs/{flow_run_id}/set_state", {"state": state, "force": force})
    if answer["status"] == "ACCEPT":
        return str(answer["state"]["type"])
    return str(get_flow_run(project, flow_run_id)["state"]["type"])


def end(project: Project, flow_run_id: str, kind: str, message: str) -> None:
    """Put a flow run into a final state, unless it is in one."""
    if get_flow_run(project, flow_run_id)["state"]["type"] not in FINAL:
        set_state(project, flow_run_id, kind, message, force=True)


def end_tasks(project: Project, flow_run_id: str, message: str) -> None:
    """Mark the tasks of a dead flow run that still look alive as crashed."""
    condition = {"flow_run_id": {"any_": [flow_run_id]}, "state": {"type": {"any_": ["RUNNING", "PENDING"]}}}
    for task in call(project, "POST", "task_runs/filter", {"task_runs": condition}):
        body = {"state": {"type": "CRASHED", "message": message}, "force": True}
        call(project, "POST", f"task_runs/{task['id']}/set_state", body)


def log(project: Project, flow_run_id: str, lines: list[str]) -> None:
    """Add lines to the logs on a flow run's page."""
    at = datetime.now(UTC)
    body = [
        {
            "flow_run_id": flow_run_id,
            "name": "loopwright",
            "level": 20,
            "message": line,
            # The page sorts by time alone.
            "timestamp": (at + timedelta(microseconds=number)).isoformat(),
        }
        for number, line in enumerate(lines)
        if line.strip()
    ]
    if body:
        call(project, "POST", "logs/", body)
