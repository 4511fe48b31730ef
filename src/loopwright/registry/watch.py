"""Noticing what others did in the registry: versions made by MLflow's button, aliases moved on its page.

Each model's aliases and versions are compared with what was seen last, and the difference becomes events of the
ledger. A webhook says when it is worth looking; without one, looking now and then finds the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from filelock import FileLock

from loopwright.config import Project
from loopwright.errors import NotFound
from loopwright.ledger import Ledger
from loopwright.records import ModelVersion
from loopwright.registry import rest

__all__ = ["FOUND", "look", "looking", "seen_aliases"]

#: The event of a version that was not made by `register`.
FOUND = "model.found"
_SEEN = "registry"


def looking(project: Project) -> FileLock:
    """Return the lock under which the registry is changed and looked at: what we do ourselves is no news then."""
    project.run.mkdir(parents=True, exist_ok=True)
    return FileLock(project.run / "registry.lock", timeout=60)


def look(project: Project, ledger: Ledger, model: str) -> int:
    """Look at one model, write an event for each thing that is new, and return how many.

    The events are ``alias.set`` and ``alias.removed``, marked `follow` because deployments are to follow them, and
    ``model.found``.

    Raises
    ------
    Unavailable
        The MLflow server does not answer.
    """
    with looking(project):
        try:
            aliases = rest.get_aliases(project, model)
        except NotFound:
            return 0
        versions = [int(item["version"]) for item in rest.search_versions(project, model)]
        seen = ledger.get(_SEEN, model)
        before: dict[str, Any] = seen.value if seen else {"aliases": aliases, "versions": None}
        now = {"aliases": aliases, "versions": versions}
        if seen and before == now:
            return 0
        if before["versions"] is None:
            # Of a registry that was there before the project only what is in use is worth the work.
            fresh = sorted({*aliases.values(), *versions[-1:]})
        else:
            fresh = [number for number in versions if number not in before["versions"]]
        events = [
            *_moved(before["aliases"], aliases),
            *((FOUND, {"version": number}) for number in fresh if _foreign(ledger, model, number)),
        ]
        for kind, facts in events:
            ledger.append(kind, model, facts, actor="mlflow")
        ledger.put(_SEEN, model, now)
        return len(events)


def _moved(before: dict[str, int], now: dict[str, int]) -> Iterator[tuple[str, dict[str, Any]]]:
    for alias, version in now.items():
        if before.get(alias) != version:
            yield (
                "alias.set",
                {"alias": alias, "version": version, "previous": before.get(alias), "follow": True},
            )
    for alias in before:
        if alias not in now:
            yield "alias.removed", {"alias": alias, "previous": before[alias]}


def _foreign(ledger: Ledger, model: str, number: int) -> bool:
    """Whether nobody has described the version yet."""
    state = ledger.get("model_version", f"{model}/{number}")
    return state is None or not state.read(ModelVersion).digest


def seen_aliases(ledger: Ledger, model: str, aliases: dict[str, int]) -> None:
    """Note the aliases of a model after we moved one ourselves; called while `looking` is held."""
    seen = ledger.get(_SEEN, model)
    versions = seen.value["versions"] if seen else None
    ledger.put(_SEEN, model, {"aliases": aliases, "versions": versions})
