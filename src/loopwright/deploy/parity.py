"""Parity: the same rows through all four modes, and how far the answers are from the model's own.

Everything runs as it does in production, with the same code and in processes of its own where that is so, but in a
project of its own in a temporary folder: nothing of it reaches the prediction log or the monitors.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
from numpy.typing import NDArray

from loopwright.config import FILE, PROJECT_VARIABLE, Project
from loopwright.deploy import batch, edge, stream
from loopwright.deploy.base import Predictor, publish
from loopwright.deploy.edge import archive
from loopwright.deploy.edge.verification import answer
from loopwright.deploy.stream.base import open_channel
from loopwright.deploy.stream.consumer import Consumer
from loopwright.errors import InvalidInput, LoopwrightError, Unavailable
from loopwright.ledger import Ledger
from loopwright.predictions import Ids
from loopwright.records import Deployment, Mode, ModelVersion, Task, Variant
from loopwright.scoring.base import Manifest, Scores

__all__ = ["ModeParity", "Parity", "parity"]

#: Name of the column that carries the number of a row through a batch.
ROW = "loopwright_row"
#: Rows of one request; a body has a limit.
REQUEST_ROWS = 200
#: Seconds for a serving process to be ready.
START_S = 60.0
_TOML = """
[model.{model}]
target = {target}

[deployment.online]
model = {model}
mode = "online"

[deployment.batch]
model = {model}
mode = "batch"
source = "rows.parquet"
sink = "sqlite:///sink.db?table=predictions"
key = "{row}"

[deployment.stream]
model = {model}
mode = "stream"
source = "sqlite:///streams.db?topic=rows"
sink = "sqlite:///streams.db?topic=predictions"
"""
#: One answer as every mode can give it: the prediction, and the probabilities by class where there are any.
Answer = tuple[Any, Mapping[str, float] | None]


@dataclass(frozen=True, slots=True)
class ModeParity:
    """How far one mode is from the reference.

    `max_difference` is absolute or relative, whichever is smaller, over probabilities or numbers; `how` says in which
    way the mode was run, or why it was not (then `rows` is 0).
    """

    mode: str
    rows: int
    max_difference: float
    label_flips: int
    how: str


@dataclass(frozen=True, slots=True)
class Parity:
    """The comparison of the modes. `ok` says that every mode is within `tolerance` and changes no label."""

    model: str
    version: int
    rows: int
    reference: str
    modes: tuple[ModeParity, ...]
    tolerance: float
    ok: bool
    seconds: float
