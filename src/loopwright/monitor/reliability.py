"""How well probabilities hold: reliability bins, the calibration error, and whether chance explains it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, chndtr, chndtrinc

from loopwright.monitor.intervals import LEVEL, Measured, critical

__all__ = ["Reliability", "reliability", "spiegelhalter"]

#: So many rows of each kind are expected in a bin at least: with fewer, chi-square is a poor account of chance.
LEAST_EXPECTED = 3.0
MOST_BINS = 15
#: Above this the noncentral chi-square distribution is normal for all that matters, and its inverse slow.
_LARGE = 1e4


@dataclass(frozen=True, slots=True)
class Reliability:
    """Rows in bins of what was predicted for them; all arrays have shape (bins,).

    Attributes
    ----------
    predicted
        The mean probability that was predicted.
    observed
        The share of the rows that it came true for.
    rows
        How many rows.
    chance
        The variance of one row's outcome, were the predictions right: the mean of p (1 - p).
    """

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    rows: NDArray[np.int64]
    chance: NDArray[np.float64]

    @property
    def expected_error(self) -> float:
        """The mean distance of predicted and observed over the rows, as it is: above 0 by chance alone.

        Naeini, Cooper and Hauskrecht (2015), Obtaining well calibrated probabilities using Bayesian binning.
        """
        return float(self.rows @ np.abs(self.observed - self.predicted) / self.rows.sum())

    def error(self, level: float = LEVEL) -> Measured:
        """Return the root mean square distance of predicted and observed, without what chance adds to it.

        The sum of squared distances of n rows is distributed as a multiple of noncentral chi-square; its interval is the
        set of noncentralities that do not make the sum improbable, which is right at and near 0 too.

        References
        ----------
        Kumar, Liang and Ma (2019), Verified uncertainty calibration (the debiased l2 error).
        Satterthwaite (1946), An approximate distribution of estimates of variance components.
        """
        hits = self.observed * self.rows
        # Two rows as predicted are added: without them a bin where all or none came true would have no variance at all.
        share = (hits + 2 * self.predicted) / (self.rows + 2)
        variance = share * (1 - share)
        total, scale, degrees = self._scaled(variance)
        value = math.sqrt(max(0.0, scale * (total - degrees)))
        tail = (1 - level) / 2
        lower, upper = (_noncentrality(total, degrees, one) for one in (1 - tail, tail))
        return Measured(value, math.sqrt(scale * lower), math.sqrt(scale * upper))

    def p_value(self) -> float:
        """Return the chance of bins as far off as these, were the predictions right.

        The test of Hosmer and Lemeshow (1980), Goodness of fit tests for the multiple logistic regression model, for a
        model that was fitted on other rows.
        """
        squares = self.rows * (self.observed - self.predicted) ** 2 / np.maximum(self.chance, 1e-12)
        return float(chdtrc(len(self.rows), squares.sum()))

    def _scaled(self, variance: NDArray[np.float64]) -> tuple[float, float, float]:
        """Return the sum of squares in units of a chi-square variable, the unit, and its degrees of freedom."""
        n = float(self.rows.sum())
        squares = float(self.rows @ (self.observed - self.predicted) ** 2) / n
        variance = np.maximum(variance, 1e-12)
        scale = float((variance**2).sum() / variance.sum()) / n
        return squares / scale, scale, float(variance.sum() ** 2 / (variance**2).sum())


def _noncentrality(total: float, degrees: float, below: float) -> float:
    """Return the noncentrality at which a share `below` of chi-square lies below `total`; 0 where none does."""
    if total > _LARGE:
        away = total - degrees
        return max(0.0, away - critical(2 * below - 1) * math.sqrt(2 * degrees + 4 * away))
    if chndtr(total, degrees, 0.0) <= below:
        return 0.0
    return float(chndtrinc(total, degrees, below))


def reliability(predicted: NDArray[np.float64], came_true: NDArray[np.bool_]) -> Reliability:
    """Sort n rows into bins of about equally many, with rows of one predicted probability in one bin.

    There are about as many bins as the cube root of n, 15 at most; neighbours are put together until 3 rows of each outcome
    are expected in a bin.

    Parameters
    ----------
    predicted, came_true
        Shape (n,), n >= 1: probabilities between 0 and 1, and outcomes.
    """
    n = len(predicted)
    bins = int(np.clip(round(n ** (1 / 3)), 1, MOST_BINS))
    inner = (np.arange(1, bins) * n) // bins
    edges = np.unique(np.partition(predicted, inner)[inner]) if bins > 1 else np.empty(0)
    place = np.searchsorted(edges, predicted, side="left")
    size = len(edges) + 1
    rows = np.bincount(place, minlength=size).astype(np.float64)
    columns = [
        np.bincount(place, weights, size) for weights in (predicted, came_true, predicted * (1 - predicted))
    ]
    merged = _merged(np.array([rows, *columns]))
    rows = merged[0]
    return Reliability(merged[1] / rows, merged[2] / rows, rows.astype(np.int64), merged[3] / rows)


def _merged(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Put neighbouring bins together that are too small; `sums` has a column for each bin: rows, predicted and others."""
    kept: list[NDArray[np.float64]] = []
    for column in sums.T:
        if kept and _small(kept[-1]):
            kept[-1] = kept[-1] + column
        else:
            kept.append(column)
    if len(kept) > 1 and _small(kept[-1]):
        last = kept.pop()
        kept[-1] = kept[-1] + last
    return np.array(kept).T


def _small(column: NDArray[np.float64]) -> bool:
    return bool(min(column[1], column[0] - column[1]) < LEAST_EXPECTED)


def spiegelhalter(predicted: NDArray[np.float64], came_true: NDArray[np.bool_]) -> float:
    """Return a z score that is standard normal when the probabilities are right: positive where they are too extreme.

    References
    ----------
    Spiegelhalter (1986), Probabilistic prediction in patient management and clinical trials.
    """
    weights = 1 - 2 * predicted
    spread = float((weights**2) @ (predicted * (1 - predicted)))
    return float((came_true - predicted) @ weights) / math.sqrt(spread) if spread > 0 else 0.0
