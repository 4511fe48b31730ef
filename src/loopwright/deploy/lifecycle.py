"""The state of a deployment: what it serves, and putting versions into service or back."""

from __future__ import annotations

import secrets

from loopwright import registry, scoring
from loopwright.config import Project
from loopwright.deploy.routing import Split, leading
from loopwright.errors import Conflict, InvalidInput, NotFound, Unavailable, listing
from loopwright.ledger import Event, Ledger
from loopwright.records import Deployment, Variant

__all__ = ["champion_of", "current", "publish", "rollback", "start"]

CHAMPION = "champion"
#: How many changes `rollback` looks back over. A release makes about six.
CHANGES = 1000


def current(ledger: Ledger, name: str) -> Deployment:
    """Return what a deployment serves now.

    Raises
    ------
    NotFound
        It was never started.
    """
    state = ledger.get("deployment", name)
    if state is None:
        known = [other.key for other in ledger.states("deployment")]
        raise NotFound.among("started deployment", name, known, hint=f"loopwright deployment start {name}")
    return state.read(Deployment)


def champion_of(deployment: Deployment) -> Variant:
    """Return the variant called champion, else the one with the largest weight."""
    return leading(deployment)


def publish(
    ledger: Ledger, deployment: Deployment, *, cause: int | None = None, expect: int | None = None
) -> int:
    """Change what a deployment serves; every serving process follows within a second, without a restart.

    Parameters
    ----------
    deployment
        The new state.
    cause
        The id of the event that led to it.
    expect
        The revision of the state that the caller has seen, 0 for none; None overwrites whatever is there.

    Returns
    -------
    int
        The new revision.

    Raises
    ------
    InvalidInput
        The variants have the same name twice, or weights that do not sum to 1.
    Conflict
        The state is not at the revision `expect`.
    """
    names = [variant.name for variant in deployment.variants]
    weights = [variant.weight for variant in deployment.variants]
    if len(set(names)) != len(names) or abs(sum(weights) - 1.0) > 1e-6:
        facts = listing(f"{variant.name}={variant.weight}" for variant in deployment.variants)
        raise InvalidInput(
            f"The variants of deployment {deployment.name!r} cannot be served: {facts}.",
            valid="Each has a name of its own, and the weights sum to 1.",
        )
    Split(deployment)
    return ledger.put(
        "deployment", deployment.name, deployment, expect=expect, event="deployment.changed", cause=cause
    )


def start(project: Project, name: str, version: int | None = None) -> Deployment:
    """Put one version of a deployment's model into service, for all rows.

    The version is prepared for scoring and verified first, and becomes the model's ``champion``.

    Parameters
    ----------
    project, name
        A declared deployment, of any mode.
    version
        The version; else the one with the alias ``champion``, else the newest.

    Raises
    ------
    NotFound
        No such deployment or version, or the model has no version yet.
    Damaged
        The version's files are not those that were registered, or it does not give its golden answers.
    Unavailable
        MLflow does not answer.
    Conflict
        Somebody else changed the deployment at the same moment.
    """
    model = project.deployment(name).model
    chosen = _resolve(project, model, version)
    scorer = scoring.load(scoring.prepare(project, model, chosen))
    scorer.verify()
    scorer.close()
    return _serve(project, name, chosen)


def rollback(project: Project, name: str) -> Deployment:
    """Go back to what served before, at once.

    While a candidate takes a share, that is the champion alone; else it is the champion before the present one.

    Raises
    ------
    NotFound
        The deployment was never started.
    Conflict
        It has served no other version.
    """
    config = project.deployment(name)
    ledger = Ledger.open(project)
    try:
        now = current(ledger, name)
        champion = leading(now)
        if sum(variant.weight > 0 for variant in now.variants) > 1:
            return _serve(project, name, champion.version)
        changes = [event.read(Deployment) for event in _changes(ledger, name)]
    finally:
        ledger.close()
    before = [
        leading(change).version
        for change in reversed(changes)
        if change.model == config.model and leading(change).version != champion.version
    ]
    if not before:
        raise Conflict(
            f"The deployment {name!r} has served no version but {champion.version}.",
            hint=f"loopwright deployment start {name} --version <version>",
        )
    scoring.prepare(project, config.model, before[0])
    return _serve(project, name, before[0])


def _changes(ledger: Ledger, name: str) -> list[Event]:
    return ledger.events("deployment.changed", name, newest=True, limit=CHANGES)


def _serve(project: Project, name: str, version: int) -> Deployment:
    """Publish one version as the only variant, and move the alias to it."""
    config = project.deployment(name)
    ledger = Ledger.open(project)
    try:
        seen = ledger.get("deployment", name)
        made = Deployment(
            name, config.model, config.mode, (Variant(CHAMPION, version),), salt=secrets.token_hex(8)
        )
        publish(ledger, made, expect=seen.revision if seen else 0)
    finally:
        ledger.close()
    try:
        if registry.aliases(project, config.model).get(CHAMPION) != version:
            registry.set_alias(project, config.model, CHAMPION, version)
    except Unavailable as error:
        # Serving comes first: going back must work while MLflow is down.
        raise Unavailable(
            f"{name} serves {config.model}/{version} now, but the alias {CHAMPION!r} could not be moved: {error.fact}",
            hint=f"loopwright model promote {config.model} {version}",
        ) from error
    return made


def _resolve(project: Project, model: str, version: int | None) -> int:
    if version is not None:
        return registry.version(project, model, version).version
    champion = registry.aliases(project, model).get(CHAMPION)
    if champion is not None:
        return champion
    known = registry.versions(project, model)
    if not known:
        raise NotFound(
            f"The model {model!r} has no version yet.",
            valid="A pipeline registers one.",
            hint=f"loopwright pipeline run {model}",
            model=model,
        )
    return known[-1].version
