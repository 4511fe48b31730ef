"""The other side of `kpi_python`: run as ``python -P kpi_child.py <module:function> <rows> <answer>`` in a project's folder.

It imports nothing of this package, which takes longer than most KPIs.
"""

from __future__ import annotations

import importlib
import json
import math
import sys
import traceback
from pathlib import Path
from typing import Any

import pyarrow as pa

__all__ = ["main"]


def _plain(value: Any) -> Any:
    """Return what JSON can carry: numbers of NumPy and Arrow as those of Python, NaN as nothing."""
    for method in ("as_py", "item"):
        if hasattr(value, method):
            value = getattr(value, method)()
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    text = repr(value)
    raise TypeError(f"{text if len(text) <= 80 else text[:77] + '...'}, of type {type(value).__name__}")


def _answer(entrypoint: str, rows: str) -> dict[str, Any]:
    module, _, name = entrypoint.partition(":")
    try:
        with pa.memory_map(rows) as source:
            given = getattr(importlib.import_module(module), name)(pa.ipc.open_file(source).read_all())
    except (Exception, SystemExit) as error:  # noqa: BLE001 (the function is somebody else's)
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}, line {where.lineno}"
        return {"raised": f"{type(error).__name__}: {str(error)[:300]} ({place})"}
    try:
        return {"value": _plain(given)}
    except (TypeError, ValueError) as error:
        return {"gave": str(error)}


def main() -> None:
    """Compute the KPI that the arguments name and write what it gave."""
    entrypoint, rows, answer = sys.argv[1:]
    sys.path.insert(0, str(Path.cwd()))
    Path(answer).write_text(json.dumps(_answer(entrypoint, rows)), encoding="utf-8")


if __name__ == "__main__":
    main()
