"""Request bodies to typed columns, and the reasons why a body cannot be used."""

import contextlib
import json
import math
import re
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopwright.deploy.online import labels
from loopwright.deploy.online.decode import Decoder
from loopwright.errors import InvalidInput, NotFound, SchemaMismatch
from loopwright.predictions import Ids
from loopwright.records import Column, Signature, Task

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
    ),
    Task.regression,
)
ROW: dict[str, Any] = {"petal length (cm)": 1, "b.c": 2, "class": True}
IDS = Ids(bytes(32))


def decode(body: Any, entity: str | None = None) -> Any:
    """Return the columns of a body."""
    decoder = Decoder(MIXED, entity)
    rows, _ = decoder.decode(body if isinstance(body, bytes) else json.dumps(body).encode())
    return decoder.columns(rows)


def test_one_record_and_a_list_are_told_apart() -> None:
    """A single record is answered singly, a list as a list, whatever space stands in front."""
    decoder = Decoder(MIXED)
    assert decoder.decode(json.dumps(ROW).encode())[1]
    rows, single = decoder.decode(b" \n" + json.dumps([ROW, ROW]).encode())
    assert (len(rows), single) == (2, False)


def test_columns_have_the_types_of_the_signature() -> None:
    """Each column is the array a scorer takes; names need not be identifiers."""
    full = {"s`$[0]": "ü", "at": "2026-01-31T12:00:00+02:00", "small": -3, "f": 0.5, "flag": False}
    made = decode([ROW | full, ROW | full])
    assert set(made) == set(MIXED.names)
    assert {name: values.dtype.str[1:] for name, values in made.items()} == {
        "petal length (cm)": "f8",
        "b.c": "i8",
        "s`$[0]": "O",
        "class": "b1",
        "at": "M8[us]",
        "small": "i4",
        "f": "f4",
        "flag": "O",
    }
    assert made["at"].tolist() == [datetime(2026, 1, 31, 10)] * 2  # noqa: DTZ001
    assert made["petal length (cm)"].tolist() == [1.0, 1.0]
    assert all(values.shape == (2,) for values in made.values())


def test_what_is_missing_is_missing_in_its_own_way() -> None:
    """Null and absence are the same: NaN in numbers, NaT in times, None in text and flags."""
    made = decode([ROW, ROW | dict.fromkeys(("s`$[0]", "at", "small", "f", "flag"))])
    assert np.isnan(made["small"]).all()
    assert np.isnan(made["f"]).all()
    assert np.isnat(made["at"]).all()
    assert made["s`$[0]"].tolist() == made["flag"].tolist() == [None, None]


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"b.c": "2"}, "b.c", '"2" does not fit'),
        ({"b.c": 2.5}, "b.c", "2.5 does not fit"),
        ({"b.c": 2**63}, "b.c", "does not fit"),
        ({"b.c": True}, "b.c", "true does not fit"),
        ({"b.c": None}, "b.c", "null, but the model was trained without missing values"),
        ({"petal length (cm)": "NaN"}, "petal length (cm)", '"NaN" does not fit'),
        ({"petal length (cm)": [1]}, "petal length (cm)", "does not fit"),
        ({"class": 1}, "class", "1 does not fit"),
        ({"small": 2**31}, "small", "does not fit"),
        ({"f": 1e300}, "f", "does not fit"),
        ({"at": "yesterday"}, "at", '"yesterday" does not fit'),
        ({"at": 12}, "at", "12 does not fit"),
        ({"s`$[0]": {}}, "s`$[0]", "{} does not fit"),
        ({"petal lenght (cm)": 1}, "petal lenght (cm)", "which the model does not know"),
    ],
)
def test_a_wrong_field_is_named_with_its_row(change: dict[str, Any], field: str, message: str) -> None:
    """The message has the row, the field and the value, and what would be right."""
    with pytest.raises(SchemaMismatch) as caught:
        decode([ROW, ROW, ROW | change])
    assert message in caught.value.fact
    assert caught.value.attrs == {"row": 2, "field": field}
    assert caught.value.valid


def test_an_unknown_field_is_guessed() -> None:
    """A typing error names the nearest field."""
    with pytest.raises(SchemaMismatch, match=r"Did you mean 'petal length \(cm\)'"):
        decode(ROW | {"petal lenght (cm)": 1})


def test_a_missing_field_is_named() -> None:
    """A required field that is absent is named with its type."""
    with pytest.raises(SchemaMismatch, match=r"Row 1 has no field 'b.c'.*whole number") as caught:
        decode([ROW, {"petal length (cm)": 1, "class": False}])
    assert caught.value.attrs == {"row": 1, "field": "b.c"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "is empty"),
        (b" \n ", "is empty"),
        (b"[]", "has no records"),
        (b"hello", "byte 0"),
        (b'{"b.c": NaN}', "not JSON: invalid character at byte 8"),
        (b'{"b.c": Infinity}', "byte 8"),
        (b'{"b.c": 1', "ends too early"),
        (b'{"b.c": 1} x', "trailing characters at byte 11"),
        (b"\xef\xbb\xbf{}", "byte 0"),
        (b'{"s`$[0]": "\xff"}', "not UTF-8"),
        (b'{"\xff": 1}', "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_what_is_not_json_says_where(body: bytes, message: str) -> None:
    """A body that cannot be read is refused with the place."""
    with pytest.raises(InvalidInput) as caught:
        decode(body)
    assert caught.value.http_status == 400
    assert message in caught.value.fact


@pytest.mark.parametrize("body", [b"3", b'"x"', b"null", b"[1]", b"[[]]", b"true"])
def test_json_that_is_no_record_is_refused(body: bytes) -> None:
    """A number, a text or a list of them is JSON and still no record."""
    with pytest.raises(SchemaMismatch, match="is no record"):
        decode(body)


def test_a_number_out_of_range_is_named() -> None:
    """1e999 is JSON and yet no number a model can take."""
    with pytest.raises(SchemaMismatch, match="out of range") as caught:
        decode(b'[{"petal length (cm)": 1e999, "b.c": 1, "class": true}]')
    assert caught.value.attrs == {"row": 0, "field": "petal length (cm)"}


def test_the_entity_may_be_an_input_or_come_beside_them() -> None:
    """The field that names the entity is read from each row; as an extra field it is no input."""
    body = json.dumps([ROW | {"user": "u1"}, ROW | {"user": 7}, ROW]).encode()
    decoder = Decoder(MIXED, "user")
    rows, _ = decoder.decode(body)
    assert decoder.entities(rows) == ["u1", "7", None]
    assert set(decoder.columns(rows)) == set(MIXED.names)
    inside = Decoder(MIXED, "b.c")
    assert inside.entities(inside.decode(json.dumps([ROW]).encode())[0]) == ["2"]
    assert Decoder(MIXED).entities(rows) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from([*MIXED.names, "other"])


@given(st.lists(st.dictionaries(FIELDS, JSON, max_size=9), max_size=3) | JSON)
def test_any_body_is_decoded_or_refused(value: Any) -> None:
    """Whatever is sent gives columns of finite length or an error of ours, never anything else."""
    body = json.dumps(value).encode()
    decoder = Decoder(MIXED)
    with contextlib.suppress(InvalidInput):
        rows, _ = decoder.decode(body)
        assert all(len(values) == len(rows) for values in decoder.columns(rows).values())


@given(st.binary(max_size=40))
def test_any_bytes_are_decoded_or_refused(body: bytes) -> None:
    """Bytes that are no JSON are refused as such."""
    with pytest.raises(InvalidInput):
        Decoder(MIXED).decode(body)


def test_labels_are_decoded() -> None:
    """One label or a list, with booleans, numbers and text."""
    first, second = IDS.new(2, 1_790_000_000_000_000)
    [one] = labels.decode(json.dumps({"prediction_id": first, "actual": 7}).encode(), IDS)
    assert (one.prediction_id, one.actual) == (first, 7)
    many = [{"prediction_id": first, "actual": True}, {"prediction_id": second, "actual": "anna"}]
    assert [label.actual for label in labels.decode(json.dumps(many).encode(), IDS)] == [True, "anna"]


@pytest.mark.parametrize(
    ("actual", "status"),
    [(None, 422), ([1], 422), ({}, 422), (math.nan, 400), (math.inf, 400)],
)
def test_an_actual_must_be_a_finite_scalar(actual: Any, status: int) -> None:
    """What is no label is refused with its row, and nothing of the request is kept."""
    [good] = IDS.new(1, 1_790_000_000_000_000)
    body = [{"prediction_id": good, "actual": 1}, {"prediction_id": good, "actual": actual}]
    with pytest.raises(InvalidInput) as caught:
        labels.decode(json.dumps(body).encode(), IDS)
    assert caught.value.http_status == status
    assert status == 400 or caught.value.attrs["row"] == 1


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        (b"", InvalidInput, "empty"),
        (b"[]", InvalidInput, "no labels"),
        (b'{"prediction_id": 3, "actual": 1}', SchemaMismatch, "its prediction_id is 3"),
        (b'{"prediction_id": "x"}', SchemaMismatch, "no field 'actual'"),
        (b'{"prediction_id": "x", "actul": 1}', SchemaMismatch, "did you mean 'actual'"),
        (b'{"prediction_id": "x", "actual": 1e999}', SchemaMismatch, "out of range"),
        (b'{"prediction_id": "x", "actual": 1}', NotFound, "Row 0: There is no prediction 'x'"),
        (b"7", SchemaMismatch, "it is 7"),
    ],
)
def test_a_wrong_label_is_named(body: bytes, error: type[Exception], message: str) -> None:
    """Each kind of wrong label has its own error."""
    with pytest.raises(error, match=message):
        labels.decode(body, IDS)


def test_labels_by_entity_are_decoded() -> None:
    """With a moment in any zone, and how much older the prediction may be in seconds or as text."""
    at = "2026-01-31T13:00:00+01:00"
    form = {"deployment": "api", "entity": "anna", "at": at, "actual": 7}
    bodies = [form, form | {"within": "2h"}, form | {"within": 90}]
    found = labels.decode(json.dumps(bodies).encode(), IDS)
    assert [one.within_s for one in found] == [86400.0, 7200.0, 90.0]
    assert {(one.prediction_id, one.deployment, one.entity, one.actual) for one in found} == {
        ("", "api", "anna", 7)
    }
    assert {one.at for one in found} == {datetime(2026, 1, 31, 12, tzinfo=UTC)}
    [first] = IDS.new(1, 1_790_000_000_000_000)
    [own] = labels.decode(json.dumps({"prediction_id": first, "actual": 1, "at": at}).encode(), IDS)
    assert own.at == datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"at": "2026-01-31T13:00:00"}, "Row 1: at is '2026-01-31T13:00:00', without a time zone"),
        ({"at": "noon"}, "Row 1: at is 'noon', which is no time"),
        ({"at": 7}, "Row 1 is no label: its at is 7"),
        ({"at": None}, "Row 1 is no label: its at is null"),
        ({"at": ""}, "Row 1: This is no label: it has no at"),
        ({"entity": ""}, "Row 1: This is no label: it has no entity"),
        ({"within": "long"}, "Row 1: within: 'long' is no duration"),
        ({"within": True}, "Row 1 is no label: its within is true"),
        ({"prediction_id": "x"}, "Row 1: There is no prediction 'x'"),
        ({"entitty": "b"}, "did you mean 'entity'"),
    ],
)
def test_a_wrong_label_by_entity_is_named(change: dict[str, Any], message: str) -> None:
    """Each mistake has its own words and its row."""
    form = {"deployment": "api", "entity": "anna", "at": "2026-01-31T13:00:00Z", "actual": 7}
    with pytest.raises((SchemaMismatch, NotFound), match=re.escape(message)) as caught:
        labels.decode(json.dumps([form, form | change]).encode(), IDS)
    assert caught.value.attrs["row"] == 1


def test_a_prediction_is_named_once() -> None:
    """An id and an entity could mean two."""
    [one] = IDS.new(1, 1_790_000_000_000_000)
    body = {
        "prediction_id": one,
        "deployment": "api",
        "entity": "a",
        "at": "2026-01-31T13:00:00Z",
        "actual": 7,
    }
    with pytest.raises(SchemaMismatch, match="names its prediction twice"):
        labels.decode(json.dumps(body).encode(), IDS)
