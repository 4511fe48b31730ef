"""One deployment at a glance: what serves and why so, what was refused, what is kept, and where to ask."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

import psutil

from loopwright import parts, scoring
from loopwright.config import LogConfig, Project, SloConfig
from loopwright.deploy.online import keys, meters
from loopwright.deploy.online.levels import ServiceLevel, sentences, service_level
from loopwright.errors import LoopwrightError, Unavailable
from loopwright.ledger import Ledger
from loopwright.records import Deployment, Mode
from loopwright.scoring.words import bands_in_words, proofs_in_words

__all__ = [
    "Limits",
    "Overview",
    "Serving",
    "Worker",
    "key_in_words",
    "limits_in_words",
    "log_in_words",
    "overview",
    "rules_in_words",
    "try_address",
    "workers_of",
]


@dataclass(frozen=True, slots=True)
class Serving:
    """One variant. `runtime` is what computes it and `reason` why; both are empty while it is not prepared.

    `bands` says which runtime answers how many rows, and `proofs` what the replay showed of each that was tried, in
    words.
    """

    name: str
    version: int
    weight: float
    shadow: bool
    runtime: str = ""
    reason: str = ""
    bands: str = ""
    proofs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Worker:
    """One serving process that lives, and what it does for a deployment.

    `asleep` is one that gave back the model's memory because nobody asked; the next request loads it again.
    """

    name: str
    state: Literal["serving", "asleep", "loading", "refusing"]


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
    addresses for callers, none where no worker runs. `limits`, `key_needed`, `workers`, and the service level with its
    two sentences are of online deployments.
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
    workers: tuple[Worker, ...] = ()
    level: ServiceLevel | None = None
    level_words: tuple[str, ...] = ()


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
        noted = {one.key: one.value for one in ledger.states("worker")}
        needed = _key_needed(project, ledger)
    finally:
        ledger.close()
    level = service_level(project, name) if online else None
    return Overview(
        name=name,
        mode=config.mode,
        model=served.model if served else config.model,
        state="serving" if served else "not started",
        changed=served.changed if served else None,
        release=served.release if served else "",
        variants=_variants(project, served) if served else (),
        refused=_refused(noted.values(), name),
        entity=config.entity,
        log=config.log,
        durability=project.config.serving.durability,
        slo=config.slo,
        limits=_limits(project, config.timeout.total_seconds()) if online else None,
        key_needed=needed if online else None,
        ask=_addresses(project, name) if online else {},
        workers=workers_of(meters.read(project), noted, name) if online else (),
        level=level,
        level_words=sentences(level) if level else (),
    )


def _key_needed(project: Project, ledger: Ledger) -> bool:
    return bool(keys.known(ledger)) or not keys.is_loopback(project.config.serving.host)


def workers_of(
    snapshots: Iterable[meters.Snapshot], noted: Mapping[str, Any], name: str, at: float | None = None
) -> tuple[Worker, ...]:
    """Return the living serving processes and what each does for a deployment.

    Parameters
    ----------
    snapshots
        What the processes last wrote: `meters.read`.
    noted
        What they told the ledger: the values of its states of kind ``worker``, by name.
    name
        The deployment.
    at
        The present, in seconds since 1970 UTC; by default the clock's.
    """
    at = time.time() if at is None else at
    return tuple(
        Worker(one.worker, _state(noted.get(one.worker), one.pid, name))
        for one in snapshots
        if one.alive(at) and psutil.pid_exists(one.pid)
    )


def _state(facts: Any, pid: int, name: str) -> Literal["serving", "asleep", "loading", "refusing"]:
    # What a process before this one told says nothing about it.
    if not facts or facts.get("pid") != pid:
        return "loading"
    if name in facts.get("asleep", ()):
        return "asleep"
    if name in facts.get("serving", {}):
        return "serving"
    return "refusing" if name in facts.get("refused", {}) else "loading"


def rules_in_words(project: Project, ledger: Ledger, name: str) -> dict[str, str]:
    """Say who may ask an online deployment, how much it takes, and what its log keeps: one line each, by topic."""
    config = project.deployment(name)
    limits = _limits(project, config.timeout.total_seconds())
    return {
        "log": log_in_words(config.log, project.config.serving.durability),
        "limits": limits_in_words(limits),
        "API key": key_in_words(_key_needed(project, ledger)),
    }


def log_in_words(log: LogConfig, durability: str) -> str:
    """Say what the prediction log keeps, such as ``every row, without note, entity hashed``."""
    kept = (
        "every row"
        if log.sample == 1
        else f"{100 * log.sample:.3g} % of the rows"
        if log.sample
        else "no row"
    )
    parts_of = [
        kept,
        *([f"without {', '.join(log.drop)}"] if log.drop else []),
        *([f"{', '.join(log.hash)} hashed"] if log.hash else []),
        f"survives a {'power cut' if durability == 'power' else 'killed process'}",
    ]
    return ", ".join(parts_of)


def limits_in_words(limits: Limits) -> str:
    """Say what a caller may send, and how long it may take."""
    workers = "1 worker" if limits.workers == 1 else f"each of {limits.workers} workers"
    rate = f"{limits.rate} for each caller" if limits.rate else "any rate"
    return (
        f"{rate}, bodies up to {limits.max_body / 1e6:g} MB, {limits.timeout:g} s to answer, "
        f"{limits.queue_rows:,} rows may wait in {workers}"
    )


def key_in_words(needed: bool) -> str:
    """Say whether a caller needs an API key."""
    return "needed" if needed else "not needed from this machine"


def _variants(project: Project, served: Deployment) -> tuple[Serving, ...]:
    made = []
    for variant in served.variants:
        one = Serving(variant.name, variant.version, variant.weight, variant.shadow)
        with contextlib.suppress(LoopwrightError):
            manifest = scoring.read_manifest(project.scorer(served.model, variant.version))
            one = replace(
                one,
                runtime=manifest.runtime,
                reason=manifest.reason,
                bands=bands_in_words(manifest),
                proofs=proofs_in_words(manifest),
            )
        made.append(one)
    return tuple(made)


def _refused(workers: Iterable[Any], name: str) -> dict[str, str]:
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
    return {"predict": f"{address}/predict/{quote(name)}", "try": f"{address}/try/{quote(name)}"}


def try_address(project: Project, name: str) -> str:
    """Return the address of an online deployment's page for trying it, empty where no worker runs."""
    return _addresses(project, name).get("try", "")
