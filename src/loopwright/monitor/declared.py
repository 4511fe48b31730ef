"""What a monitor's declaration names and its model does not have: said with each window, so that nobody waits for it."""

from __future__ import annotations

from collections.abc import Iterable

from loopwright.config import MonitorConfig
from loopwright.errors import listing, nearest
from loopwright.monitor.data import PARTS
from loopwright.records import Signature

__all__ = ["problems"]


def problems(
    config: MonitorConfig, signature: Signature | None, checks: Iterable[str], hidden: frozenset[str]
) -> list[str]:
    """Return what is declared and cannot be watched, each in one sentence.

    Parameters
    ----------
    checks
        The names of all checks there are.
    hidden
        Inputs that the log does not keep as they came.
    """
    found = [_unknown("off", name, checks, "check") for name in config.off if name not in set(checks)]
    if signature is None:
        return found
    inputs = [name for name in signature.names if name not in hidden]
    for key, names, known in (
        ("segments", config.segments, [*inputs, *PARTS]),
        ("quality.ranges", config.quality.ranges, inputs),
        ("quality.unique", config.quality.unique, [*inputs, "entity", "request_id"]),
        ("drift.columns", config.drift.columns, inputs),
        ("drift.ignore", config.drift.ignore, signature.names),
    ):
        for name in names:
            if name in hidden and name in signature.names and name not in known:
                found.append(
                    f"{key} names {name!r}, which the log does not keep as it came: see log.drop, log.hash"
                )
            elif name not in known:
                found.append(_unknown(key, name, known, "column"))
    kinds = {column.name: column.type for column in signature.inputs}
    for name, (low, high) in config.quality.ranges.items():
        if kinds.get(name) in {"string", "boolean", "datetime"}:
            found.append(f"quality.ranges names {name!r}, which is no number but {kinds[name]}")
        if low > high:
            found.append(f"quality.ranges.{name} = [{low:g}, {high:g}] has no value in it")
    return found


def _unknown(key: str, name: str, known: Iterable[str], what: str) -> str:
    names = list(known)
    close = nearest(name, names)
    guess = f"Did you mean {close!r}? " if close else ""
    return f"{key} names {name!r}, which is no {what}. {guess}Known: {listing(names, most=20)}"
