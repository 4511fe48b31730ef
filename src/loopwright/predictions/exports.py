"""Writing predictions to a file: streamed, in the order of time, and there whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from loopwright.errors import Conflict, Denied, InvalidInput, listing
from loopwright.predictions.columns import rows_of, strings
from loopwright.predictions.frames import PredictionFrame
from loopwright.predictions.snapshots import steady

__all__ = ["FORMATS", "export"]

#: What the end of a file's name says it is to be.
FORMATS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}


def export(
    frame: PredictionFrame,
    path: Path,
    *,
    columns: Sequence[str] | None = None,
    force: bool = False,
    told: Callable[[int], None] = lambda _: None,
) -> int:
    """Write predictions to a file and return how many; memory stays the same however many there are.

    Parameters
    ----------
    frame
        Which.
    path
        The file; its suffix says the format, one of `FORMATS`. It appears when it is complete.
    columns
        Only these columns, in this order.
    force
        Whether a file that is there already may be replaced.
    told
        Called with the number of rows written so far.

    Raises
    ------
    InvalidInput
        The suffix is none of those, or there is no such column.
    Conflict
        The file is there already.
    Denied
        The folder cannot be written to, or the disk is full; nothing is left behind.
    """
    form = FORMATS.get(path.suffix.lower())
    if form is None:
        raise InvalidInput(
            f"{path.name} does not say a format that predictions can be exported to.",
            valid=f"It ends with one of {listing(FORMATS)}.",
            hint=f"loopwright prediction export {path.with_suffix('.parquet').name}",
        )
    if path.exists() and not force:
        raise Conflict(f"{path} is there already.", hint="name another file, or add --force to replace it")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        rows = _write(frame, temporary, form, columns, told)
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except OSError as error:
        raise Denied(
            f"{path} cannot be written: {error.strerror or error}.",
            valid="Nothing of it is left behind.",
            hint=f"df -h {path.parent}; ls -ld {path.parent}",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return rows


@steady
def _write(
    frame: PredictionFrame,
    path: Path,
    form: str,
    columns: Sequence[str] | None,
    told: Callable[[int], None],
) -> int:
    """Write the file; begun anew where segments were replaced meanwhile."""
    rows = 0
    batches = frame.batches(columns)
    first = next(batches)
    with _writer(path, form, first.schema) as write:
        for batch in _chained(first, batches):
            write(batch)
            rows += len(batch)
            told(rows)
    return rows


def _chained(first: Any, others: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from others


@contextlib.contextmanager
def _writer(path: Path, form: str, schema: Any) -> Iterator[Callable[[Any], None]]:
    """Give what writes one batch after the other."""
    if form == "parquet":
        from pyarrow.parquet import ParquetWriter

        with ParquetWriter(str(path), schema, compression="zstd") as parquet:
            yield parquet.write_batch
    elif form == "arrow":
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as arrow:
            yield arrow.write_batch
    elif form == "csv":
        from pyarrow.csv import CSVWriter

        flat = pa.schema([pa.field(one.name, _flat_type(one.type)) for one in schema])
        with CSVWriter(str(path), flat) as lines:
            yield lambda batch: lines.write_batch(_flat(batch, flat))
    else:
        encoder = msgspec.json.Encoder()
        with path.open("wb") as file:
            yield lambda batch: _write_lines(file, encoder, batch)


def _write_lines(file: Any, encoder: msgspec.json.Encoder, batch: Any) -> None:
    file.write(encoder.encode_lines(rows_of(pa.Table.from_batches([batch]))))


def _flat_type(kind: Any) -> Any:
    return pa.string() if pa.types.is_nested(kind) else kind


def _flat(batch: Any, schema: Any) -> Any:
    """Return a batch with lists as JSON text, which is all that CSV has for them."""
    arrays = [
        column if not pa.types.is_nested(column.type) else strings(_texts(column)) for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _texts(column: Any) -> list[str | None]:
    return [None if one is None else json.dumps(one) for one in column.to_pylist()]
