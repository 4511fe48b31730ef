"""Many tests at once: the false discovery rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["benjamini_hochberg", "benjamini_yekutieli"]


def benjamini_hochberg(p: NDArray[np.float64], rate: float) -> NDArray[np.bool_]:
    """Return which of n hypotheses are rejected with a false discovery rate of at most `rate`.

    For independent and for positively dependent tests. Where all hypotheses are true, the chance of any rejection is at
    most `rate`.

    Parameters
    ----------
    p
        p-values, shape (n,).
    rate
        0 to 1.

    References
    ----------
    Benjamini and Hochberg (1995), Controlling the false discovery rate.
    """
    order = np.argsort(p)
    passed = p[order] <= rate * np.arange(1, len(p) + 1) / max(1, len(p))
    last = int(np.nonzero(passed)[0].max()) + 1 if passed.any() else 0
    rejected = np.zeros(len(p), bool)
    rejected[order[:last]] = True
    return rejected


def benjamini_yekutieli(p: NDArray[np.float64], rate: float) -> NDArray[np.bool_]:
    """Return which of n hypotheses are rejected with a false discovery rate of at most `rate`, however they depend.

    References
    ----------
    Benjamini and Yekutieli (2001), The control of the false discovery rate in multiple testing under dependency.
    """
    return benjamini_hochberg(p, rate / (1.0 / np.arange(1, max(1, len(p)) + 1)).sum())
