"""What became of the labels: those of one prediction, how many of a span are late, corrected or of no use, their delays."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from loopwright.predictions import columns
from loopwright.predictions.label_join import actual_of
from loopwright.predictions.sql import View, text
from loopwright.records import Scalar

__all__ = ["DELAY_AGES", "GivenLabel", "LabelSummary", "delays", "history", "summary"]

#: Ages in seconds, each a fifth above the one before, from 1 s to 97 days: what delays of labels are counted by.
DELAY_AGES = 2.0 ** (np.arange(93) / 4)
#: A label may be this much older than its prediction: machines' clocks differ.
_SLACK_US = 1_000_000


@dataclass(frozen=True, slots=True)
class GivenLabel:
    """One label of one prediction.

    Attributes
    ----------
    actual
        Its value as the model predicts it; None where it has none of that type, and before the prediction is known.
    text
        Its value as it came.
    at, received
        When it was true, as its sender says, and when it arrived.
    counts
        Whether it is the one that counts: it was received last.
    source
        The `[labels.<name>]` it was read from; empty when it was handed in.
    entity
        The entity it named, hashed where the log has hashes; empty when it named the prediction's id.
    """

    actual: Scalar | None
    text: str
    at: datetime
    received: datetime
    counts: bool
    source: str = ""
    entity: str = ""


@dataclass(frozen=True, slots=True)
class LabelSummary:
    """What became of the labels of some predictions.

    Attributes
    ----------
    rows, labelled
        Predictions, and how many of them have a label that can be used.
    labels
        Labels that arrived for them.
    corrected
        Predictions whose label changed: they got more than one value.
    duplicates
        Labels that said again what was said of their prediction before.
    unusable
        Predictions whose last label is no value of their type, such as text for a number. They count as unlabelled.
    unknown
        Labels that belong to no prediction: it was not logged, is deleted by now, or never was; or no prediction of the
        entity is old enough and young enough. Of all deployments where a label names an id, because an id names none.
    before
        Labels whose own time is more than a second earlier than that of their prediction.
    """

    rows: int
    labelled: int
    labels: int
    corrected: int
    duplicates: int
    unusable: int
    unknown: int
    before: int


def history(view: View, prediction_id: str) -> list[GivenLabel]:
    """Return all labels of a prediction, the newest last; the view may be without the prediction itself."""
    table = view.table(f"""
        select {actual_of(view.columns()["prediction"])} as actual, text, "at", received_at, source, entity
        from labels where prediction_id = {text(prediction_id)} order by received_at
    """)
    rows = columns.rows_of(table)
    return [
        GivenLabel(
            actual=row["actual"],
            text=row["text"],
            at=row["at"],
            received=row["received_at"],
            counts=place == len(rows) - 1,
            source=row["source"] or "",
            entity=row["entity"] or "",
        )
        for place, row in enumerate(rows)
    ]


def summary(view: View) -> LabelSummary:
    """Count the labels of the predictions of a view, except those that belong to none."""
    rows = columns.rows_of(
        view.table(f"""
            with own as (
                select labels.prediction_id, labels.text, epoch_us(labels."at") < epoch_us(p."at") - {_SLACK_US} as early
                from labels join predictions as p using (prediction_id)
            ), each as (
                select count(*) as labels, count(distinct text) as several, count(*) filter (early) as early
                from own group by prediction_id
            )
            select count(*) as rows, count(actual) as labelled,
                   count(*) filter (labelled_at is not null and actual is null) as unusable,
                   (select coalesce(sum(labels), 0)::bigint from each) as labels,
                   (select count(*) filter (several > 1) from each) as corrected,
                   (select coalesce(sum(labels - several), 0)::bigint from each) as duplicates,
                   (select coalesce(sum(early), 0)::bigint from each) as before
            from predictions
        """)
    )
    return LabelSummary(unknown=0, **rows[0])


def delays(view: View, since_us: int, until_us: int, every_us: int) -> Any:
    """Count the predictions of a view by when they were made and how long their first label took; see the store."""
    last = len(DELAY_AGES)
    return view.table(f"""
        with first as (
            select prediction_id, min(epoch_us(received_at)) as arrived
            from labels semi join predictions using (prediction_id)
            where received_at < make_timestamptz({until_us}) group by prediction_id
        )
        select ((epoch_us(p."at") - {since_us}) // {every_us})::bigint as cohort,
               case when arrived is null then -1
                    else least({last}, ceil(4 * log2(greatest(1.0, (arrived - epoch_us(p."at")) / 1e6))))
               end::bigint as place,
               count(*) as rows, max(arrived) as newest_us
        from predictions as p left join first using (prediction_id)
        group by 1, 2 order by 1, 2
    """)
