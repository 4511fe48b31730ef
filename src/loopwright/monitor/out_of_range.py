"""Values out of range: beyond what training had, or what is declared."""

from __future__ import annotations

import numpy as np
from scipy.special import betaincinv

from loopwright.monitor.base import ALL, Context, Phase, Segment
from loopwright.monitor.quality import MIN_ROWS, QUIET, Share, parts, signals, upper_bound
from loopwright.predictions.schema import INPUT
from loopwright.records import Signal
from loopwright.registry.profile import ColumnProfile

__all__ = ["OutOfRangeCheck", "coverage_bound"]


def coverage_bound(rows: int, level: float) -> float:
    """Return what share of new values can lie beyond the least and the greatest of `rows` values, without any change.

    Returns
    -------
    float
        Not exceeded with confidence 1 - level, 0 to 1. Exact for continuous values, too large for others.

    References
    ----------
    Wilks (1941), Determination of sample sizes for setting tolerance limits.
    """
    return 1.0 if rows < 2 else float(betaincinv(2, rows - 1, 1 - level))


class OutOfRangeCheck:
    """Fires when too many values lie below or above all of the training data, are infinite, or break a declared range."""

    name = "out_of_range"
    phase: Phase = "inputs"

    def run(self, context: Context) -> list[Signal]:
        """Return a signal for each numeric input that fired, and for those most out of range beside them.

        A declared range replaces that of the training data.
        """
        judged = list(parts(context))
        declared = context.config.quality.ranges
        profile = context.profile(context.champion)
        columns = [
            column
            for column in (profile.columns if profile is not None else ())
            if column.kind == "numeric" and column.name in context.data.names and column.name not in declared
        ]
        level = QUIET / max(1, 3 * len(judged) * (len(columns) + len(declared)))
        found = [
            (segment, share)
            for segment, rows in judged
            for column in columns
            if (share := self._trained(context, column, segment, rows, level)) is not None
        ]
        for name, (low, high) in declared.items():
            share = self._declared(context, name, low, high)
            found += [(ALL, share)] if share is not None else []
        return signals(context, self.name, found, level)

    def _trained(
        self, context: Context, column: ColumnProfile, segment: Segment, rows: int, level: float
    ) -> Share | None:
        counts = context.data.counts(context.champion, segment).column(column.name)
        if counts is None or column.minimum is None or column.maximum is None:
            return None
        present, trained = rows - counts.missing, column.rows - column.nulls
        if not present or not trained:
            return None
        bound = coverage_bound(trained - column.infinite, level)
        if column.infinite:
            bound = min(1.0, bound + upper_bound(column.infinite, trained, level))
        return Share(
            column.name,
            counts.below + counts.above,
            present,
            column.infinite / trained,
            bound,
            context.config.quality.out_of_range,
            {
                "below": counts.below,
                "above": counts.above,
                "infinite": counts.infinite,
                "low": column.minimum,
                "high": column.maximum,
            },
        )

    def _declared(self, context: Context, name: str, low: float, high: float) -> Share | None:
        if name not in context.data.names:
            return None
        values = context.data.values(INPUT + name, context.champion)
        if values.dtype.kind not in "fi":
            return None
        present = int(np.count_nonzero(values == values))
        if present < MIN_ROWS:
            return None
        below, above = int(np.count_nonzero(values < low)), int(np.count_nonzero(values > high))
        allowed = context.config.quality.out_of_range
        # What is declared is no estimate: the true share itself must exceed what is allowed.
        return Share(
            name,
            below + above,
            present,
            0.0,
            allowed,
            allowed,
            {"below": below, "above": above, "low": low, "high": high, "declared": True},
        )
