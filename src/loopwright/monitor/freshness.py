"""Freshness: how long ago the last prediction was made."""

from __future__ import annotations

from datetime import datetime, timedelta

from loopwright.monitor.base import Context, Phase
from loopwright.monitor.quality import signal
from loopwright.records import Signal, moment

__all__ = ["FreshnessCheck"]


class FreshnessCheck:
    """Fires when the newest prediction is older at the end of a window than is declared. Needs no row."""

    name = "freshness"
    phase: Phase = "inputs"
    empty = True

    def run(self, context: Context) -> list[Signal]:
        """Return one signal, in seconds, where a freshness is declared."""
        declared = context.config.quality.freshness
        if declared is None:
            return []
        age = (context.window.end - self._newest(context)).total_seconds()
        limit = declared.total_seconds()
        rows = context.data.rows()
        return [signal(context, self.name, "newest prediction", age, limit, rows, age > limit)]

    def _newest(self, context: Context) -> datetime:
        """Return when the last prediction was made; before the first window, its start is all that is known."""
        if context.data.rows() and "at" in context.data.types:
            found = context.data.query('select epoch_us(max("at")) from predictions', 60.0)
            if found is not None:
                return moment(int(found))
        earlier = context.results.signals(
            context.deployment, check=self.name, until=context.window.start, limit=1
        )
        if earlier:
            return earlier[-1].window.end - timedelta(seconds=earlier[-1].value)
        return context.window.start
