"""Record batches of one schema, written to an Arrow IPC stream without Arrow.

Making a record batch of twenty columns for one row costs pyarrow 60 microseconds, most of it one object for each
column. The message of a batch differs from the next of the same schema in a few numbers only: how many rows there are,
and where each buffer lies. So one message is made by pyarrow, its numbers are looked up once, and each batch is that
template with numbers of its own. What is written is plain Arrow, which any reader of the format reads.

Source: Apache Arrow, "Serialization and Interprocess Communication"
(https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc) for the framing
and the schema of `Message` and `RecordBatch`; FlatBuffers "Internals" for tables and vectors.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

__all__ = ["BatchWriter", "FixedWriter"]

_ALIGN = 8
_PADDING = [bytes(number) for number in range(_ALIGN)]
#: Slots of the tables' fields, in the order of the format's own schema files.
_BODY_LENGTH, _HEADER = 3, 2
_LENGTH, _NODES, _BUFFERS = 0, 1, 2


class BatchWriter:
    """Writes batches of one schema.

    Parameters
    ----------
    schema
        Of every batch. Fields are flat, lists, or fixed-length lists; none is dictionary-encoded.
    """

    def __init__(self, schema: pa.Schema) -> None:
        batch = pa.RecordBatch.from_arrays(
            [pa.nulls(1, field.type) for field in schema], schema=schema.remove_metadata()
        )
        message = pa.ipc.read_message(batch.serialize())
        metadata = message.metadata.to_pybytes()
        # Four bytes that say "a message follows", four with its length, then the metadata, padded.
        self._prefix = struct.pack("<Ii", 0xFFFFFFFF, len(metadata))
        self._metadata = metadata
        root = _u32(metadata, 0)
        body_length = _field(metadata, root, _BODY_LENGTH)
        header = _field(metadata, root, _HEADER)
        header += _u32(metadata, header)
        length = _field(metadata, header, _LENGTH)
        nodes = _field(metadata, header, _NODES)
        nodes += _u32(metadata, nodes)
        buffers = _field(metadata, header, _BUFFERS)
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
        return b"".join(parts)

    def head(self, rows: int, nodes: Sequence[int], spans: Sequence[int], length: int) -> bytes:
        """Return what stands before the buffers: `spans` are offset and size of each, `length` that of all."""
        metadata = bytearray(self._metadata)
        self.put(metadata, self._body_length_at, length)
        self.put(metadata, self._length_at, rows)
        self._pack_nodes(metadata, self._nodes_at, *nodes)
        self._pack_buffers(metadata, self._buffers_at, *spans)
        return self._prefix + metadata

    def span_at(self, buffer: int) -> int:
        """Return where the size of a buffer stands in what `head` returns."""
        return len(self._prefix) + self._buffers_at + 16 * buffer + 8


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
        padded = size + -size % _ALIGN
        known = self._heads.get(padded)
        if known is None:
            known = self._heads[padded] = self._head(padded)
        head, at = known
        parts: list[Any] = [b""]
        for buffer, gap in zip(buffers, self._gaps, strict=True):
            parts += (buffer, gap)
        if padded != size:
            parts[2 * self._open + 2] = _PADDING[padded - size]
            # The offsets follow from the padded size; the buffer's own size is the only number that does not.
            exact = bytearray(head)
            self._writer.put(exact, at, size)
            parts[0] = exact
        else:
            parts[0] = head
        return b"".join(parts)

    def _head(self, padded: int) -> tuple[bytes, int]:
        """Return prefix and metadata for one padded size, and where in them the size itself stands."""
        spans = [0, 0] * self._writer.buffers
        at = 0
        for size, place in zip(self._sizes, self._places, strict=True):
            size = padded if size < 0 else size
            spans[2 * place : 2 * place + 2] = (at, size)
            at += size + -size % _ALIGN
        return self._writer.head(self._rows, self._nodes, spans, at), self._writer.span_at(
            self._places[self._open]
        )


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _field(data: bytes, table: int, slot: int) -> int:
    """Return where a field of a FlatBuffers table lies; the template has every field that is asked for."""
    vtable = table - int.from_bytes(data[table : table + 4], "little", signed=True)
    offset = int.from_bytes(data[vtable + 4 + 2 * slot : vtable + 6 + 2 * slot], "little")
    if not offset:
        raise RuntimeError(f"pyarrow wrote a message without its field {slot}")
    return table + offset
