"""Completing a version that was registered by hand: finding or taking its dataset, and describing it anew."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

from loopwright.config import Project
from loopwright.errors import InvalidInput, LoopwrightError, listing
from loopwright.ledger import Ledger
from loopwright.records import DatasetRef, ModelVersion
from loopwright.registry import catalog, rest
from loopwright.registry.completeness import completeness
from loopwright.registry.origin import TAG
from loopwright.scoring.native import read_mlmodel
from loopwright.scoring.preparation import prepare

__all__ = ["complete"]


def complete(
    project: Project, model: str, which: int | str | None, dataset: DatasetRef | None = None
) -> ModelVersion:
    """Fill in what a version lacks, as far as it can be known.

    Parameters
    ----------
    dataset
        What the version learned from; by default what its MLflow run says.

    Raises
    ------
    NotFound
        There is no such version.
    InvalidInput
        The dataset lacks inputs of the model, or the model does not say which it takes.
    """
    version = catalog.version(project, model, which)
    if dataset is not None:
        _check(version, dataset)
        version = replace(version, training=dataset)
        ledger = Ledger.open(project)
        try:
            ledger.put("model_version", version.ref, version)
            ledger.append("model.dataset", model, {"version": version.version, "dataset": dataset.digest})
        finally:
            ledger.close()
        if version.run_id:
            # For those who look at the run in MLflow; the ledger knows it already.
            with contextlib.suppress(LoopwrightError):
                rest.set_run_tag(project, version.run_id, TAG, dataset.digest)
    lacks = not all(have.there for have in completeness(project, version))
    prepare(project, model, version.version, force=lacks or dataset is not None)
    return catalog.version(project, model, version.version)


def _check(version: ModelVersion, dataset: DatasetRef) -> None:
    names = version.signature.names if version.signature else _declared(Path(version.uri))
    lacking = [name for name in names if name not in dataset.columns]
    if lacking:
        raise InvalidInput(
            f"{version.ref} did not learn from {dataset.name} {dataset.digest[:12]}: it has no column "
            f"{listing(map(repr, lacking))}.",
            valid=f"Columns: {listing(dataset.columns)}.",
            hint="loopwright dataset list",
        )


def _declared(folder: Path) -> tuple[str, ...]:
    if not (folder / "MLmodel").is_file():
        return ()
    declared = json.loads((read_mlmodel(folder).get("signature") or {}).get("inputs") or "[]")
    return tuple(column["name"] for column in declared if column.get("name"))
