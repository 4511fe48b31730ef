"""Unseen categories: values of a categorical input that training never had."""

from __future__ import annotations

from loopwright.monitor.base import Context, Phase
from loopwright.monitor.quality import QUIET, Share, parts, signals, upper_bound
from loopwright.records import Signal

__all__ = ["UnseenCheck"]


class UnseenCheck:
    """Fires when more rows hold categories that training never had than its own tail of rare ones explains.

    Columns with too many categories for the profile to know all of them are not judged.
    """

    name = "unseen"
    phase: Phase = "inputs"

    def run(self, context: Context) -> list[Signal]:
        """Return a signal for each categorical input that fired, and for those with most unseen values beside them."""
        profile = context.profile(context.champion)
        if profile is None:
            return []
        judged = list(parts(context))
        columns = [
            column for column in profile.columns if column.tells_unseen and column.name in context.data.names
        ]
        level = QUIET / max(1, 2 * len(judged) * len(columns))
        found = []
        for segment, rows in judged:
            block = context.data.counts(context.champion, segment)
            for column in columns:
                counts = block.column(column.name)
                present = rows - counts.missing if counts is not None else 0
                trained = column.rows - column.nulls
                if counts is None or not present or not trained:
                    continue
                share = Share(
                    column.name,
                    counts.unseen,
                    present,
                    column.unseen_chance,
                    upper_bound(column.singletons, trained, level),
                    context.config.quality.unseen,
                )
                found.append((segment, share))
        return signals(context, self.name, found, level)
