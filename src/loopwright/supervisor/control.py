"""Starting, stopping and looking at the running parts of a project: what `loopwright up | down | status` call."""

import contextlib
import time
from dataclasses import dataclass

import psutil

from loopwright import parts
from loopwright.config import Project
from loopwright.errors import Unavailable

__all__ = ["Status", "down", "status", "up"]


@dataclass(frozen=True, slots=True)
class Status:
    """One row of `loopwright status`. `memory_mb` is the proportional set size, in MB of 10^6 bytes."""

    name: str
    state: str
    pid: int
    url: str
    restarts: int
    memory_mb: float
    uptime_s: float


def up(project: Project, *, wait_s: float = 180.0) -> bool:
    """Start all parts, or those that are missing, and wait until they are ready.

    Returns
    -------
    bool
        False when everything was running already.
    """
    kinds = tuple(kind for kind in parts.ALL if kind != "stream" or _has_stream(project))
    if parts.supervisor(project) and parts.ready(project, *kinds):
        return False
    parts.ensure(project, *kinds, wait_s=wait_s)
    return True


def _has_stream(project: Project) -> bool:
    return any(deployment.mode == "stream" for deployment in project.config.deployment.values())


def down(project: Project, *, wait_s: float = 30.0) -> bool:
    """Stop all parts and the supervisor; return False when nothing was running.

    Raises
    ------
    Unavailable
        The supervisor did not end within `wait_s` seconds.
    """
    running = parts.supervisor(project)
    parts.ask(project, ())
    if running is None:
        return False
    process = psutil.Process(running.pid)
    process.terminate()
    try:
        process.wait(wait_s)
    except psutil.TimeoutExpired:
        raise Unavailable(
            f"The supervisor (pid {running.pid}) did not stop within {wait_s:.0f} s.",
            hint=f"kill -9 {running.pid}",
        ) from None
    return True


def status(project: Project) -> list[Status]:
    """Return what runs, with the memory of each part including its child processes."""
    rows = []
    running = parts.supervisor(project)
    known = ([running] if running else []) + list(parts.read(project).values())
    for part in known:
        up_now = parts.alive(part)
        memory = 0.0
        if up_now:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(part.pid)
                family = [process, *(process.children(recursive=True) if part.name != "supervisor" else [])]
                memory = sum(_pss(member) for member in family)
        state = part.state if up_now or part.state in {"failed", "stopped"} else "died"
        uptime = time.time() - part.created if up_now else 0.0
        rows.append(Status(part.name, state, part.pid, part.url, part.restarts, memory, uptime))
    return rows


def _pss(process: psutil.Process) -> float:
    try:
        facts = process.memory_full_info()
        return float(getattr(facts, "pss", facts.uss)) / 1e6
    except psutil.Error:
        return 0.0
