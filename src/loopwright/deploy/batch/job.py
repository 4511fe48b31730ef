"""One run of a batch deployment: read, score what is new, log it, write it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from loopwright import plugins
from loopwright.config import DeploymentConfig, Project
from loopwright.deploy.base import Answers, Predictor, current
from loopwright.deploy.batch.base import Chunk, Sink, Source, parse
from loopwright.deploy.batch.columns import to_columns
from loopwright.deploy.batch.journal import Journal
from loopwright.deploy.batch.keys import IdSet
from loopwright.errors import Conflict, InvalidInput, listing
from loopwright.ledger import Ledger
from loopwright.predictions import Ids
from loopwright.records import Mode, Signature, now

__all__ = ["BatchRun", "run"]

#: Rows that are scored, logged and written together.
CHUNK_ROWS = 8192
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class BatchRun:
    """What a run did.

    `rows` were read and `new_rows` of them scored; the others were in the sink already. `repeated` rows have a key
    that an earlier row of the same run has: of those only the first is scored.
    """

    deployment: str
    model: str
    rows: int
    new_rows: int
    repeated: int
    seconds: float
    versions: dict[int, int] = field(default_factory=dict)
    source: str = ""
    sink: str = ""


def run(
    project: Project, name: str, *, progress: Progress | None = None, ledger: Ledger | None = None
) -> BatchRun:
    """Score the rows of a batch deployment's source that its sink does not hold yet.

    A row is known by its key, and its prediction by key and model version: a second run does nothing, a killed run is
    taken up where it was, and a new version scores all rows again.

    Parameters
    ----------
    project, name
        The deployment; it must be started.
    progress
        Called after each chunk with the rows read so far and the rows there are, None where that is unknown.
    ledger
        Where to read the deployment from and to note the run; else the project's.

    Raises
    ------
    InvalidInput
        The deployment is of another mode.
    NotFound
        The source, a table or the key column is not there, or the deployment was never started.
    SchemaMismatch
        Rows do not fit the model; the chunks before are written.
    Conflict
        The same deployment runs already, or the sink is something else.
    Denied, Unavailable
        A file or a database cannot be used.
    """
    config = project.deployment(name)
    if config.mode is not Mode.batch:
        batches = [key for key, value in project.config.deployment.items() if value.mode is Mode.batch]
        raise InvalidInput(
            f"The deployment {name!r} is in mode {config.mode}.",
            valid=f"Batch deployments: {listing(batches)}.",
        )
    own = ledger or Ledger.open(project, actor=f"batch {name}")
    try:
        with _alone(project, name):
            done = _Job(project, name, config, own).run(progress)
        own.append("batch.completed", name, done)
    finally:
        if ledger is None:
            own.close()
    return done


@contextmanager
def _alone(project: Project, name: str) -> Iterator[None]:
    """Hold the deployment's lock; the system lets go of it when the process dies."""
    path = project.state / "batch" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise Conflict(
            f"The batch deployment {name!r} is running already.", hint="wait for it, or end that process"
        ) from None
    try:
        yield
    finally:
        lock.release()


class _Job:
    """The state of one run."""

    def __init__(self, project: Project, name: str, config: DeploymentConfig, ledger: Ledger) -> None:
        self.project, self.name, self.config, self.ledger = project, name, config, ledger
        self.ids = Ids.open(project)
        self.predictor = Predictor(project, name, ledger=ledger, ids=self.ids, worker=f"batch {name}")
        self.seen = IdSet()
        self.rows = self.new_rows = self.repeated = 0
        self.versions: dict[int, int] = {}

    def run(self, progress: Progress | None) -> BatchRun:
        started = time.monotonic()
        try:
            signature = self._load()
            source_at = parse(self.project, self.config.source or "")
            sink_at = parse(self.project, self.config.sink or "")
            make = plugins.load("batch_source", source_at.kind)
            source: Source = make(source_at, signature, self.config.key, self.config.entity)
            try:
                sink: Sink = plugins.load("batch_sink", sink_at.kind)(sink_at, signature)
                try:
                    self._score_all(source, sink, signature, str(source_at), progress)
                finally:
                    sink.close()
            finally:
                source.close()
        finally:
            self.predictor.close()
        return BatchRun(
            self.name,
            self.config.model,
            self.rows,
            self.new_rows,
            self.repeated,
            round(time.monotonic() - started, 3),
            self.versions,
            str(source_at),
            str(sink_at),
        )

    def _load(self) -> Signature:
        """Load what the deployment serves and return what its rows must be; the whole run scores with it."""
        current(self.ledger, self.name)
        self.predictor.refresh()
        return self.predictor.signature

    def _score_all(
        self, source: Source, sink: Sink, signature: Signature, where: str, progress: Progress | None
    ) -> None:
        journal = Journal(self.project, self.name)
        total = source.rows
        # Closed also when a row stops the run: a database would keep its cursor open.
        with closing(source.chunks(CHUNK_ROWS)) as chunks:
            for chunk in chunks:
                columns = to_columns(chunk.rows, signature, chunk.first, where)
                entities = self._entities(chunk)
                ids = self._ids(chunk.keys, entities)
                new = self._new(ids, sink)
                if new:
                    part = {name: values[new] for name, values in columns.items()}
                    chosen = [ids[row] for row in new]
                    with journal.chunk(chosen):
                        answers = self._predict(journal, part, [entities[row] for row in new], chosen)
                        sink.write(self._written(answers, [chunk.keys[row] for row in new]))
                self.rows += len(ids)
                self.new_rows += len(new)
                if progress:
                    progress(self.rows, total)
        journal.finish()

    def _entities(self, chunk: Chunk) -> list[str]:
        """Return who each row is about: the declared column, and where it is empty or none is declared, the key."""
        if self.config.entity is None:
            return chunk.keys
        values = chunk.rows.column(self.config.entity).to_pylist()
        return [
            key if value in (None, "") else str(value) for value, key in zip(values, chunk.keys, strict=True)
        ]

    def _ids(self, keys: list[str], entities: list[str]) -> list[str]:
        """Return the ids of the predictions: by deployment, version and key, so that they are the same in each run."""
        route = self.predictor.route
        assert route is not None
        versions = [str(route.split.variants[route.split.place(entity)].version) for entity in entities]
        return [self.ids.derive(self.name, version, key) for version, key in zip(versions, keys, strict=True)]

    def _new(self, ids: Sequence[str], sink: Sink) -> list[int]:
        """Return the numbers of the rows that are neither in the sink nor came before in this run."""
        before = self.seen.contains(ids)
        own: set[str] = set()
        first = []
        for row, one in enumerate(ids):
            if before[row] or one in own:
                self.repeated += 1
            else:
                own.add(one)
                first.append(row)
        self.seen.add(list(own))
        known = sink.known([ids[row] for row in first])
        return [row for row in first if ids[row] not in known]

    def _predict(
        self, journal: Journal, columns: dict[str, NDArray[Any]], entities: list[str], ids: list[str]
    ) -> Answers:
        """Score rows and log them, except those that a killed run has logged already."""
        route = self.predictor.route
        assert route is not None
        route.load_for(len(ids))
        logged = journal.logged(ids)
        answers = self.predictor.predict(columns, entities=entities, ids=ids, log=not any(logged))
        if any(logged):
            # Scored twice, which happens once after a crash: the rows that are new go through again to be logged.
            rest = [row for row, there in enumerate(logged) if not there]
            if rest:
                self.predictor.predict(
                    {name: values[rest] for name, values in columns.items()},
                    entities=[entities[row] for row in rest],
                    ids=[ids[row] for row in rest],
                )
        for version, count in zip(*np.unique(answers.version, return_counts=True), strict=True):
            self.versions[int(version)] = self.versions.get(int(version), 0) + int(count)
        self.predictor.maintain()
        return answers

    def _written(self, answers: Answers, keys: list[str]) -> pa.RecordBatch:
        """Return the rows for the sink."""
        n = len(keys)
        texts: list[str | None] = [None] * n
        if answers.probability is not None:
            names = [str(label) for label in answers.classes]
            shares = answers.probability.tolist()
            texts = [msgspec.json.encode(dict(zip(names, row, strict=True))).decode() for row in shares]
        return pa.RecordBatch.from_pydict(
            {
                "prediction_id": answers.prediction_id,
                "key": keys,
                "prediction": pa.array(answers.prediction.tolist()),
                "probability": pa.array(texts, pa.string()),
                "model": [self.config.model] * n,
                "version": pa.array(answers.version, pa.int32()),
                "at": pa.array([now()] * n, pa.timestamp("us", "UTC")),
            }
        )
