"""Unseen categories: values of a categorical input that training never had."""

from __future__ import annotations

from loopwright.monitor.base import Context, Phase
from loopwright.monitor.quality import QUIET, Share, parts, signals, upper_bound
from loopwright.records import Signal
from loopwright.registry.profile import ColumnProfile

__all__ = ["UnseenCheck"]


def expected(column: ColumnProfile) -> int:
    """Return how many training rows held a value that no other row had.

    Their share is what new rows are expected to have of values never seen before, without any change.

    References
    ----------
    Good (1953), The population frequencies of species and the estimation of population parameters.
    """
    return int(getattr(column, "singletons", 0))


class UnseenCheck:
    """Fires when more rows hold categories that training never had than its own tail of rare ones explains."""

    name = "unseen"
    phase: Phase = "inputs"

    def run(self, context: Context) -> list[Signal]:
        """Return a signal for each categorical input that fired, and for those with most unseen values beside them."""
        profile = context.profile(context.champion)
        if profile is None:
            return []
        judged = list(parts(context))
        columns = [
            column
            for column in profile.columns
            if column.kind == "categorical" and column.name in context.data.names
        ]
        level = QUIET / max(1, 2 * len(judged) * len(columns))
        found = []
        for segment, rows in judged:
            block = context.data.counts(context.champion, segment)
            for column in columns:
                counts = block.column(column.name)
                present = rows - int(counts.missing) if counts is not None else 0
                trained = column.rows - column.nulls
                if counts is None or not present or not trained:
                    continue
                once = expected(column)
                share = Share(
                    column.name,
                    int(counts.unseen),
                    present,
                    once / trained,
                    upper_bound(once, trained, level),
                    context.config.quality.unseen,
                    {},
                )
                found.append((segment, share))
        return signals(context, self.name, found, level)
