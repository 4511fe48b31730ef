"""The answers of a deployment, and how those of its variants are put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopwright.deploy.routing import Route
from loopwright.predictions import Predictions
from loopwright.records import Scalar
from loopwright.scoring import Scores

__all__ = ["Answers", "Part", "chosen", "merged", "widened"]


@dataclass(slots=True)
class Answers:
    """The answers for n rows, in the order of the rows.

    `prediction` has shape (n,): class labels of their own type, or numbers. `probability` has shape (n, k), its
    columns in the order of `classes`, or is None; a row is NaN where its variant gives none. `classes` are those of
    all variants, the champion's first: a variant gives 0 to a class it does not know.
    """

    model: str
    classes: tuple[Scalar, ...]
    prediction_id: list[str]
    prediction: NDArray[Any]
    probability: NDArray[np.float64] | None
    version: NDArray[np.int32]
    variant: list[str]
    propensity: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.prediction_id)


@dataclass(slots=True)
class Part:
    """The rows of one variant: `place` in the split, row numbers `at` (None for all), its columns and scores."""

    place: int
    at: NDArray[np.intp] | None
    columns: Mapping[str, NDArray[Any]]
    scores: Scores


def widened(scores: Scores, route: Route, place: int) -> NDArray[np.float64] | None:
    """Return probabilities in the order of the route's classes."""
    own = route.signatures[place].classes
    if scores.probability is None or own == route.classes:
        return scores.probability
    order = [(type(label), label) for label in route.classes]
    wide = np.zeros((len(scores.prediction), len(order)))
    wide[:, [order.index((type(label), label)) for label in own]] = scores.probability
    return wide


def merged(parts: list[Part], route: Route, n: int) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
    """Return predictions and probabilities of several variants in the order of the rows."""
    predictions = [part.scores.prediction for part in parts]
    kinds = {values.dtype.kind for values in predictions}
    dtype = np.result_type(*predictions) if len(kinds) == 1 else np.dtype(object)
    prediction = np.empty(n, dtype)
    probability: NDArray[np.float64] | None = None
    for part in parts:
        prediction[part.at] = part.scores.prediction
        wide = widened(part.scores, route, part.place)
        if wide is not None:
            if probability is None:
                probability = np.full((n, wide.shape[1]), np.nan)
            probability[part.at] = wide
    return prediction, probability


def chosen(rows: Predictions, part: Part) -> Predictions:
    """Return the rows of one variant, with its own columns and classes."""
    at = np.arange(len(rows)) if part.at is None else part.at
    index = at.tolist()
    return Predictions(
        prediction_id=[rows.prediction_id[row] for row in index],
        at_us=rows.at_us[at],
        version=rows.version[at],
        variant=[rows.variant[row] for row in index],
        propensity=rows.propensity[at],
        entity=[rows.entity[row] for row in index],
        latency_ms=rows.latency_ms[at],
        inputs=part.columns,
        prediction=part.scores.prediction,
        probability=part.scores.probability,
        request_id=None if rows.request_id is None else [rows.request_id[row] for row in index],
    )
