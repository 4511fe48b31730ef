"""What the prediction log costs: building and appending batches, sealing, reading back, joining labels.

Run ``python benches/predictions.py``. Prints the best of several tries; compare ratios, not milliseconds.
"""

import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from loopwright.config import Project
from loopwright.predictions import Ids, LabelLog, Layout, PredictionLog, Predictions, PredictionStore
from loopwright.records import Column, Label, Signature, Task, now

NAMES = [f"pixel_{number}" for number in range(64)]
SIGNATURE = Signature(
    tuple(Column(name, "double") for name in NAMES), Task.classification, "digit", tuple(range(10))
)
ROWS = 300_000


def best(work: Callable[[], Any], tries: int = 5) -> float:
    """Return the shortest time of several tries, in seconds."""
    seconds = []
    for _ in range(tries):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def batch(ids: Ids, n: int, at_us: int) -> Predictions:
    """Return `n` predictions, one millisecond apart."""
    return Predictions(
        prediction_id=ids.new(n, at_us),
        at_us=at_us + np.arange(n) * 1000,
        version=np.ones(n, np.int32),
        variant=["champion"] * n,
        propensity=np.ones(n),
        entity=["someone"] * n,
        latency_ms=np.ones(n, np.float32),
        inputs={name: np.random.default_rng(0).random(n) for name in NAMES},
        prediction=np.arange(n) % 10,
        probability=np.full((n, 10), 0.1),
    )


def main() -> None:
    """Print one line per figure."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "loopwright.toml").write_text("")
        project = Project(folder)
        ids = Ids.open(project)
        layout = Layout.of("api", "digits", SIGNATURE)
        for n in (1, 100, 1000):
            rows = batch(ids, n, time.time_ns() // 1000)
            build = best(lambda rows=rows: [layout.encode(rows) for _ in range(200)]) / 200  # type: ignore[misc]
            print(f"build a batch of {n:>4} rows x 64 inputs: {build * 1e6:8.0f} us")
            for durability in ("process", "power"):
                log = PredictionLog(project, f"{durability}-{n}", "digits", SIGNATURE, durability=durability)
                took = best(lambda rows=rows, log=log: [log.append(rows) for _ in range(50)]) / 50  # type: ignore[misc]
                print(
                    f"append it, {durability:>7} durability:         {took * 1e6:8.0f} us, {n / took:10,.0f} rows/s"
                )
                log.close()
        start_us = time.time_ns() // 1000 - ROWS * 1000
        log = PredictionLog(project, "api", "digits", SIGNATURE)
        known: list[str] = []
        for first in range(0, ROWS, 1000):
            rows = batch(ids, 1000, start_us + first * 1000)
            known += rows.prediction_id
            log.append(rows)
        print(f"seal {ROWS:,} rows:                       {best(log.close, 1):8.2f} s")
        labels = LabelLog(project)
        labels.append([Label(prediction_id, 3, now()) for prediction_id in known])
        labels.close()
        store = PredictionStore(project)
        since = datetime.fromtimestamp(start_us / 1e6 + 60, UTC)
        until = datetime.fromtimestamp(start_us / 1e6 + 110, UTC)
        means = ", ".join(f"avg(input_{name})" for name in NAMES)
        window = best(lambda: store.query(f"select {means} from predictions", since=since, until=until))
        print(f"64 means over a window of 50,000 rows:      {window * 1e3:8.0f} ms")
        accuracy = "select version, avg((actual = prediction)::int) from predictions group by version"
        join = best(lambda: store.query(accuracy, deployment="api"))
        print(f"accuracy over {ROWS:,} rows and labels:    {join * 1e3:8.0f} ms")
        found = best(lambda: store.find(known[ROWS // 2]))
        print(f"find one prediction:                        {found * 1e3:8.0f} ms")


if __name__ == "__main__":
    main()
