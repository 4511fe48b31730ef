"""The spans that are counted apart, minutes, hours and days of UTC, and how a longer one is put together from them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from loopwright.records import micros

__all__ = ["DAY_S", "HOUR_S", "MINUTE_S", "SPANS_S", "Piece", "cover", "horizon_us"]

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400
#: Every row is counted in one span of each length, so that two days of minutes and years of days cost the same to read.
SPANS_S = (MINUTE_S, HOUR_S, DAY_S)
#: How long minutes are kept; what is older is told by the hour.
MINUTES_KEPT = timedelta(days=2)


class Piece(NamedTuple):
    """Spans of one length in a row: those that start in [start, end), in microseconds since 1970."""

    span_s: int
    start_us: int
    end_us: int


def horizon_us(now: datetime) -> int:
    """Return from which moment on rows are counted by the minute as well."""
    return _floor(micros(now - MINUTES_KEPT), HOUR_S)


def _floor(us: int, span_s: int) -> int:
    return us // (span_s * 1_000_000) * (span_s * 1_000_000)


def _ceil(us: int, span_s: int) -> int:
    return -_floor(-us, span_s)


def cover(since_us: int, until_us: int, minutes_from_us: int) -> Iterator[Piece]:
    """Yield the fewest spans that make up [since, until), oldest first.

    Parameters
    ----------
    since_us, until_us
        Microseconds since 1970; both are taken to the next whole minute outwards.
    minutes_from_us
        A whole hour. What is older has no minutes: there the span begins and ends at whole hours, outwards.
    """
    since_us, until_us = _floor(since_us, MINUTE_S), _ceil(until_us, MINUTE_S)
    if since_us < minutes_from_us:
        since_us = _floor(since_us, HOUR_S)
    if until_us < minutes_from_us:
        until_us = _ceil(until_us, HOUR_S)
    yield from _cover(since_us, until_us, SPANS_S[::-1])


def _cover(since_us: int, until_us: int, spans_s: tuple[int, ...]) -> Iterator[Piece]:
    if since_us >= until_us:
        return
    longest, *shorter = spans_s
    first, last = _ceil(since_us, longest), _floor(until_us, longest)
    if first > last or not shorter:
        yield from (
            _cover(since_us, until_us, tuple(shorter)) if shorter else [Piece(longest, since_us, until_us)]
        )
        return
    yield from _cover(since_us, first, tuple(shorter))
    if first < last:
        yield Piece(longest, first, last)
    yield from _cover(last, until_us, tuple(shorter))
