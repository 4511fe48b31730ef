"""CSV, Arrow and Parquet bodies to typed columns, and answers in the form that is asked for."""

import io
import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from codec_rows import (
    MIXED,
    NUMBERS,
    QUANTILES,
    answers,
    as_csv,
    as_file,
    as_parquet,
    as_stream,
    as_table,
    by_records,
    clean,
    columns_of,
    mutated,
    rows_of,
    same,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from loopwright.deploy.online.codecs.tables import ARROW_FILE, ARROW_STREAM, CSV, PARQUET, Tables, accepted
from loopwright.deploy.online.wire import WrongType
from loopwright.errors import InvalidInput, SchemaMismatch
from loopwright.records import Column, Signature, Task

ROWS: list[dict[str, Any]] = [
    {"petal length (cm)": 1.5, "b.c": 2, "class": True, "town": "Köln", "s`$[0]": 'a "b", c'},
    {
        "petal length (cm)": 2,
        "b.c": -3,
        "class": False,
        "town": "x",
        "at": datetime(2026, 1, 31, 12, tzinfo=UTC),
        "small": 4,
        "f": 0.5,
        "flag": True,
    },
    {"petal length (cm)": 0.1, "b.c": 2**53, "class": True, "town": "y", "flag": False},
]


def read(body: bytes, kind: bytes, signature: Signature = MIXED, entity: str | None = None) -> dict[str, Any]:
    """Return the columns of a body."""
    codec = Tables(signature, entity)
    return columns_of(codec.decode(body, {b"content-type": kind}), signature, entity)


def forms(table: pa.Table) -> dict[str, tuple[bytes, bytes]]:
    """Return a table in every form, with its content type."""
    coded = table.set_column(table.column_names.index("town"), "town", table["town"].dictionary_encode())
    return {
        "csv": (as_csv(table), CSV),
        "stream": (as_stream(table), ARROW_STREAM),
        "stream, zstd": (as_stream(table, "zstd"), ARROW_STREAM),
        "file": (as_file(table), ARROW_FILE),
        "file, lz4": (as_file(table, "lz4"), ARROW_FILE),
        "dictionary": (as_stream(coded), ARROW_STREAM),
        "parquet": (as_parquet(table), PARQUET),
        "parquet, plain": (
            as_parquet(table, use_dictionary=False, compression="zstd", row_group_size=2),
            PARQUET,
        ),
    }


@given(rows_of(MIXED))
@settings(max_examples=60, deadline=None)
def test_every_form_gives_the_columns_of_json_records(rows: list[dict[str, Any]]) -> None:
    """The same rows give the same columns, of the same types, whatever form they come in."""
    wanted = by_records(rows, MIXED)
    for body, kind in forms(as_table(rows, MIXED)).values():
        same(read(body, kind), wanted)


def test_csv_follows_rfc_4180() -> None:
    """Quotes, commas and line ends in quotes, CRLF, and a byte order mark are read; an empty field is missing."""
    lines = (
        "\ufeffs`$[0],petal length (cm),b.c,class,at,town\r\n"
        '"a ""b"",\r\nc",1e-3,7,TRUE,2026-01-31T12:00:00+02:00,x\r\n'
        ",2,8,0,2026-01-31,y\r\n"
    )
    made = read(lines.encode(), CSV)
    assert made["s`$[0]"].tolist() == ['a "b",\r\nc', None]
    assert made["petal length (cm)"].tolist() == [0.001, 2.0]
    assert made["class"].tolist() == [True, False]
    assert made["at"].tolist() == [datetime(2026, 1, 31, 10), datetime(2026, 1, 31)]  # noqa: DTZ001
    assert np.isnan(made["small"]).all()
    assert made["flag"].tolist() == [None, None]


def test_whole_numbers_may_be_written_as_decimals_in_csv() -> None:
    """Pandas writes 3 as 3.0 as soon as the column has a gap; 3.5 is still refused."""
    head = "petal length (cm),b.c,class,town,small\n"
    made = read(f"{head}1,2.0,1,x,3.0\n1,9007199254740993,0,y,\n".encode(), CSV)
    assert made["b.c"].tolist() == [2, 9007199254740993]
    np.testing.assert_array_equal(made["small"], [3.0, np.nan])
    with pytest.raises(SchemaMismatch, match=r"Row 1, field 'small': 3\.5 does not fit"):
        read(f"{head}1,2,1,x,3\n1,2,1,x,3.5\n".encode(), CSV)


def test_an_empty_line_of_one_column_is_a_missing_value() -> None:
    """No row vanishes: with one column, an empty line is a row."""
    one = Signature((Column("a", "double", required=False),), Task.regression)
    np.testing.assert_array_equal(read(b"a\n1\n\n2\n", CSV, one)["a"], [1, np.nan, 2])


CSV_HEAD = "petal length (cm),b.c,class,town,at,f"


@pytest.mark.parametrize(
    ("head", "line", "field", "message"),
    [
        (CSV_HEAD, "x,2,1,t,,", "petal length (cm)", '"x" does not fit'),
        (CSV_HEAD, ",2,1,t,,", "petal length (cm)", "missing"),
        (CSV_HEAD, "nan,2,1,t,,", "petal length (cm)", "missing"),
        (CSV_HEAD, "inf,2,1,t,,", "petal length (cm)", "infinity"),
        (CSV_HEAD, "1e999,2,1,t,,", "petal length (cm)", "infinity"),
        (CSV_HEAD, "1,2.5,1,t,,", "b.c", "2.5 does not fit"),
        (CSV_HEAD, "1,9223372036854775808,1,t,,", "b.c", "does not fit"),
        (CSV_HEAD, "1,x,1,t,,", "b.c", '"x" does not fit'),
        (CSV_HEAD, "1,2,yes,t,,", "class", '"yes" does not fit'),
        (CSV_HEAD, "1,2,1,,,", "town", "missing"),
        (CSV_HEAD, "1,2,1,t,yesterday,", "at", '"yesterday" does not fit'),
        (CSV_HEAD, "1,2,1,t,0001-01-01T00:00:00+05:00,", "at", "outside the years"),
        (CSV_HEAD, "1,2,1,t,,-inf", "f", "infinity"),
    ],
)
def test_a_wrong_value_of_csv_is_named_with_its_row(head: str, line: str, field: str, message: str) -> None:
    """The message has the row, counted from 0 without the header line, the field and the value."""
    with pytest.raises(SchemaMismatch) as caught:
        read(f"{head}\n1,2,1,t,,\n{line}\n".encode(), CSV)
    assert message in caught.value.fact
    assert (caught.value.attrs["row"], caught.value.attrs["field"]) == (1, field)
    assert caught.value.valid


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"a,b,c\n", "no rows"),
        (b"a,b,c\n1,2\n", "Row 0 of the CSV: Expected 3 columns, got 2"),
        (b"a,b,c\n1,2,3\n1,2,3,4\n", "Row 1 of the CSV: Expected 3 columns, got 4"),
        (b"a,b,a\n1,2,3\n", "'a' is there twice"),
        (b"a,b,cc\n1,2,3\n", "'cc', which the model does not know.*Did you mean 'c'"),
        (b"a,b\n1,2\n", "There is no column 'c'"),
        (b",a,b,c\n0,1,2,3\n", "index=False"),
        (b"a,b,c\n1,\xff,3\n", "Row 0, field 'b'"),
        (b"\xff\xfe,b,c\n1,2,3\n", "does not know"),
        (b'a,b,c\n"1,2,3\n', "CSV"),
        (b"," * 500_000 + b"\n", "does not know"),
    ],
)
def test_csv_that_is_none_is_refused_with_the_reason(body: bytes, message: str) -> None:
    """What is wrong with the header line or the lines is said."""
    with pytest.raises(InvalidInput, match=rf"(?s){message}"):
        read(body, CSV, NUMBERS)


def test_arrow_types_that_hold_the_same_are_read() -> None:
    """Small numbers, large and viewed text, dates and times of other units come in without loss."""
    table = pa.table(
        {
            "petal length (cm)": pa.array([1, 2], pa.uint8()),
            "b.c": pa.array([1.0, 2.0], pa.float32()),
            "s`$[0]": pa.array(["a", None], pa.large_string()).dictionary_encode(),
            "class": pa.array([True, False]),
            "at": pa.array([0, 86_400], pa.timestamp("s", "Europe/Berlin")),
            "small": pa.array([3, None], pa.int64()),
            "f": pa.array([0.1, None], pa.float64()),
            "flag": pa.nulls(2),
            "town": pa.array(["x", "a town with a longer name"], pa.string_view()),
        }
    )
    made = read(as_stream(table), ARROW_STREAM)
    assert made["petal length (cm)"].dtype == np.float64
    assert made["b.c"].tolist() == [1, 2]
    assert made["s`$[0]"].tolist() == ["a", None]
    assert made["at"].tolist() == [datetime(1970, 1, 1), datetime(1970, 1, 2)]  # noqa: DTZ001
    assert made["small"].dtype == np.float64
    assert made["f"].dtype == np.float32
    assert made["flag"].tolist() == [None, None]
    assert made["town"].tolist() == ["x", "a town with a longer name"]


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"petal length (cm)": pa.array([1.0, None, 2.0])}, "petal length (cm)", "Row 1.*missing"),
        ({"petal length (cm)": pa.array([1.0, float("nan"), 2.0])}, "petal length (cm)", "Row 1.*missing"),
        ({"petal length (cm)": pa.array([1.0, float("-inf"), 2.0])}, "petal length (cm)", "Row 1.*infinity"),
        ({"petal length (cm)": pa.array([1, 2**60, 2])}, "petal length (cm)", "Row 1.*more digits"),
        ({"petal length (cm)": pa.array(["1", "2", "3"])}, "petal length (cm)", "Arrow's string"),
        ({"b.c": pa.array([1.0, 2.5, 2.0])}, "b.c", "Row 1.*2.5 does not fit"),
        ({"b.c": pa.array([1, 2**63, 2], pa.uint64())}, "b.c", "Row 1.*does not fit"),
        ({"small": pa.array([1, 2**31, None])}, "small", "Row 1.*does not fit"),
        ({"f": pa.array([1.0, 1e300, None])}, "f", "Row 1.*does not fit"),
        ({"class": pa.array([1, 0, 1])}, "class", "Arrow's int64"),
        ({"town": pa.array(["a", None, "b"])}, "town", "Row 1.*missing"),
        ({"town": pa.array(["a", None, "b"]).dictionary_encode()}, "town", "Row 1.*missing"),
        ({"town": pa.array([b"a", b"b", b"c"])}, "town", "Arrow's binary"),
        ({"at": pa.array([1, 2, 3])}, "at", "Arrow's int64"),
        ({"at": pa.array([0, 2**58, 3], pa.timestamp("ms"))}, "at", "Row 1.*outside the years"),
        ({"at": pa.array([0, 2**62, 3], pa.timestamp("us"))}, "at", "Row 1.*outside the years"),
        ({"flag": pa.array([[1], [2], [3]])}, "flag", "Arrow's list"),
    ],
)
@pytest.mark.parametrize("form", [as_stream, as_parquet])
def test_a_wrong_value_of_a_table_is_named(
    change: dict[str, pa.Array], field: str, message: str, form: Any
) -> None:
    """The message has the row where one value is wrong, and the type where none of it fits."""
    table = as_table(ROWS, MIXED)
    for name, values in change.items():
        table = table.set_column(table.column_names.index(name), name, values)
    with pytest.raises(SchemaMismatch, match=rf"(?s){message}") as caught:
        read(form(table), ARROW_STREAM if form is as_stream else PARQUET)
    assert caught.value.attrs["field"] == field


@pytest.mark.parametrize(
    ("form", "kind"), [(as_stream, ARROW_STREAM), (as_file, ARROW_FILE), (as_parquet, PARQUET)]
)
def test_a_table_of_no_rows_or_other_columns_is_refused(form: Any, kind: bytes) -> None:
    """No rows, a column more, a column twice and bytes that end too early are refused; the index of pandas is not."""
    table = as_table(ROWS, MIXED)
    with pytest.raises(InvalidInput, match="no rows"):
        read(form(table.slice(0, 0)), kind)
    with pytest.raises(SchemaMismatch, match="Did you mean 'town'"):
        read(form(table.append_column("towns", pa.array([1, 2, 3]))), kind)
    with pytest.raises(SchemaMismatch, match="twice"):
        read(form(table.append_column("town", pa.array([1, 2, 3]))), kind)
    same(
        read(form(table.append_column("__index_level_0__", pa.array([1, 2, 3]))), kind),
        by_records(ROWS, MIXED),
    )
    whole = form(table)
    for length in (0, 1, 6, len(whole) // 2):
        with pytest.raises(InvalidInput):
            read(whole[:length], kind)
    if kind != ARROW_STREAM:  # a stream may end without its mark
        with pytest.raises(InvalidInput):
            read(whole[:-1], kind)


def test_few_bytes_that_stand_for_many_are_refused() -> None:
    """A body that would become far larger than it is is refused before it does."""
    text = Signature((Column("town", "string"),), Task.regression)
    long = "x" * 100_000
    many = pa.table(
        {"town": pa.DictionaryArray.from_arrays(pa.array(np.zeros(20_000, np.int8)), pa.array([long]))}
    )
    for body, kind in ((as_stream(many), ARROW_STREAM), (as_stream(many, "zstd"), ARROW_STREAM)):
        with pytest.raises(InvalidInput, match="would become more than"):
            read(body, kind, text)
    zeros = pa.table({name: np.zeros(900_000) for name in NUMBERS.names})
    for body, kind in (
        (as_stream(zeros, "zstd", 900_000), ARROW_STREAM),
        (as_file(zeros, "zstd"), ARROW_FILE),
        (as_parquet(zeros, compression="zstd"), PARQUET),
    ):
        assert len(body) < 1_000_000
        with pytest.raises(InvalidInput, match="would become more than"):
            read(body, kind, NUMBERS)
    rows = pa.table({name: np.zeros(1_000_001, np.int8) for name in NUMBERS.names})
    with pytest.raises(InvalidInput, match="1000001 rows"):
        read(as_parquet(rows), PARQUET, NUMBERS)


def test_text_that_is_repeated_is_read() -> None:
    """Repetition within reason is what dictionaries are for."""
    text = Signature((Column("town", "string"),), Task.regression)
    table = pa.table({"town": ["Aachen", "Köln"] * 5_000})
    assert read(as_parquet(table), PARQUET, text)["town"].tolist() == ["Aachen", "Köln"] * 5_000


@pytest.mark.parametrize("name", ["csv", "stream", "file", "parquet", "dictionary"])
def test_who_a_row_is_about_comes_with_it(name: str) -> None:
    """A column of its own, or an input, says whom a row is about; a row that does not say gets None."""
    table = as_table(ROWS, MIXED).append_column("user", pa.array([7, None, 9]))
    body, kind = forms(table)[name]
    codec = Tables(MIXED, "user")
    asked = codec.decode(body, {b"content-type": kind})
    assert asked.entities == ["7", None, "9"]
    same(columns_of(asked, MIXED), by_records(ROWS, MIXED))
    without = Tables(MIXED, "user").decode(forms(as_table(ROWS, MIXED))[name][0], {b"content-type": kind})
    assert without.entities == [None] * 3
    inner = Tables(MIXED, "town").decode(forms(as_table(ROWS, MIXED))[name][0], {b"content-type": kind})
    assert inner.entities == ["Köln", "x", "y"]
    with pytest.raises(SchemaMismatch, match="does not know"):
        read(body, kind)


@pytest.mark.parametrize(
    "kind", [b"", b"application/json", b"text/csv; charset=latin-1", b"text/csv;charset=\xff"]
)
def test_other_content_types_are_refused(kind: bytes) -> None:
    """What is no table, or not in UTF-8, is refused with what is valid."""
    with pytest.raises(WrongType) as caught:
        read(b"a,b,c\n1,2,3\n", kind, NUMBERS)
    assert caught.value.http_status == 415
    assert read(b"a,b,c\n1,2,3\n", b"Text/CSV ; Charset=UTF-8; header=present", NUMBERS)["c"].tolist() == [
        3.0
    ]


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (b"", b"application/json"),
        (b"*/*", b"application/json"),
        (b"text/csv", CSV),
        (b"text/*;q=0.5, */*;q=0.1", CSV),
        (b"application/json;q=0.2, application/vnd.apache.parquet", PARQUET),
        (b"text/csv;q=0, application/xml", b"application/json"),
        (b"text/csv;q=x;;,\xff", b"application/json"),
    ],
)
def test_the_form_of_the_reply_is_what_is_accepted(accept: bytes, wanted: bytes) -> None:
    """The best of what a caller accepts is taken, and JSON where it accepts nothing known."""
    assert accepted(accept) == wanted


@pytest.mark.parametrize("signature", [MIXED, NUMBERS, QUANTILES], ids=["classes", "numbers", "outputs"])
def test_answers_are_written_in_every_form(signature: Signature) -> None:
    """All forms have the same answers: ids, predictions, probabilities by class, model, version and variant."""
    codec, made = Tables(signature), answers(signature)
    row = {"a": [1.0, 2.0], "b": [None, 1.0], "c": [1.0, 2.0], "n": [1, 2]}
    source = (
        as_table(ROWS[:2], MIXED) if signature is MIXED else pa.table({k: row[k] for k in signature.names})
    )

    def reply(accept: bytes) -> bytes:
        asked = codec.decode(as_stream(source), {b"content-type": ARROW_STREAM, b"accept": accept})
        found = codec.encode(made, 1, asked)
        assert found.content_type == (accept or b"application/json")
        return found.body

    records = json.loads(reply(b""))["predictions"]
    assert [one["prediction_id"] for one in records] == ["id-1", "id-2"]
    assert [(one["version"], one["variant"]) for one in records] == [(4, "champion"), (5, "candidate")]
    flat = []
    for one in records:
        prediction = one.pop("prediction")
        shares = {
            f"probability_{label}": share for label, share in (one.pop("probability", None) or {}).items()
        }
        # In a table each output has a column; in JSON they are a list in the order of the signature.
        several = dict(zip(signature.outputs, prediction, strict=True)) if signature.outputs else {}
        flat.append(one | (several or {"prediction": prediction}) | shares)
    if signature.outputs:
        assert [flat[0][name] for name in signature.outputs] == made.prediction[1].tolist()
    for accept in (ARROW_STREAM, ARROW_FILE, PARQUET, CSV):
        body = reply(accept)
        if accept == ARROW_STREAM:
            table = pa.ipc.open_stream(body).read_all()
        elif accept == ARROW_FILE:
            table = pa.ipc.open_file(body).read_all()
        elif accept == PARQUET:
            table = pyarrow.parquet.read_table(io.BytesIO(body))
        else:
            table = pyarrow.csv.read_csv(io.BytesIO(body))
        assert table.to_pylist() == flat


def test_a_probability_that_is_not_given_is_missing() -> None:
    """A variant without probabilities leaves them out in JSON and empty in tables."""
    made = answers(MIXED)
    assert made.probability is not None
    made.probability[2] = np.nan
    codec = Tables(MIXED)
    headers = {b"content-type": PARQUET}
    body = as_parquet(as_table(ROWS, MIXED))
    records = json.loads(codec.encode(made, 0, codec.decode(body, headers)).body)["predictions"]
    assert "probability" not in records[2]
    table = codec.encode(made, 0, codec.decode(body, headers | {b"accept": CSV})).body
    assert pyarrow.csv.read_csv(io.BytesIO(table))["probability_yes"].to_pylist() == [0.75, 0.75, None]


BODIES = [*forms(as_table(ROWS, MIXED)).values()]


@pytest.mark.parametrize("at", range(len(BODIES)), ids=list(forms(as_table(ROWS, MIXED))))
@given(st.data())
@settings(max_examples=100, deadline=None)
def test_damaged_bodies_are_refused_and_nothing_else(at: int, data: st.DataObject) -> None:
    """Whatever is done to a body, it is read, or refused with an error that its sender can act on."""
    body, kind = BODIES[at]
    changed = data.draw(mutated([body]) | st.binary(max_size=60))
    clean(lambda: read(changed, kind))


def test_a_wrong_byte_anywhere_in_the_facts_of_a_parquet_file_ends_no_process() -> None:
    """Each byte of the footer may be another: the file is read or refused, and pyarrow does not abort."""
    signature = Signature((Column("a", "double"), Column("t", "string")), Task.regression)
    body = as_parquet(pa.table({"a": [1.0, 2.0], "t": ["x", "y"]}), store_schema=False)
    footer = int.from_bytes(body[-8:-4], "little") + 8
    for at in range(len(body) - footer, len(body)):
        for change in (0x01, 0x02, 0x10, 0xFF):
            changed = bytearray(body)
            changed[at] ^= change
            clean(lambda sent=changed: read(bytes(sent), PARQUET, signature))
