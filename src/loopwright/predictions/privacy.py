"""What the prediction log keeps of a row: a share of the rows, and of personal fields nothing or a keyed hash.

Only the log is meant: models, callers and sinks see every row as it is. The choice is made by the prediction's id, so
that a row that is computed again, or by a shadow, meets the same choice.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopwright.config import DeploymentConfig, LogConfig, Project
from loopwright.errors import InvalidConfig, InvalidInput, NotFound, listing
from loopwright.predictions.ids import Ids
from loopwright.predictions.rows import Predictions
from loopwright.records import Signature

__all__ = ["Privacy", "entity_hash", "left_out", "secret_of", "stored_hash"]

ENTITY = "entity"
#: Digits at the end of an id that are a keyed hash, and how many numbers they can be.
_DIGITS = 8
_SPACE = 16**_DIGITS
HASH_BYTES = 8


def secret_of(project: Project) -> bytes:
    """Return the project's key, which is made when there is none; 32 bytes.

    Raises
    ------
    Damaged
        The key file does not hold a key.
    Denied
        The key file cannot be read or written.
    """
    Ids.open(project)
    return bytes.fromhex((project.state / "project.key").read_text(encoding="ascii"))


def left_out(config: DeploymentConfig) -> frozenset[str]:
    """Return the names of the inputs whose values are not in a deployment's log: those that are dropped or hashed.

    What is compared with training data, or scored again, from the log must do without them.
    """
    return _with_entity({*config.log.drop, *config.log.hash}, config.entity)


def _with_entity(names: set[str], entity: str | None) -> frozenset[str]:
    """Return names with both that the entity has, where one of them is there."""
    return frozenset(names | {ENTITY, entity} if entity and names & {ENTITY, entity} else names)


def entity_hash(project: Project, deployment: str) -> Callable[[str], str] | None:
    """Return what turns an entity into what a deployment's log has in its place; None where it is the entity itself.

    Raises
    ------
    NotFound
        There is no such deployment.
    InvalidInput
        The log keeps no entities, so that nothing can be found by them.
    """
    config = project.deployment(deployment)
    names = {ENTITY, config.entity}
    if names.intersection(config.log.drop):
        raise InvalidInput(
            f"The log of {deployment!r} keeps no entities: [deployment.{deployment}] log.drop names them.",
            valid="Its labels name their prediction by prediction_id.",
            hint="name the entity in log.hash instead: then labels find it, and nobody reads it",
            deployment=deployment,
        )
    if not names.intersection(config.log.hash):
        return None
    mac = _keyed(secret_of(project))
    return lambda entity: _hashed(mac, entity) if entity else entity


def stored_hash(project: Project, value: str) -> str:
    """Return what a log has in the place of a field's value where it is hashed; empty for no value."""
    return _hashed(_keyed(secret_of(project)), value) if value else ""


def _keyed(secret: bytes) -> Any:
    # A key of its own, so that no hash in the log is one that the ids have a use for.
    return hashlib.blake2s(
        key=hashlib.blake2s(b"fields of the log", key=secret).digest(), digest_size=HASH_BYTES
    )


def _hashed(keyed: Any, value: Any) -> str:
    mac = keyed.copy()
    mac.update(str(value).encode("utf-8", "surrogatepass"))
    digest: str = mac.hexdigest()
    return digest


class Privacy:
    """Applies `[deployment.<name>] log` to rows on their way into the log. Thread-safe.

    Parameters
    ----------
    log
        What is kept.
    signature
        What the model takes, to check the names.
    secret
        The project's key, see `secret_of`. Hashes are equal for equal values within one project, in all deployments
        and fields, and cannot be computed without its key.
    entity
        The input that identifies the entity, where one does. It and ``entity`` are one thing: what is said of either
        holds for both.

    Raises
    ------
    InvalidConfig
        A field is unknown, is to be dropped and hashed, or is to be hashed and holds numbers.

    Examples
    --------
    >>> from loopwright.records import Column, Task
    >>> flowers = Signature((Column("colour", "string"),), Task.regression)
    >>> Privacy.of(LogConfig(), flowers, bytes(32)) is None
    True
    """

    def __init__(
        self, log: LogConfig, signature: Signature, secret: bytes, entity: str | None = None
    ) -> None:
        self._drop, self._hash = (_with_entity(set(names), entity) for names in (log.drop, log.hash))
        _check(log, signature, entity)
        if both := sorted(self._drop & self._hash):
            raise InvalidConfig(
                f"log.drop and log.hash both name {listing(both)}.", valid="Keep one of them.", fields=both
            )
        self._below = round(log.sample * _SPACE)
        self._mac = _keyed(secret)

    @classmethod
    def of(
        cls, log: LogConfig, signature: Signature, secret: bytes, entity: str | None = None
    ) -> Privacy | None:
        """Return what applies the settings, or None where every row is kept as it is. Raises as the class does."""
        if log.sample >= 1 and not log.drop and not log.hash:
            return None
        return cls(log, signature, secret, entity)

    def apply(self, rows: Predictions) -> Predictions | None:
        """Return what is logged of some rows; None when it is nothing. The rows themselves are not changed.

        A label for a row that was not logged is taken and kept, and never counted, because it joins nothing.
        """
        if not self._below:
            return None
        if self._below < _SPACE:
            kept = self._kept(rows)
            if not len(kept):
                return None
            if len(kept) < len(rows):
                rows = _some(rows, kept)
        changed: dict[str, Any] = {}
        if self._drop or self._hash:
            changed["inputs"] = self._inputs(rows.inputs)
        if ENTITY in self._drop:
            changed["entity"] = None
        elif ENTITY in self._hash and rows.entity is not None:
            changed["entity"] = self._hashes(rows.entity)
        return dataclasses.replace(rows, **changed) if changed else rows

    def _kept(self, rows: Predictions) -> NDArray[np.intp]:
        """Return which rows are kept. The digits count from the left, the last one, which splits off the holdout, least."""
        if rows.raw_id is not None:
            numbers = np.frombuffer(rows.raw_id, ">u4")[3::4]
        else:
            ends = "".join([one[-_DIGITS:] for one in rows.prediction_id])
            numbers = np.frombuffer(bytes.fromhex(ends), ">u4")
        return np.flatnonzero(numbers < self._below)

    def _inputs(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        made = {name: values for name, values in inputs.items() if name not in self._drop}
        for name in self._hash & made.keys():
            values = made.pop(name)
            # The entity's own input can hold numbers: its hash is in the entity's column, and the number nowhere.
            if values.dtype.kind in "OU":
                made[name] = np.empty(len(values), object)
                made[name][:] = self._hashes(values.tolist())
        return made

    def _hashes(self, values: Sequence[Any]) -> list[Any]:
        """Return 16 hexadecimal digits for each value; what is missing or empty stays as it is."""
        known: dict[Any, Any] = {None: None, "": ""}
        made = []
        for value in values:
            found = known.get(value)
            if found is None and value is not None:
                # NaN, which is missing, is the one value that differs from itself.
                found = self._hashed(value) if value == value else value
                known[value] = found
            made.append(found)
        return made

    def _hashed(self, value: Any) -> str:
        return _hashed(self._mac, value)


def _check(log: LogConfig, signature: Signature, entity: str | None) -> None:
    kinds = {column.name: column.type for column in signature.inputs}
    known = [*signature.names, ENTITY]
    for key, names in (("drop", log.drop), ("hash", log.hash)):
        for name in names:
            if name not in known and name != entity:
                found = NotFound.among("field", name, known)
                raise InvalidConfig(
                    f"log.{key} names the field {name!r}, which the model does not take.",
                    valid=found.valid,
                    hint="edit loopwright.toml, then: loopwright deployment list",
                    field=name,
                )
    numeric = [name for name in log.hash if kinds.get(name, "string") != "string" and name != entity]
    if numeric:
        raise InvalidConfig(
            f"log.hash names {listing(f'{name} ({kinds[name]})' for name in numeric)}.",
            valid="Text and the entity can be hashed. A hashed number would be no number in any query or monitor.",
            hint="name it in log.drop instead",
        )


def _some(rows: Predictions, at: NDArray[np.intp]) -> Predictions:
    """Return some of the rows, with all that belongs to them."""
    index = at.tolist()
    made: dict[str, Any] = {"raw_id": None}
    for field in dataclasses.fields(rows):
        value = getattr(rows, field.name)
        if isinstance(value, list):
            made[field.name] = [value[row] for row in index]
        elif isinstance(value, np.ndarray):
            made[field.name] = value[at]
        elif hasattr(value, "take"):
            made[field.name] = value.take(at)  # blocks
        elif isinstance(value, Mapping):
            made[field.name] = {name: values[at] for name, values in value.items()}
    return dataclasses.replace(rows, **made)
