"""Snapshots: a table as it was at one moment, kept once as Parquet under its fingerprint."""

from __future__ import annotations

import dataclasses
import errno
import os
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from loopwright.config import Project
from loopwright.errors import Damaged, Denied, InvalidInput, NotFound, Unavailable
from loopwright.ledger import Ledger
from loopwright.lineage.context import recorder
from loopwright.lineage.fingerprints import fingerprint
from loopwright.lineage.history import READ
from loopwright.records import DatasetRef

__all__ = ["path_of", "read_snapshot", "snapshot"]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def path_of(project: Project, digest: str) -> Path:
    """Return where the snapshot with this fingerprint lies."""
    return project.datasets / digest[:2] / f"{digest}.parquet"


def snapshot(
    project: Project, table: pa.Table, name: str, source: str, source_digest: str = ""
) -> DatasetRef:
    """Keep a table, once however often it is given, and note it in the ledger and in the running pipeline.

    Parameters
    ----------
    name
        What people call the dataset.
    source
        Where it came from: a file below the project, or a description such as ``predictions:digits``; empty when
        that is not known. A source that is known for the same content already is kept.
    source_digest
        SHA-256 of the source file's bytes; empty when the source is no file.

    Raises
    ------
    InvalidInput
        The table has no columns, or two columns of one name, or a type that Parquet cannot keep.
    Denied
        The project's state folder cannot be written to.
    Unavailable
        The disk is full. Nothing half-written is left.
    """
    if not table.num_columns or len(set(table.column_names)) != table.num_columns:
        raise InvalidInput(
            f"The dataset {name!r} has the columns {table.column_names}.",
            valid="A dataset has at least one column, and no two of one name.",
        )
    digest = fingerprint(table)
    path = path_of(project, digest)
    if not path.is_file():
        _write(table, path, name)
    ref = DatasetRef(
        name=name,
        digest=digest,
        rows=table.num_rows,
        columns=tuple(table.column_names),
        source=source,
        source_digest=source_digest,
        snapshot=path.relative_to(project.root).as_posix(),
    )
    ref = _note(project, ref)
    if running := recorder.get():
        running.add(ref)
    return ref


def _note(project: Project, ref: DatasetRef) -> DatasetRef:
    ledger = Ledger.open(project)
    try:
        state = ledger.get("dataset", ref.digest)
        known = state.read(DatasetRef) if state else None
        if known and known.source and not ref.source:
            # The same rows under a second name: where they came from stays known.
            ref = dataclasses.replace(ref, source=known.source, source_digest=known.source_digest)
        else:
            ledger.put("dataset", ref.digest, ref)
        last = ledger.last(READ, ref.name)
        if last is None or last.payload["digest"] != ref.digest:
            ledger.append(READ, ref.name, ref)
        return ref
    finally:
        ledger.close()


def _write(table: pa.Table, path: Path, name: str) -> None:
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(_writable(table), temporary, compression="zstd")
        temporary.replace(path)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InvalidInput(
            f"The dataset {name!r} cannot be kept as Parquet: {error}.",
            valid="A column holds numbers, text, booleans, dates or lists of these.",
        ) from error
    except OSError as error:
        if error.errno in _FULL:
            raise Unavailable(
                f"The disk is full: the snapshot of the dataset {name!r} ({table.nbytes / 1e6:.0f} MB in memory) cannot "
                f"be written to {path.parent}.",
                valid="Nothing half-written is left, and what was kept before is whole.",
                hint=f"df -h {path.parent}",
            ) from error
        raise Denied(f"{path} cannot be written: {error}.", hint=f"ls -ld {path.parent}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _writable(table: pa.Table) -> pa.Table:
    """Return a table with the same content in types that Parquet gives back."""
    for index, field in enumerate(table.schema):
        kind, column = field.type, table.column(index)
        if pa.types.is_dictionary(kind) and isinstance(kind.value_type, pa.BaseExtensionType):
            # Categories that are intervals, for instance, as pandas.cut makes them.
            values = [chunk.dictionary.take(chunk.indices) for chunk in column.chunks]
            table = table.set_column(index, field.name, pa.chunked_array(values, type=kind.value_type))
        elif pa.types.is_fixed_size_list(kind):
            # A missing list of fixed size can be written but not read.
            table = table.set_column(index, field.name, column.cast(pa.large_list(kind.value_type)))
    return table


def read_snapshot(project: Project, digest: str) -> pa.Table:
    """Return the table with this fingerprint, after checking that it still has it.

    Raises
    ------
    NotFound
        There is no such snapshot.
    Damaged
        The file cannot be read, or its content has another fingerprint.
    """
    path = path_of(project, digest)
    again = "run the pipeline again to take a new snapshot"
    if not path.is_file():
        raise NotFound(f"There is no snapshot of the dataset {digest[:16]}: {path} is missing.", hint=again)
    # A file that is there is not written a second time.
    hint = f"rm {path}, then {again}"
    try:
        table = pq.ParquetFile(path).read()
        # Damaged offsets and indices point outside of the file's data: hashing would follow them.
        table.validate(full=True)
        found = fingerprint(table)
    except (pa.ArrowException, OSError, ValueError, InvalidInput) as error:
        raise Damaged(f"The snapshot {path} cannot be read: {error}.", hint=hint, digest=digest) from error
    if found != digest:
        raise Damaged(
            f"The snapshot {path} has the fingerprint {found[:16]}, not {digest[:16]}.",
            hint=hint,
            digest=digest,
        )
    return table
