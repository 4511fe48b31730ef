"""Load by wrk, and what came of it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Checked", "Load", "Seen", "missing", "run"]

HERE = Path(__file__).resolve().parent


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
    #: Where answers were checked: those that no version gives, those that do not say whom they answer, and those of
    #: version 1 and of the other.
    wrong: int = 0
    anonymous: int = 0
    first: int = 0
    second: int = 0

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
    """How a server is asked.

    `bodies` is a file with one request body a line; `expected`, where answers are to be checked, one with what each
    version says about each of them.
    """

    port: int
    path: str
    bodies: Path
    connections: int
    expected: Path | None = None

    def command(self, seconds: int) -> list[str]:
        """Return the command that puts this load on the server."""
        script = HERE / ("load.lua" if self.expected is None else "checked.lua")
        made = ["wrk", "-t1", f"-c{self.connections}", f"-d{seconds}s", "--timeout", "60s", "-s", str(script)]
        made += [f"http://127.0.0.1:{self.port}", "--", self.path, str(self.bodies)]
        return made if self.expected is None else [*made, str(self.expected)]


def missing() -> str | None:
    """Say how to get the load tool where it is missing."""
    return None if shutil.which("wrk") else "The load tool wrk is missing. Get it: apt-get install wrk"


def run(load: Load, seconds: int) -> Seen:
    """Put load on a server for some seconds.

    Raises
    ------
    RuntimeError
        The load tool failed, with what it said.
    """
    ended = subprocess.run(
        load.command(seconds), capture_output=True, text=True, timeout=seconds + 60, check=False
    )
    return _read(ended.stdout, ended.stderr)


def _read(out: str, errors: str) -> Seen:
    found = [line for line in out.splitlines() if line.startswith("{")]
    if not found:
        raise RuntimeError(f"wrk did not end well: {out[-800:]}{errors[-800:]}")
    return Seen(**json.loads(found[-1]))


class Checked:
    """Load that goes on until it is ended, with every answer checked."""

    def __init__(self, load: Load, most_s: int = 600) -> None:
        self._process = subprocess.Popen(
            load.command(most_s), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def end(self) -> Seen:
        """Stop and return what came of it.

        Raises
        ------
        RuntimeError
            The load tool failed, with what it said.
        """
        self._process.send_signal(signal.SIGINT)
        try:
            return _read(*self._process.communicate(timeout=60))
        finally:
            self._process.kill()
            self._process.wait()
