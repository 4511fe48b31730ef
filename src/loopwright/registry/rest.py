"""MLflow's registry over its REST interface, without importing MLflow.

Long-lived parts of the system read aliases and versions here: MLflow's own client would cost each of them 200 MB.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx

from loopwright import calls, parts
from loopwright.config import Project
from loopwright.errors import Conflict, Denied, InvalidInput, LoopwrightError, NotFound, Unavailable

__all__ = [
    "artifact_uri",
    "create_version",
    "delete_alias",
    "delete_version",
    "get_aliases",
    "get_logged_model",
    "get_model",
    "get_run",
    "get_version",
    "list_artifacts",
    "model_names",
    "search_versions",
    "set_alias",
    "set_run_tag",
]


def _base(project: Project) -> str:
    base = parts.mlflow_url(project).rstrip("/")
    if not base.startswith(("http://", "https://")):
        raise InvalidInput(
            f"The MLflow tracking URI {base!r} is no server.",
            valid="The registry is read over HTTP: an address such as http://127.0.0.1:5000.",
            hint="unset MLFLOW_TRACKING_URI   (the project's own server is used then)",
        )
    return base


def _error(base: str, answer: httpx.Response) -> LoopwrightError:
    try:
        body = answer.json()
    except ValueError:
        body = {}
    code, message = body.get("error_code", ""), body.get("message") or answer.text[:200]
    if code in {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"} or answer.status_code == 404:
        return NotFound(f"MLflow at {base} does not know it: {message}")
    if code in {"RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"}:
        return Conflict(f"MLflow at {base}: {message}")
    if answer.status_code in {401, 403}:
        return Denied(
            f"MLflow at {base} refuses the request: {message}",
            hint="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
        )
    if answer.status_code < 500:
        return InvalidInput(f"MLflow at {base}: {message}")
    return Unavailable(f"MLflow at {base} failed: {message}", hint="loopwright status")


def _call(project: Project, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Call one endpoint; `body` goes as the query of a GET and as the JSON of a POST."""
    base = _base(project)
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
    if answer.status_code != 200:
        raise _error(base, answer)
    result: dict[str, Any] = answer.json()
    return result


def model_names(project: Project) -> list[str]:
    """Return the names of the registered models, at most 1000."""
    found = _call(project, "GET", "registered-models/search", {"max_results": 1000})
    return [model["name"] for model in found.get("registered_models", [])]


def get_model(project: Project, model: str) -> dict[str, Any]:
    """Return a registered model with its aliases, or raise `NotFound` naming those that exist."""
    try:
        found = _call(project, "GET", "registered-models/get", {"name": model})
    except NotFound:
        hint = f"loopwright pipeline run <pipeline that registers {model}>"
        raise NotFound.among("model", model, model_names(project), hint=hint) from None
    result: dict[str, Any] = found["registered_model"]
    return result


def get_aliases(project: Project, model: str) -> dict[str, int]:
    """Return the aliases of a registered model and the version each names; raises as `get_model`."""
    return {item["alias"]: int(item["version"]) for item in get_model(project, model).get("aliases", [])}


def get_version(project: Project, model: str, version: int) -> dict[str, Any]:
    """Return one model version, or raise `NotFound` naming those that exist."""
    try:
        found = _call(project, "GET", "model-versions/get", {"name": model, "version": str(version)})
    except NotFound:
        get_model(project, model)
        known = [int(item["version"]) for item in search_versions(project, model)]
        hint = f"loopwright model list {model}"
        raise NotFound.among(f"version of model {model!r} called", str(version), known, hint=hint) from None
    result: dict[str, Any] = found["model_version"]
    return result


def search_versions(project: Project, model: str) -> list[dict[str, Any]]:
    """Return all versions of a model, oldest first; none when there is no such model."""
    quote = '"' if "'" in model else "'"
    query: dict[str, Any] = {"filter": f"name={quote}{model}{quote}", "max_results": 1000}
    found: list[dict[str, Any]] = []
    while True:
        page = _call(project, "GET", "model-versions/search", query)
        found += page.get("model_versions", [])
        if not page.get("next_page_token"):
            return sorted(found, key=lambda item: int(item["version"]))
        query["page_token"] = page["next_page_token"]


def artifact_uri(project: Project, model: str, version: int) -> str:
    """Return where the files of a version lie, as MLflow writes it."""
    found = _call(project, "GET", "model-versions/get-download-uri", {"name": model, "version": str(version)})
    return str(found["artifact_uri"])


def create_version(
    project: Project, model: str, source: str, run_id: str, model_id: str = ""
) -> dict[str, Any]:
    """Create the next version of a model from logged files, and the model itself when it is the first."""
    try:
        _call(project, "POST", "registered-models/create", {"name": model})
    except Conflict:
        pass
    except InvalidInput as error:
        raise InvalidInput(
            f"A model cannot be called {model!r}: {error.fact}", valid="Names hold no '/' and no ':'."
        ) from error
    body = {"name": model, "source": source, "run_id": run_id}
    if model_id:
        body["model_id"] = model_id
    result: dict[str, Any] = _call(project, "POST", "model-versions/create", body)["model_version"]
    return result


def set_alias(project: Project, model: str, alias: str, version: int) -> None:
    """Point an alias at a version."""
    body = {"name": model, "alias": alias, "version": str(version)}
    _call(project, "POST", "registered-models/alias", body)


def delete_alias(project: Project, model: str, alias: str) -> None:
    """Take an alias away."""
    _call(project, "DELETE", "registered-models/alias", {"name": model, "alias": alias})


def delete_version(project: Project, model: str, version: int) -> None:
    """Delete a version; its files stay where they are."""
    _call(project, "DELETE", "model-versions/delete", {"name": model, "version": str(version)})


def set_run_tag(project: Project, run_id: str, key: str, value: str) -> None:
    """Set a tag of a run."""
    _call(project, "POST", "runs/set-tag", {"run_id": run_id, "key": key, "value": value})


def get_run(project: Project, run_id: str) -> dict[str, Any]:
    """Return a run, or raise `NotFound`."""
    try:
        found = _call(project, "GET", "runs/get", {"run_id": run_id})
    except NotFound:
        raise NotFound(f"There is no run {run_id!r}.", hint="loopwright run list") from None
    result: dict[str, Any] = found["run"]
    return result


def get_logged_model(project: Project, model_id: str) -> dict[str, Any]:
    """Return the facts of a logged model, or raise `NotFound`."""
    try:
        found = _call(project, "GET", f"logged-models/{quote(model_id, safe='')}", {})
    except NotFound:
        raise NotFound(f"There is no logged model {model_id!r}.", hint="loopwright run list") from None
    result: dict[str, Any] = found["model"]["info"]
    return result


def list_artifacts(project: Project, run_id: str, path: str = "") -> list[str]:
    """Return the paths of a run's artifacts directly below `path`."""
    query = {"run_id": run_id} | ({"path": path} if path else {})
    found = _call(project, "GET", "artifacts/list", query)
    return [item["path"] for item in found.get("files", [])]
