"""What a fitted estimator is, read off the estimator: its task, its classes, its features; and how it is asked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from loopwright.errors import InvalidInput
from loopwright.records import Scalar, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = [
    "ask",
    "class_array",
    "classes_of",
    "features_of",
    "final_step",
    "gives_probability",
    "outputs_of",
    "supervised",
    "task_of",
]


def final_step(model: Any) -> Any:
    """Return what predicts in the end: inside pipelines the last step, inside a search the best estimator."""
    while True:
        if getattr(model, "best_estimator_", None) is not None:
            model = model.best_estimator_
        elif isinstance(getattr(model, "steps", None), list) and model.steps:
            model = model.steps[-1][1]
        else:
            return model


def _is(model: Any, kind: str) -> bool:
    """Ask scikit-learn for an estimator's type; an object that is none of its estimators has no type."""
    import sklearn.base

    try:
        return bool(getattr(sklearn.base, f"is_{kind}")(model))
    except (AttributeError, TypeError):
        return False


def supervised(model: Any) -> bool:
    """Whether the model learned from a target column, as clusterers and outlier detectors did not."""
    return not (_is(model, "clusterer") or _is(model, "outlier_detector"))


def gives_probability(model: Any) -> bool:
    """Whether the model answers with a probability for each class."""
    return hasattr(model, "predict_proba")


def task_of(model: Any, predictions: NDArray[Any] | None = None) -> Task:
    """Return the model's task. For an object that does not say, decimals in `predictions` mean a regression."""
    if _is(model, "regressor"):
        return Task.regression
    if _is(model, "classifier") or gives_probability(model) or hasattr(model, "classes_"):
        return Task.classification
    if not supervised(model):
        return Task.classification
    if predictions is not None and predictions.dtype.kind in "OUSb":
        return Task.classification
    return Task.regression


def classes_of(model: Any, predictions: NDArray[Any] | None = None) -> tuple[Scalar, ...]:
    """Return the class labels in the order of the probability columns, as plain Python values.

    A model of several targets gives no probabilities; its classes are those of all targets, in the order in which they
    are first met.
    """
    classes = getattr(model, "classes_", None)
    if classes is None:
        classes = getattr(final_step(model), "classes_", None)
    if isinstance(classes, list) and any(np.ndim(own) for own in classes):
        classes = list(dict.fromkeys(plain(value) for own in classes for value in own))
    if classes is None and _is(model, "outlier_detector"):
        classes = [-1, 1]
    if classes is None and predictions is not None:
        classes = np.unique(predictions)
    return tuple(plain(value) for value in (classes if classes is not None else ()))


def outputs_of(model: Any, width: int, targets: Sequence[str]) -> tuple[str, ...]:
    """Name the `width` values that a model gives for each row; nothing where it gives one.

    They are the targets where there are as many, the quantiles of a quantile regression such as ``q0.1``, else
    ``output_0``, ``output_1``...
    """
    if width < 2:
        return ()
    if len(targets) == width:
        return tuple(targets)
    settings: dict[str, Any] = getattr(final_step(model), "get_params", dict)()
    quantiles = settings.get("quantile_alpha")
    if quantiles is not None and np.size(quantiles) == width:
        return tuple(f"q{value:g}" for value in np.ravel(quantiles))
    return tuple(f"output_{place}" for place in range(width))


def plain(value: Any) -> Scalar:
    """Return a NumPy scalar as the Python value it stands for."""
    result: Scalar = value.item() if isinstance(value, np.generic) else value
    return result


def class_array(classes: Sequence[Scalar]) -> NDArray[Any]:
    """Return the class labels as one array of shape (k,): bool, int64, float64 or text."""
    if classes and all(isinstance(value, bool) for value in classes):
        return np.array(classes, dtype=bool)
    if classes and all(isinstance(value, int) for value in classes):
        return np.array(classes, dtype=np.int64)
    return np.array(classes)


def features_of(model: Any, columns: Sequence[str]) -> tuple[str, ...] | None:
    """Return the columns the model was fitted on, in its own order, or None when it never saw names.

    Raises
    ------
    InvalidInput
        The model was fitted on columns that are not in the table, or on another number of them.
    """
    names = _names(model)
    if names is not None:
        renamed = {_underscored(name): name for name in columns}
        found = [name if name in columns else renamed.get(name) for name in names]
        # LightGBM calls the columns of a matrix Column_0, Column_1, ...
        invented = all(re.fullmatch(r"Column_\d+|x\d+", name) for name in names)
        if all(found):
            return tuple(str(name) for name in found)
        if not invented:
            absent = [name for name, match in zip(names, found, strict=True) if match is None]
            raise InvalidInput(
                f"The model was fitted on the column {absent[0]!r}, which the table does not have.",
                valid=f"Columns of the table: {', '.join(map(repr, columns))}.",
                hint="pass the table of features that the model was fitted on, with the target column",
                field=absent[0],
            )
    count = getattr(model, "n_features_in_", None)
    if isinstance(count, int | np.integer) and count != len(columns):
        raise InvalidInput(
            f"The model was fitted on {count} columns; the table has {len(columns)} besides the target: "
            f"{', '.join(map(repr, columns))}.",
            hint="pass a table of only these features and the target column",
        )
    return None


def _names(model: Any) -> list[str] | None:
    # XGBoost raises from this attribute when it was fitted on a matrix.
    names = getattr(model, "feature_names_in_", None)
    return None if names is None else [str(name) for name in names]


def _underscored(name: str) -> str:
    """Return the name as LightGBM writes it."""
    return re.sub(r"\s", "_", name)


def ask(
    model: Any,
    rows: Any,
    classes: NDArray[Any] | None,
    *,
    probability: bool,
    labels_from_probability: bool = False,
    outputs: int = 0,
) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
    """Ask a model for its predictions, shape (n,), and its class probabilities, shape (n, k) or None.

    Parameters
    ----------
    rows
        What the model was fitted on: see `Layout.rows`.
    classes
        The class labels of a classification as an array, None for a regression.
    probability
        Whether to ask for probabilities.
    labels_from_probability
        Take the most probable class as the label instead of asking twice.
    outputs
        How many values the model gives for each row, where it is more than one; the predictions have the shape
        (n, outputs) then.
    """
    probabilities = np.asarray(model.predict_proba(rows), dtype=np.float64) if probability else None
    if labels_from_probability and probabilities is not None and classes is not None:
        return classes[probabilities.argmax(axis=1)], probabilities
    predictions = np.asarray(model.predict(rows))
    if predictions.ndim == 2 and predictions.shape[1] == 1 and not outputs:
        predictions = predictions[:, 0]
    if predictions.shape[1:] != ((outputs,) if outputs else ()):
        raise InvalidInput(
            f"The model's predictions have the shape {predictions.shape}.",
            valid=f"Here it is (n, {outputs})."
            if outputs
            else "A model with one output gives the shape (n,).",
        )
    if classes is None:
        return predictions.astype(np.float64), probabilities
    return (predictions.astype(classes.dtype) if len(classes) else predictions), probabilities
