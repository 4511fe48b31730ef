"""The release test: is the candidate worse? Valid at every look, so that looking all the time costs nothing.

Each labelled row gives one estimate of (candidate loss - champion loss), from its own loss, the chance it had of getting its
variant, and what was known of both variants before it (augmented inverse propensity weighting). So rows from canary steps
of different size mix without bias. An asymptotic confidence sequence around their weighted mean covers the true
difference at all sample sizes at once with the stated confidence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from loopwright.records import Verdict

__all__ = ["Difference", "Observations", "decide", "difference", "sample_ratio_p"]

METHOD = "asymptotic confidence sequence over AIPW scores"
#: The sample size at which the sequence is tightest.
TUNED_AT = 500
#: No verdict before each variant has this many labelled rows: the sequence is asymptotic.
LEAST = 30
#: Shares of rows that differ from the planned ones at this level mean that the split is broken.
SAMPLE_RATIO_LEVEL = 0.001


@dataclass(frozen=True, slots=True)
class Observations:
    """Labelled rows of a release in the order in which their labels arrived, n of them.

    `loss` is each row's loss (lower is better), `candidate` whether the candidate answered it, `propensity` the chance
    it had of being answered by the candidate (above 0, below 1); each of shape (n,).
    """

    loss: NDArray[np.float64]
    candidate: NDArray[np.bool_]
    propensity: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.loss)


@dataclass(frozen=True, slots=True)
class Difference:
    """Candidate loss minus champion loss, with its confidence sequence at this look."""

    estimate: float
    lower: float
    upper: float


#: Nothing is known yet. JSON has no infinity; no loss comes near this.
UNKNOWN = Difference(0.0, -1e12, 1e12)


def difference(seen: Observations, *, alpha: float = 0.05) -> Difference:
    """Estimate the difference of the two variants' mean losses.

    Parameters
    ----------
    seen
        n >= 2 rows.
    alpha
        One minus the confidence, over all looks together.

    References
    ----------
    Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2024), Time-uniform central limit theory and asymptotic confidence
    sequences, The Annals of Statistics.
    Robins, Rotnitzky and Zhao (1994), Estimation of regression coefficients when some regressors are not always observed.
    """
    n = len(seen)
    # Predictable: only rows before a row say what to expect of it.
    pooled = (np.cumsum(seen.loss) - seen.loss) / np.maximum(np.arange(n), 1)
    before_candidate = _shrunk(seen.loss, seen.candidate, pooled)
    before_champion = _shrunk(seen.loss, ~seen.candidate, pooled)
    share = seen.propensity
    score = before_candidate - before_champion
    score += np.where(seen.candidate, (seen.loss - before_candidate) / share, 0.0)
    score -= np.where(seen.candidate, 0.0, (seen.loss - before_champion) / (1 - share))
    # A row of a small canary step says little of the candidate: it counts for as much as it can say.
    weight = share * (1 - share)
    total = float(weight.sum())
    estimate = float((weight * score).sum() / total)
    spread = float(np.sqrt(max(((weight * (score - estimate)) ** 2).mean(), _least_variance(seen, weight))))
    rho2 = (-2 * np.log(alpha) + np.log(-2 * np.log(alpha)) + 1) / TUNED_AT
    radius = spread * np.sqrt(2 * (n * rho2 + 1) / rho2 * np.log(np.sqrt(n * rho2 + 1) / alpha)) / total
    return Difference(estimate, float(estimate - radius), float(estimate + radius))


def _least_variance(seen: Observations, weight: NDArray[np.float64]) -> float:
    """Return the variance that the weighted scores have when both variants vary like all rows together.

    A candidate of whose first rows none failed seems not to vary at all; without this floor, one in seven equal
    candidates with 5 % errors would be called better at some look (simulated).
    """
    return float(seen.loss.var() * weight.mean())


def _shrunk(
    values: NDArray[np.float64], chosen: NDArray[np.bool_], pooled: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the running mean of the chosen rows, drawn to the mean of all while there are few."""
    counts: NDArray[np.int64] = np.cumsum(chosen) - chosen
    sums = np.cumsum(np.where(chosen, values, 0.0)) - np.where(chosen, values, 0.0)
    return np.asarray((sums + 5 * pooled) / (counts + 5))


def sample_ratio_p(candidate: NDArray[np.bool_], propensity: NDArray[np.float64]) -> float:
    """Return the p-value of the observed split against the planned one; small means that the split is broken.

    References
    ----------
    Fabijan et al. (2019), Diagnosing sample ratio mismatch in online controlled experiments.
    """
    planned = float(propensity.sum())
    variance = float((propensity * (1 - propensity)).sum())
    if variance <= 0:
        return 1.0
    return float(chdtrc(1, (float(candidate.sum()) - planned) ** 2 / variance))


def decide(
    seen: Observations, *, margin: float, alpha: float = 0.05, looks: int = 1, least: int = LEAST
) -> Verdict:
    """Decide whether to promote, roll back, or go on.

    Promote when a candidate that is worse by `margin` or more is excluded; roll back when it is worse beyond doubt. Both at
    confidence 1 - alpha over all looks together.

    Parameters
    ----------
    margin
        How much worse the candidate may be, in units of the loss, above 0.
    looks
        How often was looked, this time included; only reported, it does not enter the result.
    """
    candidates = int(seen.candidate.sum())
    champions = len(seen) - candidates

    def verdict(kind: str, found: Difference, reason: str) -> Verdict:
        return Verdict(
            decision=kind,  # type: ignore[arg-type]
            method=METHOD,
            alpha=alpha,
            margin=margin,
            estimate=found.estimate,
            lower=found.lower,
            upper=found.upper,
            champion_rows=champions,
            candidate_rows=candidates,
            looks=looks,
            reason=reason,
        )

    if min(candidates, champions) < least:
        needed = f"each variant needs {least} labelled rows; there are {champions} and {candidates}"
        return verdict("continue", UNKNOWN, needed)
    found = difference(seen, alpha=alpha)
    span = f"difference in loss {found.estimate:+.4g} [{found.lower:+.4g}, {found.upper:+.4g}]"
    if found.lower > 0:
        return verdict("rollback", found, f"the candidate is worse: {span}")
    p = sample_ratio_p(seen.candidate, seen.propensity)
    if p < SAMPLE_RATIO_LEVEL:
        planned = float(seen.propensity.sum())
        return verdict(
            "continue",
            found,
            f"sample ratio mismatch (p = {p:.1g}): {candidates} rows, {planned:.0f} were planned",
        )
    if found.upper < margin:
        return verdict("promote", found, f"worse by {margin:g} or more is excluded: {span}")
    return verdict("continue", found, f"not decided yet: {span}")
