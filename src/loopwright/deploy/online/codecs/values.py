"""Values of any form to the typed arrays of a signature, and the errors for those that do not fit.

Every form comes down to one of two: a list of what JSON has for one column, or an array of another type.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from loopwright.deploy.online import faults
from loopwright.deploy.online.faults import FLOAT32, INT32, INT64, WORDS, shown
from loopwright.errors import InvalidInput, NotFound, SchemaMismatch, listing
from loopwright.records import Column, Signature
from loopwright.registry.blocks import Blocks, blocks_of
from loopwright.registry.columns import DTYPES, missing

__all__ = [
    "TYPES",
    "array_of",
    "blocks",
    "cast",
    "check_names",
    "entities_of",
    "far",
    "gap",
    "misfit",
    "no_rows",
    "packed",
    "shown",
    "too_far",
    "wrong_type",
]

#: What a JSON value of each column type is decoded as.
TYPES: dict[str, Any] = {
    "boolean": bool,
    "integer": Annotated[int, msgspec.Meta(ge=INT32[0], le=INT32[1])],
    "long": Annotated[int, msgspec.Meta(ge=INT64[0], le=INT64[1])],
    "float": Annotated[float, msgspec.Meta(ge=-FLOAT32, le=FLOAT32)],
    "double": float,
    "string": str,
    "datetime": datetime,
}
_LISTS: dict[str, Any] = {name: list[kind | None] for name, kind in TYPES.items()}  # type: ignore[valid-type]
#: Whole numbers up to here have a decimal of their own, by the decimals' type.
_EXACT = {"double": 2**53, "float": 2**24}
#: Microseconds since 1970 of the years 1 to 9999, which is what a `datetime` can be.
_FIRST_US = int(datetime(1, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
_LAST_US = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()) * 1_000_000 + 999_999


def no_rows() -> InvalidInput:
    """Return the error for a body without a row."""
    return InvalidInput("The body has no rows.", valid="Send at least one row.")


def misfit(column: Column, row: int, reason: str) -> SchemaMismatch:
    """Return the error for a value that does not fit its column."""
    return SchemaMismatch(
        f"Row {row}, field {column.name!r}: {reason}.",
        valid=f"It is {WORDS[column.type]}{'' if column.required else ', or missing'}.",
        row=row,
        field=column.name,
    )


def wrong_type(column: Column, kind: str, valid: str = "") -> SchemaMismatch:
    """Return the error for a column that is of a type whose values do not all fit."""
    return SchemaMismatch(
        f"The field {column.name!r} is {WORDS[column.type]} ({column.type}), and {kind} cannot become one without "
        "loss.",
        valid=valid,
        field=column.name,
    )


def gap(column: Column, row: int) -> SchemaMismatch:
    """Return the error for a value that is missing where none may be."""
    return misfit(column, row, "missing, but the model was trained without missing values there")


def check_names(names: Sequence[Any], signature: Signature, entity: str | None, what: str = "column") -> None:
    """Check the names of columns as they came.

    Raises
    ------
    SchemaMismatch
        A name is unknown, or there twice, or a required input is absent; the message has the nearest name.
    """
    known = [*signature.names, *([entity] if entity is not None and entity not in signature.names else [])]
    seen: set[str] = set()
    all_known = set(known)
    for name in names:
        text = str(name)[:100]
        if not isinstance(name, str) or name not in all_known:
            error = NotFound.among(what, text, known)
            hint = "Leave out the index: DataFrame.to_csv(..., index=False)." if name == "" else ""
            raise SchemaMismatch(
                f"There is a {what} {text!r}, which the model does not know.",
                valid=error.valid,
                hint=hint,
                field=text,
            )
        if name in seen:
            raise SchemaMismatch(f"The {what} {text!r} is there twice.", valid="Send it once.", field=text)
        seen.add(name)
    for column in signature.inputs:
        if column.required and column.name not in seen:
            listed = listing((f"{one.name} ({one.type})" for one in signature.inputs), most=20)
            raise SchemaMismatch(
                f"There is no {what} {column.name!r}.",
                valid=f"It is {WORDS[column.type]}. Inputs: {listed}.",
                field=column.name,
            )


def array_of(column: Column, values: list[Any]) -> NDArray[Any]:
    """Return what JSON has for one column as an array of shape (n,). None is missing.

    A whole number may be written as a decimal (``3.0``), and a time without its hours: tables are written so by pandas.

    Raises
    ------
    SchemaMismatch
        A value does not fit; the message names the row and the value.
    """
    kind = _LISTS[column.type]
    try:
        return packed(column, msgspec.convert(values, kind))
    except msgspec.ValidationError:
        lenient = _leniently(column, values)
    try:
        return packed(column, msgspec.convert(lenient, kind))
    except msgspec.ValidationError as error:
        row = faults.place(error)[0]
        raise misfit(column, row, f"{shown(values[row])} does not fit") from None


def _leniently(column: Column, values: list[Any]) -> list[Any]:
    """Return values with those put right that only tables write so; what does not fit stays as it is."""
    if column.type in {"integer", "long"}:
        return [int(one) if isinstance(one, float) and one.is_integer() else one for one in values]
    if column.type == "datetime":
        return [_moment(one) if isinstance(one, str) else one for one in values]
    return values


def _moment(text: str) -> datetime | str:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return text


def packed(column: Column, values: Sequence[Any]) -> NDArray[Any]:
    """Return checked values, None where one is missing, as an array of shape (n,).

    Raises
    ------
    SchemaMismatch
        One is missing where none may be.
    """
    kind = column.type
    if column.required and None in values:
        raise gap(column, list(values).index(None))
    if kind == "string" or (kind == "boolean" and not column.required):
        made = np.empty(len(values), dtype=object)
        made[:] = values
        return made
    if kind == "datetime":
        return _moments(column, values)
    # A whole number that is missing has no value of its own type.
    whole = kind in {"integer", "long"} and None in values
    return np.array(values, dtype=np.float64 if whole else DTYPES[kind])


def far(value: datetime | None) -> bool:
    """Return whether a time with an offset leaves the years 1 to 9999 in UTC."""
    if value is None or value.tzinfo is None or 1 < value.year < 9999:
        return False
    try:
        value.astimezone(UTC)
    except OverflowError:
        return True
    return False


def too_far(column: Column, row: int, value: datetime) -> SchemaMismatch:
    """Return the error for such a time."""
    return misfit(column, row, f"{value} is outside the years 1 to 9999 in UTC")


def _moments(column: Column, values: Sequence[datetime | None]) -> NDArray[Any]:
    if all(value is not None and value.tzinfo is not None for value in values):
        # Four times quicker than by way of NumPy's own conversion, and exact: below 2**51 microseconds, the two roundings
        # together are less than half of one.
        seconds = np.array([value.timestamp() for value in values if value is not None])
        if len(seconds) and float(np.abs(seconds).max()) < 2**31:
            return np.rint(seconds * 1e6).astype(np.int64).view("datetime64[us]")
    plain: list[datetime | None] = []
    for row, value in enumerate(values):
        if value is None or value.tzinfo is None:
            plain.append(value)
        elif value.tzinfo is UTC:
            # The usual case, without the six times dearer conversion.
            plain.append(value.replace(tzinfo=None))
        elif far(value):
            raise too_far(column, row, value)
        else:
            plain.append(value.astimezone(UTC).replace(tzinfo=None))
    return np.array(plain, dtype="datetime64[us]")


def cast(
    column: Column, values: NDArray[Any], absent: NDArray[np.bool_] | None, label: str, *, strict: bool
) -> NDArray[Any]:
    """Return an array of numbers, booleans, times or text as the type of a column.

    Parameters
    ----------
    column
        Where it goes.
    values
        Shape (n,), of kind ``b``, ``i``, ``u``, ``f``, ``M`` or object (text).
    absent
        Which are missing, shape (n,); None where none is but NaN and NaT.
    label
        What the sender calls the type of the values.
    strict
        Whether 64-bit decimals are refused where the model takes 32-bit ones, instead of rounded.

    Raises
    ------
    SchemaMismatch
        Not all values of that type fit, or one does not; the message names the row.
    """
    if absent is not None:
        if not absent.any():
            absent = None
        elif column.required:
            raise gap(column, int(absent.argmax()))
    from_kind, to = values.dtype.kind, column.type
    if to in _EXACT and from_kind in "iuf":
        made = _decimals(column, values, absent, label, strict)
    elif to in {"integer", "long"} and from_kind in "iuf":
        made = _whole(column, values, absent)
    elif to == "boolean" and from_kind == "b":
        made = values if column.required else values.astype(object)
        if absent is not None:
            made[absent] = None
    elif to == "string" and from_kind == "O":
        made = values
    elif to == "datetime" and from_kind == "O":
        return array_of(column, values.tolist())
    elif to == "datetime" and from_kind == "M":
        made = _times(column, values, absent)
    else:
        raise wrong_type(column, label)
    return made


def _decimals(
    column: Column, values: NDArray[Any], absent: NDArray[np.bool_] | None, label: str, strict: bool
) -> NDArray[Any]:
    kind, wide = column.type, values.dtype.itemsize
    if values.dtype.kind == "f":
        if kind == "float" and wide == 8:
            if strict:
                raise wrong_type(column, label, "Send numbers of 32 bits.")
            beyond = np.isfinite(values) & (np.abs(values) > FLOAT32)
            if beyond.any():
                row = int(beyond.argmax())
                raise misfit(column, row, f"{values[row]} does not fit")
    elif 8 * wide > (53 if kind == "double" else 24):
        most = _EXACT[kind]
        beyond = (values > most) | (values < -most) if values.dtype.kind == "i" else values > most
        if absent is not None:
            beyond &= ~absent
        if beyond.any():
            row = int(beyond.argmax())
            raise misfit(column, row, f"{values[row]} has more digits than a {kind} can keep")
    made = values.astype(DTYPES[kind])
    if absent is not None:
        made[absent] = np.nan
    return made


def _whole(column: Column, values: NDArray[Any], absent: NDArray[np.bool_] | None) -> NDArray[Any]:
    low, high = INT32 if column.type == "integer" else INT64
    if values.dtype.kind == "f":
        nan = np.isnan(values)
        absent = nan if absent is None else absent | nan
        if absent.any() and column.required:
            raise gap(column, int(absent.argmax()))
        with np.errstate(invalid="ignore"):
            # 2**63 is a decimal, the largest whole number of 64 bits is none: hence "<" its successor.
            fits = (values == np.floor(values)) & (values >= float(low)) & (values < float(high + 1))
        wrong = ~fits & ~absent
    elif values.dtype.kind == "u":
        wrong = values > high
    else:
        wrong = (values < low) | (values > high)
    if absent is not None:
        wrong &= ~absent
    if wrong.any():
        row = int(wrong.argmax())
        raise misfit(column, row, f"{values[row]} does not fit")
    if absent is None or not absent.any():
        return values.astype(DTYPES[column.type])
    made = values.astype(np.float64)
    made[absent] = np.nan
    return made


def _times(column: Column, values: NDArray[Any], absent: NDArray[np.bool_] | None) -> NDArray[Any]:
    made = values.astype("datetime64[us]")
    if absent is not None:
        made[absent] = np.datetime64("NaT", "us")
    ticks = made.view(np.int64)
    outside = ((ticks < _FIRST_US) | (ticks > _LAST_US)) & ~np.isnat(made)
    if outside.any():
        raise misfit(column, int(outside.argmax()), "it is outside the years 1 to 9999")
    return made


def blocks(columns: Mapping[str, NDArray[Any]], signature: Signature, rows: int) -> Blocks:
    """Return typed columns of shape (rows,) as blocks; optional inputs that are absent are missing throughout.

    Raises
    ------
    SchemaMismatch
        A number is infinite, or a value is missing where none may be.
    """
    whole = {
        column.name: columns[column.name] if column.name in columns else missing(column, rows)
        for column in signature.inputs
    }
    made = blocks_of(whole, signature.inputs, rows)
    check(made, signature)
    return made


def check(made: Blocks, signature: Signature) -> None:
    """Check that nothing is infinite, and nothing missing where none may be. Raises as `blocks` does."""
    by_name = {column.name: column for column in signature.inputs}
    for names, matrix in made.blocks:
        if matrix.dtype.kind == "f" and not np.isfinite(matrix).all():
            for at, name in enumerate(names):
                _finite(by_name[name], matrix[:, at])
        elif matrix.dtype.kind == "O":
            for at, name in enumerate(names):
                if by_name[name].required:
                    _present(by_name[name], matrix[:, at].tolist())
    for name, values in made.others.items():
        if values.dtype.kind == "f":
            _finite(by_name[name], values)
        elif values.dtype.kind == "M" and by_name[name].required and np.isnat(values).any():
            raise gap(by_name[name], int(np.isnat(values).argmax()))


def _finite(column: Column, values: NDArray[Any]) -> None:
    infinite = np.isinf(values)
    if infinite.any():
        raise misfit(column, int(infinite.argmax()), "infinity does not fit")
    if column.required and np.isnan(values).any():
        raise gap(column, int(np.isnan(values).argmax()))


def _present(column: Column, values: list[Any]) -> None:
    if None in values:
        raise gap(column, values.index(None))


def entities_of(column: Column, values: NDArray[Any]) -> list[str | None]:
    """Return who each row is about, where an input of the model says it; None where it is missing."""
    found: Iterable[Any]
    if values.dtype.kind == "M":
        found = [None if one is None else one.replace(tzinfo=UTC) for one in values.tolist()]
    elif values.dtype.kind == "f":
        whole = column.type in {"integer", "long"}
        found = [None if one != one else int(one) if whole else one for one in values.tolist()]
    else:
        found = values.tolist()
    return [None if one is None else str(one) for one in found]
