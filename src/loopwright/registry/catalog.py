"""Which versions of a model exist, what is known about each, and which of them an alias names."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from loopwright.config import Project
from loopwright.errors import InvalidInput, NotFound
from loopwright.ledger import Ledger
from loopwright.records import ModelVersion
from loopwright.registry import rest, watch
from loopwright.registry.artifacts import local_folder

__all__ = [
    "aliases",
    "delete_alias",
    "record",
    "register_logged",
    "register_run",
    "set_alias",
    "version",
    "versions",
]


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
    number = int(name) if name.isdecimal() else _number(project, model, name)
    return _merged(project, rest.get_version(project, model, number))


def _number(project: Project, model: str, alias: str) -> int:
    known = rest.get_aliases(project, model)
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
        return rest.get_aliases(project, model)
    except NotFound:
        return {}


def set_alias(project: Project, model: str, alias: str, version: int, *, follow: bool = False) -> None:
    """Point an alias at a version, and note it in the ledger.

    Parameters
    ----------
    follow
        Whether the deployments are to follow, as they follow an alias that is moved on MLflow's page. Not wanted by
        those who change the deployments themselves.

    Raises
    ------
    InvalidInput
        MLflow does not take the alias: it is reserved or looks like a version number.
    NotFound
        There is no such model or version.
    """
    rest.get_version(project, model, version)
    ledger = Ledger.open(project)
    try:
        with watch.looking(project):
            known = rest.get_aliases(project, model)
            rest.set_alias(project, model, alias, version)
            watch.seen_aliases(ledger, model, known | {alias: version})
        facts: dict[str, Any] = {"alias": alias, "version": version, "previous": known.get(alias)}
        ledger.append("alias.set", model, facts | ({"follow": True} if follow else {}))
    finally:
        ledger.close()


def delete_alias(project: Project, model: str, alias: str) -> int:
    """Take an alias away, note it in the ledger, and return the version it named.

    Raises
    ------
    NotFound
        There is no such model or alias; the message names the nearest.
    """
    number = _number(project, model, alias)
    ledger = Ledger.open(project)
    try:
        with watch.looking(project):
            rest.delete_alias(project, model, alias)
            watch.seen_aliases(ledger, model, rest.get_aliases(project, model))
        ledger.append("alias.removed", model, {"alias": alias, "previous": number})
    finally:
        ledger.close()
    return number


def register_run(project: Project, model: str, run_id: str, artifact: str = "") -> ModelVersion:
    """Register the model that a run logged, as the register button of the MLflow page does.

    Parameters
    ----------
    artifact
        The name under which the run logged it. By default the last model that the run logged is taken.

    Raises
    ------
    NotFound
        There is no such run, or it logged no model of this name; the message names those it logged.
    InvalidInput
        The run logged no model.
    """
    run = rest.get_run(project, run_id)
    outputs = run.get("outputs", {}).get("model_outputs", [])
    logged = [item["model_id"] for item in sorted(outputs, key=lambda item: int(item.get("step", 0)))]
    names = {rest.get_logged_model(project, one)["name"]: one for one in logged} if artifact else {}
    folders = [] if logged else _model_folders(project, run_id)
    if not logged and not folders:
        raise InvalidInput(
            f"The run {run_id!r} logged no model.",
            valid="A run has a model after mlflow.<flavor>.log_model(...) or loopwright.register(...).",
            hint="loopwright run list",
        )
    if artifact and artifact not in (names or folders):
        raise NotFound.among(f"model of run {run_id} called", artifact, names or folders)
    if logged:
        model_id = names[artifact] if artifact else logged[-1]
        return _by_hand(project, model, f"models:/{model_id}", run_id, model_id)
    source = f"{run['info']['artifact_uri'].rstrip('/')}/{artifact or folders[-1]}"
    return _by_hand(project, model, source, run_id)


def register_logged(project: Project, model: str, uri: str) -> ModelVersion:
    """Register a model by the address that MLflow gave it when it was logged, such as ``models:/m-3f0c...``.

    Raises
    ------
    NotFound
        There is no such logged model.
    InvalidInput
        The address is of another kind.
    """
    model_id = uri.removeprefix("models:/")
    if not uri.startswith("models:/m-") or "/" in model_id:
        raise InvalidInput(
            f"{uri!r} is no logged model.",
            valid="models:/m-... as log_model(...).model_uri gives it, or --run RUN.",
            hint=f"loopwright model register {model} --run RUN",
        )
    facts = rest.get_logged_model(project, model_id)
    return _by_hand(project, model, uri, facts.get("source_run_id", ""), model_id)


def _by_hand(project: Project, model: str, source: str, run_id: str, model_id: str = "") -> ModelVersion:
    made = _merged(project, rest.create_version(project, model, source, run_id, model_id))
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
