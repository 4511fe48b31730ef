"""One deployment at a glance: what serves and why so, what was refused, what is kept, and where to ask."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from loopwright import parts, scoring
from loopwright.config import LogConfig, Project, SloConfig
from loopwright.deploy.online import keys
from loopwright.errors import LoopwrightError, Unavailable
from loopwright.ledger import Ledger
from loopwright.records import Deployment, Mode

__all__ = ["Limits", "Overview", "Serving", "overview"]


@dataclass(frozen=True, slots=True)
class Serving:
    """One variant. `runtime` is what computes it and `reason` why; both are empty while it is not prepared."""

    name: str
    version: int
    weight: float
    shadow: bool
    runtime: str
    reason: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What one worker takes at a time. Sizes in bytes, times in seconds; `rate` is for all workers together."""

    workers: int
    rate: str | None
    max_body: int
    body_timeout: float
    timeout: float
    queue_rows: int
    queue_bytes: int


@dataclass(frozen=True, slots=True)
class Overview:
    """What there is to know of a deployment.

    `release` is the one under way. `refused` are versions that a worker cannot serve, with the reason. `ask` are the
    addresses for callers, none where no worker runs. `limits` and `key_needed` are of online deployments.
    """

    name: str
    mode: Mode
    model: str
    state: Literal["serving", "not started"]
    changed: datetime | None
    release: str
    variants: tuple[Serving, ...]
    refused: dict[str, str]
    entity: str | None
    log: LogConfig
    durability: str
    slo: SloConfig | None
    limits: Limits | None
    key_needed: bool | None
    ask: dict[str, str] = field(default_factory=dict)


def overview(project: Project, name: str) -> Overview:
    """Return what there is to know of a declared deployment. Loads no model and needs no running part.

    Raises
    ------
    NotFound
        There is no such deployment.
    """
    config = project.deployment(name)
    online = config.mode is Mode.online
    ledger = Ledger.open(project)
    try:
        state = ledger.get("deployment", name)
        served = state.read(Deployment) if state else None
        workers = [one.value for one in ledger.states("worker")]
        needed = bool(keys.known(ledger)) or not keys.is_loopback(project.config.serving.host)
    finally:
        ledger.close()
    return Overview(
        name=name,
        mode=config.mode,
        model=served.model if served else config.model,
        state="serving" if served else "not started",
        changed=served.changed if served else None,
        release=served.release if served else "",
        variants=_variants(project, served) if served else (),
        refused=_refused(workers, name),
        entity=config.entity,
        log=config.log,
        durability=project.config.serving.durability,
        slo=config.slo,
        limits=_limits(project, config.timeout.total_seconds()) if online else None,
        key_needed=needed if online else None,
        ask=_addresses(project, name) if online else {},
    )


def _variants(project: Project, served: Deployment) -> tuple[Serving, ...]:
    made = []
    for variant in served.variants:
        runtime = reason = ""
        with contextlib.suppress(LoopwrightError):
            manifest = scoring.read_manifest(project.scorer(served.model, variant.version))
            runtime, reason = manifest.runtime, manifest.reason
        made.append(Serving(variant.name, variant.version, variant.weight, variant.shadow, runtime, reason))
    return tuple(made)


def _refused(workers: list[Any], name: str) -> dict[str, str]:
    """Return what workers refuse, as they said last."""
    found: dict[str, str] = {}
    for facts in workers:
        found |= facts.get("refused", {}).get(name, {})
    return found


def _limits(project: Project, timeout: float) -> Limits:
    serving = project.config.serving
    return Limits(
        workers=serving.workers,
        rate=serving.rate_limit,
        max_body=serving.max_body,
        body_timeout=serving.body_timeout.total_seconds(),
        timeout=timeout,
        queue_rows=serving.queue_rows,
        queue_bytes=serving.queue_bytes,
    )


def _addresses(project: Project, name: str) -> dict[str, str]:
    try:
        address = parts.url(project, "serving")
    except Unavailable:
        return {}
    return {"predict": f"{address}/predict/{name}", "try": f"{address}/try/{name}"}
