"""Where a version that was registered by hand learned: the snapshot that its MLflow run points to."""

from __future__ import annotations

import json
from typing import Any

from loopwright.config import Project
from loopwright.errors import LoopwrightError, NotFound
from loopwright.ledger import Ledger
from loopwright.lineage.snapshots import read_snapshot
from loopwright.records import DatasetRef, ModelVersion, PipelineRun
from loopwright.registry import rest

__all__ = ["TAG", "training_of"]

#: The tag of a run that names the snapshot its model learned from.
TAG = "loopwright.dataset"


def training_of(project: Project, version: ModelVersion, inputs: tuple[str, ...] = ()) -> DatasetRef | None:
    """Return the snapshot that a version learned from, or None when nothing says it.

    In this order: what is known of the version; the tag of its run; a dataset logged to its run by MLflow, when one of
    our snapshots is of the same content; the one dataset of its pipeline run that has all the model's inputs.

    Parameters
    ----------
    inputs
        The names of the model's inputs, where they are known.
    """
    if version.training is not None or not version.run_id:
        return version.training
    try:
        run = rest.get_run(project, version.run_id)
    except LoopwrightError:
        return None
    ledger = Ledger.open(project)
    try:
        kept = {state.key: state.read(DatasetRef) for state in ledger.states("dataset")}
        pipeline = ledger.get("pipeline_run", version.run_id)
        read = pipeline.read(PipelineRun).datasets if pipeline else ()
    finally:
        ledger.close()
    tags = {tag["key"]: tag["value"] for tag in run["data"].get("tags", [])}
    if found := kept.get(tags.get(TAG, "")):
        return found
    for logged in run.get("inputs", {}).get("dataset_inputs", []):
        if found := _logged(project, logged["dataset"], kept):
            return found
    fitting = [ref for ref in read if inputs and set(inputs) < set(ref.columns)]
    return fitting[0] if len(fitting) == 1 else None


def _logged(project: Project, facts: dict[str, Any], kept: dict[str, DatasetRef]) -> DatasetRef | None:
    """Return the snapshot with the content of a dataset that MLflow knows.

    MLflow's own digest is a hash of the first rows, the number of rows and the columns. It is computed for those of
    our snapshots that have as many rows, and believed when one of them alone has it.
    """
    digest = facts.get("digest", "")
    ours = [ref for key, ref in kept.items() if len(digest) >= 16 and key.startswith(digest)]
    if ours:
        return ours[0]
    try:
        rows = json.loads(facts.get("profile") or "{}").get("num_rows")
    except (ValueError, AttributeError):
        return None
    from mlflow.data.digest_utils import compute_pandas_digest

    found = []
    for ref in kept.values():
        if ref.rows == rows:
            try:
                frame = read_snapshot(project, ref.digest).to_pandas()
            except (LoopwrightError, NotFound):
                continue
            if compute_pandas_digest(frame) == digest:
                found.append(ref)
    return found[0] if len(found) == 1 else None
