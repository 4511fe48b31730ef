"""Conditions on runs, such as ``accuracy > 0.9 and params.depth = '6'``: MLflow's language, with shorter names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from loopwright.errors import InvalidInput, listing, nearest

__all__ = ["ATTRIBUTES", "NEWEST", "Condition", "Order", "parse_order", "parse_where"]

Kind = Literal["metric", "param", "tag", "attribute"]

#: What can be asked of a run itself, and its column in MLflow's table of runs.
ATTRIBUTES = {
    "run_id": "run_uuid",
    "run_name": "name",
    "status": "status",
    "user_id": "user_id",
    "start_time": "start_time",
    "end_time": "end_time",
}
_SHORT = {"name": "run_name", "id": "run_id", "started": "start_time", "ended": "end_time"}
_TIMES = ("start_time", "end_time")
_KINDS: dict[str, Kind] = {
    "metric": "metric",
    "metrics": "metric",
    "param": "param",
    "params": "param",
    "parameters": "param",
    "tag": "tag",
    "tags": "tag",
    "attribute": "attribute",
    "attributes": "attribute",
    "run": "attribute",
}
_PREFIXES: dict[Kind, str] = {
    "metric": "metrics",
    "param": "params",
    "tag": "tags",
    "attribute": "attributes",
}
_OPERATORS = ("=", "!=", ">", ">=", "<", "<=", "LIKE", "ILIKE")
_ONE = re.compile(
    r"""\s*(?P<name>(?:\w+\.)?(?:`[^`]+`|"[^"]+"|[\w./-]+))\s*
        (?P<operator>!=|>=|<=|=|>|<|I?LIKE\b)\s*
        (?P<value>'[^']*'|"[^"]*"|[^\s'"]+)\s*""",
    re.VERBOSE | re.IGNORECASE,
)
_AND = re.compile(r"and\b\s*", re.IGNORECASE)
_VALID = "Valid: conditions joined by 'and', such as: accuracy > 0.9 and params.depth = '6' and status = 'FINISHED'."


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition. `value` is a number for metrics and times (in milliseconds), else text."""

    kind: Kind
    name: str
    operator: str
    value: float | str

    def text(self) -> str:
        """Return the condition in MLflow's own language."""
        quote = '"' if "'" in str(self.value) else "'"
        value = f"{quote}{self.value}{quote}" if isinstance(self.value, str) else f"{self.value!r}"
        return f"{_spelled(self.kind, self.name)} {self.operator} {value}"


@dataclass(frozen=True, slots=True)
class Order:
    """What runs are sorted by; runs that lack it come last."""

    kind: Kind = "attribute"
    name: str = "start_time"
    descending: bool = True

    def text(self) -> str:
        """Return the order in MLflow's own language."""
        return f"{_spelled(self.kind, self.name)} {'DESC' if self.descending else 'ASC'}"


NEWEST = Order()


def _spelled(kind: Kind, name: str) -> str:
    return f"{_PREFIXES[kind]}.{name}" if kind == "attribute" else f"{_PREFIXES[kind]}.`{name}`"


def parse_where(text: str) -> tuple[Condition, ...]:
    """Read conditions joined by ``and``. A name without a prefix is an attribute, a metric, or with text a parameter.

    Raises
    ------
    InvalidInput
        The text is no such list of conditions.
    """
    found, rest = [], text.strip()
    while rest:
        match = _ONE.match(rest)
        if not match:
            raise InvalidInput(f"The condition {rest!r} is not understood.", valid=_VALID)
        found.append(_condition(match["name"], match["operator"].upper(), match["value"]))
        rest = rest[match.end() :]
        if rest:
            joined = _AND.match(rest)
            if not joined or not rest[joined.end() :]:
                raise InvalidInput(f"After the condition {match[0].strip()!r} comes {rest!r}.", valid=_VALID)
            rest = rest[joined.end() :]
    return tuple(found)


def _condition(spelled: str, operator: str, written: str) -> Condition:
    quoted = written[0] in "'\""
    value = written[1:-1] if quoted else written
    kind, name = _kind(spelled, "param" if quoted else "metric")
    if kind != "metric" and name not in _TIMES:
        return Condition(kind, name, operator, value)
    if operator in {"LIKE", "ILIKE"}:
        raise InvalidInput(
            f"{spelled} is a number: {operator} compares text.", valid=f"Valid: {listing(_OPERATORS[:6])}."
        )
    try:
        return Condition(kind, name, operator, float(value) if kind == "metric" else int(value))
    except ValueError:
        hint = f"params.{name} {operator} '{value}'   (if it is a parameter)" if kind == "metric" else ""
        raise InvalidInput(f"{spelled} is compared with {written}, which is no number.", hint=hint) from None


def parse_order(text: str) -> Order:
    """Read what to sort by, such as ``accuracy`` (highest first), ``loss asc`` or ``started``."""
    words = text.split()
    way = words[-1].lower() if len(words) > 1 else ""
    if not words or (len(words) > 1 and way not in {"asc", "desc"}) or len(words) > 2:
        raise InvalidInput(
            f"The order {text!r} is not understood.", valid="Valid: a name, then asc or desc: 'loss asc'."
        )
    kind, name = _kind(words[0], "metric")
    return Order(kind, name, way != "asc")


def _kind(spelled: str, bare: Kind) -> tuple[Kind, str]:
    prefix, dot, rest = spelled.partition(".")
    if dot and prefix.lower() in _KINDS:
        kind, name = _KINDS[prefix.lower()], rest.strip('`"')
    else:
        name = spelled.strip('`"')
        kind = "attribute" if _SHORT.get(name, name) in ATTRIBUTES else bare
    if kind != "attribute":
        return kind, name
    name = _SHORT.get(name, name)
    if name not in ATTRIBUTES:
        guess = f"Did you mean {nearest(name, ATTRIBUTES)!r}? " if nearest(name, ATTRIBUTES) else ""
        raise InvalidInput(f"A run has no attribute {name!r}.", valid=f"{guess}Valid: {listing(ATTRIBUTES)}.")
    return kind, name
