"""A span of time is put together from days, hours and minutes: each moment once, and with few of them."""

import itertools
from datetime import UTC, datetime, timedelta

from hypothesis import example, given
from hypothesis import strategies as st

from loopwright.monitor.live.spans import DAY_S, HOUR_S, MINUTE_S, cover, horizon_us
from loopwright.records import micros

MINUTE_US = 60_000_000
#: Moments around some weeks of 2026, and before 1970.
MOMENTS = st.integers(-5_000_000, 5_000_000).map(lambda seconds: 1_790_000_000_000_000 + seconds * 997_003)


@given(MOMENTS, st.integers(0, 40 * 86400), MOMENTS)
@example(-90_000_001, 3, 0)
@example(0, 86400, 0)
def test_pieces_follow_each_other_and_are_few(since_us: int, seconds: int, minutes_from_us: int) -> None:
    """No gap and no overlap, from at or before the beginning to at or after the end, by less than one span outwards."""
    until_us = since_us + seconds * 1_000_000
    minutes_from_us -= minutes_from_us % (HOUR_S * 1_000_000)
    pieces = list(cover(since_us, until_us, minutes_from_us))
    for one, other in itertools.pairwise(pieces):
        assert one.end_us == other.start_us
    for piece in pieces:
        span_us = piece.span_s * 1_000_000
        assert piece.start_us % span_us == piece.end_us % span_us == 0
        assert piece.start_us < piece.end_us
        assert piece.span_s > MINUTE_S or piece.start_us >= minutes_from_us
    if seconds == 0 and since_us % MINUTE_US == 0 and since_us >= minutes_from_us:
        assert not pieces
    if pieces:
        outwards = HOUR_S * 1_000_000
        assert 0 <= since_us - pieces[0].start_us < (outwards if since_us < minutes_from_us else MINUTE_US)
        assert 0 <= pieces[-1].end_us - until_us < (outwards if until_us < minutes_from_us else MINUTE_US)
        blocks = sum((piece.end_us - piece.start_us) // (piece.span_s * 1_000_000) for piece in pieces)
        assert blocks <= seconds / DAY_S + 2 * 23 + 2 * 59 + 2


def test_minutes_are_there_for_two_days() -> None:
    """The horizon is a whole hour."""
    now = datetime(2026, 11, 26, 11, 59, 59, tzinfo=UTC)
    assert horizon_us(now) == micros(datetime(2026, 11, 24, 11, tzinfo=UTC))
    assert horizon_us(now + timedelta(seconds=1)) == micros(datetime(2026, 11, 24, 12, tzinfo=UTC))
