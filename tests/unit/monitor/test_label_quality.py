"""The labels of a window: those of no use and those before their time are told, and never taken for missing ones."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from monitored import API, HOUR, MODEL, SHOP, START, Shop

from loopwright.config import MonitorConfig
from loopwright.monitor.base import Context
from loopwright.monitor.blocks import Plan
from loopwright.monitor.data import LoggedWindow
from loopwright.monitor.label_quality import LabelQualityCheck
from loopwright.monitor.quality import QUIET, chance
from loopwright.monitor.results import Results
from loopwright.predictions import PredictionStore
from loopwright.records import Label, Mode, Scalar, Signal, Window

WINDOW = Window(START, START + HOUR)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """Return a project that is watched."""
    made = Shop(tmp_path)
    yield made
    made.close()


def check(shop: Shop) -> dict[str, Signal]:
    """Return what the check says of the first hour."""
    plan = Plan.of(shop.profile, SHOP)
    with LoggedWindow(PredictionStore(shop.project), API, WINDOW, plan=plan, labelled=True) as data:
        context = Context(
            model=MODEL,
            deployment=API,
            mode=Mode.online,
            window=WINDOW,
            config=MonitorConfig(window=HOUR),
            champion=1,
            signature=SHOP,
            metric="accuracy",
            data=data,
            profile=lambda _: shop.profile,
            results=Results(shop.ledger),
            at=WINDOW.end,
        )
        return {signal.subject: signal for signal in LabelQualityCheck().run(context)}


def relabel(shop: Shop, ids: list[str], actual: Scalar, after: timedelta = HOUR) -> None:
    """Correct some labels."""
    shop.labels.append([Label(one, actual, START + after) for one in ids])


@pytest.mark.parametrize(("wrong", "fires"), [(0, False), (6, False), (20, True), (400, True)])
def test_labels_of_the_wrong_type_fire_above_what_chance_makes(shop: Shop, wrong: int, fires: bool) -> None:
    """One in a hundred may be; five in a hundred, or all of them, are a fault of who sends them."""
    ids = shop.answer(START, 400)
    relabel(shop, ids[:wrong], "sold out")
    found = check(shop)["unusable"]
    assert (found.fired, found.rows, found.value) == (fires, 400, wrong / 400)


def test_a_class_that_the_model_does_not_know_is_a_label(shop: Shop) -> None:
    """The model is wrong there; the label is not."""
    ids = shop.answer(START, 400)
    relabel(shop, ids, 7)
    assert not check(shop)["unusable"].fired


def test_labels_from_before_the_prediction_fire(shop: Shop) -> None:
    """They were known by then, or are joined to the wrong rows; a second is left to clocks that differ."""
    ids = shop.answer(START, 400)
    relabel(shop, ids, 1, -timedelta(milliseconds=900))
    assert check(shop)["before the prediction"].value > 0.9  # most rows were made minutes after the start
    relabel(shop, ids, 1)
    assert not check(shop)["before the prediction"].fired


def test_a_few_labels_say_nothing(shop: Shop) -> None:
    """Below thirty labels nothing is judged."""
    ids = shop.answer(START, 400, labelled=0.05)
    relabel(shop, ids[:20], "sold out")
    assert check(shop) == {}


def test_quiet_labels_stay_quiet() -> None:
    """At one wrong label in a hundred the check fires in less than one window of four hundred, at every size."""
    random = np.random.default_rng(0)
    for n in (50, 1000, 100_000):
        hits = random.binomial(n, 0.01, 4000)
        fired = np.mean([one / n > 0.01 and chance(int(one), n, 0.01) <= QUIET / 2 for one in hits])
        assert fired <= QUIET
