"""Estimated performance without labels: what the metric is likely to be, were the probabilities still right.

Confidence-based performance estimation: a model that says 0.9 is expected to be right in 9 of 10 rows, so its probabilities
alone give the expected confusion matrix of a window, and with it its metrics. Probabilities are corrected first by how they
held on labelled rows: those of recent windows whose labels have come, else the profile's. Each estimate has an interval for
the metric that labels would show, from the chance of the labels and from how few rows the correction was learned on.

It sees what moves the inputs (covariate shift) and is blind to what changes the meaning of the inputs (concept drift): it
assumes P(y|x) unchanged, and says so wherever it is shown. So it never starts a training, and no estimate is a reason to
release or to keep a model. Estimating the loss of a regression without labels is not built.

References
----------
Kivimäki, Białek, Nurminen and Kuberski (2024), Confidence-based estimators for predictive performance in model monitoring.
Białek, Kuberski, Perrakis and Bifet (2024), We don't need no labels: estimating post-deployment model performance under
covariate shift without ground truth.
NannyML's documentation, Confidence-based performance estimation (CBPE).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from loopwright.errors import NotFound
from loopwright.monitor.base import Context, Phase
from loopwright.monitor.intervals import Measured, critical
from loopwright.monitor.performance import beyond, limit_of
from loopwright.records import Scalar, Signal, Task

__all__ = ["ASSUMPTION", "METRICS", "Correction", "EstimatedCheck", "estimate"]

ASSUMPTION = "assumes P(y|x) unchanged"
#: Labelled rows that a correction is learned from at least, and how many windows it may come from.
LEAST_ROWS, WINDOWS = 500, 50
#: Probabilities nearer to 0 and 1 are taken for this: their logarithms have no end.
_EDGE = 1e-6

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Correction:
    """How to change the logarithm of the odds of a probability: a line through all of them, and at points what it misses.

    Between points what is missed changes evenly; beyond the last the line goes on. That is Platt's scaling where the line
    does it all. `at`, `missed` and `variance`, that of each point from how many rows it was learned on, have shape
    (points,).

    References
    ----------
    Platt (1999), Probabilistic outputs for support vector machines and comparisons to regularized likelihood methods.
    """

    slope: float
    shift: float
    at: Vector
    missed: Vector
    variance: Vector

    @classmethod
    def learn(cls, predicted: Vector, observed: Vector, rows: Vector) -> Correction:
        """Learn from bins of labelled rows: the mean probability, the share it came true for, and their number.

        One row as predicted is added to each bin, so that a bin where all or none came true has odds too.
        """
        predicted = np.clip(predicted, _EDGE, 1 - _EDGE)
        share = (observed * rows + predicted) / (rows + 1)
        share = np.clip(share, _EDGE, 1 - _EDGE)
        order = np.argsort(predicted)
        at, seen = logit(predicted)[order], logit(share)[order]
        variance = (1 / ((rows + 1) * share * (1 - share)))[order]
        slope, shift = _line(at, seen, 1 / variance)
        return cls(slope, shift, at, seen - slope * at - shift, variance)

    def apply(self, probability: Vector) -> Vector:
        """Return corrected probabilities, shape (n,)."""
        odds = logit(np.clip(probability, _EDGE, 1 - _EDGE))
        return np.asarray(expit(self.slope * odds + self.shift + np.interp(odds, self.at, self.missed)))

    def mirrored(self) -> Correction:
        """Return what does the same to the probability of the other class."""
        return Correction(self.slope, -self.shift, -self.at[::-1], -self.missed[::-1], self.variance[::-1])

    def uncertainty(self, probability: Vector, gradient: Vector) -> float:
        """Return the variance of an estimate from that of the points.

        Parameters
        ----------
        probability, gradient
            Shape (n,): as the model gave it, and the derivative of the estimate by the corrected one.
        """
        odds = logit(np.clip(probability, _EDGE, 1 - _EDGE))
        fixed = self.apply(probability)
        weight = gradient * fixed * (1 - fixed)
        points = len(self.at)
        right = np.clip(np.searchsorted(self.at, odds), 1, max(1, points - 1))
        if points == 1:
            return float(weight.sum() ** 2 * self.variance[0])
        left = right - 1
        gap = np.maximum(self.at[right] - self.at[left], 1e-12)
        part = np.clip((odds - self.at[left]) / gap, 0.0, 1.0)
        by_point = np.bincount(left, weight * (1 - part), points) + np.bincount(right, weight * part, points)
        return float(by_point**2 @ self.variance)


def _line(x: Vector, y: Vector, weight: Vector) -> tuple[float, float]:
    """Return slope and intercept of the weighted least squares line; slope 1 where the points give none above 0."""
    weight = weight / weight.sum()
    centre = float(weight @ x)
    spread = float(weight @ (x - centre) ** 2)
    slope = float(weight @ ((x - centre) * y)) / spread if spread > 1e-6 else 1.0
    slope = slope if slope > 0 else 1.0
    return slope, float(weight @ y) - slope * centre


#: Value and derivative by the probability of each row, shape (n,); None where the rows do not define the metric.
_Estimate = tuple[float, Vector] | None
#: Corrected probabilities, what was predicted, and the probabilities as they were given.
_Metric = Callable[[Vector, NDArray[np.bool_], Vector], _Estimate]


def _accuracy(p: Vector, positive: NDArray[np.bool_], _given: Vector) -> _Estimate:
    right = np.where(positive, p, 1 - p)
    return float(right.mean()), np.where(positive, 1.0, -1.0) / len(p)


def _precision(p: Vector, positive: NDArray[np.bool_], _given: Vector) -> _Estimate:
    said = int(np.count_nonzero(positive))
    return (float(p[positive].sum()) / said, positive / said) if said else None


def _recall(p: Vector, positive: NDArray[np.bool_], _given: Vector) -> _Estimate:
    expected = float(p.sum())
    if not expected > 0:
        return None
    value = float(p[positive].sum()) / expected
    return value, (positive.astype(np.float64) - value) / expected


def _balanced_accuracy(p: Vector, positive: NDArray[np.bool_], given: Vector) -> _Estimate:
    return _both(_recall, p, positive, given)


def _macro_f1(p: Vector, positive: NDArray[np.bool_], given: Vector) -> _Estimate:
    return _both(_f1, p, positive, given)


def _f1(p: Vector, positive: NDArray[np.bool_], _given: Vector) -> _Estimate:
    total = float(p.sum()) + int(np.count_nonzero(positive))
    if not total > 0:
        return None
    value = 2 * float(p[positive].sum()) / total
    return value, (2.0 * positive.astype(np.float64) - value) / total


def _both(of_one: _Metric, p: Vector, positive: NDArray[np.bool_], given: Vector) -> _Estimate:
    """Return the mean over both classes; by the other's probability the derivative has the other sign."""
    found = of_one(p, positive, given), of_one(1 - p, ~positive, 1 - given)
    if found[0] is None or found[1] is None:
        return None
    return (found[0][0] + found[1][0]) / 2, (found[0][1] - found[1][1]) / 2


def _roc_auc(p: Vector, _positive: NDArray[np.bool_], given: Vector) -> _Estimate:
    order = np.argsort(given)
    ranked = given[order]
    starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))
    group = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(ranked))))
    hits, misses = (np.add.reduceat(one[order], starts) for one in (p, 1 - p))
    positives, negatives = float(hits.sum()), float(misses.sum())
    if not (positives > 0 and negatives > 0):
        return None
    above = (np.cumsum(misses) - misses / 2) / negatives
    below = 1 - (np.cumsum(hits) - hits / 2) / positives
    value = float(hits @ above) / positives
    gradient = np.empty(len(p))
    gradient[order] = ((above - value) / positives - (below - value) / negatives)[group]
    return value, gradient


def _log_loss(p: Vector, _positive: NDArray[np.bool_], given: Vector) -> _Estimate:
    given = np.clip(given, 1e-15, 1 - 1e-15)
    yes, no = -np.log(given), -np.log1p(-given)
    return float((p * yes + (1 - p) * no).mean()), (yes - no) / len(p)


def _brier(p: Vector, _positive: NDArray[np.bool_], given: Vector) -> _Estimate:
    yes, no = (1 - given) ** 2, given**2
    return float((p * yes + (1 - p) * no).mean()), (yes - no) / len(p)


#: What can be estimated for two classes; of more, only the accuracy. F1 is the mean over both classes, as it is with labels,
#: unless the positive class is declared.
METRICS: dict[str, _Metric] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "brier": _brier,
    "f1": _macro_f1,
    "f1_of_class": _f1,
    "log_loss": _log_loss,
    "precision": _precision,
    "recall": _recall,
    "roc_auc": _roc_auc,
}


def estimate(
    metric: str,
    probability: Vector,
    positive: NDArray[np.bool_],
    correction: Correction | None = None,
    *,
    level: float = 0.95,
) -> Measured | None:
    """Estimate a metric of n rows that have no label.

    Parameters
    ----------
    metric
        One of `METRICS`.
    probability
        Shape (n,): that a row is of the positive class, as the model gave it.
    positive
        Shape (n,): whether the model said so.
    correction
        How such probabilities held on labelled rows; None takes them as they are.
    level
        Of the interval of what labels would show, 0 to 1.

    Returns
    -------
    Measured or None
        None where the rows do not define the metric, such as the precision of a class that is never predicted.

    Raises
    ------
    NotFound
        The metric cannot be estimated.
    """
    if metric not in METRICS:
        raise NotFound.among("metric that can be estimated", metric, METRICS)
    p = probability if correction is None else correction.apply(probability)
    found = METRICS[metric](p, positive, probability)
    if found is None:
        return None
    value, gradient = found
    variance = float(gradient**2 @ (p * (1 - p)))
    if correction is not None:
        variance += correction.uncertainty(probability, gradient)
    half = critical(level) * math.sqrt(variance)
    lower, upper = max(0.0, value - half), value + half
    return Measured(value, lower, upper if metric == "log_loss" else min(1.0, upper))


class EstimatedCheck:
    """Says what the watched metric is likely to be before labels come; fires when the interval is beyond the limit."""

    name = "estimated"
    phase: Phase = "inputs"

    def run(self, context: Context) -> list[Signal]:
        """Return one signal per version that answered enough rows with probabilities, for a metric that can be estimated."""
        config = context.config.performance
        classes = context.signature.classes if context.signature else ()
        if (
            not config.estimated
            or context.signature is None
            or context.signature.task != Task.classification
            or context.metric not in METRICS
            or (len(classes) != 2 and context.metric != "accuracy")
        ):
            return []
        signals = []
        for version in sorted(context.data.versions):
            if context.data.rows(version) < config.min_rows:
                continue
            found = self._of_version(context, version, classes)
            if found is not None:
                signals.append(found)
        return signals

    def _of_version(self, context: Context, version: int, classes: tuple[Scalar, ...]) -> Signal | None:
        given = _given(context, version, classes)
        if given is None:
            return None
        probability, positive = given
        correction, source = _correction(context, version)
        metric, declared = context.metric, context.config.performance.positive
        if metric == "f1" and declared is not None:
            metric = "f1_of_class"
        if declared is not None and len(classes) == 2 and declared == classes[0]:
            probability, positive = 1 - probability, ~positive
            correction = correction.mirrored() if correction is not None else None
        found = estimate(metric, probability, positive, correction)
        if found is None or not math.isfinite(found.value):
            return None
        limit = limit_of(context, version)
        return Signal(
            check=self.name,
            model=context.model,
            deployment=context.deployment,
            window=context.window,
            value=found.value,
            limit=limit.value,
            rows=len(probability),
            fired=beyond(context.metric, found, limit.value),
            subject=context.metric,
            version=version,
            detail={
                "assumption": ASSUMPTION,
                "corrected_by": source,
                "trained": limit.trained,
                "limit_from": limit.source,
            },
            lower=found.lower,
            upper=found.upper,
        )


def _given(
    context: Context, version: int, classes: tuple[Scalar, ...]
) -> tuple[Vector, NDArray[np.bool_]] | None:
    """Return the probability of the second of two classes and whether it was predicted; None without probabilities.

    Of more than two classes it is the probability of the likeliest, which is taken to be what was predicted.
    """
    try:
        matrix = context.data.values("probability", version)
    except NotFound:
        return None
    if matrix.ndim != 2 or matrix.shape[1] != len(classes) or matrix.shape[1] < 2:
        return None
    good = np.isfinite(matrix).all(axis=1)
    matrix = np.clip(matrix[good].astype(np.float64), 0.0, 1.0)
    if len(matrix) < context.config.performance.min_rows:
        return None
    if len(classes) > 2:
        return matrix.max(axis=1), np.ones(len(matrix), bool)
    said = context.data.values("prediction", version)[good]
    positive = np.asarray(said == classes[1], bool)
    return matrix[:, 1], positive


def _correction(context: Context, version: int) -> tuple[Correction | None, str]:
    """Return how probabilities of a version held on labelled rows, and on which: see `EstimatedCheck`."""
    recent = context.results.signals(
        context.deployment,
        check="calibration",
        subject="probability",
        segment="",
        version=version,
        until=context.window.start,
        limit=WINDOWS,
    )
    bins = [one for signal in recent for one in signal.detail.get("bins", [])]
    if sum(one["rows"] for one in bins) >= LEAST_ROWS:
        found = [(one["predicted"], one["observed"], one["rows"]) for one in bins]
        return _learned(found), "labelled windows"
    profile = context.profile(version)
    if profile is not None and sum(one.rows for one in profile.calibration) >= LEAST_ROWS:
        return _learned((one.predicted, one.observed, one.rows) for one in profile.calibration), "the profile"
    return None, "nothing"


def _learned(bins: Iterable[tuple[Any, Any, Any]]) -> Correction:
    """Learn from bins of several windows: neighbours are put together until twenty are left."""
    table = np.array(sorted(bins), np.float64)
    predicted, observed, rows = table.T
    place = np.minimum((np.cumsum(rows) - rows / 2) / rows.sum() * 20, 19).astype(np.int64)
    sums = np.bincount(place, rows).astype(np.float64)
    some = sums > 0
    means = [np.bincount(place, rows * one)[some] / sums[some] for one in (predicted, observed)]
    return Correction.learn(means[0], means[1], sums[some])
