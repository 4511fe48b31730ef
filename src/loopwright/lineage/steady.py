"""Reading something that others may be writing: what changed meanwhile is read again, and then refused."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

from loopwright.errors import Conflict, LoopwrightError

__all__ = ["steady"]

State = TypeVar("State", bound=Hashable)
Content = TypeVar("Content")
TRIES = 2


def steady(look: Callable[[], State], read: Callable[[State], Content], shown: str) -> Content:
    """Read, and make sure that what was read is of one moment.

    Parameters
    ----------
    look
        Returns what tells one state of the source from the next: sizes, times, an etag.
    read
        Reads it, given what `look` has returned. Called a second time when the source looks different afterwards.
    shown
        How the source is called in the message.

    Raises
    ------
    Conflict
        It changed both times.
    """
    for _ in range(TRIES):
        before = look()
        try:
            found = read(before)
        except LoopwrightError:
            # A file that is half written may well be unreadable: then that is no news about the file.
            if look() == before:
                raise
            continue
        if look() == before:
            return found
    raise Conflict(
        f"{shown} changed while it was read, {TRIES} times in a row.",
        valid="A dataset is what its source held at one moment.",
        hint="wait until it is written; a writer that renames a finished file into place is never met half-way",
    )
