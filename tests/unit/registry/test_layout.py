"""Rows in the form an estimator was fitted on."""

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from loopwright.errors import SchemaMismatch
from loopwright.records import Column
from loopwright.registry import arrays_of, table_of
from loopwright.registry.columns import column_of
from loopwright.registry.layout import Layout, layout_of

FRAME = pd.DataFrame(
    {
        "whole": [1, 2, 3],
        "small": np.array([1, 2, 3], dtype="float32"),
        "nullable": pd.array([1, None, 3], dtype="Int64"),
        "text": pd.Series(["a", None, "c"], dtype="str"),
        "old text": pd.Series(["a", None, "c"], dtype="object"),
        "nan text": pd.Series(["a", np.nan, "c"], dtype="object"),
        "category": pd.Categorical(["x", "y", None], categories=["z", "y", "x"], ordered=True),
        "grade": pd.Categorical([1, 5, None], categories=[5, 1]),
        "flag": [True, False, True],
        "time": pd.to_datetime(["2020-01-01", "2021-01-01", "NaT"]),
    }
)


def test_a_frame_comes_back_as_it_was() -> None:
    """Arrays of a table give back the very frame: types, categories, and what stands for missing."""
    table = pa.Table.from_pandas(FRAME, preserve_index=False)
    inputs = tuple(column_of(name, table[name]) for name in table.column_names)
    layout = layout_of(FRAME, tuple(FRAME.columns), "frame")
    layout = msgspec.json.decode(msgspec.json.encode(layout), type=Layout)
    rows = layout.rows(arrays_of(table, inputs))
    assert isinstance(rows, pd.DataFrame)
    pd.testing.assert_frame_equal(rows, FRAME)
    assert rows["old text"][1] is None
    assert isinstance(rows["nan text"][1], float)


def test_a_matrix_of_numbers_is_float64() -> None:
    """Numbers and booleans make a float64 matrix; text makes a matrix of objects."""
    columns = {"whole": np.array([1, 2, 3]), "flag": np.array([True, False, True])}
    matrix = layout_of(FRAME, ("whole", "flag"), "matrix").rows(columns)
    assert isinstance(matrix, np.ndarray)
    assert matrix.dtype == np.float64
    assert matrix.tolist() == [[1, 1], [2, 0], [3, 1]]
    texts = layout_of(FRAME, ("whole", "old text"), "matrix").rows(
        columns | {"old text": np.array(["a", None, "b"], dtype=object)}
    )
    assert isinstance(texts, np.ndarray)
    assert texts.tolist() == [[1, "a"], [2, None], [3, "b"]]


def test_arrays_and_tables_are_each_others_reverse() -> None:
    """Typed arrays survive an Arrow table, with every kind of missing value."""
    inputs = (
        Column("d", "double", required=False),
        Column("f", "float"),
        Column("i", "integer"),
        Column("l", "long"),
        Column("s", "string", required=False),
        Column("b", "boolean"),
        Column("t", "datetime", required=False),
    )
    arrays = {
        "d": np.array([1.5, np.nan]),
        "f": np.array([1, 2], dtype=np.float32),
        "i": np.array([1, 2], dtype=np.int32),
        "l": np.array([1, 2**60]),
        "s": np.array(["ü", None], dtype=object),
        "b": np.array([True, False]),
        "t": np.array(["2020-01-01T00:00:00.000001", "NaT"], dtype="datetime64[us]"),
    }
    table = table_of(arrays, inputs)
    assert table["d"].null_count == 1
    back = arrays_of(table, inputs)
    for name, values in arrays.items():
        assert back[name].dtype == values.dtype
        np.testing.assert_array_equal(back[name], values)


def test_columns_that_do_not_fit_are_named() -> None:
    """An absent column names its nearest; gaps and wrong types name the column."""
    table = pa.table({"agee": [1, None], "name": ["a", "b"]})
    with pytest.raises(SchemaMismatch, match=r"'age'.*'agee'"):
        arrays_of(table, (Column("age", "long"),))
    with pytest.raises(SchemaMismatch, match="'agee' has 1 missing"):
        arrays_of(table, (Column("agee", "double"),))
    with pytest.raises(SchemaMismatch, match="'name' of type string cannot be read as double"):
        arrays_of(table, (Column("name", "double"),))
    assert np.isnan(arrays_of(table, (Column("other", "double", required=False),))["other"]).all()


def test_slices_and_chunks_of_tables_are_read_right() -> None:
    """A slice that starts in the middle of its buffers, in several chunks, gives its own rows."""
    whole = pa.table(
        {
            "d": [1.5, None, 3.5, 4.5] * 5,
            "b": [True, False, None, True] * 5,
            "s": ["a", None, "c", "d"] * 5,
            "t": pa.array([0, None, 2, 3] * 5, type=pa.timestamp("ns")),
            "l": list(range(20)),
        }
    )
    table = pa.concat_tables([whole.slice(3, 7), whole.slice(11, 5)])
    inputs = (
        Column("d", "double", required=False),
        Column("b", "boolean", required=False),
        Column("s", "string", required=False),
        Column("t", "datetime", required=False),
        Column("l", "long"),
    )
    found = arrays_of(table, inputs)
    assert [None if np.isnan(value) else value for value in found["d"]] == table["d"].to_pylist()
    assert found["b"].tolist() == table["b"].to_pylist()
    assert found["s"].tolist() == table["s"].to_pylist()
    assert found["l"].tolist() == table["l"].to_pylist()
    assert np.isnat(found["t"]).tolist() == table["t"].is_null().to_pylist()
    assert all(len(values) == 0 for values in arrays_of(table.slice(0, 0), inputs).values())
