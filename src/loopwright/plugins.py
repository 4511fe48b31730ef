"""One table per kind of back end: a name and the dotted path that is imported when it is first used.

Built-in back ends and third-party ones come through the same door. A package adds its own with an entry point in the
group ``loopwright.plugins`` whose name is ``<kind>.<name>``, such as ``channel.kafka``.
"""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from loopwright.errors import NotFound

__all__ = ["BUILT_IN", "load", "names"]

GROUP = "loopwright.plugins"

#: kind -> name -> "module:attribute". Reading this table shows every place where a back end can be added.
BUILT_IN: dict[str, dict[str, str]] = {
    "channel": {"sqlite": "loopwright.deploy.stream.sqlite:SqliteChannel"},
    "runtime": {
        "native": "loopwright.scoring.native:NativeRuntime",
        "onnx": "loopwright.scoring.onnx:OnnxRuntime",
        "treelite": "loopwright.scoring.treelite:TreeliteRuntime",
    },
    "codec": {
        "records": "loopwright.deploy.online.codecs.records:Records",
        "tables": "loopwright.deploy.online.codecs.tables:Tables",
        "v2": "loopwright.deploy.online.codecs.v2:Inference",
        "invocations": "loopwright.deploy.online.codecs.invocations:Invocations",
    },
    "batch_source": {
        "parquet": "loopwright.deploy.batch.files:ParquetSource",
        "csv": "loopwright.deploy.batch.files:CsvSource",
        "sqlite": "loopwright.deploy.batch.tables:TableSource",
        "postgresql": "loopwright.deploy.batch.tables:TableSource",
    },
    "batch_sink": {
        "sqlite": "loopwright.deploy.batch.tables:TableSink",
        "postgresql": "loopwright.deploy.batch.tables:TableSink",
        "parquet": "loopwright.deploy.batch.files:ParquetSink",
    },
    "dataset_source": {
        "file": "loopwright.lineage.files:read",
        "s3": "loopwright.lineage.objects:read",
        "sqlite": "loopwright.lineage.queries:read",
        "postgresql": "loopwright.lineage.queries:read",
        "postgres": "loopwright.lineage.queries:read",
    },
    "check": {
        "schema": "loopwright.monitor.schema:SchemaCheck",
        "missing": "loopwright.monitor.missing:MissingCheck",
        "unseen": "loopwright.monitor.unseen:UnseenCheck",
        "out_of_range": "loopwright.monitor.out_of_range:OutOfRangeCheck",
        "duplicates": "loopwright.monitor.duplicates:DuplicatesCheck",
        "freshness": "loopwright.monitor.freshness:FreshnessCheck",
        "volume": "loopwright.monitor.volume:VolumeCheck",
        "drift": "loopwright.monitor.drift:DriftCheck",
        "prediction_drift": "loopwright.monitor.prediction_drift:PredictionDriftCheck",
        "kpi": "loopwright.monitor.kpi:KpiCheck",
        "kpi_early": "loopwright.monitor.kpi:EarlyKpiCheck",
        "labels": "loopwright.monitor.label_quality:LabelQualityCheck",
        "performance": "loopwright.monitor.performance:PerformanceCheck",
        "calibration": "loopwright.monitor.calibration:CalibrationCheck",
        "estimated": "loopwright.monitor.estimated:EstimatedCheck",
        "service": "loopwright.monitor.service:ServiceCheck",
    },
}


@cache
def _table(kind: str) -> dict[str, str]:
    table = dict(BUILT_IN.get(kind, {}))
    for point in entry_points(group=GROUP):
        point_kind, _, name = point.name.partition(".")
        if point_kind == kind:
            table[name] = point.value
    return table


def names(kind: str) -> list[str]:
    """Return the known names of one kind of back end, sorted."""
    return sorted(_table(kind))


def load(kind: str, name: str) -> Any:
    """Import and return the back end called `name`.

    Raises
    ------
    NotFound
        No back end of that kind has this name; the message lists those that exist.
    """
    table = _table(kind)
    if name not in table:
        raise NotFound.among(kind.replace("_", " "), name, sorted(table))
    module, _, attribute = table[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
