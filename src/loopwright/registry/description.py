"""A fitted model and its training table together: the signature, the layout and the typed columns that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from loopwright.errors import InvalidInput, NotFound, listing
from loopwright.records import Signature, Task
from loopwright.registry.columns import arrays_of, column_of
from loopwright.registry.estimator import (
    ask,
    class_array,
    classes_of,
    features_of,
    gives_probability,
    outputs_of,
    supervised,
    task_of,
)
from loopwright.registry.layout import Layout, layout_of

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["Description", "describe", "targets_of"]

#: Rows on which the model's answers are profiled: enough for every bin, and no wait at registration.
ANSWERED_ROWS = 10_000


@dataclass(frozen=True)
class Description:
    """What is known about a model whose training table is at hand.

    `table` has all columns of the training data; `columns` has the model's inputs as typed arrays of shape (n,).
    `sample` holds the positions of the rows that were scored to give `prediction` and `probability`.
    """

    signature: Signature
    layout: Layout
    table: pa.Table
    columns: dict[str, NDArray[Any]]
    sample: NDArray[np.int64]
    prediction: NDArray[Any]
    probability: NDArray[np.float64] | None
    supervised: bool

    def rows(self, positions: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Return the inputs of some rows."""
        return {name: values[positions] for name, values in self.columns.items()}

    def performance(self) -> dict[str, float]:
        """Return the metrics on the scored training rows; none for a model that learned without a target.

        Of several targets the errors count together, and a label counts as right where all of a row are. Several
        outputs for one target, such as quantiles, have no metrics here.
        """
        columns = self._actual()
        if not columns:
            return {}
        if self.signature.task == Task.regression:
            actual = np.asarray(columns, dtype=np.float64).T.reshape(self.prediction.shape)
            error = actual - self.prediction
            return {"mae": float(np.abs(error).mean()), "rmse": float(np.sqrt((error**2).mean()))}
        labels = columns[0] if len(columns) == 1 else [list(row) for row in zip(*columns, strict=True)]
        metrics = {
            "accuracy": float(
                np.mean([a == p for a, p in zip(labels, self.prediction.tolist(), strict=True)])
            )
        }
        if self.probability is not None:
            metrics["log_loss"] = _log_loss(labels, self.signature.classes, self.probability)
        return metrics

    def labels(self) -> list[Any] | None:
        """Return the label of each scored row; None without one, and for several targets."""
        columns = self._actual()
        return columns[0] if len(columns) == 1 else None

    def _actual(self) -> list[list[Any]]:
        """Return the scored rows' values of each target; none where there are none that the outputs belong to."""
        targets = targets_of(self.signature.target, self.table.column_names)
        known = set(targets) <= set(self.table.column_names)
        if not self.supervised or not known or len(targets) != max(1, len(self.signature.outputs)):
            return []
        return [self.table[name].take(self.sample).to_pylist() for name in targets]


def _log_loss(labels: Sequence[Any], classes: Sequence[Any], probability: NDArray[np.float64]) -> float:
    places = {label: place for place, label in enumerate(classes)}
    own = [
        row[places[label]] if label in places else 0.0 for row, label in zip(probability, labels, strict=True)
    ]
    return float(-np.log(np.clip(own, 1e-15, 1.0)).mean())


def targets_of(target: str, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the target columns: `target` itself, or several names between commas where no column is called so."""
    if target in columns or "," not in target:
        return (target,)
    return tuple(name.strip() for name in target.split(",") if name.strip())


def describe(model: Any, frame: pd.DataFrame, target: str) -> Description:
    """Derive the signature and the layout from a fitted model and its training table, and score some of its rows.

    `target` names the target column, or several between commas.

    Raises
    ------
    InvalidInput
        The model cannot predict, or the table is not one it was fitted on.
    """
    if not callable(getattr(model, "predict", None)):
        raise InvalidInput(
            f"A {type(model).__name__} has no method 'predict'.",
            valid="Valid: a fitted scikit-learn, XGBoost or LightGBM estimator, or any object with predict(rows).",
        )
    table, names, given = _inputs(model, frame, target)
    inputs = tuple(column_of(name, table[name]) for name in names)
    columns = arrays_of(table, inputs)
    layout = _layout(model, frame.rename(columns=str), names, columns, named=given)
    sample = np.sort(np.random.default_rng(0).permutation(table.num_rows)[:ANSWERED_ROWS])
    rows = layout.rows({name: values[sample] for name, values in columns.items()})
    raw = np.asarray(model.predict(rows[:1] if hasattr(model, "classes_") else rows))
    task = task_of(model, raw)
    classes = classes_of(model, raw) if task == Task.classification else ()
    targets = targets_of(target, table.column_names)
    outputs = outputs_of(model, raw.shape[1] if raw.ndim == 2 else 1, targets)
    if len(targets) > 1 and len(targets) != len(outputs):
        raise InvalidInput(
            f"There are {len(targets)} targets, {listing(targets)}, and the model gives {max(1, len(outputs))} for each row.",
            valid="As many targets as the model gives values, or one.",
        )
    signature = Signature(inputs, task, target, classes, outputs)
    prediction, probability = ask(
        model,
        rows,
        class_array(classes) if task == Task.classification else None,
        probability=task == Task.classification and not outputs and gives_probability(model),
        outputs=len(outputs),
    )
    return Description(signature, layout, table, columns, sample, prediction, probability, supervised(model))


def _inputs(model: Any, frame: pd.DataFrame, target: str) -> tuple[pa.Table, tuple[str, ...], bool]:
    """Return the whole table, the model's inputs in its order, and whether the model itself names them."""
    import pyarrow as pa

    frame = frame.rename(columns=str)
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()].tolist()
        raise InvalidInput(f"The table has more than one column called {twice[0]!r}.")
    targets = targets_of(target, list(frame.columns))
    absent = [name for name in targets if name not in frame.columns]
    if supervised(model) and absent:
        error = NotFound.among("target column", absent[0], frame.columns)
        raise InvalidInput(
            error.fact, valid=error.valid, hint="register(..., target=<column>)", field=absent[0]
        )
    if not len(frame):
        raise InvalidInput(
            f"The table has no rows; its columns are {listing(frame.columns)}.",
            hint="pass the rows the model was fitted on: they become its reference profile",
        )
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise InvalidInput(
            f"The table has a column of mixed values: {error}.", valid="Each column holds one type."
        ) from error
    for name in targets if supervised(model) else ():
        if gaps := table[name].null_count:
            raise InvalidInput(
                f"The target column {name!r} has {gaps} missing values in {table.num_rows} rows.",
                hint=f"table = table.dropna(subset=[{name!r}])",
                field=name,
            )
    features = [name for name in table.column_names if name not in targets]
    given = features_of(model, features)
    return table, given or tuple(features), given is not None


def _layout(
    model: Any, frame: pd.DataFrame, names: tuple[str, ...], columns: dict[str, NDArray[Any]], *, named: bool
) -> Layout:
    """Choose the container. A model that names its columns takes a frame; else what it accepts is tried out."""
    containers: tuple[Literal["frame", "matrix"], ...] = ("frame",) if named else ("matrix", "frame")
    head = {name: values[:5] for name, values in columns.items()}
    problem: Exception | None = None
    for container in containers:
        layout = layout_of(frame, names, container)
        try:
            model.predict(layout.rows(head))
        except Exception as error:  # noqa: BLE001  (the model's own code may raise anything)
            problem = problem or error
        else:
            return layout
    raise InvalidInput(
        f"The model cannot score its own table: {type(problem).__name__}: {problem}",
        valid=f"Columns given as features: {listing(names)}.",
        hint="pass the table of features that the model was fitted on, with the target column",
    ) from problem
