"""Rows and a project for the tests of the prediction log."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from loopwright.config import Project
from loopwright.predictions import Ids, Predictions
from loopwright.records import Column, Signature, Task

FLOWERS = Signature(
    (Column("petal", "double"), Column("sepal", "double"), Column("colour", "string", required=False)),
    Task.classification,
    "species",
    (0, 1, 2),
)


def project_in(folder: Path) -> Project:
    """Return a new project with one declared deployment that has no predictions yet."""
    text = '[model.iris]\npipeline = "pipelines:train"\ntarget = "species"\n[deployment.quiet]\nmodel = "iris"\nmode = "online"\n'
    (folder / "loopwright.toml").write_text(text)
    return Project(folder)


def run_apart(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `code` in a Python of its own, which can import this module; ``sys.argv[1]`` is `folder`."""
    here = str(Path(__file__).parent)
    return subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        env=os.environ | {"PYTHONPATH": here},
        capture_output=True,
        text=True,
        check=False,
    )


def rows(
    project: Project, n: int, *, at_us: int | None = None, version: int = 1, **changes: Any
) -> Predictions:
    """Return `n` predictions for `FLOWERS`, numbered by `petal`, one microsecond apart from `at_us` on."""
    at_us = time.time_ns() // 1000 if at_us is None else at_us
    facts: dict[str, Any] = {
        "prediction_id": Ids.open(project).new(n, at_us),
        "at_us": at_us + np.arange(n, dtype=np.int64),
        "version": np.full(n, version, np.int32),
        "variant": ["champion"] * n,
        "propensity": np.full(n, 0.9),
        "entity": [f"flower-{number}" for number in range(n)],
        "latency_ms": np.full(n, 1.5, np.float32),
        "inputs": {
            "petal": np.arange(n, dtype=np.float64),
            "sepal": np.full(n, 0.5),
            "colour": np.array(["blue"] * n, object),
        },
        "prediction": np.arange(n) % 3,
        "probability": np.tile([0.2, 0.3, 0.5], (n, 1)),
    }
    return Predictions(**facts | changes)
