"""A process that writes predictions until it is killed or stopped, and says which are acknowledged.

``python prediction_writer.py PROJECT SEAL_ROWS [BATCHES]`` prints the ids of each batch after its append returned.
"""

import os
import random
import sys
import time
from pathlib import Path

import numpy as np

from loopwright.config import Project
from loopwright.predictions import Ids, LabelLog, PredictionLog, Predictions
from loopwright.records import Column, Label, Signature, Task

NAMES = [f"pixel_{number}" for number in range(16)]
SIGNATURE = Signature(
    tuple(Column(name, "double") for name in NAMES), Task.classification, "digit", tuple(range(10))
)


def batch(ids: Ids, n: int) -> Predictions:
    """Return `n` predictions of now."""
    now_us = time.time_ns() // 1000
    return Predictions(
        prediction_id=ids.new(n, now_us),
        at_us=np.full(n, now_us),
        version=np.ones(n, np.int32),
        variant=["champion"] * n,
        propensity=np.ones(n),
        entity=[""] * n,
        latency_ms=np.ones(n, np.float32),
        inputs={name: np.full(n, 0.5) for name in NAMES},
        prediction=np.arange(n) % 10,
        probability=np.full((n, 10), 0.1),
    )


def main(root: str, seal_rows: int, batches: int | None) -> None:
    """Write batches of 1 to 40 rows, each with a label for its first row, and seal in between."""
    project = Project(Path(root))
    ids = Ids.open(project)
    log = PredictionLog(project, "digits-api", "digits", SIGNATURE, seal_rows=seal_rows)
    labels = LabelLog(project, seal_rows=seal_rows)
    sizes = random.Random(os.getpid())
    written = 0
    while batches is None or written < batches:
        rows = batch(ids, sizes.randint(1, 40))
        log.append(rows)
        os.write(1, f"{' '.join(rows.prediction_id)}\n".encode())
        labels.append([Label(rows.prediction_id[0], 3)])
        log.maintain()
        labels.maintain()
        written += 1
    log.close()
    labels.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
