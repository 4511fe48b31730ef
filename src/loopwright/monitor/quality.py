"""What the data-quality checks share: when a share of rows is larger than training and chance explain.

A share fires when it exceeds that of the training data by what is declared, **and** more rows are concerned than would be
by chance. The tests of one check in one window are a family: together they fire in at most `QUIET` of quiet windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from scipy.special import bdtrc, betaincinv

from loopwright.monitor.base import ALL, Context, Segment
from loopwright.records import Signal

__all__ = ["MIN_ROWS", "QUIET", "Share", "chance", "parts", "signal", "signals", "upper_bound"]

#: Windows, and segments of one, with fewer rows are not judged.
MIN_ROWS = 30
#: In how many quiet windows one of the quality checks may fire; there are four of shares, so 1 % in all.
QUIET = 0.0025
#: Columns that are kept of a window beside those that fired: those farthest above their training share.
KEPT = 12


@dataclass(frozen=True, slots=True)
class Share:
    """How many rows of one column are as they should not be.

    Attributes
    ----------
    hits, rows
        Rows concerned, and rows looked at.
    trained
        The share in the training data, 0 to 1.
    bound
        What that share can be at most, given how few training rows there were; 0 to 1.
    allowed
        What a window may have above `trained`, 0 to 1.
    """

    name: str
    hits: int
    rows: int
    trained: float
    bound: float
    allowed: float
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """The share in the window."""
        return self.hits / self.rows


def upper_bound(hits: float, rows: float, level: float) -> float:
    """Return the share that is not exceeded with confidence 1 - level, when `hits` of `rows` were seen; 0 to 1.

    References
    ----------
    Clopper and Pearson (1934), The use of confidence or fiducial limits illustrated in the case of the binomial.
    """
    return 1.0 if hits >= rows else float(betaincinv(hits + 1, rows - hits, 1 - level))


def chance(hits: int, rows: int, share: float) -> float:
    """Return the chance of at least `hits` in `rows`, each with chance `share`: the exact binomial tail, 0 to 1."""
    return 1.0 if hits <= 0 else float(bdtrc(hits - 1, rows, share))


def parts(context: Context) -> Iterator[tuple[Segment, int]]:
    """Yield all rows of the champion, and its segments that have enough of them, each with its number of rows."""
    for segment in (ALL, *context.data.segments()):
        rows = context.data.rows(context.champion, segment)
        if rows >= MIN_ROWS:
            yield segment, rows


def signals(
    context: Context, check: str, found: Sequence[tuple[Segment, Share]], level: float
) -> list[Signal]:
    """Judge shares that were found in one window, and return those to keep: fired ones, and the most conspicuous.

    Parameters
    ----------
    level
        The chance of firing that each test has, beside what went into its bound.

    Notes
    -----
    The training share is itself an estimate. The chance is computed at its upper confidence bound and the bound's own
    risk is taken off the level, which keeps the test exact: Berger and Boos (1994), P values maximized over a
    confidence set for the nuisance parameter.
    """
    made = []
    for segment, share in found:
        limit = share.trained + share.allowed
        p = chance(share.hits, share.rows, share.bound)
        detail = {"trained": share.trained, "hits": share.hits, "p": p, **share.detail}
        fired = share.value > limit and p <= level
        made.append(
            signal(
                context,
                check,
                share.name,
                share.value,
                limit,
                share.rows,
                fired,
                segment=segment,
                detail=detail,
            )
        )
    made.sort(key=lambda one: (not one.fired, one.detail["trained"] - one.value, one.subject))
    fired_ones = sum(one.fired for one in made)
    return made[: fired_ones + KEPT]


def signal(
    context: Context,
    check: str,
    subject: str,
    value: float,
    limit: float,
    rows: int,
    fired: bool,
    *,
    segment: Segment = ALL,
    detail: dict[str, Any] | None = None,
) -> Signal:
    """Return a signal about the champion in a window."""
    return Signal(
        check=check,
        model=context.model,
        deployment=context.deployment,
        window=context.window,
        value=value,
        limit=limit,
        rows=rows,
        fired=bool(fired),
        subject=subject,
        version=context.champion,
        detail=detail or {},
        segment=str(segment),
    )
