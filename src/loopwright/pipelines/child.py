"""One flow run in a process of its own, as the runner sees it."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import time
from pathlib import Path

from loopwright.config import Project
from loopwright.errors import NotFound
from loopwright.parts import PARENT_VARIABLE
from loopwright.pipelines import rest
from loopwright.pipelines.serving import Served

__all__ = ["Child", "log_of"]

#: A cancelled run gets so long to end by itself before it is killed.
CANCEL_S = 10.0
_LOG_LINES = 200


def log_of(project: Project, flow_run_id: str) -> Path:
    """Return the file that holds what a run prints which the runner has started; it need not be there."""
    return project.run / "logs" / "flows" / f"{flow_run_id}.log"


class Child:
    """A running process of the runner; starts it."""

    def __init__(
        self, project: Project, served: Served, flow_run_id: str, *, timeout_s: float = math.inf
    ) -> None:
        self.project = project
        self.served = served
        self.flow_run_id = flow_run_id
        self._cancelled = False
        self._timed_out = False
        self._timeout_s = timeout_s
        self._ends_at = time.monotonic() + timeout_s
        self._kill_at = math.inf
        self._log = log_of(project, flow_run_id)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                served.command(flow_run_id),
                cwd=project.root,
                env=os.environ | {PARENT_VARIABLE: str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                process_group=0,  # what the run has started itself is killed with it
            )

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, None while it runs; minus the signal's number when a signal ended it."""
        return self._process.poll()

    def cancel(self) -> None:
        """Stop it because its run was cancelled; once, however often it is asked."""
        if not self._cancelled:
            self._cancelled = True
            self.stop(CANCEL_S)

    def stop(self, within_s: float) -> None:
        """Ask the process to end, and have `insist` kill it when it has not after so many seconds."""
        self._kill_at = time.monotonic() + within_s
        self._process.terminate()

    def insist(self) -> None:
        """Stop a process that takes longer than it may; kill one, with all it has started, whose time to end has passed."""
        if time.monotonic() >= self._ends_at and not self._timed_out:
            self._timed_out = True
            self.stop(CANCEL_S)
        if self.exit_code is None and time.monotonic() >= self._kill_at:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def report(self) -> None:
        """Tell Prefect how the process ended, where it could not do so itself."""
        code = self.exit_code
        assert code is not None
        lines = self._tail()
        with contextlib.suppress(NotFound):  # somebody deleted the flow run meanwhile
            rest.log(self.project, self.flow_run_id, lines)
            if self._cancelled and code != 0:
                # The process itself may have said that it crashed, because it was terminated: that was we.
                rest.set_state(self.project, self.flow_run_id, "CANCELLED", "Cancelled.", force=True)
            elif self._timed_out and code != 0:
                message = f"Timed out: it took more than {self._timeout_s:g} s."
                rest.set_state(self.project, self.flow_run_id, "FAILED", message, name="TimedOut", force=True)
            elif code == 0 and not self.served.reports:
                rest.end(self.project, self.flow_run_id, "COMPLETED", lines[-1] if lines else "")
            elif code > 0 and not self.served.reports:
                rest.end(self.project, self.flow_run_id, "FAILED", "\n".join(lines[-5:]))
            else:
                message = f"Crashed: the process ended with {code}."
                rest.end(self.project, self.flow_run_id, "CRASHED", message)

    def _tail(self) -> list[str]:
        try:
            text = self._log.read_bytes()[-50_000:].decode(errors="replace")
        except OSError:
            return []
        return text.splitlines()[-_LOG_LINES:]
