"""The rows that gate and canary are judged on, read from the prediction log."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopwright.monitor.metrics import losses
from loopwright.monitor.tables import column, labelled_mask, labelled_rows
from loopwright.predictions import PredictionStore
from loopwright.records import Release, Signature
from loopwright.registry.columns import DTYPES
from loopwright.release.gate import Held
from loopwright.release.sequential import Observations

__all__ = ["canary_rows", "held_rows"]


def held_rows(store: PredictionStore, deployment: str, signature: Signature, newest: int) -> Held:
    """Return the newest labelled rows of the holdout split, which trainings leave alone."""
    table = store.table(deployment=deployment, labelled=True, split="holdout", newest=newest)
    rows = labelled_rows(table)
    columns = {
        one.name: _typed(column(table, f"input_{one.name}"), one.type)
        for one in signature.inputs
        if f"input_{one.name}" in table.column_names
    }
    mask = labelled_mask(table)
    columns = {name: values[mask] for name, values in columns.items()}
    return Held(columns, rows.actual)


def _typed(values: NDArray[Any], kind: str) -> NDArray[Any]:
    return values if kind == "string" else values.astype(DTYPES[kind])


def canary_rows(store: PredictionStore, release: Release, since: datetime, loss: str) -> Observations:
    """Return the labelled rows that both variants could have answered since a moment, as their labels arrived."""
    table = store.table(deployment=release.deployment, since=since, labelled=True)
    versions, propensity = column(table, "version"), column(table, "propensity")
    compared = (versions == release.candidate) | (versions == release.champion)
    # A worker that had not followed yet gave the champion every row: no part of the comparison.
    chosen = np.nonzero(labelled_mask(table) & compared & (propensity < 1.0))[0]
    arrived = np.array(table.column("labelled_at").cast("int64").to_pylist(), np.int64)[chosen]
    ids = np.array(table.column("prediction_id").to_pylist(), str)[chosen]
    chosen = chosen[np.lexsort((ids, arrived))]
    loss_of_row = np.zeros(table.num_rows)
    loss_of_row[labelled_mask(table)] = losses(loss, labelled_rows(table))
    candidate = versions[chosen] == release.candidate
    own = propensity[chosen]
    # What is logged is the chance of the variant that answered; the candidate's is that or the rest.
    return Observations(loss_of_row[chosen], candidate, np.where(candidate, own, 1.0 - own))
