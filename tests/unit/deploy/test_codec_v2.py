"""Inference requests of the Open Inference Protocol to typed columns, as NVIDIA's client writes and reads them."""

import json
import struct
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from codec_rows import (
    MIXED,
    NUMBERS,
    QUANTILES,
    answers,
    by_records,
    clean,
    columns_of,
    mutated,
    rows_of,
    same,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from loopwright.deploy.online.codecs import v2
from loopwright.deploy.online.codecs.base import Asked
from loopwright.deploy.online.codecs.v2 import LENGTH, Inference
from loopwright.errors import InvalidInput, LoopwrightError, NotFound, SchemaMismatch
from loopwright.records import Column, Signature, Task

triton = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
utils = pytest.importorskip("tritonclient.utils", reason="tritonclient is not installed")

DTYPES = {"double": "FP64", "float": "FP32", "long": "INT64", "integer": "INT32", "boolean": "BOOL"}


def tensor(name: str, values: NDArray[Any], datatype: str, *, binary: bool = True) -> Any:
    """Return an input as NVIDIA's client makes it."""
    made = triton.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def sent(
    inputs: list[Any], outputs: list[Any] | None = None, **options: Any
) -> tuple[bytes, dict[bytes, bytes]]:
    """Return the body and the headers of a request as NVIDIA's client makes them."""
    body, length = triton.InferenceServerClient.generate_request_body(inputs, outputs=outputs, **options)
    return body, {} if length is None else {LENGTH: b"%d" % length}


def read(inputs: list[Any], signature: Signature = NUMBERS, **options: Any) -> Asked:
    """Return what a request of NVIDIA's client asks."""
    return Inference(signature).decode(*sent(inputs, **options))


def plain(inputs: list[dict[str, Any]], signature: Signature = NUMBERS, **more: Any) -> dict[str, Any]:
    """Return the columns of a request that is JSON alone."""
    asked = Inference(signature).decode(json.dumps({"inputs": inputs} | more).encode(), {})
    return columns_of(asked, signature)


def matrix(data: Any, shape: list[int], datatype: str = "FP64", name: str = "X") -> list[dict[str, Any]]:
    """Return one input as JSON."""
    return [{"name": name, "shape": shape, "datatype": datatype, "data": data}]


def tensors(rows: list[dict[str, Any]], *, binary: bool, width: int | None) -> list[Any]:
    """Return rows of MIXED as one tensor for each input; one that is missing throughout is left out."""
    made = []
    for column in MIXED.inputs:
        values = [row[column.name] for row in rows]
        if all(value is None for value in values):
            continue
        if column.type == "datetime":
            array = np.array(
                [b"" if one is None else one.isoformat().encode() for one in values], dtype=object
            )
        elif column.type == "string":
            array = np.array([one.encode() for one in values], dtype=object)
        elif None in values:
            array = np.array(values, np.float32 if column.type == "float" else np.float64)
        else:
            array = np.array(values, by_records(rows, MIXED)[column.name].dtype)
            array = array.astype(bool) if column.type == "boolean" else array
        kind = "BYTES" if array.dtype == object else {"f8": "FP64", "f4": "FP32"}.get(array.dtype.str[1:])
        shaped = array.reshape(-1, 1) if width else array
        made.append(tensor(column.name, shaped, kind or DTYPES[column.type], binary=binary))
    return made


def sendable(rows: list[dict[str, Any]]) -> bool:
    """Whether no text or boolean is missing in some rows only, for which a tensor of NumPy has no value."""
    for column in MIXED.inputs:
        gaps = [row[column.name] is None for row in rows]
        if column.type in {"string", "boolean"} and any(gaps) and not all(gaps):
            return False
    return True


@given(rows_of(MIXED).filter(sendable), st.booleans(), st.sampled_from([None, 1]))
@settings(max_examples=120, deadline=None)
def test_tensors_give_the_columns_of_json_records(
    rows: list[dict[str, Any]], binary: bool, width: int | None
) -> None:
    """The same rows give the same columns, as JSON and as binary data, with shapes [n] and [n, 1]."""
    asked = read(tensors(rows, binary=binary, width=width), MIXED)
    same(columns_of(asked, MIXED), by_records(rows, MIXED))


@given(rows_of(MIXED))
@settings(max_examples=60, deadline=None)
def test_null_is_what_is_missing_in_json(rows: list[dict[str, Any]]) -> None:
    """In JSON every type has null, so that any rows can be sent."""
    inputs = [
        {
            "name": column.name,
            "shape": [len(rows)],
            "datatype": DTYPES.get(column.type, "BYTES"),
            "data": [
                value.isoformat() if isinstance(value, datetime) else value
                for value in (row[column.name] for row in rows)
            ],
        }
        for column in MIXED.inputs
    ]
    same(plain(inputs, MIXED), by_records(rows, MIXED))


@pytest.mark.parametrize("name", ["X", "input", "input-0", "a"])
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("dtype", ["FP64", "FP32", "INT32", "INT8", "UINT16", "FP16"])
def test_one_table_of_numbers_holds_all_inputs(name: str, binary: bool, dtype: str) -> None:
    """One tensor of shape [n, k] under any name is the inputs in their order; smaller numbers become wider."""
    values = np.array([[1, 2, 3], [4, 5, 6]], utils.triton_to_np_dtype(dtype))
    made = columns_of(read([tensor(name, values, dtype, binary=binary)]), NUMBERS)
    assert {name: one.tolist() for name, one in made.items()} == {"a": [1, 4], "b": [2, 5], "c": [3, 6]}
    assert {one.dtype.str for one in made.values()} == {"<f8"}


def test_json_data_is_flat_or_nested() -> None:
    """A table's data is one list, or a list of rows; nan and null are missing values."""
    wanted = {"a": [1, 4], "b": [2, 5], "c": [3, 6]}
    for data in ([1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5.0, 6]]):
        made = plain(matrix(data, [2, 3]))
        assert {name: values.tolist() for name, values in made.items()} == wanted
    gaps = plain(matrix([1, float("nan"), 3, 4, None, 6], [2, 3]))
    assert np.isnan(gaps["b"]).all()
    whole = plain(matrix([[1, 2], [3, 4]], [2, 2]), QUANTILES)
    assert (whole["n"].dtype.str, whole["n"].tolist()) == ("<i8", [2, 4])


def test_times_are_text_or_microseconds() -> None:
    """A time is ISO 8601 text, or a count of microseconds since 1970 UTC."""
    signature = Signature((Column("at", "datetime", required=False),), Task.regression)
    wanted = [datetime(2026, 1, 31, 10), None]  # noqa: DTZ001
    text = np.array([b"2026-01-31T12:00:00+02:00", b""], dtype=object)
    ticks = np.array([1_769_853_600_000_000, np.iinfo(np.int64).min])
    for one in (tensor("at", text, "BYTES"), tensor("at", ticks, "INT64")):
        made = columns_of(read([one], signature), signature)["at"]
        assert made.tolist() == wanted
    with pytest.raises(SchemaMismatch, match=r"Row 1.*outside the years"):
        read([tensor("at", np.array([0, 2**60]), "INT64")], signature)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "no inputs"),
        (matrix([], [0, 3]), "no rows"),
        (matrix([1.0, 2.0], [1, 2]), "a table of 2 columns, and the model has 3 inputs"),
        (matrix([1.0, 2.0], [1, 3]), "2 elements.*should have 3"),
        (matrix([[1.0, 2.0], [1.0]], [2, 2]), "Row 1 of tensor 'X' has 1 elements"),
        (matrix([1, 2, 3], [3], name="aa"), "'aa', which the model does not know.*Did you mean 'a'"),
        (matrix([1, 2, 3], [3], name="a"), "There is no tensor 'c'"),
        (matrix([1, 2, 3], [3], name="a") * 2, "'a' is there twice"),
        (matrix([1], [1, 1, 1]), r"shape \[1,1,1\]"),
        (matrix([1], [-1, 3]), r"shape \[-1,3\]"),
        (matrix([1], [2**62, 3]), "shape"),
        (matrix([1], [10**11, 3]), "should have 300000000000"),
        (matrix([1, 2, 3], [1, 3], "FP65"), "datatype 'FP65'.*Did you mean 'FP64'"),
        (matrix([1, 2, 3], [1, 3], "BF16"), "datatype 'BF16'"),
        (matrix(["1", "2", "3"], [1, 3]), "does not fit FP64: Expected `float \\| null`, got `str`"),
        (matrix([1, 2, 300], [1, 3], "UINT8"), "does not fit UINT8"),
        (matrix([1, -2, 3], [1, 3], "UINT64"), "does not fit UINT64"),
        (matrix([1, 2**65, 3], [1, 3], "UINT64"), "UINT64"),
        (matrix([1, 2, 1e39], [1, 3], "FP32"), "does not fit FP32"),
        (matrix([1, 2, 1e5], [1, 3], "FP16"), "does not fit FP16"),
        (matrix([1, 2, None], [1, 3]), "Row 0, field 'c': missing"),
        (matrix([1, 2, 2**53 + 1], [1, 3], "INT64"), "Row 0, field 'c': 9007199254740993 has more digits"),
        (matrix(["x", "y", "z"], [1, 3], "BYTES"), "BYTES cannot become"),
        (matrix([True, True, False], [1, 3], "BOOL"), "BOOL cannot become one without loss"),
        ([{"name": "X", "shape": [1, 3], "datatype": "FP64"}], "no data"),
        (
            [{"name": "X", "shape": [1, 3], "datatype": "FP64", "parameters": {"binary_data_size": 24}}],
            "0 bytes of",
        ),
        ([{"name": "X", "shape": "1"}], r"Expected `array`, got `str` - at `\$.inputs\[0\].shape`"),
    ],
)
def test_a_wrong_tensor_is_named(inputs: list[dict[str, Any]], message: str) -> None:
    """The message names the tensor, the row where there is one, and what would be right."""
    with pytest.raises(InvalidInput, match=rf"(?s){message}"):
        plain(inputs)


def test_lossy_types_are_refused() -> None:
    """No value is rounded in silence: 64-bit decimals for 32-bit ones, decimals for whole numbers, large numbers."""
    narrow = Signature((Column("f", "float"), Column("i", "integer")), Task.regression)
    with pytest.raises(SchemaMismatch, match="FP64 cannot become one without loss"):
        read([tensor("f", np.ones(2), "FP64"), tensor("i", np.ones(2, np.int32), "INT32")], narrow)
    one = tensor("f", np.ones(2, np.float32), "FP32")
    with pytest.raises(SchemaMismatch, match=r"Row 1, field 'i': 2\.5 does not fit"):
        read([one, tensor("i", np.array([2.0, 2.5]), "FP64")], narrow)
    with pytest.raises(SchemaMismatch, match="Row 1, field 'i': 2147483648 does not fit"):
        read([one, tensor("i", np.array([2, 2**31]), "INT64")], narrow)
    made = columns_of(read([one, tensor("i", np.array([2.0, 3.0]), "FP64")], narrow), narrow)
    assert (made["i"].dtype.str, made["i"].tolist()) == ("<i4", [2, 3])


@pytest.mark.parametrize("value", [np.inf, -np.inf])
@pytest.mark.parametrize("binary", [True, False])
def test_infinity_is_refused(value: float, binary: bool) -> None:
    """Infinity is refused also where the form could carry it."""
    values = np.array([[1.0, 2.0, 3.0], [1.0, value, 3.0]])
    with pytest.raises(
        InvalidInput, match="Row 1, field 'b': infinity" if binary else "Infinity|not JSON|fit"
    ):
        read([tensor("X", values, "FP64", binary=binary)])


def test_a_missing_number_is_nan_where_it_may_be() -> None:
    """NaN is a missing value of an input that may be missing, and an error elsewhere, with its row."""
    values = np.array([[1.0, 2.0, 3.0], [1.0, np.nan, 3.0]])
    for binary in (True, False):
        assert np.isnan(columns_of(read([tensor("X", values, "FP64", binary=binary)]), NUMBERS)["b"][1])
        with pytest.raises(SchemaMismatch, match="Row 1, field 'a': missing"):
            read([tensor("X", values[:, [1, 0, 2]], "FP64", binary=binary)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda body, length: (body[:-1], length), "7 bytes of binary data are left"),
        (lambda body, length: (body + b"x", length), "1 bytes of binary data belong to no tensor"),
        (lambda body, length: (body, b"0"), "header inference-header-content-length is '0'"),
        (lambda body, length: (body, b"-5"), "is '-5'"),
        (lambda body, length: (body, b"999999"), "is '999999'"),
        (lambda body, length: (body, b"9" * 5000), "is '999"),
        (lambda body, length: (body, b"\xff"), "is '.'"),
        (lambda body, length: (body, b"10"), "not JSON"),
        (lambda body, length: (body, None), "not JSON"),
    ],
)
def test_binary_data_is_as_long_as_it_says(change: Any, message: str) -> None:
    """Data that is cut off, too long, or begins elsewhere is refused."""
    body, headers = sent([tensor("a", np.ones(1), "FP64"), tensor("c", np.ones(1), "FP64")])
    body, length = change(body, headers[LENGTH])
    with pytest.raises(InvalidInput, match=message):
        Inference(NUMBERS).decode(body, {} if length is None else {LENGTH: length})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (struct.pack("<I", 5) + b"abc", "ends within element 0"),
        (struct.pack("<I", 2**32 - 1) + b"abc", "ends within element 0"),
        (b"abc", "should have at least 4 bytes"),
        (struct.pack("<I", 1) + b"abc", "2 bytes more"),
        (struct.pack("<I", 1) + b"\xff", "Element 0 of tensor 't' is not UTF-8"),
    ],
)
def test_binary_text_is_checked(data: bytes, message: str) -> None:
    """Lengths that lead nowhere and text that is not UTF-8 are refused."""
    header = json.dumps(
        {
            "inputs": [
                {
                    "name": "t",
                    "shape": [1],
                    "datatype": "BYTES",
                    "parameters": {"binary_data_size": len(data)},
                }
            ]
        }
    ).encode()
    codec = Inference(Signature((Column("t", "string"),), Task.regression))
    with pytest.raises(SchemaMismatch, match=message):
        codec.decode(header + data, {LENGTH: b"%d" % len(header)})


def test_requests_that_are_none_are_refused() -> None:
    """JSON of another kind, unknown fields, deep nesting and bytes that are no text are refused."""
    codec = Inference(NUMBERS)
    for body, message in (
        (b"", "empty"),
        (b"[]", "Expected `object`"),
        (b"{}", "missing required field `inputs`"),
        (b'{"inputs": [], "outptus": []}', "Did you mean 'outputs'"),
        (b'{"inputs": ' + b"[" * 100_000, "nested too deeply|ends too early|Expected"),
        (
            b'{"inputs": [{"name": "X", "shape": [1], "datatype": "FP64", "data": '
            + b"[" * 100_000
            + b"]" * 100_000,
            "deeply",
        ),
        (b'{"inputs": [{"name": "\xff"}]}', "UTF-8|not JSON"),
        (b'{"id": "\\ud800", "inputs": []}', "not JSON"),
        (b'{"id": 5, "inputs": []}', "Expected `str"),
    ):
        with pytest.raises(InvalidInput, match=message):
            codec.decode(body, {})


def test_what_a_request_asks_besides_goes_into_the_notes() -> None:
    """The id, the entity, the variant and the time to wait are read; those of NVIDIA's client, too."""
    one = [tensor("X", np.ones((2, 3)), "FP64")]
    asked = read(one, request_id="r-1", timeout=1500, parameters={"entity": "user-7", "variant": "candidate"})
    notes = asked.notes
    assert (notes.id, notes.entity, notes.variant, notes.timeout_ms) == ("r-1", "user-7", "candidate", 1.5)
    assert asked.entities == ["user-7"] * 2
    assert read(one, parameters={"timeout_ms": 20}).notes.timeout_ms == 20.0
    for wrong in (
        {"timeout_ms": 0},
        {"timeout_ms": True},
        {"entity": ""},
        {"variant": 1.5},
        {"entity": "x" * 300},
    ):
        with pytest.raises(InvalidInput, match="The parameter"):
            read(one, parameters=wrong)


def test_who_a_row_is_about_is_a_tensor() -> None:
    """The entity is a tensor of its own or one of the inputs; where it is empty, the request's parameter holds."""
    body = sent(
        [
            tensor("X", np.ones((3, 3)), "FP64"),
            tensor("user", np.array([b"a", b"", b"c"], dtype=object), "BYTES"),
        ],
        parameters={"entity": "u"},
    )
    assert Inference(NUMBERS, "user").decode(*body).entities == ["a", "u", "c"]
    numbers = sent([tensor("X", np.ones((2, 3)), "FP64"), tensor("user", np.array([7, 8]), "INT64")])
    assert Inference(NUMBERS, "user").decode(*numbers).entities == ["7", "8"]
    assert Inference(NUMBERS, "a").decode(*sent([tensor("X", np.ones((1, 3)), "FP64")])).entities == ["1.0"]
    assert Inference(NUMBERS).decode(*sent([tensor("X", np.ones((1, 3)), "FP64")])).entities is None
    short = sent([tensor("X", np.ones((2, 3)), "FP64"), tensor("user", np.array([7]), "INT64")])
    with pytest.raises(SchemaMismatch, match="There are 2 rows"):
        Inference(NUMBERS, "user").decode(*short)


def result(codec: Inference, asked: Asked, made: Any, at: int = 0) -> Any:
    """Return a reply as NVIDIA's client reads it."""
    reply = codec.encode(made, at, asked)
    length = dict(reply.headers).get(LENGTH)
    assert (reply.content_type == b"application/octet-stream") == (length is not None)
    return triton.InferResult.from_response_body(
        reply.body, header_length=None if length is None else int(length)
    )


@pytest.mark.parametrize("binary", [True, False])
def test_answers_are_read_by_nvidias_client(binary: bool) -> None:
    """Labels, probabilities and ids come out as NumPy arrays; the name is the deployment's, the version is text."""
    codec = Inference(MIXED, deployment="flower-api")
    outputs = [
        triton.InferRequestedOutput(name, binary_data=binary)
        for name in ("probability", "prediction", "prediction_id", "version", "variant")
    ]
    row = {"petal length (cm)": 1.0, "b.c": 2, "class": True, "town": "x"}
    inputs = tensors([dict.fromkeys(MIXED.names) | row] * 2, binary=True, width=None)
    asked = codec.decode(*sent(inputs, outputs, request_id="r-9"))
    found = result(codec, asked, answers(MIXED), 1)
    response = found.get_response()
    assert (response["model_name"], response["model_version"], response["id"]) == ("flower-api", "4", "r-9")
    assert response["parameters"] == {"versions": "4,5"}
    assert [one["name"] for one in response["outputs"]] == [one.name() for one in outputs]
    text = (lambda values: [one.decode() for one in values]) if binary else (lambda values: values.tolist())
    assert text(found.as_numpy("prediction")) == ["yes", "no"]
    assert text(found.as_numpy("prediction_id")) == ["id-1", "id-2"]
    assert text(found.as_numpy("variant")) == ["champion", "candidate"]
    assert found.as_numpy("probability").tolist() == [[0.25, 0.75]] * 2
    assert found.as_numpy("version").tolist() == [4, 5]


def test_without_outputs_all_come_in_the_form_that_is_asked_for() -> None:
    """NVIDIA's client asks for binary data then; plain JSON gets JSON. One version alone has no list of versions."""
    for signature, shape in ((NUMBERS, [2]), (QUANTILES, [2, 3])):
        codec = Inference(signature)
        values = np.ones((2, len(signature.inputs)))
        one = tensor("X", values, "FP64")
        found = result(codec, codec.decode(*sent([one])), answers(signature))
        prediction = found.as_numpy("prediction")
        np.testing.assert_array_equal(prediction, answers(signature).prediction[:2])
        assert list(prediction.shape) == shape
        assert [name["name"] for name in found.get_response()["outputs"]] == ["prediction_id", "prediction"]
        assert "parameters" not in found.get_response()
        body = json.dumps({"inputs": matrix(values.ravel().tolist(), list(values.shape))}).encode()
        reply = codec.encode(answers(signature), 0, codec.decode(body, {}))
        assert (
            json.loads(reply.body)["outputs"][1]["data"] == answers(signature).prediction[:2].ravel().tolist()
        )
        assert json.loads(reply.body)["model_name"] == "flowers"


@pytest.mark.parametrize(
    ("classes", "datatype", "first"),
    [
        ((0, 1), "INT64", 0),
        ((False, True), "BOOL", False),
        ((0.5, 1.5), "FP64", 0.5),
        ((1, "a"), "BYTES", "1"),
    ],
)
def test_labels_keep_their_type(classes: Any, datatype: str, first: Any) -> None:
    """Labels that are numbers or booleans are sent as such; a mixture is text."""
    signature = Signature(NUMBERS.inputs, Task.classification, classes=classes)
    codec = Inference(signature)
    asked = codec.decode(
        *sent(
            [tensor("X", np.ones((2, 3)), "FP64", binary=False)],
            [triton.InferRequestedOutput("prediction", binary_data=False)],
        )
    )
    found = result(codec, asked, answers(signature))
    output = found.get_output("prediction")
    assert (output["datatype"], output["data"][0], type(output["data"][0])) == (datatype, first, type(first))
    described = v2.metadata("d", signature, [1])["outputs"]
    assert next(one for one in described if one["name"] == "prediction")["datatype"] == datatype


def test_a_probability_that_a_variant_does_not_give() -> None:
    """Asked for by name it is NaN, else it is left out."""
    codec = Inference(MIXED)
    made = answers(MIXED)
    made.probability = None
    row = {"petal length (cm)": 1.0, "b.c": 2, "class": True, "town": "x"}
    inputs = tensors([dict.fromkeys(MIXED.names) | row] * 2, binary=True, width=None)
    asked = codec.decode(*sent(inputs, [triton.InferRequestedOutput("probability", binary_data=False)]))
    assert np.isnan(result(codec, asked, made).as_numpy("probability")).all()
    assert result(codec, codec.decode(*sent(inputs)), made).as_numpy("probability") is None


def test_outputs_that_are_not_there_are_refused() -> None:
    """An unknown output is named with the nearest; what this server cannot do for one is said."""
    one = [tensor("X", np.ones((2, 3)), "FP64")]
    with pytest.raises(InvalidInput, match="Did you mean 'prediction'"):
        read(one, outputs=[triton.InferRequestedOutput("predictions")])
    with pytest.raises(InvalidInput, match="no output 'probability'"):
        read(one, outputs=[triton.InferRequestedOutput("probability")])
    with pytest.raises(InvalidInput, match="'classification'"):
        read(one, outputs=[triton.InferRequestedOutput("prediction", class_count=2)])
    with pytest.raises(InvalidInput, match="asked for twice"):
        read(one, outputs=[triton.InferRequestedOutput("prediction")] * 2)


def test_the_metadata_says_what_is_taken_and_given() -> None:
    """The documents have the fields that the protocol names; what may be absent says so."""
    made = v2.metadata("flower-api", MIXED, [4, 5])
    assert (made["name"], made["versions"], made["platform"]) == ("flower-api", ["4", "5"], "loopwright")
    assert [one["name"] for one in made["inputs"]] == list(MIXED.names)
    by_name = {one["name"]: one for one in made["inputs"]}
    assert by_name["b.c"] == {"name": "b.c", "datatype": "INT64", "shape": [-1]}
    assert by_name["at"]["parameters"] == {"optional": True, "content_type": "datetime"}
    outputs = {one["name"]: one for one in made["outputs"]}
    assert outputs["probability"]["shape"] == [-1, 2]
    assert v2.metadata("d", QUANTILES, [1])["outputs"][1]["shape"] == [-1, 3]
    assert v2.server_metadata("loopwright", "0.1")["extensions"] == ["binary_tensor_data"]
    assert v2.server_live() == {"live": True}
    assert v2.server_ready(False)["ready"] is False
    assert v2.model_ready("d", True) == {"name": "d", "ready": True}


def test_errors_are_text_as_the_protocol_has_them() -> None:
    """NVIDIA's client shows the message; programs find row and field beside it."""
    error: LoopwrightError = SchemaMismatch("Row 3 is wrong.", valid="It is a number.", row=3, field="a")
    assert v2.refused(error) == {
        "error": "Row 3 is wrong. It is a number.",
        "code": "schema_mismatch",
        "row": 3,
        "field": "a",
    }
    assert v2.refused(NotFound("x"))["code"] == "not_found"


_ROWS = [
    {"petal length (cm)": 1.0, "b.c": 2, "class": True, "town": "x", "small": 3, "at": datetime(2026, 1, 1)},  # noqa: DTZ001
    {
        "petal length (cm)": 2.0,
        "b.c": 3,
        "class": False,
        "town": "yy",
        "small": 4,
        "at": datetime(2026, 1, 2),  # noqa: DTZ001
    },
]
_FULL = [dict.fromkeys(MIXED.names) | row for row in _ROWS]
BODIES = [sent(tensors(_FULL, binary=binary, width=None)) for binary in (True, False)]


@pytest.mark.parametrize("at", [0, 1], ids=["binary", "json"])
@given(st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_requests_are_refused_and_nothing_else(at: int, data: st.DataObject) -> None:
    """Whatever is done to a request, it is read, or refused with an error that its sender can act on."""
    body, headers = BODIES[at]
    changed = data.draw(mutated([body]) | st.binary(max_size=60))
    if data.draw(st.booleans()):
        headers = {LENGTH: data.draw(st.binary(max_size=4) | st.integers(-1, 2000).map(lambda n: b"%d" % n))}
    clean(lambda: columns_of(Inference(MIXED, "town").decode(changed, headers), MIXED))


_PARTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "name": st.sampled_from(["a", "b", "c", "n", "X"]),
                "shape": st.lists(st.integers(-1, 4), max_size=3),
                "datatype": st.sampled_from(["FP64", "INT64", "UINT64", "BOOL", "BYTES", "FP16", "?"]),
                "data": _PARTS,
            },
            optional={
                "parameters": st.dictionaries(st.sampled_from(["binary_data_size", "x"]), _PARTS, max_size=2)
            },
        ),
        max_size=4,
    ),
    st.dictionaries(
        st.sampled_from(["entity", "variant", "timeout_ms", "timeout", "binary_data_output"]), _PARTS
    ),
    st.sampled_from([NUMBERS, QUANTILES]),
)
@settings(max_examples=200, deadline=None)
def test_requests_of_the_right_form_and_any_content_are_refused_cleanly(
    inputs: Any, parameters: Any, signature: Signature
) -> None:
    """Documents that look like requests are read, or refused with an error that their sender can act on."""
    body = json.dumps({"inputs": inputs, "parameters": parameters}).encode()
    clean(lambda: Inference(signature).decode(body, {}))
