"""Tumbling windows of event time, aligned to 1970 so that every process cuts them alike."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from loopwright.records import Window

__all__ = ["due", "floor"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def floor(moment: datetime, length: timedelta) -> datetime:
    """Return the start of the window that holds a moment."""
    return moment - ((moment - _EPOCH) % length)


def due(
    length: timedelta, *, after: datetime, now: datetime, delay: timedelta, most: int = 20
) -> Iterator[Window]:
    """Yield the windows that can be judged now and start at or after `after`, oldest first.

    Parameters
    ----------
    after
        The end of the last window judged, or when the deployment started.
    delay
        How long after its end a window can be judged.
    most
        After a long pause only the newest so many windows are judged.
    """
    last_end = floor(now - delay, length)
    start = max(floor(after, length), last_end - most * length)
    if start < after:
        start += length
    while start + length <= last_end:
        yield Window(start, start + length)
        start += length
