"""What the modes share: one deployment in one process, from typed columns to logged answers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopwright import scoring
from loopwright.config import PROJECT_VARIABLE, Project
from loopwright.deploy.routing import assign, current, publish, rollback, start
from loopwright.errors import LoopwrightError, NotFound, SchemaMismatch, Unavailable
from loopwright.ledger import Ledger
from loopwright.predictions import Ids, PredictionLog, Predictions
from loopwright.records import Deployment, Scalar, Signature, Variant
from loopwright.scoring import Scorer, Scores

__all__ = ["Answers", "Predictor", "assign", "current", "publish", "rollback", "start"]


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers for n rows, in the order the rows came.

    `probability` has shape (n, k) with columns in the order of `classes`, or is None where the model gives none.
    `prediction` has shape (n,).
    """

    prediction_id: list[str]
    prediction: NDArray[Any]
    probability: NDArray[np.float64] | None
    classes: tuple[Scalar, ...]
    version: NDArray[np.int32]
    variant: list[str]
    propensity: NDArray[np.float64]


@dataclass(eq=False, slots=True)
class _Table:
    """What is served from one moment to the next: never changed, only replaced as a whole."""

    deployment: Deployment
    scorers: dict[int, Scorer]
    users: int = 0
    retired: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self) -> bool:
        """Take part in the table's use; False when it is closed already."""
        with self.lock:
            if self.retired and self.users == 0:
                return False
            self.users += 1
            return True

    def leave(self) -> bool:
        """End one use; True when this was the last one of a retired table."""
        with self.lock:
            self.users -= 1
            return self.retired and self.users == 0

    def retire(self) -> bool:
        """Let no new use begin that is not under way; True when nobody uses it now."""
        with self.lock:
            self.retired = True
            return self.users == 0


class Predictor:
    """One deployment in one process: follows the ledger, assigns rows to variants, scores and logs them.

    Parameters
    ----------
    project, name
        A deployment of `loopwright.toml`.
    ledger, ids
        Shared by all deployments of the process.
    worker
        What this process is called in the ledger's events.
    """

    def __init__(self, project: Project, name: str, *, ledger: Ledger, ids: Ids, worker: str) -> None:
        self.project = project
        self.name = name
        self.config = project.deployment(name)
        self.worker = worker
        self._ledger = ledger
        self._ids = ids
        self._table: _Table | None = None
        self._revision = 0
        self._refused: set[int] = set()
        self._log: PredictionLog | None = None
        self._refreshing = threading.Lock()

    @property
    def ready(self) -> bool:
        """Whether a version is loaded."""
        return self._table is not None

    @property
    def started(self) -> bool:
        """Whether the deployment was ever put into service."""
        return self._ledger.get("deployment", self.name) is not None

    def new_ids(self, n: int) -> list[str]:
        """Return n new prediction ids of this moment."""
        return self._ids.new(n, time.time_ns() // 1000)

    @property
    def deployment(self) -> Deployment:
        """What is served in this process at this moment."""
        return self._served().deployment

    @property
    def scorer(self) -> Scorer:
        """The champion's scorer; use it at once, a swap may close it."""
        table = self._served()
        return table.scorers[table.deployment.variants[0].version]

    @property
    def signature(self) -> Signature:
        """What rows must look like: the champion's signature."""
        return self.scorer.signature

    def _served(self) -> _Table:
        table = self._table
        if table is None:
            raise Unavailable(
                f"The deployment {self.name!r} is not started yet.",
                hint=f"loopwright deployment start {self.name}",
            )
        return table

    def refresh(self) -> bool:
        """Follow the ledger: load and verify new versions in this thread, then swap all at once.

        A version that cannot be loaded, verified, or fed with the champion's rows never serves: the ledger gets an
        event that says why, its share stays with the champion, and what served before goes on.

        Returns
        -------
        bool
            Whether anything changed.

        Raises
        ------
        NotFound
            The deployment was never started.
        """
        with self._refreshing:
            state = self._ledger.get("deployment", self.name)
            if state is None:
                if self._table is None:
                    current(self._ledger, self.name)
                return False
            if state.revision == self._revision:
                return False
            self._revision = state.revision
            return self._follow(state.read(Deployment))

    def _follow(self, wanted: Deployment) -> bool:
        before = self._table
        known = dict(before.scorers) if before else {}
        served: list[Variant] = []
        scorers: dict[int, Scorer] = {}
        for variant in wanted.variants:
            if variant.version in scorers:
                served.append(variant)
                continue
            scorer = known.get(variant.version) or self._load(variant, scorers)
            if scorer is not None:
                scorers[variant.version] = scorer
                served.append(variant)
        if not served or served[0].name != wanted.variants[0].name:
            return False
        if self._log is None:
            self._log = PredictionLog(
                self.project,
                self.name,
                wanted.model,
                scorers[served[0].version].signature,
                durability=self.project.config.serving.durability,
            )
        table = _Table(
            Deployment(
                wanted.name,
                wanted.model,
                wanted.mode,
                tuple(served),
                wanted.salt,
                wanted.release,
                wanted.changed,
            ),
            scorers,
        )
        self._table = table
        if before is not None and before.retire():
            self._close_unused(before)
        return True

    def _load(self, variant: Variant, beside: Mapping[int, Scorer]) -> Scorer | None:
        """Load, verify and check one version; None, with an event, when it must not serve."""
        started = time.monotonic()
        try:
            folder = self.project.scorer(self.config.model, variant.version)
            if not (folder / "scorer.json").is_file():
                self._prepare(variant.version)
            scorer = scoring.load(folder)
            try:
                scorer.verify()
                for other in beside.values():
                    _check_same_rows(other.signature, scorer)
            except LoopwrightError:
                scorer.close()
                raise
        except (LoopwrightError, OSError) as error:
            if variant.version not in self._refused:
                self._refused.add(variant.version)
                facts = {"version": variant.version, "worker": self.worker, "reason": str(error)}
                self._ledger.append("worker.refused", self.name, facts)
            return None
        self._refused.discard(variant.version)
        facts = {
            "version": variant.version,
            "worker": self.worker,
            "runtime": scorer.runtime,
            "seconds": round(time.monotonic() - started, 3),
        }
        self._ledger.append("worker.loaded", self.name, facts)
        return scorer

    def _prepare(self, version: int) -> None:
        """Prepare a version in a process of its own: that needs libraries which a serving process does without."""
        done = subprocess.run(
            [sys.executable, "-m", "loopwright.scoring.prepare", self.config.model, str(version)],
            cwd=self.project.root,
            env=os.environ | {PROJECT_VARIABLE: str(self.project.root)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise NotFound(f"{self.config.model}/{version} cannot be prepared: {lines[-1]}")

    def predict(
        self,
        columns: Mapping[str, NDArray[Any]],
        *,
        entities: Sequence[str] | None = None,
        ids: list[str] | None = None,
        request_ids: list[str] | None = None,
        received: Sequence[float] | None = None,
        log: bool = True,
    ) -> Answers:
        """Answer n rows: assign each to a variant, score, and log them before returning.

        Parameters
        ----------
        columns
            One array of shape (n,) per input of the signature, as `Scorer.score` takes them.
        entities
            Who each row is about, which fixes its variant; by default each row is its own entity.
        ids
            Prediction ids; by default new ones.
        request_ids
            The callers' own ids, kept in the log.
        received
            When each row arrived, in `time.monotonic` seconds; by default now. The latency is counted from there.
        log
            False leaves the prediction log alone: for comparisons, never for real answers.

        Raises
        ------
        SchemaMismatch, InvalidInput
            The rows do not fit the model.
        Unavailable
            Nothing is served yet, or the log cannot be written: then no answer may be given.
        """
        started = time.monotonic()
        while not (table := self._served()).enter():
            pass  # it was retired between looking and entering: the next look finds its successor
        try:
            rows = len(next(iter(columns.values()))) if columns else 0
            at_us = time.time_ns() // 1000
            ids = ids if ids is not None else self._ids.new(rows, at_us)
            entities = entities if entities is not None else ids
            if len(table.deployment.variants) == 1:
                parts = [_Part(table.deployment.variants[0], 1.0, None)]
            else:
                parts = _split(table.deployment, entities)
            scores = [table.scorers[part.variant.version].score(part.take(columns)) for part in parts]
            arrived = np.asarray(received) if received is not None else np.full(rows, started)
            if log:
                self._append(table, parts, scores, columns, ids, list(entities), request_ids, arrived, at_us)
            return _join(table, parts, scores, ids, rows)
        finally:
            if table.leave():
                self._close_unused(table)

    def _append(
        self,
        table: _Table,
        parts: list[_Part],
        scores: list[Scores],
        columns: Mapping[str, NDArray[Any]],
        ids: list[str],
        entities: list[str],
        request_ids: list[str] | None,
        arrived: NDArray[np.float64],
        at_us: int,
    ) -> None:
        assert self._log is not None
        now = time.monotonic()
        for part, score in zip(parts, scores, strict=True):
            rows = part.rows
            count = len(score.prediction)
            waited = arrived if rows is None else arrived[rows]
            self._log.append(
                Predictions(
                    prediction_id=part.pick(ids),
                    at_us=np.full(count, at_us, np.int64),
                    version=np.full(count, part.variant.version, np.int32),
                    variant=[part.variant.name] * count,
                    propensity=np.full(count, part.propensity),
                    entity=part.pick(entities),
                    latency_ms=((now - waited) * 1000).astype(np.float32),
                    inputs=part.take(columns),
                    prediction=score.prediction,
                    probability=score.probability,
                    request_id=part.pick(request_ids) if request_ids is not None else None,
                ),
                table.scorers[part.variant.version].signature,
            )

    def _close_unused(self, table: _Table) -> None:
        """Close the scorers of a retired table that its successor does not use."""
        kept = self._table.scorers if self._table else {}
        for version, scorer in table.scorers.items():
            if kept.get(version) is not scorer:
                scorer.close()

    def maintain(self) -> None:
        """Seal the prediction log when that is due; call it about once a second."""
        if self._log is not None:
            self._log.maintain()

    def close(self) -> None:
        """Close the log and the scorers."""
        if self._log is not None:
            self._log.close()
        table, self._table = self._table, None
        if table is not None and table.retire():
            self._close_unused(table)


@dataclass(frozen=True, slots=True)
class _Part:
    """The rows that one variant gets; `rows` None means all."""

    variant: Variant
    propensity: float
    rows: NDArray[np.intp] | None

    def take(self, columns: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        if self.rows is None:
            return columns
        return {name: values[self.rows] for name, values in columns.items()}

    def pick(self, values: list[str]) -> list[str]:
        return values if self.rows is None else [values[row] for row in self.rows.tolist()]


def _split(deployment: Deployment, entities: Sequence[str]) -> list[_Part]:
    rows: dict[str, list[int]] = {}
    chosen: dict[str, tuple[Variant, float]] = {}
    for row, entity in enumerate(entities):
        variant, propensity = assign(deployment, entity)
        rows.setdefault(variant.name, []).append(row)
        chosen[variant.name] = (variant, propensity)
    if len(rows) == 1:
        [(variant, propensity)] = chosen.values()
        return [_Part(variant, propensity, None)]
    return [_Part(*chosen[name], np.array(index, np.intp)) for name, index in rows.items()]


def _join(table: _Table, parts: list[_Part], scores: list[Scores], ids: list[str], rows: int) -> Answers:
    """Put the variants' answers back into the order of the rows."""
    first = table.scorers[parts[0].variant.version].signature.classes
    if len(parts) == 1:
        variant = parts[0].variant
        return Answers(
            ids,
            scores[0].prediction,
            scores[0].probability,
            first,
            np.full(rows, variant.version, np.int32),
            [variant.name] * rows,
            np.full(rows, parts[0].propensity),
        )
    classes = first
    for part in parts[1:]:
        # A candidate may know classes that the champion has never seen: their columns come behind.
        known = table.scorers[part.variant.version].signature.classes
        classes += tuple(name for name in known if name not in classes)
    whole = all(score.probability is not None for score in scores)
    prediction = np.empty(rows, np.result_type(*(score.prediction.dtype for score in scores)))
    probability = np.zeros((rows, len(classes))) if whole and classes else None
    version, propensity, names = np.empty(rows, np.int32), np.empty(rows), [""] * rows
    for part, score in zip(parts, scores, strict=True):
        assert part.rows is not None
        prediction[part.rows] = score.prediction
        version[part.rows], propensity[part.rows] = part.variant.version, part.propensity
        for row in part.rows.tolist():
            names[row] = part.variant.name
        if probability is not None and score.probability is not None:
            own = table.scorers[part.variant.version].signature.classes
            places = np.array([classes.index(name) for name in own], np.intp)
            probability[np.ix_(part.rows, places)] = score.probability
    return Answers(ids, prediction, probability, classes, version, names, propensity)


def _check_same_rows(champion: Signature, candidate: Scorer) -> None:
    """Check that the rows which the champion takes are enough for another version."""
    types = {column.name: column.type for column in champion.inputs}
    for column in candidate.signature.inputs:
        if column.required and column.name not in types:
            raise SchemaMismatch(
                f"{candidate.model}/{candidate.version} needs the input {column.name!r}, which the champion does not take.",
                hint="loopwright deployment start NAME --version N   (callers must send the new input)",
                field=column.name,
            )
