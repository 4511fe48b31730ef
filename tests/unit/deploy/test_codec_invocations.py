"""Scoring requests as MLflow's own client writes them, to typed columns; and replies as that client reads them."""

import json
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import numpy as np
import pandas as pd
import pytest
from codec_rows import (
    MIXED,
    NUMBERS,
    QUANTILES,
    answers,
    as_csv,
    as_json,
    as_parquet,
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
from mlflow.deployments import PredictionsResponse
from mlflow.utils.proto_json_utils import dump_input_data

from loopwright.deploy.online.codecs import invocations
from loopwright.deploy.online.codecs.base import Asked
from loopwright.deploy.online.codecs.invocations import FORMS, Invocations
from loopwright.deploy.online.wire import WrongType
from loopwright.errors import InvalidInput, SchemaMismatch
from loopwright.records import Column, Signature, Task

JSON = {b"content-type": b"application/json"}
ROWS: list[dict[str, Any]] = [
    {"petal length (cm)": 1.5, "b.c": 2, "class": True, "town": "Köln", "flag": True, "f": 0.5},
    {
        "petal length (cm)": 2,
        "b.c": -3,
        "class": False,
        "town": "x",
        "at": "2026-01-31T12:00:00Z",
        "small": 4,
    },
]


def ask(body: Any, signature: Signature = NUMBERS, entity: str | None = None) -> Asked:
    """Return what a body asks."""
    sent = (
        body
        if isinstance(body, bytes)
        else body.encode()
        if isinstance(body, str)
        else json.dumps(body).encode()
    )
    return Invocations(signature, entity).decode(sent, JSON)


def read(body: Any, signature: Signature = NUMBERS, entity: str | None = None) -> dict[str, Any]:
    """Return the columns of a body."""
    return columns_of(ask(body, signature, entity), signature, entity)


def forms(rows: list[dict[str, Any]], signature: Signature) -> dict[str, Any]:
    """Return rows in every form of JSON that has a place for each value."""
    names = list(signature.names)
    full = [{name: row.get(name) for name in names} for row in rows]
    lists = [[row[name] for name in names] for row in full]
    turned = names[::-1]
    return {
        "split": {"dataframe_split": {"columns": names, "data": lists, "index": list(range(len(rows)))}},
        "split, other order": {
            "dataframe_split": {"columns": turned, "data": [[row[name] for name in turned] for row in full]}
        },
        "split, by number": {"dataframe_split": {"columns": list(range(len(names))), "data": lists}},
        "split, without names": {"dataframe_split": {"data": lists}},
        "records": {"dataframe_records": full},
        "records, short": {
            "dataframe_records": [{k: v for k, v in row.items() if v is not None} for row in full]
        },
        "instances, records": {"instances": full},
        "instances, lists": {"instances": lists},
        "inputs, records": {"inputs": full},
        "inputs, lists": {"inputs": lists},
        "inputs, columns": {"inputs": {name: [row[name] for row in full] for name in names}},
        "inputs, matrices": {"inputs": {name: [[row[name]] for row in full] for name in names}},
        "instances, columns": {
            "instances": {name: [row[name] for row in full] for name in names},
            "params": {},
        },
    }


@given(rows_of(MIXED))
@settings(max_examples=60, deadline=None)
def test_every_form_gives_the_columns_of_json_records(rows: list[dict[str, Any]]) -> None:
    """The same rows give the same columns, of the same types, whatever form they come in."""
    wanted = by_records(rows, MIXED)
    for name, body in forms(rows, MIXED).items():
        asked = ask(as_json(body), MIXED)
        assert asked.n == len(rows), name
        same(columns_of(asked, MIXED), wanted)
    table = as_table(rows, MIXED)
    for kind, body in ((b"text/csv", as_csv(table)), (b"application/vnd.apache.parquet", as_parquet(table))):
        asked = Invocations(MIXED).decode(body, {b"content-type": kind})
        same(columns_of(asked, MIXED), wanted)


def test_frames_are_read_as_mlflows_client_writes_them() -> None:
    """Its client writes NaN for what is missing, whole numbers with gaps as decimals, and times in ISO 8601."""
    rows = [
        {
            "petal length (cm)": 1.5,
            "b.c": 2,
            "class": True,
            "town": "a NaN",
            "at": None,
            "small": 3,
            "f": None,
        },
        {
            "petal length (cm)": 2.0,
            "b.c": 3,
            "class": False,
            "town": 'x"NaN',
            "at": datetime(2026, 1, 31, 10),  # noqa: DTZ001
            "small": None,
            "f": 0.5,
        },
    ]
    frame = pd.DataFrame(rows)
    frame["at"] = frame["at"].astype(object).where(frame["at"].notna(), None)
    body = dump_input_data(frame)
    assert "NaN," in body
    assert "3.0" in body
    same(read(body, MIXED), by_records(rows, MIXED))
    records = json.dumps(
        {"dataframe_records": json.loads(frame.to_json(orient="records", date_format="iso"))}
    )
    same(read(records, MIXED), by_records(rows, MIXED))
    same(
        read(json.dumps({"instances": json.loads(records)["dataframe_records"]}), MIXED),
        by_records(rows, MIXED),
    )


def test_csv_and_parquet_are_read_as_pandas_writes_them() -> None:
    """Without its index a frame's CSV is read; its Parquet is read with it."""
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [None, 0.5], "c": [3, 4]}, index=["x", "y"])
    for kind, body in (
        (b"text/csv; charset=utf-8", frame.to_csv(index=False).encode()),
        (b"application/vnd.apache.parquet", frame.to_parquet()),
    ):
        made = columns_of(Invocations(NUMBERS).decode(body, {b"content-type": kind}), NUMBERS)
        assert made["c"].tolist() == [3.0, 4.0]
        np.testing.assert_array_equal(made["b"], [np.nan, 0.5])
    with pytest.raises(SchemaMismatch, match="index=False") as caught:
        Invocations(NUMBERS).decode(frame.to_csv().encode(), {b"content-type": b"text/csv"})
    assert "index=False" in caught.value.hint


def test_arrays_are_read_as_mlflows_client_writes_them() -> None:
    """An array is a list of lists, taken by position; one column may come as a plain list."""
    values = np.array([[1.0, np.nan, 3.0], [4.0, 5.0, 6.0]])
    made = read(dump_input_data(values))
    assert made["a"].tolist() == [1.0, 4.0]
    np.testing.assert_array_equal(made["b"], [np.nan, 5.0])
    one = Signature((Column("a", "double"),), Task.regression)
    for body in ({"inputs": [1, 2.5]}, {"instances": [[1], [2.5]]}, {"inputs": {"a": [[1], [2.5]]}}):
        assert read(body, one)["a"].tolist() == [1.0, 2.5]
    assert read({"inputs": {"a": 1, "c": 2}})["c"].tolist() == [2.0]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "no rows"),
        ([[1, 2, 3]], "is a list"),
        ("5", "Expected `object`"),
        ({"instances": [[1, 2, 3]], "inputs": [[1, 2, 3]]}, "has instances, inputs"),
        ({"instance": [[1, 2, 3]]}, "Did you mean 'instances'"),
        ({"instances": []}, "no rows"),
        ({"instances": None}, "no rows"),
        ({"instances": 5}, "instances is 5"),
        ({"instances": "x"}, 'instances is "x"'),
        ({"inputs": {}}, "no column 'a'"),
        ({"inputs": {"a": [], "c": []}}, "no rows"),
        ({"inputs": {"a": [1], "c": [1, 2]}}, "'c' has 2 values"),
        ({"inputs": {"a": [1], "c": 5}}, "'c' has 5"),
        ({"inputs": {"a": [1], "cc": [1]}}, "Did you mean 'c'"),
        ({"inputs": [1, 2, 3]}, "a list of values, and the model has 3 inputs"),
        ({"inputs": [[1, 2, 3], [1, 2]]}, "Row 1 is .1,2., which has 2 values"),
        ({"inputs": [[1, 2, 3], 5]}, "Row 1 is 5, which is no list"),
        ({"inputs": [[1, 2, 3], [1, 2, "x"]]}, "Row 1, field 'c': \"x\" does not fit"),
        ({"inputs": [[1, 2, 3], [1, 2, None]]}, "Row 1, field 'c': missing"),
        ({"inputs": [[1, 2, [3]]]}, "Row 0, field 'c': .3. does not fit"),
        ({"inputs": [[]]}, "which has 0 values"),
        ({"dataframe_records": []}, "no records|no rows"),
        ({"dataframe_records": {"a": 1, "c": 2}}, "one record"),
        ({"dataframe_records": [5]}, "Row 0 is 5"),
        (
            {"dataframe_records": [{"a": 1, "c": 1}, {"a": 1, "cc": 1}]},
            "Row 1 has a field 'cc'.*Did you mean 'c'",
        ),
        ({"dataframe_records": [{"a": 1, "c": 1}, {"a": 1}]}, "Row 1 has no field 'c'"),
        (
            {"dataframe_records": [{"a": 1, "c": 1}, {"a": 1, "c": "x"}]},
            "Row 1, field 'c': \"x\" does not fit",
        ),
        ({"dataframe_split": {"columns": ["a", "c"], "data": [[1, 2], [3, True]]}}, "Row 1, field 'c': true"),
        ({"dataframe_split": {"columns": ["a", "c", "a"], "data": [[1, 2, 3]]}}, "'a' is there twice"),
        ({"dataframe_split": {"columns": ["a"], "data": [[1]]}}, "no column 'c'"),
        (
            {"dataframe_split": {"columns": ["a", "d"], "data": [[1, 2]]}},
            "'d', which the model does not know",
        ),
        ({"dataframe_split": {"columns": [["a"], None], "data": [[1, 2]]}}, "which the model does not know"),
        ({"dataframe_split": {"columns": ["a", "c"], "data": []}}, "no rows"),
        ({"dataframe_split": {"columns": ["a", "c"]}}, "missing required field `data`"),
        ({"dataframe_split": {"columns": ["a", "c"], "data": [[1, 2]], "indx": []}}, "Did you mean 'index'"),
        ({"dataframe_split": {"data": [[1, 2]]}}, "which has 2 values"),
        ({"dataframe_split": [1]}, "Expected `object`"),
        ({"inputs": [[1, 2, 3]], "params": {"treshold": 1}}, "'treshold' cannot be given"),
        ({"inputs": [[1, 2, 3]], "params": {"timeout_ms": -1}}, "'timeout_ms' is -1"),
        ({"inputs": [[1, 2, 3]], "params": 5}, "Expected `object"),
        ('{"inputs": [[1, 2, Infinity]]}', "not JSON"),
        ('{"inputs": [[1, 2, 1e999]]}', "out of range|infinity|not JSON|does not fit"),
        ('{"inputs": [[1, 2, 3]', "not JSON.*too early"),
        ("", "empty"),
        (b'{"inputs": "\xff"}', "UTF-8|not JSON"),
        ('{"inputs": ' + "[" * 200_000 + "]" * 200_000 + "}", "nested too deeply"),
        ('{"inputs": [' + "[" * 200_000, "nested too deeply|too early"),
    ],
)
def test_a_wrong_body_is_refused_with_the_reason(body: Any, message: str) -> None:
    """The message has the row, the field and the value where there are such, and what would be right."""
    with pytest.raises(InvalidInput, match=rf"(?s){message}") as caught:
        ask(body)
    assert caught.value.http_status < 500
    assert caught.value.valid or caught.value.hint


def test_text_that_says_nan_stays_text() -> None:
    """Only the number NaN is taken for a missing value, also behind escapes and where the body is long."""
    signature = Signature((Column("t", "string"), Column("x", "double", required=False)), Task.regression)
    texts = ["NaN", "[NaN,", 'a"NaN', "\\", "\\\\NaN", "", "ÄNaN"]
    made = read(json.dumps({"inputs": [[text, float("nan")] for text in texts]}), signature)
    assert made["t"].tolist() == texts
    assert np.isnan(made["x"]).all()
    with pytest.raises(InvalidInput):
        ask('{"inputs": [["' + '\\"' * 500_000 + "NaN", signature)


def test_who_a_row_is_about_comes_with_it() -> None:
    """A column of its own, an input, or params say whom a row is about."""
    rows: list[dict[str, Any]] = [
        {"a": 1, "c": 2, "user": 7},
        {"a": 1, "c": 2, "user": "x"},
        {"a": 1.5, "c": 2, "user": None},
    ]
    lists = {name: [row[name] for row in rows] for name in rows[0]}
    bodies: list[dict[str, Any]] = [
        {"dataframe_records": rows},
        {"inputs": lists},
        {"dataframe_split": {"columns": ["user", "a", "c"], "data": [[row["user"], 1, 2] for row in rows]}},
    ]
    for body in bodies:
        asked = ask(body, NUMBERS, "user")
        assert asked.entities == ["7", "x", None]
        assert len(columns_of(asked, NUMBERS, "user")["a"]) == 3
        assert ask(body | {"params": {"entity": "u"}}, NUMBERS, "user").entities == ["7", "x", "u"]
        with pytest.raises(SchemaMismatch, match="does not know"):
            ask(body)
    assert ask({"inputs": [[1, 2, 3]]}, NUMBERS, "user").entities == [None]
    assert ask({"inputs": [[1, 2, 3]]}, NUMBERS, "a").entities == ["1.0"]
    assert ask({"inputs": {"a": [1, 2], "c": [1, 2.0]}}, NUMBERS, "a").entities == ["1.0", "2.0"]
    assert ask({"inputs": [[1, 2, 3]]}).entities is None
    asked = ask({"inputs": [[1, 2, 3]], "params": {"entity": "u", "variant": "v", "timeout_ms": 5}})
    assert (asked.entities, asked.notes.variant, asked.notes.timeout_ms) == (["u"], "v", 5.0)
    for wrong in (
        {"inputs": {"a": [1], "c": [2], "user": [1.5]}},
        {"dataframe_records": [{"a": 1, "c": 2, "user": []}]},
    ):
        with pytest.raises(SchemaMismatch, match="user"):
            ask(wrong, NUMBERS, "user")


@pytest.mark.parametrize(
    "kind",
    [
        b"",
        b"text/plain",
        b"application/json; charset=latin-1",
        b"application/json; version=2",
        b"application/vnd.apache.arrow.stream",
        b"\xff;;=",
    ],
)
def test_content_types_are_those_of_mlflow(kind: bytes) -> None:
    """What MLflow's server refuses with 415 is refused here, too."""
    with pytest.raises(WrongType) as caught:
        Invocations(NUMBERS).decode(b'{"inputs": [[1, 2, 3]]}', {b"content-type": kind})
    assert caught.value.http_status == 415
    good = Invocations(NUMBERS).decode(
        b'{"inputs": [[1,2,3]]}', {b"content-type": b'Application/JSON;Charset="UTF-8"'}
    )
    assert good.n == 1


@pytest.mark.parametrize("signature", [MIXED, NUMBERS, QUANTILES], ids=["classes", "numbers", "outputs"])
def test_answers_are_read_by_mlflows_client(signature: Signature) -> None:
    """Its parser finds what `predict` gives, as a frame and as an array; the ids stand beside it and in a header."""
    made = answers(signature)
    reply = Invocations(signature).encode(made, 1, Asked(2))
    parsed = PredictionsResponse.from_json(reply.body.decode())
    wanted = made.prediction[1:].tolist()
    assert parsed["predictions"] == wanted
    assert parsed.get_predictions("ndarray").tolist() == wanted
    assert parsed.get_predictions().to_numpy().reshape(len(wanted), -1).tolist() == [
        one if isinstance(one, list) else [one] for one in wanted
    ]
    assert parsed["prediction_ids"] == ["id-1", "id-2"]
    assert dict(reply.headers) == {b"x-prediction-ids": b"id-1,id-2"}
    many = answers(signature, 65)
    assert Invocations(signature).encode(many, 0, Asked(65)).headers == []


def test_the_version_is_that_of_the_installed_mlflow() -> None:
    """Clients ask for MLflow's version and get it."""
    assert invocations.version() == metadata.version("mlflow")


def test_errors_look_like_mlflows() -> None:
    """An error has MLflow's code and message; programs find row and field beside it."""
    made = invocations.refused(SchemaMismatch("Row 3 is wrong.", valid="It is a number.", row=3))
    assert made == {"error_code": "BAD_REQUEST", "message": "Row 3 is wrong. It is a number.", "row": 3}


_ALL = [as_json(body) for body in forms(ROWS, MIXED).values()]


@given(mutated(_ALL) | st.binary(max_size=60))
@settings(max_examples=600, deadline=None)
def test_damaged_bodies_are_refused_and_nothing_else(body: bytes) -> None:
    """Whatever is done to a body, it is read, or refused with an error that its sender can act on."""
    clean(lambda: read(body, MIXED, "town"))


_PARTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abcnxy"), inner, max_size=3),
    max_leaves=12,
)


@given(
    st.sampled_from(FORMS),
    _PARTS | st.fixed_dictionaries({"data": _PARTS}, optional={"columns": _PARTS, "index": _PARTS}),
    st.none()
    | st.dictionaries(st.sampled_from(["entity", "variant", "timeout_ms", "x"]), _PARTS, max_size=2),
    st.sampled_from(
        [NUMBERS, QUANTILES, Signature((Column("a", "string", required=False),), Task.regression)]
    ),
    st.sampled_from([None, "x", "a"]),
)
@settings(max_examples=600, deadline=None)
def test_documents_of_any_content_are_refused_cleanly(
    form: str, content: Any, params: Any, signature: Signature, entity: str | None
) -> None:
    """Documents that look like scoring requests are read, or refused with an error that their sender can act on."""
    clean(lambda: read(json.dumps({form: content, "params": params}), signature, entity))


def test_times_far_away_are_refused_in_columns() -> None:
    """A time that leaves the years 1 to 9999 in UTC is refused with its row."""
    signature = Signature((Column("at", "datetime", required=False),), Task.regression)
    far = "0001-01-01T00:00:00+05:00"
    for body in (
        {"inputs": {"at": ["2026-01-01", far]}},
        {"inputs": [["2026-01-01T00:00:00Z"], [far]]},
        {"dataframe_records": [{"at": None}, {"at": far}]},
    ):
        with pytest.raises(SchemaMismatch, match=r"Row 1, field 'at'.*outside the years"):
            ask(body, signature)
    assert read({"inputs": {"at": [datetime(2026, 1, 1, tzinfo=UTC).isoformat()]}}, signature)["at"].size == 1
