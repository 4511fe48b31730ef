"""Answers as the rows and the tables that callers read, the same in every protocol that has names for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from loopwright.deploy.answers import Answers
from loopwright.predictions.columns import booleans, constant, numbers, strings

__all__ = ["Answered", "labels_as_text", "rows_of", "table_of"]


class Answered(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One answer as it is sent; a regression has no `probability`.

    `prediction` of a model with several outputs is the list of them.
    """

    prediction_id: str
    prediction: Any
    probability: dict[str, float] | None = None
    model: str
    version: int
    variant: str


def rows_of(answers: Answers, at: int, n: int) -> list[Answered]:
    """Return the answers from `at` on as n records."""
    end = at + n
    predictions: list[Any] = answers.prediction[at:end].tolist()
    shares: list[dict[str, float] | None] = [None] * n
    if answers.probability is not None:
        names = [str(label) for label in answers.classes]
        # NaN: this row's variant gives no probability.
        shares = [
            dict(zip(names, row, strict=True)) if row[0] == row[0] else None
            for row in answers.probability[at:end].tolist()
        ]
    return [
        Answered(
            prediction_id=one,
            prediction=prediction,
            probability=share,
            model=answers.model,
            version=version,
            variant=variant,
        )
        for one, prediction, share, version, variant in zip(
            answers.prediction_id[at:end],
            predictions,
            shares,
            answers.version[at:end].tolist(),
            answers.variant[at:end],
            strict=True,
        )
    ]


def table_of(answers: Answers, at: int, n: int, outputs: Sequence[str] = ()) -> Any:
    """Return the answers from `at` on as an Arrow table of n rows.

    Its columns are prediction_id, prediction (or one for each of `outputs`), probability_<class> for each class, model,
    version and variant. A probability that a variant does not give is missing.
    """
    import pyarrow as pa

    end = at + n
    prediction = answers.prediction[at:end]
    # Pairs and no dictionary: an output may be called as another column is.
    columns = [("prediction_id", strings(answers.prediction_id[at:end]))]
    if outputs:
        columns += [(name, _values(prediction[:, place])) for place, name in enumerate(outputs)]
    else:
        columns.append(("prediction", _values(prediction)))
    if answers.probability is not None:
        shares = answers.probability[at:end]
        for place, label in enumerate(answers.classes):
            one = np.ascontiguousarray(shares[:, place])
            columns.append((f"probability_{label}", numbers(one, pa.float64(), np.isnan(one))))
    columns += [
        ("model", constant(answers.model, n)),
        ("version", numbers(answers.version[at:end], pa.int32())),
        ("variant", strings(answers.variant[at:end])),
    ]
    return pa.Table.from_arrays([values for _, values in columns], names=[name for name, _ in columns])


def _values(values: NDArray[Any]) -> Any:
    import pyarrow as pa

    kind = values.dtype.kind
    if kind == "b":
        return booleans(values)
    if kind in "iu":
        return numbers(values.astype(np.int64), pa.int64())
    if kind == "f":
        return numbers(values.astype(np.float64), pa.float64(), np.isnan(values))
    return strings(labels_as_text(values.tolist()))


def labels_as_text(labels: list[Any]) -> list[str]:
    """Return labels of one type or several as text."""
    return [label if isinstance(label, str) else str(label) for label in labels]
