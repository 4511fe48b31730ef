"""Writing labels: ground truth that arrives after the prediction.

Labels are stored without a type, as a number and as text, because a label says nothing about the model that made the
prediction; they get the prediction's type when they are joined. The label that arrived last wins.

A label names its prediction by its id, or by its entity and a moment. Those of the second kind are kept as they came, in
a log of their own, and find their prediction when they are read: it may be logged later than its label.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from loopwright.config import Project
from loopwright.errors import InvalidInput
from loopwright.predictions import columns, files
from loopwright.predictions.files import now_us
from loopwright.predictions.privacy import entity_hash
from loopwright.predictions.rolling import Durability, RollingLog
from loopwright.predictions.schema import TIME
from loopwright.records import Label, Scalar, micros

__all__ = [
    "ENTITY_LABELS",
    "FUTURE",
    "LABELS",
    "LONGEST_WITHIN_S",
    "LabelLog",
    "micros",
    "written",
]

_VALUE = [
    ("number", pa.float64()),
    ("text", pa.string()),
    ("at", TIME),
    ("received_at", TIME),
    ("source", pa.string()),
]
#: `at` is what the sender says, `received_at` when the label arrived here, which decides between two labels. `source` is
#: the `[labels.<name>]` it was read from, null when it was handed in; segments of an earlier release lack it.
LABELS = pa.schema([("prediction_id", pa.string()), *_VALUE])
#: Labels by entity: of its last prediction at or before `at`, by at most `within_us` microseconds.
ENTITY_LABELS = pa.schema(
    [("deployment", pa.string()), ("entity", pa.string()), ("within_us", pa.int64()), *_VALUE]
)
#: How far in the future the time of a label may lie: clocks disagree, and a day may be meant in local time.
FUTURE = timedelta(days=1)
#: The longest time between a prediction and the label by entity that is its: 20 years.
LONGEST_WITHIN_S = 7305 * 86400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Arrival:
    """When labels arrive, in microseconds: never the same moment twice in one process, also when its clock is set back.

    So the later of two labels of one process is known. Between processes their clocks decide.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def take(self, n: int) -> int:
        """Return the first of `n` moments that follow each other."""
        with self._lock:
            first = max(now_us(), self._last + 1)
            self._last = first + n - 1
            return first


_arrival = _Arrival()


class LabelLog:
    """The label log of one process; parameters as for `PredictionLog`. Thread-safe."""

    def __init__(
        self,
        project: Project,
        *,
        durability: Durability = "process",
        seal_rows: int = 131_072,
        seal_bytes: int = 32 << 20,
        seal_after_s: float = 300.0,
    ) -> None:
        self._project = project
        self._hashes: dict[str, Callable[[str], str] | None] = {}
        self._by_id, self._by_entity = (
            RollingLog(
                project,
                folder,
                durability=durability,
                seal_rows=seal_rows,
                seal_bytes=seal_bytes,
                seal_after_s=seal_after_s,
            )
            for folder in (files.labels(project), files.labels(project, by_entity=True))
        )

    def append(
        self, labels: Sequence[Label], *, source: str | None = None, received: datetime | None = None
    ) -> None:
        """Append labels in the order they were received; return when they are durable.

        Of those that name their prediction in the same way, all are kept or none. A label for an id that has no
        prediction is kept and never counted; check ids with `Ids.check` before.

        Parameters
        ----------
        source
            The `[labels.<name>]` they were read from.
        received
            When the first of them is taken to have arrived, for replaying what happened earlier; by default now.

        Raises
        ------
        InvalidInput, NotFound
            One of them cannot be used, see `check`; nothing is kept.
        Unavailable
            The disk does not take them, or the log is closed.
        """
        if not labels:
            return
        values = [self._value(label) for label in labels]
        first = _arrival.take(len(labels)) if received is None else micros(received)
        mine = [place for place, label in enumerate(labels) if label.prediction_id]
        others = [place for place, label in enumerate(labels) if not label.prediction_id]
        if mine:
            ids = columns.strings([labels[place].prediction_id for place in mine])
            self._write(self._by_id, "labels", LABELS, [ids], labels, values, mine, first, source)
        if others:
            whose = [
                columns.strings([labels[place].deployment for place in others]),
                columns.strings([self._entity(labels[place]) for place in others]),
                columns.numbers(
                    np.array([int(labels[place].within_s * 1e6) for place in others], np.int64), pa.int64()
                ),
            ]
            log = self._by_entity
            self._write(log, "entity labels", ENTITY_LABELS, whose, labels, values, others, first, source)

    def check(self, label: Label) -> None:
        """Look whether a label can be used, without keeping it.

        Raises
        ------
        InvalidInput
            It is NaN, infinite, or no boolean, number or text; its time has no zone or lies more than a day ahead; it
            names no prediction, or both an id and an entity; the deployment's log keeps no entities.
        NotFound
            There is no such deployment.
        """
        self._value(label)
        if not label.prediction_id:
            self._entity(label)

    def entity_of(self, label: Label) -> str:
        """Return the entity of a label as the log has it: where the deployment hashes entities, its hash.

        Raises
        ------
        InvalidInput, NotFound
            The label names no entity of a deployment, see `check`.
        """
        self._value(label)
        return self._entity(label)

    def maintain(self) -> None:
        """Seal what is full or old enough; call it about once a second. Raises `Unavailable` on a full disk."""
        self._by_id.maintain()
        self._by_entity.maintain()

    def close(self) -> None:
        """Seal and stop; what cannot be sealed stays readable."""
        self._by_id.close()
        self._by_entity.close()

    def _value(self, label: Label) -> tuple[float | None, str]:
        """Return a label as a number, None where it is none, and as text."""
        if label.deployment and not label.prediction_id and label.deployment not in self._hashes:
            self._hashes[label.deployment] = entity_hash(self._project, label.deployment)
        _check_place(label)
        return _plain(label)

    def _entity(self, label: Label) -> str:
        """Return the entity of a label as the deployment's log has it."""
        hashed = self._hashes[label.deployment]
        return hashed(label.entity) if hashed else label.entity

    @staticmethod
    def _write(
        log: RollingLog,
        kind: str,
        schema: pa.Schema,
        whose: list[Any],
        labels: Sequence[Label],
        values: list[tuple[float | None, str]],
        places: list[int],
        first: int,
        source: str | None,
    ) -> None:
        numbers = np.array([math.nan if (n := values[place][0]) is None else n for place in places])
        at = np.array([micros(labels[place].at) for place in places], np.int64)
        arrays = [
            *whose,
            columns.numbers(numbers, pa.float64(), np.isnan(numbers)),
            columns.strings([values[place][1] for place in places]),
            columns.numbers(at, TIME),
            columns.numbers(np.array(places, np.int64) + first, TIME),
            columns.strings([source] * len(places)),
        ]
        batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
        log.append(kind, schema, batch.serialize(), len(places))


def _who(label: Label) -> str:
    return f"prediction {label.prediction_id!r}" if label.prediction_id else f"the entity {label.entity!r}"


def _check_place(label: Label) -> None:
    """Raise `InvalidInput` where a label does not say in one way which prediction it is of."""
    if label.at.tzinfo is None:
        raise InvalidInput(
            f"The label of {_who(label)} has the time {label.at.isoformat()} without a zone.",
            valid="Times are UTC-aware, such as 2026-01-31T12:00:00+00:00.",
            field="at",
        )
    if label.at - datetime.now(UTC) > FUTURE:
        raise InvalidInput(
            f"The label of {_who(label)} has the time {label.at.isoformat()}, which is to come.",
            valid="A label says what has turned out to be true, at most one day ahead of this machine's clock.",
            field="at",
        )
    if label.prediction_id and not (label.entity or label.deployment):
        return
    if label.prediction_id or not (label.entity and label.deployment):
        given = [name for name in ("prediction_id", "deployment", "entity") if getattr(label, name)]
        raise InvalidInput(
            f"The label {label.actual!r} has {' and '.join(given) or 'no prediction_id and no entity'}.",
            valid="It names its prediction by prediction_id, or by deployment, entity and at.",
        )
    if not 0 < label.within_s <= LONGEST_WITHIN_S:
        raise InvalidInput(
            f"The label of {_who(label)} is within {label.within_s:g} s of its prediction.",
            valid="It is above 0 and at most 20 years.",
            field="within",
        )


def _plain(label: Label) -> tuple[float | None, str]:
    actual: Any = label.actual
    plain: Scalar = actual.item() if isinstance(actual, np.generic) else actual
    if isinstance(plain, bool):
        return float(plain), "true" if plain else "false"
    if isinstance(plain, int):
        return (float(plain) if abs(plain) < 1 << 1000 else None), str(plain)
    if isinstance(plain, float) and math.isfinite(plain):
        return plain, str(int(plain)) if plain.is_integer() else repr(plain)
    if isinstance(plain, str):
        return None, plain
    raise InvalidInput(
        f"The label {plain!r} of {_who(label)} cannot be used.",
        valid="A label is true, false, a finite number or text.",
        prediction_id=label.prediction_id,
    )


def written(values: Iterable[Scalar]) -> list[tuple[float | None, str]]:
    """Return values as labels have them in the log: as a number, None where they are none, and as text."""
    return [_plain(Label("", value, at=_EPOCH)) for value in values]
