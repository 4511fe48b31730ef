"""Reading predictions and labels, from any process, without a lock on those who write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from loopwright.config import Project
from loopwright.errors import InvalidInput, NotFound, listing
from loopwright.ledger import Ledger
from loopwright.predictions import columns as arrays
from loopwright.predictions import files, label_history
from loopwright.predictions.extents import Extent, extent_of
from loopwright.predictions.files import LogFolder
from loopwright.predictions.ids import HOLDOUT_DIGITS, Ids
from loopwright.predictions.label_history import GivenLabel, LabelSummary
from loopwright.predictions.retention import what_became
from loopwright.predictions.schema import INPUT, Layout, table_schema
from loopwright.predictions.snapshots import Snapshot, read_snapshot, steady
from loopwright.predictions.sql import (
    LABEL_SLACK_US,
    EntityLabels,
    Selection,
    View,
    asks_shadows,
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

    @property
    def root(self) -> Path:
        """The project's folder."""
        return self._project.root

    @steady
    def query(
        self,
        sql: str,
        *,
        deployment: str | None = None,
        model: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit_rows: int | None = None,
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
        limit_rows
            At most so many rows of the result are computed and returned, >= 1.
        timeout_s
            After so many seconds the query is stopped, > 0.

        Raises
        ------
        InvalidInput
            The text is not one SELECT or does not work, and the message names the columns there are; or it took too long.
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
            return view.ask(sql, timeout_s, limit_rows=limit_rows)

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

    @steady
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

    @steady
    def columns(self, *, shadows: bool = False, **which: Any) -> dict[str, str]:
        """Return the columns of predictions with their DuckDB types; parameters as for `table`."""
        with self._view(**_selected(which), shadows=shadows, labels=False) as view:
            return view.columns()

    def batches(
        self, *, columns: Sequence[str] | None = None, shadows: bool = False, rows: int = 65_536, **which: Any
    ) -> Iterator[Any]:
        """Yield predictions as Arrow record batches of at most `rows` rows, oldest first, the first of them maybe empty.

        Parameters as for `table`. Memory stays the same however many there are.

        Raises
        ------
        Unreadable
            Segments were replaced meanwhile; start again.
        """
        with self._view(**_selected(which), shadows=shadows) as view:
            names = list(view.columns())
            wanted = ", ".join(_quoted(name) for name in (_known(columns, names) if columns else names))
            yield from view.batches(f'select {wanted} from predictions order by "at", prediction_id', rows)

    def relation(self, *, shadows: bool = False, **which: Any) -> Any:
        """Return predictions as a DuckDB relation on a connection of its own, which can read nothing else.

        Parameters as for `table`. Its rows are those of the moment of the call.
        """
        return self._view(**_selected(which), shadows=shadows).relation()

    def known(self, deployment: str) -> None:
        """Raise `NotFound` where there is no such deployment."""
        self._folders(deployment)

    @steady
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
                valid=what_became(self._project, prediction_id),
                hint="loopwright prediction list",
                prediction_id=prediction_id[:64],
            )
        with self._one(found, prediction_id) as view:
            return _prediction(arrays.rows_of(view.table("select * from predictions limit 1"))[0])

    @steady
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

    def extent(self, deployment: str | None = None, *, shadows: bool = False) -> Extent:
        """Return how many predictions there are, from when to when, in how many files; no segment is opened for it.

        Raises
        ------
        NotFound
            There is no such deployment.
        """
        return extent_of(self._folders(deployment, shadows))

    @steady
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

    @steady
    def labels_of(self, prediction_id: str) -> list[GivenLabel]:
        """Return every label of one prediction in the order they were received: the last one counts.

        Those of an id that is not in the log are returned too, without a type.
        """
        found = self._locate(prediction_id)
        with self._one(found or Snapshot(), prediction_id) as view:
            return label_history.history(view, prediction_id)

    @steady
    def label_summary(
        self,
        deployment: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        unknown: bool = True,
    ) -> LabelSummary:
        """Count what became of the labels of the predictions made at or after `since` and before `until`.

        Parameters
        ----------
        deployment
            Only its predictions.
        unknown
            Whether to look for labels without a prediction, of those that arrived at or after `since` and before
            `until`. It is the dearest part: their ids are looked up in the whole log.

        Raises
        ------
        NotFound
            There is no such deployment.
        """
        with self._view(deployment, None, since, until) as view:
            found = label_history.summary(view)
        return replace(found, unknown=self._unknown(deployment, since, until)) if unknown else found

    def _unknown(self, deployment: str | None, since: datetime | None, until: datetime | None) -> int:
        limits = [
            f"{column} {sign} make_timestamptz({_micros(moment, name)})"
            for column, sign, moment, name in (
                ("received_at", ">=", since, "since"),
                ("received_at", "<", until, "until"),
            )
            if moment is not None
        ]
        where = " and ".join(["true", *limits])
        mine = f"and labels.deployment = {text(deployment)}" if deployment is not None else ""
        with self._view(None, None, None, None) as view:
            count = view.table(f"""
                select count(*) from (
                    select prediction_id from labels
                    where {where} and (entity is null or prediction_id is null {mine})
                ) as given anti join logged using (prediction_id)
            """)
        return int(count.column(0)[0].as_py())

    @steady
    def label_delays(self, deployment: str, *, since: datetime, until: datetime, every: timedelta) -> Any:
        """Count predictions by when they were made and how long their first label took, as a `pyarrow.Table`.

        Columns: `cohort` (the number of the interval of length `every` from `since` on), `place` (of the smallest of
        `DELAY_AGES` that is no less than the delay in seconds; their number where it is above all; -1 without a label),
        `rows`, and `newest_us` (when the newest of these labels arrived, in microseconds since 1970). Labels that arrived
        at or after `until` are not known yet.

        Raises
        ------
        NotFound
            There is no such deployment.
        """
        first, last = _micros(since, "since"), _micros(until, "until")
        assert first is not None
        assert last is not None
        with self._view(deployment, None, since, until) as view:
            return label_history.delays(view, first, last, every // timedelta(microseconds=1))

    @steady
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
            given = read_snapshot([files.labels(self._project)], earliest)
        bare = any(not (one.segments or one.tables) for one in (found, apart) if one is not None)
        empty = self._declared(deployment, model) if bare else None
        named = self._by_entity(deployment, since_us) if labels else None
        return View(found, given, empty, Selection(deployment, model, since_us, until_us), apart, named)

    def _one(self, found: Snapshot, prediction_id: str) -> View:
        """Open the log for one prediction, whose tail or segment has been found, and its labels."""
        labels = read_snapshot([files.labels(self._project)])
        since_us, until_us = found.bounds()
        named = self._by_entity(None, since_us)
        # Whose an entity's label is depends on what was predicted for it after this file as well.
        chosen = Selection(prediction_id=prediction_id, since_us=since_us, until_us=until_us)
        return View(found, labels, table_schema(), chosen, None, named)

    def _by_entity(self, deployment: str | None, since_us: int | None) -> EntityLabels | None:
        """Return the labels that name an entity, and where their predictions lie; None where there are none."""
        earliest = since_us - LABEL_SLACK_US if since_us is not None else None
        given = read_snapshot([files.labels(self._project, by_entity=True)], earliest)
        if not given.tables and not given.segments:
            return None
        folders = self._folders(deployment)
        return EntityLabels(given, lambda since, until: read_snapshot(folders, since, until))

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


def _selected(which: dict[str, Any]) -> dict[str, Any]:
    """Return which predictions are meant, as `_view` takes it."""
    return {name: which.get(name) for name in ("deployment", "model", "since", "until")}


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
