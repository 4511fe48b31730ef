"""The five calls that a run needs of MLflow: over its REST interface, or through its own client.

Its own client is taken where it is loaded anyway, so that what it holds back is written before a run ends, and where
the store is no server. Importing it takes seconds and 200 MB, which a pipeline whose steps are all kept need not spend.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from loopwright import parts
from loopwright.config import Project
from loopwright.errors import InvalidInput, NotFound, Unavailable
from loopwright.records import DatasetRef
from loopwright.tracking import rest

__all__ = ["Status", "create_run", "end_run", "experiment", "loaded", "log", "log_datasets", "logged"]

Status = Literal["FINISHED", "FAILED", "KILLED"]
#: The longest digest of a dataset that MLflow takes.
_LONGEST_DIGEST = 36

_experiments: dict[tuple[str, str], str] = {}


def loaded() -> bool:
    """Whether this process has imported MLflow's client."""
    return "mlflow.tracking.fluent" in sys.modules


def _own(project: Project) -> Any:
    """Return MLflow's own client, or None where REST does."""
    over_http = parts.mlflow_url(project).startswith(("http://", "https://"))
    if over_http and not loaded():
        return None
    import mlflow

    return mlflow.MlflowClient()


def _call(project: Project, path: str, body: dict[str, Any]) -> dict[str, Any]:
    return rest.call(project, "POST", path, body)


def _twice(call: Callable[..., Any], *args: Any, **options: Any) -> None:
    """Make a call that may be repeated, and repeat it when its answer broke off in the middle.

    MLflow's client waits for a server that is started again, but not for one that was killed between the head and the
    body of an answer.
    """
    try:
        call(*args, **options)
    except Exception as error:
        if "Connection broken" not in str(error):
            raise
        call(*args, **options)


def _refusal(error: Any, what: str) -> Exception:
    """Return our error for one of MLflow's client."""
    if error.error_code in {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}:
        return InvalidInput(f"{what}: {error}")
    return Unavailable(f"{what}: {error}.", hint="loopwright status")


def experiment(project: Project) -> str:
    """Return the id of the project's experiment, made on first use.

    Raises
    ------
    Unavailable
        MLflow does not answer, or the experiment was deleted.
    """
    key = (parts.mlflow_url(project), project.name)
    if key not in _experiments:
        found = _find(project) or _create(project)
        if found is None or found[1] == "deleted":
            raise Unavailable(
                f"The MLflow experiment {project.name!r} was deleted.",
                hint="restore it on the MLflow page, or give the project another [project] name",
            )
        _experiments[key] = found[0]
    return _experiments[key]


def _find(project: Project) -> tuple[str, str] | None:
    client = _own(project)
    if client is not None:
        found = client.get_experiment_by_name(project.name)
        return (found.experiment_id, found.lifecycle_stage) if found else None
    try:
        answer = rest.call(project, "GET", "experiments/get-by-name", {"experiment_name": project.name})
    except NotFound:
        return None
    return answer["experiment"]["experiment_id"], answer["experiment"].get("lifecycle_stage", "active")


def _create(project: Project) -> tuple[str, str] | None:
    from contextlib import suppress

    client = _own(project)
    # Another process may create it at the same moment; then it is found.
    if client is not None:
        from mlflow.exceptions import MlflowException

        with suppress(MlflowException):
            client.create_experiment(project.name)
    else:
        with suppress(InvalidInput):
            _call(project, "experiments/create", {"name": project.name})
    return _find(project)


def create_run(project: Project, name: str, tags: Mapping[str, str]) -> tuple[str, str]:
    """Create a run in the project's experiment; return its id and the address of its artifacts."""
    started = int(time.time() * 1000)
    client = _own(project)
    try:
        if client is not None:
            info = client.create_run(
                experiment(project), start_time=started, tags=dict(tags), run_name=name
            ).info
            return info.run_id, info.artifact_uri
        body = {
            "experiment_id": experiment(project),
            "start_time": started,
            "run_name": name,
            "user_id": tags.get("mlflow.user", ""),
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
        }
        found = _call(project, "runs/create", body)["run"]["info"]
        return found["run_id"], found["artifact_uri"]
    except BaseException:
        _experiments.clear()  # it may have been deleted, or the store be another one now
        raise


def log(
    project: Project,
    run_id: str,
    params: Mapping[str, str],
    tags: Mapping[str, str],
    metrics: Sequence[tuple[str, float]] = (),
) -> None:
    """Log parameters, at most 100, tags and metrics in one call.

    Raises
    ------
    InvalidInput
        MLflow refuses them; a parameter, for instance, has another value already.
    """
    now = int(time.time() * 1000)
    client = _own(project)
    if client is None:
        body = {
            "run_id": run_id,
            "params": [{"key": key, "value": value} for key, value in params.items()],
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
            "metrics": [{"key": key, "value": value, "timestamp": now, "step": 0} for key, value in metrics],
        }
        _call(project, "runs/log-batch", body)
        return
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.exceptions import MlflowException

    try:
        _twice(
            client.log_batch,
            run_id,
            params=[Param(key, value) for key, value in params.items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
            metrics=[Metric(key, value, now, 0) for key, value in metrics],
        )
    except MlflowException as error:
        raise _refusal(error, f"MLflow refuses what is logged to the run {run_id}") from error


def logged(project: Project, run_id: str) -> tuple[dict[str, float], dict[str, str]]:
    """Return the last values of a run's metrics, and its parameters."""
    client = _own(project)
    if client is None:
        run = rest.get(project, run_id)
        return run.metrics, run.params
    data = client.get_run(run_id).data
    return data.metrics, data.params


def log_datasets(project: Project, run_id: str, datasets: Sequence[DatasetRef]) -> None:
    """Show datasets on the run's page."""
    facts = [
        {
            "name": dataset.name,
            "digest": dataset.digest[:_LONGEST_DIGEST],
            "source_type": "local",
            "source": dataset.source or dataset.snapshot,
            "profile": f'{{"num_rows": {dataset.rows}}}',
        }
        for dataset in datasets
    ]
    client = _own(project)
    if client is None:
        _call(
            project,
            "runs/log-inputs",
            {"run_id": run_id, "datasets": [{"dataset": each, "tags": []} for each in facts]},
        )
        return
    from mlflow.entities import Dataset, DatasetInput

    client.log_inputs(run_id, [DatasetInput(Dataset(**each)) for each in facts])


def end_run(project: Project, run_id: str, status: Status) -> None:
    """Give a run its end.

    Raises
    ------
    Unavailable
        MLflow does not answer.
    """
    client = _own(project)
    if client is None:
        rest.end(project, run_id, status)
        return
    from mlflow.exceptions import MlflowException

    try:
        _twice(client.set_terminated, run_id, status)
    except MlflowException as error:
        raise _refusal(error, f"MLflow does not end the run {run_id}") from error
