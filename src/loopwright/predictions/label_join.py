"""How labels find their predictions, and get their type: the SQL of it.

A label by entity belongs to the entity's last prediction at or before the label's own time. That prediction may lie
outside the span that is looked at, and the label is then none of the span's: so the join sees all predictions from the
span's start up to the time of the last label that may belong to it, but of these only who, when and the id.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BY_ENTITY", "BY_ID", "ROWS", "Columns", "actual_of", "all_labels", "last_labels"]

#: The sources of the view `labels`: those that name an id, those that name an entity, and the predictions of entities.
BY_ID, BY_ENTITY, ROWS = "labels_by_id", "labels_by_entity", "rows_of_entities"
_WHOLE = 1 << 53
#: How a label, stored as `number` and `text`, becomes a value of the prediction's type, null where it has none. A number
#: that a double cannot tell from its neighbours is read from its text.
_ACTUAL = {
    "BOOLEAN": "case when number is null then try_cast(text as boolean) when number in (0, 1) then number = 1 end",
    "BIGINT": (
        "case when number is null then case when try_cast(text as double) = trunc(try_cast(text as double)) "
        "then try_cast(text as bigint) end when number <> trunc(number) then null "
        f"when abs(number) < {_WHOLE} then number::bigint else try_cast(text as bigint) end"
    ),
    "DOUBLE": (
        "case when number is not null then number when isfinite(try_cast(text as double)) "
        "then try_cast(text as double) end"
    ),
    "VARCHAR": "text",
}


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that the logs of labels have; segments of an earlier release lack some."""

    by_id: frozenset[str]
    by_entity: frozenset[str] = frozenset()


def actual_of(prediction_type: str) -> str:
    """Return the SQL of a label's value, of the columns `number` and `text`, for a DuckDB type of predictions."""
    return _ACTUAL.get(prediction_type, _ACTUAL["VARCHAR"])


def all_labels(columns: Columns, deployment: str | None = None) -> str:
    """Return the SELECT of the view `labels`: every label with the id of the prediction it is of, null without one.

    Parameters
    ----------
    columns
        What the logs have.
    deployment
        An SQL literal: only its labels by entity.
    """
    source = "source" if "source" in columns.by_id else "null::varchar"
    by_id = (
        f'select prediction_id, number, text, "at", received_at, {source} as source, '
        f"null::varchar as deployment, null::varchar as entity from {BY_ID}"
    )
    if not columns.by_entity:
        return by_id
    mine = f"where deployment = {deployment}" if deployment else ""
    # Rows of one request have one time: the id that was issued last is the last prediction.
    return f"""{by_id}
        union all
        select case when epoch_us(given."at") - epoch_us(predicted."at") <= given.within_us
                    then predicted.prediction_id end,
               given.number, given.text, given."at", given.received_at, given.source, given.deployment, given.entity
        from (select * from {BY_ENTITY} {mine}) as given
        asof left join (
            select deployment, entity, "at", max(prediction_id) as prediction_id
            from {ROWS} where entity is not null group by deployment, entity, "at"
        ) as predicted
        on given.deployment = predicted.deployment and given.entity = predicted.entity
           and given."at" >= predicted."at"
    """


def last_labels(prediction_type: str, few: str, rows: str) -> str:
    """Return the join of the label that counts, called ``label``: the one received last, also when it is unusable.

    Ids are grouped and joined by two hashes of 64 bits, of all of it and of what follows its eighth sign: numbers of a
    fixed size cost a third less than text, and that two of a billion ids agree in both has a chance of 1 in 10^20.

    Parameters
    ----------
    prediction_type
        Of the predictions, in DuckDB's words.
    few
        A semi join that leaves out labels of other predictions, or nothing.
    rows
        The view of the predictions.
    """
    # A label that has no value of the prediction's type still replaces an earlier one: arg_max_null, not arg_max.
    return f"""
        left join (
            select hash(prediction_id) as one, hash(substr(prediction_id, 9)) as two,
                   arg_max_null({actual_of(prediction_type)}, received_at) as actual,
                   max(received_at) as labelled_at, arg_max("at", received_at) as actual_at
            from labels {few} where prediction_id is not null group by one, two
        ) as label
        on label.one = hash({rows}.prediction_id) and label.two = hash(substr({rows}.prediction_id, 9))
    """
