"""A window against the reference profile: one family of tests over inputs, segments and predictions.

Something fires only when three things hold: the effect is large enough to matter (PSI at or above a floor), larger than
chance makes it at this sample size (its null quantile, at a level that 2 % of quiet windows exceed in anything tested),
and significant among all that was tested in the window (Benjamini-Hochberg over two-sample chi-square tests). Each alone
alarms all the time on quiet data: 30 tests at 5 % in 80 % of windows, a PSI above 0.1 in all windows of 200 rows.

Rows are taken as independent. Where they are not (the same customer again and again, seasons, a queue that is worked off)
chance differs more than the tests allow for; then longer windows, a higher floor, or more windows before an alert help.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from loopwright.monitor.base import ALL, Context, Segment
from loopwright.monitor.blocks import ColumnCounts
from loopwright.monitor.statistics import benjamini_hochberg, chi_square, pooled, psi, psi_null_quantile
from loopwright.registry.profile import ColumnProfile, Profile

__all__ = ["Comparison", "compared"]

#: In how many quiet windows anything may be larger than chance makes it; the level of each test follows from their number.
QUIET = 0.02


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


@dataclass(frozen=True, slots=True)
class _Pair:
    """What is compared with what, and from which effect on it matters."""

    profile: ColumnProfile
    counts: ColumnCounts
    reference: NDArray[np.int64]
    segment: Segment
    floor: float
    answers: bool = False


def compared(context: Context) -> list[Comparison]:
    """Compare the champion's rows with its profile: inputs, inputs in each declared segment, predictions.

    Segments are compared with the same segment of the training data, where the profile has counted it: a part is not
    distributed as the whole is.
    """
    profile = context.profile(context.champion)
    if profile is None:
        return []
    pairs = list(_pairs(context, profile))
    level = 1 - QUIET / max(1, len(pairs))
    found = [_compared(pair, level) for pair in pairs]
    sure = benjamini_hochberg(np.array([one.p for one in found]), context.config.drift.fdr)
    return [
        replace(one, fired=bool(significant) and one.value >= one.limit)
        for one, significant in zip(found, sure, strict=True)
    ]


def _compared(pair: _Pair, level: float) -> Comparison:
    before, now = pooled(pair.reference, pair.counts.bins)
    null = psi_null_quantile(len(before), int(before.sum()), int(now.sum()), level=level)
    return Comparison(
        pair.profile,
        pair.counts,
        pair.reference,
        pair.segment,
        pair.counts.rows,
        psi(before, now) if len(before) > 1 else 0.0,
        max(pair.floor, null),
        chi_square(before, now),
        pair.answers,
    )


def _pairs(context: Context, profile: Profile) -> Iterator[_Pair]:
    config = context.config.drift
    block = context.data.counts(context.champion)
    if block.rows < config.min_rows:
        return
    wanted = [column for column in profile.columns if _wanted(context, column)]
    for column in wanted:
        yield from _pair(column, block.column(column.name), column.comparable, ALL, config.floor)
    if config.predictions:
        floor = max(config.floor, config.prediction_floor)
        reference = profile.prediction.comparable
        yield from _pair(profile.prediction, block.prediction, reference, ALL, floor, answers=True)
    if profile.segments:
        yield from _segments(context, profile, wanted)


def _segments(context: Context, profile: Profile, wanted: Sequence[ColumnProfile]) -> Iterator[_Pair]:
    config = context.config.drift
    for segment in context.data.segments():
        before = profile.segment(segment.column, segment.value)
        if before is None or before.rows < config.min_rows:
            continue
        block = context.data.counts(context.champion, segment)
        if block.rows < config.min_rows:
            continue
        for column in wanted:
            if column.name != segment.column and column.name in before.counts:
                counts = block.column(column.name)
                yield from _pair(column, counts, before.counts[column.name], segment, config.floor)


def _pair(
    profile: ColumnProfile,
    counts: ColumnCounts | None,
    reference: Sequence[int],
    segment: Segment,
    floor: float,
    *,
    answers: bool = False,
) -> Iterator[_Pair]:
    """Yield what can be compared: nothing where either side has no rows of this column."""
    if counts is not None and counts.rows and any(reference):
        yield _Pair(profile, counts, np.asarray(reference, np.int64), segment, floor, answers)


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
