"""Tables as bodies: CSV, Arrow (stream and file) and Parquet; and replies in the form that is asked for.

CSV has a header line, an empty field is a missing value, and booleans are true, false, 1 or 0. Columns that the model
does not know are refused, as in JSON. Infinity is refused in every form, NaN is a missing value.
"""

from __future__ import annotations

import csv
import io
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from numpy.typing import NDArray

from loopwright.deploy.answers import Answers
from loopwright.deploy.online.codecs.answered import rows_of, table_of
from loopwright.deploy.online.codecs.arrow import Budget, arrays_of_table, check_rows, claimed_bytes
from loopwright.deploy.online.codecs.base import Asked, Reply
from loopwright.deploy.online.codecs.options import Options
from loopwright.deploy.online.codecs.values import (
    array_of,
    blocks,
    check_names,
    entities_of,
    misfit,
    no_rows,
    shown,
)
from loopwright.deploy.online.wire import WrongType
from loopwright.errors import InvalidInput, listing
from loopwright.records import Column, Signature

__all__ = [
    "ARROW_FILE",
    "ARROW_STREAM",
    "CONTENT_TYPES",
    "CSV",
    "PARQUET",
    "Tables",
    "accepted",
    "media_type",
]

CSV = b"text/csv"
ARROW_STREAM = b"application/vnd.apache.arrow.stream"
ARROW_FILE = b"application/vnd.apache.arrow.file"
PARQUET = b"application/vnd.apache.parquet"
JSON = b"application/json"
#: What `Tables` reads.
CONTENT_TYPES = (CSV, ARROW_STREAM, ARROW_FILE, PARQUET)

#: A column that pandas writes for an index without a name.
_INDEX = re.compile(r"__index_level_\d+__")
#: Longest header line besides the names that it should have, in bytes.
_HEADER = 65_536
#: Rows of Parquet that are read at once.
_BATCH = 65_536
_TRUE, _FALSE = ["true", "True", "TRUE", "1"], ["false", "False", "FALSE", "0"]
_CELL = re.compile(r"In CSV column #(\d+): (?:Row #(\d+): )?(.*)", re.DOTALL)
_LINE = re.compile(r"CSV parse error: (?:Row #(\d+): )?(.*)", re.DOTALL)
#: What a parser of damaged bytes raises besides its own errors.
_DAMAGED = (ValueError, OSError, MemoryError, OverflowError, KeyError, IndexError, TypeError, struct.error)

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted(Options):
    """Notes of a table: the form of the reply."""

    reply: bytes = JSON


def media_type(value: bytes) -> tuple[bytes, dict[str, str]]:
    """Return a content type without its parameters, and those, all in lower case."""
    kind, *rest = value.decode("latin-1").lower().split(";")
    pairs = (part.partition("=") for part in rest if part.strip())
    return kind.strip().encode("latin-1"), {name.strip(): text.strip().strip('"') for name, _, text in pairs}


def accepted(accept: bytes) -> bytes:
    """Return the form of the reply that an ``accept`` header likes best: a table's, or JSON.

    A header that names no form known here is disregarded.

    Examples
    --------
    >>> accepted(b"text/html, text/csv;q=0.9, */*;q=0.1")
    b'text/csv'
    >>> accepted(b"")
    b'application/json'
    """
    best, found = 0.0, JSON
    for part in accept.split(b",")[:32]:
        kind, parameters = media_type(part)
        if kind in {b"*/*", b"application/*"}:
            kind = JSON
        elif kind == b"text/*":
            kind = CSV
        try:
            quality = float(parameters.get("q", "1"))
        except ValueError:
            quality = 0.0
        if quality > best and (kind == JSON or kind in CONTENT_TYPES):
            best, found = quality, kind
    return found


class Tables:
    """The codec of tables; the content type says which form a body has.

    Parameters
    ----------
    signature
        What a row must look like.
    entity
        The column that names a row's entity; it may be one of the inputs or come in addition to them.
    """

    def __init__(self, signature: Signature, entity: str | None = None) -> None:
        self.signature = signature
        self.entity = entity
        self._own_entity = entity if entity is not None and entity not in signature.names else None
        self._readers: dict[bytes, Callable[[bytes | bytearray], Asked]] = {
            CSV: self.csv,
            ARROW_STREAM: self.arrow_stream,
            ARROW_FILE: self.arrow_file,
            PARQUET: self.parquet,
        }

    def decode(self, body: bytes | bytearray, headers: Mapping[bytes, bytes]) -> Asked:
        """Return the rows of a table.

        Raises
        ------
        WrongType
            The content type is none of `CONTENT_TYPES`, or its text is not UTF-8.
        InvalidInput
            The body is no such table, has no rows, or would become too large.
        SchemaMismatch
            A column or value does not fit; the message names it.
        """
        kind, parameters = media_type(headers.get(b"content-type", b""))
        reader = self._readers.get(kind)
        if reader is None:
            raise WrongType(
                f"The content type {kind.decode('latin-1')[:100]!r} is no table's.",
                valid=f"Tables: {listing(known.decode() for known in CONTENT_TYPES)}.",
            )
        if parameters.get("charset", "utf-8") not in {"utf-8", "utf8", "us-ascii"}:
            raise WrongType(
                f"The charset {parameters['charset'][:100]!r} is not read here.", valid="Send UTF-8."
            )
        asked = reader(body)
        asked.notes = Wanted(reply=accepted(headers.get(b"accept", b"")))
        return asked

    def encode(self, answers: Answers, at: int, asked: Asked) -> Reply:
        """Return n answers in the form that was asked for; `deploy.online.codecs.answered` says which columns."""
        wanted: bytes = asked.notes.reply if isinstance(asked.notes, Wanted) else JSON
        if wanted == JSON:
            return Reply(_encode({"predictions": rows_of(answers, at, asked.n)}), JSON)
        return Reply(_written(table_of(answers, at, asked.n, self.signature.outputs), wanted), wanted)

    def csv(self, body: bytes | bytearray) -> Asked:
        """Return the rows of CSV."""
        names = self._header(body)
        check_names(names, self.signature, self.entity)
        try:
            table = self._read_csv(body, names, frozenset())
        except ValueError as error:
            table = self._again(body, names, error)
        return self._asked_csv(table, names)

    def _header(self, body: bytes | bytearray) -> list[str]:
        valid = f"The first line has the names of the columns: {listing(self.signature.names)}."
        if not bytes(body[:4096]).strip() and not body.strip():
            raise InvalidInput("The body is empty.", valid=valid)
        most = _HEADER + 4 * sum(map(len, self.signature.names))
        lines = csv.reader(
            io.TextIOWrapper(io.BytesIO(body[:most]), "utf-8-sig", errors="replace", newline="")
        )
        try:
            names = next(line for line in lines if line)
        except (csv.Error, StopIteration) as error:
            raise InvalidInput(f"The body has no header line: {error}.", valid=valid) from None
        return names

    def _read_csv(self, body: bytes | bytearray, names: list[str], as_text: frozenset[str]) -> Any:
        import pyarrow as pa
        import pyarrow.csv

        types = {name: pa.string() for name in names}
        plain = {
            "boolean": pa.bool_(),
            "integer": pa.int32(),
            "long": pa.int64(),
            "float": pa.float32(),
            "double": pa.float64(),
        }
        for column in self.signature.inputs:
            if column.type in plain and column.name in types and column.name not in as_text:
                types[column.name] = plain[column.type]
        # With one column, an empty line is a row whose value is missing.
        parse = pyarrow.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=len(names) > 1)
        read = pyarrow.csv.ReadOptions(use_threads=False, block_size=min(len(body) + 1, 2**31 - 1))
        convert = pyarrow.csv.ConvertOptions(
            column_types=types,
            null_values=[""],
            strings_can_be_null=True,
            true_values=_TRUE,
            false_values=_FALSE,
        )
        return pyarrow.csv.read_csv(pa.BufferReader(pa.py_buffer(body)), read, parse, convert)

    def _again(self, body: bytes | bytearray, names: list[str], error: Exception) -> Any:
        """Read a body whose whole numbers are written as decimals; else raise the error that says what is wrong."""
        whole = {column.name for column in self.signature.inputs if column.type in {"integer", "long"}}
        cell = _CELL.match(str(error))
        if cell and "UTF8" not in cell[3] and names[int(cell[1])] in whole:
            try:
                return self._read_csv(body, names, frozenset(whole))
            except ValueError as other:
                raise self._csv_error(names, other) from None
        raise self._csv_error(names, error)

    def _csv_error(self, names: list[str], error: Exception) -> InvalidInput:
        """Return the error for what the parser says."""
        message = str(error)
        if cell := _CELL.match(message):
            name = names[int(cell[1])]
            # The parser counts from 1 and the header line, too.
            row = int(cell[2] or 2) - 2
            column = next((one for one in self.signature.inputs if one.name == name), Column(name, "string"))
            if "UTF8" in cell[3]:
                return InvalidInput(
                    f"Row {row}, column {name!r} is not UTF-8.", valid="Send UTF-8.", row=row, field=name
                )
            value = cell[3].partition("invalid value '")[2][:-1]
            return misfit(column, row, f"{shown(value)} does not fit")
        if (line := _LINE.match(message)) and line[1]:
            row = int(line[1]) - 2
            return InvalidInput(
                f"Row {row} of the CSV: {line[2][:200]}.",
                valid=f"Each line has {len(names)} fields, as the header line has.",
                row=row,
            )
        return InvalidInput(
            f"The body is not CSV: {message[:300]}.", valid="CSV with a header line, in UTF-8."
        )

    def _asked_csv(self, table: Any, names: list[str]) -> Asked:
        check_rows(table.num_rows)
        if list(table.column_names) != names:
            raise InvalidInput("The header line of the CSV cannot be read.", valid="CSV in UTF-8.")
        columns: dict[str, NDArray[Any]] = {}
        typed: list[Column] = []
        texts: list[Column] = []
        for column in self.signature.inputs:
            if column.name in names:
                # What was read as text has values of its own to make of it.
                text = str(table[column.name].type) == "string" and column.type != "string"
                (texts if text else typed).append(column)
        part = Signature(tuple(typed), self.signature.task)
        own, entities = arrays_of_table(table, part, self._own_entity, Budget(table.nbytes))
        columns |= own
        for column in texts:
            columns[column.name] = array_of(column, _numbers(column, table[column.name].to_pylist()))
        return self._asked(columns, entities, table.num_rows)

    def arrow_stream(self, body: bytes | bytearray) -> Asked:
        """Return the rows of an Arrow IPC stream."""
        return self._arrow(memoryview(body), "Arrow stream")

    def arrow_file(self, body: bytes | bytearray) -> Asked:
        """Return the rows of an Arrow IPC file. It is a stream between two marks; its index is not needed."""
        if body[:6] != b"ARROW1" or body[-6:] != b"ARROW1":
            raise InvalidInput(
                "The body is no Arrow file: it does not begin and end with ARROW1.",
                valid="Write it with pyarrow.ipc.new_file, or send a stream as such.",
            )
        return self._arrow(memoryview(body)[8:], "Arrow file")

    def _arrow(self, data: memoryview, what: str) -> Asked:
        import pyarrow as pa

        buffer, budget = pa.py_buffer(data), Budget(len(data))
        try:
            sizes = [claimed_bytes(message) for message in pa.ipc.MessageReader.open_stream(buffer)]
        except (pa.ArrowException, StopIteration, *_DAMAGED) as error:
            raise _unreadable(what, error) from None
        for size in sizes:
            budget.take(size)
        try:
            with pa.ipc.open_stream(buffer) as reader:
                check_names(list(_without_index(reader.schema.names)), self.signature, self.entity)
                batches = []
                rows = 0
                for batch in reader:
                    rows += batch.num_rows
                    check_rows(max(rows, 1))
                    batches.append(batch)
                table = pa.Table.from_batches(batches, reader.schema)
            # Offsets that point anywhere would be followed.
            table.validate(full=True)
        except InvalidInput:
            raise
        except (pa.ArrowException, *_DAMAGED) as error:
            raise _unreadable(what, error) from None
        return self._asked_table(table, budget, what)

    def parquet(self, body: bytes | bytearray) -> Asked:
        """Return the rows of a Parquet file."""
        import pyarrow as pa
        import pyarrow.parquet

        budget, read = Budget(len(body)), Budget(len(body))
        texts = [column.name for column in self.signature.inputs if column.type == "string"]
        try:
            # Text as a dictionary: a value that is repeated a million times is read once.
            file = pyarrow.parquet.ParquetFile(
                pa.BufferReader(pa.py_buffer(body)), read_dictionary=texts, arrow_extensions_enabled=False
            )
            names = list(_without_index(file.schema_arrow.names))
            check_names(names, self.signature, self.entity)
            check_rows(file.metadata.num_rows)
            budget.take(_parquet_bytes(file.metadata))
            batches = []
            for batch in file.iter_batches(_BATCH, columns=names, use_threads=False):
                # What a file says of its size need not be true; what has been read is counted, too.
                read.take(batch.nbytes)
                batches.append(batch)
            if not batches:
                raise no_rows()
            table = pa.Table.from_batches(batches)
            table.validate(full=True)
        except InvalidInput:
            raise
        except (pa.ArrowException, *_DAMAGED) as error:
            raise _unreadable("Parquet file", error) from None
        return self._asked_table(table, budget, "Parquet file")

    def _asked_table(self, table: Any, budget: Budget, what: str) -> Asked:
        import pyarrow as pa

        try:
            columns, entities = arrays_of_table(table, self.signature, self._own_entity, budget)
        except InvalidInput:
            raise
        except (pa.ArrowException, *_DAMAGED) as error:
            raise _unreadable(what, error) from None
        return self._asked(columns, entities, table.num_rows)

    def _asked(self, columns: dict[str, NDArray[Any]], entities: list[str | None] | None, rows: int) -> Asked:
        made = blocks(columns, self.signature, rows)
        if self.entity is not None and self._own_entity is None:
            column = next(one for one in self.signature.inputs if one.name == self.entity)
            entities = entities_of(column, made[self.entity])
        elif self.entity is not None and entities is None:
            entities = [None] * rows
        return Asked(rows, columns=made, entities=entities)


def _numbers(column: Column, values: list[str | None]) -> list[Any]:
    """Return text of CSV as the numbers that it stands for; what is none stays text, and is refused as such."""
    if column.type == "datetime":
        return values
    made: list[Any] = []
    for value in values:
        try:
            made.append(None if value is None else _whole(value))
        except ValueError:
            made.append(value)
    return made


def _whole(text: str) -> int | float:
    return float(text) if any(mark in text for mark in ".eEnN") else int(text[:40])


def _without_index(names: list[str]) -> list[str]:
    return [name for name in names if not _INDEX.fullmatch(name)]


def _parquet_bytes(metadata: Any) -> int:
    """Return how large a Parquet file says it is without compression.

    By row groups: asking for a column's facts ends the whole process where those are damaged, because pyarrow's
    accessor lets a C++ exception through.
    """
    sizes = (metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    return sum(max(0, size) for size in sizes)


def _unreadable(what: str, error: BaseException) -> InvalidInput:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return InvalidInput(f"The body is no {what} that can be read: {reason}.", valid=f"A whole {what}.")


def _written(table: Any, form: bytes) -> bytes:
    """Return a table in one of `CONTENT_TYPES`."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    if form == CSV:
        import pyarrow.csv

        pyarrow.csv.write_csv(table, sink)
    elif form == PARQUET:
        import pyarrow.parquet

        pyarrow.parquet.write_table(table, sink)
    else:
        make = pa.ipc.new_stream if form == ARROW_STREAM else pa.ipc.new_file
        with make(sink, table.schema) as writer:
            writer.write_table(table)
    return bytes(sink.getvalue())
