"""Which labels of a source are new: what was taken of it is known from the log itself, so that nothing else can be lost."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from loopwright.config import Project
from loopwright.predictions import columns, files, label_join
from loopwright.predictions.labels import LabelLog, written
from loopwright.predictions.schema import TIME, table_schema
from loopwright.predictions.snapshots import Snapshot, read_snapshot
from loopwright.predictions.sql import EntityLabels, Selection, View, text
from loopwright.records import Label, micros

__all__ = ["only_new"]


def only_new(project: Project, log: LabelLog, labels: Sequence[Label], source: str) -> list[Label]:
    """Return the labels that say something else than the last label of the same prediction that came from a source.

    Of several for the same prediction, or the same entity and moment, the last one counts. What was handed in by others
    is not looked at: a correction by hand stays until the source itself says something new.

    Parameters
    ----------
    log
        Where they will be appended.
    labels
        In their order; each can be appended, see `LabelLog.check`.
    source
        The name under which they were appended before.
    """
    last = {_key(label): label for label in labels}
    mine = [label for label in last.values() if label.prediction_id]
    others = [label for label in last.values() if not label.prediction_id]
    found = _new(project, mine, source) if mine else []
    return found + (_new_by_entity(project, log, others, source) if others else [])


def _key(label: Label) -> tuple[object, ...]:
    return (label.prediction_id,) if label.prediction_id else (label.deployment, label.entity, label.at)


def _new(project: Project, labels: Sequence[Label], source: str) -> list[Label]:
    given = read_snapshot([files.labels(project)])
    if not given.segments and not given.tables:
        return list(labels)
    asked = {"prediction_id": columns.strings([label.prediction_id for label in labels])}
    with View(Snapshot(), given, table_schema(), Selection()) as view:
        return _differing(view, labels, asked, "labels", f"entity is null and source = {text(source)}")


def _new_by_entity(project: Project, log: LabelLog, labels: Sequence[Label], source: str) -> list[Label]:
    given = read_snapshot([files.labels(project, by_entity=True)])
    if not given.segments and not given.tables:
        return list(labels)
    asked = {
        "deployment": columns.strings([label.deployment for label in labels]),
        "entity": columns.strings([log.entity_of(label) for label in labels]),
        "at": columns.numbers(np.array([micros(label.at) for label in labels], np.int64), TIME),
    }
    entities = EntityLabels(given, lambda *_: Snapshot())
    with View(Snapshot(), Snapshot(), table_schema(), Selection(), None, entities) as view:
        return _differing(view, labels, asked, label_join.BY_ENTITY, f"source = {text(source)}")


def _differing(
    view: View, labels: Sequence[Label], key: dict[str, pa.Array], log: str, where: str
) -> list[Label]:
    values = written(label.actual for label in labels)
    numbers = np.array([math.nan if number is None else number for number, _ in values])
    arrays = key | {
        "place": columns.numbers(np.arange(len(labels), dtype=np.int64), pa.int64()),
        "number": columns.numbers(numbers, pa.float64(), np.isnan(numbers)),
        "text": columns.strings([word for _, word in values]),
    }
    asked = pa.Table.from_arrays(list(arrays.values()), names=list(arrays))
    view.register("asked", asked)
    names = ", ".join(f'"{name}"' for name in key)
    found = view.table(f"""
        select place from asked left join (
            select {names}, arg_max({{'number': number, 'text': text}}, received_at) as said
            from {log} where {where} group by {names}
        ) as known using ({names})
        where said is null or said.text is distinct from asked.text or said.number is distinct from asked.number
        order by place
    """)
    return [labels[place] for place in found.column(0).to_pylist()]
