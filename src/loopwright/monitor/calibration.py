"""Calibration: whether what a model gives as probability, or as a number, is right on average.

A classification is held against the calibration error (root mean square, without what chance adds): it fires when that is
at least 0.03 and chance gives bins as far off in less than 1 window in 100. With segments, that 1 % is the false discovery
rate over all of them. What the error was when the version was registered is shown and excuses nothing: training rows tell
little of it, and probabilities that never held are worth knowing of.

A regression is held against its bias: the mean error in units of the spread of the labels. It fires when the bias is at
least 0.1 and significant at the same level. Of a model that gives quantiles only the share of labels below each would tell;
one label does not judge several outputs yet, so there is no signal for them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtr

from loopwright.monitor.base import ALL, Context, Phase, Segment
from loopwright.monitor.intervals import Measured, mean
from loopwright.monitor.metrics import Labelled, Measures
from loopwright.monitor.reliability import Reliability, reliability, spiegelhalter
from loopwright.monitor.statistics.fdr import benjamini_hochberg
from loopwright.records import Signal, Task
from loopwright.registry.profile import Profile

__all__ = ["CalibrationCheck"]

#: An error of a probability that matters, and a mean error that does, in standard deviations of the labels.
FLOOR, BIAS_FLOOR = 0.03, 0.1
#: How often chance alone may fire, in a window of one version.
FDR = 0.01
#: Bins need rows: with fewer there is no judging.
LEAST_ROWS = 100


@dataclass(frozen=True, slots=True)
class _Found:
    """How far off a part's predictions are, the floor it is held against, and the chance of as much by chance."""

    segment: Segment
    rows: int
    measured: Measured
    limit: float
    p_value: float
    detail: dict[str, Any]


class CalibrationCheck:
    """Fires when probabilities, or the mean of predicted numbers, are off by more than a floor and than chance explains."""

    name = "calibration"
    phase: Phase = "labels"

    def run(self, context: Context) -> list[Signal]:
        """Return a signal per version and segment with at least 100 labelled rows; none for a model without probabilities."""
        signals = []
        classes = context.signature is None or context.signature.task == Task.classification
        for version in sorted(context.data.versions):
            profile = context.profile(version)
            found = []
            for segment in (ALL, *context.data.segments()):
                rows = context.data.labelled(version, segment)
                if len(rows) < max(LEAST_ROWS, context.config.performance.min_rows):
                    continue
                one = _of_classes(segment, rows, profile) if classes else _of_numbers(segment, rows)
                if one is not None:
                    found.append(one)
            significant = benjamini_hochberg(np.array([one.p_value for one in found]), FDR).tolist()
            signals += [
                self._signal(context, version, one, "probability" if classes else "bias", small)
                for one, small in zip(found, significant, strict=True)
            ]
        return signals

    def _signal(
        self, context: Context, version: int, found: _Found, subject: str, significant: bool
    ) -> Signal:
        return Signal(
            check=self.name,
            model=context.model,
            deployment=context.deployment,
            window=context.window,
            value=found.measured.value,
            limit=found.limit,
            rows=found.rows,
            fired=significant and abs(found.measured.value) >= found.limit,
            subject=subject,
            version=version,
            detail={"p": found.p_value, **found.detail},
            segment=str(found.segment),
            lower=found.measured.lower,
            upper=found.measured.upper,
        )


def _of_classes(segment: Segment, rows: Labelled, profile: Profile | None) -> _Found | None:
    if rows.probability is None or rows.probability.shape[1] < 2 or not rows.classes:
        return None
    predicted, came_true = Measures(rows).forecast
    good = np.isfinite(predicted)
    if np.count_nonzero(good) < LEAST_ROWS:
        return None
    predicted, came_true = predicted[good], came_true[good]
    bins = reliability(predicted, came_true)
    detail = {
        "trained": _trained(profile),
        "expected_error": bins.expected_error,
        "spiegelhalter_z": spiegelhalter(predicted, came_true),
        "bins": [
            {"predicted": x, "observed": y, "rows": n}
            for x, y, n in zip(
                bins.predicted.tolist(), bins.observed.tolist(), bins.rows.tolist(), strict=True
            )
        ],
        "of": repr(rows.classes[1]) if len(rows.classes) == 2 else "the likeliest class",
    }
    return _Found(segment, len(predicted), bins.error(), FLOOR, bins.p_value(), detail)


def _trained(profile: Profile | None) -> float | None:
    """Return the calibration error when the version was registered, None where it is not known."""
    if profile is None or not profile.calibration:
        return None
    predicted, observed, rows = (
        np.array([getattr(one, name) for one in profile.calibration], np.float64)
        for name in ("predicted", "observed", "rows")
    )
    return Reliability(predicted, observed, rows.astype(np.int64), predicted * (1 - predicted)).error().value


def _of_numbers(segment: Segment, rows: Labelled) -> _Found | None:
    try:
        actual, prediction = rows.actual.astype(np.float64), rows.prediction.astype(np.float64)
    except (TypeError, ValueError):
        return None
    good = np.isfinite(actual) & np.isfinite(prediction)
    n = int(np.count_nonzero(good))
    if n < LEAST_ROWS:
        return None
    actual, errors = actual[good], prediction[good] - actual[good]
    spread = float(actual.std(ddof=1))
    noise = float(errors.std(ddof=1)) / math.sqrt(n)
    if not spread > 0 or not noise > 0:
        return None
    bias = mean(errors / spread)
    p_value = 2 * float(stdtr(n - 1, -abs(bias.value) * spread / noise))
    detail = {"mean_error": float(errors.mean()), "spread": spread}
    return _Found(segment, n, bias, BIAS_FLOOR, p_value, detail)
