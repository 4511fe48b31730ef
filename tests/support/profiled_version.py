"""Versions with a reference profile, without a model, for the tests of live numbers."""

from pathlib import Path

import msgspec
import numpy as np

from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.records import ModelVersion, Signature
from loopwright.registry.profile import Profile, profile_of


def profile_for(signature: Signature, *, rows: int = 2000, seed: int = 1, centre: float = 0.0) -> Profile:
    """Return the profile of made-up training rows: normal numbers, and one of five colours."""
    random = np.random.default_rng(seed)
    columns = {
        column.name: random.choice(np.array(["blue", "red", "white", "green", "grey"], object), rows)
        if column.type == "string"
        else random.normal(centre, 1.0, rows)
        for column in signature.inputs
    }
    prediction = random.integers(0, len(signature.classes), rows)
    probability = random.dirichlet(np.ones(len(signature.classes)), rows)
    return profile_of(columns, signature, prediction, probability=probability)


def add_profiled(
    project: Project, ledger: Ledger, model: str, version: int, signature: Signature, profile: Profile | None
) -> None:
    """Put a version into the ledger, and its profile where a prepared version has it."""
    ledger.put(
        "model_version", f"{model}/{version}", ModelVersion(model, version, "", "", signature=signature)
    )
    if profile is not None:
        path: Path = project.scorer(model, version) / "profile.json"
        path.parent.mkdir(parents=True)
        path.write_bytes(msgspec.json.encode(profile))
