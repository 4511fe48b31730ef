"""Drift: quiet when nothing has changed, at any sample size and cardinality; loud, and in words, when something has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counted_windows import context_of, signature_of
from numpy.typing import NDArray

from loopwright.config import DriftConfig, MonitorConfig
from loopwright.ledger import Ledger
from loopwright.monitor.drift import DETAILED, DriftCheck
from loopwright.monitor.prediction_drift import PredictionDriftCheck
from loopwright.records import Signal, Signature, Task
from loopwright.registry.profile import Profile, profile_of

CARDINALITIES = (2, 5, 20, 50, 100, 200, 500, 1000, 10, 1000)
Columns = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """Return a new ledger."""
    return Ledger(f"sqlite:///{tmp_path_factory.mktemp('drift')}/ledger.db", actor="test")


class World:
    """Thirty features, twenty numeric and ten categorical, and the profile of rows drawn from it."""

    def __init__(self, ledger: Ledger, reference: int = 5000, *, flat: bool = False) -> None:
        self.ledger = ledger
        self.random = np.random.default_rng(0)
        ranks = [np.arange(1, size + 1) for size in CARDINALITIES]
        shares = [np.ones(len(rank)) if flat else 1 / rank for rank in ranks]
        self.shares = [share / share.sum() for share in shares]
        columns = self.columns(reference)
        self.signature = signature_of(columns, task=Task.classification, classes=("no", "yes"))
        self.profile = profile_of(columns, self.signature, self.answers(reference))

    def columns(self, rows: int, shift: float = 0.0) -> Columns:
        """Draw thirty columns; the first number is shifted by so many standard deviations."""
        made: Columns = {f"n{place}": self.random.normal(size=rows) for place in range(20)}
        made["n0"] = made["n0"] + shift
        for place, share in enumerate(self.shares):
            words = np.array([f"w{one}" for one in range(len(share))], object)
            made[f"c{place}"] = words[self.random.choice(len(share), rows, p=share)]
        return made

    def answers(self, rows: int, share: float = 0.3) -> NDArray[np.object_]:
        """Draw predictions."""
        return np.asarray(np.array(["no", "yes"], object)[(self.random.random(rows) < share).astype(int)])

    def signals(self, rows: int, shift: float = 0.0, share: float = 0.3) -> list[Signal]:
        """Return what both checks say of a window."""
        columns = self.columns(rows, shift) | {"prediction": self.answers(rows, share)}
        context = context_of(self.profile, self.signature, columns, self.ledger)
        return [*DriftCheck().run(context), *PredictionDriftCheck().run(context)]

    def fired(self, rows: int, shift: float = 0.0) -> list[str]:
        """Return the subjects that fired in a window."""
        return [signal.subject for signal in self.signals(rows, shift) if signal.fired]


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("rows", [200, 1000, 20_000])
def test_quiet_windows_do_not_alarm(ledger: Ledger, rows: int, flat: bool) -> None:
    """Without any change, at most two windows in forty have an input that fires.

    Also where a thousand categories are equally likely: the most frequent ones are then those that chance favoured.
    """
    world = World(ledger, flat=flat)
    assert sum(bool(world.fired(rows)) for _ in range(40)) <= 4


@pytest.mark.parametrize(("rows", "shift"), [(1000, 0.5), (10_000, 0.2)])
def test_a_shift_that_matters_is_found_and_named(ledger: Ledger, rows: int, shift: float) -> None:
    """Half a standard deviation in a thousand rows, or a fifth in ten thousand, fires for the shifted input."""
    world = World(ledger)
    windows = [world.fired(rows, shift) for _ in range(20)]
    assert sum("n0" in window for window in windows) >= 18
    assert sum(bool(set(window) - {"n0"}) for window in windows) <= 3


def test_a_shift_too_small_to_matter_does_not_alarm(ledger: Ledger) -> None:
    """A fiftieth of a standard deviation is significant in 200,000 rows, and still no alarm."""
    world = World(ledger, reference=50_000)
    [signal] = [one for one in world.signals(200_000, 0.02) if one.subject == "n0"]
    assert signal.detail["p"] < 0.05
    assert not signal.fired


def test_every_input_has_a_signal_and_the_largest_have_details(ledger: Ledger) -> None:
    """A map of all inputs over time is complete; what fired says what moved, by how much, and shows both distributions."""
    signals = World(ledger).signals(1000, 0.5)
    inputs = [one for one in signals if one.check == "drift"]
    assert {one.subject for one in inputs} == {f"n{place}" for place in range(20)} | {
        f"c{p}" for p in range(10)
    }
    assert sum("bins" in one.detail for one in inputs) == DETAILED + sum(one.fired for one in inputs)
    first = inputs[0]
    assert (first.subject, first.fired, first.rows, first.version) == ("n0", True, 1000, 1)
    assert first.value > first.limit
    detail = first.detail
    assert detail["what"].startswith("mean ")
    assert detail["what"].endswith(" sd)")
    assert detail["mean"] - detail["mean_before"] == pytest.approx(0.5, abs=0.1)
    assert detail["wasserstein"] == pytest.approx(0.5, abs=0.1)
    assert detail["ks"] == pytest.approx(0.2, abs=0.05)
    assert 0 < detail["jensen_shannon"] < 1
    assert detail["p"] < 1e-6
    bins = detail["bins"]
    assert len(bins["labels"]) == len(bins["reference"]) == len(bins["current"]) == 20
    assert sum(bins["reference"]) == pytest.approx(1, abs=1e-3)
    for one in inputs:
        assert len(one.detail.get("bins", {"labels": []})["labels"]) <= 23


def drifts(ledger: Ledger, before: Columns, now: Columns, **config: Any) -> dict[str, Signal]:
    """Return the signals of both checks by subject; predictions are all 1 unless given."""
    signature = signature_of({k: v for k, v in before.items() if k != "prediction"}, task=Task.regression)
    rows = len(next(iter(before.values())))
    profile = profile_of(before, signature, before.get("prediction", np.ones(rows)))
    context = context_of(profile, signature, now, ledger, config=MonitorConfig(drift=DriftConfig(**config)))
    return {
        one.subject: one for check in (DriftCheck(), PredictionDriftCheck()) for one in check.run(context)
    }


def test_what_moved_is_said_in_words(ledger: Ledger) -> None:
    """The mean, the share of a category, values never seen, missing values, the spread: whatever moved most."""
    random = np.random.default_rng(1)
    n = 2000

    def words(shares: Mapping[str | None, float]) -> NDArray[Any]:
        return np.array(list(shares), object)[random.choice(len(shares), n, p=list(shares.values()))]

    gaps = random.normal(size=n)
    gaps[: n // 3] = np.nan
    found = drifts(
        ledger,
        {
            "colour": words({"red": 0.12, "blue": 0.88}),
            "city": words({"Rome": 0.5, "Paris": 0.5}),
            "gaps": random.normal(size=n),
            "spread": random.normal(size=n),
            "amount": random.normal(3.0, 2.0, n),
        },
        {
            "colour": words({"red": 0.31, "blue": 0.69}),
            "city": words({"Rome": 0.4, "Paris": 0.4, "Oslo": 0.2}),
            "gaps": gaps,
            "spread": random.normal(size=n) * 2,
            "amount": random.normal(4.0, 2.0, n),
        },
    )
    assert all(found[name].fired for name in ("colour", "city", "gaps", "spread", "amount"))
    said = {name: one.detail["what"] for name, one in found.items()}
    assert re.fullmatch(r"share of 'red' 1\d(\.\d)? % -> 3\d(\.\d)? %", said["colour"])
    assert said["city"].startswith("share of values never seen in training 0 % -> ")
    assert said["gaps"] == "missing 0 % -> 33.3 %"
    assert said["spread"].startswith("share of ")
    assert said["amount"].startswith("mean ")
    assert "(+0.5" in said["amount"]
    bins = found["city"].detail["bins"]
    assert set(bins["labels"]) == {"Rome", "Paris", "(unseen)"}
    assert found["gaps"].detail["bins"]["labels"][-1] == "(missing)"


def test_columns_without_values_or_with_one_are_no_error(ledger: Ledger) -> None:
    """All missing before or now, constant, infinite: said where it changed, quiet where it did not."""
    n = 500
    some, none = np.random.default_rng(0).normal(size=n), np.full(n, np.nan)
    found = drifts(
        ledger,
        {"lost": some, "came": none, "never": none, "same": np.ones(n), "other": np.ones(n), "wild": some},
        {"lost": none, "came": some, "never": none, "same": np.ones(n), "other": np.full(n, 2.0),
         "wild": np.where(np.arange(n) % 2 == 0, np.inf, some)},
    )  # fmt: skip
    assert {name for name, one in found.items() if one.fired} == {"lost", "came", "other", "wild"}
    assert found["lost"].detail["what"] == "missing 0 % -> 100 %"
    assert found["never"].value == found["same"].value == 0.0


def test_a_column_that_vanished_is_left_to_the_schema(ledger: Ledger) -> None:
    """An input that the log does not have is not compared; the others are."""
    some = np.random.default_rng(0).normal(size=500)
    found = drifts(ledger, {"a": some, "b": some}, {"a": some + 1})
    assert set(found) == {"a"}


def test_few_rows_are_not_judged(ledger: Ledger) -> None:
    """Below `min_rows` there is nothing to say; nor where a version has no profile."""
    some = np.random.default_rng(0).normal(size=500)
    assert not drifts(ledger, {"a": some}, {"a": some[:99] + 9})
    assert drifts(ledger, {"a": some}, {"a": some[:99] + 9}, min_rows=50)["a"].fired
    signature = signature_of({"a": some}, task=Task.regression)
    context = context_of(None, signature, {"a": some}, ledger)
    assert DriftCheck().run(context) == PredictionDriftCheck().run(context) == []


def test_columns_and_ignore_choose_what_is_compared(ledger: Ledger) -> None:
    """Times are left out unless they are named: a moment always lies beyond those of training."""
    random = np.random.default_rng(0)
    days = np.arange(500) * np.timedelta64(86_400_000_000, "us")
    before = {
        "a": random.normal(size=500),
        "b": random.normal(size=500),
        "at": np.datetime64("2024-01-01", "us") + days,
    }
    now = before | {"at": np.datetime64("2027-01-01", "us") + days}
    assert set(drifts(ledger, before, now)) == {"a", "b"}
    assert set(drifts(ledger, before, now, ignore=("a",))) == {"b"}
    chosen = drifts(ledger, before, now, columns=("at", "a"))
    assert (set(chosen), chosen["at"].fired, chosen["a"].fired) == ({"at", "a"}, True, False)


def test_answers_are_watched_from_a_larger_effect_on(ledger: Ledger) -> None:
    """A model fits the rows it learned from better than any others, so its answers must move more than inputs."""
    random = np.random.default_rng(0)
    before = {"a": random.normal(size=4000), "prediction": random.normal(size=4000)}
    same = random.normal(size=4000)

    def answers(shift: float, **config: Any) -> Signal | None:
        now = {"a": same, "prediction": random.normal(shift, 1.0, 4000)}
        return drifts(ledger, before, now, **config).get("prediction")

    small, large = answers(0.2), answers(0.6)
    assert small is not None
    assert large is not None
    assert (small.fired, large.fired, large.check) == (False, True, "prediction_drift")
    assert small.limit == pytest.approx(0.1)
    sensitive = answers(0.2, prediction_floor=0.02)
    assert sensitive is not None
    assert sensitive.fired
    assert answers(0.6, predictions=False) is None


def test_classes_that_move_are_found(ledger: Ledger) -> None:
    """Twice as many positive answers as before."""
    signals = [one for one in World(ledger).signals(1000, share=0.6) if one.check == "prediction_drift"]
    assert [one.fired for one in signals] == [True]
    assert "share of 'yes'" in signals[0].detail["what"] or "share of 'no'" in signals[0].detail["what"]


def segmented(rows: int, random: np.random.Generator, north: float) -> Columns:
    """Draw rows of two regions whose amounts differ; those of the north are shifted."""
    region = np.array(["north", "south"], object)[(random.random(rows) < 0.8).astype(int)]
    amount = random.normal(np.where(region == "north", north, 5.0))
    return {"region": region, "amount": amount, "noise": random.normal(size=rows)}


def test_a_segment_is_compared_with_its_own_past(ledger: Ledger) -> None:
    """A part is not distributed as the whole is: quiet while it stays what it was, and found when only it moves."""
    random = np.random.default_rng(2)
    before = segmented(20_000, random, 0.0)
    signature = signature_of(before, task=Task.regression)
    config = MonitorConfig(segments=("region",))

    def fired(profile: Profile, north: float) -> set[tuple[str, str]]:
        context = context_of(profile, signature, segmented(4000, random, north), ledger, config=config)
        return {(one.segment, one.subject) for one in DriftCheck().run(context) if one.fired}

    profile = profile_of(before, signature, np.ones(10), segments=("region", "nothing"))
    assert {(one.column, one.value) for one in profile.segments} == {("region", "north"), ("region", "south")}
    assert fired(profile, 0.0) == set()
    assert ("region=north", "amount") in fired(profile, 0.5)
    assert ("region=south", "amount") not in fired(profile, 0.5)
    without = profile_of(before, signature, np.ones(10))
    assert all(segment == "" for segment, _ in fired(without, 2.0))


def test_a_profile_of_the_first_format_is_still_compared(ledger: Ledger, tmp_path: Path) -> None:
    """Profiles written before categories were known one by one have no such fields, and still find drift."""
    import msgspec

    from loopwright.registry.profile import read_profile

    random = np.random.default_rng(0)
    before: Columns = {
        "x": random.normal(size=1000),
        "w": np.array([f"w{one}" for one in random.integers(0, 90, 1000)], object),
    }
    signature: Signature = signature_of(before, task=Task.regression)
    raw = msgspec.to_builtins(profile_of(before, signature, np.ones(1000)))
    old = {
        "name",
        "kind",
        "rows",
        "nulls",
        "edges",
        "counts",
        "categories",
        "other",
        "mean",
        "std",
        "minimum",
        "maximum",
    }
    raw["columns"] = [{key: value for key, value in one.items() if key in old} for one in raw["columns"]]
    raw["prediction"] = {key: value for key, value in raw["prediction"].items() if key in old}
    kept = {key: raw[key] for key in ("columns", "prediction", "rows", "performance", "dataset")}
    (tmp_path / "profile.json").write_bytes(msgspec.json.encode(kept))
    profile = read_profile(tmp_path / "profile.json")
    assert profile.format == 1
    words = profile.column("w")
    assert words is not None
    assert not words.tells_unseen
    now = before | {"x": before["x"] + 1, "w": np.full(1000, "new", object)}
    context = context_of(profile, signature, now, ledger)
    assert {one.subject for one in DriftCheck().run(context) if one.fired} == {"x", "w"}
    counts = context.data.counts().column("w")
    assert counts is not None
    assert (counts.unseen, counts.other) == (0, 1000)
