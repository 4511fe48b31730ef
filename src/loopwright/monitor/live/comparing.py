"""One input now against the training data, from its counts: the numbers and the bars of a page."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from loopwright.monitor.blocks import ColumnCounts
from loopwright.monitor.statistics import pooled, psi, psi_null_quantile
from loopwright.registry.column_profile import ColumnProfile

__all__ = ["Bar", "Feature", "FeaturePoint", "bars", "feature_of"]

#: Bars of a categorical input, beside those of the others and the missing ones.
MOST_BARS = 20


@dataclass(frozen=True, slots=True)
class Feature:
    """One input now and in training.

    Attributes
    ----------
    rows
        How many were counted.
    psi
        The population stability index, in nats; None without rows.
    chance
        What PSI exceeds once in a thousand times when nothing has changed, at this many rows; None where nothing can be
        told.
    missing, unseen, outside
        Shares of the rows, 0 to 1: without a value, with a category or with a number outside of the range that the
        training data did not have. `missing_before` is the share in training.
    mean, mean_before, std_before
        None for a categorical input.
    """

    name: str
    kind: Literal["numeric", "categorical"]
    rows: int
    psi: float | None
    chance: float | None
    missing: float
    missing_before: float
    unseen: float
    outside: float
    mean: float | None
    mean_before: float | None
    std_before: float | None


@dataclass(frozen=True, slots=True)
class FeaturePoint:
    """One input in one step of time; see `Feature`."""

    start: datetime
    rows: int
    psi: float | None
    missing: float
    unseen: float
    outside: float
    mean: float | None

    @classmethod
    def of(cls, start: datetime, reference: ColumnProfile, counts: ColumnCounts | None) -> FeaturePoint:
        """Return the point of a step from its counts."""
        now = feature_of(reference, counts)
        return cls(start, now.rows, now.psi, now.missing, now.unseen, now.outside, now.mean)


@dataclass(frozen=True, slots=True)
class Bar:
    """One bin, with its share of the rows in training and now, both 0 to 1. The bounds of a number's bin are (low, high]."""

    label: str
    before: float
    now: float
    low: float | None = None
    high: float | None = None


def feature_of(reference: ColumnProfile, counts: ColumnCounts | None) -> Feature:
    """Compare the counts of an input, in the bins of its profile, with the profile."""
    rows = counts.rows if counts else 0
    value: float | None = None
    chance: float | None = None
    if counts and rows:
        before, now = pooled(np.asarray(reference.comparable, np.int64), counts.bins)
        value = psi(before, now)
        bound = psi_null_quantile(len(before), int(before.sum()), int(now.sum()))
        chance = bound if math.isfinite(bound) else None
    share = 1 / rows if rows else 0.0
    return Feature(
        name=reference.name,
        kind=reference.kind,
        rows=rows,
        psi=value,
        chance=chance,
        missing=counts.missing * share if counts else 0.0,
        missing_before=reference.nulls / max(1, reference.rows),
        unseen=counts.unseen * share if counts else 0.0,
        outside=(counts.below + counts.above) * share if counts else 0.0,
        mean=counts.mean if counts else None,
        mean_before=reference.mean,
        std_before=reference.std,
    )


def bars(reference: ColumnProfile, counts: ColumnCounts | None) -> tuple[Bar, ...]:
    """Return the distributions in training and now as bars, the missing values last."""
    before = _shares(np.asarray(reference.reference, np.int64))
    now = _shares(counts.bins if counts else np.zeros(len(before), np.int64))
    last = Bar("missing", float(before[-1]), float(now[-1]))
    if reference.kind == "numeric":
        edges = [None, *reference.edges, None]
        pairs = itertools.pairwise(edges)
        found = [
            Bar(_range(low, high), float(one), float(other), low, high)
            for (low, high), one, other in zip(pairs, before[:-1], now[:-1], strict=True)
        ]
        return (*found, last)
    order = np.argsort(-np.maximum(before[:-2], now[:-2]), kind="stable")
    shown, rest = order[:MOST_BARS], order[MOST_BARS:]
    found = [
        Bar(reference.categories[place], float(before[place]), float(now[place])) for place in shown.tolist()
    ]
    others = Bar("others", float(before[rest].sum() + before[-2]), float(now[rest].sum() + now[-2]))
    return (*found, others, last)


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    return counts / max(1, int(counts.sum()))


def _range(low: float | None, high: float | None) -> str:
    if low is None:
        return "any" if high is None else f"to {high:.4g}"
    return f"over {low:.4g}" if high is None else f"{low:.4g} to {high:.4g}"
