"""Batches that are written without Arrow: to Arrow they are its own, for every layout."""

import dataclasses
import datetime as dt
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopwright.predictions import Layout, Predictions
from loopwright.predictions.ipc import BatchWriter
from loopwright.records import Column, ColumnType, Signature, Task
from loopwright.registry.blocks import blocks_of, in_block

TEXT = st.text(st.characters(exclude_characters="\x1f", exclude_categories=()), max_size=6)
FLAT: dict[Any, st.SearchStrategy[Any]] = {
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint8(): st.integers(0, 255),
    pa.float32(): st.floats(width=32, allow_nan=False),
    pa.float64(): st.floats(allow_nan=False),
    pa.bool_(): st.booleans(),
    pa.string(): st.text(max_size=6),
    pa.binary(3): st.binary(min_size=3, max_size=3),
    pa.timestamp("us"): st.integers(-(2**50), 2**50),
}


@st.composite
def arrays(draw: st.DrawFn) -> list[Any]:
    """Draw one to five Arrow arrays of one length, 0 to 20: flat, lists, and lists of a fixed length, with nulls."""
    rows = draw(st.integers(0, 20))
    found = []
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(list(FLAT)))
        value = FLAT[kind]
        form = draw(st.sampled_from(["flat", "list", "fixed"]))
        if form == "list":
            kind, value = pa.list_(kind), st.lists(st.none() | value, max_size=4)
        elif form == "fixed":
            width = draw(st.integers(1, 4))
            kind, value = pa.list_(kind, width), st.lists(st.none() | value, min_size=width, max_size=width)
        if draw(st.booleans()):
            value = st.none() | value
        found.append(pa.array(draw(st.lists(value, min_size=rows, max_size=rows)), kind))
    return found


def nodes_of(array: Any) -> list[int]:
    """Return length and nulls of an array and of what is in it, depth first."""
    found = [len(array), array.null_count]
    if pa.types.is_list(array.type) or pa.types.is_fixed_size_list(array.type):
        found += nodes_of(array.values)
    return found


def written(schema: Any, body: bytes) -> Any:
    """Return the one batch of a stream, after Arrow has looked at all of it."""
    reader = pa.ipc.open_stream(schema.serialize().to_pybytes() + body)
    batch = reader.read_next_batch()
    batch.validate(full=True)
    with pytest.raises(StopIteration):
        reader.read_next_batch()
    return batch


@settings(max_examples=200, deadline=None)
@given(arrays(), st.data())
def test_a_batch_is_what_arrow_would_have_written(columns: list[Any], data: st.DataObject) -> None:
    """Any flat or nested columns with nulls come back as they were, several batches from one writer."""
    schema = pa.schema([(f"c{number}", column.type) for number, column in enumerate(columns)])
    writer = BatchWriter(schema)
    for taken in (
        columns,
        [column.take(pa.array([0, 0, len(column) - 1])) for column in columns if len(column)],
    ):
        if len(taken) < len(columns):
            continue
        nodes = [number for column in taken for number in nodes_of(column)]
        buffers = [b"" if one is None else one.to_pybytes() for column in taken for one in column.buffers()]
        kinds: list[Any] = [bytes, bytearray, lambda one: np.frombuffer(one, np.uint8)]
        given = [data.draw(st.sampled_from(kinds))(one) if one else b"" for one in buffers]
        given = [memoryview(one) if isinstance(one, bytearray) else one for one in given]
        body = writer.write(len(taken[0]), nodes, given)
        assert len(body) % 8 == 0
        expected = pa.RecordBatch.from_arrays(taken, schema=schema)
        assert written(schema, body).equals(expected)


KINDS: tuple[ColumnType, ...] = ("double", "float", "long", "integer", "boolean", "datetime", "string")
#: One value of each type, and how NumPy keeps a column of them: without, and with missing values.
VALUES: dict[str, tuple[st.SearchStrategy[Any], Any, Any]] = {
    "double": (st.floats(allow_nan=False), np.float64, np.float64),
    "float": (st.floats(allow_nan=False, width=32), np.float32, np.float32),
    # The least number stands for what is missing.
    "long": (st.integers(-(2**63) + 1, 2**63 - 1), np.int64, object),
    "integer": (st.integers(-(2**31), 2**31 - 1), np.int32, object),
    "boolean": (st.booleans(), np.bool_, object),
    "datetime": (
        st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1)),  # noqa: DTZ001
        "datetime64[us]",
        "datetime64[us]",
    ),
    "string": (TEXT, object, object),
}
LABELS: dict[str, tuple[tuple[Any, ...], Any]] = {
    "bool": ((False, True), np.bool_),
    "int64": ((0, 1, 7), np.int64),
    "double": ((0.5, 1), np.float64),
    "string": (("no", "yes", "grün"), object),
}


@st.composite
def logged_rows(draw: st.DrawFn) -> tuple[Signature, Predictions, list[dict[str, Any]]]:
    """Draw a signature, rows for it, and what the table must say of them."""
    n = draw(st.integers(1, 6))
    kinds = draw(st.lists(st.sampled_from(KINDS), max_size=6))
    columns = tuple(Column(f"x{number}", kind, required=False) for number, kind in enumerate(kinds))
    outputs = tuple(f"y{number}" for number in range(draw(st.sampled_from([0, 0, 1, 3]))))
    label = draw(st.sampled_from([None, *LABELS]))
    if label is None:
        signature = Signature(columns, Task.regression, outputs=outputs)
        value, dtype = st.floats(allow_nan=False), np.dtype(np.float64)
    else:
        classes, kept = LABELS[label]
        signature = Signature(columns, Task.classification, "y", classes, outputs=outputs)
        value, dtype = st.sampled_from(classes), np.dtype(kept)
    table: list[dict[str, Any]] = [{} for _ in range(n)]
    inputs = {}
    for column in columns:
        one, whole, gaps = VALUES[column.type]
        missing = draw(st.booleans())
        given = draw(st.lists(st.none() | one if missing else one, min_size=n, max_size=n))
        if draw(st.integers(0, 9)) == 0:
            given = [None] * n  # as a row that lacks an optional input
        else:
            inputs[column.name] = array(given, gaps if None in given else whole)
        for row, entry in zip(table, given, strict=True):
            row[f"input_{column.name}"] = as_text(entry) if column.type == "string" else entry
    shape = (n, len(outputs)) if outputs else (n,)
    flat = draw(st.lists(value, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    prediction = np.empty(len(flat), dtype)
    prediction[:] = flat
    prediction = prediction.reshape(shape)
    shares = draw(st.sampled_from([0, 0, 2, 3]))
    probability = np.array(
        draw(st.lists(st.floats(0, 1), min_size=n * shares, max_size=n * shares)), np.float64
    ).reshape(n, shares)
    texts = st.none() | st.lists(TEXT, min_size=n, max_size=n)
    entity, requests, traces = draw(texts), draw(texts), draw(texts)
    single = draw(st.booleans())
    ids = [f"{draw(st.integers(0, 2**128 - 1)):032x}" for _ in range(n)]
    rows = Predictions(
        prediction_id=ids,
        at_us=5_000_000 if single else np.arange(n, dtype=np.int64),
        version=3 if single else np.arange(n, dtype=np.int32),
        variant="champion" if single else [f"v{row}" for row in range(n)],
        propensity=0.5 if single else np.full(n, 0.25),
        entity=entity,
        latency_ms=1.5 if single else np.full(n, 2.5, np.float32),
        inputs=inputs,
        prediction=prediction,
        probability=probability if shares else None,
        request_id=requests,
        trace=traces,
    )
    for at, facts in enumerate(table):
        facts |= {
            "prediction_id": ids[at],
            "at": 5_000_000 if single else at,
            "version": 3 if single else at,
            "variant": "champion" if single else f"v{at}",
            "propensity": 0.5 if single else 0.25,
            "latency_ms": 1.5 if single else 2.5,
            "entity": as_text(entity[at] if entity else "") or None,
            "request_id": as_text(requests[at] if requests else "") or None,
            "trace": as_text(traces[at] if traces else "") or None,
            "prediction": prediction[at].tolist() if outputs else prediction.tolist()[at],
            "probability": probability[at].tolist() if shares else None,
        }
    return signature, rows, table


def array(values: Sequence[Any], dtype: Any) -> Any:
    """Return values as a column of a type; None is what the type has for it."""
    if np.dtype(dtype).kind == "f":
        values = [np.nan if value is None else value for value in values]
    made = np.empty(len(values), dtype)
    made[:] = values
    return made


def as_text(value: str | None) -> str | None:
    """Return text as the log can keep it: half a character has no UTF-8."""
    return None if value is None else value.encode("utf-8", "replace").decode()


@settings(max_examples=300, deadline=None)
@given(logged_rows())
def test_every_layout_is_written_as_arrow_would(
    case: tuple[Signature, Predictions, list[dict[str, Any]]],
) -> None:
    """All types of columns, missing values, text labels and several outputs: Arrow reads back exactly what was given."""
    signature, rows, expected = case
    layout = Layout.of("api", "iris", signature)
    assert len(layout.encode(rows)) == len(layout.encode(rows))
    batch = written(layout.tail_schema, layout.encode(rows))
    assert batch.schema.equals(layout.tail_schema)
    arrays = [
        pa.array(column.to_pylist(), field.type)
        for column, field in zip(batch.columns, layout.tail_schema, strict=True)
    ]
    own = pa.RecordBatch.from_arrays(arrays, schema=layout.tail_schema)
    assert nan_equal(batch, own)
    table = layout.expand(batch)
    table.validate(full=True)
    moments = table.column("at").cast(pa.int64())
    found = table.drop_columns(["deployment", "model"]).set_column(1, "at", moments)
    assert found.to_pylist() == expected
    assert set(table.column("deployment").to_pylist()) == {"api"}


def nan_equal(left: Any, right: Any) -> bool:
    """Whether two batches hold the same; a number that is missing is NaN in a tail, which equals nothing."""
    return str(left.to_pydict()) == str(right.to_pydict()) and bool(left.schema.equals(right.schema))


@settings(max_examples=200, deadline=None)
@given(logged_rows(), st.integers(0, 40))
def test_one_row_is_written_as_it_is_among_many(
    case: tuple[Signature, Predictions, list[dict[str, Any]]], width: int
) -> None:
    """The way of a single row whose columns lie in blocks gives what the way of all rows gives."""
    signature, drawn, _ = case
    layout = Layout.of("api", "iris", signature)
    needed = {column.name for column in signature.inputs if in_block(column)}
    numbers = [column for column in signature.inputs if column.type != "string" and column.name in needed]
    inputs = {
        column.name: np.full(1, 0.25 * place, np.float32 if column.type == "float" else np.float64)
        for place, column in enumerate(numbers)
    } | {
        column.name: np.array(["x" * width + column.name], object)
        for column in signature.inputs
        if column.type == "string"
    }
    fed = [column for column in signature.inputs if column.name in inputs]
    row = dataclasses.replace(
        drawn,
        prediction_id=drawn.prediction_id[:1],
        raw_id=bytes.fromhex(drawn.prediction_id[0]),
        at_us=5,
        version=3,
        variant="champion",
        propensity=0.5,
        latency_ms=1.5,
        entity=drawn.entity[:1] if drawn.entity else None,
        request_id=drawn.request_id[:1] if drawn.request_id else None,
        trace=drawn.trace[:1] if drawn.trace else None,
        inputs=blocks_of(inputs, fed, 1),
        prediction=drawn.prediction[:1],
        probability=None if drawn.probability is None else drawn.probability[:1],
    )
    usual = dataclasses.replace(row, raw_id=None)
    batches = [written(layout.tail_schema, layout.encode(one)) for one in (row, usual)]
    assert nan_equal(*batches)
    batches[0].validate(full=True)
