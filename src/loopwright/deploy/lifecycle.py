"""The state of a deployment: what it serves, and putting versions into service, beside the others, or back."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable, Mapping

from loopwright import registry, scoring
from loopwright.config import Project
from loopwright.deploy.routing import Split, incompatible, leading
from loopwright.errors import Conflict, InvalidInput, NotFound, Unavailable, listing
from loopwright.ledger import Event, Ledger
from loopwright.records import Deployment, Mode, Signature, Variant, now

__all__ = [
    "champion_of",
    "current",
    "publish",
    "rollback",
    "shadow",
    "shadows_beside",
    "split",
    "start",
    "stop_shadow",
]

CHAMPION = "champion"
SHADOW = "shadow"
#: How often a change by hand is tried again when somebody else changed the deployment meanwhile.
CHANGE_TRIES = 3
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
        # No nearest name: another one that was started is not what was meant.
        raise NotFound(
            f"There is no started deployment {name!r}.",
            valid=f"Started: {listing(known)}.",
            hint=f"loopwright deployment start {name}",
        )
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
        Two variants have the same name, a shadow has a weight, a weight is negative, or those of the others do not sum
        to 1.
    Conflict
        The state is not at the revision `expect`.
    """
    _check(deployment)
    return ledger.put(
        "deployment", deployment.name, deployment, expect=expect, event="deployment.changed", cause=cause
    )


def _check(deployment: Deployment) -> None:
    names = [variant.name for variant in deployment.variants]
    answering = sum(variant.weight for variant in deployment.variants if not variant.shadow)
    weighty = any(variant.shadow and variant.weight for variant in deployment.variants)
    if len(set(names)) != len(names) or weighty or not abs(answering - 1.0) <= 1e-6:
        facts = listing(
            f"{variant.name}={variant.weight:g}{' (shadow)' if variant.shadow else ''}"
            for variant in deployment.variants
        )
        total = "" if abs(answering - 1.0) <= 1e-6 else f", which is {answering:g} in all"
        raise InvalidInput(
            f"The variants of deployment {deployment.name!r} cannot be served: {facts}{total}.",
            valid="Each has a name of its own, a shadow has the weight 0, and the weights of the others sum to 1.",
        )
    Split(deployment)


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
    _proven(project, model, chosen)
    return _serve(project, name, chosen)


def _proven(project: Project, model: str, version: int) -> Signature:
    """Prepare, load and verify a version, and return what it takes and gives."""
    scorer = scoring.load(scoring.prepare(project, model, version))
    try:
        scorer.verify()
        return scorer.signature
    finally:
        scorer.close()


def shadow(project: Project, name: str, version: int) -> Deployment:
    """Let a version score the same rows beside those that answer, or in place of the present shadow.

    It answers nobody, and cannot delay or fail a request. Its predictions are in the view `shadows` of the prediction
    log, under the ids of the answers. It stays through starts, releases and rollbacks until it is stopped or its version
    becomes the champion itself.

    Raises
    ------
    NotFound
        No such deployment or version, or the deployment was never started.
    InvalidInput
        The deployment is not online.
    Conflict
        The version answers already, or cannot take the rows that the champion takes; or somebody else changed the
        deployment at the same moment.
    Damaged, Unavailable
        As for `start`.
    """
    config = project.deployment(name)
    if config.mode is not Mode.online:
        raise InvalidInput(
            f"The deployment {name!r} is in mode {config.mode}.", valid="Only an online one has shadows."
        )

    def changed(served: Deployment) -> tuple[Variant, ...]:
        others = tuple(variant for variant in served.variants if not variant.shadow)
        for variant in others:
            if variant.version == version and variant.weight:
                raise Conflict(f"{served.model}/{version} answers in {name!r} already, as {variant.name}.")
        _fits(project, served, version)
        return (*others, Variant(SHADOW, version, 0.0, shadow=True))

    return _change(project, name, changed, release=True)


def stop_shadow(project: Project, name: str) -> Deployment:
    """Take the shadow away; what it predicted stays in the log.

    Raises
    ------
    NotFound
        No such deployment, or it was never started.
    Conflict
        It has no shadow, or somebody else changed it at the same moment.
    """

    def changed(served: Deployment) -> tuple[Variant, ...]:
        others = tuple(variant for variant in served.variants if not variant.shadow)
        if len(others) == len(served.variants):
            raise Conflict(
                f"The deployment {name!r} has no shadow.",
                hint=f"loopwright deployment shadow {name} --version <version>",
            )
        return others

    return _change(project, name, changed, release=True)


def split(project: Project, name: str, shares: Mapping[str, tuple[int | None, float]]) -> Deployment:
    """Give variants their shares of the entities by hand; the shadow stays.

    An entity keeps its variant as far as the shares let it: the salt stays. A release that is under way sees the
    change and ends.

    Parameters
    ----------
    project, name
        A declared deployment that was started, of any mode but edge.
    shares
        By variant: the version, None for the one that this variant has now, and the weight, 0 to 1, together 1. One of
        them is called ``champion`` and keeps its version.

    Raises
    ------
    NotFound
        No such deployment or version, it was never started, or a variant without a version is not there.
    InvalidInput
        No champion, a champion of another version, or weights that do not sum to 1; or an edge deployment.
    Conflict
        A version cannot take the rows that the champion takes; or somebody else changed the deployment.
    Damaged, Unavailable
        As for `start`.
    """
    if project.deployment(name).mode is Mode.edge:
        raise InvalidInput(f"The deployment {name!r} is on devices, which have one model each.")

    def changed(served: Deployment) -> tuple[Variant, ...]:
        champion = leading(served)
        made = tuple(_variant(served, each, *share) for each, share in shares.items())
        named = [variant for variant in made if variant.name == CHAMPION]
        if not named or named[0].version != champion.version:
            facts = listing(f"{variant.name}:{variant.version}={variant.weight:g}" for variant in made)
            raise InvalidInput(
                f"In {facts} the champion is not {served.model}/{champion.version}, which it is now.",
                valid=f"One variant is called {CHAMPION!r} and keeps its version.",
                hint=f"loopwright deployment start {name} --version <version>   (makes another one champion)",
            )
        # The champion comes first, as everywhere, and the shadow last.
        others = [variant for variant in made if variant.name != CHAMPION]
        made = (*named, *others, *(variant for variant in served.variants if variant.shadow))
        _check(dataclasses.replace(served, variants=made))
        for variant in others:
            _fits(project, served, variant.version)
        return made

    return _change(project, name, changed)


def _variant(served: Deployment, name: str, version: int | None, weight: float) -> Variant:
    known = {variant.name: variant for variant in served.variants if not variant.shadow}
    if version is None:
        if name not in known:
            raise NotFound.among(
                "variant", name, known, hint=f"write its version: {name}:<version>={weight:g}"
            )
        version = known[name].version
    return Variant(name, version, weight)


def _fits(project: Project, served: Deployment, version: int) -> None:
    """Prove a version, and that it can take every row the champion can."""
    champion = leading(served).version
    own = _proven(project, served.model, version)
    theirs = scoring.read_manifest(scoring.prepare(project, served.model, champion)).signature
    if reason := incompatible(theirs, own):
        raise Conflict(
            f"{served.model}/{version} cannot stand beside version {champion}: {reason}.",
            hint=f"loopwright deployment start {served.name} --version {version}",
        )


def _change(
    project: Project,
    name: str,
    changed: Callable[[Deployment], tuple[Variant, ...]],
    *,
    release: bool = False,
) -> Deployment:
    """Publish other variants of what is served now; with `release` in the name of the release that is under way."""
    ledger, tries = Ledger.open(project), CHANGE_TRIES
    try:
        while True:
            current(ledger, name)
            state = ledger.get("deployment", name)
            assert state is not None
            before = state.read(Deployment)
            made = dataclasses.replace(
                before,
                variants=changed(before),
                salt=before.salt or secrets.token_hex(8),
                release=before.release if release else "",
                changed=now(),
            )
            tries -= 1
            try:
                publish(ledger, made, expect=state.revision)
            except Conflict:
                # Proving a version can take minutes, in which a release takes its next step.
                if not tries:
                    raise
            else:
                return made
    finally:
        ledger.close()


def shadows_beside(before: Deployment | None, model: str, champion: int | None = None) -> tuple[Variant, ...]:
    """Return the shadows that stay when a deployment's answering variants change, to be put behind those.

    Parameters
    ----------
    before
        What was served, None when it was never started.
    model
        The model served from now on: a version of another model is no shadow of it.
    champion
        The version that answers alone from now on, where one does: beside itself it would say nothing.
    """
    if before is None or before.model != model:
        return ()
    return tuple(variant for variant in before.variants if variant.shadow and variant.version != champion)


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
        served = current(ledger, name)
        champion = leading(served)
        if any(variant.weight > 0 and variant.name != champion.name for variant in served.variants):
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
    """Publish one version as the only one that answers, and move the alias to it."""
    config = project.deployment(name)
    ledger = Ledger.open(project)
    try:
        seen = ledger.get("deployment", name)
        beside = shadows_beside(seen.read(Deployment) if seen else None, config.model, version)
        variants = (Variant(CHAMPION, version), *beside)
        made = Deployment(name, config.model, config.mode, variants, salt=secrets.token_hex(8))
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
