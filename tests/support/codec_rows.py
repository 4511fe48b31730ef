"""Signatures, rows and answers for the tests of codecs, and the path of JSON records as what they must agree with."""

import io
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from hypothesis import strategies as st

from loopwright.deploy.answers import Answers
from loopwright.deploy.online.codecs.base import Asked
from loopwright.deploy.online.decode import Decoder
from loopwright.errors import LoopwrightError
from loopwright.records import Column, Signature, Task, Variant

Row = dict[str, Any]

MIXED = Signature(
    (
        Column("petal length (cm)", "double"),
        Column("b.c", "long"),
        Column("s`$[0]", "string", required=False),
        Column("class", "boolean"),
        Column("at", "datetime", required=False),
        Column("small", "integer", required=False),
        Column("f", "float", required=False),
        Column("flag", "boolean", required=False),
        Column("town", "string"),
    ),
    Task.classification,
    classes=("no", "yes"),
)
NUMBERS = Signature(
    (Column("a", "double"), Column("b", "double", required=False), Column("c", "double")), Task.regression
)
QUANTILES = Signature(
    (Column("a", "double"), Column("n", "long")), Task.regression, outputs=("q10", "q50", "q90")
)

_ARROW = {
    "boolean": pa.bool_(),
    "integer": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "datetime": pa.timestamp("us", "UTC"),
}
_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n\x1a"), min_size=1, max_size=8)
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**53), 2**53),
    "float": st.floats(allow_nan=False, allow_infinity=False, width=32),
    "double": st.floats(allow_nan=False, allow_infinity=False),
    "string": _TEXT,
    "datetime": st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
}


def rows_of(signature: Signature) -> st.SearchStrategy[list[Row]]:
    """Return a strategy of 1 to 5 rows that fit a signature."""
    fields = {
        column.name: _VALUES[column.type] if column.required else st.none() | _VALUES[column.type]
        for column in signature.inputs
    }
    return st.lists(st.fixed_dictionaries(fields), min_size=1, max_size=5)


def as_json(rows: Any) -> bytes:
    """Return rows as JSON."""
    return msgspec.json.encode(rows)


def as_table(rows: Sequence[Row], signature: Signature) -> pa.Table:
    """Return rows as an Arrow table of the signature's types."""
    arrays = [pa.array([row.get(one.name) for row in rows], _ARROW[one.type]) for one in signature.inputs]
    return pa.Table.from_arrays(arrays, names=list(signature.names))


def as_csv(table: pa.Table) -> bytes:
    """Return a table as CSV."""
    sink = io.BytesIO()
    pyarrow.csv.write_csv(table, sink)
    return sink.getvalue()


def as_stream(table: pa.Table, compression: str | None = None, rows: int = 2) -> bytes:
    """Return a table as an Arrow IPC stream of batches of that many rows."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table, rows)
    return bytes(sink.getvalue())


def as_file(table: pa.Table, compression: str | None = None) -> bytes:
    """Return a table as an Arrow IPC file."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def as_parquet(table: pa.Table, **options: Any) -> bytes:
    """Return a table as a Parquet file."""
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, **options)
    return bytes(sink.getvalue())


def columns_of(
    asked: Asked, signature: Signature, entity: str | None = None
) -> dict[str, np.ndarray[Any, Any]]:
    """Return what a codec asks as columns, whichever way it holds them."""
    if asked.columns is not None:
        return dict(asked.columns)
    assert asked.rows is not None
    return dict(Decoder(signature, entity).columns(asked.rows))


def by_records(rows: Sequence[Row], signature: Signature) -> dict[str, np.ndarray[Any, Any]]:
    """Return the columns that the path of JSON records makes of rows."""
    decoder = Decoder(signature)
    return dict(decoder.columns(decoder.decode(as_json(rows))[0]))


def same(made: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Check that columns have the same types and the same values."""
    assert set(made) == set(wanted)
    for name, values in wanted.items():
        assert made[name].dtype == values.dtype, name
        np.testing.assert_array_equal(made[name], values, err_msg=name)


def clean(decode: Any) -> None:
    """Call what decodes a body; only an error that the sender can act on may come of it."""
    try:
        decode()
    except LoopwrightError as error:
        refused = error
    else:
        return
    assert 400 <= refused.http_status < 500
    # What a reply could not be written of would be a failure after all.
    json.loads(msgspec.json.encode(refused.to_dict()))


def mutated(bodies: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Return a strategy of bodies in which some bytes are changed, cut off, put in or left out."""
    piece = st.binary(max_size=4) | st.sampled_from(
        [b"\xff\xff\xff\x7f", b"\x00", b"NaN", b"[", b"{", b'"', b"1e999"]
    )

    @st.composite
    def one(draw: st.DrawFn) -> bytes:
        body = draw(st.sampled_from(bodies))
        for _ in range(draw(st.integers(1, 4))):
            at = draw(st.integers(0, len(body)))
            body = body[:at] + draw(piece) + body[at + draw(st.integers(0, 4)) :]
        return body[: draw(st.integers(0, len(body)))] if draw(st.integers(0, 4)) == 0 else body

    return one()


def answers(signature: Signature, n: int = 3) -> Answers:
    """Return n answers as a deployment gives them, the last by another variant."""
    classes = signature.classes
    prediction: Any
    if classes:
        prediction = np.array([classes[row % len(classes)] for row in range(n)], dtype=object)
    elif signature.outputs:
        prediction = np.arange(n * len(signature.outputs), dtype=float).reshape(n, -1) / 4
    else:
        prediction = np.arange(n) / 4
    probability = np.tile([0.25, 0.75], (n, 1)) if classes else None
    return Answers(
        "flowers",
        classes,
        [f"id-{row}" for row in range(n)],
        prediction,
        probability,
        (Variant("champion", 4), Variant("candidate", 5)),
        [0] * (n - 1) + [1],
        outputs=signature.outputs,
    )
