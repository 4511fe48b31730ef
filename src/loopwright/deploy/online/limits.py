"""What a serving process refuses at once: callers that ask too often, and more rows than it can hold.

Each worker counts for itself, because sharing a counter would cost more than an answer: a limiter is told by how many
workers the rate is divided. Nothing here waits, sleeps or takes a lock; all calls come from the event loop's thread.
"""

from __future__ import annotations

import math
from collections import OrderedDict

from loopwright.config import parse_rate
from loopwright.errors import InvalidInput, Unavailable

__all__ = ["Admission", "Late", "Limiter", "Overloaded", "TooMany"]

#: Callers that a limiter remembers: some 2 MB. Beyond it those who asked least recently are forgotten.
MOST = 10_000


class TooMany(InvalidInput):
    """A caller has used up its rate. `retry_after` is in whole seconds, >= 1."""

    code = "too_many_requests"
    http_status = 429

    @classmethod
    def after(cls, who: str, rate: str, seconds: float) -> TooMany:
        """Return the refusal of a caller that may ask again in so many seconds."""
        return cls(
            f"{who!r} has used up its {rate}.",
            valid=f"The next request is taken in {seconds:.3g} s.",
            hint="raise rate_limit in [serving] of loopwright.toml, or send many records in one request",
            retry_after=max(1, math.ceil(seconds)),
        )


class Overloaded(Unavailable):
    """More waits than the worker may hold. Nothing was scored; `retry_after` is in whole seconds."""

    code = "overloaded"


class Late(Unavailable):
    """The request's deadline passed before its answer was there."""

    code = "deadline_exceeded"
    http_status = 504


class Limiter:
    """Holds each caller to a rate, by a token bucket that is full at first.

    A caller may use a whole period's number at once, and after that gets it back evenly: with ``"600/m"`` 600 requests
    in one moment, then one every 0.1 s.

    Parameters
    ----------
    rate
        Such as ``"100/s"``; see `config.parse_rate`.
    share
        How many workers the rate is divided by, >= 1. A caller whose connections all go to one worker gets that
        worker's share. A share below one request in the period lets one through per ``share`` periods.
    most
        Callers that are remembered, >= 1.

    Examples
    --------
    >>> limiter = Limiter("2/s")
    >>> limiter.take("web", 0.0), limiter.take("web", 0.0), limiter.take("web", 0.0)
    (0.0, 0.0, 0.5)
    >>> limiter.take("web", 0.5)
    0.0
    """

    def __init__(self, rate: str, *, share: int = 1, most: int = MOST) -> None:
        number, seconds = parse_rate(rate)
        self.rate = rate
        self._interval = seconds * share / number
        # What may be used ahead of its time, and what sums of decimals may lose.
        self._ahead = (max(1.0, number / share) - 1.0) * self._interval
        self._slack = 1e-6 * self._interval
        self._most = most
        # When each caller's bucket will be full again, the one that asked last at the end.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, who: str, now: float) -> float:
        """Count one request.

        Parameters
        ----------
        who
            The name of the caller's key, else its address. A key's name begins with a letter and has no colon, so it
            is never an address.
        now
            Seconds of `time.monotonic`.

        Returns
        -------
        float
            0.0 when it is taken; else the seconds until the next one is, > 0, and it is not counted.
        """
        known = self._full_at
        full = known.get(who)
        if full is None:
            self._forget(now)
            known[who] = now + self._interval
            return 0.0
        # Also for one that is refused: forgotten, it would have a full bucket again.
        known.move_to_end(who)
        if full <= now:
            full = now
        else:
            wait = full - now - self._ahead
            if wait > self._slack:
                return wait
        known[who] = full + self._interval
        return 0.0

    def _forget(self, now: float) -> None:
        """Make room for one caller. Two of the oldest are looked at, so that idle ones go faster than new ones come."""
        known = self._full_at
        for _ in range(2):
            if known:
                oldest = next(iter(known))
                if known[oldest] <= now or len(known) >= self._most:
                    del known[oldest]


class Admission:
    """Counts the rows and bytes that wait in one worker, over all its deployments.

    Parameters
    ----------
    max_rows, max_bytes
        How much may wait, >= 1 each.

    Examples
    --------
    >>> door = Admission(max_rows=100, max_bytes=1000)
    >>> door.enter(80, 10), door.enter(21, 10)
    (True, False)
    >>> door.leave(80, 10)
    >>> door.enter(5000, 10)
    True
    """

    __slots__ = ("_max_bytes", "_max_rows", "nbytes", "rows")

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self.rows = 0
        self.nbytes = 0

    def enter(self, rows: int, nbytes: int) -> bool:
        """Count a request in and return True; False, counting nothing, when it does not fit beside those that wait.

        A request that is larger than the limit is taken when nothing waits: refused, it would be refused for ever.
        `max_body` bounds it.
        """
        if (self.rows or self.nbytes) and (
            self.rows + rows > self._max_rows or self.nbytes + nbytes > self._max_bytes
        ):
            return False
        self.rows += rows
        self.nbytes += nbytes
        return True

    def leave(self, rows: int, nbytes: int) -> None:
        """Count a request out that `enter` let in; call it once, however the request ended."""
        self.rows -= rows
        self.nbytes -= nbytes

    def refusal(self) -> Overloaded:
        """Return the error for a request that did not fit."""
        return Overloaded(
            f"{self.rows} rows and {self.nbytes} bytes wait already.",
            valid=f"At most {self._max_rows} rows and {self._max_bytes} bytes may.",
            hint="try again in a moment; queue_rows, queue_bytes and workers are in [serving] of loopwright.toml",
            retry_after=1,
        )
