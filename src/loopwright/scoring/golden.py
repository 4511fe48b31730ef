"""Golden rows: a few real rows with the native answers, kept beside a scorer; and how answers are compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loopwright.registry.columns import arrays_of, table_of
from loopwright.registry.estimator import class_array
from loopwright.scoring.base import Manifest, Scores

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ROWS", "compare", "read", "read_rows", "write"]

ROWS = 32
_PREFIX = "input_"


def read_rows(path: Path) -> pa.Table:
    """Read a file of rows, Parquet or Arrow by its name, without loading pandas."""
    if path.suffix == ".arrow":
        import pyarrow as pa

        return pa.ipc.open_file(path.read_bytes()).read_all()
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        return file.read()


def write(path: Path, columns: Mapping[str, NDArray[Any]], answers: Scores, manifest: Manifest) -> None:
    """Write the first 32 rows with their answers: `input_<column>`, `prediction` and `probability`.

    As an Arrow file: a serving process reads it, and need not load what Parquet takes (some 12 MB).
    """
    import pyarrow as pa

    inputs = manifest.signature.inputs
    table = table_of({name: values[:ROWS] for name, values in columns.items()}, inputs)
    table = table.rename_columns([_PREFIX + name for name in table.column_names])
    table = table.append_column("prediction", pa.array(answers.prediction[:ROWS].tolist()))
    if answers.probability is not None:
        rows = answers.probability[:ROWS].tolist()
        table = table.append_column("probability", pa.array(rows, type=pa.list_(pa.float64())))
    with pa.ipc.new_file(str(path), table.schema) as file:
        file.write_table(table)


def read(path: Path, manifest: Manifest) -> tuple[dict[str, NDArray[Any]], Scores]:
    """Return the golden rows and the answers they must get."""
    table = read_rows(path)
    own = [name for name in table.column_names if name.startswith(_PREFIX)]
    columns = arrays_of(
        table.select(own).rename_columns([name.removeprefix(_PREFIX) for name in own]),
        manifest.signature.inputs,
    )
    classes = manifest.signature.classes
    dtype = class_array(classes).dtype if classes else None
    prediction = np.array(table["prediction"].to_pylist(), dtype=dtype)
    if "probability" not in table.column_names:
        return columns, Scores(prediction)
    return columns, Scores(prediction, np.array(table["probability"].to_pylist(), dtype=np.float64))


def compare(
    expected: Scores, found: Scores, *, scale: float | NDArray[np.float64] = 1.0
) -> tuple[float, int]:
    """Compare answers with those of the native runtime.

    Parameters
    ----------
    scale
        The unit of an absolute difference: 1 for probabilities, the spread of the predictions for small targets; one
        for each of several outputs.

    Returns
    -------
    tuple[float, int]
        The largest difference, absolute in units of `scale` or relative to the expected value, whichever is smaller;
        infinite when one side is not a number or has another shape. And in how many rows a label differs.
    """
    if expected.prediction.shape != found.prediction.shape:
        return float("inf"), len(expected.prediction)
    numeric = expected.prediction.dtype.kind == "f" and expected.probability is None
    flips = 0 if numeric else _flips(expected.prediction, found.prediction)
    if numeric:
        return _difference(expected.prediction, found.prediction, scale), flips
    if expected.probability is None:
        return 0.0, flips
    if found.probability is None or found.probability.shape != expected.probability.shape:
        return float("inf"), flips
    return _difference(expected.probability, found.probability, 1.0), flips


def _flips(expected: NDArray[Any], found: NDArray[Any]) -> int:
    differ = expected != found
    return int((differ.any(axis=1) if differ.ndim == 2 else differ).sum())


def _difference(expected: NDArray[Any], found: NDArray[Any], scale: float | NDArray[np.float64]) -> float:
    if not len(expected):
        return 0.0
    expected, found = expected.astype(np.float64), found.astype(np.float64)
    same = (expected == found) | (np.isnan(expected) & np.isnan(found))
    with np.errstate(invalid="ignore"):
        difference = np.abs(expected - found) / np.maximum(np.abs(expected), scale)
    difference = np.where(same, 0.0, difference)
    return float(np.where(np.isnan(difference), np.inf, difference).max())
