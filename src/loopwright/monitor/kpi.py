"""KPIs of the product: one number per window, by SQL over the predictions, against its target."""

from __future__ import annotations

import math

from loopwright.errors import InvalidInput
from loopwright.monitor.base import Context, Phase
from loopwright.records import Signal

__all__ = ["KpiCheck"]


class KpiCheck:
    """Fires when a KPI misses its target."""

    name = "kpi"
    phase: Phase = "labels"

    def run(self, context: Context) -> list[Signal]:
        """Return one signal per KPI that has a value in this window."""
        signals = []
        for name, kpi in context.config.kpi.items():
            value = context.query(kpi.sql) if context.table.num_rows else None
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InvalidInput(
                    f"The KPI {name!r} gives {value!r}.", valid="Its SQL must give one number."
                )
            if not math.isfinite(value):
                continue
            above = kpi.at_most is not None and value > kpi.at_most
            below = kpi.at_least is not None and value < kpi.at_least
            limit = kpi.at_least if below or kpi.at_most is None else kpi.at_most
            signals.append(
                Signal(
                    check=self.name,
                    model=context.model,
                    deployment=context.deployment,
                    window=context.window,
                    value=float(value),
                    limit=float(limit if limit is not None else math.nan),
                    rows=context.table.num_rows,
                    fired=above or below,
                    subject=name,
                    version=context.champion,
                )
            )
        return signals
