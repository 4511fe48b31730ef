"""Writing labels: ground truth that arrives after the prediction.

Labels are stored without a type, as a number and as text, because a label says nothing about the model that made the
prediction; they get the prediction's type when they are joined. The label that arrived last wins.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from loopwright.config import Project
from loopwright.errors import InvalidInput
from loopwright.predictions import columns
from loopwright.predictions.files import LogFolder, now_us
from loopwright.predictions.rolling import Durability, RollingLog
from loopwright.predictions.schema import TIME
from loopwright.records import Label, Scalar

__all__ = ["LABELS", "LabelLog"]

#: `at` is what the sender says, `received_at` when the label arrived here, which decides between two labels.
LABELS = pa.schema(
    [
        ("prediction_id", pa.string()),
        ("number", pa.float64()),
        ("text", pa.string()),
        ("at", TIME),
        ("received_at", TIME),
    ]
)


class LabelLog:
    """The label log of one process; parameters as for `PredictionLog`. Thread-safe."""

    def __init__(
        self,
        project: Project,
        *,
        durability: Durability = "process",
        seal_rows: int = 131_072,
        seal_bytes: int = 32 << 20,
        seal_after_s: float = 300.0,
    ) -> None:
        self._lock = threading.Lock()
        self._last_us = 0
        self._log = RollingLog(
            project,
            LogFolder(project.labels),
            durability=durability,
            seal_rows=seal_rows,
            seal_bytes=seal_bytes,
            seal_after_s=seal_after_s,
        )

    def append(self, labels: Sequence[Label]) -> None:
        """Append labels in the order they were received; return when they are durable, all of them or none.

        A label for an id that has no prediction is kept and never counted; check ids with `Ids.check` before.

        Raises
        ------
        InvalidInput
            A label is NaN or not a boolean, number or text, or its time has no zone.
        Unavailable
            The disk does not take them, or the log is closed; nothing of them is kept.
        """
        if not labels:
            return
        values = [_value(label) for label in labels]
        with self._lock:
            # Never the same moment twice, so that the later of two labels is known even within one microsecond.
            first = self._last_us = max(now_us(), self._last_us + 1)
            self._last_us += len(labels) - 1
        numbers = np.array([math.nan if number is None else number for number, _ in values])
        at = np.array([int(label.at.timestamp() * 1e6) for label in labels], np.int64)
        received = np.arange(first, first + len(labels), dtype=np.int64)
        arrays = [
            columns.strings([label.prediction_id for label in labels]),
            columns.numbers(numbers, pa.float64(), np.isnan(numbers)),
            columns.strings([text for _, text in values]),
            columns.numbers(at, TIME),
            columns.numbers(received, TIME),
        ]
        batch = pa.RecordBatch.from_arrays(arrays, schema=LABELS)
        self._log.append("labels", LABELS, batch.serialize(), len(labels))

    def maintain(self) -> None:
        """Seal what is full or old enough; call it about once a second. Raises `Unavailable` on a full disk."""
        self._log.maintain()

    def close(self) -> None:
        """Seal and stop; what cannot be sealed stays readable."""
        self._log.close()


def _value(label: Label) -> tuple[float | None, str]:
    """Return a label as a number, None where it is none, and as text."""
    actual: Any = label.actual
    if label.at.tzinfo is None:
        raise InvalidInput(
            f"The label of prediction {label.prediction_id!r} has the time {label.at.isoformat()} without a zone.",
            valid="Times are UTC-aware, such as 2026-01-31T12:00:00+00:00.",
        )
    plain: Scalar = actual.item() if isinstance(actual, np.generic) else actual
    if isinstance(plain, bool):
        return float(plain), "true" if plain else "false"
    if isinstance(plain, int):
        return (float(plain) if abs(plain) < 1 << 1000 else None), str(plain)
    if isinstance(plain, float) and math.isfinite(plain):
        return plain, str(int(plain)) if plain.is_integer() else repr(plain)
    if isinstance(plain, str):
        return None, plain
    raise InvalidInput(
        f"The label {plain!r} of prediction {label.prediction_id!r} cannot be used.",
        valid="A label is true, false, a finite number or text.",
        prediction_id=label.prediction_id,
    )
