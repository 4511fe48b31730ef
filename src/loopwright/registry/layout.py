"""How rows become exactly what an estimator was fitted on: a DataFrame with its own column types, or a matrix.

A signature says what callers send; it forgets that text was a category with five values, or that missing text was NaN
and not None. Estimators notice both, so the layout of the training table is kept beside the signature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from loopwright.errors import SchemaMismatch
from loopwright.records import Scalar, Signature

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["Field", "Layout", "layout_of", "plain_layout"]


@dataclass(frozen=True, slots=True)
class Field:
    """One column as it was in the training table: its pandas type, and for a category its values in order."""

    name: str
    dtype: str
    categories: tuple[Scalar, ...] = ()
    ordered: bool = False
    missing: Literal["none", "nan"] = "nan"


@dataclass(frozen=True, slots=True)
class Layout:
    """What an estimator is called with: a `frame` of these fields in this order, or a `matrix` of them."""

    container: Literal["frame", "matrix"]
    fields: tuple[Field, ...]

    @property
    def numeric(self) -> bool:
        """Whether every column is a number or a boolean."""
        return all(field.dtype.startswith(("int", "uint", "float", "bool")) for field in self.fields)

    def rows(self, columns: Mapping[str, NDArray[Any]]) -> pd.DataFrame | NDArray[Any]:
        """Return the rows of `columns`, arrays of shape (n,), in the form the estimator was fitted on."""
        if self.container == "frame":
            import pandas as pd

            return pd.DataFrame({field.name: _series(field, columns[field.name]) for field in self.fields})
        count = len(columns[self.fields[0].name])
        matrix = np.empty((count, len(self.fields)), dtype=np.float64 if self.numeric else object)
        for position, field in enumerate(self.fields):
            matrix[:, position] = _marked(field, columns[field.name])
        return matrix


def _marked(field: Field, values: NDArray[Any]) -> NDArray[Any]:
    """Write missing text as the training table wrote it."""
    if values.dtype != object or field.missing == "none":
        return values
    return np.array([np.nan if value is None else value for value in values], dtype=object)


#: How pandas 3 calls its own type of text.
_TEXT_TYPE: Any = "str"


def _series(field: Field, values: NDArray[Any]) -> Any:
    import pandas as pd

    if field.dtype == "category":
        return pd.Categorical(values, categories=list(field.categories), ordered=field.ordered)
    if field.dtype == "object":
        # Given an array of objects that are all text, pandas 3 would make a column of its own text type.
        return pd.Series(_marked(field, values), dtype=object)
    if field.dtype == "str" and values.dtype == object:
        # Six times as quick as by way of a series, and a single row pays it for each column.
        return pd.array(values, dtype=_TEXT_TYPE)
    if str(values.dtype) == field.dtype:
        return values
    _refuse_overflow(field, values)
    series: Any = pd.Series(values)
    return series.astype(field.dtype)


def _refuse_overflow(field: Field, values: NDArray[Any]) -> None:
    """Refuse numbers that the type of the training table cannot hold: NumPy would make others of them.

    A signature says only whether numbers are whole: a column of 32 bits is declared with 64.

    Raises
    ------
    InvalidInput
        A value is out of range; the first one, with its row.
    """
    try:
        wanted = np.dtype(field.dtype)
    except TypeError:
        return  # a type of pandas' own, which checks by itself
    if values.dtype.kind not in "iuf" or wanted.kind not in "iuf":
        return
    limits: Any = np.finfo(wanted) if wanted.kind == "f" else np.iinfo(wanted)
    with np.errstate(invalid="ignore"):
        wrong = (values < limits.min) | (values > limits.max)
    if values.dtype.kind == "f":
        wrong &= np.isfinite(values)
    if wrong.any():
        row = int(wrong.argmax())
        raise SchemaMismatch(
            f"Row {row}, field {field.name!r}: {values[row]} is out of range.",
            valid=f"The model was trained on {field.dtype}: {limits.min:g} to {limits.max:g}.",
            field=field.name,
            row=row,
        )


def layout_of(frame: pd.DataFrame, names: tuple[str, ...], container: Literal["frame", "matrix"]) -> Layout:
    """Read the layout off a training table."""
    return Layout(container, tuple(_field(frame[name]) for name in names))


def _field(series: pd.Series[Any]) -> Field:
    import pandas as pd

    name, dtype = str(series.name), str(series.dtype)
    if isinstance(series.dtype, pd.CategoricalDtype):
        values = tuple(value.item() if hasattr(value, "item") else value for value in series.dtype.categories)
        return Field(name, "category", values, bool(series.dtype.ordered))
    if dtype == "object" and any(value is None for value in series):
        return Field(name, dtype, missing="none")
    return Field(name, dtype)


def plain_layout(signature: Signature, container: Literal["frame", "matrix"]) -> Layout:
    """Return the layout of a model whose training table is unknown: the plain type of each column."""
    types = {
        "boolean": "bool",
        "integer": "int32",
        "long": "int64",
        "float": "float32",
        "double": "float64",
        "string": "object",
        "datetime": "datetime64[us]",
    }
    return Layout(
        container,
        tuple(Field(column.name, types[column.type], missing="none") for column in signature.inputs),
    )
