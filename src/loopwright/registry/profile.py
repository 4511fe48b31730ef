"""The reference profile: how the training data and the predictions on it were distributed.

Fixed edges are cut once, on the training data, and stored with the version; monitors only count into them, which
needs no sort and can be added up over windows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loopwright.errors import Damaged
from loopwright.records import Scalar, Signature, Task
from loopwright.registry.column_profile import (
    MISSING,
    QUANTILES,
    ColumnProfile,
    categorical_profile,
    choosing,
    hash_of,
    histogram,
    numbers_of,
    numeric_profile,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "QUANTILES",
    "SCORE_EDGES",
    "CalibrationBin",
    "ColumnProfile",
    "Profile",
    "SegmentProfile",
    "categorical_profile",
    "hash_of",
    "histogram",
    "numbers_of",
    "numeric_profile",
    "profile_of",
    "read_profile",
    "scores_of",
]

#: The version of the format that is written.
FORMAT = 2
#: Where a score is cut: every 0.05, and closer at both ends, where confident models are.
SCORE_EDGES = (
    *(0.001, 0.01, 0.02),
    *(round(0.05 * step, 2) for step in range(1, 20)),
    *(0.98, 0.99, 0.999),
)
#: Bins of the calibration, of equal width.
CALIBRATION_BINS = 10


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Rows whose score fell into one of ten bins: their mean score, the share that was right, and how many they are.

    The score is the probability of the second of two classes, and right is a row of that class; with more classes it is
    the largest probability, and right is a row of the class it belongs to.
    """

    predicted: float
    observed: float
    rows: int


@dataclass(frozen=True, slots=True)
class SegmentProfile:
    """The counts of one declared segment of the training data: the rows whose `column` has a `value`.

    `counts` has those of each input, laid out and to be compared as `ColumnProfile.comparable`. Rows without a value are
    the segment ``(missing)``.
    """

    column: str
    value: str
    rows: int
    counts: dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Profile:
    """The profiles of all inputs and of the prediction, with the model's metrics when it was registered.

    `performance` holds metrics by name; those passed to `register` go before those on the training rows. `dataset` is
    the digest of the training snapshot. `scores` profiles the score of `CalibrationBin`, where the model gives
    probabilities, in the bins of `SCORE_EDGES`; `calibration` has only bins with rows. Both come from the rows that were
    given: on training rows a model is better, and surer, than it will be; `register(..., reference=)` takes others.
    """

    columns: tuple[ColumnProfile, ...]
    prediction: ColumnProfile
    rows: int
    performance: dict[str, float] = field(default_factory=dict)
    dataset: str = ""
    scores: ColumnProfile | None = None
    calibration: tuple[CalibrationBin, ...] = ()
    segments: tuple[SegmentProfile, ...] = ()
    format: int = 1

    def column(self, name: str) -> ColumnProfile | None:
        """Return the profile of one input, or None."""
        return next((column for column in self.columns if column.name == name), None)

    def segment(self, column: str, value: str) -> SegmentProfile | None:
        """Return the counts of one segment, or None."""
        return next((one for one in self.segments if (one.column, one.value) == (column, value)), None)


def profile_of(
    columns: Mapping[str, NDArray[Any]],
    signature: Signature,
    prediction: NDArray[Any],
    *,
    performance: Mapping[str, float] | None = None,
    dataset: str = "",
    probability: NDArray[np.float64] | None = None,
    actual: NDArray[Any] | Sequence[Scalar] | None = None,
    segments: Sequence[str] = (),
) -> Profile:
    """Profile training rows and the predictions on them.

    Parameters
    ----------
    columns
        One array of shape (n,) for each input of the signature, as `arrays_of` gives them.
    prediction
        The model's answers on those rows or a sample of them, shape (m,), m >= 1. Of several outputs, shape
        (m, outputs), the first is profiled.
    probability
        The probabilities on the rows of `prediction`, shape (m, classes).
    actual
        The labels of the rows of `prediction`, m of them: with `probability` they give the calibration.
    segments
        Inputs whose values are counted apart as well, the 20 most frequent values of each.
    """
    profiles = tuple(
        categorical_profile(column.name, columns[column.name])
        if column.type in {"string", "boolean"}
        else numeric_profile(column.name, columns[column.name])
        for column in signature.inputs
    )
    prediction = prediction[:, 0] if prediction.ndim == 2 else prediction
    of_prediction = numeric_profile if signature.task == Task.regression else categorical_profile
    rows = len(next(iter(columns.values()))) if columns else len(prediction)
    scores: ColumnProfile | None = None
    calibration: tuple[CalibrationBin, ...] = ()
    if probability is not None and probability.ndim == 2 and probability.shape[1] > 1:
        values = scores_of(probability)
        scores = numeric_profile("score", values, np.array(SCORE_EDGES))
        if actual is not None and len(signature.classes) == probability.shape[1]:
            calibration = _calibration(values, _right(probability, actual, signature.classes))
    return Profile(
        profiles,
        of_prediction("prediction", prediction),
        rows,
        dict(performance or {}),
        dataset,
        scores,
        calibration,
        tuple(one for name in segments for one in _segments(name, profiles, columns)),
        FORMAT,
    )


def scores_of(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a score for each row of probabilities, shape (n, k): the second's of two classes, else the largest."""
    return probability[:, 1] if probability.shape[1] == 2 else probability.max(axis=1)


def _right(
    probability: NDArray[np.float64], actual: NDArray[Any] | Sequence[Scalar], classes: Sequence[Scalar]
) -> NDArray[np.bool_]:
    """Return which rows are of the class that their score is the probability of."""
    places = {label: place for place, label in enumerate(classes)}
    labels = actual.tolist() if isinstance(actual, np.ndarray) else actual
    found = np.array([places.get(label, -1) for label in labels])
    own = 1 if probability.shape[1] == 2 else probability.argmax(axis=1)
    return np.asarray(found == own)


def _calibration(scores: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[CalibrationBin, ...]:
    present = np.isfinite(scores)
    scores, right = scores[present], right[present]
    bins = np.clip((scores * CALIBRATION_BINS).astype(np.int64), 0, CALIBRATION_BINS - 1)
    rows = np.bincount(bins, minlength=CALIBRATION_BINS)
    predicted = np.bincount(bins, scores, CALIBRATION_BINS) / np.maximum(rows, 1)
    observed = np.bincount(bins, right, CALIBRATION_BINS) / np.maximum(rows, 1)
    return tuple(
        CalibrationBin(float(predicted[place]), float(observed[place]), int(rows[place]))
        for place in np.flatnonzero(rows)
    )


#: Values of a segment's column that are counted apart.
_SEGMENTS = 20


def _segments(
    name: str, profiles: Sequence[ColumnProfile], columns: Mapping[str, NDArray[Any]]
) -> tuple[SegmentProfile, ...]:
    """Count every input in the rows of each frequent value of one input; none where that is no input."""
    if name not in columns:
        return ()
    items = columns[name].tolist()
    texts = np.array([MISSING if item is None or item != item else str(item) for item in items], object)
    counting = ~choosing(len(texts))
    made = []
    for value, rows in Counter(texts.tolist()).most_common(_SEGMENTS):
        own = texts == value
        counts = {}
        for profile in profiles:
            # As in `ColumnProfile.comparable`: not in the rows that chose the categories.
            counted = own & counting if profile.held else own
            counts[profile.name] = tuple(histogram(profile, columns[profile.name][counted]).tolist())
        made.append(SegmentProfile(name, value, rows, counts))
    return tuple(made)


def read_profile(path: Path) -> Profile:
    """Read a profile back from `profile.json`, of any version of the format.

    Raises
    ------
    Damaged
        The file is no profile.
    """
    import msgspec

    try:
        return msgspec.json.decode(path.read_bytes(), type=Profile)
    except msgspec.DecodeError as error:
        raise Damaged(f"{path} is no reference profile: {error}.") from error
