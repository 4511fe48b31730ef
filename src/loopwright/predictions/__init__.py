"""The prediction log: every prediction with its inputs, joined with the labels that arrive later.

Writers append to Arrow IPC streams of their own before a prediction is acknowledged (`PredictionLog`, `LabelLog`) and
seal them to Parquet; readers query both with DuckDB (`PredictionStore`). Writers and readers never wait for each
other. Not for aggregates: those belong to monitors.
"""

from loopwright.predictions.columns import rows_of
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
