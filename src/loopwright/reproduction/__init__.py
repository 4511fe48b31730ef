"""Repeating a run from its record: its code, packages and data, in throw-away stores, and what came out compared.

The names below are imported when they are first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopwright.reproduction.repeating import reproduce
    from loopwright.reproduction.verdict import Reproduction

__all__ = ["Reproduction", "reproduce"]


def __getattr__(name: str) -> Any:
    if name == "Reproduction":
        from loopwright.reproduction import verdict

        return verdict.Reproduction
    if name == "reproduce":
        from loopwright.reproduction import repeating

        return repeating.reproduce
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Names: {', '.join(__all__)}")
