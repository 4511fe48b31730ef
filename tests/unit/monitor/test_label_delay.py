"""Label maturity: no window is judged on early labels, and none waits for ever, whatever the labels' sender does."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from prediction_rows import FLOWERS, project_in, rows

from loopwright.config import MonitorConfig, PerformanceConfig
from loopwright.monitor.label_delay import Cohorts, LabelDelay
from loopwright.predictions import DELAY_AGES, LabelLog, PredictionLog, PredictionStore
from loopwright.records import Label

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY_S = 86400.0
HOUR = timedelta(hours=1)


@dataclass
class World:
    """Days of predictions: three in ten have a positive outcome, known after a day; negative ones take four, about.

    Nobody enters labels on weekends. During the `outage`, in days, none arrive: they come afterwards, or are `lost`.
    """

    days: int
    n: int = 1000
    share: float = 1.0
    outage: tuple[int, int] = (0, 0)
    lost: bool = False
    seed: int = 0
    made: list[NDArray[np.float64]] = field(default_factory=list)
    arrived: list[NDArray[np.float64]] = field(default_factory=list)
    positive: list[NDArray[np.bool_]] = field(default_factory=list)

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        for day in range(self.days):
            n = int(self.n * (0.6 if day % 7 >= 5 else 1.0))
            made = day + np.sort(random.random(n))
            positive = random.random(n) < 0.3
            at = made + np.where(positive, 1.0, 4.0) * np.exp(0.6 * random.standard_normal(n))
            weekend = at % 7 >= 5
            at = np.where(weekend, np.floor(at / 7) * 7 + 7 + 0.3 * random.random(n), at)
            down = (at >= self.outage[0]) & (at < self.outage[1])
            at = np.where(down, np.inf if self.lost else self.outage[1] + 0.5 * random.random(n), at)
            self.made.append(made)
            self.arrived.append(np.where(random.random(n) < self.share, at, np.inf))
            self.positive.append(positive)

    def cohorts(self, today: int, since: int) -> Cohorts:
        """Count what is known at the start of a day."""
        days = range(since, today)
        labels, newest = [], -1.0
        for day in days:
            known = self.arrived[day][self.arrived[day] < today]
            delays = (known - self.made[day][self.arrived[day] < today]) * DAY_S
            places = np.searchsorted(DELAY_AGES, delays)
            labels.append(np.bincount(places, minlength=len(DELAY_AGES) + 1)[: len(DELAY_AGES)])
            newest = max(newest, float(known.max(initial=-1.0)))
        base = START.timestamp() * 1e6
        return Cohorts(
            np.array([base + (day + 1) * DAY_S * 1e6 for day in days], np.int64),
            np.array([len(self.made[day]) for day in days], np.int64),
            np.array(labels, np.int64),
            round(base + newest * DAY_S * 1e6) if newest >= 0 else None,
        )


@dataclass
class Judged:
    """What became of each day: at which age it was judged, and which part of its labels had come by then."""

    ages: dict[int, int] = field(default_factory=dict)
    parts: dict[int, float] = field(default_factory=dict)
    overdue: list[int] = field(default_factory=list)


def watch(world: World, label_delay: str) -> Judged:
    """Look at all windows each day, as the monitors do."""
    config = MonitorConfig(
        window=timedelta(days=1),
        performance=PerformanceConfig(label_delay=label_delay),
    )
    judged, waiting = Judged(), set[int]()
    for today in range(1, world.days + 1):
        waiting.add(today - 1)
        now = START + timedelta(days=today)
        delay = LabelDelay.learn(world.cohorts(today, max(0, today - 90)), now, config)
        for day in sorted(waiting):
            arrived = world.arrived[day]
            known = int((arrived < today).sum())
            found = delay.maturity((today - day - 1) * DAY_S, known, len(arrived))
            if found.mature:
                judged.ages[day] = today - day - 1
                judged.parts[day] = known / max(1, np.isfinite(arrived).sum())
            elif found.overdue:
                judged.overdue.append(day)
            else:
                continue
            waiting.discard(day)
    return judged


def test_a_thousand_days_of_late_biased_labels() -> None:
    """With a week without labels: no day is judged before nine in ten of its labels are there, and all are in time."""
    judged = watch(World(1000, n=500, outage=(400, 407)), "3d")
    assert not judged.overdue
    assert len(judged.ages) > 980
    assert min(judged.parts.values()) >= 0.9
    usual = [age for day, age in judged.ages.items() if not 385 < day < 407]
    assert np.median(usual) <= 9
    assert max(usual) <= 21


@pytest.mark.parametrize("label_delay", ["3d", "1ms"])
def test_where_three_in_ten_ever_get_a_label_days_become_mature(label_delay: str) -> None:
    """The share that labels come for in the end is learnt; then a day is judged as soon as where all get one."""
    judged = watch(World(240, share=0.3), label_delay)
    assert not judged.overdue
    assert len(judged.ages) > 225
    assert min(judged.parts.values()) >= 0.87
    assert np.median(list(judged.ages.values())) <= 9
    assert max(judged.ages.values()) <= 45  # the first ones, until it is known


@pytest.mark.parametrize("label_delay", ["3d", "1ms"])
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_labels_that_are_lost_are_not_taken_for_all_there_are(share: float, label_delay: str) -> None:
    """Days whose labels were lost are given up and said so, wherever the failure lies, also at the very beginning."""
    late = watch(World(200, share=share, outage=(100, 107), lost=True), label_delay)
    assert set(late.overdue) <= set(range(92, 107))
    assert len(late.overdue) >= 5
    assert min(late.parts.values()) >= 0.87
    early = watch(World(150, share=share, outage=(3, 9), lost=True), label_delay)
    assert max(early.ages) > 135
    # What was lost cannot be seen where nothing else is known; what had not come yet is never taken for lost.
    assert min(early.parts.values()) >= 0.8


def test_while_labels_have_stopped_no_day_is_judged_by_the_few_that_came() -> None:
    """In an outage that goes on, days are mature only when nearly all their rows have labels."""
    world = World(80, share=0.3, outage=(60, 1000))
    config = MonitorConfig(window=timedelta(days=1))
    before = LabelDelay.learn(world.cohorts(60, 0), START + timedelta(days=60), config)
    assert not before.stopped
    after = LabelDelay.learn(world.cohorts(66, 0), START + timedelta(days=66), config)
    assert after.stopped
    assert after.final == pytest.approx(0.3, abs=0.02)
    assert not after.maturity(20 * DAY_S, 300, 1000).mature
    assert after.maturity(20 * DAY_S, 900, 1000).mature


def test_a_change_of_the_share_is_followed() -> None:
    """Fewer rows get labels from now on: days are given up for a while, and then judged again."""
    first, second = World(100, n=400), World(160, n=400, share=0.5, seed=1)
    world = World(0)
    for one, shift in ((first, 0), (second, 100)):
        world.made += [part + shift for part in one.made]
        world.arrived += [part + shift for part in one.arrived]
    world.days = 260
    judged = watch(world, "3d")
    assert max(judged.ages) > 240
    assert all(100 <= day < 200 for day in judged.overdue)


def test_nothing_is_known_without_labels_and_without_rows() -> None:
    """No predictions, no labels, or all of them an hour ago: a window then waits for nearly all, until it is overdue."""
    config = MonitorConfig(window=HOUR, performance=PerformanceConfig(label_delay=HOUR))
    none = np.empty(0, np.int64)
    empty = Cohorts(none, none, np.empty((0, len(DELAY_AGES)), np.int64))
    silent = Cohorts(
        np.array([round(START.timestamp() * 1e6) + hour * 3_600_000_000 for hour in range(100)], np.int64),
        np.full(100, 50, np.int64),
        np.zeros((100, len(DELAY_AGES)), np.int64),
    )
    for cohorts in (empty, silent):
        delay = LabelDelay.learn(cohorts, START + timedelta(hours=100), config)
        assert (delay.final, delay.shares(), delay.milestones([0.5]), delay.stopped) == (None, [], [], False)
        assert delay.overdue_s == 36_000
        assert not delay.maturity(1800, 50, 50).mature  # younger than label_delay
        assert delay.maturity(3600, 45, 50).mature
        found = delay.maturity(3600, 44, 50)
        assert (found.mature, found.overdue, found.value, found.expected, found.arrived) == (
            *(False, False, None, None),
            0.88,
        )
        assert delay.maturity(36_000, 44, 50).overdue
        assert not delay.maturity(36_000, 45, 50).overdue
        assert delay.maturity(3600, 0, 0).mature


def test_what_is_declared_goes_first() -> None:
    """`overdue` and `maturity` of the configuration are what counts."""
    given = PerformanceConfig(label_delay=HOUR, overdue=timedelta(hours=5), maturity=0.5)
    world = World(40)
    found = LabelDelay.learn(
        world.cohorts(40, 0),
        START + timedelta(days=40),
        MonitorConfig(window=timedelta(days=1), performance=given),
    )
    assert found.overdue_s == 5 * 3600
    assert found.maturity(5 * 3600, 499, 1000).overdue
    assert found.maturity(4 * 3600, 500, 1000).mature


def test_the_curve_is_that_of_the_labels() -> None:
    """The ages at which half and nine in ten of the labels have come are those of the delays themselves."""
    world = World(120, n=2000)
    now = START + timedelta(days=120)
    found = LabelDelay.learn(world.cohorts(120, 30), now, MonitorConfig(window=timedelta(days=1)))
    delays = np.concatenate(
        [arrived - made for arrived, made in zip(world.arrived[30:90], world.made[30:90], strict=True)]
    )
    for age, share in found.milestones((0.5, 0.9)):
        assert age / DAY_S == pytest.approx(np.quantile(delays, share), rel=0.25)
    assert found.shares() == sorted(found.shares())


def test_it_is_read_from_the_log_and_kept_for_a_while(tmp_path: Path) -> None:
    """Delays of a log: counted by DuckDB, known labels only, the first of several, and read again after a minute."""
    project = project_in(tmp_path)
    log, labels = PredictionLog(project, "api", "iris", FLOWERS), LabelLog(project)
    start = datetime(2026, 3, 1, tzinfo=UTC)
    config = MonitorConfig(window=timedelta(minutes=1))
    for minute in range(60):
        at = start + timedelta(minutes=minute)
        batch = rows(project, 40, at_us=round(at.timestamp() * 1e6))
        log.append(batch)
        for place, one in enumerate(batch.prediction_id[:20]):
            labels.append([Label(one, 1, at)], received=at + timedelta(seconds=10 + place))
        labels.append([Label(batch.prediction_id[0], 2, at)], received=at + timedelta(seconds=50))
    now = start + timedelta(minutes=60)
    store = PredictionStore(project)
    found = LabelDelay.read(store, "api", now, config)
    assert (found.rows, found.final) == (2400, 0.5)
    assert found.labels == 20 * 60
    assert 10 <= found.milestones((0.01,))[0][0] <= 16
    assert 26 <= found.nearly_all_s <= 39
    assert found.maturity(60, 20, 40).mature
    assert not found.maturity(60, 8, 40).mature
    assert LabelDelay.read(store, "api", now + timedelta(seconds=30), config) is found
    assert LabelDelay.read(store, "api", now + timedelta(minutes=2), config) is not found
    halfway = LabelDelay.read(store, "api", start + timedelta(minutes=30, seconds=15), config)
    assert halfway.labels == 20 * 30 + 5  # of the newest minute only those that had come
    empty: Any = LabelDelay.read(store, "quiet", now, config)
    assert (empty.rows, empty.final) == (0, None)
    log.close()
    labels.close()
