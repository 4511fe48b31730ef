"""When schedules are due: the same times as Prefect's, and what runs are given of them."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from loopwright.pipelines.filling import Interval, asks, fill
from loopwright.pipelines.timing import Timing

BERLIN = "Europe/Berlin"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "start", [datetime(2026, 3, 27, 12, tzinfo=UTC), datetime(2026, 10, 23, 12, tzinfo=UTC)]
)
@pytest.mark.parametrize(
    "timing",
    [
        Timing(cron="0 2 * * *", zone=BERLIN),
        Timing(cron="30 2 * * *", zone=BERLIN),
        Timing(cron="*/20 * * * *", zone=BERLIN),
        Timing(cron="0 0 1 * 1"),
        Timing(every_s=6 * 3600),
        Timing(every_s=25 * 3600),
        Timing(every_s=7),
    ],
    ids=str,
)
def test_times_are_prefects(timing: Timing, start: datetime) -> None:
    """Also where clocks are changed: else each change would look like a missed run."""
    from prefect.server.schemas.schedules import CronSchedule, IntervalSchedule

    kind = CronSchedule if timing.cron else IntervalSchedule
    prefects = kind(**timing.to_prefect())._get_dates_generator(n=8, start=start + timedelta(seconds=1))
    theirs = [datetime.fromtimestamp(time.timestamp(), UTC) for time in prefects]
    ours = list(itertools.islice(timing.times(start), 8))
    assert ours == theirs
    assert timing.between(start, ours[-1]) == ours
    assert timing.between(start, ours[-1], most=3) == ours[-3:]
    assert timing.before(ours[1]) == ours[0]
    assert Timing.of(timing.to_prefect()) == timing


def test_what_only_prefects_pages_can_make_has_no_times() -> None:
    """A rule, or an interval from another moment, is left to Prefect."""
    assert Timing.of({"rrule": "FREQ=DAILY"}) is None
    assert Timing.of({"interval": 60, "anchor_date": "2026-01-01T00:00:07Z", "timezone": "UTC"}) is None


def test_a_timing_is_shown_as_it_is_written() -> None:
    """In the largest unit that is whole."""
    assert [str(Timing(every_s=seconds)) for seconds in (86400, 5400, 21600, 90)] == [
        "every 1d",
        "every 90m",
        "every 6h",
        "every 90s",
    ]


def test_parameters_take_what_the_run_is_for() -> None:
    """Times in the schedule's zone, in any form; other braces and values are left as they are."""
    interval = Interval(
        datetime(2026, 5, 1, 2, tzinfo=UTC), datetime(2026, 5, 2, 2, tzinfo=UTC), what="in/a.csv"
    )
    given = {
        "since": "{start}",
        "day": "{date}",
        "name": "run-{end:%d.%m.%y}-{what}",
        "other": "{x}",
        "depth": 8,
    }
    assert fill(given, interval) == {
        "since": "2026-05-01T02:00:00+00:00",
        "day": "2026-05-01",
        "name": "run-02.05.26-in/a.csv",
        "other": "{x}",
        "depth": 8,
    }
    assert asks(given)
    assert not asks({"other": "{x}", "depth": 8})
