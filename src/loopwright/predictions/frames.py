"""`lw.predictions`: the prediction log in Python, as Arrow, polars, pandas or a DuckDB relation."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time
from typing import Any

from loopwright.config import Project, parse_duration
from loopwright.errors import InvalidInput, Unavailable
from loopwright.predictions.columns import rows_of
from loopwright.predictions.store import PredictionStore
from loopwright.records import now

__all__ = ["PredictionFrame", "moment", "predictions"]

_SHOWN = 10


def moment(given: date | str | None, name: str) -> datetime | None:
    """Return a moment that was given as one, or as text.

    Parameters
    ----------
    given
        A datetime with a zone; a date, which begins at midnight UTC; ``"2026-11-01"`` or ``"2026-11-01T12:30"``, which are UTC where they name no zone; or a span
        such as ``"7d"`` or ``"90m"``, which means so long ago.
    name
        What it is, for messages.

    Raises
    ------
    InvalidInput
        It is nothing of that.
    """
    if given is None:
        return None
    if isinstance(given, datetime):
        if given.tzinfo is None:
            raise InvalidInput(
                f"{name} = {given.isoformat()} has no time zone.", valid="Use datetime.now(UTC), for example."
            )
        return given
    if isinstance(given, date):
        return datetime.combine(given, time(), UTC)
    try:
        return now() - parse_duration(given)
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(given.strip())
    except ValueError:
        raise InvalidInput(
            f"{name} = {given!r} is no moment.",
            valid="Write '2026-11-01', '2026-11-01T12:30+01:00', or a span such as '7d' for so long ago.",
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


class PredictionFrame:
    """Some predictions of a project with their labels, read when they are asked for, as they are at that moment.

    Examples
    --------
    ::

        frame = lw.predictions("demand-api", since="7d")
        frame.count()
        frame.pandas(columns=["at", "prediction", "actual"])
        frame.duckdb().aggregate("version, count(*), avg((prediction - actual) ** 2)")
        frame.sql("select version, avg(actual = prediction) from predictions group by version")
    """

    def __init__(
        self,
        store: PredictionStore,
        *,
        deployment: str | None = None,
        model: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        shadows: bool = False,
    ) -> None:
        self._store = store
        self._which: dict[str, Any] = {
            "deployment": deployment,
            "model": model,
            "since": since,
            "until": until,
        }
        self._shadows = shadows

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self._store.columns(**self._which, shadows=self._shadows))

    def count(self) -> int:
        """Return how many predictions there are; no column is read for it."""
        view = "shadows" if self._shadows else "predictions"
        found = self._store.query(f"select count(*) from {view}", **self._which)
        return int(found.column(0)[0].as_py())

    def arrow(self, columns: Sequence[str] | None = None) -> Any:
        """Return them as a `pyarrow.Table`, oldest first; of `columns`, where they are given, only these."""
        return self._store.table(**self._which, columns=columns, shadows=self._shadows)

    def batches(self, columns: Sequence[str] | None = None, rows: int = 65_536) -> Iterator[Any]:
        """Yield them as Arrow record batches of at most so many rows, oldest first, in little memory."""
        yield from self._store.batches(**self._which, columns=columns, shadows=self._shadows, rows=rows)

    def pandas(self, columns: Sequence[str] | None = None) -> Any:
        """Return them as a pandas DataFrame, oldest first."""
        return self.arrow(columns).to_pandas()

    def polars(self, columns: Sequence[str] | None = None) -> Any:
        """Return them as a polars DataFrame, oldest first.

        Raises
        ------
        Unavailable
            polars is not installed.
        """
        try:
            import polars
        except ImportError as error:
            raise Unavailable(
                "polars is not installed.", valid="arrow() and pandas() work without.", hint="uv add polars"
            ) from error
        return polars.from_arrow(self.arrow(columns))

    def duckdb(self) -> Any:
        """Return them as a DuckDB relation, for further queries; it can read nothing but these predictions."""
        return self._store.relation(**self._which, shadows=self._shadows)

    def sql(self, query: str, *, limit_rows: int | None = None, timeout_s: float | None = None) -> Any:
        """Return the result of one SELECT over the view `predictions` as a `pyarrow.Table`, see `PredictionStore.query`."""
        return self._store.query(query, **self._which, limit_rows=limit_rows, timeout_s=timeout_s)

    def _newest(self) -> list[dict[str, Any]]:
        columns = ["at", "deployment", "version", "variant", "prediction", "actual", "latency_ms"]
        return rows_of(
            self._store.table(**self._which, columns=columns, newest=_SHOWN, shadows=self._shadows)
        )

    def __repr__(self) -> str:
        given = [f"{name}={value!s}" for name, value in self._which.items() if value is not None]
        return f"PredictionFrame({', '.join(given)}: {self.count():,} rows, {len(self.columns)} columns)"

    def _repr_html_(self) -> str:
        rows = self._newest()
        lines = [f"<p>{html.escape(repr(self))}; the newest:</p>"]
        if rows:
            head = "".join(f"<th>{html.escape(name)}</th>" for name in rows[0])
            body = "".join(
                f"<tr>{''.join(f'<td>{html.escape(_shown(value))}</td>' for value in row.values())}</tr>"
                for row in reversed(rows)
            )
            lines.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
        return "".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def predictions(
    deployment: str | None = None,
    *,
    since: date | str | None = None,
    until: date | str | None = None,
    model: str | None = None,
    shadows: bool = False,
    project: Project | None = None,
) -> PredictionFrame:
    """Return the logged predictions of a deployment with their labels.

    Parameters
    ----------
    deployment, model
        Only their predictions; without, those of all.
    since, until
        Only predictions made at or after `since` and before `until`: a datetime with a zone, a text such as
        ``"2026-11-01"``, which is UTC, or a span such as ``"7d"``, so long ago.
    shadows
        What shadow variants predicted, instead.
    project
        The project; by default the one around the working folder.

    Raises
    ------
    NotFound
        There is no such deployment, or no project.
    InvalidInput
        `since` or `until` is no moment, or they are the wrong way round.

    Examples
    --------
    ::

        import loopwright as lw

        lw.predictions("demand-api", since="2026-11-01", until="2026-11-08").pandas()
    """
    project = project or Project.find()
    first, end = moment(since, "since"), moment(until, "until")
    if first is not None and end is not None and first >= end:
        raise InvalidInput(
            f"since = {first.isoformat()} is not before until = {end.isoformat()}.",
            valid="until is left out of the span.",
        )
    frame = PredictionFrame(
        PredictionStore(project), deployment=deployment, model=model, since=first, until=end, shadows=shadows
    )
    if deployment is not None:
        frame._store.known(deployment)
    return frame
