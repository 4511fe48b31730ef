"""What the prediction log costs: durable appends, a window over a million rows, small segments before and after merging.

Called by ``benches/monitoring.py``; ``python benches/monitoring_parts/log.py`` runs it alone.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.predictions import Ids, Layout, PredictionLog, Predictions, PredictionStore, maintain
from loopwright.predictions.tail import read_batches
from loopwright.records import Column, Signature, Task
from loopwright.registry.blocks import blocks_of

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
GROUP, GROUPS, ROUNDS = 1000, 60, 5
ROWS = 1_000_000
SMALL, SMALL_ROWS = 2000, 500
DAY_US = 86_400 * 1_000_000


def _batch(ids: Ids, n: int, at_us: int, every_us: int, seed: int) -> Predictions:
    """Return rows as a serving process has them: the inputs of one kind side by side."""
    random = np.random.default_rng(seed)
    words = np.array([f"category {number}" for number in range(50)], object)
    inputs: dict[str, Any] = {f"x{place}": random.normal(0, 1, n) for place in range(NUMBERS)}
    inputs |= {f"c{place}": random.choice(words, n) for place in range(TEXTS)}
    issued, raw = ids.issue(n, at_us)
    return Predictions(
        prediction_id=issued,
        at_us=at_us + np.arange(n, dtype=np.int64) * every_us,
        version=1,
        variant="champion",
        propensity=1.0,
        entity=None,
        latency_ms=np.full(n, 1.5, np.float32),
        inputs=blocks_of(inputs, list(SIGNATURE.inputs), n),
        prediction=random.integers(0, 2, n),
        probability=None,
        raw_id=raw,
    )


def _project(folder: str, name: str) -> Project:
    root = Path(folder) / name
    root.mkdir()
    (root / "loopwright.toml").write_text("")
    return Project(root)


def _append(folder: str) -> dict[str, float]:
    """Compare appends of 1000 rows, each group synced, with a bare Arrow stream of the same rows, built beforehand."""
    project = _project(folder, "append")
    ids = Ids.open(project)
    groups = [_batch(ids, GROUP, time.time_ns() // 1000, 1, seed) for seed in range(GROUPS)]
    layout = Layout.of("api", "made", SIGNATURE)
    head = layout.tail_schema.serialize().to_pybytes()
    built = []
    for group in groups:
        path = project.root / "one.arrows"
        path.write_bytes(head + layout.encode(group))
        built += read_batches(path)
    ours, bare = [], []
    for number in range(ROUNDS):
        log = PredictionLog(
            project, f"api-{number}", "made", SIGNATURE, durability="power", seal_bytes=1 << 30
        )
        start = time.perf_counter()
        for group in groups:
            log.append(group)
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        path = project.root / f"bare-{number}.arrows"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, built[0].schema) as stream:
            descriptor = os.open(path, os.O_RDONLY)
            for batch in built:
                stream.write_batch(batch)
                os.fdatasync(descriptor)
            os.close(descriptor)
        bare.append(time.perf_counter() - start)
    rows = GROUP * GROUPS
    return {
        "append_vs_arrow": min(bare) / min(ours),
        "append_rows_s": rows / min(ours),
        "arrow_rows_s": rows / min(bare),
    }


def _best(work: Callable[[], Any], tries: int = 5) -> float:
    taken = []
    for _ in range(tries):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def _window(folder: str) -> dict[str, float]:
    """Time five minutes, 50,000 rows, of a log of a million: 20 means and 10 numbers of distinct values."""
    project = _project(folder, "window")
    ids = Ids.open(project)
    start_us = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp()) * 1_000_000
    log = PredictionLog(project, "api", "made", SIGNATURE)
    for at in range(0, ROWS, 10_000):
        log.append(_batch(ids, 10_000, start_us + at * 6000, 6000, at % 7))
        log.maintain()
    log.close()
    store = PredictionStore(project)
    columns = [f"avg(input_x{place})" for place in range(NUMBERS)]
    columns += [f"count(distinct input_c{place})" for place in range(TEXTS)]
    query = f"select count(*) as n, {', '.join(columns)} from predictions"
    since = datetime.fromtimestamp(start_us / 1e6, UTC) + timedelta(minutes=50)
    span = {"since": since, "until": since + timedelta(minutes=5)}
    assert store.query(query, **span).column("n")[0].as_py() == 50_000
    return {
        "window_5min_of_1m_ms": _best(lambda: store.query(query, **span)) * 1e3,
        "extent_of_1m_ms": _best(lambda: store.extent("api")) * 1e3,
    }


def _merge(folder: str) -> dict[str, float]:
    """Time one query over 2000 segments of 500 rows, the merging, and the query after it."""
    project = _project(folder, "merge")
    ids = Ids.open(project)
    yesterday_us = time.time_ns() // 1000 // DAY_US * DAY_US - DAY_US
    rows = [_batch(ids, SMALL_ROWS, yesterday_us, 1, seed) for seed in range(8)]
    for number in range(SMALL):
        # A log of its own for each: names are not compared, and neither is the catalogue written, in what is timed.
        log = PredictionLog(project, "api", "made", SIGNATURE, seal_rows=SMALL_ROWS)
        group = rows[number % len(rows)]
        group.at_us = yesterday_us + number * SMALL_ROWS + np.arange(SMALL_ROWS, dtype=np.int64)
        log.append(group)
        log.maintain()
        log.close()
    store = PredictionStore(project)
    query = f"select count(*) as n, {', '.join(f'avg(input_x{place})' for place in range(NUMBERS))} from predictions"
    before = _best(lambda: store.query(query), 3)
    ledger = Ledger.open(project, actor="bench")
    start = time.perf_counter()
    done = maintain(project, ledger)
    took = time.perf_counter() - start
    assert (done.merged, done.problems) == (SMALL, []), done
    after = _best(lambda: store.query(query), 3)
    ledger.close()
    return {
        "small_segments_before_ms": before * 1e3,
        "small_segments_after_ms": after * 1e3,
        "merge_2000_s": took,
        "compaction": before / after,
    }


def run() -> dict[str, float]:
    """Return all figures; compare ratios, not milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        return _append(folder) | _window(folder) | _merge(folder)


if __name__ == "__main__":
    print(json.dumps({name: round(value, 3) for name, value in run().items()}))
