"""1M predictions joined with 1M late labels, and the accuracy by version: `PredictionStore.query` against plain DuckDB.

The peer is the join a person would write by hand over the same Parquet files, in a connection that is open already: no
label twice, none by entity, types known. Ours has the last label of each prediction, of its type, behind a locked connection
that is made for each query.

    python benches/monitoring_parts/label_join.py
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from loopwright.config import Project
from loopwright.predictions import Ids, LabelLog, PredictionLog, Predictions, PredictionStore
from loopwright.records import Column, Label, Signature, Task

ROWS, BATCH, REPEATS = 1_000_000, 10_000, 9
START_US = 1_790_000_000_000_000
SIGNATURE = Signature(
    tuple(Column(f"x{number}", "double") for number in range(5)), Task.classification, "y", (0, 1, 2)
)
QUERY = (
    "select version, avg((actual = prediction)::int) as accuracy from predictions group by version order by 1"
)


def run() -> dict[str, Any]:
    """Return the ratio of the best times, and what it was made of in milliseconds."""
    import duckdb

    with tempfile.TemporaryDirectory() as folder:
        project = _project(Path(folder))
        truth = _write(project)
        store = PredictionStore(project)
        with duckdb.connect(":memory:", config={"threads": 2, "memory_limit": "512MB"}) as connection:
            connection.execute("SET parquet_metadata_cache = true")
            plain = _plain(project)
            ours, peer = _best(
                lambda: store.query(QUERY).column("accuracy").to_pylist(),
                lambda: [row[1] for row in connection.execute(plain).fetchall()],
                truth,
            )
    return {
        "ratio": round(ours / peer, 2),
        "label_join_ms": round(ours * 1e3, 1),
        "label_join_duckdb_ms": round(peer * 1e3, 1),
    }


def _project(folder: Path) -> Project:
    (folder / "loopwright.toml").write_text(
        '[model.m]\ntarget = "y"\n[deployment.api]\nmodel = "m"\nmode = "online"\n', encoding="utf-8"
    )
    return Project(folder)


def _write(project: Project) -> list[float]:
    """Log the rows and, in another order, their labels; return the accuracy of both versions."""
    random = np.random.default_rng(0)
    issued, log = Ids.open(project), PredictionLog(project, "api", "m", SIGNATURE)
    ids: list[str] = []
    predictions = random.integers(0, 3, ROWS)
    versions = (1 + (np.arange(ROWS) // BATCH) % 2).astype(np.int32)
    for start in range(0, ROWS, BATCH):
        at_us = START_US + start * 6_000 + np.arange(BATCH, dtype=np.int64)
        rows = slice(start, start + BATCH)
        batch = issued.new(BATCH, int(at_us[0]))
        log.append(
            Predictions(
                prediction_id=batch,
                at_us=at_us,
                version=versions[rows],
                variant=["champion"] * BATCH,
                propensity=np.ones(BATCH),
                entity=None,
                latency_ms=np.ones(BATCH, np.float32),
                inputs={column.name: random.normal(size=BATCH) for column in SIGNATURE.inputs},
                prediction=predictions[rows],
                probability=np.tile([0.2, 0.3, 0.5], (BATCH, 1)),
            )
        )
        log.maintain()
        ids += batch
    log.close()
    actual = random.integers(0, 3, ROWS)
    order = random.permutation(ROWS)
    labels = LabelLog(project)
    for start in range(0, ROWS, BATCH):
        labels.append([Label(ids[row], int(actual[row])) for row in order[start : start + BATCH]])
        labels.maintain()
    labels.close()
    right = actual == predictions
    return [float(right[versions == version].mean()) for version in (1, 2)]


def _plain(project: Project) -> str:
    files = {
        name: sorted(str(path) for path in root.rglob("*.parquet"))
        for name, root in (("predictions", project.predictions), ("labels", project.labels))
    }
    return f"""
        select version, avg((number = prediction)::int) as accuracy
        from read_parquet({files["predictions"]}) join read_parquet({files["labels"]}) using (prediction_id)
        group by version order by 1
    """


def _best(
    ours: Callable[[], list[float]], peer: Callable[[], list[float]], truth: list[float]
) -> tuple[float, float]:
    """Return the best times of both in seconds; taken in turns, so that both meet the same neighbours."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(REPEATS + 1):
        for work, taken in zip((ours, peer), times, strict=True):
            began = time.perf_counter()
            found = work()
            if repeat:
                taken.append(time.perf_counter() - began)
            assert found == truth, (found, truth)
    for name, taken in zip(("ours", "plain DuckDB"), times, strict=True):
        sys.stderr.write(f"{name}: best {min(taken):.3f} s, median {statistics.median(taken):.3f} s\n")
    return min(times[0]), min(times[1])


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run()) + "\n")
