"""Logging a model to MLflow in milliseconds: what MLflow would start a Python of its own to find out is known here."""

from __future__ import annotations

import contextlib
import logging
import pickletools
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions
from importlib.metadata import version as package_version
from typing import TYPE_CHECKING, Any, Literal

from loopwright import parts
from loopwright.config import Project
from loopwright.errors import InvalidInput, NotFound, listing

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["log", "log_model", "run_for"]

Serialization = Literal["auto", "skops", "cloudpickle"]

#: Above this pickled size `auto` means cloudpickle. skops writes each array as a file of its own: a boosted forest of
#: 0.3 MB takes 1.5 s and 7.6 MB in it, 10 ms in a pickle.
_LARGEST_SKOPS = 100_000
#: skops loads types from here only when it is told that they can be trusted.
_TRUSTED = ("numpy.", "scipy.", "sklearn.")
#: Rows predicted to learn what the model answers with.
_ROWS = 100
#: Packages by the modules they are imported as, where the names differ; others are looked up.
_PACKAGES = {"sklearn": "scikit-learn", "imblearn": "imbalanced-learn"}
_ALWAYS = ("numpy", "pandas", "sklearn")


def log_model(
    model: Any,
    name: str = "model",
    *,
    table: pd.DataFrame | None = None,
    input_example: Any = None,
    signature: Any = None,
    registered_model_name: str | None = None,
    serialization: Serialization = "auto",
    metadata: dict[str, Any] | None = None,
) -> Any:
    """Log a fitted scikit-learn compatible estimator as ``mlflow.sklearn.log_model`` does, 50 times as fast.

    Requirements are read off the model in this process. `auto` stores the model with skops, which runs no code when
    it is loaded, if it is small and made of NumPy's, SciPy's and scikit-learn's types, else with cloudpickle; the
    logged model's tag ``loopwright.serialization`` says which.

    Parameters
    ----------
    model
        A fitted estimator or pipeline with scikit-learn's interface, also of XGBoost or LightGBM.
    name
        What the logged model is called.
    table
        Rows as the model takes them, without the target; the signature is inferred from them.
    input_example
        Some rows to store with the model; the signature is inferred from them when there is no `table`.
    signature
        The signature, when it is known: a ``mlflow.models.ModelSignature``.
    registered_model_name
        Also register the model under this name.
    serialization
        ``auto``, ``skops`` or ``cloudpickle``.
    metadata
        More facts to store in the model's MLmodel file.

    Returns
    -------
    mlflow.models.model.ModelInfo
        What MLflow returns: ``model_id``, ``model_uri``, ``registered_model_version``...

    Raises
    ------
    InvalidInput
        The model cannot be stored, or not with skops where that was asked for; or it does not take the rows given.
    """
    try:
        project = Project.find()
    except NotFound:
        project = None
    if project:
        parts.connect(project)
    rows = table if table is not None else input_example
    if signature is None and rows is not None:
        signature = _signature(model, rows)
    with run_for(project) as run_id:
        return log(
            model,
            run_id,
            name=name,
            serialization=serialization,
            signature=signature,
            input_example=input_example,
            registered_model_name=registered_model_name,
            metadata=metadata,
        )


def log(model: Any, run_id: str | None, *, name: str, serialization: Serialization, **more: Any) -> Any:
    """Log a model to a run and return MLflow's `ModelInfo`; `more` goes to MLflow's own `save_model` and `log`."""
    import mlflow.sklearn
    from mlflow.models import Model

    pickled = _pickled(model)
    chosen, trusted = _choose(model, len(pickled), serialization)
    if trusted:
        more["skops_trusted_types"] = trusted
    with _quiet():
        return Model.log(
            None,
            mlflow.sklearn,
            name=name,
            run_id=run_id,
            sk_model=model,
            serialization_format=chosen,
            pip_requirements=_requirements(pickled, chosen),
            tags={"loopwright.serialization": chosen},
            **more,
        )


@contextlib.contextmanager
def run_for(project: Project | None) -> Iterator[str | None]:
    """Give the id of the active run, of the running pipeline's, or of a run made for the occasion and ended after.

    Outside of a project and of a run it gives None: MLflow starts one where it is asked to log.
    """
    import mlflow

    from loopwright.lineage import recorder

    if active := mlflow.active_run():
        yield active.info.run_id
        return
    running = recorder.get()
    if running is not None and running.run_id:
        # A step in a thread of its own does not see the pipeline's run: MLflow keeps it for each thread.
        yield running.run_id
        return
    if project is None:
        yield None
        return
    client = mlflow.MlflowClient()
    run_id = client.create_run(_experiment(project, client)).info.run_id
    try:
        yield run_id
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id)


def _experiment(project: Project, client: Any) -> str:
    from mlflow.exceptions import MlflowException

    for _ in range(2):
        if found := client.get_experiment_by_name(project.name):
            return str(found.experiment_id)
        # Another process may make it between the question and the answer.
        with contextlib.suppress(MlflowException):
            return str(client.create_experiment(project.name))
    raise InvalidInput(
        f"MLflow refuses the experiment {project.name!r}.",
        valid="An experiment that was deleted blocks its name until it is restored or removed for good.",
        hint="mlflow gc, or another [project] name in loopwright.toml",
    )


def _signature(model: Any, rows: Any) -> Any:
    from mlflow.models import infer_signature

    some = rows[:_ROWS]
    try:
        return infer_signature(some, model.predict(some))
    except (AttributeError, TypeError, ValueError) as error:
        raise InvalidInput(
            f"The model does not predict the rows given: {error}.",
            valid="Rows as the model was fitted on them, without the target column, and a fitted model.",
        ) from error


def _pickled(model: Any) -> bytes:
    import cloudpickle

    try:
        return bytes(cloudpickle.dumps(model))
    except Exception as error:  # whatever its parts raise when they are pickled
        raise InvalidInput(
            f"The {type(model).__name__} cannot be stored: {error}.",
            valid="A model must be picklable: no open files, connections, locks or generators in it.",
        ) from error


def _choose(model: Any, size: int, wanted: Serialization) -> tuple[str, list[str]]:
    """Return the format to store the model in, and the types skops must be told to trust."""
    if wanted == "cloudpickle" or (wanted == "auto" and size > _LARGEST_SKOPS):
        return "cloudpickle", []
    try:
        return "skops", _trusted_types(model)
    except InvalidInput:
        if wanted == "skops":
            raise
        return "cloudpickle", []


def _trusted_types(model: Any) -> list[str]:
    import skops.io  # type: ignore[import-untyped]

    try:
        untrusted = skops.io.get_untrusted_types(data=skops.io.dumps(model))
    except Exception as error:
        raise InvalidInput(
            f"skops cannot store the {type(model).__name__}: {error}.", hint='serialization="cloudpickle"'
        ) from error
    foreign = [name for name in untrusted if not name.startswith(_TRUSTED)]
    if foreign:
        raise InvalidInput(
            f"skops would have to trust types of the {type(model).__name__} that are not scikit-learn's: {listing(foreign)}.",
            hint='serialization="cloudpickle"',
        )
    return list(untrusted)


#: They warn that pickle is unsafe for foreign files, that a uv project was found, that pip is not installed.
_CHATTY = ("mlflow.sklearn", "mlflow.utils.environment", "mlflow.utils.uv_utils")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what MLflow says on each log of a model and what is of no use here."""
    logs = [logging.getLogger(name) for name in _CHATTY]
    levels = [log.level for log in logs]
    for each in logs:
        each.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for each, level in zip(logs, levels, strict=True):
            each.setLevel(level)


def _requirements(pickled: bytes, serialization: str) -> list[str]:
    """Return the packages that loading the model needs, pinned: those whose modules its pickle names."""
    named = {
        argument.partition(".")[0]
        for _, argument, _ in pickletools.genops(pickled)
        if isinstance(argument, str) and argument in sys.modules
    }
    roots = sorted({*_ALWAYS, serialization, *named} - sys.stdlib_module_names)
    return sorted({pin for root in roots for pin in _pins(root)})


@cache
def _pins(module: str) -> Sequence[str]:
    """Return the installed package of a top-level module with its version; none for a module of the user's own."""
    package = _PACKAGES.get(module, module)
    for distribution in (package, f"{package}-cpu"):
        with contextlib.suppress(PackageNotFoundError):
            return (f"{package}=={package_version(distribution)}",)
    return tuple(f"{name}=={package_version(name)}" for name in packages_distributions().get(module, ()))
