"""How an online deployment answers, from what its serving processes wrote: their numbers, their state, their scorers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from loopwright.config import Project
from loopwright.console.views import Batch, Counted, RefusedVersion, Runs, Serving, StageTime
from loopwright.deploy.online import meters
from loopwright.deploy.online.levels import sentences, service_level
from loopwright.deploy.online.meters import Histogram, Meter
from loopwright.deploy.overview import rules_in_words, try_address, workers_of
from loopwright.errors import LoopwrightError
from loopwright.ledger import Ledger
from loopwright.records import Deployment, Mode, Variant
from loopwright.scoring import read_manifest
from loopwright.scoring.base import Manifest
from loopwright.scoring.words import bands_in_words, proofs_in_words

__all__ = ["STAGES", "asleep", "read"]

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
    snapshots = meters.read(project, at=at.timestamp())
    found = meters.recent(snapshots, name, at.timestamp())
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
        processes=workers_of(snapshots, _noted(ledger), name, at.timestamp()),
        rules=rules_in_words(project, ledger, name),
        tryit=try_address(project, name),
    )


def asleep(project: Project, ledger: Ledger, at: datetime) -> frozenset[str]:
    """Return the online deployments whose models all living processes have unloaded, because nobody asked."""
    names = [name for name, one in project.config.deployment.items() if one.unload_after is not None]
    if not names:
        return frozenset()
    noted, snapshots = _noted(ledger), meters.read(project, at=at.timestamp())
    states = {
        name: {one.state for one in workers_of(snapshots, noted, name, at.timestamp())} for name in names
    }
    return frozenset(name for name, found in states.items() if found == {"asleep"})


def _noted(ledger: Ledger) -> dict[str, Any]:
    """Return what the workers told the ledger, by name."""
    return {state.key: state.value for state in ledger.states("worker")}


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
        bands=bands_in_words(manifest),
        # Without the times, which have a table of their own.
        proofs=proofs_in_words(replace(manifest, timings=())),
        timings=manifest.timings,
        answers={one.rows: _runtime_for(manifest, one.rows) for one in manifest.timings},
    )


def _runtime_for(manifest: Manifest, rows: int) -> str:
    found = (band.runtime for band in manifest.bands if band.rows is None or rows <= band.rows)
    return next(found, manifest.runtime)


def _refused_versions(ledger: Ledger, name: str) -> tuple[RefusedVersion, ...]:
    """Return what the workers say that they refuse, each version and reason once."""
    found: dict[tuple[int, str], list[str]] = {}
    for worker, facts in _noted(ledger).items():
        refused = facts.get("refused") or {}
        for version, reason in (refused.get(name) or {}).items():
            found.setdefault((int(version), str(reason)), []).append(worker)
    return tuple(
        RefusedVersion(version, reason, tuple(who)) for (version, reason), who in sorted(found.items())
    )
