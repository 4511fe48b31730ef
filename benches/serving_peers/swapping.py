"""Versions swapped under load, and two workers beside one."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from loopwright.config import Project
from loopwright.deploy.base import publish
from loopwright.ledger import Ledger
from loopwright.records import Deployment, Mode, Variant
from serving_peers import load
from serving_peers.process import Running, free_port, listener
from serving_peers.servers import Place, ours

__all__ = ["Swapped", "Workers", "swap", "two_at_once", "two_workers"]

SWAPS, WARM_SWAPS, QUIET_S, CONNECTIONS = 100, 10, 5, 16
#: A swap that takes longer has failed.
MOST_S = 20.0


@dataclass(frozen=True)
class Swapped:
    """What came of the swaps; `served_s` is the median from the change in the ledger to the new version serving."""

    swaps: int
    quiet: load.Seen
    during: load.Seen
    memory_mib: float
    served_s: float


def expected(place: Place) -> Path:
    """Write what each version says about each row."""
    import pandas as pd

    rows = pd.DataFrame(place.fitted.rows)
    lines = []
    for version, fitted in enumerate(place.versions, 1):
        shares = fitted.estimator.predict_proba(rows)[:, 1]
        predictions = fitted.estimator.predict(rows)
        lines += [
            f"{row} {version} {int(prediction)} {float(share)!r}"
            for row, (prediction, share) in enumerate(zip(predictions, shares, strict=True), 1)
        ]
    path = place.folder / "expected.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def swap(place: Place, bodies: Path, swaps: int = SWAPS) -> Swapped:
    """Swap two versions in turn under load; all answers are checked.

    Memory is compared at rest: after some swaps, and after all the others.

    Raises
    ------
    RuntimeError
        A version did not come into service in time.
    """
    running = ours(place, free_port())
    ledger = Ledger.open(Project(place.folder / "on"))
    try:
        running.wait("/ready", None)
        asked = load.Load(running.port, f"/predict/{place.name}", bodies, CONNECTIONS, expected(place))
        load.run(asked, 1)
        quiet = load.run(asked, QUIET_S)
        under = load.Checked(asked)
        try:
            for number in range(WARM_SWAPS):
                _serve(place, ledger, running, 2 - number % 2)
        finally:
            under.end()
        before = _memory(running)
        under = load.Checked(asked)
        try:
            took = [_serve(place, ledger, running, 2 - number % 2) for number in range(swaps)]
        finally:
            during = under.end()
        return Swapped(swaps, quiet, during, _memory(running) - before, statistics.median(took))
    finally:
        ledger.close()
        running.stop()


def _serve(place: Place, ledger: Ledger, running: Running, version: int) -> float:
    """Put a version into service; return the seconds until it serves."""
    began = time.perf_counter()
    variants = (Variant("champion", version),)
    publish(ledger, Deployment(place.name, place.name, Mode.online, variants, salt="bench"))
    wanted = f'"version":{version}'.encode()
    first = json.dumps(place.fitted.rows[0]).encode()
    while True:
        status, answer = running.ask(f"/predict/{place.name}", first)
        if status == 200 and wanted in answer.replace(b" ", b""):
            return time.perf_counter() - began
        if time.perf_counter() - began > MOST_S:
            raise RuntimeError(f"version {version} does not serve after {MOST_S:.0f} s: {answer[:300]!r}")
        time.sleep(0.05)


def _memory(running: Running) -> float:
    running.settle()
    time.sleep(1.5)  # what was freed goes back with the next look at the ledger
    return running.memory_mib()


@dataclass(frozen=True)
class Workers:
    """One worker, and two on the same socket: what came of them, and how many cores they used meanwhile.

    `lesser` is the share of the work that the less busy of the two did, 0 to 0.5.
    """

    one: load.Seen
    two: load.Seen
    one_cores: float
    two_cores: float
    lesser: float

    @property
    def ratio(self) -> float:
        """Requests a second of two workers as a multiple of one's."""
        return self.two.rps / self.one.rps


def two_workers(place: Place, bodies: Path, connections: int, seconds: int) -> Workers:
    """Measure one worker, then two on the same listening socket, as the supervisor starts them."""
    with listener() as shared:
        port = int(shared.getsockname()[1])
        asked = load.Load(port, f"/predict/{place.name}", bodies, connections)
        started = [ours(place, port, worker="serving-1", share=shared)]
        try:
            started[0].wait("/ready", None)
            load.run(asked, 1)
            alone = started[0].cpu()
            one = load.run(asked, seconds)
            one_cores = started[0].spent_since(alone) / one.seconds
            started.append(ours(place, port, worker="serving-2", share=shared))
            _at_work(place, "serving-2", started[1])
            load.run(asked, 1)
            before = [worker.cpu() for worker in started]
            two = load.run(asked, seconds)
            spent = [worker.spent_since(cpu) for worker, cpu in zip(started, before, strict=True)]
        finally:
            for worker in started:
                worker.stop()
    return Workers(one, two, one_cores, sum(spent) / two.seconds, min(spent) / sum(spent))


def two_at_once(seconds: float = 0.5) -> float:
    """Return how much more two processes count than one: what a second core is worth here, 1 to 2."""
    code = f"import time\nend = time.perf_counter() + {seconds}\nn = 0\nwhile time.perf_counter() < end: n += 1\nprint(n)"

    def counted(processes: int) -> int:
        running = [
            subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]
        return sum(int(one.communicate()[0]) for one in running)

    return counted(2) / counted(1)


def _at_work(place: Place, worker: str, running: Running) -> None:
    """Wait until a worker that shares its socket has loaded its models, and a moment until it accepts."""
    ledger = Ledger.open(Project(place.folder / "on"))
    try:
        until = time.monotonic() + MOST_S
        while time.monotonic() < until:
            state = ledger.get("worker", worker)
            if state is not None and state.value.get("pid") == running.process.pid:
                time.sleep(1.0)
                return
            time.sleep(0.1)
    finally:
        ledger.close()
    raise RuntimeError(f"{worker} does not serve after {MOST_S:.0f} s: {running.log.read_text()[-500:]}")
