"""Confidence intervals, one function for each kind of quantity. All two-sided, by default at 95 %."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrik, ndtri, stdtrit

__all__ = [
    "LEVEL",
    "UNDEFINED",
    "Measured",
    "critical",
    "effective",
    "mean",
    "median",
    "mover",
    "ordered",
    "positive",
    "wilson",
]

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Measured:
    """A quantity with its confidence interval, in its own unit.

    All three are NaN where the rows do not define it, such as the recall of a class that does not occur.
    """

    value: float
    lower: float
    upper: float


#: What the rows do not define.
UNDEFINED = Measured(math.nan, math.nan, math.nan)


def critical(level: float) -> float:
    """Return how many standard errors to each side hold a share `level` (0 to 1) of a normal distribution."""
    return float(ndtri(0.5 + level / 2))


def wilson(share: Any, n: Any, level: float = LEVEL) -> tuple[Any, Any]:
    """Return the bounds of a share of n > 0 independent trials; numbers, or arrays of one shape.

    References
    ----------
    Wilson (1927), Probable inference, the law of succession, and statistical inference.
    """
    square = critical(level) ** 2
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = np.sqrt(square * (share * (1 - share) / n + square / (4 * n**2))) / (1 + square / n)
    # At a share of 0 or 1 the bound is that share, whatever rounding makes of it.
    lower = np.where(np.asarray(share) <= 0, 0.0, np.maximum(0.0, centre - half))
    upper = np.where(np.asarray(share) >= 1, 1.0, np.minimum(1.0, centre + half))
    return lower, upper


def effective(value: float, variance: float, n: float, level: float = LEVEL) -> Measured:
    """Return Wilson's interval of a statistic between 0 and 1 for the number of trials that have its variance.

    It stays inside 0 to 1 and is not symmetric near the ends, where a normal interval covers too little.

    Parameters
    ----------
    variance
        Of the statistic; 0 where all rows agree, and then `n` trials are taken.

    References
    ----------
    Dean and Pagano (2015), Evaluating confidence interval methods for binomial proportions in clustered surveys.
    """
    trials = value * (1 - value) / variance if variance > 0 and 0 < value < 1 else n
    lower, upper = wilson(value, trials, level)
    return Measured(value, float(lower), float(upper))


def mean(values: NDArray[np.float64], level: float = LEVEL) -> Measured:
    """Return the mean of n values with Student's interval; without an end for a single value."""
    n = len(values)
    found = float(values.mean())
    if n < 2:
        return Measured(found, -math.inf, math.inf)
    half = float(stdtrit(n - 1, 0.5 + level / 2)) * float(values.std(ddof=1)) / math.sqrt(n)
    return Measured(found, found - half, found + half)


def positive(value: float, error: float, n: int, level: float = LEVEL) -> Measured:
    """Return the interval of a quantity above 0 with a standard error, symmetric on the logarithmic scale.

    The sum of squares of n errors is skewed to the right; its logarithm is much less so.
    """
    if not value > 0:
        return Measured(value, value, value)
    quantile = float(stdtrit(n - 1, 0.5 + level / 2)) if n > 1 else math.inf
    factor = math.exp(min(quantile * error / value, 700.0)) if error > 0 else 1.0
    return Measured(value, value / factor, value * factor)


def ordered(values: NDArray[np.float64], q: float, level: float = LEVEL) -> Measured:
    """Return the quantile `q` of n values, between the two order statistics that hold it whatever the distribution.

    References
    ----------
    Conover (1999), Practical Nonparametric Statistics, section 3.2.
    """
    n = len(values)
    tail = (1 - level) / 2
    low = max(0, int(np.floor(bdtrik(tail, n, q))))
    high = min(n - 1, int(np.ceil(bdtrik(1 - tail, n, q))))
    parts = np.partition(values, [low, high])
    return Measured(float(np.quantile(values, q)), float(parts[low]), float(parts[high]))


def median(values: NDArray[np.float64], level: float = LEVEL) -> Measured:
    """Return the median with its interval: see `ordered`."""
    return ordered(values, 0.5, level)


def mover(values: NDArray[np.float64], bounds: tuple[NDArray[np.float64], NDArray[np.float64]]) -> Measured:
    """Return the mean of k independent quantities from their own intervals.

    Parameters
    ----------
    values, bounds
        Shape (k,) each, the bounds at the level that the interval of the mean is to have.

    References
    ----------
    Zou and Donner (2008), Construction of confidence limits about effect measures: a general approach.
    """
    k = len(values)
    centre = float(values.mean())
    down = float(np.sqrt(((values - bounds[0]) ** 2).sum())) / k
    up = float(np.sqrt(((bounds[1] - values) ** 2).sum())) / k
    return Measured(centre, max(0.0, centre - down), min(1.0, centre + up))
