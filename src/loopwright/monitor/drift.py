"""Data drift: the inputs of a window against the reference profile that was stored with the version."""

from __future__ import annotations

from collections.abc import Sequence

from loopwright.monitor.base import Context, Phase
from loopwright.monitor.comparison import Comparison, compared
from loopwright.monitor.moved import details
from loopwright.records import Signal

__all__ = ["DETAILED", "DriftCheck", "signals_of"]

#: Signals of a window with full details beside those that fired: the largest effects.
DETAILED = 12


class DriftCheck:
    """Compares each input with the champion's reference profile, in all rows and in each declared segment."""

    name = "drift"
    phase: Phase = "inputs"

    def run(self, context: Context) -> list[Signal]:
        """Return a signal for each input, and for the segments' inputs that fired or have large effects."""
        return signals_of(self.name, context, [one for one in compared(context) if not one.answers])


def signals_of(check: str, context: Context, found: Sequence[Comparison]) -> list[Signal]:
    """Return comparisons as signals: those that fired first, then by effect; only the first have details."""
    ranked = sorted(found, key=lambda one: (not one.fired, -one.value / one.limit))
    detailed = sum(one.fired for one in ranked) + DETAILED
    return [
        _signal(check, context, one, detailed=place < detailed)
        for place, one in enumerate(ranked)
        if place < detailed or not one.segment.column
    ]


def _signal(check: str, context: Context, one: Comparison, *, detailed: bool) -> Signal:
    return Signal(
        check=check,
        model=context.model,
        deployment=context.deployment,
        window=context.window,
        value=round(one.value, 6),
        limit=round(one.limit, 6),
        rows=one.rows,
        fired=one.fired,
        subject=one.profile.name,
        version=context.champion,
        detail=details(one) if detailed else {"p": one.p, "statistic": "psi"},
        segment=str(one.segment),
    )
