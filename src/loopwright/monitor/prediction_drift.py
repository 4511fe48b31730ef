"""Prediction drift: the model's answers in a window against its answers when it was registered."""

from __future__ import annotations

from loopwright.monitor.base import Context, Phase
from loopwright.monitor.comparison import compared
from loopwright.monitor.drift import signals_of
from loopwright.records import Signal

__all__ = ["PredictionDriftCheck"]


class PredictionDriftCheck:
    """Compares the answers with those in the champion's reference profile; one family of tests with the inputs.

    The profile's answers are to rows that the model may have learned from: those it fits better than all others, so the
    effect must be larger than an input's (`prediction_floor`). Scores are not judged for the same reason: on training
    rows they are surer than they will ever be again.
    """

    name = "prediction_drift"
    phase: Phase = "inputs"

    def run(self, context: Context) -> list[Signal]:
        """Return one signal; none where there are too few rows, no profile, or `predictions` is off."""
        return signals_of(self.name, context, [one for one in compared(context) if one.answers])
