"""A window against the reference profile: one family of tests over inputs, segments and predictions.

Something fires only when three things hold: the effect is large enough to matter (PSI at or above a floor), larger than
chance makes it at this sample size (its null quantile), and significant among all that was tested in the window
(Benjamini-Hochberg over two-sample chi-square tests). Each alone alarms all the time on quiet data: 30 tests at 5 % in
80 % of windows, a PSI above 0.1 in half of all windows of 200 rows.

Rows are taken as independent. Where they are not (the same customer again and again, seasons, a queue that is worked off)
chance differs more than the tests allow for; then longer windows, a higher floor, or more windows before an alert help.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from loopwright.config import DriftConfig
from loopwright.monitor.base import ALL, Context, Segment
from loopwright.monitor.blocks import Block, ColumnCounts
from loopwright.monitor.statistics import benjamini_hochberg, chi_square, pooled, psi, psi_null_quantile
from loopwright.registry.profile import ColumnProfile, Profile

__all__ = ["Comparison", "compared"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One column of a window against its reference.

    Attributes
    ----------
    reference
        The counts it is compared with, laid out as `ColumnProfile.reference`.
    value, limit
        PSI, and what it must reach to fire; the limit is infinite where there are too few rows to tell.
    p
        Of the two-sample chi-square test.
    answers
        Whether it is the model's answers and no input.
    fired
        Whether the effect reaches its limit and is significant among all that was tested.
    """

    profile: ColumnProfile
    counts: ColumnCounts
    reference: NDArray[np.int64]
    segment: Segment
    rows: int
    value: float
    limit: float
    p: float
    answers: bool = False
    fired: bool = False


def compared(context: Context) -> list[Comparison]:
    """Compare the champion's rows with its profile: inputs, inputs in each declared segment, predictions.

    Segments are compared with the same segment of the training data, where the profile has counted it: a part is not
    distributed as the whole is.
    """
    profile = context.profile(context.champion)
    if profile is None:
        return []
    found = list(_all(context, profile))
    sure = benjamini_hochberg(np.array([one.p for one in found]), context.config.drift.fdr)
    return [_judged(one, bool(significant)) for one, significant in zip(found, sure, strict=True)]


def _judged(one: Comparison, significant: bool) -> Comparison:
    return replace(one, fired=significant and one.value >= one.limit)


def _all(context: Context, profile: Profile) -> Iterator[Comparison]:
    config = context.config.drift
    block = context.data.counts(context.champion)
    if block.rows < config.min_rows:
        return
    wanted = [column for column in profile.columns if _wanted(context, column)]
    for column in wanted:
        reference = np.asarray(column.comparable, np.int64)
        yield from _one(block, column, reference, ALL, config.floor)
    if config.predictions:
        reference = np.asarray(profile.prediction.comparable, np.int64)
        floor = max(config.floor, config.prediction_floor)
        yield from _one(block, profile.prediction, reference, ALL, floor, answers=True)
    yield from _segments(context, profile, wanted, config)


def _segments(
    context: Context, profile: Profile, wanted: list[ColumnProfile], config: DriftConfig
) -> Iterator[Comparison]:
    if not profile.segments:
        return
    for segment in context.data.segments():
        before = profile.segment(segment.column, segment.value)
        if before is None or before.rows < config.min_rows:
            continue
        block = context.data.counts(context.champion, segment)
        if block.rows < config.min_rows:
            continue
        for column in wanted:
            if column.name != segment.column and column.name in before.counts:
                reference = np.asarray(before.counts[column.name], np.int64)
                yield from _one(block, column, reference, segment, config.floor)


def _wanted(context: Context, column: ColumnProfile) -> bool:
    config = context.config.drift
    if column.name in config.ignore:
        return False
    if config.columns:
        return column.name in config.columns
    # Time moves on: a moment always lies beyond those of the training data.
    signature = context.signature
    return signature is None or not any(
        one.name == column.name and one.type == "datetime" for one in signature.inputs
    )


def _one(
    block: Block,
    profile: ColumnProfile,
    reference: NDArray[np.int64],
    segment: Segment,
    floor: float,
    *,
    answers: bool = False,
) -> Iterator[Comparison]:
    counts = block.prediction if answers else block.column(profile.name)
    if counts is None or not counts.rows or not reference.sum():
        return
    before, now = pooled(reference, counts.bins)
    null = psi_null_quantile(len(before), int(before.sum()), int(now.sum()))
    yield Comparison(
        profile,
        counts,
        reference,
        segment,
        counts.rows,
        psi(before, now) if len(before) > 1 else 0.0,
        max(floor, null) if math.isfinite(null) else math.inf,
        chi_square(before, now),
        answers,
    )
