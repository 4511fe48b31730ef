"""How often monitors alarm when nothing is wrong, and how often they find what is.

Run ``make bench NAME=false_alarms``. The checks that ship are run through the interface they have in production, on rows
drawn from known distributions: thirty inputs, twenty of them numeric and ten categorical with up to a thousand values.
A quiet window counts as alarming when any check fired in it, before the rule that an alert needs two windows of three.
Beside them, on the same rows: a Kolmogorov-Smirnov test of each number at 5 %, and a PSI above 0.1 of any input.
The last line is JSON. Chances are printed with their 95 % interval (Wilson).
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from false_alarms_parts.days import alarms_of_young_windows, windows_until_a_loss_is_told
from false_alarms_parts.worlds import CARDINALITIES, KINDS, NUMERIC, Rows, World, context_of
from loopwright import plugins
from loopwright.config import MonitorConfig
from loopwright.ledger import Ledger
from loopwright.monitor.base import Check
from loopwright.monitor.blocks import Plan
from loopwright.monitor.statistics import kolmogorov_smirnov, kolmogorov_smirnov_p, psi
from loopwright.records import Signal
from loopwright.registry.profile import Profile

SEED = 20260302
#: These judge the clock and earlier windows, not the rows of one.
TIMED = ("freshness", "volume")
REFERENCES = (10_000, 50_000)
#: Rows of a window, how many windows for each reference size, and how many share a reference.
QUIET = ((200, 1000, 10), (1000, 1000, 10), (10_000, 400, 5), (100_000, 100, 5))
#: Every so many windows the other rules are tried as well: they cost more.
OTHERS = 5


@dataclass
class Share:
    """How often something happened."""

    hits: int = 0
    of: int = 0

    def add(self, hit: bool) -> None:
        """Count one trial."""
        self.hits += hit
        self.of += 1

    @property
    def value(self) -> float:
        """The share, 0 to 1."""
        return self.hits / max(1, self.of)

    def __str__(self) -> str:
        n, share, z = max(1, self.of), self.value, 1.96
        centre = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        return f"{100 * share:5.1f} % ({100 * max(0.0, centre - half):4.1f} to {100 * min(1.0, centre + half):4.1f})"


@dataclass
class Bench:
    """The checks, and what they are given."""

    ledger: Ledger
    config: MonitorConfig = field(default_factory=MonitorConfig)

    def __post_init__(self) -> None:
        named = {name: plugins.load("check", name)() for name in plugins.names("check") if name not in TIMED}
        self.checks: list[Check] = [check for check in named.values() if check.phase == "inputs"]

    def fired(self, profile: Profile, rows: Rows) -> list[Signal]:
        """Run every check on a window, and return the signals that fired."""
        context = context_of(profile, rows, self.ledger, config=self.config)
        return [signal for check in self.checks for signal in check.run(context) if signal.fired]


def others(profile: Profile, reference: list[Any], rows: Rows) -> tuple[bool, bool]:
    """Return whether a KS test of any number at 5 %, and a PSI above 0.1 of any input, would alarm."""
    tested = False
    for place, before in enumerate(reference):
        now = rows.columns[f"input_n{place}"]
        now = np.sort(now[~np.isnan(now)])
        tested |= kolmogorov_smirnov_p(kolmogorov_smirnov(before, now), len(before), len(now)) < 0.05
    block = rows.counts()
    large = any(
        psi(np.array(column.reference), counts.bins) > 0.1
        for column in profile.columns
        if (counts := block.column(column.name)) is not None
    )
    return tested, large


def quiet(bench: Bench) -> float:
    """Print how often quiet windows alarm, for each number of rows; return the largest share."""
    print("\nQuiet windows: share with any alarm, 30 inputs and the prediction, nothing has changed")
    print(
        f"{'rows':>8} {'trained on':>10} {'windows':>8}   {'these checks':<24} {'KS p < 0.05, any':<24} PSI > 0.1, any"
    )
    largest, blamed = 0.0, Counter[str]()
    for rows, windows, together in QUIET:
        for size in REFERENCES:
            ours, ks, large = Share(), Share(), Share()
            world = World(SEED + rows + size)
            for _ in range(windows // together):
                profile = world.reference(size)
                plan = Plan.of(profile)
                before = [np.sort(one[~np.isnan(one)]) for one in world.numbers(size)]
                for turn in range(together):
                    drawn = world.window(plan, rows)
                    found = bench.fired(profile, drawn)
                    ours.add(bool(found))
                    blamed.update({signal.check for signal in found})
                    if turn % OTHERS == 0:
                        by_test, by_size = others(profile, before, drawn)
                        ks.add(by_test)
                        large.add(by_size)
            print(f"{rows:>8,} {size:>10,} {ours.of:>8}   {ours!s:<24} {ks!s:<24} {large}", flush=True)
            largest = max(largest, ours.value)
    print(f"  windows in which each check fired: {dict(sorted(blamed.items())) or 'none'}")
    return largest


def power(bench: Bench, rows: int, shift: float, windows: int) -> float:
    """Print how often the shift of one numeric column is found; return the share for the kind it is lowest for."""
    lowest = 1.0
    for size in REFERENCES:
        world = World(SEED + 7 * rows + size)
        found = {kind: Share() for kind in KINDS}
        falsely = Share()
        for turn in range(windows):
            if turn % 10 == 0:
                profile = world.reference(size)
                plan = Plan.of(profile)
            shifted = turn % NUMERIC
            signals = bench.fired(profile, world.window(plan, rows, shifted=shifted, shift=shift))
            drifted = {signal.subject for signal in signals if signal.check == "drift"}
            found[KINDS[shifted % 4]].add(f"n{shifted}" in drifted)
            falsely.add(bool(drifted - {f"n{shifted}"}))
        told = ", ".join(f"{kind} {share.value:.0%}" for kind, share in found.items())
        print(
            f"{rows:>8,} {size:>10,} {windows:>8}   {told}; another input blamed {falsely.value:.1%}",
            flush=True,
        )
        lowest = min(lowest, *(share.value for share in found.values()))
    return lowest


def tiny(bench: Bench, rows: int, shift: float, windows: int) -> float:
    """Print how often a shift too small to matter alarms; return the largest share."""
    largest = 0.0
    for size in REFERENCES:
        world, ours = World(SEED + rows + size), Share()
        for turn in range(windows):
            if turn % 5 == 0:
                profile = world.reference(size)
                plan = Plan.of(profile)
            shifted = turn % NUMERIC
            ours.add(bool(bench.fired(profile, world.window(plan, rows, shifted=shifted, shift=shift))))
        print(f"{rows:>8,} {size:>10,} {windows:>8}   {ours}", flush=True)
        largest = max(largest, ours.value)
    return largest


def main() -> None:
    """Print the tables, and one line of JSON."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(f"sqlite:///{Path(folder)}/ledger.db", actor="bench")
        bench = Bench(ledger)
        print(
            f"Seed {SEED}; cardinalities {CARDINALITIES}; checks: {', '.join(one.name for one in bench.checks)}"
        )
        largest = quiet(bench)
        heading = f"{'rows':>8} {'trained on':>10} {'windows':>8}"
        print(f"\nHalf a standard deviation in one number: share found\n{heading}")
        half = power(bench, 1000, 0.5, 200)
        print(f"\nA fifth of a standard deviation in one number: share found\n{heading}")
        fifth = power(bench, 10_000, 0.2, 200)
        print(f"\nA fiftieth of a standard deviation in one number: share with any alarm\n{heading}")
        small = tiny(bench, 500_000, 0.02, 20)
        young = alarms_of_young_windows(Path(folder), SEED)
        loss = windows_until_a_loss_is_told(Path(folder), SEED)
    print(f"\n{time.perf_counter() - began:.0f} s")
    print(
        json.dumps(
            {
                "quiet_alarm_rate_max": round(largest, 4),
                "power_half_sd_n1000": round(half, 4),
                "power_fifth_sd_n10000": round(fifth, 4),
                "tiny_shift_alarm_rate": round(small, 4),
                "immature_false_alarms": young,
                "loss_told_within_two_windows": round(loss, 4),
            }
        )
    )


if __name__ == "__main__":
    main()
