"""The fingerprint of a table: what changes it and what does not."""

import datetime as dt
import decimal
import io
import uuid
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from four_modes import diabetes, wine

from loopwright.errors import InvalidInput
from loopwright.lineage import fingerprint, table_from

MOMENT = dt.datetime(2024, 1, 2, 3, 4, 5)  # noqa: DTZ001
#: One column of each kind, with gaps; lists and structs are in here because their children are hashed on their own.
COLUMNS: dict[str, pa.Array] = {
    "float": pa.array([1.5, None, float("nan"), -0.0]),
    "half": pa.array([np.float16(1.5), None], pa.float16()),
    "int": pa.array([1, None, -3]),
    "unsigned": pa.array([2**64 - 1, None], pa.uint64()),
    "bool": pa.array([True, None, False]),
    "text": pa.array(["a", None, "", "ü"]),
    "view": pa.array(["a", None], pa.string_view()),
    "bytes": pa.array([b"a", None]),
    "fixed bytes": pa.array([b"ab", None, b"cd"], pa.binary(2)),
    "decimal": pa.array([decimal.Decimal("1.20"), None]),
    "date": pa.array([MOMENT.date(), None]),
    "date64": pa.array([MOMENT.date(), None], pa.date64()),
    "time": pa.array([MOMENT.time(), None], pa.time32("s")),
    "duration": pa.array([5, None], pa.duration("ns")),
    "timestamp": pa.array([MOMENT, None], pa.timestamp("s")),
    "zoned": pa.array([MOMENT, None], pa.timestamp("ns", tz="Europe/Berlin")),
    "category": pa.array(["a", None, "b"]).dictionary_encode(),
    "number category": pa.array([1, None, 2]).dictionary_encode(),
    "list": pa.array([[1.0, None], None, [], [float("nan")]]),
    "fixed list": pa.array([[1, 2], None], pa.list_(pa.int64(), 2)),
    "list of times": pa.array([[1500], [1000], None], pa.list_(pa.timestamp("ns"))),
    "struct": pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}]),
    "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
    "uuid": pa.array([uuid.UUID(int=1).bytes, None], pa.uuid()),
    "nothing": pa.nulls(3),
}
BASE = pa.table({"x": [1.0, 2.0, None], "y": ["a", "b", "c"], "z": [1, 2, 3]})


def one(values: Any) -> str:
    """Return the fingerprint of a table with one column."""
    return fingerprint(pa.table({"x": values}))


def through_parquet(table: pa.Table, **options: Any) -> pa.Table:
    """Write a table as Parquet and read it back."""
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return pq.ParquetFile(file).read()


@pytest.mark.parametrize("name", COLUMNS)
def test_chunks_do_not_count(name: str) -> None:
    """A column in one piece and in one piece a row, with empty pieces between, has one fingerprint."""
    table = pa.table({"x": COLUMNS[name]})
    pieces = [piece for row in range(len(table)) for piece in (table[row:row], table[row : row + 1])]
    assert fingerprint(pa.concat_tables(pieces)) == fingerprint(table)
    assert fingerprint(table[1:]) == fingerprint(pa.table({"x": pa.array(table["x"].combine_chunks()[1:])}))


@pytest.mark.parametrize(
    "layout", [{"row_group_size": 7}, {"compression": "zstd"}, {"use_dictionary": False}]
)
def test_the_layout_of_a_file_does_not_count(layout: dict[str, Any]) -> None:
    """Row groups, compression and encodings of a Parquet file leave the fingerprint of real tables as it was."""
    for frame in (wine(), diabetes()):
        table = table_from(frame)
        assert fingerprint(through_parquet(table, **layout)) == fingerprint(table)


@pytest.mark.parametrize("name", sorted(set(COLUMNS) - {"fixed list"}))
def test_a_file_keeps_the_fingerprint(name: str) -> None:
    """What Parquet turns into a neighbouring type, such as seconds into milliseconds, is the same content."""
    table = pa.table({"x": COLUMNS[name]})
    assert fingerprint(through_parquet(table)) == fingerprint(table)


@pytest.mark.parametrize(
    "other",
    [
        BASE.set_column(0, "x", pa.array([1.0, np.nextafter(2.0, 3.0), None])),
        BASE.set_column(0, "x", pa.array([1.0, 2.0, 0.0])),
        BASE.set_column(1, "y", pa.array(["a", "b", "C"])),
        BASE.set_column(1, "y", pa.array(["ab", "", "c"])),
        BASE.set_column(2, "z", pa.array([1, 2, 3], pa.int32())),
        BASE.set_column(2, "z", pa.array([1.0, 2.0, 3.0])),
        BASE.select(["y", "x", "z"]),
        BASE.rename_columns(["x", "y", "w"]),
        BASE.take([1, 0, 2]),
        BASE[:2],
        BASE.drop_columns(["z"]),
    ],
    ids=["value", "gap", "text", "border", "width", "kind", "order", "name", "rows", "fewer", "column"],
)
def test_content_counts(other: pa.Table) -> None:
    """One changed value, name, type or place gives another fingerprint."""
    assert fingerprint(other) != fingerprint(BASE)


def test_every_single_value_of_a_real_table_counts() -> None:
    """Changing any one cell of a table changes the fingerprint, and no two changes give the same."""
    frame = diabetes().head(12)
    names, values = list(frame.columns), frame.to_numpy()
    found = {fingerprint(pa.table(list(values.T), names=names))}
    for place in np.ndindex(values.shape):
        changed = values.copy()
        changed[place] += 1e-9
        found.add(fingerprint(pa.table(list(changed.T), names=names)))
    assert len(found) == values.size + 1


def test_missing_is_missing_however_it_is_written() -> None:
    """NaN, None and a NaN with other bits are one thing, at the top and inside of lists."""
    other_nan = np.array([0x7FF8000000000123], dtype=np.uint64).view(np.float64)[0]
    assert one([1.0, None]) == one([1.0, float("nan")]) == one(pa.array([1.0, other_nan], from_pandas=False))
    assert one([[1.0, None]]) == one([[1.0, float("nan")]])
    assert one([1.0, None]) != one([1.0, 0.0])
    assert one(["a", None]) != one(["a", ""])
    assert one([[1], None]) != one([[1], []])


def test_encodings_of_one_column_are_one_content() -> None:
    """Categories, views, wide offsets and time units that lose nothing do not count; the values do."""
    text = pa.array(["a", None, "b", "a"])
    same = [text.dictionary_encode(), text.cast(pa.large_string()), text.cast(pa.string_view())]
    same.append(pa.DictionaryArray.from_arrays(pa.array([1, None, 0, 1]), pa.array(["b", "a", "unused"])))
    assert {one(values) for values in same} == {one(text)}
    assert one(pa.array(["a", None, "b", "c"]).dictionary_encode()) != one(text)
    moments = {unit: pa.array([MOMENT, None], pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")}
    assert len({one(values) for values in moments.values()}) == 1
    assert one(pa.array([1001], pa.timestamp("ns"))) != one(pa.array([1], pa.timestamp("us")))
    assert one(pa.array([MOMENT], pa.timestamp("us", tz="UTC"))) != one(
        pa.array([MOMENT], pa.timestamp("us"))
    )
    assert one(pa.array([[1001]], pa.list_(pa.timestamp("ns")))) != one(
        pa.array([[1001]], pa.list_(pa.timestamp("us")))
    )


def test_extension_types_hash_their_values() -> None:
    """UUIDs have the fingerprint of their bytes, not of where they lie in memory."""
    first, second = ([uuid.UUID(int=number).bytes] for number in (1, 2))
    assert one(pa.array(first, pa.uuid())) == one(pa.array(list(first), pa.uuid()))
    assert one(pa.array(first, pa.uuid())) != one(pa.array(second, pa.uuid()))


def test_pandas_and_arrow_agree() -> None:
    """A frame has the fingerprint of the same table in Arrow; its row labels and its metadata do not count."""
    frame = wine()
    plain = pa.table({name: frame[name].tolist() for name in frame})
    assert fingerprint(table_from(frame)) == fingerprint(plain)
    assert fingerprint(table_from(frame.set_axis(range(9, 187)))) == fingerprint(plain)
    assert fingerprint(plain.replace_schema_metadata({"a": "b"})) == fingerprint(plain)
    as_categories = frame.astype({"grower": "category"})
    assert fingerprint(table_from(as_categories)) == fingerprint(plain)


def test_intervals_of_pandas_have_a_fingerprint() -> None:
    """A column made by `pandas.cut` is content like any other."""
    first = table_from(pd.DataFrame({"x": pd.cut(pd.Series([1, 2, 3]), 2)}))
    second = table_from(pd.DataFrame({"x": pd.cut(pd.Series([1, 3, 3]), 2)}))
    assert fingerprint(first) == fingerprint(pa.concat_tables([first[:1], first[1:]]))
    assert fingerprint(first) != fingerprint(second)


def test_empty_tables_differ_by_their_columns() -> None:
    """Tables without rows are told apart by names and types; one without columns has a fingerprint too."""
    tables = [
        pa.table({}),
        pa.table({"x": pa.array([], pa.int64())}),
        pa.table({"x": pa.array([], pa.float64())}),
        pa.table({"y": pa.array([], pa.int64())}),
        pa.table({"x": pa.array([None], pa.int64())}),
    ]
    assert len({fingerprint(table) for table in tables}) == len(tables)
    no_chunks = pa.table({"x": pa.chunked_array([], pa.int64())})
    assert fingerprint(no_chunks) == fingerprint(tables[1])


@pytest.mark.parametrize(
    "values",
    [
        pa.array([pa.MonthDayNano([1, 2, 3])]),
        pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])]),
    ],
    ids=["calendar interval", "union"],
)
def test_a_type_without_content_is_refused(values: pa.Array) -> None:
    """What cannot be compared is named with its column instead of hashed somehow."""
    with pytest.raises(InvalidInput, match=r"The column 'x' of type .* has no fingerprint"):
        one(values)


@pytest.mark.parametrize("values", [[1, "a"], [1j], pd.arrays.SparseArray([0, 0, 1])])
def test_a_frame_that_no_dataset_can_hold_is_refused(values: Any) -> None:
    """Mixed, complex and sparse columns are refused with what to do."""
    with pytest.raises(InvalidInput, match="'odd' cannot be kept") as caught:
        table_from(pd.DataFrame({"x": values}), "odd")
    assert "astype" in caught.value.hint
