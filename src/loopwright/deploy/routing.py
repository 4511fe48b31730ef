"""Which version answers whom: sticky assignment, and what a deployment serves at this moment."""

from __future__ import annotations

import hashlib

from loopwright.config import Project
from loopwright.errors import InvalidInput, NotFound
from loopwright.ledger import Ledger
from loopwright.records import Deployment, Variant

__all__ = ["assign", "current", "publish", "rollback", "start"]

CHAMPION = "champion"


def assign(deployment: Deployment, entity: str) -> tuple[Variant, float]:
    """Return the variant an entity gets, and the chance it had of getting it.

    The same entity gets the same variant as long as salt and weights are the same; when a weight grows, entities only
    move towards that variant. The hash is keyed with the salt, so that two releases split independently.

    Returns
    -------
    tuple of Variant and float
        The variant, and its share of all entities, above 0 and at most 1.
    """
    variants = deployment.variants
    if len(variants) == 1:
        return variants[0], 1.0
    digest = hashlib.blake2b(entity.encode(), digest_size=8, key=deployment.salt.encode()[:64]).digest()
    point = int.from_bytes(digest, "big") / 2**64
    total = sum(variant.weight for variant in variants)
    # From the last variant on: the champion stands first and gives way as the candidate behind it grows.
    for variant in reversed(variants[1:]):
        share = variant.weight / total
        if point < share:
            return variant, share
        point -= share
    return variants[0], variants[0].weight / total


def current(ledger: Ledger, name: str) -> Deployment:
    """Return what a deployment serves now.

    Raises
    ------
    NotFound
        It was never started; the message names those that were.
    """
    state = ledger.get("deployment", name)
    if state is None:
        known = [other.key for other in ledger.states("deployment")]
        raise NotFound.among("started deployment", name, known, hint=f"loopwright deployment start {name}")
    return state.read(Deployment)


def publish(ledger: Ledger, deployment: Deployment, *, cause: int | None = None) -> None:
    """Make a deployment serve these variants; serving processes follow within a second."""
    ledger.put("deployment", deployment.name, deployment, event="deployment.changed", cause=cause)


def start(project: Project, name: str, version: int | None = None) -> Deployment:
    """Put a version into service as the only variant of a deployment, and make it the model's champion.

    Parameters
    ----------
    name
        A deployment of `loopwright.toml`.
    version
        By default the version with the alias ``champion``, else the newest.

    Raises
    ------
    NotFound
        There is no such deployment, or the model has no version.
    """
    from loopwright import registry, scoring

    config = project.deployment(name)
    chosen = _choose(project, config.model, version)
    scoring.load(scoring.prepare(project, config.model, chosen)).verify()
    if registry.aliases(project, config.model).get(CHAMPION) != chosen:
        registry.set_alias(project, config.model, CHAMPION, chosen)
    made = Deployment(name, config.model, config.mode, (Variant(CHAMPION, chosen),))
    ledger = Ledger.open(project)
    try:
        publish(ledger, made)
    finally:
        ledger.close()
    return made


def _choose(project: Project, model: str, version: int | None) -> int:
    from loopwright import registry

    if version is not None:
        return registry.version(project, model, version).version
    champion = registry.aliases(project, model).get(CHAMPION)
    if champion is not None:
        return champion
    known = registry.versions(project, model)
    if not known:
        pipeline = project.model(model).pipeline or "<module>:<function>"
        raise NotFound(f"The model {model!r} has no version yet.", hint=f"loopwright pipeline run {pipeline}")
    return max(item.version for item in known)


def rollback(project: Project, name: str) -> Deployment:
    """Go back to the version that was the only one in service before the present one.

    Raises
    ------
    InvalidInput
        Nothing served before.
    """
    project.deployment(name)
    ledger = Ledger.open(project)
    try:
        now_served = current(ledger, name).variants[0].version
        for event in reversed(ledger.events("deployment.changed", name, limit=10_000)):
            served = event.read(Deployment)
            if len(served.variants) == 1 and served.variants[0].version != now_served:
                return start(project, name, served.variants[0].version)
    finally:
        ledger.close()
    raise InvalidInput(
        f"Version {now_served} is the first that {name!r} serves: there is nothing to go back to.",
        hint="loopwright model list",
    )
