"""The population stability index."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["psi"]


def psi(reference: NDArray[np.int64], current: NDArray[np.int64]) -> float:
    """Return the population stability index between two samples counted in the same bins.

    Half a row is added to each bin, so that an empty one does not make it infinite.

    Parameters
    ----------
    reference, current
        Counts in the same bins, shape (b,), b >= 1.

    Returns
    -------
    float
        Natural-log PSI, >= 0, unitless; 0 means the same shares in every bin.

    Examples
    --------
    >>> psi(np.array([10, 20]), np.array([10, 20]))
    0.0

    References
    ----------
    Siddiqi (2006), Credit Risk Scorecards.
    """
    p = (reference + 0.5) / (reference.sum() + 0.5 * len(reference))
    q = (current + 0.5) / (current.sum() + 0.5 * len(current))
    return float(((q - p) * np.log(q / p)).sum())
