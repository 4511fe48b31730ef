"""Schema: the columns that a version's rows have in the log, against what its signature says."""

from __future__ import annotations

import math

from loopwright.monitor.base import Context, Phase
from loopwright.monitor.quality import signal
from loopwright.predictions.schema import INPUT
from loopwright.records import Signal

__all__ = ["SchemaCheck", "family"]

_NUMBER = "a number"
_FAMILIES = {
    "boolean": "true or false",
    "integer": _NUMBER,
    "long": _NUMBER,
    "float": _NUMBER,
    "double": _NUMBER,
    "string": "text",
    "datetime": "a time",
}
_LOGGED = {"BOOLEAN": "true or false", "VARCHAR": "text"}
_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "U")


def family(kind: str) -> str:
    """Return in words what a DuckDB type holds, as far as checks tell types apart."""
    if kind.startswith(("TIMESTAMP", "DATE", "TIME")):
        return "a time"
    return _LOGGED.get(kind) or (_NUMBER if kind.startswith(_NUMBERS) else kind.lower())


class SchemaCheck:
    """Fires for each column that has vanished, appeared, or changed what it holds."""

    name = "schema"
    phase: Phase = "inputs"

    def run(self, context: Context) -> list[Signal]:
        """Return a signal for each such column, and one about all columns where there is none.

        While several versions answer, their columns lie together in the log: only what has vanished is looked for then.
        """
        signature = context.signature
        rows = context.data.rows(context.champion)
        if signature is None or not rows:
            return []
        expected = {column.name: _FAMILIES[column.type] for column in signature.inputs}
        found = {name: family(context.data.types[INPUT + name]) for name in context.data.names}
        troubles = {
            name: {"what": "vanished", "expected": kind}
            for name, kind in expected.items()
            if name not in found and name not in context.hidden
        }
        if set(context.data.versions) == {context.champion}:
            for name, kind in found.items():
                if name not in expected:
                    troubles[name] = {"what": "appeared", "found": kind}
                elif kind != expected[name]:
                    troubles[name] = {"what": "changed", "expected": expected[name], "found": kind}
        if not troubles:
            return [signal(context, self.name, "columns", 0.0, math.nan, rows, False)]
        return [
            signal(context, self.name, name, 1.0, 0.0, rows, True, detail=dict(detail))
            for name, detail in sorted(troubles.items())
        ]
