"""The rows that are handed to the prediction log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Predictions"]


@dataclass(slots=True)
class Predictions:
    """Predictions of one model, n rows, as they are appended together.

    Parameters
    ----------
    prediction_id
        Ids from `Ids.new` or `Ids.derive`.
    at_us
        When each was made, shape (n,), microseconds since 1970 UTC.
    version, variant, propensity
        Which model version answered, as which variant of the deployment, and how probable that assignment was
        (0 to 1); each n values.
    entity
        Who or what the row is about, which fixed the variant; empty when unknown.
    latency_ms
        Time from arrival to answer, shape (n,), >= 0.
    inputs
        One array of n values per input of the signature. NaN, NaT and None are missing; an input that is not there is
        missing in all rows, and one that the signature does not name is not logged.
    prediction
        Shape (n,): class labels, or numbers for a regression.
    probability
        Shape (n, classes) in the order of `Signature.classes`; None where the model gives none.
    request_id
        The caller's own ids, when there are any.
    """

    prediction_id: list[str]
    at_us: NDArray[np.int64]
    version: NDArray[np.int32]
    variant: list[str]
    propensity: NDArray[np.float64]
    entity: list[str]
    latency_ms: NDArray[np.float32]
    inputs: Mapping[str, NDArray[Any]]
    prediction: NDArray[Any]
    probability: NDArray[np.float64] | None = None
    request_id: list[str] | None = None

    def __len__(self) -> int:
        return len(self.prediction_id)
