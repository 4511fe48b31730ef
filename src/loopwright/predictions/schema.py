"""The columns of the prediction log: the table people query, and the narrower layout of an open tail.

The table has one column per input. An open tail keeps all numeric inputs of one kind in a single column of
fixed-length lists, because a record batch costs about 50 bytes and 4 microseconds per column, whatever it holds: for
one row of 64 inputs that is most of its size and time. A tail's schema carries the names, so that it can be read
without the model.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loopwright.errors import SchemaMismatch, listing
from loopwright.predictions import columns
from loopwright.predictions.rows import Predictions
from loopwright.records import Signature, Task

__all__ = ["BASE", "INPUT", "TIME", "Layout", "prediction_kind", "table_schema"]

#: Input columns are called this and the feature's name.
INPUT = "input_"
TIME = pa.timestamp("us", tz="UTC")
#: The columns in front of the inputs.
BASE: tuple[tuple[str, Any], ...] = (
    ("prediction_id", pa.string()),
    ("at", TIME),
    ("deployment", pa.string()),
    ("model", pa.string()),
    ("version", pa.int32()),
    ("variant", pa.string()),
    ("propensity", pa.float64()),
    ("entity", pa.string()),
    ("request_id", pa.string()),
    ("latency_ms", pa.float32()),
)
_INPUT_TYPES = {
    "double": pa.float64(),
    "float": pa.float32(),
    "long": pa.int64(),
    "integer": pa.int32(),
    "boolean": pa.bool_(),
    "datetime": pa.timestamp("us"),
    "string": pa.string(),
}
_PREDICTION_TYPES = {"bool": pa.bool_(), "int64": pa.int64(), "double": pa.float64(), "string": pa.string()}
#: Which block of a tail holds the inputs of a type. Strings have a column each.
_BLOCK = {
    "double": "float64",
    "float": "float32",
    "long": "int64",
    "integer": "int64",
    "boolean": "int64",
    "datetime": "int64",
}
_BLOCK_TYPES = {"float64": pa.float64(), "float32": pa.float32(), "int64": pa.int64()}
#: Stands for a missing value in the int64 block; NumPy's "not a time" is the same number.
MISSING = np.iinfo(np.int64).min
_METADATA = b"loopwright"


def prediction_kind(signature: Signature) -> str:
    """Return how predictions are stored: ``bool``, ``int64``, ``double`` or ``string``."""
    if signature.task is Task.regression:
        return "double"
    kinds = {type(label) for label in signature.classes}
    if kinds == {bool}:
        return "bool"
    if kinds == {int}:
        return "int64"
    return "double" if kinds and kinds <= {int, float} else "string"


def table_schema(inputs: tuple[tuple[str, str], ...] = (), prediction: str = "double") -> Any:
    """Return the Arrow schema of the table, for inputs as (name, signature type), without the label's columns."""
    fields = [*BASE, *((INPUT + name, _INPUT_TYPES[kind]) for name, kind in inputs)]
    fields += [("prediction", _PREDICTION_TYPES[prediction]), ("probability", pa.list_(pa.float64()))]
    return pa.schema(fields)


@dataclass(frozen=True)
class Layout:
    """How the rows of one deployment and one signature lie in a tail, and how they become table rows.

    `inputs` are (name, signature type) in the model's order; `prediction` is what `prediction_kind` says.
    """

    deployment: str
    model: str
    inputs: tuple[tuple[str, str], ...]
    prediction: str

    @classmethod
    def of(cls, deployment: str, model: str, signature: Signature) -> Layout:
        """Return the layout for a signature."""
        inputs = tuple((column.name, column.type) for column in signature.inputs)
        return cls(deployment, model, inputs, prediction_kind(signature))

    @classmethod
    def read(cls, schema: Any) -> Layout | None:
        """Return the layout that a tail's schema carries; None when it is no tail of predictions."""
        text = (schema.metadata or {}).get(_METADATA)
        if text is None:
            return None
        facts = json.loads(text)
        return cls(**facts | {"inputs": tuple((name, kind) for name, kind in facts["inputs"])})

    @cached_property
    def table_schema(self) -> Any:
        """The schema of the rows as people query them."""
        return table_schema(self.inputs, self.prediction)

    @cached_property
    def blocks(self) -> dict[str, list[str]]:
        """The numeric inputs by block, in order."""
        found: dict[str, list[str]] = {}
        for name, kind in self.inputs:
            if kind != "string":
                found.setdefault(_BLOCK[kind], []).append(name)
        return found

    @cached_property
    def texts(self) -> list[str]:
        """The string inputs, in order."""
        return [name for name, kind in self.inputs if kind == "string"]

    @cached_property
    def key(self) -> str:
        """The layout as text: equal for equal layouts."""
        return json.dumps(asdict(self))

    @cached_property
    def tail_schema(self) -> Any:
        """The schema of the tail."""
        fields = [(name, kind) for name, kind in BASE if name not in {"deployment", "model"}]
        fields += [(block, pa.list_(_BLOCK_TYPES[block], len(names))) for block, names in self.blocks.items()]
        fields += [(INPUT + name, pa.string()) for name in self.texts]
        fields += [
            ("prediction", _PREDICTION_TYPES[self.prediction]),
            ("probability", pa.list_(pa.float64())),
        ]
        return pa.schema(fields, metadata={_METADATA: self.key.encode()})

    def encode(self, rows: Predictions) -> Any:
        """Return rows as one record batch of the tail.

        Raises
        ------
        SchemaMismatch
            A column is not as long as the others, or an input holds values of another type.
        """
        n = len(rows.prediction_id)
        arrays = [
            columns.strings(rows.prediction_id),
            columns.numbers(_exact(rows.at_us, np.int64, "at_us", n), TIME),
            columns.numbers(_exact(rows.version, np.int32, "version", n), pa.int32()),
            columns.strings(_long(rows.variant, "variant", n)),
            columns.numbers(_exact(rows.propensity, np.float64, "propensity", n), pa.float64()),
            columns.strings(_long(rows.entity, "entity", n)),
            columns.strings(
                [None] * n if rows.request_id is None else _long(rows.request_id, "request_id", n)
            ),
            columns.numbers(_exact(rows.latency_ms, np.float32, "latency_ms", n), pa.float32()),
        ]
        for block, names in self.blocks.items():
            arrays.append(columns.fixed_lists(_block(rows, names, block, n), _BLOCK_TYPES[block]))
        for name in self.texts:
            given = rows.inputs.get(name)
            arrays.append(columns.strings([None] * n if given is None else _long(given, name, n).tolist()))
        arrays.append(self._prediction(rows, n))
        arrays.append(columns.lists(_probability(rows, n), n))
        return pa.RecordBatch.from_arrays(arrays, schema=self.tail_schema)

    def _prediction(self, rows: Predictions, n: int) -> Any:
        values = _long(rows.prediction, "prediction", n)
        if self.prediction == "string":
            return columns.strings(values.tolist())
        if self.prediction == "bool":
            return columns.booleans(_exact(values, np.bool_, "prediction", n))
        dtype = np.int64 if self.prediction == "int64" else np.float64
        return columns.numbers(_exact(values, dtype, "prediction", n), _PREDICTION_TYPES[self.prediction])

    def expand(self, batch: Any) -> Any:
        """Return a record batch of the tail as a record batch of the table."""
        n = batch.num_rows
        made = {
            "deployment": columns.constant(self.deployment, n),
            "model": columns.constant(self.model, n),
        }
        kinds = dict(self.inputs)
        for block, names in self.blocks.items():
            flat = columns.values_of(batch.column(block).flatten(), block)
            matrix = flat.reshape(n, len(names))
            for position, name in enumerate(names):
                made[INPUT + name] = _input(matrix[:, position], kinds[name])
        schema = self.table_schema
        arrays = [made[name] if name in made else batch.column(name) for name in schema.names]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _input(values: NDArray[Any], kind: str) -> Any:
    """Return one input of a block as an Arrow array of the table, with nulls for what is missing."""
    if kind in {"double", "float"}:
        return columns.numbers(values, _INPUT_TYPES[kind], np.isnan(values))
    missing = values == MISSING
    if kind == "boolean":
        return columns.booleans(values > 0, missing)
    return columns.numbers(
        values.astype(np.int32) if kind == "integer" else values, _INPUT_TYPES[kind], missing
    )


def _long(values: Any, name: str, n: int) -> Any:
    """Return `values` when it has `n` entries; NumPy would silently repeat a single one."""
    if len(values) != n:
        raise SchemaMismatch(f"{name} has {len(values)} values for {n} predictions.", field=name)
    return values


def _exact(values: Any, dtype: Any, name: str, n: int) -> NDArray[Any]:
    try:
        return np.asarray(_long(values, name, n), dtype)
    except (TypeError, ValueError) as error:
        raise SchemaMismatch(
            f"{name} cannot be logged as {np.dtype(dtype).name}: {error}.", field=name
        ) from error


def _probability(rows: Predictions, n: int) -> NDArray[np.float64] | None:
    if rows.probability is None:
        return None
    matrix: NDArray[np.float64] = _exact(rows.probability, np.float64, "probability", n)
    if matrix.ndim != 2:
        raise SchemaMismatch(f"probability has the shape {matrix.shape}.", valid="It is (rows, classes).")
    return matrix


def _block(rows: Predictions, names: list[str], block: str, n: int) -> NDArray[Any]:
    """Gather the inputs of one block as a matrix (n, inputs); an input that was not given is missing."""
    found = [rows.inputs.get(name) for name in names]
    together = _together(found, block, n)
    if together is not None:
        return together
    matrix = np.empty((n, len(names)), block)
    for position, (name, given) in enumerate(zip(names, found, strict=True)):
        if given is None:
            matrix[:, position] = MISSING if block == "int64" else np.nan
            continue
        try:
            matrix[:, position] = _numeric(np.asarray(_long(given, name, n)), block)
        except (TypeError, ValueError) as error:
            raise SchemaMismatch(
                f"The input {name!r} holds {listing(repr(value) for value in given[:3])}, which are no numbers.",
                valid=f"It is logged as {block}.",
                field=name,
            ) from error
    return matrix


def _together(found: list[NDArray[Any] | None], block: str, n: int) -> NDArray[Any] | None:
    """Gather whole columns in one call, four times quicker for one row; None when some need a closer look."""
    kinds = "iub" if block == "int64" else "fiub"
    if not all(isinstance(values, np.ndarray) and len(values) == n for values in found):
        return None
    flat = np.concatenate(cast("list[NDArray[Any]]", found))
    if flat.dtype.kind not in kinds or flat.ndim != 1:
        return None
    return np.ascontiguousarray(flat.reshape(len(found), n).T, block)


def _numeric(values: NDArray[Any], block: str) -> NDArray[Any]:
    """Return values that a block of this type can take without a warning or a silent change of what is missing."""
    kind = values.dtype.kind
    if block != "int64":
        if kind == "O":
            return np.array([np.nan if value is None else value for value in values], np.float64)
        return values
    if kind == "M":
        return values.astype("datetime64[us]").view(np.int64)
    if kind == "O":
        return np.array([_whole(value) for value in values], np.int64)
    if kind == "f":
        missing = ~np.isfinite(values)
        return np.where(missing, MISSING, np.where(missing, 0, values).astype(np.int64))
    return values


def _whole(value: Any) -> int:
    if value is None or value != value:
        return int(MISSING)
    stamp = np.datetime64(value, "us").view(np.int64) if hasattr(value, "isoformat") else value
    return int(stamp)
