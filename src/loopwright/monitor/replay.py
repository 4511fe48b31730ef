"""Trying monitors out on the past: rows of a table are predicted, labelled and judged in their own time.

What would have alarmed, when, and why, before a model is deployed at all. Nothing is simulated but the clock: the rows go
through the real log, the labels arrive when they would have, and the real runner judges the windows. It all happens in a
project folder of its own, which the console can show afterwards.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loopwright import scoring
from loopwright.config import FILE, Project
from loopwright.errors import Conflict, InvalidInput, NotFound
from loopwright.ledger import Ledger
from loopwright.monitor.results import Results
from loopwright.monitor.run import tick
from loopwright.monitor.windows import floor
from loopwright.predictions import Ids, LabelLog, PredictionLog, Predictions, PredictionStore
from loopwright.records import (
    Alert,
    Deployment,
    Judged,
    Label,
    Mode,
    ModelVersion,
    Signal,
    Signature,
    Variant,
    Window,
    micros,
    moment,
)
from loopwright.registry.columns import arrays_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["DEPLOYMENT", "Replayed", "replay"]

#: What the deployment of a replay is called.
DEPLOYMENT = "replay"
#: Labels that come after the last row are waited for so many windows.
AFTER = 3


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the monitors said of a replay: the judged windows, what fired in them, and the alerts that were opened.

    `folder` is the project that was made for it.
    """

    folder: Path
    windows: tuple[Judged, ...]
    fired: tuple[Signal, ...]
    alerts: tuple[Alert, ...]


def replay(
    project: Project,
    model: str,
    version: int,
    table: pa.Table,
    *,
    time: str,
    into: Path,
    target: str | None = None,
    entity: str | None = None,
    label_delay: timedelta = timedelta(0),
    window: timedelta | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Replayed:
    """Predict, label and judge the rows of a table in their own time.

    Parameters
    ----------
    project, model, version
        A version, and the monitor that is declared for its model.
    table
        The inputs, the moment of each row and what turned out to be true of it; rows in any order.
    time
        The column of the moments, UTC where they name no zone.
    into
        A folder that is not there yet; it becomes a project with what was found.
    target
        The column of the truth, by default the model's target; a row without one gets no label, and so do all rows when
        there is no such column.
    entity
        The column that says who a row is about.
    label_delay
        How long after its row a label arrives.
    window
        The length of a window, in place of the declared one.
    progress
        Called with the number of windows done and of all.

    Raises
    ------
    Conflict
        `into` is there already.
    InvalidInput
        There is no row, or a row has no time.
    NotFound
        There is no such version or column.
    SchemaMismatch
        An input is absent, or not of the type that the model takes.
    """
    if into.exists():
        raise Conflict(f"{into} is there already.", hint=f"give another folder, or delete it: rm -r {into}")
    at_us = _moments(table, time)
    prepared = scoring.prepare(project, model, version)
    scorer = scoring.load(prepared)
    try:
        columns = arrays_of(table, scorer.signature.inputs)
        truth = target or project.model(model).target
        if target is not None and target not in table.column_names:
            raise NotFound.among("column", target, table.column_names)
        actual = table[truth].to_pylist() if truth in table.column_names else [None] * len(at_us)
        whose = None if entity is None else _column(table, entity).to_pylist()
        order = np.argsort(at_us, kind="stable")
        rows = _Rows(
            {name: values[order] for name, values in columns.items()},
            at_us[order],
            [actual[place] for place in order.tolist()],
            None if whose is None else [str(whose[place]) for place in order.tolist()],
        )
        made = _folder(project, model, prepared, into, label_delay, window)
        return _run(made, scorer, model, version, rows, label_delay, progress)
    finally:
        scorer.close()


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise NotFound.among("column", name, table.column_names)
    return table[name]


def _moments(table: pa.Table, time: str) -> NDArray[np.int64]:
    """Return the moment of each row in microseconds since 1970."""
    import pyarrow as pa

    given = _column(table, time)
    try:
        moments = given.cast(pa.timestamp("us", tz=getattr(given.type, "tz", None)), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InvalidInput(
            f"The column {time!r} of type {given.type} holds no moments: {error}.",
            valid="Timestamps, dates, or texts such as 2026-01-31 12:00:00.",
        ) from error
    if not len(moments) or moments.null_count:
        raise InvalidInput(
            f"{moments.null_count} of {len(moments)} rows have no time.",
            valid="Each row needs the moment it came.",
        )
    return np.array(moments.cast(pa.int64()).to_pylist(), np.int64)


@dataclass(frozen=True, slots=True)
class _Rows:
    columns: dict[str, NDArray[Any]]
    at_us: NDArray[np.int64]
    actual: list[Any]
    entity: list[str] | None


def _run(
    project: Project,
    scorer: scoring.Scorer,
    model: str,
    version: int,
    rows: _Rows,
    label_delay: timedelta,
    progress: Callable[[int, int], None] | None,
) -> Replayed:
    length = project.config.monitor[model].window
    start = floor(moment(int(rows.at_us[0])), length)
    windows = (moment(int(rows.at_us[-1])) - start) // length + 1
    ledger, store = Ledger.open(project, actor="replay"), PredictionStore(project)
    log = PredictionLog(project, DEPLOYMENT, model, scorer.signature)
    labels = LabelLog(project)
    try:
        _deploy(ledger, model, version, scorer.signature, start, length)
        writer = _Writer(log, labels, scorer, Ids.open(project), rows, version, label_delay)
        for number in range(1, windows + 1 + AFTER + label_delay // length):
            until = start + number * length
            writer.write(until)
            tick(project, ledger, store, until + timedelta(seconds=1))
            if progress:
                progress(min(number, windows), windows)
    finally:
        log.close()
        labels.close()
        found = _found(ledger, project.root)
        ledger.close()
    return found


class _Writer:
    """Writes predictions and labels up to a moment, each when it came."""

    def __init__(
        self,
        log: PredictionLog,
        labels: LabelLog,
        scorer: scoring.Scorer,
        ids: Ids,
        rows: _Rows,
        version: int,
        delay: timedelta,
    ) -> None:
        self._log, self._labels, self._scorer, self._ids = log, labels, scorer, ids
        self._rows, self._version = rows, version
        self._delay, self._delay_us = delay, delay // timedelta(microseconds=1)
        self._written: list[str] = []
        self._labelled = 0

    def write(self, until: datetime) -> None:
        """Write what came before a moment."""
        until_us = micros(until)
        first, last = len(self._written), int(np.searchsorted(self._rows.at_us, until_us))
        if last > first:
            self._predict(first, last)
        due = int(np.searchsorted(self._rows.at_us + self._delay_us, until_us))
        self._label(self._labelled, min(due, len(self._written)))

    def _predict(self, first: int, last: int) -> None:
        rows, n = self._rows, last - first
        part = {name: values[first:last] for name, values in rows.columns.items()}
        scores = self._scorer.score(part)
        ids = [one for at in rows.at_us[first:last].tolist() for one in self._ids.new(1, at)]
        self._log.append(
            Predictions(
                prediction_id=ids,
                at_us=rows.at_us[first:last],
                version=self._version,
                variant="champion",
                propensity=1.0,
                entity=None if rows.entity is None else rows.entity[first:last],
                latency_ms=np.zeros(n, np.float32),
                inputs=part,
                prediction=scores.prediction,
                probability=scores.probability,
            )
        )
        self._written += ids

    def _label(self, first: int, last: int) -> None:
        for place in range(first, last):
            value = self._rows.actual[place]
            if value is not None and value == value:
                at = moment(int(self._rows.at_us[place]))
                self._labels.append([Label(self._written[place], value, at)], received=at + self._delay)
        self._labelled = max(first, last)


def _deploy(
    ledger: Ledger, model: str, version: int, signature: Signature, start: datetime, length: timedelta
) -> None:
    ledger.put(
        "model_version", f"{model}/{version}", ModelVersion(model, version, "", "", signature=signature)
    )
    served = Deployment(
        DEPLOYMENT, model, Mode.online, (Variant("champion", version),), salt="replay", changed=start
    )
    ledger.put("deployment", DEPLOYMENT, served)
    # Windows go on from the last that was looked at; the clock of the ledger knows nothing of the past.
    before = Window(start - length, start)
    for phase in ("inputs", "labels"):
        Results(ledger).record(Judged(DEPLOYMENT, model, phase, version, before, "empty"), [])


def _found(ledger: Ledger, folder: Path) -> Replayed:
    results = Results(ledger)
    windows = results.windows(DEPLOYMENT, states=("judged", "overdue"), limit=1_000_000)
    fired = results.signals(DEPLOYMENT, fired=True, limit=1_000_000)
    events = ledger.events("alert.opened", limit=1_000_000)
    alerts = (event.read(Alert) for event in events)
    return Replayed(folder, tuple(windows), tuple(fired), tuple(alerts))


def _folder(
    project: Project,
    model: str,
    prepared: Path,
    into: Path,
    label_delay: timedelta,
    window: timedelta | None,
) -> Project:
    """Make the project of a replay, with the monitor as it is declared and the prepared version."""
    declared = project.config
    monitor = _plain(declared.monitor[model]) if model in declared.monitor else {}
    performance = monitor.get("performance", {})
    least = declared.monitor[model].performance.label_delay if model in declared.monitor else timedelta(0)
    monitor["performance"] = performance | {
        "label_delay": _span(max(label_delay, least, timedelta(seconds=0.001)))
    }
    monitor.pop("retrain_on", None)
    monitor |= {"window": _span(window)} if window else {}
    config: dict[str, dict[str, Any]] = {
        "project": {"name": f"{project.name} replay"},
        "model": {model: {"target": project.model(model).target}},
        "deployment": {DEPLOYMENT: {"model": model, "mode": "online"}},
        "monitor": {model: monitor},
    }
    into.mkdir(parents=True)
    (into / FILE).write_text(_toml(config), encoding="utf-8")
    made = Project(into)
    folder = made.scorer(model, int(prepared.name))
    folder.parent.mkdir(parents=True)
    shutil.copytree(prepared, folder)
    return made


def _span(length: timedelta) -> str:
    return f"{length.total_seconds():.6f}".rstrip("0").rstrip(".") + "s"


def _plain(section: Any) -> dict[str, Any]:
    """Return a section of the configuration as what was written in it."""
    found: dict[str, Any] = section.model_dump(exclude_unset=True)
    return found


def _toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a configuration as TOML: a line for each table, nested ones inline."""
    lines = [
        f"{_key(kind)}.{_key(name)} = {_value(value)}"
        for kind, table in tables.items()
        for name, value in table.items()
    ]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return json.dumps(name)


def _value(value: Any) -> str:
    if isinstance(value, timedelta):
        return json.dumps(_span(value))
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(name)} = {_value(one)}" for name, one in value.items() if one is not None)
        return f"{{{inner}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value)
