"""The two-sample chi-square test of homogeneity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

__all__ = ["EXPECTED", "chi_square", "pooled"]

#: Counts that are expected at least in a bin of the smaller sample; smaller bins are pooled.
EXPECTED = 5.0


def pooled(
    reference: NDArray[np.int64], current: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pool the bins in which fewer than 5 rows are expected in either sample into one.

    What is pooled follows from the totals of both samples alone, which say nothing about how they differ: so pooling does
    not make the test wrong.

    Parameters
    ----------
    reference, current
        Counts in the same bins, shape (b,).

    Returns
    -------
    tuple of arrays
        Counts in at most b bins; one bin where nothing can be told apart.

    References
    ----------
    Cochran (1954), Some methods for strengthening the common chi-square tests.
    """
    total = reference + current
    smaller = min(reference.sum(), current.sum()) / max(1, total.sum())
    thin = total * smaller < EXPECTED
    if not thin.any():
        return reference, current
    rest = np.array([reference[thin].sum(), current[thin].sum()])
    kept = np.array([reference[~thin], current[~thin]])
    together = np.column_stack([kept, rest])
    if rest.sum() * smaller < EXPECTED and kept.shape[1]:
        smallest = int(kept.sum(axis=0).argmin())
        kept[:, smallest] += rest
        together = kept
    return together[0], together[1]


def chi_square(reference: NDArray[np.int64], current: NDArray[np.int64]) -> float:
    """Return the p-value of the two-sample chi-square test of homogeneity, 0 to 1.

    Both samples count as random; a test that takes the reference as exact alarms on nearly every quiet window.

    Parameters
    ----------
    reference, current
        Counts in the same bins, shape (b,), as `pooled` gives them.

    References
    ----------
    Pearson (1911), On the probability that two independent distributions of frequency are really samples from the
    same population.
    """
    n, m = reference.sum(), current.sum()
    if len(reference) < 2 or not n or not m:
        return 1.0
    total = reference + current
    statistic = ((np.sqrt(m / n) * reference - np.sqrt(n / m) * current) ** 2 / np.maximum(total, 1)).sum()
    return float(chdtrc(len(reference) - 1, statistic))
