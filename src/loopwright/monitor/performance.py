"""Real performance: the metric over rows whose label has arrived, per version and segment, against a limit.

A window is too bad when its value is beyond the limit and chance does not explain it, in one of two ways: the whole 95 %
interval is beyond the limit, or the value is significantly worse than the version's own earlier windows were (one-sided,
1 %). The second finds a real loss that has crossed the limit by little; it needs five earlier windows that did not fire.

Segments are many, so each is judged at a stricter level: 5 % and 1 % are divided by their number (Bonferroni). A limit
that comes from training is one over all rows, and some segments are harder than others from the start: such a segment is
held against its own earlier windows, worsened by the same margin, and never fires before there are five.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from loopwright.config import WATCHED
from loopwright.errors import InvalidInput
from loopwright.monitor.base import ALL, Context, Incomplete, Phase, Segment
from loopwright.monitor.intervals import LEVEL
from loopwright.monitor.metrics import Labelled, Measured, Measures
from loopwright.records import Signal

__all__ = ["Limit", "PerformanceCheck", "beyond", "limit_of"]

#: Metrics of numbers; a row whose label or prediction is none cannot be judged by them.
_OF_NUMBERS = {"mae", "mape", "median_absolute_error", "r2", "rmse"}
#: So many earlier windows are looked at, and so many are needed.
_EARLIER, _LEAST = 20, 5
#: The chance, in one window of all rows, to seem worse than earlier ones by chance alone.
_ALPHA = 0.01
#: So many segments are named beside the value over all rows, the worst first.
_WORST = 5


@dataclass(frozen=True, slots=True)
class Limit:
    """From which value on a metric is too bad, NaN where nothing says so, and where that comes from.

    `source` is ``declared``, ``training``, ``earlier windows`` or empty. `trained` is the value when the version was
    registered, None where it is not known.
    """

    value: float
    source: str
    trained: float | None


def limit_of(context: Context, version: int) -> Limit:
    """Return the limit of the watched metric over all rows: declared, or the value at training time made worse."""
    config = context.config.performance
    profile = context.profile(version)
    trained = profile.performance.get(context.metric) if profile else None
    if config.worse_than is not None:
        return Limit(config.worse_than, "declared", trained)
    # Of a value of 0, such as the error of a model that knows its training rows by heart, a share is no limit.
    if not trained or not math.isfinite(trained):
        return Limit(math.nan, "", trained)
    return Limit(_worsened(context.metric, trained, config.margin), "training", trained)


def _worsened(metric: str, value: float, margin: float) -> float:
    away = margin * abs(value)
    return value - away if WATCHED[metric] == "higher" else value + away


def beyond(metric: str, found: Measured, limit: float) -> bool:
    """Whether the whole interval is on the wrong side of a limit; never where there is none."""
    return found.upper < limit if WATCHED[metric] == "higher" else found.lower > limit


@dataclass(frozen=True, slots=True)
class _Part:
    """One version's labelled rows of one segment, and what they measure."""

    segment: Segment
    rows: int
    unlabelled: int
    left_out: int
    measures: Measures
    found: Measured


@dataclass(frozen=True, slots=True)
class _Earlier:
    """What was measured in k windows before this one that did not fire, k >= `_LEAST`; all arrays have shape (k,)."""

    values: NDArray[np.float64]
    errors: NDArray[np.float64]
    rows: NDArray[np.float64]

    @property
    def typical(self) -> float:
        """Their median."""
        return float(np.median(self.values))

    def worse(self, metric: str, part: _Part, alpha: float) -> bool:
        """Whether a new value is significantly worse: below, or above, where the next of these would be.

        It is a prediction interval (Student), for a window with more or fewer rows than these have.
        """
        k = len(self.values)
        spread = float(self.values.var(ddof=1))
        # Chance is that of one row over the rows; what the windows differ by beyond it stays, however many rows there are.
        of_row = float((self.errors**2 * self.rows).mean())
        between = max(0.0, spread - of_row * float((1 / self.rows).mean()))
        error = math.sqrt(of_row / part.rows + between + spread / k)
        away = part.found.value - float(self.values.mean())
        worse = -away if WATCHED[metric] == "higher" else away
        return bool(worse > float(stdtrit(k - 1, 1 - alpha)) * error)


def _error(metric: str, value: float, lower: float, upper: float) -> float:
    """Return the standard error that an interval of 95 % shows on the side of better values."""
    return abs((upper if WATCHED[metric] == "higher" else lower) - value) / 1.96


class PerformanceCheck:
    """Fires when the watched metric is beyond its limit and chance does not explain it: see the module."""

    name = "performance"
    phase: Phase = "labels"

    def run(self, context: Context) -> list[Signal]:
        """Return a signal per version and segment that has enough labelled rows, and one for each of `also`.

        Raises
        ------
        Incomplete
            The metric cannot be computed for a version, such as a log loss without probabilities.
        """
        signals: list[Signal] = []
        problems: list[str] = []
        for version in sorted(context.data.versions):
            try:
                signals += self._of_version(context, version)
            except InvalidInput as error:
                problems.append(f"{context.model}/{version}: {error.fact} {error.valid}")
        if problems:
            raise Incomplete(
                problems, signals, hint=f"edit [monitor.{context.model}] performance in loopwright.toml"
            )
        return signals

    def _of_version(self, context: Context, version: int) -> list[Signal]:
        whole = _measured(context, version, ALL)
        if whole is None:
            return []
        parts = [
            part
            for segment in context.data.segments()
            if (part := _measured(context, version, segment)) is not None
        ]
        earlier = _earlier(context, version, len(parts))
        limit = limit_of(context, version)
        judged = [self._judged(context, version, part, limit, earlier, len(parts)) for part in parts]
        of_all = self._judged(context, version, whole, limit, earlier, 1)
        if judged:
            of_all.detail["worst"] = _worst(context.metric, judged)
        beside, missing = self._beside(context, version, whole)
        if missing:
            of_all.detail["not_computed"] = missing
        return [of_all, *judged, *beside]

    def _judged(
        self,
        context: Context,
        version: int,
        part: _Part,
        limit: Limit,
        earlier: dict[str, _Earlier],
        family: int,
    ) -> Signal:
        before = earlier.get(str(part.segment)[:255])
        if part.segment != ALL and limit.source == "training":
            limit = _own(context, limit, before)
        strict = part.found if family == 1 else part.measures.of(context.metric, 1 - (1 - LEVEL) / family)
        fired = beyond(context.metric, strict, limit.value)
        rule = "interval" if fired else ""
        if not fired and before is not None and _past(context.metric, part.found.value, limit.value):
            fired = before.worse(context.metric, part, _ALPHA / family)
            rule = "worse than earlier windows" if fired else ""
        detail: dict[str, Any] = {
            "metric": context.metric,
            "trained": limit.trained,
            "limit_from": limit.source,
            "unlabelled": part.unlabelled,
        }
        if part.left_out:
            detail["no_numbers"] = part.left_out
        if before is not None:
            detail["earlier"] = before.typical
        if rule:
            detail["rule"] = rule
        return self._signal(context, version, part, context.metric, part.found, limit.value, fired, detail)

    def _beside(self, context: Context, version: int, whole: _Part) -> tuple[list[Signal], dict[str, str]]:
        """Compute the metrics that are only shown, and say why some could not be."""
        signals, missing = [], {}
        for metric in dict.fromkeys(context.config.performance.also):
            if metric == context.metric:
                continue
            try:
                found = whole.measures.of(metric)
            except InvalidInput as error:
                missing[metric] = error.fact
                continue
            if math.isfinite(found.value):
                detail = {"metric": metric, "unlabelled": whole.unlabelled}
                signals.append(self._signal(context, version, whole, metric, found, math.nan, False, detail))
        return signals, missing

    def _signal(
        self,
        context: Context,
        version: int,
        part: _Part,
        metric: str,
        found: Measured,
        limit: float,
        fired: bool,
        detail: dict[str, Any],
    ) -> Signal:
        return Signal(
            check=self.name,
            model=context.model,
            deployment=context.deployment,
            window=context.window,
            value=found.value,
            limit=limit,
            rows=part.rows,
            fired=fired,
            subject=metric,
            version=version,
            detail=detail,
            segment=str(part.segment),
            lower=found.lower,
            upper=found.upper,
        )


def _measured(context: Context, version: int, segment: Segment) -> _Part | None:
    """Measure the labelled rows of a segment; None where they are too few or do not define the metric."""
    rows = context.data.labelled(version, segment)
    usable, left_out = _usable(context.metric, rows)
    if len(usable) < context.config.performance.min_rows:
        if left_out and segment == ALL and len(rows) >= context.config.performance.min_rows:
            raise InvalidInput(
                f"Of {len(rows)} labelled rows {left_out} have a label or a prediction that is no finite number.",
                valid=f"{context.metric} is computed from numbers.",
                hint="use a metric of classifications, such as 'accuracy'",
            )
        return None
    measures = Measures(usable, context.config.performance.positive)
    found = measures.of(context.metric)
    if not math.isfinite(found.value):
        return None
    unlabelled = context.data.rows(version, segment) - len(rows)
    return _Part(segment, len(usable), unlabelled, left_out, measures, found)


def _usable(metric: str, rows: Labelled) -> tuple[Labelled, int]:
    """Return the rows that a metric can judge, and how many it cannot."""
    if metric not in _OF_NUMBERS:
        return rows, 0
    good = _finite(rows.actual) & _finite(rows.prediction)
    if good.all():
        return rows, 0
    return Labelled(rows.actual[good], rows.prediction[good]), int(np.count_nonzero(~good))


def _finite(values: NDArray[Any]) -> NDArray[np.bool_]:
    if values.dtype.kind in "iub":
        return np.ones(len(values), bool)
    if values.dtype.kind == "f":
        return np.asarray(np.isfinite(values))
    return np.array(
        [isinstance(value, int | float) and math.isfinite(value) for value in values.tolist()], bool
    )


def _past(metric: str, value: float, limit: float) -> bool:
    return value < limit if WATCHED[metric] == "higher" else value > limit


def _own(context: Context, limit: Limit, before: _Earlier | None) -> Limit:
    """Return the limit of a segment where that of all rows comes from training."""
    if before is None:
        return Limit(math.nan, "", limit.trained)
    own = _worsened(context.metric, before.typical, context.config.performance.margin)
    if _past(context.metric, own, limit.value):
        return Limit(own, "earlier windows", limit.trained)
    return limit


def _earlier(context: Context, version: int, segments: int) -> dict[str, _Earlier]:
    """Return what was measured in the windows before this one, by segment; those with too few are left out."""
    kept = context.results.signals(
        context.deployment,
        check=PerformanceCheck.name,
        subject=context.metric,
        version=version,
        fired=False,
        until=context.window.start,
        limit=_EARLIER * (segments + 1),
    )
    by_segment: dict[str, list[Signal]] = {}
    for signal in kept:
        if signal.lower is not None and signal.upper is not None and math.isfinite(signal.value):
            by_segment.setdefault(signal.segment, []).append(signal)
    return {segment: _summed(signals) for segment, signals in by_segment.items() if len(signals) >= _LEAST}


def _summed(signals: Sequence[Signal]) -> _Earlier:
    last = signals[-_EARLIER:]
    table = [
        (one.value, _error(one.subject, one.value, one.lower or 0.0, one.upper or 0.0), one.rows)
        for one in last
    ]
    values, errors, rows = np.array(table, np.float64).T
    return _Earlier(values, errors, rows)


def _worst(metric: str, judged: Sequence[Signal]) -> list[dict[str, Any]]:
    """Name the segments with the worst values, whether they fired or not."""
    worst = sorted(judged, key=lambda one: one.value, reverse=WATCHED[metric] == "lower")[:_WORST]
    return [
        {"segment": one.segment, "value": one.value, "lower": one.lower, "upper": one.upper, "rows": one.rows}
        for one in worst
    ]
