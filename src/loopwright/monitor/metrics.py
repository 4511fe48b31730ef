"""Metrics over labelled rows, with intervals, and losses per row. Losses are lower-is-better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopwright.config import METRICS
from loopwright.errors import InvalidInput, NotFound
from loopwright.records import Scalar, Task

__all__ = ["Labelled", "Measured", "default_metric", "loss_of_metric", "losses", "measure"]

#: Two-sided 95 %.
Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Labelled:
    """Rows whose label is known, n of them.

    `probability` has shape (n, k) in the order of `classes`, or is None.
    """

    actual: NDArray[Any]
    prediction: NDArray[Any]
    probability: NDArray[np.float64] | None = None
    classes: tuple[Scalar, ...] = ()

    def __len__(self) -> int:
        return len(self.actual)


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric with its 95 % confidence interval, in the metric's own unit."""

    value: float
    lower: float
    upper: float


def default_metric(task: Task) -> str:
    """Return the metric that is watched when none is named."""
    return "accuracy" if task == Task.classification else "rmse"


def loss_of_metric(metric: str) -> str:
    """Return the loss per row that belongs to a metric."""
    known = {
        "accuracy": "error",
        "f1": "error",
        "log_loss": "log_loss",
        "mae": "absolute_error",
        "rmse": "squared_error",
    }
    if metric not in known:
        raise NotFound.among("metric", metric, METRICS)
    return known[metric]


def losses(name: str, rows: Labelled) -> NDArray[np.float64]:
    """Return one loss per row, shape (n,): 0 or 1 for ``error``, else >= 0 in the unit the name says.

    Raises
    ------
    InvalidInput
        A log loss is asked of a model that gives no probabilities.
    NotFound
        There is no such loss.
    """
    if name == "error":
        return np.asarray(rows.actual != rows.prediction, np.float64)
    if name == "log_loss":
        return _log_losses(rows)
    difference = rows.actual.astype(np.float64) - rows.prediction.astype(np.float64)
    if name == "absolute_error":
        return np.abs(difference)
    if name == "squared_error":
        return difference**2
    raise NotFound.among("loss per row", name, ["absolute_error", "error", "log_loss", "squared_error"])


def _log_losses(rows: Labelled) -> NDArray[np.float64]:
    if rows.probability is None:
        raise InvalidInput(
            "The model gives no probabilities.", valid="A log loss needs them.", hint="use 'accuracy'"
        )
    places = {name: place for place, name in enumerate(rows.classes)}
    index = np.array([places.get(value, -1) for value in rows.actual.tolist()])
    chosen = np.where(index >= 0, rows.probability[np.arange(len(rows)), index], 0.0)
    return np.asarray(-np.log(np.clip(chosen, 1e-15, 1.0)))


def measure(metric: str, rows: Labelled) -> Measured:
    """Compute a metric over n >= 1 rows with its 95 % interval.

    Accuracy has a Wilson interval, means have a normal one, RMSE the root of the normal interval of its square, F1
    (macro) that of 200 bootstrap samples with a fixed seed.

    References
    ----------
    Wilson (1927), Probable inference, the law of succession, and statistical inference.
    Efron and Tibshirani (1993), An Introduction to the Bootstrap.
    """
    if metric == "f1":
        return _bootstrapped(rows)
    values = losses(loss_of_metric(metric), rows)
    if metric == "accuracy":
        return _wilson(1.0 - float(values.mean()), len(values))
    mean = float(values.mean())
    half = Z95 * float(values.std(ddof=1)) / np.sqrt(len(values)) if len(values) > 1 else np.inf
    if metric == "rmse":
        return Measured(
            float(np.sqrt(mean)), float(np.sqrt(max(0.0, mean - half))), float(np.sqrt(mean + half))
        )
    return Measured(mean, float(mean - half), float(mean + half))


def _wilson(share: float, n: int) -> Measured:
    centre = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * np.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    return Measured(share, float(max(0.0, centre - half)), float(min(1.0, centre + half)))


def _macro_f1(actual: NDArray[Any], prediction: NDArray[Any], classes: Sequence[Any]) -> float:
    found = []
    for name in classes:
        hits = float(((actual == name) & (prediction == name)).sum())
        total = float((actual == name).sum() + (prediction == name).sum())
        if total:
            found.append(2 * hits / total)
    return float(np.mean(found)) if found else 0.0


def _bootstrapped(rows: Labelled) -> Measured:
    classes = sorted(set(rows.actual.tolist()) | set(rows.prediction.tolist()), key=str)
    random = np.random.default_rng(0)
    samples = [
        _macro_f1(rows.actual[index], rows.prediction[index], classes)
        for index in (random.integers(0, len(rows), len(rows)) for _ in range(200))
    ]
    value = _macro_f1(rows.actual, rows.prediction, classes)
    return Measured(value, float(np.quantile(samples, 0.025)), float(np.quantile(samples, 0.975)))
