"""Numbers that the type of the training table cannot hold."""

import numpy as np
import pytest

from loopwright.errors import SchemaMismatch
from loopwright.registry.layout import Field, Layout


@pytest.mark.parametrize(
    ("dtype", "value"), [("int32", 2**40 + 5), ("int8", -129), ("uint8", -1), ("float32", 1e300)]
)
def test_a_number_out_of_range_is_refused_and_not_wrapped(dtype: str, value: float) -> None:
    """A column of 32 bits is declared with 64; what does not fit is named with its row, and never becomes another."""
    layout = Layout("frame", (Field("size", dtype),))
    with pytest.raises(SchemaMismatch, match=r"Row 1, field 'size': .* is out of range") as refused:
        layout.rows({"size": np.array([1, value])})
    assert refused.value.attrs == {"field": "size", "row": 1}


def test_what_fits_and_what_is_missing_goes_through() -> None:
    """Numbers at the ends of the range keep their value; infinity and NaN are what they are."""
    ends = np.array([-(2**31), 2**31 - 1])
    frame = Layout("frame", (Field("size", "int32"),)).rows({"size": ends})
    assert frame["size"].tolist() == ends.tolist()
    values = np.array([np.nan, np.inf, 3.4e38])
    frame = Layout("frame", (Field("size", "float32"),)).rows({"size": values})
    assert np.isnan(frame["size"][0])
    assert np.isinf(frame["size"][1])
    assert frame["size"][2] == np.float32(3.4e38)
