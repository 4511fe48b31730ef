"""How well a score ranks: ROC AUC and average precision, with the influence of each row on them.

The influence of a row is the derivative of the statistic by the row's weight. The sum of its squares over all rows is the
statistic's variance (the infinitesimal jackknife), also of a sum of several statistics over the same rows.

References
----------
DeLong, DeLong and Clarke-Pearson (1988), Comparing the areas under two or more correlated receiver operating
characteristic curves: a nonparametric approach.
Sun and Xu (2014), Fast implementation of DeLong's algorithm.
Jaeckel (1972), The infinitesimal jackknife.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Ranked", "average_precision", "roc_auc"]


@dataclass(frozen=True, slots=True)
class Ranked:
    """A statistic between 0 and 1, and the influence of each of n rows on it, shape (n,)."""

    value: float
    influence: NDArray[np.float64]

    @property
    def variance(self) -> float:
        """The variance of the statistic."""
        return float(self.influence @ self.influence)


@dataclass(frozen=True, slots=True)
class _Groups:
    """Rows in ascending order of their score, those of equal scores together; counts have shape (groups,)."""

    order: NDArray[np.intp]
    positive: NDArray[np.bool_]
    group: NDArray[np.intp]
    positives: NDArray[np.int64]
    sizes: NDArray[np.int64]


def _grouped(positive: NDArray[np.bool_], score: NDArray[np.float64]) -> _Groups:
    order = np.argsort(score)
    ranked, hit = score[order], positive[order]
    new = np.empty(len(ranked), bool)
    new[:1] = True
    np.not_equal(ranked[1:], ranked[:-1], out=new[1:])
    starts = np.flatnonzero(new)
    sizes = np.diff(np.append(starts, len(ranked)))
    return _Groups(
        order,
        hit,
        np.repeat(np.arange(len(starts)), sizes),
        np.add.reduceat(hit, starts, dtype=np.int64),
        sizes,
    )


def roc_auc(positive: NDArray[np.bool_], score: NDArray[np.float64]) -> Ranked | None:
    """Return the chance that a positive row has a higher score than a negative one, ties counted half.

    O(n log n). The variance is DeLong's.

    Parameters
    ----------
    positive, score
        Shape (n,) each.

    Returns
    -------
    Ranked or None
        None where either kind of row has fewer than two.
    """
    hits = int(np.count_nonzero(positive))
    misses = len(positive) - hits
    if hits < 2 or misses < 2:
        return None
    rows = _grouped(positive, score)
    negatives = rows.sizes - rows.positives
    # Of each group: the share of negatives it ranks above, and of positives it ranks below.
    above = (np.cumsum(negatives) - negatives / 2) / misses
    below = 1 - (np.cumsum(rows.positives) - rows.positives / 2) / hits
    value = float(rows.positives @ above) / hits
    influence = np.empty(len(positive))
    influence[rows.order] = np.where(
        rows.positive,
        (above - value)[rows.group] / np.sqrt(hits * (hits - 1.0)),
        (below - value)[rows.group] / np.sqrt(misses * (misses - 1.0)),
    )
    return Ranked(value, influence)


def average_precision(positive: NDArray[np.bool_], score: NDArray[np.float64]) -> Ranked | None:
    """Return the mean over positive rows of the precision among the rows that score at least as high.

    O(n log n).

    Parameters
    ----------
    positive, score
        Shape (n,) each.

    Returns
    -------
    Ranked or None
        None without a positive row.
    """
    hits = int(np.count_nonzero(positive))
    if not hits:
        return None
    rows = _grouped(positive, score)
    found = np.cumsum(rows.positives[::-1])[::-1]
    asked = np.cumsum(rows.sizes[::-1])[::-1]
    precision = found / asked
    value = float(rows.positives @ precision) / hits
    # One row more changes the precision at its own score and at all scores below it.
    lost = np.cumsum(rows.positives * precision / asked)
    won = np.cumsum(rows.positives / asked) - lost
    influence = np.empty(len(positive))
    influence[rows.order] = np.where(
        rows.positive, (precision - value + won)[rows.group] / hits, -lost[rows.group] / hits
    )
    return Ranked(value, influence)
