"""Volume: how many predictions a window has, against what is declared or what earlier windows had."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from loopwright.monitor.base import Context, Phase
from loopwright.monitor.quality import signal
from loopwright.records import Signal

__all__ = ["VolumeCheck", "usual"]

#: Earlier windows that are looked at, and how many there must be before a change can be told from chance.
MOST, LEAST = 100, 20
#: A window is unusual when it is out of what one in so many is, and has half or double the rows as well.
CHANCE, FACTOR = 0.0005, 2.0
#: The share of earlier windows that must have had rows: what comes in bursts has no usual volume.
STEADY = 0.9


def usual(rows: NDArray[np.int64], level: float = CHANCE) -> tuple[float, float]:
    """Return between which numbers of rows the next window lies, when it is like earlier ones.

    Counts are compared on the scale of their square root, on which the spread of a Poisson count is the same at every
    size; what they spread more is taken from the windows themselves, and the limits are those of a new value and not of
    the mean.

    Parameters
    ----------
    rows
        Counts of n earlier windows, n >= 2.
    level
        The chance of lying outside, 0 to 1.

    References
    ----------
    Bartlett (1936), The square root transformation in analysis of variance; Hahn and Meeker (1991), Statistical
    Intervals, chapter 4 (a normal population's prediction interval for one new observation).
    """
    roots = np.sqrt(rows + 0.375)
    n = len(roots)
    # No count spreads less than a Poisson one does, whose root has a standard deviation of a half.
    spread = max(0.5, float(roots.std(ddof=1)))
    half = float(stdtrit(n - 1, 1 - level / 2)) * spread * math.sqrt(1 + 1 / n)
    centre = float(roots.mean())
    return max(0.0, centre - half) ** 2, (centre + half) ** 2


class VolumeCheck:
    """Fires when a window has fewer or more rows than is declared; without that, when it is unlike all earlier ones.

    Without a declaration it must be out of what chance makes of earlier windows, have half or double their rows, and be
    beyond all of them: traffic with a rhythm of days does not fire each morning. Needs no row.
    """

    name = "volume"
    phase: Phase = "inputs"
    empty = True

    def run(self, context: Context) -> list[Signal]:
        """Return one signal: the rows of the window, and the bound that is nearer to being broken."""
        rows = context.data.rows()
        least, most = context.config.quality.rows_at_least, context.config.quality.rows_at_most
        if least is not None or most is not None:
            below, above = least is not None and rows < least, most is not None and rows > most
            bound = most if above or least is None else least
            declared = {"declared": True, "least": least, "most": most}
            return [
                self._signal(context, rows, math.nan if bound is None else bound, below or above, declared)
            ]
        earlier = context.results.windows(
            context.deployment,
            "inputs",
            states=("judged", "empty"),
            until=context.window.start,
            limit=MOST,
        )
        length = context.window.end - context.window.start
        counts = np.array(
            [one.rows for one in earlier if one.window.end - one.window.start == length], np.int64
        )
        if len(counts) < LEAST or np.count_nonzero(counts) < STEADY * len(counts):
            return [self._signal(context, rows, math.nan, False, {"earlier": len(counts)})]
        mean = float(counts.mean())
        low, high = usual(counts)
        low = min(low, mean / FACTOR, float(counts.min()))
        high = max(high, mean * FACTOR, float(counts.max()))
        detail = {"earlier": len(counts), "mean": mean, "low": low, "high": high}
        limit = high if rows > mean else low
        return [self._signal(context, rows, limit, not low <= rows <= high, detail)]

    def _signal(
        self, context: Context, rows: int, limit: float, fired: bool, detail: dict[str, Any]
    ) -> Signal:
        return signal(context, self.name, "rows", float(rows), float(limit), rows, fired, detail=detail)
