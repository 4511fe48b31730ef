"""The Wasserstein distance of order 1, also called the earth mover's distance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["wasserstein", "wasserstein_binned"]


def wasserstein(reference: NDArray[np.float64], current: NDArray[np.float64]) -> float:
    """Return the Wasserstein distance between two samples: the mean distance that a value has moved.

    Parameters
    ----------
    reference, current
        Finite values in ascending order, shapes (n,) and (m,), n and m >= 1.

    Returns
    -------
    float
        >= 0, in the unit of the values. Divided by the reference's standard deviation it can be compared between columns.

    References
    ----------
    Vallender (1974), Calculation of the Wasserstein distance between probability distributions on the line.
    """
    n, m = len(reference), len(current)
    if n == m:
        moved = reference - current
        return float(np.abs(moved, out=moved).mean())
    # Both quantile functions are steps: between two neighbouring ends of steps, in units of 1 / (n m), nothing changes.
    ends = np.concatenate([np.arange(1, n + 1, dtype=np.int64) * m, np.arange(1, m + 1, dtype=np.int64) * n])
    ends.sort(kind="stable")
    widths = np.diff(ends, prepend=np.int64(0))
    moved = reference[(ends - 1) // m] - current[(ends - 1) // n]
    return float((np.abs(moved, out=moved) * widths).sum() / (n * m))


def wasserstein_binned(
    edges: NDArray[np.float64],
    reference: NDArray[np.int64],
    current: NDArray[np.int64],
    low: float,
    high: float,
) -> float:
    """Return the Wasserstein distance between two samples of which only counts in the same bins are known.

    Within each bin the values are taken as evenly spread, also in the first and the last one, which reach to the ends of
    the data and are wide. Of normal samples in twenty bins it is within 0.05 standard deviations for shifts of up to
    half of one, and a sixth too large for a shift of a whole one.

    Parameters
    ----------
    edges
        Between the bins, strictly ascending, shape (b - 1,).
    reference, current
        Counts without the missing values, shape (b,).
    low, high
        The smallest and the largest value of both samples together, where the first and the last bin end.

    Returns
    -------
    float
        >= 0, in the unit of the values; NaN where a sample has no rows.
    """
    n, m = reference.sum(), current.sum()
    if not n or not m:
        return float("nan")
    cuts = np.array([low, *np.clip(edges, low, high), high])
    # The difference of the two distribution functions at each cut, and straight lines in between.
    gaps = np.append(0.0, np.cumsum(reference / n - current / m))
    a, b = gaps[:-1], gaps[1:]
    same = a * b >= 0
    total = np.abs(a) + np.abs(b)
    area = np.where(same, total / 2, (a * a + b * b) / np.where(total > 0, 2 * total, 1.0))
    return float((area * np.diff(cuts)).sum())
