"""One part as the supervisor sees it: a command, a health check, and a restart with back-off."""

import http.client
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import psutil

from loopwright.config import PROJECT_VARIABLE, Project
from loopwright.parts import PARENT_VARIABLE, PART_VARIABLE, Part

__all__ = ["Process", "Spec"]

#: Seconds until the first restart; doubled with every death in a row.
FIRST_BACKOFF_S = 0.25
LAST_BACKOFF_S = 30.0
#: A part that has been up this long starts again at the first back-off.
STABLE_S = 30.0
#: A part that was ready and has not answered (or beaten) for this long is killed and started again.
HUNG_S = 60.0
#: A part that is not ready after this many starts in a row is called failed; it is still tried again.
FAILED_AFTER = 4


@dataclass(frozen=True, slots=True)
class Spec:
    """How to run a part. Without a `url` its health is the age of its beat file."""

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    url: str = ""
    fds: tuple[int, ...] = ()
    needs: tuple[str, ...] = ()


class Process:
    """One watched process."""

    def __init__(self, project: Project, spec: Spec) -> None:
        self.project = project
        self.spec = spec
        self.state = "stopped"
        self.deaths = 0
        self.restarts = 0
        self.next_start = 0.0
        self._popen: subprocess.Popen[bytes] | None = None
        self._created = 0.0
        self._started = 0.0
        self._seen_well = 0.0
        self._next_probe = 0.0

    @property
    def part(self) -> Part:
        """The part as it is written for others to read."""
        pid = self._popen.pid if self._popen else 0
        return Part(self.spec.name, pid, self._created, self.spec.url, self.state, self.restarts)

    def start(self) -> None:
        """Start the process; its output goes to the part's log file."""
        log = self.project.run / "logs" / f"{self.spec.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        (self.project.run / f"{self.spec.name}.beat").unlink(missing_ok=True)
        environment = os.environ | {
            PROJECT_VARIABLE: str(self.project.root),
            PART_VARIABLE: self.spec.name,
            PARENT_VARIABLE: str(os.getpid()),
            "PYTHONUNBUFFERED": "1",
            # A part uses processes for cores, not threads inside a numeric library.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        with log.open("ab") as out:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", self.spec.module, *self.spec.arguments],
                cwd=self.project.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                pass_fds=self.spec.fds,
            )
        self._created = psutil.Process(self._popen.pid).create_time()
        self._started = self._seen_well = time.monotonic()
        self._next_probe = 0.0
        self.state = "starting"

    def exit_code(self) -> int | None:
        """Return the exit code of a process that has ended, else None."""
        return self._popen.poll() if self._popen else None

    def died(self) -> None:
        """Plan the restart of a process that has ended."""
        if time.monotonic() - self._started > STABLE_S:
            self.deaths = 0
        backoff = min(FIRST_BACKOFF_S * 2**self.deaths, LAST_BACKOFF_S)
        self.deaths += 1
        self.restarts += 1
        self.next_start = time.monotonic() + backoff
        self.state = "failed" if self.deaths >= FAILED_AFTER else "starting"
        self._popen = None

    def probe(self) -> bool:
        """Look at the part's health when that is due; return whether its state has changed."""
        clock = time.monotonic()
        if clock < self._next_probe:
            return False
        self._next_probe = clock + (0.15 if self.state == "starting" else 2.0)
        before = self.state
        if self._well():
            self._seen_well = clock
            self.state = "ready"
        elif self.state == "ready" and clock - self._seen_well > HUNG_S:
            self.stop(signal.SIGKILL)
        return self.state != before

    def _well(self) -> bool:
        if not self.spec.url:
            beat = self.project.run / f"{self.spec.name}.beat"
            return beat.exists() and time.time() - beat.stat().st_mtime < HUNG_S / 2
        host = self.spec.url.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=1.0 if self.state == "starting" else 5.0)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send the process a signal."""
        if self._popen and self._popen.poll() is None:
            self._popen.send_signal(number)

    def wait(self, until: float) -> None:
        """Wait for the end of the process; kill it and its children when `until` (monotonic seconds) has passed."""
        self.state = "stopped"
        if not self._popen:
            return
        try:
            children = psutil.Process(self._popen.pid).children(recursive=True)
        except psutil.Error:
            children = []
        try:
            self._popen.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        for child in children:
            if child.is_running():
                child.kill()
        self._popen = None
