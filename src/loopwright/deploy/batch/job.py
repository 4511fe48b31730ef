"""One run of a batch deployment: read, score what is new, log, write."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from filelock import FileLock, Timeout

from loopwright import plugins
from loopwright.config import DeploymentConfig, Project
from loopwright.deploy.base import Predictor, assign
from loopwright.deploy.batch.base import Chunk, Sink, Source, parse
from loopwright.errors import Conflict, InvalidInput, listing
from loopwright.ledger import Ledger
from loopwright.predictions import Ids
from loopwright.records import Mode, now

__all__ = ["BatchRun", "run"]

#: Rows that are scored, logged and written together.
CHUNK_ROWS = 8192
