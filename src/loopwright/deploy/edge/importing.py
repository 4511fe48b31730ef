"""Bringing what devices have answered into the prediction log: the log and the checks of all other modes."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from loopwright.config import Project
from loopwright.deploy.edge.handed_over import Answered, columns_of, read_line
from loopwright.deploy.edge.outbox import lines
from loopwright.errors import Damaged, Denied, InvalidInput, NotFound, SchemaMismatch
from loopwright.ledger import Ledger
from loopwright.predictions import Ids, PredictionLog, Predictions, PredictionStore
from loopwright.predictions.privacy import Privacy, secret_of
from loopwright.records import Deployment, Mode, ModelVersion, Signature, Task, now

__all__ = ["Imported", "import_answers"]

#: Answers that are checked and appended together.
TOGETHER = 5000
#: Reasons of refused lines that are told.
TOLD = 20
_SQLITE = b"SQLite format 3\0"


@dataclass(slots=True)
class Imported:
    """What became of the lines of a file.

    `imported` are in the prediction log now, `known` were before, `left_out` are not logged because of
    `[deployment.<name>.log]`, and `refused` could not be taken; `reasons` has the numbers of the first of these, from 1,
    and why.
    """

    imported: int = 0
    known: int = 0
    left_out: int = 0
    refused: int = 0
    reasons: list[tuple[int, str]] = field(default_factory=list)
    deployments: dict[str, int] = field(default_factory=dict)

    def refuse(self, number: int, why: str) -> None:
        """Count one line that is not taken."""
        self.refused += 1
        if len(self.reasons) < TOLD:
            self.reasons.append((number, why))


def import_answers(
    project: Project, path: Path, *, deployment: str | None = None, ledger: Ledger | None = None
) -> Imported:
    """Take a device's answers into the prediction log.

    The same answer has the same id however often it is handed over, so that a file can be imported again, as after a
    crash. A line that cannot be taken does not keep the others from being taken.

    Parameters
    ----------
    path
        What ``outbox.py export`` wrote, or a copy of the outbox itself.
    deployment
        Which edge deployment the answers are of; by default the one that each line names, as the bundle did.

    Raises
    ------
    NotFound
        There is no such file or deployment.
    Damaged
        It is an SQLite file, but no outbox.
    Unavailable
        The log cannot be written. What was taken before stays, and is known the next time.
    """
    own = ledger or Ledger.open(project)
    found = Imported()
    with FileLock(project.state / "edge-import.lock"), _Sink(project, own, deployment, found) as sink:
        numbered = enumerate(_lines(path), 1)
        while together := list(itertools.islice(numbered, TOGETHER)):
            sink.take(together)
    for name, rows in found.deployments.items():
        facts = {"file": path.name, "rows": rows, "known": found.known, "refused": found.refused}
        own.append("edge.imported", name, facts)
    if ledger is None:
        own.close()
    return found


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            stored = file.read(len(_SQLITE)) == _SQLITE
    except FileNotFoundError:
        raise NotFound(
            f"There is no file {path}.",
            hint="on the device: python outbox.py export answers.db answers.jsonl",
        ) from None
    except OSError as error:
        raise Denied(f"{path} cannot be read: {error.strerror}.") from error
    if not stored:
        with path.open(encoding="utf-8", errors="replace") as text:
            yield from (line for line in text if line.strip())
        return
    with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        try:
            yield from lines(connection)
        except (sqlite3.Error, KeyError, ValueError) as error:
            raise Damaged(
                f"{path} is no outbox of a device: {error}.", hint="copy it again, with its -wal file"
            ) from error


class _Sink:
    """Where answers go: the logs of their deployments."""

    def __init__(self, project: Project, ledger: Ledger, deployment: str | None, found: Imported) -> None:
        self._project = project
        self._ledger = ledger
        self._deployment = deployment
        self._found = found
        self._ids = Ids.open(project)
        self._store = PredictionStore(project)
        self._secret = secret_of(project)
        self._logs: dict[str, PredictionLog] = {}
        self._signatures: dict[tuple[str, int, str], Signature] = {}
        if deployment is not None:
            self._checked(deployment)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for log in self._logs.values():
            log.close()

    def _checked(self, name: str) -> str:
        """Return the model of an edge deployment."""
        config = self._project.deployment(name)
        if config.mode is not Mode.edge:
            raise InvalidInput(
                f"The deployment {name!r} is in mode {config.mode}, and devices serve edge deployments."
            )
        return config.model

    def take(self, numbered: list[tuple[int, str]]) -> None:
        """Append those of some lines that are answers and not known yet."""
        groups: dict[tuple[str, int], dict[str, Answered]] = {}
        at, good = now(), 0
        for number, text in numbered:
            try:
                answered = read_line(text, at)
                name = self._deployment or answered.deployment
                answered.check(self._signature(name, answered))
            except (SchemaMismatch, InvalidInput, NotFound) as error:
                self._found.refuse(number, error.fact)
                continue
            good += 1
            group = groups.setdefault((name, answered.version), {})
            group[self._ids.derive("edge", name, answered.outbox, str(answered.seq))] = answered
        for (name, version), group in groups.items():
            known = self._store.logged(list(group), deployment=name)
            new = {one: answered for one, answered in group.items() if one not in known}
            good -= len(new)
            if new:
                self._append(name, version, new)
        # What is left was in the log, or twice in the file.
        self._found.known += good

    def _signature(self, name: str, answered: Answered) -> Signature:
        """Return what the version takes and gives that has answered.

        Raises
        ------
        NotFound, InvalidInput
            There is no such deployment or version, or it has other files under the same number.
        """
        key = (name, answered.version, answered.digest)
        if key not in self._signatures:
            model = self._checked(name)
            state = self._ledger.get("model_version", f"{model}/{answered.version}")
            version = state.read(ModelVersion) if state else None
            if version is None or version.signature is None:
                raise NotFound(f"There is no version {answered.version} of the model {model!r}.")
            if answered.model != model or version.digest not in {"", answered.digest}:
                raise InvalidInput(
                    f"The answer is of {answered.model}/{answered.version} with the digest {answered.digest[:12]!r}, "
                    f"which is not this project's {version.ref}."
                )
            self._signatures[key] = version.signature
        return self._signatures[key]

    def _append(self, name: str, version: int, group: dict[str, Answered]) -> None:
        answers = list(group.values())
        config = self._project.deployment(name)
        signature = self._signature(name, answers[0])
        inputs = columns_of(answers, signature)
        rows = Predictions(
            prediction_id=list(group),
            at_us=np.array([int(one.at.timestamp() * 1e6) for one in answers], np.int64),
            version=version,
            variant=self._variant(name, version),
            propensity=1.0,
            entity=[str(one.inputs.get(config.entity or "") or one.device) for one in answers],
            latency_ms=np.array([one.latency_ms for one in answers], np.float32),
            inputs=inputs,
            prediction=_predictions(answers, signature),
            probability=_probability(answers, signature),
        )
        private = Privacy.of(config.log, signature, self._secret, config.entity)
        kept = rows if private is None else private.apply(rows)
        logged = len(kept) if kept is not None else 0
        if kept is not None and logged:
            self._log(name, config.model, signature).append(kept, signature)
        self._found.imported += logged
        self._found.left_out += len(answers) - logged
        self._found.deployments[name] = self._found.deployments.get(name, 0) + logged

    def _log(self, name: str, model: str, signature: Signature) -> PredictionLog:
        if name not in self._logs:
            self._logs[name] = PredictionLog(self._project, name, model, signature, durability="power")
        return self._logs[name]

    def _variant(self, name: str, version: int) -> str:
        state = self._ledger.get("deployment", name)
        variants = state.read(Deployment).variants if state else ()
        return next((one.name for one in variants if one.version == version), "edge")


def _predictions(answers: list[Answered], signature: Signature) -> NDArray[Any]:
    values = [one.prediction for one in answers]
    if signature.task is Task.regression:
        return np.array(values, np.float64)
    if all(isinstance(label, str) for label in signature.classes):
        made = np.empty(len(values), object)
        made[:] = values
        return made
    return np.array(values)


def _probability(answers: list[Answered], signature: Signature) -> NDArray[np.float64] | None:
    names = [str(label) for label in signature.classes]
    if not all(one.probability for one in answers):
        return None
    return np.array([[(one.probability or {})[name] for name in names] for one in answers], np.float64)
