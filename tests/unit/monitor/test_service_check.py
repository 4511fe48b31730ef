"""Service: latency and pace from the rows, failures from what workers count, against what is declared."""

import math
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from judged_window import HOUR, START, Judge

from loopwright.config import Project, SloConfig
from loopwright.deploy.online.levels import Levels
from loopwright.deploy.online.notes import Notes
from loopwright.monitor.arrays import ArrayWindow
from loopwright.monitor.blocks import Plan
from loopwright.monitor.service import ServiceCheck
from loopwright.predictions.requests import minutes
from loopwright.records import Mode, Signal

CHECK = ServiceCheck()
CONFIG = """
[model.shop]
target = "buys"

[deployment.api]
model = "shop"
mode = "online"

[deployment.silent]
model = "other"
mode = "online"

[model.other]
target = "buys"

[monitor.shop]
service = { errors = 0.01, latency = "100ms" }
"""


@pytest.fixture
def judge(tmp_path: Path) -> Iterator[Judge]:
    """Return a judge of a deployment that promises 100 ms and one failure in a hundred."""
    (tmp_path / "loopwright.toml").write_text(CONFIG, encoding="utf-8")
    made = Judge(tmp_path, service={"latency": "100ms", "errors": 0.01})
    yield made
    made.close()


def rows(latency_ms: np.ndarray, version: int = 1) -> ArrayWindow:
    """Return a window of rows that took so long."""
    return ArrayWindow({}, Plan.of(None), version=version, latency_ms=latency_ms.astype(np.float32))


def count(folder: Path, at: datetime, good: int, failed: int, worker: str = "serving-1") -> None:
    """Count requests as a worker does."""
    levels = Levels(Project(folder), worker)
    meter = levels.of("api", SloConfig())
    for status, n in ((200, good), (503, failed)):
        for _ in range(n):
            meter.add(0.01, status)
    levels.flush(at.timestamp())
    levels.close()


def by_subject(signals: list[Signal]) -> dict[str, Signal]:
    """Return signals by what they are about."""
    return {one.subject: one for one in signals}


def test_latency_and_pace(judge: Judge) -> None:
    """Percentiles in milliseconds with intervals, predictions per second; what is below its limit does not fire."""
    latency = np.random.default_rng(0).lognormal(2, 0.5, 3600)
    found = by_subject(CHECK.run(judge.context(rows(latency))))
    assert found["per_second"].value == 1.0
    assert found["latency_p50"].value == pytest.approx(np.quantile(latency, 0.5), rel=1e-5)
    slowest = found["latency_p99"]
    assert slowest.value == pytest.approx(np.quantile(latency, 0.99), rel=1e-5)
    assert slowest.lower is not None
    assert slowest.upper is not None
    assert slowest.lower < slowest.value < slowest.upper < slowest.limit == 100
    assert not any(one.fired for one in found.values())


@pytest.mark.parametrize(("slow", "fires"), [(0.005, False), (0.01, False), (0.03, True)])
def test_a_slow_tail_fires_when_chance_does_not_explain_it(judge: Judge, slow: float, fires: bool) -> None:
    """The limit is on one row in a hundred: with one exactly it fires in at most 5 % of windows, with three in 95 %."""
    random = np.random.default_rng(1)
    fired = [
        by_subject(CHECK.run(judge.context(rows(np.where(random.random(2000) < slow, 150.0, 10.0)))))[
            "latency_p99"
        ].fired
        for _ in range(200)
    ]
    assert np.mean(fired) >= 0.95 if fires else np.mean(fired) <= 0.05


def test_each_version_has_its_latency(judge: Judge) -> None:
    """A candidate that is slow does not hide behind a quick champion."""
    versions = np.repeat([1, 2], 1000).astype(np.int64)
    latency = np.repeat([10.0, 300.0], 1000).astype(np.float32)
    data = ArrayWindow({}, Plan.of(None), version=versions, latency_ms=latency)
    found = {one.version: one for one in CHECK.run(judge.context(data)) if one.subject == "latency_p99"}
    assert {version: one.fired for version, one in found.items()} == {1: False, 2: True}


def test_failures_of_all_workers_in_the_window(judge: Judge) -> None:
    """Those before and after the hour are not of it; an outage is seen though it leaves no row."""
    empty = ArrayWindow({"x": np.empty(0)}, Plan.of(None))
    assert by_subject(CHECK.run(judge.context(empty))).keys() == {"per_second"}
    count(judge.root, START - timedelta(minutes=1), 0, 1000)
    count(judge.root, START, 50, 5)
    count(judge.root, START + timedelta(minutes=59), 50, 5, worker="serving-2")
    count(judge.root, START + HOUR, 0, 1000)
    found = by_subject(CHECK.run(judge.context(empty)))["errors"]
    assert found.value == pytest.approx(10 / 110)
    assert (found.rows, found.limit, found.fired) == (110, 0.01, True)
    assert found.lower is not None
    assert 0.01 < found.lower < found.value


def test_a_few_failures_are_no_alarm(judge: Judge) -> None:
    """2 of 100 with a limit of 1 in 100 may be chance; fewer than 20 requests say nothing."""
    count(judge.root, START, 98, 2)
    found = by_subject(CHECK.run(judge.context(rows(np.full(100, 5.0)))))
    assert found["errors"].value == 0.02
    assert not found["errors"].fired


def test_nothing_declared_is_shown(tmp_path: Path) -> None:
    """Without a declaration the numbers are there and never fire; a batch has no requests."""
    judge = Judge(tmp_path, mode=Mode.batch)
    found = by_subject(CHECK.run(judge.context(rows(np.full(500, 1e6)))))
    judge.close()
    assert found.keys() == {"per_second", "latency_p50", "latency_p99"}
    assert all(math.isnan(one.limit) and not one.fired for one in found.values())


def test_a_watched_deployment_is_counted_without_a_promise(judge: Judge) -> None:
    """`service.errors` makes workers count, as `slo` does; nothing declared is not counted."""
    notes = Notes(Project(judge.root), "serving-1")
    assert notes.of("api", Project(judge.root)) is not None
    assert notes.of("silent", Project(judge.root)) is None
    notes.close()


def test_a_torn_line_hides_no_other(judge: Judge) -> None:
    """What a killed worker left half written is not read; minutes before it are."""
    count(judge.root, START, 10, 1)
    (path,) = (judge.root / ".loopwright" / "levels").glob("*.jsonl")
    with path.open("ab") as out:
        out.write(b'{"minute": 29')
    found = minutes(judge.root / ".loopwright", "api", START)
    assert found[:, 1:].tolist() == [[11, 1, 10]]
