"""Which datasets there are, by which names, and who used them."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from loopwright.config import Project
from loopwright.errors import InvalidInput, NotFound
from loopwright.ledger import Ledger
from loopwright.records import DatasetRef, ModelVersion, PipelineRun

__all__ = ["READ", "Users", "history", "names", "resolve", "users"]

#: The event written when a name stands for another content than before.
READ = "dataset.read"
_DIGEST = re.compile(r"^[0-9a-f]{6,64}$")


@dataclass(frozen=True, slots=True)
class Users:
    """Who used one snapshot: pipeline runs as ``(run id, pipeline)``, and model versions such as ``digits/3``."""

    runs: tuple[tuple[str, str], ...]
    versions: tuple[str, ...]


def names(project: Project) -> dict[str, list[DatasetRef]]:
    """Return the snapshots of each name, oldest first: one each time the content was another than before."""
    ledger = Ledger.open(project)
    try:
        found: dict[str, list[DatasetRef]] = {}
        for event in ledger.events(READ, limit=1_000_000):
            found.setdefault(event.subject, []).append(event.read(DatasetRef))
        for state in ledger.states("dataset"):
            # Kept before such events were written.
            ref = state.read(DatasetRef)
            found.setdefault(ref.name, [ref])
    finally:
        ledger.close()
    return {
        name: [next(group) for _, group in itertools.groupby(refs, key=lambda ref: ref.digest)]
        for name, refs in sorted(found.items())
    }


def history(project: Project, name: str) -> list[DatasetRef]:
    """Return the snapshots of one name, oldest first.

    Raises
    ------
    NotFound
        No dataset has this name; the message names the nearest.
    """
    known = names(project)
    if name not in known:
        raise NotFound.among("dataset", name, known, hint="loopwright dataset list")
    return known[name]


def resolve(project: Project, reference: str) -> DatasetRef:
    """Return the snapshot that a reference means.

    Parameters
    ----------
    reference
        A name for its newest snapshot, ``name@2`` for the second that was taken, or the first six digits or more of
        a fingerprint.

    Raises
    ------
    NotFound
        There is no such dataset or snapshot; the message names those there are.
    InvalidInput
        Several fingerprints start so.
    """
    known = names(project)
    if reference in known:
        return known[reference][-1]
    name, at, number = reference.rpartition("@")
    if at and name in known:
        if number.isdecimal() and 1 <= int(number) <= len(known[name]):
            return known[name][int(number) - 1]
        raise NotFound(
            f"The dataset {name!r} has no snapshot {number!r}.",
            valid=f"Snapshots: {name}@1 to {name}@{len(known[name])}.",
            hint=f"loopwright dataset show {name}",
        )
    if _DIGEST.match(reference):
        found = {
            ref.digest: ref for refs in known.values() for ref in refs if ref.digest.startswith(reference)
        }
        if len(found) > 1:
            listed = ", ".join(digest[:16] for digest in sorted(found))
            raise InvalidInput(
                f"Several fingerprints start with {reference}: {listed}.", hint="give more digits"
            )
        if found:
            return next(iter(found.values()))
    raise NotFound.among("dataset", name if at else reference, known, hint="loopwright dataset list")


def users(project: Project, digest: str) -> Users:
    """Return the runs that read or made a snapshot, and the model versions that learned from it, oldest first."""
    ledger = Ledger.open(project)
    try:
        runs = sorted(
            (state.read(PipelineRun) for state in ledger.states("pipeline_run")), key=lambda run: run.started
        )
        versions = sorted(
            (state.read(ModelVersion) for state in ledger.states("model_version")),
            key=lambda version: (version.model, version.version),
        )
    finally:
        ledger.close()
    mine = [
        (run.run_id, run.pipeline)
        for run in runs
        if any(ref.digest == digest for ref in run.datasets)
        or any(digest in (*step.inputs, *step.outputs) for step in run.steps)
    ]
    learned = [item.ref for item in versions if item.training and item.training.digest == digest]
    return Users(tuple(mine), tuple(learned))
