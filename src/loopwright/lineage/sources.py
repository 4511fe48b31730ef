"""`dataset`: reading the data a model learns from, so that it can be found again exactly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from loopwright.config import Project
from loopwright.errors import Denied, InvalidInput, NotFound, listing, nearest
from loopwright.lineage.context import recorder
from loopwright.lineage.digests import file_digest
from loopwright.lineage.restored import restored
from loopwright.lineage.snapshots import read_snapshot, snapshot

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["dataset", "table_from"]

_CSV = (".csv", ".csv.gz", ".csv.zst", ".tsv")
_PARQUET = (".parquet", ".pq")


def dataset(
    name: str, source: str | Path | pd.DataFrame | pa.Table, *, project: Project | None = None
) -> pd.DataFrame:
    """Read a dataset, keep a snapshot of it, and write down where it came from.

    Parameters
    ----------
    name
        What the dataset is called in the lineage.
    source
        A CSV or Parquet file, relative to the project folder, or a table that was made in some other way.
    project
        By default the project of the current folder.

    Returns
    -------
    pandas.DataFrame
        The rows, as pandas reads them. The snapshot holds exactly these.

    Raises
    ------
    NotFound
        There is no such file; the message names the nearest.
    InvalidInput
        The file is no CSV or Parquet file, or holds no rows; or the table has values that cannot be kept.
    """
    project = project or Project.find()
    frame: pd.DataFrame
    if kept := restored(name, source):
        frame, where, digest = (
            read_snapshot(project, kept.digest).to_pandas(),
            kept.source,
            kept.source_digest,
        )
    elif isinstance(source, (str, Path)):
        path = _find(project, Path(source))
        frame = _read(path)
        where, digest = _relative(project, path), file_digest(path)
    else:
        frame, where, digest = _frame(source), "", ""
    if not len(frame):
        raise InvalidInput(f"The dataset {name!r} has no rows.", hint="check the source")
    ref = snapshot(project, table_from(frame, name), name, where, digest)
    if running := recorder.get():
        running.remember(frame, ref.digest)
    return frame


def table_from(frame: Any, name: str = "") -> pa.Table:
    """Return a pandas frame as an Arrow table. An index without a name is not content and is left out.

    Raises
    ------
    InvalidInput
        A column mixes types, or a column name is no text.
    """
    if isinstance(frame, pa.Table):
        return frame
    if any(label is not None for label in frame.index.names):
        frame = frame.reset_index()
    strange = [label for label in frame.columns if not isinstance(label, str)]
    if strange:
        frame = frame.set_axis([str(label) for label in frame.columns], axis=1)
    try:
        return pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InvalidInput(
            f"The dataset {name!r} cannot be kept: {error.args[0] if error.args else error}",
            valid="A column holds values of one type: numbers, text, booleans, dates or lists of these.",
            hint="frame.astype({'<column>': str})",
        ) from error


def _frame(source: Any) -> pd.DataFrame:
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        return source
    if hasattr(source, "to_pandas"):
        frame: pd.DataFrame = source.to_pandas()
        return frame
    raise InvalidInput(
        f"A dataset cannot be read from a {type(source).__name__}.",
        valid="Valid: the path of a CSV or Parquet file, a pandas DataFrame, an Arrow or polars table.",
    )


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
    return found


def _relative(project: Project, path: Path) -> str:
    path = path.resolve()
    return path.relative_to(project.root).as_posix() if path.is_relative_to(project.root) else str(path)


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    name = path.name.lower()
    known = name.endswith(_CSV) or name.endswith(_PARQUET)
    if not known or path.is_dir():
        raise InvalidInput(
            f"{path} is no file that can be read as a table.",
            valid=f"Endings: {listing((*_CSV, *_PARQUET))}.",
            hint="read it yourself and give the DataFrame: loopwright.dataset(name, frame)",
        )
    try:
        if name.endswith(_PARQUET):
            return pd.read_parquet(path)
        return pd.read_csv(path, sep="\t" if name.endswith(".tsv") else ",")
    except PermissionError as error:
        raise Denied(f"{path} cannot be read: {error.strerror}.", hint=f"ls -l {path}") from error
    except (ValueError, OSError, pa.ArrowException) as error:
        # pandas' parser errors and wrong encodings are ValueErrors; a broken archive is an OSError.
        kind = "Parquet" if name.endswith(_PARQUET) else "CSV"
        raise InvalidInput(
            f"{path} is no readable {kind} file: {' '.join(str(error).split())}",
            hint=f"head -c 200 {path}",
        ) from error
