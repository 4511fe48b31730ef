"""Parquet and CSV files as sources, and a folder of Parquet files as a sink."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from loopwright.deploy.batch.base import Address, Chunk, existing, select
from loopwright.deploy.batch.keys import IdSet, column_keys, content_keys
from loopwright.errors import Conflict, Denied, InvalidInput, NotFound
from loopwright.records import Signature

__all__ = ["CsvSource", "ParquetSink", "ParquetSource"]


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what a file can do wrong into errors that say so."""
    try:
        yield
    except PermissionError as error:
        raise Denied(f"{path} cannot be read: no permission.", hint=f"ls -l {path}") from error
    except pa.ArrowInvalid as error:
        raise InvalidInput(f"{path} cannot be read: {error}.", file=str(path)) from error


class _Files:
    """What both kinds of file share: the keys of their rows."""

    def __init__(self, signature: Signature, key: str | None, entity: str | None) -> None:
        self.signature = signature
        self.key = key
        self.entity = entity

    def _select(self, names: list[str], where: str) -> tuple[list[str], list[str]]:
        return select(names, self.signature, self.key, self.entity, where)

    def _chunk(self, rows: pa.RecordBatch, inputs: list[str], first: int, place: str, where: str) -> Chunk:
        if self.key:
            return Chunk(rows, column_keys(rows, [self.key], first, where), first)
        places = [f"{place}{first + number}" for number in range(rows.num_rows)]
        return Chunk(rows, content_keys(rows, inputs, places), first)


class ParquetSource(_Files):
    """One Parquet file, or all of a folder in the order of their names. Row numbers start at 0 in each file."""

    def __init__(
        self, address: Address, signature: Signature, key: str | None, entity: str | None = None
    ) -> None:
        super().__init__(signature, key, entity)
        path = existing(Path(address.place), "file or folder")
        with _readable(path):
            self._files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
            if not self._files:
                raise NotFound(f"The folder {path} holds no .parquet file.", hint=f"ls {path}")
            self._folder = path.is_dir()
            self._rows = 0
            for file in self._files:
                with pq.ParquetFile(file) as opened:
                    self._select(opened.schema_arrow.names, str(file))
                    self._rows += opened.metadata.num_rows

    @property
    def rows(self) -> int | None:
        """How many rows there are."""
        return self._rows

    def chunks(self, size: int) -> Generator[Chunk]:
        """Give all rows in order, at most `size` at a time."""
        for path in self._files:
            first = 0
            place = f"{path.name}#" if self._folder else "#"
            with _readable(path), pq.ParquetFile(path) as opened:
                inputs, read = self._select(opened.schema_arrow.names, str(path))
                for rows in opened.iter_batches(batch_size=size, columns=read):
                    yield self._chunk(rows, inputs, first, place, str(path))
                    first += rows.num_rows

    def close(self) -> None:
        """Do nothing: files are closed as they are read."""


class CsvSource(_Files):
    """One CSV file with a header line.

    Values are read as text and converted by the signature, so that a wrong one is named with its row and is not
    guessed from the first lines. Empty, ``NA``, ``NaN`` and ``null`` mean missing.
    """

    def __init__(
        self, address: Address, signature: Signature, key: str | None, entity: str | None = None
    ) -> None:
        super().__init__(signature, key, entity)
        self._path = existing(Path(address.place), "file")
        with _readable(self._path), pyarrow.csv.open_csv(self._path) as opened:
            names = opened.schema.names
        self._inputs, self._read = self._select(names, str(self._path))

    @property
    def rows(self) -> int | None:
        """None: the rows of a CSV file are only known when it was read."""
        return None

    def chunks(self, size: int) -> Generator[Chunk]:
        """Give all rows in order, at most `size` at a time."""
        convert = pyarrow.csv.ConvertOptions(
            include_columns=self._read,
            column_types=dict.fromkeys(self._read, pa.string()),
            strings_can_be_null=True,
        )
        first = 0
        with _readable(self._path), pyarrow.csv.open_csv(self._path, convert_options=convert) as opened:
            for block in opened:
                for start in range(0, block.num_rows, size):
                    rows = block.slice(start, size)
                    yield self._chunk(rows, self._inputs, first, "#", str(self._path))
                    first += rows.num_rows

    def close(self) -> None:
        """Do nothing: the file is closed when it was read."""


class ParquetSink:
    """A folder that gets one Parquet file per chunk, written under another name and renamed when it is complete."""

    def __init__(self, address: Address, signature: Signature) -> None:
        self._folder = Path(address.place)
        if self._folder.is_file():
            raise Conflict(
                f"The sink {self._folder} is a file, and a Parquet sink is a folder.", hint="name a folder"
            )
        self._known = IdSet()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Denied(f"The folder {self._folder} cannot be made: {error.strerror}.") from error
        for path in sorted(self._folder.glob("*.parquet")):
            with _readable(path), pq.ParquetFile(path) as opened:
                if "prediction_id" not in opened.schema_arrow.names:
                    raise Conflict(
                        f"{path} holds no predictions: it has no column 'prediction_id'.",
                        hint="name another, empty folder as the sink",
                    )
                for rows in opened.iter_batches(columns=["prediction_id"]):
                    self._known.add(rows.column(0).to_pylist())

    def known(self, ids: Sequence[str]) -> set[str]:
        """Return those of `ids` that are already written."""
        return (
            {one for one, there in zip(ids, self._known.contains(ids), strict=True) if there}
            if ids
            else set()
        )

    def write(self, rows: pa.RecordBatch) -> None:
        """Write predictions as one file."""
        ids = rows.column("prediction_id").to_pylist()
        known = self.known(ids)
        new = rows.filter(pa.array([one not in known for one in ids])) if known else rows
        if not new.num_rows:
            return
        name = uuid.uuid4().hex
        temporary = self._folder / f".{name}.unfinished"
        try:
            with temporary.open("wb") as file:
                pq.write_table(pa.Table.from_batches([new]), file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(self._folder / f"part-{name}.parquet")
        except PermissionError as error:
            raise Denied(f"The folder {self._folder} cannot be written to: {error.strerror}.") from error
        self._known.add(new.column("prediction_id").to_pylist())

    def close(self) -> None:
        """Do nothing: every file is complete."""
