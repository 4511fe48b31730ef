"""The two-sample Kolmogorov-Smirnov statistic."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import kolmogorov

__all__ = ["kolmogorov_smirnov", "kolmogorov_smirnov_binned", "kolmogorov_smirnov_p"]


def kolmogorov_smirnov(reference: NDArray[np.float64], current: NDArray[np.float64]) -> float:
    """Return the largest difference between the distribution functions of two samples.

    Parameters
    ----------
    reference, current
        Values in ascending order, shapes (n,) and (m,), n and m >= 1; infinite ones are allowed, NaN is not.

    Returns
    -------
    float
        0 to 1.

    References
    ----------
    Smirnov (1939), On the estimation of the discrepancy between empirical curves of distribution for two independent
    samples.
    """
    n, m = len(reference), len(current)
    # The difference is largest at a value of one of the samples: above at one of the reference's, below at one of the
    # current's.
    above = np.arange(1, n + 1) / n - np.searchsorted(current, reference, side="right") / m
    below = np.arange(1, m + 1) / m - np.searchsorted(reference, current, side="right") / n
    return float(max(above.max(), below.max(), 0.0))


def kolmogorov_smirnov_binned(reference: NDArray[np.int64], current: NDArray[np.int64]) -> float:
    """Return a lower bound of the statistic from counts in the same ordered bins, shape (b,).

    The distribution functions are known at the edges only, and may differ more in between. NaN where a sample has no
    rows.
    """
    n, m = reference.sum(), current.sum()
    if not n or not m:
        return float("nan")
    return float(np.abs(np.cumsum(reference) / n - np.cumsum(current) / m).max())


def kolmogorov_smirnov_p(statistic: float, n_reference: int, n_current: int) -> float:
    """Return the chance of so large a statistic, or a larger one, when both samples come from one distribution.

    The limiting distribution with Stephens' correction for finite samples; for values with ties, and for the statistic of
    bins, it is too large, never too small by more than the approximation.

    References
    ----------
    Stephens (1970), Use of the Kolmogorov-Smirnov, Cramer-von Mises and related statistics without extensive tables.
    """
    root = np.sqrt(n_reference * n_current / (n_reference + n_current))
    return float(kolmogorov((root + 0.12 + 0.11 / root) * statistic))
