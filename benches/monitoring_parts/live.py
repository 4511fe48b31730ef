"""What live numbers cost: counting a value, adding up a block, following a log. Called by ``benches/monitoring.py``."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.monitor.blocks import Plan
from loopwright.monitor.live import Follower, LiveNumbers
from loopwright.monitor.live.kept import Kept, Key, Stored
from loopwright.predictions import Ids, Layout, PredictionLog, Predictions
from loopwright.records import Column, ModelVersion, Signature, Task
from loopwright.registry.profile import Profile, numeric_profile, profile_of

__all__ = ["run"]

NUMBERS, TEXTS = 20, 10
SIGNATURE = Signature(
    (
        *(Column(f"x{place}", "double") for place in range(NUMBERS)),
        *(Column(f"c{place}", "string", required=False) for place in range(TEXTS)),
    ),
    Task.classification,
    "y",
    (0, 1),
)
BATCH = 256
TOML = '[model.made]\npipeline = "pipelines:train"\ntarget = "y"\n[deployment.api]\nmodel = "made"\nmode = "online"\n'


def _inputs(n: int, seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    texts = np.array([f"category {number}" for number in range(50)], object)
    found: dict[str, Any] = {f"x{place}": random.normal(0, 1 + place, n) for place in range(NUMBERS)}
    return found | {f"c{place}": random.choice(texts, n) for place in range(TEXTS)}


def _profile() -> Profile:
    random = np.random.default_rng(0)
    shares = random.dirichlet([1, 1], 20_000)
    return profile_of(_inputs(20_000, 0), SIGNATURE, random.integers(0, 2, 20_000), probability=shares)


def _rows(ids: Ids, n: int, inputs: dict[str, Any]) -> Predictions:
    now_us = time.time_ns() // 1000
    return Predictions(
        prediction_id=ids.new(n, now_us),
        at_us=np.full(n, now_us),
        version=1,
        variant="champion",
        propensity=1.0,
        entity=None,
        latency_ms=np.full(n, 1.5, np.float32),
        inputs={name: values[:n] for name, values in inputs.items()},
        prediction=np.arange(n) % 2,
        probability=np.tile([0.3, 0.7], (n, 1)),
    )


def _best(work: Callable[[], Any], times: int, tries: int = 7) -> float:
    """Return the shortest time of one call, of several tries of many, in seconds."""
    best = float("inf")
    for _ in range(tries):
        start = time.perf_counter()
        for _ in range(times):
            work()
        best = min(best, (time.perf_counter() - start) / times)
    return best


def _following(folder: Path, past: int, batch: int, turns_per_s: float) -> tuple[float, float]:
    """Return rows a second of a follower at full speed, and the seconds it takes for each second of 2,000 rows."""
    (folder / "loopwright.toml").write_text(TOML)
    project = Project(folder)
    ledger = Ledger.open(project)
    path = project.scorer("made", 1) / "profile.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(msgspec.json.encode(_profile()))
    ledger.put("model_version", "made/1", ModelVersion("made", 1, "", "", signature=SIGNATURE))
    ids = Ids.open(project)
    inputs = _inputs(1000, 1)
    log = PredictionLog(project, "api", "made", SIGNATURE)
    for _ in range(past // 1000):
        log.append(_rows(ids, 1000, inputs))
        log.maintain()
    follower = Follower(project, ledger)
    start = time.perf_counter()
    done = 0
    while follower.behind:
        done += follower.turn(datetime.now(UTC), rows=10**9, seconds=60)
    speed = done / (time.perf_counter() - start)
    spent = 0.0
    turns = 10
    for _ in range(turns):
        for _ in range(int(2000 / turns_per_s / batch)):
            log.append(_rows(ids, batch, inputs))
        start = time.process_time()
        follower.turn(datetime.now(UTC))
        spent += time.process_time() - start
    assert (
        sum(LiveNumbers(ledger, project).totals().values())
        == done + turns * int(2000 / turns_per_s / batch) * batch
    )
    idle = _best(lambda: follower.turn(datetime.now(UTC)), 100)
    print(f"  an idle turn of one deployment: {idle * 1e6:.0f} us")
    log.close()
    ledger.close()
    return speed, spent / turns * turns_per_s


def _reading(folder: Path) -> dict[str, float]:
    """Return what pages wait for, in milliseconds, with 90 days of blocks of two versions and 10 million predictions."""
    (folder / "loopwright.toml").write_text(TOML)
    project = Project(folder)
    ledger = Ledger.open(project)
    profile = _profile()
    plan = Plan.of(profile, SIGNATURE)
    for version in (1, 2):
        path = project.scorer("made", version) / "profile.json"
        path.parent.mkdir(parents=True)
        path.write_bytes(msgspec.json.encode(profile))
        ledger.put(
            "model_version", f"made/{version}", ModelVersion("made", version, "", "", signature=SIGNATURE)
        )
    names = {f"input_{name}": values for name, values in _inputs(2300, 5).items()}
    block = plan.count(names)
    data = block.dumps()
    kept = Kept(ledger)
    at_us = time.time_ns() // 1000
    known = kept.known("api")
    for span_s, days in ((60, 2), (3600, 90), (86400, 90)):
        spans = [at_us // (span_s * 1_000_000) - back for back in range(days * 86400 // span_s)]
        stored = [
            Stored(Key(version, span_s, span * span_s * 1_000_000), block.rows, data)
            for span in spans
            for version in (1, 2)
        ]
        kept.commit("api", known, stored, {})
    numbers = LiveNumbers(ledger, project)
    now = datetime.now(UTC)
    hours = {"15_minutes": 0.25, "3_hours": 3, "7_days": 168, "90_days": 24 * 89}
    found: dict[str, float] = {}
    for name, back in hours.items():
        since = now - timedelta(hours=back)
        for what, read in (
            ("series", lambda since=since: numbers.series("api", since, now)),
            ("features", lambda since=since: numbers.features("api", 1, since, now)),
            ("feature", lambda since=since: numbers.feature("api", 1, "x3", since, now)),
        ):
            found[f"{what}_{name}_ms"] = _best(read, 1, 3) * 1e3
    found["slowest_read_ms"] = max(found.values())
    ledger.close()
    return found


def run() -> dict[str, float]:
    """Measure, print, and return the figures.

    ``histogram_ns`` is the time to count one value of thirty numeric columns in batches of 256 rows, and
    ``histogram_logged_ns`` that of twenty numeric columns and ten of text as they come from the log, with the prediction,
    its score and the latency. ``merge_us`` is the time to add one block of thirty columns to another. ``follower_rows_s`` is
    how many rows a second a follower counts of a log with a past; ``follower_core_single`` and ``follower_core_batched`` are
    the shares of a core that it takes at 2,000 rows a second, which were logged one by one and in batches of 64.
    ``slowest_read_ms`` is the longest that any page's call takes with 10 million predictions of 90 days.
    """
    plan = Plan.of(_profile(), SIGNATURE)
    draw = np.random.default_rng(2)
    only = {f"input_n{place}": draw.normal(0, 1 + place, BATCH) for place in range(NUMBERS + TEXTS)}
    profiles = [numeric_profile(name.removeprefix("input_"), draw.normal(0, 9, 20_000)) for name in only]
    numeric = Plan(tuple(zip(only, profiles, strict=True)))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "loopwright.toml").write_text(TOML)
        layout = Layout.of("api", "made", SIGNATURE)
        rows = _rows(Ids.open(Project(folder)), BATCH, _inputs(BATCH, 2))
        encoded = pa.ipc.read_record_batch(pa.py_buffer(layout.encode(rows)), layout.tail_schema)
        table = layout.expand(encoded)
    found = {
        "histogram_ns": _best(lambda: numeric.count(only), 50) / (BATCH * len(only)) * 1e9,
        "histogram_logged_ns": _best(lambda: plan.count(table), 50) / (BATCH * (NUMBERS + TEXTS)) * 1e9,
    }
    one, other = plan.count(table), plan.count(table)
    found["merge_us"] = _best(lambda: one.add(other), 2000) * 1e6
    for name, batch in (("single", 1), ("batched", 64)):
        with tempfile.TemporaryDirectory() as folder:
            speed, share = _following(Path(folder), 300_000 if batch > 1 else 1000, batch, 2.0)
        if batch > 1:
            found["follower_rows_s"] = speed
        found[f"follower_core_{name}"] = share
    with tempfile.TemporaryDirectory() as folder:
        found |= _reading(Path(folder))
    for name, value in found.items():
        print(f"  {name}: {value:.4g}")
    return found


if __name__ == "__main__":
    run()
