"""The gate: candidate against champion on the same held-out labelled rows, before anybody is answered by it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from loopwright.config import GateConfig
from loopwright.errors import LoopwrightError
from loopwright.monitor.metrics import Labelled, loss_of_metric, losses, measure
from loopwright.records import GateResult
from loopwright.scoring import Scorer

__all__ = ["Held", "judge", "paired_interval", "refused"]

#: Rows that a gate needs, and that a slice needs to be judged by itself.
LEAST = 30


@dataclass(frozen=True, slots=True)
class Held:
    """Labelled rows that no training has used: typed columns and labels, n rows."""

    columns: Mapping[str, NDArray[Any]]
    actual: NDArray[Any]

    def __len__(self) -> int:
        return len(self.actual)


def judge(
    config: GateConfig, metric: str, held: Held, candidate: Scorer, champion: Scorer | None
) -> GateResult:
    """Score the held rows with both and compare row by row.

    The gate is met when the candidate scores all rows, and the upper 95 % bound of its mean loss minus the champion's,
    on the same rows, is below the margin; and no slice is clearly worse (Bonferroni over the slices). The margin is
    absolute for accuracy, F1 and log loss, and a share of the champion's mean loss for MAE and RMSE. Without a champion
    the candidate has only to score the rows.
    """
    try:
        mine = _labelled(candidate, held)
    except LoopwrightError as error:
        return refused(
            metric, len(held), config.margin, f"the candidate does not score the rows: {error.fact}"
        )
    if mine.prediction.dtype.kind == "f" and not np.isfinite(mine.prediction).all():
        return refused(
            metric, len(held), config.margin, "the candidate answers with numbers that are not finite"
        )
    value = measure(metric, mine).value
    if champion is None:
        return GateResult(
            True, metric, value, None, 0.0, 0.0, 0.0, config.margin, len(held), ("there is no champion",)
        )
    if len(held) < LEAST:
        reason = f"{len(held)} labelled rows are held out; the gate needs {LEAST}"
        return refused(metric, len(held), config.margin, reason, value)
    theirs = _labelled(champion, held)
    name = loss_of_metric(metric)
    theirs_loss = losses(name, theirs)
    paired = losses(name, mine) - theirs_loss
    relative = metric in {"mae", "rmse"}
    margin = config.margin * float(theirs_loss.mean()) if relative else config.margin
    estimate, lower, upper = paired_interval(paired, 0.975)
    reasons = (
        [] if upper < margin else [f"the candidate may be worse by {upper:.4g}; the margin is {margin:.4g}"]
    )
    reasons += _slices(config, held, paired, margin)
    return GateResult(
        passed=not reasons,
        metric=metric,
        candidate=value,
        champion=measure(metric, theirs).value,
        estimate=estimate,
        lower=lower,
        upper=upper,
        margin=margin,
        rows=len(held),
        reasons=tuple(reasons),
    )


def _labelled(scorer: Scorer, held: Held) -> Labelled:
    scores = scorer.score(held.columns)
    return Labelled(held.actual, scores.prediction, scores.probability, scorer.signature.classes)


def paired_interval(paired: NDArray[np.float64], level: float) -> tuple[float, float, float]:
    """Return the mean of n >= 2 paired differences and its two bounds, each exceeded with chance 1 - level."""
    mean = float(paired.mean())
    # The rule of three keeps the interval open where no row differs at all.
    half = max(
        float(ndtri(level)) * float(paired.std(ddof=1)) / math.sqrt(len(paired)),
        3 / len(paired) if not paired.any() else 0.0,
    )
    return mean, mean - half, mean + half


def _slices(config: GateConfig, held: Held, paired: NDArray[np.float64], margin: float) -> list[str]:
    """Return the slices within which the candidate is clearly worse."""
    judged = []
    for name in config.slices:
        if name not in held.columns:
            continue
        values = held.columns[name]
        for value in sorted(set(values.tolist()), key=str):
            chosen = values == value
            if int(chosen.sum()) >= LEAST:
                judged.append((f"{name} = {value}", paired[chosen]))
    level = 1 - 0.05 / max(1, len(judged))
    return [
        f"in the slice {label} it is worse by {found.mean():.4g} ({len(found)} rows)"
        for label, found in judged
        if paired_interval(found, level)[1] > margin
    ]


def refused(metric: str, rows: int, margin: float, reason: str, value: float = 0.0) -> GateResult:
    """Return the result of a gate that was not met for a reason that no comparison gave."""
    return GateResult(False, metric, value, None, 0.0, 0.0, 0.0, margin, rows, (reason,))
