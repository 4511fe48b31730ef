"""The columns of the prediction log: the table people query, and the narrower layout of an open tail.

The table has one column per input. An open tail has six to nine columns whatever the model takes, because each column
of a record batch costs bytes and microseconds even for one row: numbers that every row has lie side by side in one
fixed-width column, all texts in one list, and the numeric inputs of one kind in another. A tail's schema carries the
names, so that it can be read without the model.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from itertools import accumulate
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loopwright.errors import SchemaMismatch, listing
from loopwright.predictions import columns
from loopwright.predictions.checksums import marked
from loopwright.predictions.ipc import BatchWriter, FixedWriter
from loopwright.predictions.rows import Predictions, matrix_of
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
    ("trace", pa.string()),
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
_HEX = frozenset("0123456789abcdef")
#: What every row has, as it lies in a tail: the id's 16 bytes, the moment in microseconds, propensity, version, latency.
_HEAD = np.dtype(
    [("id", "V16"), ("at", "<i8"), ("propensity", "<f8"), ("version", "<i4"), ("latency", "<f4")]
)
#: Where the only list of a row begins and ends; and the same for a list that is missing.
_ONE_LIST = struct.Struct("<ii").pack
_NO_LIST = bytes(8)
_ONE_HEAD = struct.Struct("<16sqdif").pack
#: Between variant, request id, trace and entity, which lie in one text; a row without the last three is its variant.
_SEPARATOR = "\x1f"
#: Up to so many rows, where lists begin is looked up and not computed.
_MOST_STEPS = 256
_NUMPY = {"bool": np.uint8, "int64": np.int64, "double": np.float64}


def prediction_kind(signature: Signature) -> str:
    """Return how predictions are stored: ``bool``, ``int64``, ``double`` or ``string``; of each of several outputs."""
    if signature.task is Task.regression:
        return "double"
    kinds = {type(label) for label in signature.classes}
    if kinds == {bool}:
        return "bool"
    if kinds == {int}:
        return "int64"
    return "double" if kinds and kinds <= {int, float} else "string"


def table_schema(
    inputs: tuple[tuple[str, str], ...] = (), prediction: str = "double", outputs: int = 0
) -> Any:
    """Return the Arrow schema of the table without the label's columns.

    Parameters
    ----------
    inputs
        Name and signature type of each.
    prediction
        What `prediction_kind` says.
    outputs
        How many a row's prediction has; 0 where it is one value and no list.
    """
    fields = [*BASE, *((INPUT + name, _INPUT_TYPES[kind]) for name, kind in inputs)]
    kind = _PREDICTION_TYPES[prediction]
    fields += [("prediction", pa.list_(kind) if outputs else kind), ("probability", pa.list_(pa.float64()))]
    return pa.schema(fields)


@dataclass(frozen=True)
class Layout:
    """How the rows of one deployment and one signature lie in a tail, and how they become table rows.

    `inputs` are (name, signature type) in the model's order; `prediction` is what `prediction_kind` says, for each of
    `outputs` values where a row has several.
    """

    deployment: str
    model: str
    inputs: tuple[tuple[str, str], ...]
    prediction: str
    outputs: int = 0

    @classmethod
    def of(cls, deployment: str, model: str, signature: Signature) -> Layout:
        """Return the layout for a signature."""
        inputs = tuple((column.name, column.type) for column in signature.inputs)
        return cls(deployment, model, inputs, prediction_kind(signature), len(signature.outputs))

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
        return table_schema(self.inputs, self.prediction, self.outputs)

    @cached_property
    def blocks(self) -> dict[str, tuple[str, ...]]:
        """The numeric inputs by block, in order."""
        found: dict[str, list[str]] = {}
        for name, kind in self.inputs:
            if kind != "string":
                found.setdefault(_BLOCK[kind], []).append(name)
        return {block: tuple(names) for block, names in found.items()}

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The string inputs, in order."""
        return tuple(name for name, kind in self.inputs if kind == "string")

    @cached_property
    def key(self) -> str:
        """The layout as text: equal for equal layouts."""
        return json.dumps(asdict(self))

    @cached_property
    def kind(self) -> str:
        """A text that is equal for equal layouts of one release: files of the same have the same columns."""
        return f"{self.key}\n{self.table_schema}"

    @cached_property
    def _width(self) -> int:
        """How many texts a row has: the first says who answered whom, then the inputs, then what was predicted."""
        predicted = max(self.outputs, 1) if self.prediction == "string" else 0
        return 1 + len(self.texts) + predicted

    @cached_property
    def tail_schema(self) -> Any:
        """The schema of the tail."""
        fields = [("head", pa.binary(_HEAD.itemsize)), ("text", pa.list_(pa.string(), self._width))]
        fields += [(block, pa.list_(_BLOCK_TYPES[block], len(names))) for block, names in self.blocks.items()]
        if self.prediction != "string":
            kind = pa.uint8() if self.prediction == "bool" else _PREDICTION_TYPES[self.prediction]
            fields.append(("prediction", pa.list_(kind, self.outputs) if self.outputs else kind))
        fields.append(("probability", pa.list_(pa.float64())))
        return marked(pa.schema(fields, metadata={_METADATA: self.key.encode()}))

    @cached_property
    def _writer(self) -> BatchWriter:
        return BatchWriter(self.tail_schema)

    def encode(self, rows: Predictions) -> bytes:
        """Return rows as one record batch of the tail, as it is appended to the stream.

        Raises
        ------
        SchemaMismatch
            A column is not as long as the others, or an input holds values of another type.
        """
        n = len(rows.prediction_id)
        if n == 1 and (one := self._encode_one(rows)) is not None:
            return one
        texts, nulls = self._texts(rows, n)
        valid, offsets, data = texts
        nodes: list[int] = [n, 0, n, 0, n * self._width, nulls]
        buffers: list[Any] = [b"", _head(rows, n), b"", valid, offsets, data]
        for block, names in self.blocks.items():
            nodes += (n, 0, n * len(names), 0)
            buffers += (b"", b"", _block(rows, names, block, n))
        if self.prediction != "string":
            values = _long(rows.prediction, "prediction", n)
            values = np.ascontiguousarray(_exact(values, _NUMPY[self.prediction], "prediction", n))
            if self.outputs:
                _check_outputs(values, self.outputs)
                nodes += (n, 0)
                buffers.append(b"")
            nodes += (values.size, 0)
            buffers += (b"", values)
        matrix = _probability(rows, n)
        if matrix is None:
            nodes += (n, n, 0, 0)
            buffers += (bytes((n + 7) // 8), np.zeros(n + 1, np.int32), b"", b"")
        else:
            width = matrix.shape[1]
            nodes += (n, 0, matrix.size, 0)
            buffers += (b"", _offsets(n, width), b"", np.ascontiguousarray(matrix))
        return self._writer.write(n, nodes, buffers)

    def _encode_one(self, rows: Predictions) -> bytes | None:
        """Return one row as `encode` does, in a third of the time; None where something about it is unusual.

        All its buffers but the texts have sizes that are known beforehand.
        """
        inputs = rows.inputs
        find = getattr(inputs, "matrix", None)
        if find is None or self.outputs or self.prediction == "string" or rows.raw_id is None:
            return None
        if type(rows.at_us) is not int or type(rows.version) is not int:
            return None
        texts = _meta(rows, 1)
        if self.texts:
            block = find(self.texts)
            if block is None:
                return None
            texts += block[0].tolist()
        try:
            data = "".join(texts).encode("ascii")
        except (TypeError, UnicodeEncodeError):
            return None  # a missing text, or one whose length in bytes is another
        values: list[bytes] = []
        for kind, names in self.blocks.items():
            matrix = find(names)
            if matrix is None or matrix.dtype != kind or len(matrix) != 1:
                return None
            values.append(matrix.tobytes())
        prediction, shares = rows.prediction, rows.probability
        if prediction.dtype != _NUMPY[self.prediction] or prediction.shape != (1,):
            return None
        values.append(prediction.tobytes())
        if shares is None:
            values += (b"\0", _NO_LIST)
            width = -1
        else:
            if shares.dtype != np.float64 or shares.ndim != 2 or len(shares) != 1:
                return None
            width = shares.shape[1]
            values += (_ONE_LIST(0, width), shares.tobytes())
        head = _ONE_HEAD(
            rows.raw_id, rows.at_us, _single(rows.propensity, 1), rows.version, _single(rows.latency_ms, 1)
        )
        offsets = self._one_offsets(0, *accumulate(map(len, texts)))
        writer = self._ones.get(width)
        if writer is None:
            writer = self._ones[width] = self._one_writer(width)
        return writer.write([head, offsets, data, *values], len(data))

    @cached_property
    def _one_offsets(self) -> Any:
        return struct.Struct(f"<{self._width + 1}i").pack

    @cached_property
    def _ones(self) -> dict[int, FixedWriter]:
        """Writers of one row, by the number of its probabilities, -1 for none."""
        return {}

    def _one_writer(self, width: int) -> FixedWriter:
        nodes: list[int] = [1, 0, 1, 0, self._width, 0]
        #: Sizes in bytes of the buffers that are written, and which of all buffers they are; the others are empty.
        sizes: list[int] = [_HEAD.itemsize, 4 * (self._width + 1), -1]
        places = [1, 4, 5]
        at = 6
        for block, names in self.blocks.items():
            nodes += (1, 0, len(names), 0)
            sizes.append(np.dtype(block).itemsize * len(names))
            places.append(at + 2)
            at += 3
        nodes += (1, 0)
        sizes.append(np.dtype(_NUMPY[self.prediction]).itemsize)
        places.append(at + 1)
        at += 2
        if width < 0:
            nodes += (1, 1, 0, 0)
            sizes += (1, len(_NO_LIST))
            places += (at, at + 1)
        else:
            nodes += (1, 0, width, 0)
            sizes += (8, 8 * width)
            places += (at + 1, at + 3)
        return FixedWriter(self._writer, 1, nodes, sizes, places)

    def _texts(self, rows: Predictions, n: int) -> tuple[columns.StringBuffers, int]:
        """Return all texts of all rows, those of a row side by side, and how many are missing."""
        meta, width = _meta(rows, n), self._width
        if width == 1:
            found = meta
        else:
            found = [None] * (n * width)
            found[::width] = meta
            inputs = rows.inputs
            block = matrix_of(inputs, self.texts) if self.texts else None
            if block is not None:
                for place in range(block.shape[1]):
                    found[1 + place :: width] = block[:, place].tolist()
            else:
                for place, name in enumerate(self.texts):
                    given = inputs.get(name)
                    if given is not None:
                        found[1 + place :: width] = _long(given, name, n).tolist()
            if self.prediction == "string":
                values = np.asarray(_long(rows.prediction, "prediction", n))
                first = 1 + len(self.texts)
                if self.outputs:
                    _check_outputs(values, self.outputs)
                    for place in range(self.outputs):
                        found[first + place :: width] = values[:, place].tolist()
                else:
                    found[first::width] = values.tolist()
        return columns.string_buffers(found)

    def expand(self, batch: Any) -> Any:
        """Return a record batch of the tail as a record batch of the table."""
        n = batch.num_rows
        head = np.frombuffer(batch.column("head").buffers()[1], _HEAD)
        head = head[batch.column("head").offset :][:n]
        texts = batch.column("text").flatten()
        made = {
            "at": columns.numbers(head["at"], TIME),
            "deployment": columns.constant(self.deployment, n),
            "model": columns.constant(self.model, n),
            "version": columns.numbers(head["version"], pa.int32()),
            "propensity": columns.numbers(head["propensity"], pa.float64()),
            "latency_ms": columns.numbers(head["latency"], pa.float32()),
        }
        made |= _named(self._text(texts, 0, n), _hex(head["id"].tobytes(), n))
        for place, name in enumerate(self.texts, 1):
            made[INPUT + name] = self._text(texts, place, n)
        kinds = dict(self.inputs)
        for block, names in self.blocks.items():
            flat = columns.values_of(batch.column(block).flatten(), block)
            matrix = flat.reshape(n, len(names))
            for position, name in enumerate(names):
                made[INPUT + name] = _input(matrix[:, position], kinds[name])
        made["prediction"] = self._predicted(batch, texts, n)
        schema = self.table_schema
        arrays = [made[name] if name in made else batch.column(name) for name in schema.names]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _text(self, texts: Any, place: int, n: int) -> Any:
        """Return the texts at one place of each row."""
        at = np.arange(place, n * self._width, self._width, dtype=np.int64)
        return texts.take(columns.numbers(at, pa.int64()))

    def _predicted(self, batch: Any, texts: Any, n: int) -> Any:
        kind = _PREDICTION_TYPES[self.prediction]
        if self.prediction == "string":
            first = 1 + len(self.texts)
            if not self.outputs:
                return self._text(texts, first, n)
            at = np.arange(n)[:, None] * self._width + np.arange(first, first + self.outputs)
            flat = texts.take(columns.numbers(at.ravel().astype(np.int64), pa.int64()))
        else:
            flat = batch.column("prediction")
            if self.outputs:
                flat = flat.flatten()
            if self.prediction == "bool":
                flat = columns.booleans(columns.values_of(flat, np.uint8) > 0)
        if not self.outputs:
            return flat
        offsets = pa.py_buffer(_offsets(n, self.outputs))
        return pa.Array.from_buffers(pa.list_(kind), n, [None, offsets], 0, children=[flat])


@cache
def _steps(width: int) -> NDArray[np.int32]:
    return np.arange(_MOST_STEPS + 1, dtype=np.int32) * np.int32(width)


def _offsets(n: int, width: int) -> NDArray[np.int32]:
    """Return where each of n lists of one width begins, and where the last ends."""
    if n <= _MOST_STEPS:
        return _steps(width)[: n + 1]
    return np.arange(n + 1, dtype=np.int32) * np.int32(width)


def _head(rows: Predictions, n: int) -> Any:
    """Return what every row has as the bytes of a fixed-width column."""
    raw = rows.raw_id if rows.raw_id is not None else _raw(rows.prediction_id)
    if n == 1:
        one = (rows.at_us, rows.propensity, rows.version, rows.latency_ms)
        at, propensity, version, latency = (_single(value, n) for value in one)
        return _ONE_HEAD(raw, int(at), propensity, int(version), latency)
    head = np.empty(n, _HEAD)
    head["id"] = np.frombuffer(raw, "V16")
    head["at"] = _exact(rows.at_us, np.int64, "at_us", n)
    head["propensity"] = _exact(rows.propensity, np.float64, "propensity", n)
    head["version"] = _exact(rows.version, np.int32, "version", n)
    head["latency"] = _exact(rows.latency_ms, np.float32, "latency_ms", n)
    return head


def _single(value: Any, n: int) -> Any:
    return value if isinstance(value, int | float) else _long(value, "a column", n)[0]


def _raw(ids: list[str]) -> bytes:
    text = "".join(ids)
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != 16 * len(ids) or any(len(one) != 32 for one in ids):
        wrong = next((one for one in ids if len(one) != 32 or not _HEX.issuperset(one)), "")
        raise SchemaMismatch(
            f"{wrong[:64]!r} is no prediction id.",
            valid="An id is 32 hexadecimal digits, from `Ids`.",
            field="prediction_id",
        )
    return raw


def _hex(raw: bytes, n: int) -> Any:
    """Return ids of 16 bytes as an Arrow array of texts of 32 digits."""
    buffers = [None, pa.py_buffer(_offsets(n, 32)), pa.py_buffer(raw.hex().encode())]
    return pa.Array.from_buffers(pa.string(), n, buffers, 0)


def _meta(rows: Predictions, n: int) -> list[Any]:
    """Return variant, request id, trace and entity of each row as one text."""
    variants = [rows.variant] * n if isinstance(rows.variant, str) else _long(rows.variant, "variant", n)
    entities = None if rows.entity is None else _long(rows.entity, "entity", n)
    if entities is None and rows.request_id is None and rows.trace is None:
        return list(variants)
    nothing = [""] * n
    requests = nothing if rows.request_id is None else _plain(rows.request_id, "request_id", n)
    traces = nothing if rows.trace is None else _plain(rows.trace, "trace", n)
    return [
        f"{variant}{_SEPARATOR}{request}{_SEPARATOR}{trace}{_SEPARATOR}{entity}"
        for variant, request, trace, entity in zip(
            variants, requests, traces, nothing if entities is None else entities, strict=True
        )
    ]


def _plain(values: Any, name: str, n: int) -> list[str]:
    return [(value or "").replace(_SEPARATOR, "?") for value in _long(values, name, n)]


def _named(meta: Any, ids: Any) -> dict[str, Any]:
    """Return the columns that `_meta` put into one text; what is not known is null."""
    n = len(meta)
    data = meta.buffers()[2]
    if data is None or _SEPARATOR.encode() not in data.to_pybytes():
        nothing = pa.nulls(n, pa.string())
        return {
            "prediction_id": ids,
            "variant": meta,
            "request_id": nothing,
            "trace": nothing,
            "entity": nothing,
        }
    parts = [one.split(_SEPARATOR, 3) if _SEPARATOR in one else (one, "", "", "") for one in meta.to_pylist()]
    variant, *others = zip(*parts, strict=True)
    known = {
        name: columns.strings([one or None for one in values])
        for name, values in zip(("request_id", "trace", "entity"), others, strict=True)
    }
    return {"prediction_id": ids, "variant": columns.strings(variant)} | known


def _check_outputs(values: NDArray[Any], outputs: int) -> None:
    if values.ndim != 2 or values.shape[1] != outputs:
        raise SchemaMismatch(
            f"prediction has the shape {values.shape}.", valid=f"It is (rows, {outputs}).", field="prediction"
        )


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
    if isinstance(values, int | float):
        return values
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


def _block(rows: Predictions, names: tuple[str, ...], block: str, n: int) -> NDArray[Any]:
    """Gather the inputs of one block as a matrix (n, inputs); an input that was not given is missing."""
    whole = matrix_of(rows.inputs, names)
    if whole is not None and whole.dtype == block and whole.flags.c_contiguous and len(whole) == n:
        return whole
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
    if not all(
        isinstance(values, np.ndarray) and len(values) == n and values.dtype.kind in kinds for values in found
    ):
        # Times beside whole numbers, for one, cannot even be put together.
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
