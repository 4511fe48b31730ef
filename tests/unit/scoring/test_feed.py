"""Columns as the matrices that compiled runtimes take."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from loopwright.errors import SchemaMismatch
from loopwright.records import Column
from loopwright.registry.blocks import Blocks, blocks_of
from loopwright.scoring.feed import SMALL, Codes, Numbers, Texts

INPUTS = (
    Column("a", "double"),
    Column("s", "string", required=False),
    Column("n", "long"),
    Column("b", "double", required=False),
    Column("f", "boolean"),
    Column("u", "boolean", required=False),
    Column("t", "string"),
)
NUMBERS = tuple(column for column in INPUTS if column.type != "string")
TEXTS = tuple(column for column in INPUTS if column.type == "string")


def columns() -> dict[str, NDArray[Any]]:
    """Return three rows of every kind of column."""
    return {
        "a": np.array([1.5, 2.5, 3.5]),
        "s": np.array(["p", None, "q"], dtype=object),
        "n": np.array([7, 8, 9]),
        "b": np.array([0.5, np.nan, -0.5]),
        "f": np.array([True, False, True]),
        "u": np.array([True, None, False], dtype=object),
        "t": np.array(["x", "y", "z"], dtype=object),
    }


def blocks(given: dict[str, NDArray[Any]]) -> Blocks:
    """Return columns as blocks."""
    return blocks_of(given, INPUTS, len(given["a"]))


def test_blocks_and_columns_make_the_same_matrix() -> None:
    """Numbers and booleans of all types go into one matrix in their order, whichever way they came."""
    expected = [[1.5, 7, 0.5, 1, 1], [2.5, 8, np.nan, 0, np.nan], [3.5, 9, -0.5, 1, 0]]
    for dtype in (np.float64, np.float32):
        feed = Numbers(NUMBERS, dtype)
        for given in (columns(), blocks(columns()), blocks(columns()).take(slice(0, 3))):
            made = feed.matrix(given, 3)
            np.testing.assert_array_equal(made, np.array(expected, dtype))
            assert made.flags.c_contiguous


def test_a_block_of_just_these_columns_goes_through_as_it_is() -> None:
    """A block with the right columns in the right type is not copied; one of another type is only cast."""
    inputs = (Column("a", "double"), Column("b", "double"))
    matrix = np.array([[1.0, 2.0]])
    given = Blocks(1, ((("a", "b"), matrix),), {})
    assert Numbers(inputs, np.float64).matrix(given, 1) is matrix
    assert Numbers(inputs, np.float32).matrix(given, 1).dtype == np.float32
    swapped = Numbers((inputs[1], inputs[0]), np.float64).matrix(given, 1)
    assert swapped.tolist() == [[2.0, 1.0]]


def test_rounded_numbers_pass_through_single_precision() -> None:
    """A forest's numbers are what single precision makes of them, in double precision."""
    made = Numbers((Column("a", "double"),), np.float64, rounded=True).matrix({"a": np.array([0.1])}, 1)
    assert made.tolist() == [[float(np.float32(0.1))]]


@pytest.mark.parametrize("rows", [1, 3, SMALL])
def test_a_gap_in_a_required_column_is_named(rows: int) -> None:
    """A gap is refused with its column and row where the model never saw one, and let through elsewhere."""
    given = {name: np.resize(values, rows) for name, values in columns().items()}
    feed = Numbers(NUMBERS, np.float64)
    given["b"] = np.full(rows, np.nan)
    feed.matrix(given, rows)
    feed.matrix(blocks(given), rows)
    given["a"] = given["a"].copy()
    given["a"][rows - 1] = np.nan
    for each in (given, blocks(given)):
        with pytest.raises(SchemaMismatch, match=f"'a' is missing in row {rows - 1}") as caught:
            feed.matrix(each, rows)
        assert caught.value.attrs == {"field": "a", "row": rows - 1}


def test_infinities_are_no_gaps() -> None:
    """Infinite and huge numbers, whose sums are no number, are values; nothing warns of them."""
    inputs = (Column("a", "double"), Column("b", "double"))
    given = {"a": np.array([np.inf, 1e300]), "b": np.array([-np.inf, -1e300])}
    assert Numbers(inputs, np.float64).matrix(given, 2).tolist() == [[np.inf, -np.inf], [1e300, -1e300]]
    small = {"a": np.array([3e38]), "b": np.array([-3e38])}
    assert np.isfinite(Numbers(inputs, np.float32).matrix(small, 1)).all()


def test_missing_text_gets_its_stand_in() -> None:
    """Missing text becomes what stood for it in training, where it may be missing; what was given is left alone."""
    feed = Texts(TEXTS, {"s": "nan"})
    for given in (columns(), blocks(columns())):
        assert feed.matrix(given, 3).tolist() == [["p", "x"], ["nan", "y"], ["q", "z"]]
        assert given["s"].tolist() == ["p", None, "q"]
    without = columns() | {"t": np.array(["x", None, "z"], dtype=object)}
    with pytest.raises(SchemaMismatch, match="'t' is missing in row 1"):
        feed.matrix(blocks(without), 3)


def test_categories_become_codes() -> None:
    """A value gets its place among the categories; another one, and a gap, count as missing."""
    inputs = (Column("s", "string", required=False), Column("a", "double"), Column("n", "long"))
    feed = Codes(inputs, np.float64, {"s": ("q", "p"), "n": (9, 7)})
    for given in (columns(), blocks(columns())):
        made = feed.matrix(given, 3)
        np.testing.assert_array_equal(made, [[1, 1.5, 1], [np.nan, 2.5, np.nan], [0, 3.5, 0]])
    required = Codes((Column("t", "string"),), np.float64, {"t": ("x",)})
    with pytest.raises(SchemaMismatch, match="'t' is missing in row 0"):
        required.matrix({"t": np.array([None], dtype=object)}, 1)


def test_an_absent_column_is_an_error() -> None:
    """Neither columns nor blocks without a column make a matrix."""
    feed = Numbers((Column("a", "double"), Column("z", "double")), np.float64)
    for given in (columns(), blocks(columns())):
        with pytest.raises(KeyError, match="z"):
            feed.matrix(given, 3)
