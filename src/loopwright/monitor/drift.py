"""Data drift: the inputs of a window against the reference profile that was stored with the version.

A feature fires only when three things hold: the effect is large enough to matter (PSI at or above a floor), larger than
chance makes it at this sample size (its null quantile), and significant among all features tested at once
(Benjamini-Hochberg over two-sample chi-square tests). Each alone alarms all the time on quiet data.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, chdtri

from loopwright.monitor.base import Context, Phase, column
from loopwright.records import Signal
from loopwright.registry.profile import histogram

__all__ = ["DriftCheck", "benjamini_hochberg", "chi_square", "pooled", "psi", "psi_null_quantile"]

#: Counts that are expected at least in a bin of the smaller sample; smaller bins are pooled.
EXPECTED = 5.0
#: Signals kept per window beside those that fired: the largest effects, for the page.
KEPT = 12


def pooled(
    reference: NDArray[np.int64], current: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pool the bins in which fewer than 5 rows are expected in either sample into one.

    Parameters
    ----------
    reference, current
        Counts in the same bins, shape (b,).

    Returns
    -------
    tuple of arrays
        Counts in at most b bins; one bin where nothing can be told apart.
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


def psi(reference: NDArray[np.int64], current: NDArray[np.int64]) -> float:
    """Return the population stability index between two samples counted in the same bins.

    Half a row is added to each bin, so that an empty one does not make it infinite.

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


def psi_null_quantile(bins: int, n_reference: int, n_current: int, *, level: float = 0.999) -> float:
    """Return what PSI exceeds with chance 1 - level when nothing has changed.

    Under no change PSI is distributed as (1/n + 1/m) times chi-square with bins - 1 degrees of freedom.

    References
    ----------
    Yurdakul and Naranjo (2020), Statistical properties of the population stability index.
    """
    if bins < 2:
        return float("inf")
    return float((1 / n_reference + 1 / n_current) * chdtri(bins - 1, 1 - level))


def chi_square(reference: NDArray[np.int64], current: NDArray[np.int64]) -> float:
    """Return the p-value of the two-sample chi-square test of homogeneity, 0 to 1.

    Both samples count as random; a test that takes the reference as exact alarms on nearly every quiet window.

    References
    ----------
    Pearson (1911), On the probability that two independent distributions of frequency are really samples from the
    same population.
    """
    if len(reference) < 2:
        return 1.0
    n, m = reference.sum(), current.sum()
    total = reference + current
    statistic = ((np.sqrt(m / n) * reference - np.sqrt(n / m) * current) ** 2 / np.maximum(total, 1)).sum()
    return float(chdtrc(len(reference) - 1, statistic))


def benjamini_hochberg(p: NDArray[np.float64], rate: float) -> NDArray[np.bool_]:
    """Return which of n hypotheses are rejected with a false discovery rate of at most `rate`.

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


class DriftCheck:
    """Compares each input with the reference profile of the champion."""

    name = "drift"
    phase: Phase = "inputs"

    def run(self, context: Context) -> list[Signal]:
        """Return a signal per feature that fired, and for the largest effects of the others."""
        config = context.config.drift
        profile = context.profile(context.champion)
        if profile is None or context.table.num_rows < config.min_rows:
            return []
        tested = []
        for reference in profile.columns:
            name = f"input_{reference.name}"
            if name not in context.table.column_names or (
                config.columns and reference.name not in config.columns
            ):
                continue
            before, now = pooled(
                np.asarray(reference.reference, np.int64), histogram(reference, column(context.table, name))
            )
            limit = max(config.floor, psi_null_quantile(len(before), int(before.sum()), int(now.sum())))
            tested.append((reference.name, psi(before, now), limit, chi_square(before, now)))
        if not tested:
            return []
        significant = benjamini_hochberg(np.array([p for *_, p in tested]), config.fdr)
        signals = [
            Signal(
                check=self.name,
                model=context.model,
                deployment=context.deployment,
                window=context.window,
                value=round(value, 6),
                limit=round(limit, 6),
                rows=context.table.num_rows,
                fired=bool(value >= limit and sure),
                subject=name,
                version=context.champion,
                detail={"p": p, "statistic": "psi"},
            )
            for (name, value, limit, p), sure in zip(tested, significant, strict=True)
        ]
        signals.sort(key=lambda signal: (not signal.fired, -signal.value))
        fired = sum(signal.fired for signal in signals)
        return signals[: fired + KEPT]
