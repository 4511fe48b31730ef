"""Rows that come into a window after it was judged: from devices that were offline, and from replays."""

from __future__ import annotations

from datetime import datetime, timedelta

from loopwright.monitor.results import Results
from loopwright.predictions import PredictionStore
from loopwright.records import Judged, Window, micros

__all__ = ["GROWN", "grown"]

#: A window is judged again when it has so many times the rows that it had.
GROWN = 1.01
#: So many windows back are looked at, and as many of them as have so many rows together.
MOST_WINDOWS, MOST_ROWS = 20, 5_000_000


def grown(
    results: Results, store: PredictionStore, deployment: str, length: timedelta, now: datetime
) -> list[Window]:
    """Return the windows that have clearly more rows than when they were judged, oldest first.

    Raises
    ------
    NotFound
        There is no such deployment.
    """
    looked = results.windows(deployment, "inputs", states=("judged", "empty"), until=now, limit=MOST_WINDOWS)
    near = _near([one for one in looked if one.window.end - one.window.start == length])
    if not near:
        return []
    step = length // timedelta(microseconds=1)
    with store.view(
        deployment=deployment, since=near[0].window.start, until=near[-1].window.end, labels=False
    ) as view:
        table = view.table(f'select epoch_us("at") // {step} * {step}, count(*) from predictions group by 1')
    rows = dict(zip(table.column(0).to_pylist(), table.column(1).to_pylist(), strict=True))
    return [one.window for one in near if rows.get(micros(one.window.start), 0) > GROWN * one.rows]


def _near(looked: list[Judged]) -> list[Judged]:
    """Return the newest windows whose rows can be counted again at little cost, oldest first."""
    total, found = 0, list[Judged]()
    for one in reversed(looked):
        total += one.rows
        if total > MOST_ROWS and found:
            break
        found.append(one)
    return found[::-1]
