"""Checksums of the record batches in a tail, and the walk over a tail that verifies them.

A power cut can leave a file as long as it was to become with pages of zeros in it, which Arrow reads as rows. So the body
of each batch ends with eight bytes that belong to none of its buffers: a mark and the CRC-32 of the schema and of the
message. What is written stays a plain Arrow IPC stream, which any reader of the format reads. A tail whose schema does
not say so was written by an earlier release and is read without.

Source: Apache Arrow, "Serialization and Interprocess Communication"
(https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc), where a message is
four bytes that say one follows, four with the length of its metadata, the metadata, and `bodyLength` bytes of buffers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any
from zlib import crc32

import pyarrow as pa

__all__ = [
    "BODY_LENGTH",
    "TRAILER",
    "field_at",
    "frames",
    "head_length",
    "is_damaged",
    "is_marked",
    "marked",
    "schema_of",
    "sealed",
    "seed_of",
    "trailer",
    "with_trailer",
]

#: In a schema's metadata: the batches of the stream have checksums.
_KEY, _VALUE = b"loopwright.checksum", b"crc32"
_MARK = b"lwc1"
#: Bytes at the end of a batch's body: the mark, then the checksum.
TRAILER = 8
_PREFIX = 8
_FOLLOWS = 0xFFFFFFFF
#: The slot of `bodyLength` in the format's table `Message`.
BODY_LENGTH = 3
_pack = struct.Struct("<4sI").pack
_numbers = struct.Struct("<Ii").unpack_from
_long = struct.Struct("<q")


def marked(schema: Any) -> Any:
    """Return a schema that says that its batches have checksums."""
    return schema.with_metadata({**(schema.metadata or {}), _KEY: _VALUE})


def is_marked(schema: Any) -> bool:
    """Whether the batches of a stream with this schema have checksums."""
    return (schema.metadata or {}).get(_KEY) == _VALUE


def sealed(message: bytes, seed: int) -> bytes:
    """Return a message whose metadata counts the trailer already, with the trailer; `seed` is the CRC-32 of the head."""
    return message + trailer(crc32(message, seed))


def trailer(checksum: int) -> bytes:
    """Return what stands behind a message with this checksum."""
    return _pack(_MARK, checksum)


def with_trailer(message: bytes, seed: int) -> bytes:
    """Return a message of at least one row, as Arrow serialised it, with a trailer."""
    changed = bytearray(message)
    place = field_at(memoryview(message)[_PREFIX:], BODY_LENGTH)
    if place is None:
        raise ValueError("a message without a body")
    (length,) = _long.unpack_from(changed, _PREFIX + place)
    _long.pack_into(changed, _PREFIX + place, length + TRAILER)
    return sealed(bytes(changed), seed)


def head_length(data: Any) -> int | None:
    """Return how many bytes of a stream its schema takes; None when they are not all there."""
    if len(data) < _PREFIX:
        return None
    follows, length = _numbers(data)
    end = int(_PREFIX + length)
    return end if follows == _FOLLOWS and _PREFIX < end <= len(data) else None


def frames(data: memoryview, seed: int | None) -> Iterator[tuple[int, int]]:
    """Yield where each complete message begins and ends, up to the first that is torn or does not verify.

    Parameters
    ----------
    data
        Messages, without the schema before them.
    seed
        The CRC-32 of that schema; None for a stream without checksums.
    """
    at, size = 0, len(data)
    #: Where the length of a body stands depends on the writer only, which has one length of metadata for each schema.
    places: dict[int, int | None] = {}
    while at + _PREFIX < size:
        follows, length = _numbers(data, at)
        body = at + _PREFIX + length
        if follows != _FOLLOWS or length <= 0 or body > size:
            return
        try:
            if length not in places:
                places[length] = field_at(data[at + _PREFIX : body], BODY_LENGTH)
            place = places[length]
            long = 0 if place is None else _long.unpack_from(data, at + _PREFIX + place)[0]
        except (ValueError, struct.error):
            return
        end = body + long
        if long < 0 or end > size:
            return
        if seed is not None and (
            long < TRAILER or data[end - TRAILER : end] != trailer(crc32(data[at : end - TRAILER], seed))
        ):
            return
        yield at, end
        at = end


def is_damaged(rest: memoryview) -> bool:
    """Whether what stands behind the last good message of a finished tail is more than a write that was cut short.

    Such a write ends with the file, or with the zeros of pages that never reached the disk.
    """
    if len(rest) < _PREFIX:
        return False
    if not any(rest[:_PREFIX]):
        return any(rest)
    follows, length = _numbers(rest)
    if follows != _FOLLOWS or length <= 0 or _PREFIX + length > len(rest):
        return bool(follows != _FOLLOWS)
    try:
        place = field_at(rest[_PREFIX : _PREFIX + length], BODY_LENGTH)
        long = 0 if place is None else _long.unpack_from(rest, _PREFIX + place)[0]
    except (ValueError, struct.error):
        return any(rest[_PREFIX : _PREFIX + length])
    end = _PREFIX + length + long
    return bool(end <= len(rest) and any(rest[end - TRAILER : end]))


def field_at(data: Any, slot: int, table: int | None = None) -> int | None:
    """Return where a field of a FlatBuffers table lies, of the root table when none is given; None where it is left out.

    Raises
    ------
    ValueError
        This is no table.
    """
    if table is None:
        table = int.from_bytes(data[:4], "little")
    vtable = table - int.from_bytes(data[table : table + 4], "little", signed=True)
    if vtable < 0 or vtable + 2 > len(data):
        raise ValueError("no table")
    size = int.from_bytes(data[vtable : vtable + 2], "little")
    place = 4 + 2 * slot
    if place + 2 > size:
        return None
    offset = int.from_bytes(data[vtable + place : vtable + place + 2], "little")
    return table + offset if offset else None


def seed_of(head: Any) -> int:
    """Return what the checksums of a stream start from: they hold for this schema only."""
    return crc32(head)


def schema_of(head: Any) -> Any | None:
    """Return the schema at the head of a stream, or None when it cannot be read."""
    try:
        return pa.ipc.read_schema(pa.py_buffer(head))
    except (OSError, pa.ArrowException):
        return None
