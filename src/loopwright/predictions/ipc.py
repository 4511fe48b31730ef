"""Record batches of one schema, written to an Arrow IPC stream without Arrow.

Making a record batch of twenty columns for one row costs pyarrow 60 microseconds, most of it one object for each
column. The message of a batch differs from the next of the same schema in a few numbers only: how many rows there are,
and where each buffer lies. So one message is made by pyarrow, its numbers are looked up once, and each batch is that
template with numbers of its own. What is written is plain Arrow, which any reader of the format reads; each batch ends
with a checksum, see `checksums`.

Source: Apache Arrow, "Serialization and Interprocess Communication"
(https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc) for the framing
and the schema of `Message` and `RecordBatch`; FlatBuffers "Internals" for tables and vectors.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import pyarrow as pa

from loopwright.predictions.checksums import BODY_LENGTH, TRAILER, field_at, seed_of, trailer

__all__ = ["BatchWriter", "FixedWriter"]

_ALIGN = 8
#: So many heads of batches are kept, by the size of what differs; beyond that they are made anew.
_MOST_HEADS = 1024
_PADDING = [bytes(number) for number in range(_ALIGN)]
#: Slots of the tables' fields, in the order of the format's own schema files.
_HEADER = 2
_LENGTH, _NODES, _BUFFERS = 0, 1, 2


class BatchWriter:
    """Writes batches of one schema.

    Parameters
    ----------
    schema
        Of every batch, and of the stream they are appended to, whose checksums depend on it. Fields are flat, lists, or
        fixed-length lists; none is dictionary-encoded.
    """

    def __init__(self, schema: pa.Schema) -> None:
        batch = pa.RecordBatch.from_arrays(
            [pa.nulls(1, field.type) for field in schema], schema=schema.remove_metadata()
        )
        message = pa.ipc.read_message(batch.serialize())
        metadata = message.metadata.to_pybytes()
        self.seed = seed_of(schema.serialize().to_pybytes())
        # Four bytes that say "a message follows", four with its length, then the metadata, padded.
        self._prefix = struct.pack("<Ii", 0xFFFFFFFF, len(metadata))
        self._metadata = metadata
        root = _u32(metadata, 0)
        body_length = _needed(metadata, BODY_LENGTH, root)
        header = _needed(metadata, _HEADER, root)
        header += _u32(metadata, header)
        length = _needed(metadata, _LENGTH, header)
        nodes = _needed(metadata, _NODES, header)
        nodes += _u32(metadata, nodes)
        buffers = _needed(metadata, _BUFFERS, header)
        buffers += _u32(metadata, buffers)
        self.nodes = _u32(metadata, nodes)
        self.buffers = _u32(metadata, buffers)
        # Where the numbers are: 8 bytes each, vectors behind their own length of 4 bytes.
        self._body_length_at, self._length_at = body_length, length
        self._nodes_at, self._buffers_at = nodes + 4, buffers + 4
        self._pack_nodes = struct.Struct(f"<{2 * self.nodes}q").pack_into
        self._pack_buffers = struct.Struct(f"<{2 * self.buffers}q").pack_into
        self.put = struct.Struct("<q").pack_into

    def write(self, rows: int, nodes: Sequence[int], buffers: Sequence[Any]) -> bytes:
        """Return a batch as it is appended to a stream.

        Parameters
        ----------
        rows
            How many rows it has.
        nodes
            Length and number of nulls of each field, depth first: ``2 * self.nodes`` numbers.
        buffers
            The buffers of each field in the same order, as `bytes` or any contiguous buffer: validity (empty when there
            are no nulls), then offsets or values as the field's type has them. ``self.buffers`` of them.
        """
        spans: list[int] = []
        parts: list[Any] = [b""]
        at = 0
        for buffer in buffers:
            size = len(buffer) if type(buffer) is bytes else buffer.nbytes
            spans += (at, size)
            if size:
                parts.append(buffer)
                at += size
                if gap := -at % _ALIGN:
                    parts.append(_PADDING[gap])
                    at += gap
        parts[0] = self.head(rows, nodes, spans, at)
        # Part by part: a large batch is copied once and not twice.
        checksum = self.seed
        for part in parts:
            checksum = crc32(part, checksum)
        parts.append(trailer(checksum))
        return b"".join(parts)

    def head(self, rows: int, nodes: Sequence[int], spans: Sequence[int], length: int) -> bytes:
        """Return what stands before the buffers: `spans` are offset and size of each, `length` that of all."""
        metadata = bytearray(self._metadata)
        self.put(metadata, self._body_length_at, length + TRAILER)
        self.put(metadata, self._length_at, rows)
        self._pack_nodes(metadata, self._nodes_at, *nodes)
        self._pack_buffers(metadata, self._buffers_at, *spans)
        return self._prefix + bytes(metadata)


class FixedWriter:
    """Writes batches whose buffers have the same sizes each time, but for one.

    Parameters
    ----------
    writer
        Of the batches' schema.
    rows, nodes
        As for `BatchWriter.write`.
    sizes
        Bytes of each buffer that is not empty, in their order; -1 for the one that differs from batch to batch.
    places
        Which of all buffers these are.
    """

    def __init__(
        self,
        writer: BatchWriter,
        rows: int,
        nodes: Sequence[int],
        sizes: Sequence[int],
        places: Sequence[int],
    ) -> None:
        self._writer, self._rows, self._nodes = writer, rows, nodes
        self._sizes, self._places = sizes, places
        self._gaps = [_PADDING[-max(size, 0) % _ALIGN] for size in sizes]
        self._open = sizes.index(-1)
        self._heads: dict[int, tuple[bytes, int]] = {}

    def write(self, buffers: list[bytes], size: int) -> bytes:
        """Return a batch of these buffers; `size` is that of the one that differs."""
        known = self._heads.get(size)
        if known is None:
            known = self._head(size)
            if len(self._heads) < _MOST_HEADS:
                self._heads[size] = known
        head, seed = known
        parts: list[bytes] = []
        for buffer, gap in zip(buffers, self._gaps, strict=True):
            parts += (buffer, gap)
        parts[2 * self._open + 1] = _PADDING[-size % _ALIGN]
        body = b"".join(parts)
        return b"".join((head, body, trailer(crc32(body, seed))))

    def _head(self, exact: int) -> tuple[bytes, int]:
        """Return prefix and metadata where the open buffer has so many bytes, and the checksum up to their end."""
        spans = [0, 0] * self._writer.buffers
        at = 0
        for size, place in zip(self._sizes, self._places, strict=True):
            size = exact if size < 0 else size
            spans[2 * place : 2 * place + 2] = (at, size)
            at += size + -size % _ALIGN
        head = self._writer.head(self._rows, self._nodes, spans, at)
        return head, crc32(head, self._writer.seed)


def _needed(data: bytes, slot: int, table: int) -> int:
    """Return where a field of a table lies; the template has every field that is asked for."""
    found = field_at(data, slot, table)
    if found is None:
        raise RuntimeError(f"pyarrow wrote a message without its field {slot}")
    return found


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")
