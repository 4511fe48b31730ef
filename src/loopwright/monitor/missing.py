"""Missing values: inputs that have no value more often than in training."""

from __future__ import annotations

from loopwright.monitor.base import Context, Phase
from loopwright.monitor.quality import QUIET, Share, parts, signals, upper_bound
from loopwright.records import Signal

__all__ = ["MissingCheck"]


class MissingCheck:
    """Fires when the share of rows without a value of an input has risen."""

    name = "missing"
    phase: Phase = "inputs"

    def run(self, context: Context) -> list[Signal]:
        """Return a signal for each input that fired, and for those that miss most beside them."""
        profile = context.profile(context.champion)
        if profile is None:
            return []
        judged = list(parts(context))
        columns = [column for column in profile.columns if column.name in context.data.names]
        level = QUIET / max(1, 2 * len(judged) * len(columns))
        found = []
        for segment, rows in judged:
            block = context.data.counts(context.champion, segment)
            for column in columns:
                counts = block.column(column.name)
                if counts is None or not counts.rows:
                    continue
                trained = column.nulls / max(1, column.rows)
                bound = upper_bound(column.nulls, max(1, column.rows), level)
                share = Share(
                    column.name,
                    counts.missing,
                    rows,
                    trained,
                    bound,
                    context.config.quality.missing,
                )
                found.append((segment, share))
        return signals(context, self.name, found, level)
