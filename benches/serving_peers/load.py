"""Load by wrk, and what came of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Load", "Seen", "missing", "run"]

SCRIPT = Path(__file__).with_name("load.lua")


@dataclass(frozen=True)
class Seen:
    """What the load tool saw. `sent` counts requests, also those under way when it stopped; times in ms."""

    sent: int
    done: int
    seconds: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    non_2xx: int
    connect: int
    read: int
    write: int
    timeout: int

    @property
    def rps(self) -> float:
        """Answers in a second."""
        return self.done / self.seconds

    @property
    def failed(self) -> int:
        """Answers that were no success, and connections that broke."""
        return self.non_2xx + self.connect + self.read + self.write + self.timeout


@dataclass(frozen=True)
class Load:
    """How a server is asked: `bodies` is a file with one request body a line."""

    port: int
    path: str
    bodies: Path
    connections: int


def missing() -> str | None:
    """Say how to get the load tool where it is missing."""
    return None if shutil.which("wrk") else "The load tool wrk is missing. Get it: apt-get install wrk"


def run(load: Load, seconds: float) -> Seen:
    """Put load on a server for some seconds, 1 at least.

    Raises
    ------
    RuntimeError
        The load tool failed, with what it said.
    """
    whole = max(1, round(seconds))
    command = ["wrk", "-t1", f"-c{load.connections}", f"-d{whole}s", "--timeout", "60s", "-s", str(SCRIPT)]
    command += [f"http://127.0.0.1:{load.port}", "--", load.path, str(load.bodies)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=whole + 60, check=False)
    found = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    if ended.returncode or not found:
        raise RuntimeError(f"wrk ended with {ended.returncode}: {ended.stdout[-500:]}{ended.stderr[-500:]}")
    return Seen(**json.loads(found[-1]))
