"""Real performance: the metric over rows whose label has arrived, per version, against a limit."""

from __future__ import annotations

import numpy as np

from loopwright.config import METRICS
from loopwright.monitor.base import Context, Phase, column, labelled_rows
from loopwright.monitor.metrics import measure
from loopwright.records import Signal

__all__ = ["PerformanceCheck", "limit_of"]


def limit_of(context: Context, version: int) -> float | None:
    """Return from which value on the metric is too bad: declared, or from the value at training time."""
    config = context.config.performance
    if config.worse_than is not None:
        return config.worse_than
    profile = context.profile(version)
    trained = profile.performance.get(context.metric) if profile else None
    if trained is None:
        return None
    worse = 1 - config.margin if METRICS[context.metric] == "higher" else 1 + config.margin
    return trained * worse


class PerformanceCheck:
    """Fires when the whole 95 % interval of the metric is on the wrong side of the limit."""

    name = "performance"
    phase: Phase = "labels"

    def run(self, context: Context) -> list[Signal]:
        """Return one signal per version that has enough labelled rows in the window."""
        signals = []
        if not context.table.num_rows:
            return []
        versions = column(context.table, "version")
        for version in np.unique(versions).tolist():
            rows = labelled_rows(context.table, version=version)
            limit = limit_of(context, version)
            if len(rows) < context.config.performance.min_rows or limit is None:
                continue
            found = measure(context.metric, rows)
            higher = METRICS[context.metric] == "higher"
            signals.append(
                Signal(
                    check=self.name,
                    model=context.model,
                    deployment=context.deployment,
                    window=context.window,
                    value=found.value,
                    limit=limit,
                    rows=len(rows),
                    fired=found.upper < limit if higher else found.lower > limit,
                    subject=context.metric,
                    version=int(version),
                    detail={
                        "lower": found.lower,
                        "upper": found.upper,
                        "unlabelled": int((versions == version).sum()) - len(rows),
                    },
                )
            )
        return signals
