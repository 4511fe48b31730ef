"""The Jensen-Shannon distance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["jensen_shannon"]


def jensen_shannon(reference: NDArray[np.int64], current: NDArray[np.int64]) -> float:
    """Return the Jensen-Shannon distance between two samples counted in the same bins.

    The distance, which is the square root of the divergence, with logarithms to base 2.

    Parameters
    ----------
    reference, current
        Counts in the same bins, shape (b,).

    Returns
    -------
    float
        0 (the same shares) to 1 (nothing in common); NaN where a sample has no rows.

    References
    ----------
    Lin (1991), Divergence measures based on the Shannon entropy.
    Endres and Schindelin (2003), A new metric for probability distributions.
    """
    n, m = reference.sum(), current.sum()
    if not n or not m:
        return float("nan")
    p, q = reference / n, current / m
    middle = (p + q) / 2
    divergence = (_relative(p, middle) + _relative(q, middle)) / 2
    return float(np.sqrt(max(0.0, divergence)))


def _relative(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """Return the Kullback-Leibler divergence of p from q in bits; q > 0 where p is."""
    some = p > 0
    return float((p[some] * np.log2(p[some] / q[some])).sum())
