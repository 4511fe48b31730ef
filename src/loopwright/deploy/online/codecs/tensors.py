"""Tensors of the Open Inference Protocol: bytes or JSON data to NumPy arrays, and back."""

from __future__ import annotations

import struct
from itertools import chain
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from loopwright.deploy.online.codecs.json_bodies import without_nan
from loopwright.deploy.online.faults import FLOAT32
from loopwright.errors import InvalidInput, NotFound, SchemaMismatch

__all__ = ["DATATYPES", "datatype_of", "from_binary", "from_json", "to_binary"]

#: What the elements of each datatype are made of, little-endian; BYTES are objects.
DATATYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}


def _element(name: str, dtype: np.dtype[Any]) -> Any:
    if name == "BYTES":
        return str
    if dtype.kind == "b":
        return bool
    if dtype.kind == "f":
        most = {2: 65504.0, 4: FLOAT32}.get(dtype.itemsize)
        return float if most is None else Annotated[float, msgspec.Meta(ge=-most, le=most)]
    span = np.iinfo(dtype)
    if name == "UINT64":
        # msgspec's bounds are signed.
        return Annotated[int, msgspec.Meta(ge=0)]
    return Annotated[int, msgspec.Meta(ge=int(span.min), le=int(span.max))]


_FLAT = {
    name: msgspec.json.Decoder(list[_element(name, dtype) | None])  # type: ignore[misc]
    for name, dtype in DATATYPES.items()
}
_NESTED = {
    name: msgspec.json.Decoder(list[list[_element(name, dtype) | None]])  # type: ignore[misc]
    for name, dtype in DATATYPES.items()
}
_length = struct.Struct("<I")


def datatype_of(name: str, tensor: str) -> np.dtype[Any]:
    """Return what the elements of a datatype are made of.

    Raises
    ------
    InvalidInput
        There is no such datatype.
    """
    dtype = DATATYPES.get(name)
    if dtype is None:
        error = NotFound.among("datatype", name[:100], DATATYPES)
        raise InvalidInput(
            f"The tensor {tensor!r} has the datatype {name[:100]!r}.", valid=error.valid, field=tensor
        )
    return dtype


def from_binary(data: memoryview, datatype: str, count: int, tensor: str) -> NDArray[Any]:
    """Return `count` elements of binary data, shape (count,); text as `str`.

    Raises
    ------
    SchemaMismatch
        The data is shorter or longer, or text is not UTF-8.
    """
    dtype = datatype_of(datatype, tensor)
    if datatype == "BYTES":
        return _texts(data, count, tensor)
    if len(data) != count * dtype.itemsize:
        raise _count(tensor, f"{len(data)} bytes", f"{count * dtype.itemsize} bytes: {count} x {datatype}")
    if datatype == "BOOL":
        octets = np.frombuffer(data, np.uint8)
        if octets.size and octets.max() > 1:
            row = int((octets > 1).argmax())
            raise SchemaMismatch(
                f"Element {row} of tensor {tensor!r} is {octets[row]}.",
                valid="A BOOL is one byte, 0 or 1.",
                row=row,
                field=tensor,
            )
    return np.frombuffer(data, dtype)


def _texts(data: memoryview, count: int, tensor: str) -> NDArray[Any]:
    if 4 * count > len(data):
        raise _count(
            tensor, f"{len(data)} bytes", f"at least {4 * count} bytes: {count} lengths of 4 bytes each"
        )
    whole, at, end = bytes(data), 0, len(data)
    made = np.empty(count, dtype=object)
    unpack = _length.unpack_from
    for row in range(count):
        start = at + 4
        if start > end:
            raise _cut(tensor, row)
        at = start + unpack(whole, at)[0]
        if at > end:
            raise _cut(tensor, row)
        try:
            made[row] = whole[start:at].decode()
        except UnicodeDecodeError:
            raise SchemaMismatch(
                f"Element {row} of tensor {tensor!r} is not UTF-8.",
                valid="Text is UTF-8.",
                row=row,
                field=tensor,
            ) from None
    if at != end:
        raise _count(tensor, f"{end - at} bytes more", f"{count} elements")
    return made


def _cut(tensor: str, row: int) -> SchemaMismatch:
    return SchemaMismatch(
        f"The binary data of tensor {tensor!r} ends within element {row}.",
        valid="Each element is its length in 4 bytes, little-endian, and that many bytes.",
        row=row,
        field=tensor,
    )


def from_json(
    data: msgspec.Raw, datatype: str, shape: list[int], tensor: str
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Return the elements of JSON data, flat or nested as `shape` is, and which are null (None where none is).

    Raises
    ------
    SchemaMismatch
        Elements do not fit the datatype, or they are not as many as the shape says.
    """
    dtype = datatype_of(datatype, tensor)
    raw = bytes(data)
    nested = raw.lstrip()[1:].lstrip()[:1] == b"["
    values = _decoded(raw, (_NESTED if nested and len(shape) == 2 else _FLAT)[datatype], tensor, datatype)
    if nested and len(shape) == 2:
        for row, one in enumerate(values):
            if len(one) != shape[1]:
                raise SchemaMismatch(
                    f"Row {row} of tensor {tensor!r} has {len(one)} elements.",
                    valid=f"The shape {shape} has {shape[1]}.",
                    row=row,
                    field=tensor,
                )
        values = list(chain.from_iterable(values))
    wanted = shape[0] * (shape[1] if len(shape) == 2 else 1)
    if len(values) != wanted:
        raise _count(tensor, f"{len(values)} elements", f"{wanted}: its shape is {shape}")
    absent = None
    if None in values:
        absent = np.fromiter((value is None for value in values), bool, len(values))
        if dtype.kind in "biu":
            values = [0 if value is None else value for value in values]
    try:
        return np.array(values, dtype), absent
    except OverflowError:
        row = next(row for row, value in enumerate(values) if value > 2**64 - 1)
        raise SchemaMismatch(
            f"Element {row} of tensor {tensor!r} does not fit {datatype}.", row=row, field=tensor
        ) from None


def _decoded(raw: bytes, decoder: msgspec.json.Decoder[Any], tensor: str, datatype: str) -> list[Any]:
    try:
        try:
            found: list[Any] = decoder.decode(raw)
        except msgspec.DecodeError:
            if b"NaN" not in raw:
                raise
            found = decoder.decode(without_nan(raw))
    except (ValueError, RecursionError) as error:
        raise SchemaMismatch(
            f"The data of tensor {tensor!r} does not fit {datatype}: {str(error)[:200]}.",
            valid="A list of its elements, row after row, or a list of rows.",
            field=tensor,
        ) from None
    return found


def _count(tensor: str, found: str, wanted: str) -> SchemaMismatch:
    return SchemaMismatch(
        f"The tensor {tensor!r} has {found}.", valid=f"It should have {wanted}.", field=tensor
    )


def to_binary(values: NDArray[Any], datatype: str) -> bytes:
    """Return elements as binary data; text as `str` becomes UTF-8."""
    if datatype != "BYTES":
        return np.ascontiguousarray(values, DATATYPES[datatype]).tobytes()
    parts: list[bytes] = []
    for value in values.ravel().tolist():
        text = value.encode("utf-8", "replace")
        parts += (_length.pack(len(text)), text)
    return b"".join(parts)
