"""How an online deployment answers, from what its serving processes wrote: their numbers, their state, their scorers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec

from loopwright.config import Project
from loopwright.console.views import Batch, Counted, RefusedVersion, Runs, Serving, StageTime
from loopwright.deploy.online import meters
from loopwright.deploy.online.levels import sentences, service_level
from loopwright.deploy.online.meters import Histogram, Meter
from loopwright.errors import LoopwrightError
from loopwright.ledger import Ledger
from loopwright.records import Deployment, Mode, Variant
from loopwright.scoring import read_manifest

__all__ = ["STAGES", "read"]

#: The stages of an answer, in their order.
STAGES = ("decode", "queue", "score", "log", "encode")


def read(project: Project, ledger: Ledger, name: str, at: datetime) -> Serving | None:
    """Return how a deployment answers at a moment; None for one that is not online.

    Raises
    ------
    NotFound
        No deployment of this name is declared.
    """
    if project.deployment(name).mode is not Mode.online:
        return None
    found = meters.recent(meters.read(project, at=at.timestamp()), name, at.timestamp())
    meter = found.meter if found else Meter(name)
    workers = found.workers if found else 0
    level = service_level(project, name, at)
    limits = project.config.serving
    return Serving(
        workers=workers,
        seconds=found.seconds if found else 0.0,
        stages=_stages(meter),
        batches=_batches(meter),
        mean_batch=meter.batch_rows.total / meter.batch_rows.count if meter.batch_rows.count else None,
        requests=_requests(meter),
        refused=_refused(meter),
        queued_rows=meter.queued_rows,
        queued_rows_limit=limits.queue_rows * workers,
        queued_bytes=meter.queued_bytes,
        queued_bytes_limit=limits.queue_bytes * workers,
        shadow_rows=meter.shadow_rows,
        shadow_dropped=meter.shadow_dropped,
        runs=tuple(_runs(project, ledger, name)),
        refused_versions=_refused_versions(ledger, name),
        level=level,
        level_words=sentences(level) if level else (),
    )


def _stages(meter: Meter) -> tuple[StageTime, ...]:
    score = Histogram()
    for variant in meter.variants:
        score.merge(variant.score)
    times = {name: score if name == "score" else getattr(meter, name) for name in STAGES}
    whole = sum(one.total for one in times.values())
    return tuple(
        StageTime(
            name=name,
            n=one.count,
            p50_ms=_ms(one.quantile(0.5)),
            p95_ms=_ms(one.quantile(0.95)),
            p99_ms=_ms(one.quantile(0.99)),
            mean_ms=_ms(one.mean),
            share=one.total / whole if whole else 0.0,
        )
        for name, one in times.items()
        if one.count
    )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


def _batches(meter: Meter) -> tuple[Batch, ...]:
    sizes = meter.batch_rows
    used = [place for place, n in enumerate(sizes.counts) if n]
    # From one row on without a gap, so that the picture shows how far the sizes reach.
    shown = range(used[-1] + 1) if used else range(0)
    return tuple(
        Batch(sizes.bounds[place], sizes.counts[place], sizes.counts[place] / sizes.count) for place in shown
    )


def _requests(meter: Meter) -> tuple[Counted, ...]:
    counted = [
        (protocol, status, n)
        for protocol, statuses in meter.requests.items()
        for status, n in statuses.items()
        if n > 0
    ]
    whole = sum(n for _, _, n in counted) or 1
    made = [Counted(protocol, n, n / whole, status) for protocol, status, n in counted]
    return tuple(sorted(made, key=lambda one: (one.status, -one.n, one.name)))


def _refused(meter: Meter) -> tuple[Counted, ...]:
    whole = sum(n for statuses in meter.requests.values() for n in statuses.values()) or 1
    made = [Counted(reason, n, n / whole) for reason, n in meter.refused.items() if n > 0]
    return tuple(sorted(made, key=lambda one: -one.n))


def _runs(project: Project, ledger: Ledger, name: str) -> Iterable[Runs]:
    state = ledger.get("deployment", name)
    if state is None:
        return
    deployment = state.read(Deployment)
    for variant in deployment.variants:
        yield _one(project, deployment.model, variant)


def _one(project: Project, model: str, variant: Variant) -> Runs:
    nothing = Runs(
        variant=variant.name,
        version=variant.version,
        weight=variant.weight,
        shadow=variant.shadow,
        runtime="",
        reason="",
        replay_rows=0,
        max_difference=None,
        label_flips=None,
        tolerance=None,
        bands=(),
    )
    try:
        manifest = read_manifest(project.scorer(model, variant.version))
    except LoopwrightError as error:
        return replace(nothing, reason=error.fact)
    return replace(
        nothing,
        runtime=manifest.runtime,
        reason=manifest.reason,
        replay_rows=manifest.replay_rows,
        max_difference=manifest.max_difference,
        label_flips=manifest.label_flips,
        tolerance=manifest.tolerance,
        # Not every release measures them.
        bands=tuple(_band(one) for one in getattr(manifest, "bands", None) or ()),
    )


def _band(band: Any) -> str:
    """Say one band of batch sizes in words, whatever it is called in this release."""
    facts = msgspec.to_builtins(band)
    if isinstance(facts, list | tuple):
        return " ".join(str(one) for one in facts)
    if not isinstance(facts, Mapping):
        return str(facts)
    return ", ".join(
        f"{key.replace('_', ' ')} {_figure(value)}" for key, value in facts.items() if value is not None
    )


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _refused_versions(ledger: Ledger, name: str) -> tuple[RefusedVersion, ...]:
    """Return what the workers say that they refuse, each version and reason once."""
    found: dict[tuple[int, str], list[str]] = {}
    for state in ledger.states("worker"):
        refused = state.value.get("refused") or {}
        for version, reason in (refused.get(name) or {}).items():
            found.setdefault((int(version), str(reason)), []).append(state.key)
    return tuple(
        RefusedVersion(version, reason, tuple(who)) for (version, reason), who in sorted(found.items())
    )
