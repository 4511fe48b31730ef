"""When enough labels have arrived: what earlier predictions say about the delay of labels, and about their share.

Labels come late, and those that come first are no fair sample: an order that is returned is known within days, one that
is kept only when its time is up. A window is judged when it is *mature*: when the share of labels that is expected in
the end has arrived, nearly. Both, how long labels take and which share of the rows ever gets one, are learnt from rows
that were followed long enough to know.

The rows are counted in cohorts, by when they were predicted, as in a run-off triangle of claims (T. Mack, 1993,
"Distribution-free calculation of the standard error of chain ladder reserve estimates"); a cohort is only asked about
ages it has reached, so that young ones bias nothing. What may be called the end follows from sufficient follow-up (R. A.
Maller and S. Zhou, 1992, "Estimating the proportion of immunes in a censored sample"): nothing came for as long again as
nearly all took. Medians over cohorts, where the chain ladder has sums, keep a failure of the labels' sender out of both.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from loopwright.config import MonitorConfig
from loopwright.predictions import DELAY_AGES, PredictionStore

__all__ = ["Cohorts", "LabelDelay", "Maturity"]

#: The share of a cohort's labels that counts as nearly all of them.
_NEARLY = 0.99
#: Cohorts are put together until they have about so many rows; so many followed ones are needed to know anything.
_GROUP_ROWS = 100
_GROUPS = 5
#: How far below the expected number chance may keep a window's labels: 95 % of windows lie above.
_CHANCE = 1.645
#: Labels have stopped when none came in a time in which so many were expected: chance does that once in 22,000 times.
_STOPPED = 10.0
#: At most so many cohorts are read, and so many days back.
_COHORTS = 300
_LONGEST = timedelta(days=90)
#: Of a log with more rows only the newest are read, about so many.
_ROWS = 4_000_000
_KEPT = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Maturity:
    """How far the labels of one window have come.

    Attributes
    ----------
    expected
        Share of the window's rows that should have a label at its age, 0 to 1; None while that is not known.
    arrived
        Share of the window's rows that has one.
    value
        Share of the labels expected in the end that has arrived, 0 to 1; None while that is not known.
    mature
        Whether the window can be judged.
    overdue
        Whether it has to be given up: it is not mature, and too old to wait for.
    """

    expected: float | None
    arrived: float
    value: float | None
    mature: bool
    overdue: bool


@dataclass(frozen=True, slots=True)
class Cohorts:
    """Predictions counted by when they were made and how long their first label took.

    Attributes
    ----------
    end_us
        When each cohort ended, in microseconds since 1970; shape (c,), rising.
    rows
        How many predictions each has; shape (c,).
    labels
        How many of them got their first label at an age of at most ``DELAY_AGES[j]`` seconds and more than
        ``DELAY_AGES[j - 1]``; shape (c, len(DELAY_AGES)).
    newest_us
        When the newest of these labels arrived; None without any.
    """

    end_us: NDArray[np.int64]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    newest_us: int | None = None

    def grouped(self) -> Cohorts:
        """Return neighbours put together until each has rows enough to speak of a share."""
        least = min(_GROUP_ROWS, max(10, int(self.rows.sum()) // 20))
        firsts, size = [], least
        for at, rows in enumerate(self.rows.tolist()):
            if size >= least:
                firsts.append(at)
                size = 0
            size += rows
        if len(firsts) > 1 and size < least:
            firsts.pop()  # the last one would be too small
        if not firsts:
            return self
        lasts = np.append(np.array(firsts[1:], np.intp), len(self.rows)) - 1
        return Cohorts(
            self.end_us[lasts],
            np.add.reduceat(self.rows, firsts),
            np.add.reduceat(self.labels, firsts, axis=0),
            self.newest_us,
        )


@dataclass(frozen=True, slots=True)
class LabelDelay:
    """What is known of the delay of a deployment's labels at one moment.

    Attributes
    ----------
    final
        Share of the predictions that have a label in the end, 0 to 1; None while no rows were followed long enough.
    least
        The share that three in four cohorts reach, which weekdays and the like may keep below `final`; None with it.
    curve
        Share of the labels that come in the end which have come at an age of ``DELAY_AGES`` seconds, 0 to 1, rising;
        shape (len(DELAY_AGES),). None with `final`.
    nearly_all_s
        Age in seconds at which 99 % of the labels have come, as far as it was followed; 0 without labels.
    overdue_s
        Age in seconds at which a window is given up.
    stopped
        Whether no label has come for so long that their sender must have failed.
    labels, rows
        What this was learnt from.
    """

    label_delay_s: float
    share: float
    final: float | None
    least: float | None
    curve: NDArray[np.floating[Any]] | None
    nearly_all_s: float
    overdue_s: float
    stopped: bool
    labels: int
    rows: int

    @classmethod
    def read(cls, store: PredictionStore, deployment: str, now: datetime, config: MonitorConfig) -> Self:
        """Learn from the log; what was learnt in the last five minutes, or the last window, is returned again.

        Parameters
        ----------
        store
            The predictions and labels.
        deployment
            Whose labels.
        now
            The present moment, UTC-aware. Labels that arrived later are not known yet.
        config
            The monitor's: its window and `performance`.

        Raises
        ------
        NotFound
            There is no such deployment.
        """
        key = (store.root, deployment, config.window, config.performance)
        with _lock:
            kept = _known.get(key)
        if kept is not None and timedelta(0) <= now - kept[0] < min(_KEPT, config.window):
            return kept[1]  # type: ignore[return-value]
        found = cls.learn(_read(store, deployment, now, config), now, config)
        with _lock:
            _known[key] = now, found
        return found

    @classmethod
    def learn(cls, cohorts: Cohorts, now: datetime, config: MonitorConfig) -> Self:
        """Learn from counts.

        Parameters
        ----------
        cohorts
            Of one deployment.
        now
            Until when they were followed.
        config
            The monitor's: its window and `performance`.
        """
        given, window_s = config.performance, config.window.total_seconds()
        groups = cohorts.grouped()
        ages = (now.timestamp() * 1e6 - groups.end_us) / 1e6
        seen = ages >= 0
        ages, rows, labels = ages[seen], groups.rows[seen], groups.labels[seen]
        # What came at an age that not all rows of a cohort have reached is left out.
        labels = np.where(DELAY_AGES[None, :] <= ages[:, None], labels, 0)
        by_age = np.cumsum(labels, axis=1)
        nearly_s = _nearly_all(ages, by_age)
        delay_s = given.label_delay.total_seconds()
        settled_s = max(2 * delay_s, 2 * nearly_s, 6 * window_s)
        overdue_s = max(3 * delay_s, 3 * nearly_s, 10 * window_s)
        if given.overdue is not None:
            overdue_s = given.overdue.total_seconds()
            settled_s = min(settled_s, overdue_s * 2 / 3)
        followed = (ages >= settled_s) & (rows > 0)
        final, least, curve = _settled(rows[followed], by_age[followed])
        stopped = curve is not None and final is not None
        if curve is not None and final is not None:
            gap_s = now.timestamp() - (cohorts.newest_us or 0) / 1e6
            came = _at(curve, ages) - _at(curve, ages - gap_s)
            stopped = float(final * (rows * came).sum()) >= _STOPPED
        return cls(
            label_delay_s=delay_s,
            share=given.maturity,
            final=final,
            least=least,
            curve=curve,
            nearly_all_s=nearly_s,
            overdue_s=overdue_s,
            stopped=stopped,
            labels=int(cohorts.labels.sum()),
            rows=int(cohorts.rows.sum()),
        )

    def shares(self) -> list[float]:
        """Return `curve` as a list for pages; empty while it is not known."""
        return [] if self.curve is None else [float(share) for share in self.curve]

    def milestones(self, shares: Sequence[float]) -> list[tuple[float, float]]:
        """Return the age in seconds at which each of some shares of the labels has come, with the share."""
        if self.curve is None:
            return []
        places = [int(np.argmax(self.curve >= share)) for share in shares]
        return [(float(DELAY_AGES[place]), share) for place, share in zip(places, shares, strict=True)]

    def maturity(self, age_s: float, labelled: int, rows: int) -> Maturity:
        """Return how far the labels of one window have come.

        It is mature when it is at least `label_delay` old and nearly all its rows have a label. Where it is known that
        fewer ever get one, it is when enough of the labels should have come by its age, and have, as far as chance
        allows; not while labels have stopped coming.

        Parameters
        ----------
        age_s
            Seconds since the window's end.
        labelled, rows
            How many of its rows have a label, and how many there are.

        Examples
        --------
        Nothing is known yet, and half of the labels have come:

        >>> fresh = LabelDelay(3600.0, 0.9, None, None, None, 0.0, 36000.0, False, 0, 0)
        >>> fresh.maturity(7200.0, 50, 100).mature
        False
        >>> fresh.maturity(7200.0, 95, 100).mature
        True
        >>> fresh.maturity(40000.0, 50, 100).overdue
        True
        """
        arrived = labelled / rows if rows else 0.0
        expected = value = None
        enough = labelled >= self.share * rows
        if self.final is not None and self.least is not None and self.curve is not None:
            come = float(_at(self.curve, np.array([age_s]))[0])
            expected = come * self.final
            value = min(1.0, arrived / self.final)
            chance = _CHANCE * math.sqrt(rows * self.least * (1 - self.least))
            needed = self.share * (self.least * rows - chance)
            known = not self.stopped and come >= self.share
            enough = enough or (known and labelled > 0 and labelled >= needed)
        mature = enough and age_s >= self.label_delay_s
        return Maturity(expected, arrived, value, mature, not mature and age_s >= self.overdue_s)


def _nearly_all(ages: NDArray[np.floating[Any]], by_age: NDArray[np.int64]) -> float:
    """Return the age in seconds at which nearly all labels of a cohort have come: the median of the older half.

    The labels of a cohort that is still getting some lie close to its present age: the answer then is about that, and
    tells that it was not followed for as long again.
    """
    totals = by_age[:, -1] if len(by_age) else np.empty(0, np.int64)
    old = (totals > 0) & (ages >= (np.median(ages) if len(ages) else 0.0))
    if not old.any():
        return 0.0
    places = np.argmax(by_age[old] >= _NEARLY * totals[old, None], axis=1)
    return float(np.median(DELAY_AGES[places]))


def _settled(
    rows: NDArray[np.int64], by_age: NDArray[np.int64]
) -> tuple[float | None, float | None, NDArray[np.floating[Any]] | None]:
    """Return the final share, that of the lower cohorts, and the curve of the share that has come by an age."""
    totals = by_age[:, -1] if len(by_age) else np.empty(0, np.int64)
    if len(rows) < _GROUPS or not totals.any():
        return None, None, None
    shares = totals / rows
    final = _quantile(shares, rows, 0.5)
    if not final:
        return None, None, None
    some = totals > 0
    curves = by_age[some] / totals[some, None]
    curve = np.array([_quantile(column, totals[some], 0.5) for column in curves.T])
    low = _quantile(shares, rows, 0.25)
    # Less than half of what is usual is no weekend but a failure.
    return final, (low if low >= final / 2 else final), np.maximum.accumulate(curve)


def _quantile(values: NDArray[np.floating[Any]], weights: NDArray[np.int64], share: float) -> float:
    """Return a quantile of weighted values."""
    order = np.argsort(values, kind="stable")
    sums = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(sums, share * sums[-1])])


def _at(curve: NDArray[np.floating[Any]], ages: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return the share that has come by some ages in seconds; nothing has below 0."""
    found: NDArray[np.floating[Any]] = np.interp(ages, np.append(0.0, DELAY_AGES), np.append(0.0, curve))
    return found


_lock = threading.Lock()
_known: dict[tuple[Path, str, timedelta, object], tuple[datetime, LabelDelay]] = {}


def _read(store: PredictionStore, deployment: str, now: datetime, config: MonitorConfig) -> Cohorts:
    """Count the predictions of the last months in at most so many cohorts, so many rows of them."""
    extent = store.extent(deployment)
    if extent.first is None or extent.last is None or extent.first >= now:
        none = np.empty(0, np.int64)
        return Cohorts(none, none, np.empty((0, len(DELAY_AGES)), np.int64))
    first = max(extent.first, now - _LONGEST)
    if extent.rows > _ROWS:
        # Enough of the newest to follow labels to their end, and no more: a busy deployment has them in hours.
        given = config.performance
        enough = max(60 * config.window, 12 * given.label_delay, 4 * (given.overdue or timedelta(0)))
        span = (extent.last - extent.first) * (_ROWS / extent.rows)
        first = max(first, min(extent.last, now) - max(enough, span))
    every = max(config.window, (now - first) / _COHORTS)
    table = store.label_delays(deployment, since=first, until=now, every=every)
    starts, places, rows = (
        np.array(table.column(name).to_pylist(), np.int64) for name in ("cohort", "place", "rows")
    )
    size = int(starts.max()) + 1 if len(starts) else 0
    labels = np.zeros((size, len(DELAY_AGES)), np.int64)
    kept = (places >= 0) & (places < len(DELAY_AGES))
    np.add.at(labels, (starts[kept], places[kept]), rows[kept])
    totals = np.bincount(starts, weights=rows, minlength=size).astype(np.int64)
    every_us = every // timedelta(microseconds=1)
    ends = round(first.timestamp() * 1e6) + (np.arange(size, dtype=np.int64) + 1) * every_us
    arrived = [moment for moment in table.column("newest_us").to_pylist() if moment is not None]
    return Cohorts(ends, totals, labels, max(arrived, default=None))
