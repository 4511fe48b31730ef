"""The native runtime: the model itself, called as it was fitted. The only file of scoring that may load MLflow."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopwright.errors import Damaged, Denied, InvalidInput, LoopwrightError
from loopwright.records import Task
from loopwright.registry.estimator import ask, class_array, final_step
from loopwright.registry.layout import Layout
from loopwright.scoring.base import NATIVE, Manifest, Scores, refuse_gaps
from loopwright.scoring.feed import Numbers

__all__ = ["NativeRuntime", "PyfuncModel", "load_model", "may_be_direct", "read_mlmodel"]


class PyfuncModel:
    """Any MLflow model as an object with `predict`: what its flavor is stays MLflow's business.

    `network` is the PyTorch module inside, where there is one: it can be exported.
    """

    def __init__(self, folder: Path) -> None:
        import mlflow.pyfunc

        self._model = mlflow.pyfunc.load_model(str(folder))
        self.network: Any = None
        if "pytorch" in read_mlmodel(folder).get("flavors", {}):
            importlib.import_module("torch").set_num_threads(1)
            self.network = self._model.get_raw_model()

    def predict(self, rows: Any) -> NDArray[Any]:
        """Return the predictions for a DataFrame of n rows, shape (n,)."""
        answer = self._model.predict(rows)
        if hasattr(answer, "to_numpy"):
            answer = answer.to_numpy()
        return np.asarray(answer)


def read_mlmodel(folder: Path) -> dict[str, Any]:
    """Return the content of an MLflow model's `MLmodel` file.

    Raises
    ------
    Damaged
        The folder is no MLflow model.
    """
    import yaml  # type: ignore[import-untyped]

    try:
        facts = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise Damaged(f"{folder} is no MLflow model: {error}.") from error
    if not isinstance(facts, dict):
        raise Damaged(f"{folder / 'MLmodel'} is no MLflow model description.")
    return facts


def load_model(folder: Path) -> Any:
    """Load a model from its MLflow folder: the estimator where its flavor has one, else a `PyfuncModel`.

    A pickled scikit-learn model is read without MLflow, which saves seconds and 200 MB. Numbers of threads are set to
    1: a pool inside a server makes single rows slower.
    """
    flavors = read_mlmodel(folder).get("flavors", {})
    if flavor := flavors.get("sklearn"):
        return _single_threaded(_sklearn(folder, flavor))
    for name in ("xgboost", "lightgbm"):
        if name in flavors:
            model = importlib.import_module(f"mlflow.{name}").load_model(str(folder))
            if hasattr(model, "get_params"):
                return _single_threaded(model)
    if "python_function" not in flavors:
        raise InvalidInput(
            f"The model in {folder} has only the flavors {', '.join(flavors) or '(none)'}.",
            valid="A model that can be served has the flavor python_function.",
        )
    return PyfuncModel(folder)


def _sklearn(folder: Path, flavor: dict[str, Any]) -> Any:
    pickled = flavor.get("serialization_format") in {"pickle", "cloudpickle"} and not flavor.get("code")
    if not pickled:
        import mlflow.sklearn

        return mlflow.sklearn.load_model(str(folder))
    if os.environ.get("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true").lower() in {"false", "0"}:
        raise Denied(
            f"The model in {folder} is pickled, and MLFLOW_ALLOW_PICKLE_DESERIALIZATION forbids loading it.",
            hint="unset MLFLOW_ALLOW_PICKLE_DESERIALIZATION, if you trust who registered it",
        )
    import cloudpickle

    path = folder / flavor["pickled_model"]
    try:
        with path.open("rb") as file:
            return cloudpickle.load(file)
    except ModuleNotFoundError as error:
        raise InvalidInput(
            f"The model in {path} needs the module {error.name!r}, which cannot be imported here.",
            hint=f"uv add {error.name}   (or run in the project's folder, when the module is part of the project)",
        ) from error
    except Exception as error:
        raise Damaged(f"The model in {path} cannot be loaded: {type(error).__name__}: {error}") from error


def _single_threaded(model: Any) -> Any:
    with contextlib.suppress(Exception):
        names = [name for name in model.get_params(deep=True) if name.rpartition("__")[2] == "n_jobs"]
        model.set_params(**dict.fromkeys(names, 1))
    with contextlib.suppress(Exception):
        # XGBoost copied the number of threads into its booster when it was fitted.
        final_step(model).get_booster().set_param({"nthread": 1})
    return model


def _threads_of(model: Any) -> Callable[[], AbstractContextManager[Any]]:
    """Return what holds a call of the model to one thread, where no parameter of the model does."""
    if not type(final_step(model)).__name__.startswith("HistGradientBoosting"):
        return contextlib.nullcontext
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    # OpenMP keeps the number for each thread of its own: calls in other threads are not touched.
    found = ThreadpoolController().select(user_api="openmp")
    return lambda: found.limit(limits=1)


class _Boosted:
    """An XGBoost estimator that was fitted on a frame and is given a matrix of the same columns."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def predict(self, rows: NDArray[Any]) -> Any:
        """Return the predictions of n rows."""
        return self._model.predict(rows, validate_features=False)

    def predict_proba(self, rows: NDArray[Any]) -> Any:
        """Return the class probabilities of n rows."""
        return self._model.predict_proba(rows, validate_features=False)


def may_be_direct(model: Any, layout: Layout) -> bool:
    """Whether a model fitted on a frame may be given a matrix: a frame costs more than its trees for few rows."""
    kind = type(model)
    return (
        layout.container == "frame"
        and layout.numeric
        and kind.__module__.startswith("xgboost")
        and hasattr(model, "get_booster")
    )


class NativeRuntime:
    """The estimator, or whatever MLflow loads, behind the same columns as any other runtime."""

    def __init__(self, folder: Path, manifest: Manifest, model: Any = None) -> None:
        self._model = load_model(folder / NATIVE) if model is None else model
        self._layout = manifest.layout
        self._inputs = manifest.signature.inputs
        self._outputs = len(manifest.signature.outputs)
        self._threads = _threads_of(self._model)
        self._numbers = None
        if manifest.direct:
            self._model = _Boosted(self._model)
            self._numbers = Numbers(self._inputs, np.float32)
        classification = manifest.signature.task == Task.classification
        self._classes = class_array(manifest.signature.classes) if classification else None
        self._probability = manifest.probability
        self._argmax = manifest.labels_from_probability

    def score(self, columns: Mapping[str, NDArray[Any]], rows: int) -> Scores:
        """Score typed columns of shape (rows,), rows >= 1."""
        if self._numbers is not None:
            given: Any = self._numbers.matrix(columns, rows)
        else:
            refuse_gaps(columns, self._inputs)
            given = self._layout.rows(columns)
        try:
            with self._threads():
                prediction, probability = ask(
                    self._model,
                    given,
                    self._classes,
                    probability=self._probability,
                    labels_from_probability=self._argmax,
                    outputs=self._outputs,
                )
        except LoopwrightError:
            raise
        except Exception as error:
            raise InvalidInput(f"The model refuses the rows: {type(error).__name__}: {error}") from error
        return Scores(prediction, probability)

    def close(self) -> None:
        """Give back the model's memory."""
        self._model = None
