"""MLflow's runs over its REST interface, without importing MLflow."""

from __future__ import annotations

import time
from typing import Any, Literal

from loopwright import calls, parts
from loopwright.config import Project
from loopwright.errors import InvalidInput, NotFound, Unavailable
from loopwright.tracking.buffer import flush
from loopwright.tracking.run import Run, moment

__all__ = ["best", "call", "end", "get", "run_of", "runs", "tag", "ui_url"]


def runs(
    project: Project, *, where: str = "", order_by: tuple[str, ...] = ("start_time DESC",), limit: int = 50
) -> list[Run]:
    """Return runs of the project's experiment, newest first; none before the first run.

    Parameters
    ----------
    where, order_by
        In MLflow's search language, such as ``metrics.accuracy > 0.9`` and ``metrics.accuracy DESC``.
    limit
        At most so many; 1 to 50000.

    Raises
    ------
    InvalidInput
        MLflow does not understand the condition or the order.
    Unavailable
        The MLflow server does not answer.
    """
    try:
        found = call(project, "GET", "experiments/get-by-name", {"experiment_name": project.name})
    except NotFound:
        return []
    body = {
        "experiment_ids": [found["experiment"]["experiment_id"]],
        "filter": where,
        "order_by": list(order_by),
        "max_results": limit,
    }
    return [run_of(item) for item in call(project, "POST", "runs/search", body).get("runs", [])]


def best(project: Project, metric: str, *, higher: bool = True) -> Run:
    """Return the run with the best last value of a metric.

    Raises
    ------
    NotFound
        No run of the project has this metric.
    """
    way = "DESC" if higher else "ASC"
    # A run without the metric comes last in either order.
    found = runs(project, order_by=(f"metrics.`{metric}` {way}", "start_time DESC"), limit=1)
    if not found or metric not in found[0].metrics:
        known = {name for run in runs(project, limit=20) for name in run.metrics}
        raise NotFound.among("metric", metric, sorted(known), hint="loopwright run list")
    return found[0]


def get(project: Project, run_id: str) -> Run:
    """Return one run, or raise `NotFound`."""
    try:
        return run_of(call(project, "GET", "runs/get", {"run_id": run_id})["run"])
    except NotFound:
        raise NotFound(f"There is no run {run_id!r}.", hint="loopwright run list") from None


def end(project: Project, run_id: str, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
    """End a run whose own process cannot do it any more."""
    body = {"run_id": run_id, "status": status, "end_time": int(time.time() * 1000)}
    call(project, "POST", "runs/update", body)


def tag(project: Project, run_id: str, name: str, value: str) -> None:
    """Set a tag of a run, also of one that has ended."""
    call(project, "POST", "runs/set-tag", {"run_id": run_id, "key": name, "value": value})


def ui_url(project: Project, run_id: str) -> str:
    """Return the address of a run's page in MLflow."""
    base = parts.mlflow_url(project).rstrip("/")
    return f"{base}/#/experiments/{get(project, run_id).experiment_id}/runs/{run_id}"


def run_of(item: dict[str, Any]) -> Run:
    """Return a run as MLflow's REST interface gives it."""
    info, data = item["info"], item.get("data", {})
    ended = int(info.get("end_time") or 0)
    return Run(
        run_id=info["run_id"],
        name=info.get("run_name", ""),
        status=info["status"],
        started=moment(int(info["start_time"])),
        ended=moment(ended) if ended else None,
        experiment_id=info["experiment_id"],
        artifact_uri=info.get("artifact_uri", ""),
        metrics={metric["key"]: float(metric["value"]) for metric in data.get("metrics", [])},
        params={param["key"]: param["value"] for param in data.get("params", [])},
        tags={tag["key"]: tag["value"] for tag in data.get("tags", [])},
    )


def call(project: Project, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Call one endpoint of MLflow's; `body` goes as the query of a GET and as the JSON of a POST."""
    flush()  # what this process has logged and not sent yet belongs to what it reads
    base = parts.mlflow_url(project).rstrip("/")
    if not base.startswith(("http://", "https://")):
        raise InvalidInput(
            f"The MLflow tracking URI {base!r} is no server.",
            valid="Runs are read over HTTP: an address such as http://127.0.0.1:5000.",
            hint="unset MLFLOW_TRACKING_URI   (the project's own server is used then)",
        )
    given: dict[str, Any] = {"params": body} if method == "GET" else {"json": body}
    headers, auth = parts.mlflow_login()
    answer = calls.request(
        method,
        f"{base}/api/2.0/mlflow/{path}",
        what=f"MLflow at {base}",
        headers=headers,
        auth=auth,
        **given,
    )
    if answer.status_code == 200:
        result: dict[str, Any] = answer.json()
        return result
    message = answer.text[:300]
    if answer.headers.get("content-type", "").startswith("application/json"):
        message = answer.json().get("message", message)
    if answer.status_code == 404:
        raise NotFound(f"MLflow at {base}: {message}")
    if answer.status_code < 500:
        raise InvalidInput(f"MLflow at {base}: {message}")
    raise Unavailable(f"MLflow at {base} failed: {message}", hint="loopwright status")
