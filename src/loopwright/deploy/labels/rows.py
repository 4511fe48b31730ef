"""Rows of a table, or messages, as labels; what is none is counted with its reason and stops nothing."""

from __future__ import annotations

import decimal
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from loopwright.config import LabelSourceConfig
from loopwright.errors import InvalidInput, LoopwrightError, NotFound
from loopwright.predictions import Ids, LabelLog
from loopwright.records import Label, Scalar, now

__all__ = ["UNKNOWN", "Refusals", "Rows", "as_scalar"]

#: So many of the rows that were refused are named.
_SHOWN = 20
UNKNOWN = "an id that this project never gave out"


@dataclass(slots=True)
class Refusals:
    """Rows that are no labels: how many for each reason, and the numbers of the first of them, from 1 on."""

    reasons: Counter[str] = field(default_factory=Counter)
    rows: list[tuple[int, str]] = field(default_factory=list)
    last: str = ""

    def add(self, row: int, reason: str) -> None:
        """Count one."""
        self.reasons[reason] += 1
        self.last = reason
        if len(self.rows) < _SHOWN:
            self.rows.append((row, reason))

    @property
    def unknown(self) -> int:
        """How many name an id that was never given out."""
        return self.reasons[UNKNOWN]

    def __len__(self) -> int:
        return self.reasons.total()


class Rows:
    """Makes labels of rows.

    Parameters
    ----------
    config
        Which columns say what.
    ids, log
        Know what can be taken.
    textual
        Whether all values are text, as in a CSV file or a terminal: ``7`` then is a number, ``true`` a boolean.
    """

    def __init__(self, config: LabelSourceConfig, ids: Ids, log: LabelLog, *, textual: bool = False) -> None:
        self._config, self._ids, self._log, self._textual = config, ids, log, textual
        self._within_s = config.within.total_seconds()
        self._arrived = now()
        self.refused = Refusals()
        self.seen = 0

    @property
    def names(self) -> list[str]:
        """The columns that are needed."""
        given = self._config
        return [name for name in (given.id, given.entity, given.at, given.value) if name]

    def read(self, columns: Sequence[Iterable[Any]]) -> list[Label]:
        """Return the labels among the next rows, given as the values of each of `names`."""
        made = []
        for values in zip(*columns, strict=True):
            self.seen += 1
            try:
                label = self._label(dict(zip(self.names, values, strict=True)))
                self._log.check(label)
            except NotFound as error:
                self.refused.add(self.seen, error.fact)
            except InvalidInput as error:
                self.refused.add(self.seen, _reason(error))
            except (ValueError, OverflowError) as error:
                self.refused.add(self.seen, str(error))
            else:
                made.append(label)
        return made

    def _label(self, row: dict[str, Any]) -> Label:
        given = self._config
        actual = self._scalar(row[given.value])
        if given.id:
            name = _name(row[given.id], "id")
            try:
                self._ids.check(name)
            except NotFound:
                raise ValueError(UNKNOWN) from None
            at = _moment(row[given.at]) if given.at and not _missing(row[given.at]) else self._arrived
            return Label(name, actual, at)
        entity, at = _name(row[given.entity], "entity"), _moment(row[given.at])
        return Label("", actual, at, given.deployment, entity, self._within_s)

    def _scalar(self, value: Any) -> Scalar:
        if _missing(value):
            raise ValueError("no value")
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, decimal.Decimal):
            value = int(value) if value == value.to_integral_value() else float(value)
        if isinstance(value, float) and math.isinf(value):
            raise ValueError("an infinite value")
        if not isinstance(value, bool | int | float | str):
            raise ValueError(f"a value that is no number, text or boolean but a {type(value).__name__}")
        return as_scalar(value) if self._textual and isinstance(value, str) else value


def as_scalar(text: str) -> Scalar:
    """Return what a text says: a number, true, false, or the text itself."""
    import msgspec

    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError):
        return text
    return value if isinstance(value, bool | int | float | str) else text


def _reason(error: LoopwrightError) -> str:
    """Return why a label was refused, without its own values, so that equal reasons are counted together."""
    if error.attrs.get("field") == "at":
        return "a time without a zone" if "without a zone" in error.fact else "a time that is to come"
    return error.valid or error.fact


def _missing(value: Any) -> bool:
    try:
        return value is None or value == "" or bool(value != value)
    except TypeError:
        return True  # pandas.NA


def _name(value: Any, what: str) -> str:
    if _missing(value):
        raise ValueError(f"no {what}")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def _moment(value: Any) -> datetime:
    if _missing(value):
        raise ValueError("no time")
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise ValueError("a time that cannot be read") from None
    if not isinstance(value, datetime):
        raise ValueError(f"a time that is a {type(value).__name__}")
    if value.tzinfo is None:
        raise ValueError("a time without a zone")
    return value
