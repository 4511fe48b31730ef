"""Datasets in files: CSV and Parquet, one file or a folder of part files, on this machine or in an object store."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.fs as pafs

from loopwright.config import Project
from loopwright.errors import Denied, InvalidInput, NotFound, listing, nearest
from loopwright.lineage.digests import file_digest
from loopwright.lineage.progress import track
from loopwright.lineage.steady import steady

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Found", "Part", "folder_parts", "read", "read_parts", "source_digest"]

_CSV = (".csv", ".csv.gz", ".csv.zst", ".tsv")
_PARQUET = (".parquet", ".pq")
_HIVE = re.compile(r"^([^=/]+)=([^=/]*)$")


@dataclass(frozen=True, slots=True)
class Found:
    """What a source held: a pandas frame or an Arrow table, where it is, and the SHA-256 of its bytes or ""."""

    table: Any
    source: str
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a dataset. `version` differs when its content does: a time of change, an etag."""

    path: str
    size: int
    version: str


def read(project: Project, source: str) -> Found:
    """Read a file, or a folder of part files, relative to the project folder.

    Raises
    ------
    NotFound
        There is no such file; the message names the nearest.
    InvalidInput
        It is no CSV or Parquet, or its part files do not go together.
    Denied
        It may not be read.
    Conflict
        It is being written.
    """
    path = _find(project, Path(source))
    local = pafs.LocalFileSystem()

    def look() -> tuple[Part, ...]:
        return _parts(local, path)

    def content(parts: tuple[Part, ...]) -> tuple[Any, str]:
        return read_parts(local, parts, path.as_posix()), source_digest(path)

    table, digest = steady(look, content, str(path))
    return Found(table, _relative(project, path), digest)


def source_digest(path: Path) -> str:
    """Return the SHA-256 of a file, or one over the names and hashes of the part files of a folder."""
    if path.is_file():
        return file_digest(path)
    total = hashlib.sha256()
    for part in _parts(pafs.LocalFileSystem(), path):
        name = Path(part.path).relative_to(path).as_posix()
        total.update(f"{name}\0{file_digest(Path(part.path))}\n".encode())
    return total.hexdigest()


def _find(project: Project, given: Path) -> Path:
    candidates = [given] if given.is_absolute() else [project.root / given, Path.cwd() / given]
    found = next((path for path in candidates if path.exists()), None)
    if found is None:
        folder = candidates[0].parent
        known = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        close = nearest(given.name, known)
        guess = f"Did you mean {given.parent / close}? " if close else ""
        raise NotFound(
            f"There is no file {candidates[0]}.",
            valid=f"{guess}Files there: {listing(known)}."
            if folder.is_dir()
            else f"The folder {folder} is missing.",
            hint="give the path relative to the project folder",
        )
    return found.resolve()


def _relative(project: Project, path: Path) -> str:
    return path.relative_to(project.root).as_posix() if path.is_relative_to(project.root) else str(path)


def _parts(local: pafs.FileSystem, path: Path) -> tuple[Part, ...]:
    if path.is_dir():
        return folder_parts(local, path.as_posix())
    info = local.get_file_info(path.as_posix())
    return (Part(path.as_posix(), info.size or 0, str(info.mtime_ns)),)


def folder_parts(files: pafs.FileSystem, folder: str) -> tuple[Part, ...]:
    """Return the files of a folder and of those below it, by path; names that start with ``.`` or ``_`` do not count.

    Raises
    ------
    InvalidInput
        There are none, or they are of more than one kind.
    """
    base = folder.rstrip("/")
    found = [
        Part(info.path, info.size or 0, str(info.mtime_ns))
        for info in files.get_file_info(pafs.FileSelector(base, recursive=True))
        if info.type == pafs.FileType.File
        and not any(name.startswith((".", "_")) for name in info.path.removeprefix(base).split("/"))
    ]
    kinds = {_kind(part.path) for part in found}
    if len(kinds) != 1 or "" in kinds:
        names = listing(sorted(part.path.rpartition("/")[2] for part in found))
        raise InvalidInput(
            f"The folder {folder} holds no part files of one kind: {names}.",
            valid=f"All files of a dataset are Parquet or all are CSV. Endings: {listing((*_CSV, *_PARQUET))}.",
        )
    return tuple(sorted(found, key=lambda part: part.path))


def _kind(name: str) -> str:
    lower = name.lower()
    if lower.endswith(_PARQUET):
        return "Parquet"
    return "CSV" if lower.endswith(_CSV) else ""


def read_parts(files: pafs.FileSystem, parts: tuple[Part, ...], shown: str) -> pd.DataFrame | pa.Table:
    """Return the rows of part files, one file after the other: Parquet as an Arrow table, CSV as pandas reads it.

    Names of folders such as ``year=2024`` become columns.

    Raises
    ------
    InvalidInput
        A file cannot be read, or has other columns than the first.
    """
    kind = _kind(parts[0].path)
    if not kind:
        raise InvalidInput(
            f"{shown} is no file that can be read as a table.",
            valid=f"Endings: {listing((*_CSV, *_PARQUET))}.",
            hint="read it yourself and give the DataFrame: loopwright.dataset(name, frame)",
        )
    tables: list[Any] = []
    for part in track(parts, f"Reading {shown}", sum(part.size for part in parts)):
        table = _read_one(files, part, kind)
        if tables and list(_names(table)) != list(_names(tables[0])):
            other = sorted(set(_names(table)) ^ set(_names(tables[0]))) or "their order"
            raise InvalidInput(
                f"The part files of {shown} do not go together: {part.path.rpartition('/')[2]} has other columns than "
                f"{parts[0].path.rpartition('/')[2]}: {other}.",
                valid="All part files of a dataset have the same columns in the same order.",
            )
        tables.append(table)
    return _with_folders(_together(tables, shown), tables, parts, shown)


def _names(table: Any) -> Iterable[str]:
    names: Iterable[str] = table.column_names if isinstance(table, pa.Table) else table.columns
    return names


def _read_one(files: pafs.FileSystem, part: Part, kind: str) -> Any:
    name = part.path.lower()
    try:
        with files.open_input_file(part.path) as handle:
            if kind == "Parquet":
                import pyarrow.parquet as pq

                # Not `read_table`: that takes a folder called year=2024 for a column by itself.
                return pq.ParquetFile(handle).read()
            import pandas as pd

            compression: Any = {".gz": "gzip", ".zst": "zstd"}.get(Path(name).suffix)
            separator = "\t" if name.endswith(".tsv") else ","
            return pd.read_csv(handle, sep=separator, compression=compression)
    except PermissionError as error:
        raise Denied(f"{part.path} cannot be read: {error.strerror}.", hint=f"ls -l {part.path}") from error
    except (ValueError, OSError, EOFError, pa.ArrowException) as error:
        # pandas' parser errors and wrong encodings are ValueErrors; a broken archive is an OSError.
        raise InvalidInput(
            f"{part.path} is no readable {kind} file: {' '.join(str(error).split())}",
            hint=f"head -c 200 {part.path}",
        ) from error


def _together(tables: list[Any], shown: str) -> Any:
    if len(tables) == 1:
        return tables[0]
    if not isinstance(tables[0], pa.Table):
        import pandas as pd

        return pd.concat(tables, ignore_index=True)
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise InvalidInput(
            f"The part files of {shown} do not go together: {error}.",
            valid="A column has one type in all part files.",
        ) from error


def _with_folders(table: Any, tables: list[Any], parts: tuple[Part, ...], shown: str) -> Any:
    """Add the columns that the names of folders below the dataset's give."""
    named = [
        {found[1]: found[2] for name in folders if (found := _HIVE.match(name))}
        for folders in (part.path.removeprefix(shown).split("/")[:-1] for part in parts)
    ]
    for column in named[0]:
        texts: list[Any] = [names.get(column) for names in named]
        whole = all(text is not None and text.isdecimal() for text in texts)
        values = [
            int(text) if whole else text
            for text, one in zip(texts, tables, strict=True)
            for _ in range(len(one))
        ]
        if isinstance(table, pa.Table):
            table = table.append_column(column, pa.array(values))
        else:
            table[column] = values
    return table
