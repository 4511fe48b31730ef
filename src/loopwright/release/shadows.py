"""A shadow against the champion: what both said on the same rows, and which of them the labels bear out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopwright.config import Project
from loopwright.deploy import base
from loopwright.errors import Conflict
from loopwright.ledger import Ledger
from loopwright.monitor.metrics import Labelled, losses
from loopwright.monitor.tables import column, labelled_mask
from loopwright.predictions import PredictionStore
from loopwright.records import ModelVersion, Signature, Task
from loopwright.release.gate import LEAST, paired_interval

__all__ = ["Comparison", "Difference", "compare"]


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean of shadow minus champion, row by row, with its 95 % confidence interval; None below 30 rows.

    The interval is right for one look. Who looks again and again until it excludes 0 is wrong more often; a release's
    canary is made for that.
    """

    estimate: float
    lower: float | None
    upper: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a shadow and the champion said on the same n rows.

    `agreement` is the share of rows with the same label, 0 to 1; `difference` is between predicted numbers. Of the two
    there is the one that fits the model. The losses are means over the `labelled` rows, of the loss that is named; lower
    is better.
    """

    deployment: str
    model: str
    champion: int
    shadow: int
    rows: int
    agreement: float | None
    difference: Difference | None
    labelled: int
    loss: str
    champion_loss: float | None
    shadow_loss: float | None
    loss_difference: Difference | None


def compare(project: Project, deployment: str, version: int | None = None) -> Comparison:
    """Compare a shadow with the champion, on the rows that this champion answered and the shadow scored.

    Parameters
    ----------
    project, deployment
        A deployment that was started.
    version
        The version that is or was a shadow; else the present one.

    Raises
    ------
    NotFound
        No such deployment, or it was never started.
    Conflict
        It has no shadow, and no version is named.
    """
    config = project.deployment(deployment)
    ledger = Ledger.open(project)
    try:
        served = base.current(ledger, deployment)
        champion = base.champion_of(served).version
        shadow = version or next((one.version for one in served.variants if one.shadow), None)
        if shadow is None:
            raise Conflict(
                f"The deployment {deployment!r} has no shadow.",
                hint=f"loopwright deployment shadow {deployment} --version <version>",
            )
        state = ledger.get("model_version", f"{served.model}/{champion}")
        other = ledger.get("model_version", f"{served.model}/{shadow}")
    finally:
        ledger.close()
    signatures = [one.read(ModelVersion).signature if one else None for one in (state, other)]
    regression = any(one is not None and one.task is Task.regression for one in signatures)
    table = PredictionStore(project).query(
        f"""
        select p.prediction as mine, s.prediction as theirs, p.probability as mine_p, s.probability as theirs_p, p.actual
        from predictions p join shadows s using (prediction_id)
        where p.version = {int(champion)} and s.version = {int(shadow)} and p.model = s.model
        """,
        deployment=deployment,
    )
    mine, theirs = column(table, "mine"), column(table, "theirs")
    loss = config.release.metric or ("absolute_error" if regression else "error")
    known = labelled_mask(table)
    own = other_loss = None
    if known.any():
        own = losses(loss, _labelled(table, known, mine, "mine_p", signatures[0]))
        other_loss = losses(loss, _labelled(table, known, theirs, "theirs_p", signatures[1]))
    return Comparison(
        deployment=deployment,
        model=served.model,
        champion=champion,
        shadow=shadow,
        rows=len(mine),
        agreement=float(np.mean(mine == theirs)) if len(mine) and not regression else None,
        difference=_difference(_numbers(theirs) - _numbers(mine)) if len(mine) and regression else None,
        labelled=int(known.sum()),
        loss=loss,
        champion_loss=None if own is None else float(own.mean()),
        shadow_loss=None if other_loss is None else float(other_loss.mean()),
        loss_difference=None if own is None or other_loss is None else _difference(other_loss - own),
    )


def _numbers(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return predicted numbers; of a model with several outputs the mean of each row's."""
    if values.dtype == object:
        values = np.array(values.tolist(), np.float64)
    numbers = values.astype(np.float64)
    return numbers if numbers.ndim == 1 else numbers.mean(axis=1)


def _labelled(
    table: Any, known: NDArray[np.bool_], prediction: NDArray[Any], name: str, signature: Signature | None
) -> Labelled:
    rows = [row for row, one in zip(table.column(name).to_pylist(), known.tolist(), strict=True) if one]
    probability = np.array(rows, np.float64) if rows and all(rows) else None
    actual = column(table, "actual")[known]
    if prediction.dtype.kind == "i":
        # Labels that are whole numbers come as decimals where some are missing.
        actual = actual.astype(np.int64)
    return Labelled(actual, prediction[known], probability, signature.classes if signature else ())


def _difference(paired: NDArray[np.float64]) -> Difference:
    if len(paired) < LEAST:
        return Difference(float(paired.mean()), None, None)
    return Difference(*paired_interval(paired, 0.975))
