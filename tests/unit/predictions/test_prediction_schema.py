"""The layout of tails and the table: every type, missing values, wrong columns."""

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from prediction_rows import FLOWERS, project_in, rows

from loopwright.config import Project
from loopwright.errors import SchemaMismatch
from loopwright.predictions import Layout, prediction_kind, table_schema
from loopwright.records import Column, ColumnType, Signature, Task

NAN = float("nan")
DAY = dt.datetime.fromisoformat("2026-01-31T12:00")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a new project."""
    return project_in(tmp_path)


def _through(project: Project, signature: Signature, n: int, **changes: Any) -> Any:
    """Return rows as a table after the way into a tail and out of it."""
    layout = Layout.of("api", "iris", signature)
    stream = layout.tail_schema.serialize().to_pybytes() + layout.encode(rows(project, n, **changes))
    reader = pa.ipc.open_stream(stream)
    batch = reader.read_next_batch()
    batch.validate(full=True)
    assert Layout.read(reader.schema) == layout
    table = layout.expand(batch)
    table.validate(full=True)
    return table


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        ("double", np.array([1.5, NAN, -2.0]), [1.5, None, -2.0]),
        ("double", np.array([1, 2, 3]), [1.0, 2.0, 3.0]),
        ("double", np.array([1.5, None, 2], object), [1.5, None, 2.0]),
        ("float", np.array([1.5, NAN, 2.0], np.float32), [1.5, None, 2.0]),
        ("long", np.array([1, -2, 2**53 + 1]), [1, -2, 2**53 + 1]),
        ("long", np.array([1.0, NAN, 3.0]), [1, None, 3]),
        ("long", np.array([1, None, 2**60], object), [1, None, 2**60]),
        ("integer", np.array([1, -2, 3], np.int32), [1, -2, 3]),
        ("integer", np.array([1.0, NAN, 3.0]), [1, None, 3]),
        ("boolean", np.array([True, False, True]), [True, False, True]),
        ("boolean", np.array([True, None, False], object), [True, None, False]),
        ("datetime", np.array([DAY, "NaT", DAY], "datetime64[us]"), [DAY, None, DAY]),
        ("datetime", np.array([DAY, None, DAY], object), [DAY, None, DAY]),
        ("string", np.array(["a", None, "grün \udcff"], object), ["a", None, "grün ?"]),
        ("string", np.array(["a", NAN, ""], object), ["a", None, ""]),
        ("string", np.array([1, 2.5, "x"], object), ["1", "2.5", "x"]),
    ],
)
def test_inputs_come_back_with_their_type(
    project: Project, kind: ColumnType, given: Any, expected: list[Any]
) -> None:
    """Each type of input comes back as it was, and NaN, NaT and None come back as null."""
    signature = Signature((Column("size", kind, required=False),), Task.regression)
    table = _through(project, signature, 3, inputs={"size": given}, prediction=np.zeros(3))
    assert table.schema.equals(table_schema((("size", kind),)))
    assert table.column("input_size").to_pylist() == expected


def test_an_input_that_was_not_given_is_null_and_one_too_many_is_left_out(project: Project) -> None:
    """Rows may lack an optional input, and an input that the signature does not name is not logged."""
    table = _through(project, FLOWERS, 2, inputs={"petal": np.array([1.0, 2.0]), "extra": np.zeros(2)})
    assert table.column("input_petal").to_pylist() == [1.0, 2.0]
    assert table.column("input_sepal").to_pylist() == [None, None]
    assert table.column("input_colour").to_pylist() == [None, None]
    assert "input_extra" not in table.schema.names


@pytest.mark.parametrize(
    ("classes", "given", "kind"),
    [
        ((0, 1), np.array([1, 0]), pa.int64()),
        ((False, True), np.array([True, False]), pa.bool_()),
        (("no", "yes"), np.array(["yes", "no"], object), pa.string()),
        ((0.5, 1), np.array([0.5, 1.0]), pa.float64()),
    ],
)
def test_predictions_keep_the_type_of_their_class(
    project: Project, classes: tuple[Any, ...], given: Any, kind: Any
) -> None:
    """A class label is stored as a boolean, a whole number, a number or text, as the model has it."""
    signature = Signature((Column("petal", "double"),), Task.classification, "y", classes)
    table = _through(project, signature, 2, prediction=given)
    assert table.column("prediction").type == kind
    assert table.column("prediction").to_pylist() == given.tolist()
    assert prediction_kind(Signature((), Task.regression)) == "double"


def test_rows_without_probabilities_or_inputs_are_fine(project: Project) -> None:
    """A model may give no probabilities, take no numbers, and rows may have request ids."""
    signature = Signature((Column("colour", "string"),), Task.regression)
    table = _through(
        project, signature, 2, prediction=np.array([1.0, 2.0]), probability=None, request_id=["r", "s"]
    )
    assert table.column("probability").to_pylist() == [None, None]
    assert table.column("request_id").to_pylist() == ["r", "s"]
    assert table.column("deployment").to_pylist() == ["api", "api"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inputs": {"petal": np.zeros(1)}}, "petal has 1 values for 2"),
        ({"inputs": {"petal": np.array(["big", "small"], object)}}, "'petal' holds 'big', 'small'"),
        ({"propensity": np.zeros(1)}, "propensity has 1 values"),
        ({"variant": ["champion"]}, "variant has 1 values"),
        ({"prediction": np.array(["a", "b"], object)}, "prediction cannot be logged as int64"),
        ({"probability": np.zeros(2)}, "probability has the shape"),
    ],
)
def test_columns_that_do_not_fit_are_refused(project: Project, changes: dict[str, Any], said: str) -> None:
    """A column of the wrong length or type is named instead of being stretched or stored wrongly."""
    with pytest.raises(SchemaMismatch, match=said):
        _through(project, FLOWERS, 2, **changes)
