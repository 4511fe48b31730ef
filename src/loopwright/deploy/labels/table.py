"""Labels in a table: a file, a folder of part files, an object, a query, as `loopwright.dataset` reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from loopwright.config import Project
from loopwright.deploy.labels.rows import Rows
from loopwright.errors import InvalidInput, NotFound, listing, nearest
from loopwright.lineage.addresses import scheme_of
from loopwright.lineage.sources import read_source, table_from
from loopwright.records import Label

__all__ = ["is_textual", "read_csv", "read_parquet", "table_labels"]

_CSV = (".csv", ".csv.gz", ".tsv")
#: What a CSV file has for nothing.
_NOTHING = ["", "NaN", "nan", "null", "NULL", "None"]
_BATCH = 20_000


def is_textual(source: str) -> bool:
    """Whether a source is one CSV file of this machine, whose values are all text."""
    return not scheme_of(source) and source.lower().endswith(_CSV)


def table_labels(project: Project, source: str, rows: Rows) -> Iterator[list[Label]]:
    """Yield the labels of a table, a batch of rows at a time.

    Raises
    ------
    LoopwrightError
        The table cannot be read, or lacks a column; see `loopwright.dataset`.
    """
    path = _file(project, source) if is_textual(source) else None
    if path is not None:
        yield from read_csv(path, rows)
        return
    table = table_from(read_source(project, source).table)
    _check(table.column_names, rows, source)
    for batch in table.select(rows.names).to_batches(max_chunksize=_BATCH):
        yield rows.read([column.to_pylist() for column in batch.columns])


def _file(project: Project, source: str) -> Path | None:
    given = Path(source)
    path = given if given.is_absolute() else project.root / given
    return path if path.is_file() else None


def read_csv(
    path: Path, rows: Rows, progress: Callable[[int, int], None] = lambda *_: None
) -> Iterator[list[Label]]:
    """Yield the labels of a CSV file; ids and entities stay as they are written, also ``007``.

    Parameters
    ----------
    path
        The file; compressed where its name ends with ``.gz``.
    rows
        What makes labels of them.
    progress
        Told how many bytes of how many have been read.

    Raises
    ------
    InvalidInput
        It is no CSV file, or lacks a column.
    """
    from pyarrow import csv

    separator = "\t" if path.name.lower().endswith(".tsv") else ","
    try:
        with pa.OSFile(str(path)) as file:
            plain = (
                pa.CompressedInputStream(file, "gzip") if path.name.endswith(".gz") else pa.input_stream(file)
            )
            reader = csv.open_csv(
                plain,
                parse_options=csv.ParseOptions(delimiter=separator, newlines_in_values=True),
                convert_options=csv.ConvertOptions(
                    column_types=dict.fromkeys(rows.names, pa.string()),
                    strings_can_be_null=True,
                    null_values=_NOTHING,
                ),
            )
            _check(reader.schema.names, rows, str(path))
            for batch in reader:
                yield rows.read([batch.column(name).to_pylist() for name in rows.names])
                progress(file.tell(), path.stat().st_size)
    except (pa.ArrowInvalid, OSError) as error:
        raise InvalidInput(
            f"{path} cannot be read as CSV: {' '.join(str(error).split())}", hint=f"head -c 200 {path}"
        ) from error


def read_parquet(
    path: Path, rows: Rows, progress: Callable[[int, int], None] = lambda *_: None
) -> Iterator[list[Label]]:
    """Yield the labels of a Parquet file; `progress` is told how many rows of how many have been read. Raises as `read_csv`."""
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(str(path)) as file:
            _check(file.schema_arrow.names, rows, str(path))
            for batch in file.iter_batches(_BATCH, columns=list(dict.fromkeys(rows.names))):
                yield rows.read([batch.column(name).to_pylist() for name in rows.names])
                progress(rows.seen, file.metadata.num_rows)
    except (pa.ArrowInvalid, OSError) as error:
        raise InvalidInput(f"{path} cannot be read as Parquet: {' '.join(str(error).split())}") from error


def _check(found: list[str], rows: Rows, source: str) -> None:
    for name in rows.names:
        if name not in found:
            close = nearest(name, found)
            guess = f"Did you mean {close!r}? " if close else ""
            raise NotFound(
                f"{source} has no column {name!r}.",
                valid=f"{guess}Columns: {listing(found, most=40)}.",
                column=name,
            )
