"""Service: how quickly predictions come, how many, and how many requests fail.

Latency is that of the log, so it is known in every mode. Requests and failures are those that online workers count by the
minute, of windows of whole minutes; a worker writes them down every few seconds, so that the last ones of a window can be
missing when it is judged. They are counted where ``slo`` or ``service.errors`` is declared.
"""

from __future__ import annotations

import math

import numpy as np

from loopwright.config import STATE
from loopwright.errors import NotFound
from loopwright.monitor.base import Context, Phase
from loopwright.monitor.intervals import Measured, ordered, wilson
from loopwright.predictions.requests import minutes
from loopwright.records import Mode, Signal

__all__ = ["ServiceCheck"]

#: A 99th percentile needs rows above it, a share of failures needs requests.
LEAST_ROWS, LEAST_REQUESTS = 100, 20


class ServiceCheck:
    """Fires when the 99th percentile of the latency, or the share of failed requests, is above what is declared.

    Chance does not fire it: the whole 95 % interval must be above. What is not declared is shown and never fires.
    """

    name = "service"
    phase: Phase = "inputs"
    #: An outage leaves no row.
    empty = True

    def run(self, context: Context) -> list[Signal]:
        """Return the latency of each version in milliseconds, predictions per second, and the share of failed requests."""
        seconds = (context.window.end - context.window.start).total_seconds()
        rows = context.data.rows()
        pace = Measured(rows / seconds, math.nan, math.nan)
        signals = [_signal(context, "per_second", pace, rows, version=context.champion)]
        for version in sorted(context.data.versions):
            signals += _latency(context, version)
        return signals + _errors(context, seconds)


def _latency(context: Context, version: int) -> list[Signal]:
    try:
        values = context.data.values("latency_ms", version).astype(np.float64)
    except NotFound:
        return []
    values = values[np.isfinite(values)]
    if len(values) < LEAST_ROWS:
        return []
    declared = context.config.service.latency
    limit = math.nan if declared is None else declared.total_seconds() * 1000
    middle, slowest = ordered(values, 0.5), ordered(values, 0.99)
    return [
        _signal(context, "latency_p50", middle, len(values), version=version),
        _signal(context, "latency_p99", slowest, len(values), version=version, limit=limit),
    ]


def _errors(context: Context, seconds: float) -> list[Signal]:
    start, end = context.window.start.timestamp(), context.window.end.timestamp()
    if context.mode is not Mode.online or start % 60 or seconds % 60:
        return []
    counted = minutes(context.root / STATE, context.deployment, context.window.start)
    counted = counted[(counted[:, 0] >= start // 60) & (counted[:, 0] < end // 60)]
    requests, failed = int(counted[:, 1].sum()), int(counted[:, 2].sum())
    if requests < LEAST_REQUESTS:
        return []
    lower, upper = wilson(failed / requests, requests)
    limit = math.nan if context.config.service.errors is None else context.config.service.errors
    share = Measured(failed / requests, float(lower), float(upper))
    return [_signal(context, "errors", share, requests, version=context.champion, limit=limit)]


def _signal(
    context: Context,
    subject: str,
    found: Measured,
    rows: int,
    *,
    version: int,
    limit: float = math.nan,
) -> Signal:
    return Signal(
        check=ServiceCheck.name,
        model=context.model,
        deployment=context.deployment,
        window=context.window,
        value=found.value,
        limit=limit,
        rows=rows,
        fired=found.lower > limit,
        subject=subject,
        version=version,
        lower=None if math.isnan(found.lower) else found.lower,
        upper=None if math.isnan(found.upper) else found.upper,
    )
