"""The answers of a deployment, and how those of its variants are put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopwright.deploy.routing import Route
from loopwright.predictions import Predictions
from loopwright.records import Scalar, Variant
from loopwright.scoring import Scores

__all__ = ["Answers", "Part", "chosen", "merged", "widened"]


@dataclass(slots=True)
class Answers:
    """The answers for n rows, in the order of the rows.

    `prediction` has shape (n,): class labels of their own type, or numbers; (n, m) for a model with m `outputs`.
    `probability` has shape (n, k), its columns in the order of `classes`, or is None; a row is NaN where its variant
    gives none. `classes` are those of all variants, the champion's first: a variant gives 0 to a class it does not
    know. `variants` are those that a row can have been answered by, and `places` says by which, None for the first.
    `propensities` are the chances of each row's variant, one for all where it is a number. `started` is when scoring began, in seconds of `time.monotonic`; `score_s`
    and `log_s` are the seconds that scoring and logging took; `parts` says of each variant that was asked its place in `variants`, how
    many rows it got, and its seconds.
    """

    model: str
    classes: tuple[Scalar, ...]
    prediction_id: list[str]
    prediction: NDArray[Any]
    probability: NDArray[np.float64] | None
    variants: tuple[Variant, ...]
    places: list[int] | None = None
    propensities: list[float] | float = 1.0
    outputs: tuple[str, ...] = ()
    started: float = 0.0
    score_s: float = 0.0
    parts: tuple[tuple[int, int, float], ...] = ()
    log_s: float = 0.0
    #: What was written for all rows at once, by the codec that did; each request takes its own part of it.
    written: Any = None

    def __len__(self) -> int:
        return len(self.prediction_id)

    @property
    def version(self) -> NDArray[np.int32]:
        """The model version that answered each row, shape (n,)."""
        if self.places is None:
            return np.full(len(self), self.variants[0].version, np.int32)
        return np.array([self.variants[place].version for place in self.places], np.int32)

    @property
    def variant(self) -> list[str]:
        """The name of the variant that answered each row."""
        if self.places is None:
            return [self.variants[0].name] * len(self)
        return [self.variants[place].name for place in self.places]

    @property
    def propensity(self) -> NDArray[np.float64]:
        """How probable each row's variant was, shape (n,), above 0 and up to 1."""
        made: NDArray[np.float64] = np.broadcast_to(np.asarray(self.propensities, np.float64), (len(self),))
        return made


@dataclass(slots=True)
class Part:
    """The rows of one variant: its `place` in the route, row numbers `at` (None for all), its columns and scores."""

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
    prediction = np.empty((n, *predictions[0].shape[1:]), dtype)
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
    n = len(rows)
    at = np.arange(n) if part.at is None else part.at
    index = at.tolist()

    def some(values: Any) -> Any:
        if values is None or isinstance(values, int | float | str):
            return values
        return [values[row] for row in index] if isinstance(values, list) else values[at]

    return Predictions(
        prediction_id=some(rows.prediction_id),
        at_us=some(rows.at_us),
        version=some(rows.version),
        variant=some(rows.variant),
        propensity=some(rows.propensity),
        entity=some(rows.entity),
        latency_ms=some(rows.latency_ms),
        inputs=part.columns,
        prediction=part.scores.prediction,
        probability=part.scores.probability,
        request_id=some(rows.request_id),
        trace=some(rows.trace),
    )
