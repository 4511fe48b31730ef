"""How rows reach a batch job and how predictions leave it: two small interfaces, and the addresses that name them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qsl, urlsplit

from loopwright.config import Project
from loopwright.errors import InvalidConfig, NotFound, SchemaMismatch, listing, nearest
from loopwright.records import Signature

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Address", "Chunk", "Sink", "Source", "existing", "parse", "select"]

#: Endings of file names that say what is inside.
_ENDINGS = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv"}


@dataclass(frozen=True, slots=True)
class Address:
    """Where rows lie. `kind` names the back end in the table of plug-ins; `place` is a path or a database URL."""

    kind: str
    place: str
    table: str = ""

    def __str__(self) -> str:
        """Show the address without the password a URL may hold."""
        parts = urlsplit(self.place)
        shown = self.place.replace(f":{parts.password}@", ":***@") if parts.password else self.place
        return f"{shown}, table {self.table}" if self.table else shown


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of a source. `first` is the number of the first row in the source, from 0, for messages.

    `keys` identify the rows, one each: the same row has the same key in every run.
    """

    rows: pa.RecordBatch
    keys: list[str]
    first: int


class Source(Protocol):
    """Rows to score; made as ``Source(address, signature, key, entity)``.

    It gives the model's inputs and the columns called `key` and `entity` where these are not None, and may leave out
    optional inputs it does not have.
    """

    @property
    def rows(self) -> int | None:
        """How many rows there are, or None when counting them would mean reading them."""

    def chunks(self, size: int) -> Generator[Chunk]:
        """Give all rows in order, at most `size` at a time."""

    def close(self) -> None:
        """Give back files and connections."""


class Sink(Protocol):
    """Where predictions go; made as ``Sink(address, signature)``.

    A row is named by its prediction id, and a sink never holds an id twice.
    """

    def known(self, ids: Sequence[str]) -> set[str]:
        """Return those of `ids` that are already written."""

    def write(self, rows: pa.RecordBatch) -> None:
        """Write predictions, all or none, and return when they are stored; ids that are there already are left alone.

        Columns: prediction_id, key, prediction, probability (JSON text or null), model, version, at (UTC).
        """

    def close(self) -> None:
        """Give back files and connections."""


def parse(project: Project, text: str) -> Address:
    """Read the address of a source or a sink; relative paths start at the project's folder.

    Parameters
    ----------
    project
        The project whose folder relative paths start at.
    text
        ``rows.parquet``, ``rows.csv``, a folder of Parquet files, ``sqlite:///file.db?table=t`` or
        ``postgresql://user@host/database?table=t``.

    Raises
    ------
    InvalidConfig
        A database without a table, or an unknown parameter behind the question mark.
    """
    if "://" not in text:
        path = project.root / text
        return Address("parquet" if path.is_dir() else _ENDINGS.get(path.suffix, "parquet"), str(path))
    base, _, query = text.partition("?")
    parameters = dict(parse_qsl(query))
    table = parameters.pop("table", "")
    kind = base.partition(":")[0].partition("+")[0]
    kind = "postgresql" if kind == "postgres" else kind
    if kind not in {"sqlite", "postgresql"}:
        return Address(kind, text, table)
    if not table:
        close = nearest("table", parameters)
        raise InvalidConfig(
            f"The address {base} does not say which table.",
            valid=f"Did you mean 'table' instead of {close!r}?" if close else "",
            hint=f"write {base}?table=NAME",
        )
    if kind == "sqlite":
        if parameters:
            raise InvalidConfig(
                f"The address {base} has the parameter {listing(parameters)}.", valid="Known: table."
            )
        return Address(kind, str(project.root / base.removeprefix("sqlite:///")), table)
    rest = "?" + "&".join(f"{key}={value}" for key, value in parameters.items()) if parameters else ""
    return Address(kind, f"postgresql+psycopg://{base.partition('://')[2]}{rest}", table)


def select(
    available: Sequence[str], signature: Signature, key: str | None, entity: str | None, where: str
) -> tuple[list[str], list[str]]:
    """Return the model's inputs that a source has, and all columns to read: these, the key and the entity.

    Raises
    ------
    SchemaMismatch
        A required input is missing.
    NotFound
        The key or the entity column is missing.
    """
    for column in signature.inputs:
        if column.required and column.name not in available:
            close = nearest(column.name, available)
            raise SchemaMismatch(
                f"{where} has no column {column.name!r}, which the model needs.",
                valid=f"{f'Did you mean {close!r}? ' if close else ''}Columns: {listing(available)}.",
                field=column.name,
            )
    for what, name in (("key", key), ("entity", entity)):
        if name and name not in available:
            raise NotFound.among(f"{what} column in {where}", name, available)
    inputs = [name for name in signature.names if name in available]
    return inputs, list(dict.fromkeys([*inputs, *(name for name in (key, entity) if name)]))


def existing(path: Path, what: str) -> Path:
    """Return the path when something is there, else raise `NotFound` naming the nearest file of that folder."""
    if path.exists():
        return path
    folder = path.parent
    if not folder.is_dir():
        raise NotFound(f"There is no {what} {path}: the folder {folder} does not exist.")
    raise NotFound.among(what, str(path), [str(item) for item in sorted(folder.iterdir())])
