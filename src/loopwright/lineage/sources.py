"""`dataset`: reading the data a model learns from, so that it can be found again exactly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import pyarrow as pa

from loopwright import plugins
from loopwright.config import Project
from loopwright.errors import InvalidInput, NotFound
from loopwright.lineage.addresses import scheme_of, without_secrets
from loopwright.lineage.context import is_plain, recorder
from loopwright.lineage.restored import restored
from loopwright.lineage.snapshots import read_snapshot, snapshot

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from loopwright.lineage.files import Found

__all__ = ["dataset", "read_source", "table_from"]

Kind = Literal["pandas", "polars", "arrow"]


@overload
def dataset(
    name: str, source: pl.DataFrame | pl.LazyFrame, *, as_: None = None, project: Project | None = None
) -> pl.DataFrame: ...
@overload
def dataset(
    name: str,
    source: str | Path | pd.DataFrame | pa.Table | None = None,
    *,
    sql: str | None = None,
    as_: Literal["pandas"] | None = None,
    project: Project | None = None,
) -> pd.DataFrame: ...
@overload
def dataset(
    name: str,
    source: Any = None,
    *,
    sql: str | None = None,
    as_: Literal["polars"],
    project: Project | None = None,
) -> pl.DataFrame: ...
@overload
def dataset(
    name: str,
    source: Any = None,
    *,
    sql: str | None = None,
    as_: Literal["arrow"],
    project: Project | None = None,
) -> pa.Table: ...


def dataset(
    name: str,
    source: Any = None,
    *,
    sql: str | None = None,
    as_: Kind | None = None,
    project: Project | None = None,
) -> Any:
    """Read a dataset, keep a snapshot of it, and write down where it came from.

    Parameters
    ----------
    name
        What the dataset is called in the lineage.
    source
        A CSV or Parquet file or a folder of part files, relative to the project folder; ``s3://bucket/key.parquet``;
        ``postgresql://...`` or ``sqlite:///...`` with ``?query=select ...`` or with `sql`; or a table that was made
        in some other way. Passwords are written as ``${NAME}`` and taken from the environment.
    sql
        The query, where `source` is a database.
    as_
        ``pandas``, ``polars`` or ``arrow``. By default what was given comes back as what it was, and files and
        queries as pandas frames.
    project
        By default the project of the current folder.

    Returns
    -------
    pandas.DataFrame, polars.DataFrame or pyarrow.Table
        The rows. The snapshot holds exactly these.

    Raises
    ------
    NotFound
        There is no such file, object, table or database; the message names the nearest.
    InvalidInput
        It cannot be read as a table, has no rows, or has values that cannot be kept; or the address holds a password.
    Conflict
        The source was being written, twice in a row.
    Denied, Unavailable
        The source may not be read, or does not answer; the disk is full.

    Examples
    --------
    >>> orders = dataset("orders", "data/orders.parquet")  # doctest: +SKIP
    >>> orders = dataset("orders", sql="select * from orders", source="sqlite:///shop.db")  # doctest: +SKIP
    """
    if as_ not in (None, "pandas", "polars", "arrow"):
        raise InvalidInput(
            f"A dataset cannot be given back as {as_!r}.", valid="Valid: 'pandas', 'polars', 'arrow'."
        )
    project = project or Project.find()
    if kept := restored(name, source):
        table = read_snapshot(project, kept.digest)
        where, digest = kept.source, kept.source_digest
    elif isinstance(source, str | Path):
        found = read_source(project, str(source), sql)
        table, where, digest = found.table, found.source, found.digest
    else:
        table, where, digest = _given(source, sql), "", ""
    table = _as(table, as_ or (_kind(source) if not isinstance(source, str | Path) else "pandas"))
    if not len(table):
        raise InvalidInput(f"The dataset {name!r} has no rows.", hint="check the source")
    if is_plain():
        return table
    ref = snapshot(project, table_from(table, name), name, where, digest)
    if running := recorder.get():
        running.remember(table, ref.digest)
    return table


def read_source(project: Project, source: str, sql: str | None = None) -> Found:
    """Read a file, folder, object or query as it is now, without a snapshot; parameters and errors as for `dataset`."""
    scheme = scheme_of(source)
    if scheme in {"sqlite", "postgresql", "postgres"} and sql:
        source += f"{'&' if '?' in source else '?'}query={sql}"
    elif sql:
        raise InvalidInput(
            f"A query needs a database, and {source} is none.",
            valid="source='postgresql://user@host/database' or 'sqlite:///file.db'",
        )
    try:
        read = plugins.load("dataset_source", scheme or "file")
    except NotFound as error:
        raise InvalidInput(f"{without_secrets(source)}: {error.fact}", valid=error.valid) from None
    found: Found = read(project, without_secrets(source) if scheme else source)
    return found


def _given(source: Any, sql: str | None) -> Any:
    if source is None or sql:
        raise InvalidInput(
            "A dataset needs a source.",
            valid='dataset(name, "file.parquet"), dataset(name, frame), or '
            'dataset(name, sql="select ...", source="sqlite:///file.db").',
        )
    if hasattr(source, "collect_schema") and hasattr(source, "collect"):
        return source.collect()  # a polars LazyFrame
    if not isinstance(source, pa.Table) and not hasattr(source, "iloc") and not hasattr(source, "to_arrow"):
        raise InvalidInput(
            f"A dataset cannot be read from a {type(source).__name__}.",
            valid="Valid: the path of a CSV or Parquet file, a pandas DataFrame, an Arrow or polars table.",
        )
    return source.to_frame() if getattr(source, "ndim", 2) == 1 else source


def _kind(table: Any) -> Kind:
    if isinstance(table, pa.Table):
        return "arrow"
    return "pandas" if hasattr(table, "iloc") else "polars"


def _as(table: Any, wanted: Kind) -> Any:
    """Return a table as the kind that is wanted; what is of that kind already is returned as it is."""
    if _kind(table) == wanted:
        return table
    if wanted == "pandas":
        return table.to_pandas()
    arrow = table_from(table)
    if wanted == "arrow":
        return arrow
    try:
        import polars
    except ModuleNotFoundError as error:
        raise InvalidInput("polars is not installed.", hint="uv add polars") from error
    return polars.from_arrow(arrow)


def table_from(frame: Any, name: str = "") -> pa.Table:
    """Return a pandas or polars frame as an Arrow table. An index without a name is not content and is left out.

    Raises
    ------
    InvalidInput
        A column mixes types, or a column name is no text.
    """
    if isinstance(frame, pa.Table):
        return frame
    try:
        if hasattr(frame, "to_arrow"):
            return _from_polars(frame)
        if any(label is not None for label in frame.index.names):
            frame = frame.reset_index()
        if any(not isinstance(label, str) for label in frame.columns):
            frame = frame.set_axis([str(label) for label in frame.columns], axis=1)
        return pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InvalidInput(
            f"The dataset {name!r} cannot be kept: {error.args[0] if error.args else error}",
            valid="A column holds values of one type: numbers, text, booleans, dates or lists of these.",
            hint="frame.astype({'<column>': str})",
        ) from error


def _from_polars(frame: pl.DataFrame) -> pa.Table:
    import polars

    # The oldest form: Parquet and older readers know nothing of text views.
    return frame.to_arrow(compat_level=polars.CompatLevel.oldest())
