"""What ``GET /metrics`` answers: the numbers of all serving processes in Prometheus' text format.

Each series carries the name of its worker, so that a process that starts anew, and counts from 0 again, is the counter
reset that Prometheus expects, and not a loss in a sum. The counters of a worker that has gone stay as it last wrote
them; its gauges and its models are left out. Figures of the service level belong to the deployment and carry no worker.

The first call imports `prometheus_client` (50 ms), and a call with many deployments takes some milliseconds: make it
in a thread.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from loopwright.deploy.online.levels import ServiceLevel
from loopwright.deploy.online.meters import BOUNDS, Histogram, Meter, Sizes, Snapshot

if TYPE_CHECKING:
    from prometheus_client.metrics_core import HistogramMetricFamily, Metric

__all__ = ["CONTENT_TYPE", "exposition"]

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
#: Buckets that are shown, by their place in `BOUNDS`: powers of two from 8 microseconds to 67 seconds.
_PLACES = range(6, 53, 2)
_SIZES = range(13)
_STAGES = ("decode", "queue", "score", "log", "encode")


def exposition(
    own: Snapshot, others: Iterable[Snapshot], levels: Iterable[ServiceLevel] = (), at: float | None = None
) -> bytes:
    """Return all numbers of all workers as text.

    Parameters
    ----------
    own
        What `Meters.save` of the process that answers returned.
    others
        The other processes: ``read(project, without=own.worker)``.
    levels
        The service levels of those deployments that declare one.
    at
        The present, in seconds since 1970 UTC, against which workers are alive or gone; by default the clock's.
    """
    from prometheus_client.exposition import generate_latest

    at = time.time() if at is None else at
    families = _families(sorted([own, *others], key=lambda one: one.worker), list(levels), at)
    return bytes(generate_latest(_Collected(families)))


class _Collected:
    """Families, as `generate_latest` asks a registry for them."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _families(workers: list[Snapshot], levels: list[ServiceLevel], at: float) -> Iterator[Metric]:
    known = [
        (one, meter) for one in workers for meter in sorted(one.meters, key=lambda meter: meter.deployment)
    ]
    alive = [(one, meter) for one, meter in known if one.alive(at)]
    yield from _counters(known)
    yield from _histograms(known)
    yield from _gauges(workers, alive, at)
    yield from _levels(levels)


def _counters(known: list[tuple[Snapshot, Meter]]) -> Iterator[Metric]:
    yield _family(
        "counter", "loopwright_requests", "Requests answered, by protocol and HTTP status.",
        ("worker", "deployment", "protocol", "status"),
        (
            ((one.worker, meter.deployment, protocol, str(status)), n)
            for one, meter in known
            for protocol, statuses in sorted(meter.requests.items())
            for status, n in sorted(statuses.items())
        ),
    )  # fmt: skip
    yield _family(
        "counter", "loopwright_refused", "Requests that were not taken, by reason.",
        ("worker", "deployment", "reason"),
        (
            ((one.worker, meter.deployment, reason), n)
            for one, meter in known
            for reason, n in sorted(meter.refused.items())
        ),
    )  # fmt: skip
    yield _family(
        "counter", "loopwright_rows", "Rows answered, by variant and version.",
        ("worker", "deployment", "variant", "version"),
        (
            ((one.worker, meter.deployment, variant.name, str(variant.version)), variant.rows)
            for one, meter in known
            for variant in meter.variants
        ),
    )  # fmt: skip
    simple = {
        "shadow_rows": "Rows scored by shadow variants.",
        "shadow_dropped": "Rows that shadow variants did not get to, so as to delay no answer.",
        "swaps": "Times that what is served was replaced.",
    }
    for name, text in simple.items():
        rows = (((one.worker, meter.deployment), getattr(meter, name)) for one, meter in known)
        yield _family("counter", f"loopwright_{name}", text, ("worker", "deployment"), rows)
    workers = {one.worker: one for one, _ in known}
    for name in sorted({fact for one in workers.values() for fact in one.facts}):
        facts = (((one.worker,), one.facts.get(name, 0)) for one in workers.values())
        yield _family(
            "counter", f"loopwright_{name}", f"{name.replace('_', ' ').capitalize()}.", ("worker",), facts
        )


def _histograms(known: list[tuple[Snapshot, Meter]]) -> Iterator[Metric]:
    from prometheus_client.metrics_core import HistogramMetricFamily

    stages = HistogramMetricFamily(
        "loopwright_stage_seconds",
        "Time by stage: decode and queue of each request, score of each call, log and encode of each micro-batch.",
        labels=("worker", "deployment", "stage"),
    )
    of_variant = ("worker", "deployment", "variant", "version")
    scores = HistogramMetricFamily(
        "loopwright_score_seconds",
        "Time of each call of the model, by variant and version.",
        labels=of_variant,
    )
    latency = HistogramMetricFamily(
        "loopwright_latency_seconds", "Time from the arrival of a request to its answer.", labels=of_variant
    )
    sizes = HistogramMetricFamily(
        "loopwright_batch_rows", "Rows of each micro-batch.", labels=("worker", "deployment")
    )
    for one, meter in known:
        here = (one.worker, meter.deployment)
        whole = Histogram()
        for variant in meter.variants:
            labels = (*here, variant.name, str(variant.version))
            whole.merge(variant.score)
            _add(scores, labels, variant.score)
            _add(latency, labels, variant.latency)
        for stage in _STAGES:
            _add(stages, (*here, stage), whole if stage == "score" else getattr(meter, stage))
        if meter.batch_rows.count:
            sizes.add_metric(here, _sizes(meter.batch_rows), meter.batch_rows.total)
    yield from (stages, scores, latency, sizes)


def _gauges(workers: list[Snapshot], alive: list[tuple[Snapshot, Meter]], at: float) -> Iterator[Metric]:
    for name, text in (("rows", "Rows that wait to be scored."), ("bytes", "Bytes of bodies that wait.")):
        rows = (((one.worker, meter.deployment), getattr(meter, f"queued_{name}")) for one, meter in alive)
        yield _family("gauge", f"loopwright_queue_{name}", text, ("worker", "deployment"), rows)
    yield _family(
        "gauge", "loopwright_model_info", "1 for each variant that is served, with what computes it.",
        ("worker", "deployment", "variant", "version", "runtime"),
        (
            ((one.worker, meter.deployment, variant.name, str(variant.version), variant.runtime), 1)
            for one, meter in alive
            for variant in meter.variants
            if variant.serving
        ),
    )  # fmt: skip
    yield _family(
        "gauge", "loopwright_worker_up", "Whether the process wrote its numbers lately.", ("worker",),
        (((one.worker,), int(one.alive(at))) for one in workers),
    )  # fmt: skip
    yield _family(
        "gauge", "loopwright_worker_start_time_seconds",
        "When the process started, in seconds since 1970 UTC; its counters began at 0 then.", ("worker",),
        (((one.worker,), one.started) for one in workers),
    )  # fmt: skip


def _levels(levels: list[ServiceLevel]) -> Iterator[Metric]:
    judged = [(level.deployment, one) for level in levels for one in level.objectives]
    figures = {
        "target_ratio": ("The share of requests that is promised.", "target"),
        "good_ratio": ("The share of requests that kept the promise, over the window.", "good"),
        "error_budget_left_ratio": (
            "What is left of what may be missed in the window: 1 untouched, 0 spent, below 0 overspent.",
            "budget_left",
        ),
    }
    labels = ("deployment", "objective")
    for name, (text, field) in figures.items():
        rows = (((deployment, one.name), getattr(one, field)) for deployment, one in judged)
        yield _family("gauge", f"loopwright_slo_{name}", text, labels, rows)
    yield _family(
        "gauge", "loopwright_slo_burn_rate",
        "How fast the error budget is spent: at 1 it lasts exactly for the window.", (*labels, "window"),
        (
            ((deployment, one.name, window), value)
            for deployment, one in judged
            for window, value in (("1h", one.burn_1h), ("5m", one.burn_5m))
        ),
    )  # fmt: skip


def _family(
    kind: str,
    name: str,
    text: str,
    labels: Sequence[str],
    rows: Iterable[tuple[tuple[str, ...], float | None]],
) -> Metric:
    """Return a family of counters or gauges; a figure that is not known has no sample."""
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    makers: dict[str, Any] = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
    family: Any = makers[kind](name, text, labels=labels)
    for values, figure in rows:
        if figure is not None:
            family.add_metric(values, figure)
    made: Metric = family
    return made


def _add(family: HistogramMetricFamily, labels: Sequence[str], times: Histogram) -> None:
    """Add a histogram, once there is something in it: two dozen lines of zeros for each stage of each deployment are slow."""
    if times.count:
        shown = [(place, f"{BOUNDS[place]:g}") for place in _PLACES]
        family.add_metric(labels, _cumulative(times.counts, shown), times.total)


def _sizes(sizes: Sizes) -> list[tuple[str, float]]:
    return _cumulative(sizes.counts, [(place, f"{1 << place}") for place in _SIZES])


def _cumulative(counts: list[int], shown: list[tuple[int, str]]) -> list[tuple[str, float]]:
    sums = list(itertools.accumulate(counts))
    return [*((bound, float(sums[place])) for place, bound in shown), ("+Inf", float(sums[-1]))]
