"""The bins of each version, made once in a process: a version's profile never changes."""

from __future__ import annotations

from typing import NamedTuple

from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.monitor.blocks import Plan
from loopwright.records import Deployment, ModelVersion, Signature
from loopwright.registry.profile import Profile, read_profile

__all__ = ["Planned", "Plans", "model_of"]


class Planned(NamedTuple):
    """What is known of a version: its bins, and what they were made of, where there is any."""

    plan: Plan
    profile: Profile | None
    signature: Signature | None


class Plans:
    """The plans of a project's versions, looked up by model and version."""

    def __init__(self, project: Project, ledger: Ledger) -> None:
        self._project = project
        self._ledger = ledger
        self._known: dict[tuple[str, int], Planned] = {}

    def of(self, model: str, version: int) -> Planned:
        """Return what is known of a version.

        A version without a reference profile, because nobody made one or this machine does not have it, is counted by
        rows, predictions and latency.

        Raises
        ------
        Damaged
            Its profile cannot be read.
        """
        found = self._known.get((model, version))
        if found is None:
            found = self._known[model, version] = self._read(model, version)
        return found

    def again(self, model: str, version: int) -> Planned:
        """Look once more, after a block had other bins: the profile may have come since."""
        self._known.pop((model, version), None)
        return self.of(model, version)

    def _read(self, model: str, version: int) -> Planned:
        state = self._ledger.get("model_version", f"{model}/{version}")
        signature = state.read(ModelVersion).signature if state else None
        path = self._project.scorer(model, version) / "profile.json"
        try:
            profile = read_profile(path)
        except FileNotFoundError:
            profile = None
        return Planned(Plan.of(profile, signature), profile, signature)


def model_of(project: Project, ledger: Ledger, deployment: str) -> str:
    """Return the model of a deployment as it is declared, else as it was deployed last; empty where nobody knows."""
    config = project.config.deployment.get(deployment)
    if config is not None:
        return config.model
    state = ledger.get("deployment", deployment)
    return state.read(Deployment).model if state else ""
