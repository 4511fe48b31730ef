"""Reading predictions and labels, from any process, without a lock on those who write."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import pyarrow as pa

from loopwright.config import Project
from loopwright.errors import InvalidInput, NotFound, listing
from loopwright.ledger import Ledger
from loopwright.predictions import columns as arrays
from loopwright.predictions import files
from loopwright.predictions.files import LogFolder
from loopwright.predictions.ids import HOLDOUT_DIGITS, Ids
from loopwright.predictions.schema import INPUT, Layout, table_schema
from loopwright.predictions.sql import (
    LABEL_SLACK_US,
    Selection,
    Snapshot,
    View,
    asks_shadows,
    read_snapshot,
    text,
)
from loopwright.records import ModelVersion, Prediction

__all__ = ["PredictionStore"]

#: An id tells when it was issued; the row's own time is within this of it, unless the caller set another.
_ID_SLACK_US = 3600 * 1_000_000


class PredictionStore:
    """The predictions of a project with their labels, as they are at the moment of each call.

    A call sees every row that was acknowledged before it began, once, also while writers append and seal. Nothing is
    kept between calls. Columns: `prediction_id`, `at`, `deployment`, `model`, `version`, `variant`, `propensity`,
    `entity`, `request_id`, `latency_ms`, one `input_<feature>` per input, `prediction`, `probability`, `actual` (the
    label that arrived last, null without one) and `labelled_at` (when it arrived). Versions with other inputs are put
    together by name, with nulls.

    What shadow variants predict is never among the predictions. It has the same columns and the ids of the predictions
    it stands beside: the view `shadows` of `query`, or `shadows=True` of `table` and `count`.
    """

    def __init__(self, project: Project) -> None:
        self._project = project

    def query(
        self,
        sql: str,
        *,
        deployment: str | None = None,
        model: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        """Return the result of one SELECT in DuckDB's SQL as a `pyarrow.Table`.

        Parameters
        ----------
        sql
            One SELECT over the views `predictions`, `shadows` (what shadow variants predicted on the same rows, under
            the same ids) and `labels` (every label that arrived: `prediction_id`, `number`, `text`, `at`,
            `received_at`). It can read nothing else, no file either, and change nothing.
        deployment, model
            Only their predictions.
        since, until
            Only predictions made at or after `since` and before `until`; segments outside are not opened.
        timeout_s
            After so many seconds the query is stopped; > 0. None waits.

        Raises
        ------
        InvalidInput
            The text is not one SELECT or does not work; the message names the columns there are. Or it took too long.
        NotFound
            There is no such deployment.

        Examples
        --------
        Accuracy by version::

            store.query("select version, avg((actual = prediction)::int) from predictions group by version")

        How often a shadow agrees with the answer that was given::

            store.query("select avg(p.prediction = s.prediction) from predictions p join shadows s using (prediction_id)")
        """
        with self._view(deployment, model, since, until, beside=asks_shadows(sql)) as view:
            return view.ask(sql, timeout_s)

    def view(
        self,
        *,
        deployment: str,
        since: datetime | None = None,
        until: datetime | None = None,
        labels: bool = True,
    ) -> View:
        """Open one moment of the log for several queries; a context manager. Raises as `query` does.

        Without `labels` no row has one, and no file of labels is read.
        """
        return self._view(deployment, None, since, until, labels=labels)

    def table(
        self,
        *,
        deployment: str | None = None,
        model: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        labelled: bool = False,
        labelled_since: datetime | None = None,
        split: Literal["train", "holdout"] | None = None,
        newest: int | None = None,
        columns: Sequence[str] | None = None,
        shadows: bool = False,
    ) -> Any:
        """Return predictions as a `pyarrow.Table`, oldest first.

        Parameters
        ----------
        deployment, model, since, until
            As for `query`.
        labelled, labelled_since
            Only rows that have a label; only those whose present label arrived at or after this moment.
        split
            Only the rows of one split, which is fixed by the id: one row in four is in the holdout.
        newest
            At most so many rows, the newest ones; >= 1.
        columns
            Only these columns, in this order.
        shadows
            What shadow variants predicted, instead of the predictions.

        Raises
        ------
        InvalidInput
            There is no such column, or `newest` is below 1.
        NotFound
            There is no such deployment.
        """
        where = ["true"]
        where += ["actual is not null"] if labelled or labelled_since is not None else []
        if labelled_since is not None:
            where.append(f"labelled_at >= make_timestamptz({_micros(labelled_since, 'labelled_since')})")
        if split is not None:
            negation = {"train": "not ", "holdout": ""}[split]
            digits = ", ".join(text(digit) for digit in HOLDOUT_DIGITS)
            where.append(f"right(prediction_id, 1) {negation}in ({digits})")
        if newest is not None and newest < 1:
            raise InvalidInput(f"newest = {newest} is not a number of rows.", valid="It is 1 or more.")
        with self._view(deployment, model, since, until, shadows=shadows) as view:
            names = list(view.columns())
            wanted = _known(columns, names) if columns is not None else names
            rows = f"select * from predictions where {' and '.join(where)}"
            if newest is not None:
                rows = f'select * from ({rows}) order by "at" desc, prediction_id desc limit {int(newest)}'
            return view.table(
                f'select {", ".join(_quoted(name) for name in wanted)} from ({rows}) order by "at", prediction_id'
            )

    def find(self, prediction_id: str) -> Prediction:
        """Return one prediction with its inputs and its label.

        Raises
        ------
        NotFound
            It is not in the log.
        """
        found = self._locate(prediction_id)
        if found is None:
            raise NotFound(
                f"There is no prediction {prediction_id[:64]!r} in the log.",
                hint="loopwright prediction list",
                prediction_id=prediction_id[:64],
            )
        labels = read_snapshot([LogFolder(self._project.labels)])
        with View(found, labels, table_schema(), Selection(prediction_id=prediction_id)) as view:
            return _prediction(arrays.rows_of(view.table("select * from predictions limit 1"))[0])

    def count(
        self,
        *,
        deployment: str | None = None,
        since: datetime | None = None,
        labelled: bool = False,
        shadows: bool = False,
    ) -> int:
        """Return how many predictions there are, or with `labelled` how many of them have a label.

        With `shadows` those of shadow variants are counted instead.

        Raises
        ------
        NotFound
            There is no such deployment.
        """
        with self._view(deployment, None, since, None, labels=labelled, shadows=shadows) as view:
            what = "count(actual)" if labelled else "count(*)"
            return int(view.table(f"select {what} from predictions").column(0)[0].as_py())

    def logged(self, prediction_ids: Sequence[str], *, deployment: str | None = None) -> set[str]:
        """Return which of these ids are in the log already, for a caller that repeats work after a crash.

        Raises
        ------
        NotFound
            There is no such deployment.
        """
        with self._view(deployment, None, None, None, labels=False) as view:
            ids = arrays.strings(list(prediction_ids))
            view.register("asked", pa.Table.from_arrays([ids], names=["prediction_id"]))
            found = view.table(
                "select distinct prediction_id from predictions semi join asked using (prediction_id)"
            )
            return set(found.column(0).to_pylist())

    def rates(
        self,
        *,
        deployment: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        every_s: int = 60,
    ) -> Any:
        """Return traffic per interval, deployment, version and variant as a `pyarrow.Table`, oldest first.

        Columns: `start` (of the interval of `every_s` seconds, >= 1), `deployment`, `version`, `variant`, `rows`,
        `labelled` (rows with a label), `latency_p50_ms` and `latency_p99_ms`. Intervals without rows are left out.

        Raises
        ------
        NotFound
            There is no such deployment.
        """
        step = max(1, int(every_s)) * 1_000_000
        with self._view(deployment, None, since, until) as view:
            return view.table(f"""
                select make_timestamptz(epoch_us("at") // {step} * {step}) as start, deployment, version, variant,
                       count(*) as rows, count(actual) as labelled,
                       quantile_cont(latency_ms, 0.5) as latency_p50_ms,
                       quantile_cont(latency_ms, 0.99) as latency_p99_ms
                from predictions group by 1, 2, 3, 4 order by 1, 2, 3, 4
            """)

    def _view(
        self,
        deployment: str | None,
        model: str | None,
        since: datetime | None,
        until: datetime | None,
        *,
        labels: bool = True,
        shadows: bool = False,
        beside: bool = False,
    ) -> View:
        """Open the log: of predictions, or with `shadows` of shadows in their place; with `beside` of both."""
        since_us, until_us = _micros(since, "since"), _micros(until, "until")
        found = read_snapshot(self._folders(deployment, shadows), since_us, until_us)
        apart = read_snapshot(self._folders(deployment, True), since_us, until_us) if beside else None
        given = Snapshot()
        if labels:
            earliest = since_us - LABEL_SLACK_US if since_us is not None else None
            given = read_snapshot([LogFolder(self._project.labels)], earliest)
        bare = any(not (one.segments or one.tables) for one in (found, apart) if one is not None)
        empty = self._declared(deployment, model) if bare else None
        return View(found, given, empty, Selection(deployment, model, since_us, until_us), apart)

    def _folders(self, deployment: str | None, shadow: bool = False) -> list[LogFolder]:
        if deployment is None:
            logged = files.deployments(self._project, shadow)
            return [files.of_deployment(self._project, name, shadow) for name in logged]
        known = {*files.deployments(self._project), *self._project.config.deployment}
        if deployment not in known:
            raise NotFound.among("deployment", deployment, sorted(known), hint="loopwright deployment list")
        return [files.of_deployment(self._project, deployment, shadow)]

    def _declared(self, deployment: str | None, model: str | None) -> Any:
        """Return the columns of a log without rows: those of the model's newest version, where one is known."""
        configured = self._project.config.deployment.get(deployment or "")
        model = model or (configured.model if configured else None)
        ledger = Ledger.open(self._project)
        try:
            versions = [state.read(ModelVersion) for state in ledger.states("model_version")]
        finally:
            ledger.close()
        known = [found for found in versions if found.signature and model in {None, found.model}]
        if not known:
            return table_schema()
        newest = max(known, key=lambda found: found.created)
        assert newest.signature is not None
        return Layout.of(deployment or "", newest.model, newest.signature).table_schema

    def _locate(self, prediction_id: str) -> Snapshot | None:
        folders = self._folders(None)
        spans: list[tuple[int | None, int | None]] = [(None, None)]
        if len(prediction_id) == 32 and set(prediction_id) <= set("0123456789abcdef"):
            at_us = Ids.time_us(prediction_id)
            spans.insert(0, (at_us - _ID_SLACK_US, at_us + _ID_SLACK_US))
        for since_us, until_us in spans:
            with View(
                read_snapshot(folders, since_us, until_us), Snapshot(), table_schema(), Selection()
            ) as view:
                found = view.locate(prediction_id)
            if found is not None:
                return found
        return None


def _micros(moment: datetime | None, name: str) -> int | None:
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise InvalidInput(
            f"{name} = {moment.isoformat()} has no time zone.", valid="Use datetime.now(UTC), for example."
        )
    return round(moment.timestamp() * 1e6)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _known(wanted: Sequence[str], names: list[str]) -> list[str]:
    for name in wanted:
        if name not in names:
            raise InvalidInput(
                f"The prediction log has no column {name!r}.", valid=f"Columns: {listing(names, most=40)}."
            )
    return list(wanted)


def _prediction(row: dict[str, Any]) -> Prediction:
    probability = row["probability"]
    return Prediction(
        prediction_id=row["prediction_id"],
        at=row["at"],
        deployment=row["deployment"],
        model=row["model"],
        version=row["version"],
        variant=row["variant"],
        propensity=row["propensity"],
        entity=row["entity"],
        latency_ms=row["latency_ms"],
        inputs={name.removeprefix(INPUT): value for name, value in row.items() if name.startswith(INPUT)},
        prediction=row["prediction"],
        probability=tuple(probability) if probability is not None else None,
        actual=row["actual"],
        labelled=row["labelled_at"],
    )
