"""The rows that are handed to the prediction log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Predictions", "matrix_of"]


@dataclass(slots=True)
class Predictions:
    """Predictions of one model, n rows, as they are appended together.

    What is the same for all rows may be given as one value instead of n.

    Parameters
    ----------
    prediction_id
        Ids from `Ids.new` or `Ids.derive`.
    at_us
        When each was made, shape (n,), microseconds since 1970 UTC; or one moment.
    version, variant, propensity
        Which model version answered, as which variant of the deployment, and how probable that assignment was
        (0 to 1); each n values, or one.
    entity
        Who or what each row is about, which fixed its variant; empty when unknown, None when all are. A query then
        finds it to be about itself: its entity is its id.
    latency_ms
        Time from arrival to answer, shape (n,), >= 0; or one.
    inputs
        One array of n values per input of the signature. NaN, NaT and None are missing; an input that is not there is
        missing in all rows, and one that the signature does not name is not logged.
    prediction
        Shape (n,): class labels, or numbers for a regression; (n, m) for a model with m outputs.
    probability
        Shape (n, classes) in the order of `Signature.classes`; None where the model gives none.
    request_id, trace
        The callers' own ids, and the trace each request belongs to (a W3C ``traceparent``), empty where there is none;
        None when there are none at all.
    raw_id
        The ids as 16 bytes each, where they are at hand.
    """

    prediction_id: list[str]
    at_us: NDArray[np.int64] | int
    version: NDArray[np.int32] | int
    variant: list[str] | str
    propensity: NDArray[np.float64] | float
    entity: list[str] | None
    latency_ms: NDArray[np.float32] | float
    inputs: Mapping[str, NDArray[Any]]
    prediction: NDArray[Any]
    probability: NDArray[np.float64] | None = None
    request_id: list[str] | None = None
    trace: list[str] | None = None
    raw_id: bytes | None = None

    def __len__(self) -> int:
        return len(self.prediction_id)


def matrix_of(inputs: Mapping[str, NDArray[Any]], names: tuple[str, ...]) -> NDArray[Any] | None:
    """Return some inputs as one matrix, where they are kept side by side in exactly this order."""
    find = getattr(inputs, "matrix", None)
    found: NDArray[Any] | None = None if find is None else find(names)
    return found
