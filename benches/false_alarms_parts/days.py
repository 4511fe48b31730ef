"""A model whose labels come late, and what happened first.

An outcome that happens is known within a day, one that does not only when its three days are over. The model misses more
of the former: so young windows, which hold little else, show far more mistakes than there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from false_alarms_parts.worlds import START, Rows, context_of
from loopwright.config import MonitorConfig, PerformanceConfig
from loopwright.ledger import Ledger
from loopwright.monitor.alerts import judge
from loopwright.monitor.blocks import Plan
from loopwright.monitor.label_delay import Cohorts, LabelDelay
from loopwright.monitor.metrics import Labelled
from loopwright.monitor.performance import PerformanceCheck
from loopwright.monitor.results import Results
from loopwright.predictions import DELAY_AGES
from loopwright.records import Judged

__all__ = ["alarms_of_young_windows", "windows_until_a_loss_is_told"]

DAY = 86_400.0
ROWS = 2000
#: Of the outcomes that happen three in four are foreseen, of the others 96 %: an accuracy of 0.9 in all.
HAPPENS, FORESEEN, NOT_FORESEEN, NEVER_LABELLED = 0.3, 0.75, 0.9643, 0.03
LIMIT = 0.88
#: Labels are looked at so often a day.
LOOKS = 2
#: Cohorts that are looked back on.
KEPT = 90
PLAN = Plan.of(None)


@dataclass
class Day:
    """One day's predictions: when they were made and labelled (seconds since the start; never: infinity)."""

    number: int
    made: NDArray[np.float64]
    labelled: NDArray[np.float64]
    happened: NDArray[np.bool_]
    right: NDArray[np.bool_]

    @classmethod
    def drawn(cls, random: np.random.Generator, number: int, loss: float) -> Day:
        """Draw a day on which the accuracy is lower by `loss`."""
        made = number * DAY + random.random(ROWS) * DAY
        happened = random.random(ROWS) < HAPPENS
        delay = np.where(happened, random.exponential(DAY / 2, ROWS), 3 * DAY + random.random(ROWS) * DAY / 4)
        delay[random.random(ROWS) < NEVER_LABELLED] = np.inf
        right = random.random(ROWS) < np.where(happened, FORESEEN, NOT_FORESEEN) - loss
        return cls(number, made, made + delay, happened, right)

    @property
    def end(self) -> float:
        """When the window of this day is over, in seconds since the start."""
        return (self.number + 1) * DAY

    def known(self, now: float) -> NDArray[np.bool_]:
        """Return which rows have a label at a moment."""
        return self.labelled <= now

    def ages(self, now: float) -> NDArray[np.int64]:
        """Return how many labels there are at a moment, by their delay."""
        known = self.known(now)
        places = np.searchsorted(DELAY_AGES, (self.labelled - self.made)[known], side="left")
        return np.bincount(places, minlength=len(DELAY_AGES) + 1)[: len(DELAY_AGES)]

    def truth(self, now: float) -> Labelled:
        """Return the rows whose label is known."""
        known = self.known(now)
        actual = self.happened[known]
        return Labelled(actual, np.where(self.right[known], actual, ~actual))


class Monitor:
    """What the runner of the monitors does with windows that wait for their labels, without a log."""

    def __init__(self, ledger: Ledger, deployment: str) -> None:
        self.ledger, self.results, self.deployment = ledger, Results(ledger), deployment
        self.config = MonitorConfig(
            window=timedelta(days=1), performance=PerformanceConfig(metric="accuracy", worse_than=LIMIT)
        )
        self.check = PerformanceCheck()
        self.days: list[Day] = []
        self.waiting: list[Day] = []
        self._counted: dict[int, tuple[float, NDArray[np.int64]]] = {}

    def tell(self, day: Day) -> None:
        """Take in a day that is over."""
        self.days.append(day)
        self.waiting.append(day)

    def _ages(self, day: Day, now: float) -> NDArray[np.int64]:
        """Return a day's labels by delay; of a day whose labels have all come they are counted once."""
        found = self._counted.get(day.number)
        if found is None or found[0] < day.end + 5 * DAY:
            found = self._counted[day.number] = now, day.ages(now)
        return found[1]

    def look(self, now: float) -> Iterator[tuple[Day, bool, float]]:
        """Judge the windows that are mature; yield each, whether it fired, and the share of its rows with a label."""
        kept = self.days[-KEPT:]
        newest = max((float(day.labelled[day.known(now)].max(initial=0.0)) for day in kept[-6:]), default=0.0)
        start = START.timestamp()
        cohorts = Cohorts(
            np.array([int((start + day.end) * 1e6) for day in kept], np.int64),
            np.array([len(day.made) for day in kept], np.int64),
            np.array([self._ages(day, now) for day in kept], np.int64).reshape(len(kept), len(DELAY_AGES)),
            int((start + newest) * 1e6) if newest else None,
        )
        delay = LabelDelay.learn(cohorts, START + timedelta(seconds=now), self.config)
        for day in list(self.waiting):
            labelled = int(day.known(now).sum())
            maturity = delay.maturity(now - day.end, labelled, ROWS)
            if not maturity.mature:
                continue
            self.waiting.remove(day)
            data = Rows(PLAN, {"prediction": day.happened}, day.truth(now))
            context = context_of(
                None, data, self.ledger, config=self.config, day=day.number, deployment=self.deployment
            )
            found = self.check.run(context)
            judged = Judged(
                self.deployment, "simulated", "labels", 1, context.window, "judged", ROWS, labelled,
                maturity.value, sum(one.fired for one in found),
            )  # fmt: skip
            self.results.record(judged, found)
            judge(self.ledger, self.deployment, 1, self.config, START + timedelta(seconds=now))
            yield day, any(one.fired for one in found), labelled / ROWS

    @property
    def alerts(self) -> int:
        """How many alerts were opened."""
        return len(
            [event for event in self.ledger.events("alert.opened") if _of(event.payload, self.deployment)]
        )


def _of(payload: dict[str, object], deployment: str) -> bool:
    return payload.get("deployment") == deployment


def alarms_of_young_windows(folder: Path, seed: int, days: int = 1000) -> int:
    """Print what a model without any trouble is said to have in so many days; return the alerts that were opened."""
    random = np.random.default_rng(seed)
    monitor = Monitor(Ledger(f"sqlite:///{folder}/days.db", actor="bench"), "quiet")
    judged = fired = young = naive = 0
    least = 1.0
    for number in range(days):
        day = Day.drawn(random, number, 0.0)
        monitor.tell(day)
        early = day.truth(day.end)
        naive += bool(np.mean(early.actual == early.prediction) < LIMIT)
        for look in range(LOOKS):
            for _, bad, share in monitor.look((number + 1 + look / LOOKS) * DAY):
                judged += 1
                fired += bad
                young += share < 0.9
                least = min(least, share)
    print(
        f"\nLabels that come late, what happened first: {days:,} days of {ROWS:,} predictions without any trouble\n"
        f"  judged when mature: {judged} windows, each with {100 * least:.0f} % of its labels or more ({young} with less "
        f"than 90 %);\n  {fired} windows fired, {monitor.alerts} alerts were opened; judged when the window is over, "
        f"{naive} would have fired",
        flush=True,
    )
    return monitor.alerts


def windows_until_a_loss_is_told(folder: Path, seed: int, worlds: int = 60, days: int = 16) -> float:
    """Print how soon a loss of five points of accuracy is told; return the share within two mature windows."""
    ledger = Ledger(f"sqlite:///{folder}/losses.db", actor="bench")
    told: list[int] = []
    for world in range(worlds):
        random = np.random.default_rng(seed + 1 + world)
        monitor, since = Monitor(ledger, f"loss-{world}"), 0
        for number in range(2 * days):
            monitor.tell(Day.drawn(random, number, 0.05 if number >= days else 0.0))
            for look in range(LOOKS):
                for day, _, _ in monitor.look((number + 1 + look / LOOKS) * DAY):
                    since += day.number >= days
            if since and monitor.alerts:
                break
        told.append(since if monitor.alerts else 2 * days)
    within = float(np.mean(np.array(told) <= 2))
    print(
        f"\nA real loss of 5 points of accuracy, limit {LIMIT}, {ROWS:,} predictions a day: alerted within two mature windows "
        f"in {within:.0%} of {worlds} worlds, in the slowest after {max(told)}",
        flush=True,
    )
    return within
