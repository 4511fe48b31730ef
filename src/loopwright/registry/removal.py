"""Deleting a version, unless somebody still relies on it."""

from __future__ import annotations

import shlex

from loopwright.config import Project
from loopwright.errors import Conflict
from loopwright.ledger import Ledger
from loopwright.records import Deployment, Release
from loopwright.registry import catalog, rest

__all__ = ["check", "delete"]


def _obstacles(project: Project, model: str, version: int) -> list[tuple[str, str]]:
    """Return why a version may not be deleted, each with the command that lifts it; none when it may."""
    found = [
        (f"it has the alias {alias!r}", f"loopwright model alias {shlex.quote(model)} {alias} --delete")
        for alias, number in catalog.aliases(project, model).items()
        if number == version
    ]
    ledger = Ledger.open(project)
    try:
        found += _deployed(ledger, model, version)
        for state in ledger.states("release"):
            release = state.read(Release)
            if release.model == model and not release.state.ended and version == release.candidate:
                hint = f"loopwright deployment rollback {release.deployment}"
                found.append((f"the release {release.id} of {release.deployment!r} is trying it", hint))
    finally:
        ledger.close()
    return found


def _deployed(ledger: Ledger, model: str, version: int) -> list[tuple[str, str]]:
    found = []
    for state in ledger.states("deployment"):
        served = state.read(Deployment)
        uses = [variant for variant in served.variants if variant.version == version]
        if served.model != model or not uses:
            continue
        if all(variant.shadow for variant in uses):
            hint = f"loopwright deployment shadow {served.name} --stop"
            found.append((f"it is a shadow in the deployment {served.name!r}", hint))
        else:
            hint = f"loopwright deployment start {served.name} --version <another>"
            found.append((f"the deployment {served.name!r} serves it", hint))
    return found


def check(project: Project, model: str, version: int) -> None:
    """Return when a version may be deleted.

    Raises
    ------
    NotFound
        There is no such version.
    Conflict
        It has an alias, or a deployment or release uses it; the hint says how to free it.
    """
    rest.get_version(project, model, version)
    if reasons := _obstacles(project, model, version):
        raise Conflict(
            f"{model}/{version} is in use: {'; '.join(why for why, _ in reasons)}.",
            valid="A version can be deleted when it has no alias and is not deployed.",
            hint="\n     ".join(hint for _, hint in reasons),
        )


def delete(project: Project, model: str, version: int) -> None:
    """Delete a version from the registry. Its files, its record in the ledger and its predictions stay.

    Raises
    ------
    NotFound, Conflict
        See `check`.
    """
    check(project, model, version)
    rest.delete_version(project, model, version)
    ledger = Ledger.open(project)
    try:
        ledger.append("model.deleted", model, {"version": version})
    finally:
        ledger.close()
