"""Who is refused: callers that ask too often, and requests that do not fit beside those that wait."""

import random

import pytest

from loopwright.deploy.online.limits import Admission, Late, Limiter, Overloaded, TooMany


def test_a_full_bucket_is_used_at_once_and_filled_evenly() -> None:
    """A period's number is taken in one moment; after that one request each interval, and the wait says when."""
    limiter = Limiter("600/m")
    assert [limiter.take("web", 5.0) for _ in range(600)] == [0.0] * 600
    wait = limiter.take("web", 5.0)
    assert wait == pytest.approx(0.1, abs=1e-4)
    assert limiter.take("web", 5.0 + wait - 0.001) > 0
    assert limiter.take("web", 5.0 + wait) == 0.0
    assert limiter.take("web", 5.0 + wait) > 0


@pytest.mark.parametrize(("rate", "most"), [("7/s", 7), ("90/m", 90), ("1/s", 1)])
def test_no_stretch_of_time_lets_more_through_than_the_bucket_and_its_refill(rate: str, most: int) -> None:
    """However requests are spread, within any time t at most the burst and rate x t are taken, and hardly fewer."""
    limiter, random_ = Limiter(rate), random.Random(0)
    interval = {"7/s": 1 / 7, "90/m": 2 / 3, "1/s": 1.0}[rate]
    now, taken = 0.0, []
    for _ in range(5000):
        now += random_.expovariate(5 / interval)
        if limiter.take("a", now) == 0.0:
            taken.append(now)
    for first in range(0, len(taken), 37):
        for last in range(first, len(taken), 11):
            assert last - first + 1 <= most + (taken[last] - taken[first]) / interval + 1.01
    # Nothing is saved up where the bucket holds one: then what does not come in time is lost.
    assert len(taken) >= now / interval * (0.99 if most > 1 else 0.8)


def test_a_refused_request_is_not_counted() -> None:
    """Asking all the time does not put the next turn off."""
    limiter = Limiter("1/s")
    assert limiter.take("a", 0.0) == 0.0
    assert all(limiter.take("a", step / 100) > 0 for step in range(99))
    assert limiter.take("a", 1.0) == 0.0


def test_callers_do_not_share_a_bucket_and_workers_share_the_rate() -> None:
    """Each caller has its own; each of four workers gives a quarter, and at least one request."""
    limiter = Limiter("8/s", share=4)
    assert [limiter.take("a", 0.0) > 0 for _ in range(3)] == [False, False, True]
    assert limiter.take("10.0.0.1", 0.0) == 0.0
    assert limiter.take("a", 0.5) == 0.0
    sparse = Limiter("1/s", share=4)
    assert sparse.take("a", 0.0) == 0.0
    assert sparse.take("a", 3.9) > 0
    assert sparse.take("a", 4.0) == 0.0


def test_what_is_remembered_is_bounded() -> None:
    """A million addresses leave a bounded table; idle ones go first, and who asks all the time is kept."""
    limiter = Limiter("1/h", most=100)
    for number in range(10_000):
        limiter.take(f"10.{number}", 0.0)
        if number == 50:
            assert limiter.take("10.0", 0.0) > 0
    assert len(limiter) <= 100
    brief = Limiter("10/s", most=100)
    for number in range(1000):
        brief.take(f"10.{number}", number * 0.2)
    assert len(brief) <= 2
    busy = Limiter("5/s", most=100)
    for number in range(1000):
        busy.take(f"10.{number}", number / 1e6)
        if number % 50 == 0:
            busy.take("shop", number / 1e6)
    assert busy.take("shop", 0.001) > 0


def test_the_queue_takes_what_fits() -> None:
    """Rows and bytes are bounded together, what was refused is not counted, and what left makes room."""
    door = Admission(max_rows=10, max_bytes=1000)
    assert door.enter(6, 500)
    assert not door.enter(5, 1)
    assert not door.enter(1, 501)
    assert door.enter(4, 500)
    assert not door.enter(1, 0)
    door.leave(6, 500)
    assert door.enter(6, 500)
    door.leave(4, 500)
    door.leave(6, 500)
    assert (door.rows, door.nbytes) == (0, 0)


def test_one_request_larger_than_the_queue_is_taken_when_nothing_waits() -> None:
    """What would be refused for ever is taken alone, and holds off the others meanwhile."""
    door = Admission(max_rows=10, max_bytes=1000)
    assert door.enter(5000, 9)
    assert not door.enter(1, 1)
    error = door.refusal()
    assert isinstance(error, Overloaded)
    assert (error.http_status, error.attrs["retry_after"]) == (503, 1)
    assert "5000 rows" in error.fact
    door.leave(5000, 9)
    assert door.enter(1, 1)


def test_each_refusal_has_its_status() -> None:
    """429 says when to come back, 504 that the deadline has passed."""
    error = TooMany.after("shop", "2/s", 0.4)
    assert (error.http_status, error.code, error.attrs["retry_after"]) == (429, "too_many_requests", 1)
    assert TooMany.after("shop", "2/h", 1800.2).attrs["retry_after"] == 1801
    assert (Late("late").http_status, Late.code) == (504, "deadline_exceeded")
