"""The supervisor's loop: keep the wanted parts running until told to stop."""

import contextlib
import os
import signal
import socket
import sys
import time
from types import FrameType

import psutil
from filelock import FileLock, Timeout

from loopwright import parts
from loopwright.config import Project
from loopwright.deploy.online.keys import Keys
from loopwright.errors import LoopwrightError
from loopwright.ledger import Ledger
from loopwright.records import Mode
from loopwright.supervisor import reaper
from loopwright.supervisor.ports import listen, port_for
from loopwright.supervisor.process import Process, Spec

__all__ = ["Supervisor"]

#: Parts get this long to finish their work after SIGTERM.
STOP_S = 8.0


class Supervisor:
    """Keeps the wanted parts of one project running.

    Parameters
    ----------
    project
        The project whose parts are run.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self.ledger = Ledger.open(project, actor="supervisor")
        self.processes: dict[str, Process] = {}
        self._listener: socket.socket | None = None
        self._stopping = False

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; return the exit code."""
        lock = FileLock(self.project.run / "supervisor.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            print("another supervisor of this project is running already", file=sys.stderr)  # noqa: T201
            return 0
        with lock:
            signal.signal(signal.SIGTERM, self._on_signal)
            signal.signal(signal.SIGINT, self._on_signal)
            self._stop_leftovers()
            me = parts.claim(self.project)
            reaping = reaper.start(self.project, self.ledger)
            try:
                # Somebody who deletes the project, perhaps to begin it anew, does not want its parts to go on.
                while not self._stopping and parts.supervisor(self.project) == me:
                    self._turn()
                    time.sleep(0.1)
            finally:
                reaping.set()
                record = parts.supervisor(self.project) == me
                self._stop_all(record=record)
                if record:
                    parts.unclaim(self.project)
        return 0

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _turn(self) -> None:
        changed = self._plan()
        for process in self.processes.values():
            if process.exit_code() is not None:
                self.ledger.append(
                    "part.died",
                    process.spec.name,
                    {"exit_code": process.exit_code(), "restarts": process.restarts + 1},
                )
                process.died()
                changed = True
            if process.part.pid == 0:
                changed |= self._start(process)
            else:
                changed |= process.probe()
        if changed:
            parts.write(self.project, {name: process.part for name, process in self.processes.items()})

    def _start(self, process: Process) -> bool:
        waits = any(
            self.processes[name].state != "ready" for name in process.spec.needs if name in self.processes
        )
        if waits or time.monotonic() < process.next_start:
            return False
        process.start()
        part = process.part
        self.ledger.append(
            "part.started", part.name, {"pid": part.pid, "url": part.url, "restarts": part.restarts}
        )
        return True

    def _plan(self) -> bool:
        """Add the processes of kinds that are wanted and not there yet."""
        kinds = {name.split("-")[0] for name in self.processes}
        new = [name for name in parts.wanted(self.project) if name not in kinds]
        added = False
        for kind in new:
            try:
                specs = self._specs(kind)
            except LoopwrightError as error:
                specs = []
                print(f"{kind}: {error}", file=sys.stderr)  # noqa: T201
                self._fail(kind, error)
            for spec in specs:
                self.processes[spec.name] = Process(self.project, spec)
                added = True
        return added

    def _fail(self, kind: str, error: LoopwrightError) -> None:
        """Record that a kind of part cannot even be started, where `parts.ensure` looks for it."""
        log = self.project.run / "logs" / f"{kind}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as out:
            out.write(f"{error}\n")
        process = Process(self.project, Spec(kind, ""))
        process.state, process.next_start = "failed", float("inf")
        self.processes[kind] = process
        parts.write(self.project, {name: process.part for name, process in self.processes.items()})

    def _specs(self, kind: str) -> list[Spec]:
        project, config = self.project, self.project.config
        if kind == "server":
            port = port_for(project, "server")
            return [
                Spec(
                    "server",
                    "loopwright.supervisor.server",
                    ("--port", str(port)),
                    f"http://127.0.0.1:{port}",
                )
            ]
        if kind == "serving":
            return self._serving()
        if kind == "stream":
            if not any(deployment.mode is Mode.stream for deployment in config.deployment.values()):
                return []
            return [Spec("stream", "loopwright.deploy.stream.worker")]
        if kind == "console":
            port = port_for(project, "console")
            return [
                Spec("console", "loopwright.console.app", ("--port", str(port)), f"http://127.0.0.1:{port}")
            ]
        module = {"runner": "loopwright.pipelines.runner", "controller": "loopwright.release.controller"}[
            kind
        ]
        return [Spec(kind, module, needs=("server",))]

    def _serving(self) -> list[Spec]:
        serving = self.project.config.serving
        # Before anybody can connect: where others than this machine can, each request must have a key.
        Keys(self.ledger).require_for(serving.host)
        port = port_for(self.project, "serving", serving.port, serving.host)
        self._listener = listen(serving.host, port)
        fd = self._listener.fileno()
        return [
            Spec(
                f"serving-{number}",
                "loopwright.deploy.online.worker",
                ("--fd", str(fd), "--name", f"serving-{number}"),
                f"http://{serving.host}:{port}",
                fds=(fd,),
            )
            for number in range(1, serving.workers + 1)
        ]

    def _stop_leftovers(self) -> None:
        """Stop parts that a killed supervisor left behind; they stop by themselves, only a little later."""
        left = [psutil.Process(part.pid) for part in parts.read(self.project).values() if parts.alive(part)]
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        _, stuck = psutil.wait_procs(left, timeout=STOP_S)
        for process in stuck:
            with contextlib.suppress(psutil.Error):
                process.kill()
        parts.write(self.project, {})

    def _stop_all(self, *, record: bool) -> None:
        """Stop the parts: first those that start work, the server last. Nothing is written without `record`."""
        order = sorted(self.processes.values(), key=lambda process: process.spec.name == "server")
        until = time.monotonic() + STOP_S
        for last in (False, True):
            group = [process for process in order if (process.spec.name == "server") is last]
            for process in group:
                process.stop()
            for process in group:
                process.wait(until if not last else time.monotonic() + STOP_S)
                if record:
                    self.ledger.append("part.stopped", process.spec.name, {})
        if record:
            parts.write(self.project, {name: process.part for name, process in self.processes.items()})
        if self._listener:
            self._listener.close()


def main() -> int:
    """Run the supervisor of the project that `LOOPWRIGHT_PROJECT` names; with `--all`, of all its parts."""
    project = Project.find()
    if "--all" in sys.argv[1:]:
        parts.ask(project, parts.ALL)
    project.run.mkdir(parents=True, exist_ok=True)
    os.umask(0o077)
    return Supervisor(project).run()
