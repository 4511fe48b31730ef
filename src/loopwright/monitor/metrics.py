"""Metrics over labelled rows, with intervals, and losses per row. Losses are lower-is-better."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopwright.config import METRICS, WATCHED
from loopwright.errors import InvalidInput, NotFound, listing
from loopwright.monitor import intervals
from loopwright.monitor.intervals import LEVEL, UNDEFINED, Measured
from loopwright.monitor.ranking import Ranked, average_precision, roc_auc
from loopwright.monitor.reliability import reliability
from loopwright.records import Scalar, Task

__all__ = [
    "Labelled",
    "Measured",
    "Measures",
    "default_metric",
    "loss_of_metric",
    "losses",
    "measure",
]


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


def default_metric(task: Task) -> str:
    """Return the metric that is watched when none is named."""
    return "accuracy" if task == Task.classification else "rmse"


def loss_of_metric(metric: str) -> str:
    """Return the loss per row that belongs to a metric of gates and releases."""
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
        A log loss is asked of a model that gives no probabilities, or an error in numbers of labels that are none.
    NotFound
        There is no such loss.
    """
    if name == "error":
        return np.asarray(rows.actual != rows.prediction, np.float64)
    if name == "log_loss":
        probability = _probability(rows, "A log loss")
        places = {name: place for place, name in enumerate(rows.classes)}
        return _log_losses(probability, _codes(rows.actual, places))
    if name not in {"absolute_error", "squared_error"}:
        raise NotFound.among("loss per row", name, ["absolute_error", "error", "log_loss", "squared_error"])
    difference = _numbers(rows.actual, "label") - _numbers(rows.prediction, "prediction")
    return np.abs(difference) if name == "absolute_error" else difference**2


def _numbers(values: NDArray[Any], what: str) -> NDArray[np.float64]:
    try:
        return values.astype(np.float64)
    except (TypeError, ValueError):
        wrong = next(value for value in values.tolist() if not isinstance(value, int | float))
        raise InvalidInput(
            f"The {what} {wrong!r} is no number.",
            valid="The errors of a regression are differences of numbers.",
            hint="use a metric of classifications, such as 'accuracy'",
        ) from None


def _probability(rows: Labelled, what: str) -> NDArray[np.float64]:
    if rows.probability is None or not len(rows.classes):
        raise InvalidInput(
            "The model gives no probabilities.", valid=f"{what} needs them.", hint="use 'accuracy'"
        )
    return rows.probability


def _codes(values: NDArray[Any], places: dict[Any, int]) -> NDArray[np.int64]:
    """Return the place of each value, -1 for one that has none."""
    return np.fromiter((places.get(value, -1) for value in values.tolist()), np.int64, len(values))


def _of_actual(probability: NDArray[np.float64], code: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the probability that the model gave to what was true: 0 to a class that it does not know."""
    return np.where(code >= 0, probability[np.arange(len(code)), code], 0.0)


def _log_losses(probability: NDArray[np.float64], code: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(-np.log(np.clip(_of_actual(probability, code), 1e-15, 1.0)))


def measure(metric: str, rows: Labelled, *, positive: Scalar | None = None, level: float = LEVEL) -> Measured:
    """Compute one metric of `WATCHED` over n >= 1 rows with its interval: see `Measures`."""
    return Measures(rows, positive).of(metric, level)


class Measures:
    """The metrics of one set of n >= 1 labelled rows; what several of them need is computed once.

    Metrics of classes are of the `positive` class. Without one, precision, recall and those of ranking are of the second of
    two classes, and the mean over the classes of more; F1 is then always the mean over the classes, as gates have it. A label
    of a class that the model does not know is never predicted, so it counts as wrong; to a ranking it is not positive.
    MAPE leaves out rows whose label is 0. The calibration error is of the second of two classes, else of the likeliest class.

    Shares have Wilson's interval, means Student's, those over classes the interval of Zou and Donner from each class's own,
    errors squared one on the logarithmic scale, the median its order statistics; rankings have the variance of the
    infinitesimal jackknife, which for the ROC AUC is DeLong's. They cover 92 to 98 % from 100 rows on, and less where only
    ten rows or so are of a class.

    References
    ----------
    Zou and Donner (2008), Construction of confidence limits about effect measures: a general approach (also for quantities
    that are correlated).
    Takahashi, Yamamoto, Kuchiba and Koyama (2022), Confidence interval for micro-averaged F1 and macro-averaged F1 scores
    (the correlation of two classes' F1).
    Brier (1950), Verification of forecasts expressed in terms of probability.
    """

    def __init__(self, rows: Labelled, positive: Scalar | None = None) -> None:
        self._rows = rows
        self._positive = positive

    def of(self, metric: str, level: float = LEVEL) -> Measured:
        """Compute a metric with its interval; NaN where the rows do not define it.

        Raises
        ------
        InvalidInput
            The metric needs probabilities, numbers, or a positive class that the model does not have.
        NotFound
            There is no such metric.
        """
        if metric not in WATCHED:
            raise NotFound.among("metric", metric, WATCHED)
        compute: Callable[[float], Measured] = getattr(self, f"_{metric}")
        return compute(level)

    def _accuracy(self, level: float) -> Measured:
        right = int(np.count_nonzero(self._actual == self._predicted))
        return _share(right, len(self._rows), level)

    def _balanced_accuracy(self, level: float) -> Measured:
        return _mean_share(self._hits, np.bincount(self._actual, minlength=len(self._classes)), level)

    def _recall(self, level: float) -> Measured:
        return self._of_classes(np.bincount(self._actual, minlength=len(self._classes)), level)

    def _precision(self, level: float) -> Measured:
        return self._of_classes(np.bincount(self._predicted, minlength=len(self._classes)), level)

    def _of_classes(self, of: NDArray[np.int64], level: float) -> Measured:
        place = self._place
        if place is None:
            return _mean_share(self._hits, of, level)
        return _share(int(self._hits[place]), int(of[place]), level)

    def _f1(self, level: float) -> Measured:
        size = len(self._classes)
        sums = np.bincount(self._actual, minlength=size) + np.bincount(self._predicted, minlength=size)
        if self._positive is not None and self._place is not None:
            hits, place = self._hits, self._place
            # F1 is 2 j / (1 + j) of the share j of hits among all rows that are or were said to be positive.
            jaccard = _share(int(hits[place]), int(sums[place] - hits[place]), level)
            return Measured(*(2 * one / (1 + one) for one in (jaccard.value, jaccard.lower, jaccard.upper)))
        return self._macro_f1(sums, level)

    def _macro_f1(self, sums: NDArray[np.int64], level: float) -> Measured:
        """Return the mean F1 of the classes that occur; `sums` has how often each was true plus how often predicted."""
        some = np.flatnonzero(sums)
        total, hits = sums[some].astype(np.float64), self._hits[some]
        value = 2 * hits / total
        lower, upper = intervals.wilson(hits / (total - hits), total - hits, level)
        lower, upper = 2 * lower / (1 + lower), 2 * upper / (1 + upper)
        # What one row does to the F1 of a class: a hit lifts it by `won`, a false one of either kind lowers it by `lost`.
        lost, won = value / total, 2 * (1 - value) / total
        spread = np.sqrt(hits * won**2 + (total - 2 * hits) * lost**2)
        apart = self._actual != self._predicted
        pairs = np.searchsorted(some, self._actual[apart]), np.searchsorted(some, self._predicted[apart])
        # A row that was mistaken lowers two of them together.
        share = lost / np.maximum(spread, 1e-300)
        away = []
        for distance in (value - lower, upper - value):
            together = 2 * float((share * distance)[pairs[0]] @ (share * distance)[pairs[1]])
            away.append(math.sqrt(float(distance @ distance) + together) / len(some))
        centre = float(value.mean())
        return Measured(centre, max(0.0, centre - away[0]), min(1.0, centre + away[1]))

    def _roc_auc(self, level: float) -> Measured:
        return self._ranked(roc_auc, "The ROC AUC", level)

    def _average_precision(self, level: float) -> Measured:
        return self._ranked(average_precision, "The average precision", level)

    def _ranked(
        self,
        compute: Callable[[NDArray[np.bool_], NDArray[np.float64]], Ranked | None],
        what: str,
        level: float,
    ) -> Measured:
        probability = _probability(self._rows, what)
        place = self._column
        places = [place] if place is not None else range(probability.shape[1])
        found = [
            (one, int(np.count_nonzero(self._known == at)))
            for at in places
            if (one := compute(self._known == at, probability[:, at])) is not None
        ]
        if not found:
            return UNDEFINED
        value = float(np.mean([one.value for one, _ in found]))
        influence = np.sum([one.influence for one, _ in found], axis=0) / len(found)
        rarest = min(min(hits, len(self._rows) - hits) or hits for _, hits in found)
        return intervals.effective(value, float(influence @ influence), rarest, level)

    def _calibration_error(self, level: float) -> Measured:
        probability, came_true = self.forecast
        return reliability(probability, came_true).error(level)

    @cached_property
    def forecast(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Of each row the probability of the second of two classes, else of the likeliest, and whether it came true.

        Raises
        ------
        InvalidInput
            The model gives no probabilities.
        """
        probability = _probability(self._rows, "Calibration")
        if probability.shape[1] == 2:
            return np.clip(probability[:, 1], 0.0, 1.0), self._known == 1
        top = probability.argmax(axis=1)
        return np.clip(probability[np.arange(len(top)), top], 0.0, 1.0), self._known == top

    def _log_loss(self, level: float) -> Measured:
        return intervals.mean(_log_losses(_probability(self._rows, "A log loss"), self._known), level)

    def _brier(self, level: float) -> Measured:
        probability = _probability(self._rows, "The Brier score")
        square = (probability**2).sum(axis=1) - 2 * _of_actual(probability, self._known) + 1
        return intervals.mean(square / 2 if probability.shape[1] == 2 else square, level)

    def _mae(self, level: float) -> Measured:
        return intervals.mean(np.abs(self._errors), level)

    def _median_absolute_error(self, level: float) -> Measured:
        return intervals.median(np.abs(self._errors), level)

    def _mape(self, level: float) -> Measured:
        actual = self._numbers
        some = actual != 0
        if not some.any():
            return UNDEFINED
        return intervals.mean(np.abs(self._errors[some] / actual[some]), level)

    def _rmse(self, level: float) -> Measured:
        square = self._errors**2
        n = len(square)
        error = float(square.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
        found = intervals.positive(float(square.mean()), error, n, level)
        return Measured(math.sqrt(found.value), math.sqrt(found.lower), math.sqrt(found.upper))

    def _r2(self, level: float) -> Measured:
        square, away = self._errors**2, (self._numbers - self._numbers.mean()) ** 2
        n, spread = len(square), float(away.mean())
        if n < 2 or not spread > 0:
            return UNDEFINED
        left = float(square.mean()) / spread
        influence = (square - left * away) / spread
        found = intervals.positive(left, float(influence.std(ddof=1)) / math.sqrt(n), n, level)
        return Measured(1 - found.value, 1 - found.upper, 1 - found.lower)

    @cached_property
    def _numbers(self) -> NDArray[np.float64]:
        return _numbers(self._rows.actual, "label")

    @cached_property
    def _errors(self) -> NDArray[np.float64]:
        return self._numbers - _numbers(self._rows.prediction, "prediction")

    @cached_property
    def _classes(self) -> dict[Any, int]:
        """The model's classes, then all others that occur, with their places."""
        known = dict.fromkeys(self._rows.classes)
        met = dict.fromkeys(
            sorted(set(self._rows.actual.tolist()) | set(self._rows.prediction.tolist()), key=str)
        )
        declared = {} if self._positive is None else {self._positive: None}
        return {name: place for place, name in enumerate(known | met | declared)}

    @cached_property
    def _actual(self) -> NDArray[np.int64]:
        return _codes(self._rows.actual, self._classes)

    @cached_property
    def _predicted(self) -> NDArray[np.int64]:
        return _codes(self._rows.prediction, self._classes)

    @cached_property
    def _known(self) -> NDArray[np.int64]:
        """The column of the probabilities that belongs to each label, -1 for a class that the model does not know."""
        return np.where(self._actual < len(self._rows.classes), self._actual, -1)

    @cached_property
    def _hits(self) -> NDArray[np.int64]:
        """How often each class was predicted and true."""
        return np.bincount(self._actual[self._actual == self._predicted], minlength=len(self._classes))

    @cached_property
    def _place(self) -> int | None:
        """The place of the class that precision and recall are of; None for the mean over all."""
        classes: Sequence[Any] = self._rows.classes or list(self._classes)
        if self._positive is None:
            return 1 if len(classes) == 2 else None
        if self._rows.classes and self._positive not in self._rows.classes:
            raise InvalidInput(
                f"The positive class {self._positive!r} is none of the model's.",
                valid=f"It has {listing(repr(one) for one in classes)}.",
                hint="edit performance.positive in loopwright.toml",
            )
        return self._classes[self._positive]

    @cached_property
    def _column(self) -> int | None:
        """The same among the columns of the probabilities."""
        place = self._place
        return place if place is None or place < len(self._rows.classes) else None


def _share(hits: int, of: int, level: float) -> Measured:
    if not of:
        return UNDEFINED
    lower, upper = intervals.wilson(hits / of, of, level)
    return Measured(hits / of, float(lower), float(upper))


def _mean_share(hits: NDArray[np.int64], of: NDArray[np.int64], level: float) -> Measured:
    """Return the mean share over the classes that occur."""
    some = of > 0
    if not some.any():
        return UNDEFINED
    shares = hits[some] / of[some]
    return intervals.mover(shares, intervals.wilson(shares, of[some].astype(np.float64), level))
