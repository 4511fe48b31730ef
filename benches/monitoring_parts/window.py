"""A 5-minute window of 30 columns, all checks, over a log of 1M rows of 100 minutes; against plain DuckDB reading it.

The peer reads the same 50,000 rows from the same files and takes 20 averages and 10 counts of distinct values: it judges
nothing, and knows no labels.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.monitor.results import Results
from loopwright.monitor.run import tick
from loopwright.monitor.windows import floor
from loopwright.predictions import Ids, PredictionLog, Predictions, PredictionStore
from loopwright.records import (
    Column,
    Deployment,
    Judged,
    Mode,
    ModelVersion,
    Signature,
    Task,
    Variant,
    Window,
    micros,
    now,
)
from loopwright.registry.profile import profile_of
from monitoring_parts.drift import CARDINALITIES, NUMERIC, table

__all__ = ["run"]

API, MODEL = "api", "table"
TOML = f"""
[model.{MODEL}]
target = "y"
[deployment.{API}]
model = "{MODEL}"
mode = "online"
[monitor.{MODEL}]
window = "5m"
"""
LENGTH = timedelta(minutes=5)
NAMES = [
    *(f"n{place:02}" for place in range(NUMERIC)),
    *(f"c{place:02}" for place in range(len(CARDINALITIES))),
]
SIGNATURE = Signature(
    tuple(Column(name, "double" if name[0] == "n" else "string") for name in NAMES),
    Task.classification,
    "y",
    (0, 1),
)


def _arrays(rows: int, seed: int) -> dict[str, Any]:
    found = {}
    drawn = table(rows, seed)
    for name in NAMES:
        values = drawn.column(name).to_pylist()
        found[name] = np.array(values, np.float64 if name[0] == "n" else object)
    return found


def run(rows: int = 1_000_000, tries: int = 5) -> dict[str, Any]:
    """Return the median seconds of one window, and of the peer."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "loopwright.toml").write_text(TOML)
        project = Project(folder)
        end = floor(now(), LENGTH)
        start = end - timedelta(minutes=100)
        _fill(project, rows, micros(start), 100 * 60 * 1_000_000 / rows)
        ledger, store = Ledger.open(project), PredictionStore(project)
        ours, peer, judged = [], [], []
        for number in range(tries):
            until = end - (tries - number) * LENGTH  # forwards, as time goes
            window = Window(until - LENGTH, until)
            _seen(ledger, until - LENGTH, rows // 20)
            began = time.perf_counter()
            tick(project, ledger, store, until + timedelta(seconds=1))
            ours.append(time.perf_counter() - began)
            judged = Results(ledger).windows(API, "inputs", since=window.start, until=window.end)
            assert judged, "no window was judged"
            peer.append(_peer(project, window))
        signals = Results(ledger).signals(API, since=judged[-1].window.start)
        ledger.close()
    return {
        "window_s": statistics.median(ours),
        "duckdb_s": statistics.median(peer),
        "ratio": statistics.median(ours) / statistics.median(peer),
        "window_rows": judged[-1].rows,
        "signals": len(signals),
        "failed": judged[-1].failed,
    }


def _fill(project: Project, rows: int, start_us: int, step_us: float) -> None:
    log = PredictionLog(project, API, MODEL, SIGNATURE)
    ids = Ids.open(project)
    size = 50_000
    columns = _arrays(size, 3)
    random = np.random.default_rng(4)
    for first in range(0, rows, size):
        at = (start_us + (first + np.arange(size)) * step_us).astype(np.int64)
        p = random.random(size)
        log.append(
            Predictions(
                ids.new(size, int(at[0])), at, 1, "champion", 1.0, None, np.full(size, 1.5, np.float32), columns,
                (p > 0.5).astype(np.int64), np.column_stack([1 - p, p]),
            )
        )  # fmt: skip
        log.maintain()
    log.close()
    profile = profile_of(_arrays(size, 5), SIGNATURE, (random.random(size) > 0.5).astype(np.int64))
    folder = project.scorer(MODEL, 1)
    folder.mkdir(parents=True)
    (folder / "profile.json").write_bytes(msgspec.json.encode(profile))
    ledger = Ledger.open(project)
    ledger.put("model_version", f"{MODEL}/1", ModelVersion(MODEL, 1, "", "", signature=SIGNATURE))
    ledger.put("deployment", API, Deployment(API, MODEL, Mode.online, (Variant("champion", 1),)))
    ledger.close()


def _seen(ledger: Ledger, until: Any, rows: int) -> None:
    """Begin anew: the last window that was looked at ended at a moment, and had all its rows."""
    results = Results(ledger)
    results.prune(now() + timedelta(days=1))
    for phase in ("inputs", "labels"):
        results.record(Judged(API, MODEL, phase, 1, Window(until - LENGTH, until), "judged", rows), [])


def _peer(project: Project, window: Window) -> float:
    import duckdb

    files = [str(path) for path in project.predictions.rglob("*.parquet")]
    averages = [f'avg("input_{name}")' for name in NAMES if name[0] == "n"]
    distinct = [f'count(distinct "input_{name}")' for name in NAMES if name[0] == "c"]
    with duckdb.connect(":memory:", config={"threads": 2}) as connection:
        began = time.perf_counter()
        connection.execute(
            f"select {', '.join(averages + distinct)} from read_parquet(?) "
            f'where "at" >= make_timestamptz({micros(window.start)}) and "at" < make_timestamptz({micros(window.end)})',
            [files],
        ).fetchall()
        return time.perf_counter() - began


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
