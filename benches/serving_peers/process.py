"""A server as a subprocess: started, asked, measured over its whole process tree, stopped."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

__all__ = ["Running", "clean_environment", "free_port", "listener"]

JSON = {"content-type": "application/json"}
#: CPU seconds that a server at rest spends in one look, at most: the kernel counts in hundredths.
AT_REST_S, LOOK_S = 0.011, 0.1


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def listener() -> socket.socket:
    """Return a listening socket that several processes can share."""
    made = socket.create_server(("127.0.0.1", 0), backlog=2048)
    made.set_inheritable(True)
    return made


class Running:
    """A server that was started.

    Parameters
    ----------
    command
        Starts it.
    environment
        All of its environment variables.
    port
        Where it will listen.
    folder
        Where it is started and what it says is kept.
    name
        What the file for that is called.
    share
        A listening socket that it inherits.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        port: int,
        folder: Path,
        name: str,
        share: socket.socket | None = None,
    ) -> None:
        self.port = port
        self.log = folder / f"{name}.log"
        self.began = time.perf_counter()
        with self.log.open("wb") as out:
            self.process = psutil.Popen(
                list(command),
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=() if share is None else (share.fileno(),),
            )

    def tree(self) -> list[psutil.Process]:
        """Return the processes that serve."""
        try:
            return [self.process, *self.process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu(self) -> dict[int, float]:
        """Return the CPU seconds that each process has spent, by its id."""
        spent = {}
        for process in self.tree():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                spent[process.pid] = times.user + times.system
        return spent

    def spent_since(self, before: Mapping[int, float]) -> float:
        """Return the CPU seconds that all processes have spent since an earlier `cpu`."""
        return sum(seconds - before.get(pid, 0.0) for pid, seconds in self.cpu().items())

    def settle(self, most_s: float = 8.0) -> None:
        """Wait until what is under way has come to an end."""
        until, before = time.monotonic() + most_s, self.cpu()
        while time.monotonic() < until:
            time.sleep(LOOK_S)
            if self.spent_since(before) <= AT_REST_S:
                return
            before = self.cpu()

    def memory_mib(self) -> float:
        """Return the resident memory of all processes in MiB; what they share with each other is counted once.

        What other servers on this machine happen to share with it, such as mapped libraries, counts in full.
        """
        own, shared = 0.0, 0.0
        for process in self.tree():
            with contextlib.suppress(psutil.Error):
                info = process.memory_full_info()
                own += info.uss
                shared = max(shared, info.rss - info.uss)
        return (own + shared) / 2**20

    def ask(self, path: str, body: bytes | None, *, timeout_s: float = 30.0) -> tuple[int, bytes]:
        """Send one request over a connection of its own; return the status and the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.request("GET" if body is None else "POST", path, body, JSON)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def answers(self, path: str, bodies: Sequence[bytes]) -> list[Any]:
        """Send requests one after the other over one connection and return what their JSON says.

        Raises
        ------
        RuntimeError
            An answer was no 200.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60.0)
        found = []
        try:
            for body in bodies:
                connection.request("POST", path, body, JSON)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != 200:
                    raise RuntimeError(f"{path}: {answer.status} {text[:300]!r}")
                found.append(json.loads(text))
        finally:
            connection.close()
        return found

    def wait(self, path: str, body: bytes | None, most_s: float = 120.0) -> float:
        """Wait for the first 200; return the seconds since the start.

        Raises
        ------
        RuntimeError
            The process ended, or none came in time; with the last of what it said.
        """
        last = "no answer"
        while time.perf_counter() - self.began < most_s and self.process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, text = self.ask(path, body, timeout_s=most_s)
                if status == 200:
                    return time.perf_counter() - self.began
                last = f"{status} {text[:300]!r}"
            time.sleep(0.01)
        said = self.log.read_text(errors="replace")[-1500:]
        raise RuntimeError(f"it did not come up ({last}): {said}")

    def stop(self) -> None:
        """End all of its processes."""
        tree = self.tree()
        for process in tree:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        _, alive = psutil.wait_procs(tree, timeout=8.0)
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(alive, timeout=5.0)


def clean_environment(**more: str) -> dict[str, str]:
    """Return the environment without what this bench's own process was told about threads and projects."""
    dropped = {"OMP_NUM_THREADS", "LOOPWRIGHT_PROJECT"}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return kept | more
