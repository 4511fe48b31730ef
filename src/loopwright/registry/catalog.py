"""Which versions of a model exist, what is known about each, and which of them an alias names."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from loopwright.config import Project
from loopwright.errors import InvalidInput, NotFound
from loopwright.ledger import Ledger
from loopwright.records import ModelVersion
from loopwright.registry import rest
from loopwright.registry.artifacts import local_folder

__all__ = ["aliases", "record", "register_run", "set_alias", "version", "versions"]


def version(project: Project, model: str, which: int | str | None = "champion") -> ModelVersion:
    """Return one version of a model, by number or by alias.

    A version that was registered by hand has no digest, signature or dataset until it is prepared for scoring.

    Parameters
    ----------
    which
        A number such as 3 or ``"3"``, or an alias; None means ``champion``.

    Raises
    ------
    NotFound
        No such model, version or alias; the message names those that exist.
    Unavailable
        The MLflow server does not answer.
    """
    name = "champion" if which is None else str(which)
    number = int(name) if name.isdigit() else _number(project, model, name)
    return _merged(project, rest.get_version(project, model, number))


def _number(project: Project, model: str, alias: str) -> int:
    known = _aliases(rest.get_model(project, model))
    if alias not in known:
        hint = f"loopwright model promote {model} <version>" + (
            "" if alias == "champion" else f" --alias {alias}"
        )
        raise NotFound.among(f"alias of model {model!r} called", alias, known, hint=hint)
    return known[alias]


def versions(project: Project, model: str) -> list[ModelVersion]:
    """Return all versions of a model, oldest first; none when it is not registered yet."""
    found = rest.search_versions(project, model)
    ledger = Ledger.open(project)
    try:
        return [_version(project, facts, ledger) for facts in found]
    finally:
        ledger.close()


def aliases(project: Project, model: str) -> dict[str, int]:
    """Return the aliases of a model and the version each names; none when it is not registered yet."""
    try:
        return _aliases(rest.get_model(project, model))
    except NotFound:
        return {}


def _aliases(facts: dict[str, Any]) -> dict[str, int]:
    return {item["alias"]: int(item["version"]) for item in facts.get("aliases", [])}


def set_alias(project: Project, model: str, alias: str, version: int) -> None:
    """Point an alias at a version, and note it in the ledger.

    Raises
    ------
    InvalidInput
        MLflow does not take the alias: it is reserved or looks like a version number.
    NotFound
        There is no such model or version.
    """
    rest.get_version(project, model, version)
    previous = _aliases(rest.get_model(project, model)).get(alias)
    rest.set_alias(project, model, alias, version)
    ledger = Ledger.open(project)
    try:
        ledger.append("alias.set", model, {"alias": alias, "version": version, "previous": previous})
    finally:
        ledger.close()


def register_run(project: Project, model: str, run_id: str) -> ModelVersion:
    """Register the model that a run logged, as the register button of the MLflow page does.

    When a run logged several models, the last one is taken.

    Raises
    ------
    NotFound
        There is no such run.
    InvalidInput
        The run logged no model.
    """
    run = rest.get_run(project, run_id)
    if logged := run.get("outputs", {}).get("model_outputs", []):
        model_id = max(enumerate(logged), key=lambda item: (int(item[1].get("step", 0)), item[0]))[1][
            "model_id"
        ]
        facts = rest.create_version(project, model, f"models:/{model_id}", run_id, model_id)
    else:
        folders = _model_folders(project, run_id)
        if not folders:
            raise InvalidInput(
                f"The run {run_id!r} logged no model.",
                valid="A run has a model after mlflow.<flavor>.log_model(...) or loopwright.register(...).",
                hint="loopwright run list",
            )
        source = f"{run['info']['artifact_uri'].rstrip('/')}/{folders[-1]}"
        facts = rest.create_version(project, model, source, run_id)
    made = _merged(project, facts)
    record(project, made, missing=("digest", "signature", "training"))
    return made


def _model_folders(project: Project, run_id: str) -> list[str]:
    """Return the folders of a run's artifacts that are MLflow models, as runs before MLflow 3 have them."""
    return [
        path
        for path in rest.list_artifacts(project, run_id)
        if f"{path}/MLmodel" in rest.list_artifacts(project, run_id, path)
    ]


def record(project: Project, made: ModelVersion, *, missing: tuple[str, ...] = ()) -> None:
    """Write a version to the ledger: its current state, and the event that it was registered.

    `missing` names the fields that are not known, for a version that was registered by hand.
    """
    from loopwright.records import to_plain

    ledger = Ledger.open(project)
    try:
        ledger.put("model_version", made.ref, made)
        payload = to_plain(made) | ({"missing": list(missing)} if missing else {})
        ledger.append("model.registered", made.model, payload)
    finally:
        ledger.close()


def _merged(project: Project, facts: dict[str, Any]) -> ModelVersion:
    ledger = Ledger.open(project)
    try:
        return _version(project, facts, ledger)
    finally:
        ledger.close()


def _version(project: Project, facts: dict[str, Any], ledger: Ledger) -> ModelVersion:
    """Return what the ledger knows of a version, else what MLflow says of it."""
    model, number = facts["name"], int(facts["version"])
    state = ledger.get("model_version", f"{model}/{number}")
    run_id = facts.get("run_id", "")
    if state is not None:
        known = state.read(ModelVersion)
        # A model that was deleted and made again in MLflow counts from 1 again: the old record is not about it.
        if known.run_id == run_id:
            return known
    uri = rest.artifact_uri(project, model, number)
    folder = local_folder(project, uri)
    created = datetime.fromtimestamp(int(facts.get("creation_timestamp", 0)) / 1000, tz=UTC)
    return ModelVersion(model, number, run_id, str(folder) if folder else uri, created=created)
