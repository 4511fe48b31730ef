"""The prediction log: every prediction with its inputs, joined with the labels that arrive later.

Writers append to Arrow IPC streams of their own before a prediction is acknowledged (`PredictionLog`, `LabelLog`) and
seal them to Parquet; readers query both with DuckDB (`PredictionStore`). Writers and readers never wait for each
other. Not for aggregates: those belong to monitors.
"""

import sys
from types import ModuleType
from typing import Any

from loopwright.predictions.columns import rows_of
from loopwright.predictions.extents import Extent
from loopwright.predictions.ids import HOLDOUT_DIGITS, Ids
from loopwright.predictions.label_history import DELAY_AGES, GivenLabel, LabelSummary
from loopwright.predictions.labels import LabelLog
from loopwright.predictions.log import PredictionLog
from loopwright.predictions.rows import Predictions
from loopwright.predictions.schema import Layout, prediction_kind, table_schema
from loopwright.predictions.seal import seal_orphans
from loopwright.predictions.store import PredictionStore
from loopwright.predictions.upkeep import Upkeep, maintain, repair

__all__ = [
    "DELAY_AGES",
    "HOLDOUT_DIGITS",
    "Extent",
    "GivenLabel",
    "Ids",
    "LabelLog",
    "LabelSummary",
    "Layout",
    "PredictionLog",
    "PredictionStore",
    "Predictions",
    "Upkeep",
    "maintain",
    "prediction_kind",
    "repair",
    "rows_of",
    "seal_orphans",
    "table_schema",
]


class _Callable(ModuleType):
    """The package, which can be called as well: ``lw.predictions(...)`` is `frames.predictions`."""

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        from loopwright.predictions.frames import predictions

        return predictions(*args, **keywords)


sys.modules[__name__].__class__ = _Callable
