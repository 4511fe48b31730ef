"""What one prediction over HTTP costs: our serving worker, the usual peers, and echoes that do nothing.

    python benches/serving.py [--quick] [--models m1,m2] [--only ours,fastapi,echo] [--cells c1,c64] [--no-swaps]

All servers of a model run side by side and are asked in turn, one cell after the other; ratios are taken within a
round, and the medians over the rounds are what counts. CPU is that of all processes of a server over a cell, divided
by the requests it was sent; the load tool's is not in it. The last line is one JSON object. See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from serving_peers import load, swapping
from serving_peers.models import MODELS, Fitted, fit
from serving_peers.process import Running
from serving_peers.servers import SERVERS, Place, Server, new_project, start

#: Concurrency of each cell; a request has one row, but 256 where it says so.
CELLS = {"c1": 1, "c16": 16, "c64": 64, "b256": 4}
EVERY = tuple(CELLS)
#: Which cells are measured of which server, by model.
PLAN: dict[str, dict[str, tuple[str, ...]]] = {
    "m1": {
        "ours": EVERY,
        "ours-off": ("c64", "b256"),
        "echo": ("c1", "c64"),
        "bare": ("c64",),
        "fastapi": EVERY,
        "bentoml": ("c16", "c64"),
        "mlflow": ("c1", "c64"),
    },
    "m2": {"ours": EVERY, "fastapi": EVERY},
    "m3": {"ours": ("c1", "c64"), "fastapi": ("c1", "c64")},
    "m4": {"ours": ("c1", "c64"), "fastapi": ("c1", "c64")},
    "m5": {"ours": ("c1", "c16", "c64"), "fastapi": ("c1", "c16", "c64")},
}
QUICK_SERVERS = ("ours", "ours-off", "fastapi", "echo", "bare")
QUICK_CELLS = {"m1": ("c1", "c64", "b256"), "m2": ("c1", "c64"), "m5": ("c1", "c16")}
#: Numbers in the JSON line: what they are, and the bar.
BARS: dict[str, tuple[str, str]] = {
    "m1_vs_fastapi": ("m1, c64: CPU a request, of FastAPI's", "<= 0.01"),
    "m1_vs_echo": ("m1, c64: CPU a request, of the echo's, log on", "<= 1.8"),
    "m1_vs_echo_log_off": ("m1, c64: CPU a request, of the echo's, log off", "<= 1.4"),
    "m1_vs_bare_echo": ("m1, c64: CPU a request, of the bare echo's", ""),
    "m2_vs_fastapi": ("m2, c64: CPU a request, of FastAPI's", ""),
    "m3_vs_fastapi": ("m3, c64: CPU a request, of FastAPI's", "<= 0.01"),
    "m4_vs_fastapi": ("m4, c64: CPU a request, of FastAPI's", ""),
    "m1_vs_bentoml_batching": ("m1, c64: CPU a request, of BentoML's", "<= 0.05"),
    "m1_vs_mlflow": ("m1, c64: CPU a request, of MLflow's", ""),
    "m1_c1_rps_vs_fastapi": ("m1, c1: requests/s, times FastAPI's", ">= 40"),
    "m2_c1_rps_vs_fastapi": ("m2, c1: requests/s, times FastAPI's", ">= 20"),
    "native_c16_rps_vs_fastapi": ("m5, c16: requests/s, times FastAPI's", ">= 10"),
    "native_c1_rps_vs_fastapi": ("m5, c1: requests/s, times FastAPI's", ">= 1"),
    "p99_c1_ms": ("m1, c1: 99 of 100 answers within, ms", "<= 2"),
    "p99_c64_ms": ("m1, c64: 99 of 100 answers within, ms", "<= 20"),
    "b256_vs_fastapi": ("m1, 256 rows: CPU a request, of FastAPI's", "<= 0.06"),
    "log_cost": ("m1, c64: CPU with the log, of that without", "<= 1.25"),
    "b256_log_cost": ("m1, 256 rows: CPU with the log, of that without", "<= 1.25"),
    "memory_vs_fastapi": ("m1: memory at the end, of FastAPI's", "<= 0.5"),
    "cold_start_s": ("m1: start to first 200, s", "<= 2"),
    "swaps": ("versions swapped under load", ""),
    "swap_failed": ("answers that failed meanwhile", "<= 0"),
    "swap_wrong": ("answers that are from neither version", "<= 0"),
    "swap_p99_ratio": ("p99 during swaps, times the quiet one", "<= 3"),
    "swap_memory_mib": ("memory growth over the swaps, MiB", "<= 30"),
    "two_workers_rps_ratio": ("two workers, 256 rows: requests/s, times one's", ">= 1.7"),
    "max_difference": ("largest difference to the model's own answers", "<= 1e-05"),
}
console = Console(width=132, highlight=False)


@dataclass(frozen=True)
class Seen:
    """One server in one cell of one round.

    `cpu_us` is CPU in microseconds for each request that was sent; `others` is how many cores were busy meanwhile with
    what has nothing to do with this cell.
    """

    rps: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    failed: int
    others: float


class Machine:
    """Tells what else the machine does from now on."""

    def __init__(self) -> None:
        self._began, self._busy, self._load = time.perf_counter(), self._now(), self._tool()

    def others(self, server_s: float) -> float:
        """Return how many cores were busy since then with neither the server, in CPU seconds, nor the load tool."""
        seconds = time.perf_counter() - self._began
        rest = self._now() - self._busy - server_s - (self._tool() - self._load)
        return max(0.0, rest / seconds)

    @staticmethod
    def _now() -> float:
        # Guest time is in that of the user already.
        idle = {"idle", "iowait", "guest", "guest_nice"}
        times = psutil.cpu_times()._asdict()
        return float(sum(value for name, value in times.items() if name not in idle))

    @staticmethod
    def _tool() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime


@dataclass
class Measured:
    """What was measured of one model: cells by server, cell and round, and facts by server."""

    cells: dict[tuple[str, str, int], Seen] = field(default_factory=dict)
    cold_s: dict[str, float] = field(default_factory=dict)
    memory_mib: dict[str, float] = field(default_factory=dict)
    difference: dict[str, float] = field(default_factory=dict)

    def ratio(self, own: str, peer: str, cell: str, what: Callable[[Seen], float]) -> float | None:
        """Return the median over the rounds of one server's figure as a share of another's."""
        rounds = sorted(number for server, name, number in self.cells if (server, name) == (own, cell))
        pairs = [
            (self.cells[own, cell, number], self.cells[peer, cell, number])
            for number in rounds
            if (peer, cell, number) in self.cells
        ]
        found = [what(one) / what(other) for one, other in pairs if what(other)]
        return statistics.median(found) if found else None

    def cpu(self, own: str, peer: str, cell: str) -> float | None:
        """Return CPU a request as a share of another's."""
        return self.ratio(own, peer, cell, lambda seen: seen.cpu_us)

    def rps(self, own: str, peer: str, cell: str) -> float | None:
        """Return requests a second as a multiple of another's."""
        return self.ratio(own, peer, cell, lambda seen: seen.rps)

    def median(self, server: str, cell: str, what: Callable[[Seen], float]) -> float | None:
        """Return the median over the rounds of one server's figure."""
        found = [what(seen) for (one, name, _), seen in self.cells.items() if (one, name) == (server, cell)]
        return statistics.median(found) if found else None


class Bench:
    """One run of the bench.

    Parameters
    ----------
    given
        The options.
    root
        An empty folder for everything that is written.
    """

    def __init__(self, given: argparse.Namespace, root: Path) -> None:
        self.given, self.root = given, root
        self.measured: dict[str, Measured] = {}
        self.result: dict[str, float | int | None] = dict.fromkeys(BARS)
        self.failed = 0

    def run(self) -> None:
        """Measure what was asked for."""
        for name in self.given.models:
            plan = {
                server: tuple(cell for cell in cells if cell in self.cells(name))
                for server, cells in PLAN[name].items()
                if server in self.given.only
            }
            place = self.place(name)
            self.model(place, {server: cells for server, cells in plan.items() if cells})
            if name == "m2" and self.given.swaps and "ours" in plan:
                self.swaps(place)
            if name == "m1" and self.given.swaps and "ours" in plan:
                self.two_workers(place)
        self.sum_up()

    def place(self, name: str) -> Place:
        """Fit a model, and write its project and the bodies of its requests."""
        began = time.perf_counter()
        folder = self.root / name
        folder.mkdir()
        fitted = fit(name)
        fit_s = time.perf_counter() - began
        place = Place(folder, fitted)
        swapped = name == "m2" and self.given.swaps
        second: list[Fitted] = [fit(name, seed=2)] if swapped else []
        place.versions = [fitted, *second]
        new_project(place)
        for server in SERVERS.values():
            for batch in (False, True):
                path = bodies_file(place, server, batch=batch)
                path.write_bytes(b"\n".join(server.bodies(place, batch=batch)) + b"\n")
        console.print(
            f"\n[bold]{name}[/]  fitted in {fit_s:.1f} s, {len(place.versions)} version(s) prepared in "
            f"{time.perf_counter() - began - fit_s:.1f} s"
        )
        return place

    def model(self, place: Place, plan: dict[str, tuple[str, ...]]) -> None:
        """Measure the servers of one model, in turn."""
        seen = self.measured[place.name] = Measured()
        with ExitStack() as stack:
            running = self.start(place, list(plan), seen, stack)
            for name, one in running.items():
                self.check(place, SERVERS[name], one, seen)
            at_start = {name: one.cpu() for name, one in running.items()}
            fresh = {name: one.memory_mib() for name, one in running.items()}
            in_cells = dict.fromkeys(running, (0.0, 0))
            console.print(
                f"  {'cell':<5} {'round':<6} {'server':<9} {'rps':>9} {'p50 ms':>9} {'p99 ms':>9} {'CPU us':>9} {'others':>7}  failed"
            )
            for number in range(self.rounds(place.name)):
                for cell in CELLS:
                    for name in [one for one in running if cell in plan[one]]:
                        with self.guarded(f"{place.name} {cell} {name}"):
                            spent, sent = self.cell(place, SERVERS[name], running[name], cell, number, seen)
                            in_cells[name] = in_cells[name][0] + spent, in_cells[name][1] + sent
            for name, one in running.items():
                if not one.tree():
                    console.print(f"  [red]{name} has ended[/]")
                    continue
                seen.memory_mib[name] = one.memory_mib()
                spent, sent = in_cells[name]
                idle = f"{1e6 * (one.spent_since(at_start[name]) - spent) / sent:.2f}" if sent else "-"
                console.print(
                    f"  {name:<9} cold start {seen.cold_s[name]:6.2f} s   memory {fresh[name]:7.1f} MiB, in the end "
                    f"{seen.memory_mib[name]:7.1f}   between the cells {idle} us of CPU a request"
                )

    def cells(self, name: str) -> tuple[str, ...]:
        """Return the cells that are measured of a model, where its plan has them."""
        return tuple(self.given.cells or (QUICK_CELLS.get(name, EVERY) if self.given.quick else EVERY))

    def rounds(self, name: str) -> int:
        """Return how often all cells of a model are measured."""
        return int(self.given.rounds or (1 if self.given.quick else 3 if name == "m1" else 2))

    def start(self, place: Place, names: list[str], seen: Measured, stack: ExitStack) -> dict[str, Running]:
        """Start the servers one after the other; one that does not come up is left out."""
        running: dict[str, Running] = {}
        for name in names:
            with self.guarded(f"{place.name} {name}"):
                one, seconds = start(SERVERS[name], place)
                stack.callback(one.stop)
                running[name], seen.cold_s[name] = one, seconds
                if name == "ours":
                    first = SERVERS[name].bodies(place, batch=False)[0]
                    place.answer_bytes = len(one.ask(f"/predict/{place.name}", first)[1])
                    console.print(f"  ours: {self.runtime(one)}, {place.answer_bytes} bytes an answer")
        return running

    def runtime(self, one: Running) -> str:
        """Return what carries the model, as the worker says."""
        status, text = one.ask("/deployments", None)
        if status != 200:
            return "runtime not told"
        facts = json.loads(text)
        listed = facts if isinstance(facts, list) else facts.get("deployments", [])
        return ", ".join(f"runtime {fact.get('runtime', '?')}" for fact in listed) or "runtime not told"

    def check(self, place: Place, server: Server, one: Running, seen: Measured) -> None:
        """Compare all answers of a server with the model's own."""
        if server.read is None:
            return
        with self.guarded(f"{place.name} {server.name}: check"):
            path = server.path_one.format(name=place.name)
            answers = one.answers(path, server.bodies(place, batch=False))
            found = np.vstack([server.read(answer) for answer in answers])
            worst = float(np.abs(found - place.fitted.shares).max())
            if server.name.startswith("ours"):
                path = server.path_many.format(name=place.name)
                many = server.read(one.answers(path, server.bodies(place, batch=True)[:1])[0])
                worst = max(worst, float(np.abs(many - place.fitted.batch_shares).max()))
            seen.difference[server.name] = worst
            console.print(
                f"  {server.name}: {len(answers)} answers differ by at most {worst:.1e} from the model's"
            )

    def cell(
        self, place: Place, server: Server, one: Running, cell: str, number: int, seen: Measured
    ) -> tuple[float, int]:
        """Measure one server in one cell; return the CPU seconds it spent and the requests it was sent, all told."""
        batch = cell == "b256"
        path = (server.path_many if batch else server.path_one).format(name=place.name)
        asked = load.Load(one.port, path, bodies_file(place, server, batch=batch), CELLS[cell])
        begin, sent = one.cpu(), 0
        if number == 0:
            sent = load.run(asked, self.given.warm).sent
        one.settle()
        before, machine = one.cpu(), Machine()
        found = load.run(asked, self.given.seconds)
        one.settle()
        spent = one.spent_since(before)
        others = machine.others(spent)
        if not found.done:
            raise RuntimeError("not one answer came")
        cpu_us = 1e6 * spent / found.sent
        made = Seen(found.rps, found.p50_ms, found.p99_ms, cpu_us, found.failed, others)
        if not made.failed:
            # What answers with errors may well be quick.
            seen.cells[server.name, cell, number] = made
        if server.name.startswith("ours"):
            self.failed += made.failed
        console.print(
            f"  {cell:<5} {number + 1:<6} {server.name:<9} {made.rps:9.0f} {made.p50_ms:9.3f} {made.p99_ms:9.3f} "
            f"{made.cpu_us:9.1f} {made.others:7.2f}  "
            + (f"{made.failed}, so this does not count" if made.failed else "")
        )
        return one.spent_since(begin), sent + found.sent

    def swaps(self, place: Place) -> None:
        """Swap versions under load."""
        with self.guarded(f"{place.name} swaps"):
            made = swapping.swap(place, bodies_file(place, SERVERS["ours"], batch=False))
            during, quiet = made.during, made.quiet
            self.result |= {
                "swaps": made.swaps,
                "swap_failed": during.failed,
                "swap_wrong": during.wrong,
                "swap_p99_ratio": during.p99_ms / quiet.p99_ms,
                "swap_memory_mib": made.memory_mib,
            }
            console.print(
                f"  {made.swaps} swaps in {during.seconds:.0f} s, each served after {made.served_s:.2f} s (median); "
                f"{during.done} answers: {during.first} of version 1, {during.second} of version 2, "
                f"{during.wrong} wrong ({during.anonymous} without their id), {during.failed} failed\n"
                f"  p50 {during.p50_ms:.2f} ms, p99 {during.p99_ms:.2f} ms, max {during.max_ms:.0f} ms; quiet: "
                f"p50 {quiet.p50_ms:.2f} ms, p99 {quiet.p99_ms:.2f} ms, max {quiet.max_ms:.0f} ms"
            )

    def two_workers(self, place: Place) -> None:
        """Compare two workers with one: batches, which leave the load tool little to do, and single rows."""
        ratios = {}
        for batch, connections in ((True, 16), (False, 64)):
            what = "256 rows, c16" if batch else "1 row, c64"
            with self.guarded(f"{place.name} two workers, {what}"):
                bodies = bodies_file(place, SERVERS["ours"], batch=batch)
                made = swapping.two_workers(place, bodies, connections, self.given.seconds)
                ratios[batch] = made.ratio
                console.print(
                    f"  two workers, {what}: {made.two.rps:.0f} requests/s with {made.two_cores:.2f} cores; one: "
                    f"{made.one.rps:.0f} with {made.one_cores:.2f}; the lesser of two did {made.lesser:.0%} of the "
                    f"work; {made.one.failed + made.two.failed} failed"
                )
        self.result["two_workers_rps_ratio"] = ratios.get(True)
        console.print(
            f"  two processes that only count do {swapping.two_at_once():.2f} times the work of one on this machine, "
            f"which has {os.cpu_count()} cores; the load tool runs on them as well"
        )

    @contextmanager
    def guarded(self, what: str) -> Iterator[None]:
        """Say what failed and go on: a peer that breaks must not end the bench."""
        try:
            yield
        except Exception as error:  # noqa: BLE001
            console.print(f"  [red]{what} failed:[/] {type(error).__name__}: {error}", markup=True)

    def sum_up(self) -> None:
        """Take the ratios."""
        result = self.result
        empty = Measured()
        m1, m2, m5 = (self.measured.get(name, empty) for name in ("m1", "m2", "m5"))
        for name in ("m1", "m2", "m3", "m4"):
            result[f"{name}_vs_fastapi"] = self.measured.get(name, empty).cpu("ours", "fastapi", "c64")
        result["m1_vs_echo"] = m1.cpu("ours", "echo", "c64")
        result["m1_vs_echo_log_off"] = m1.cpu("ours-off", "echo", "c64")
        result["m1_vs_bare_echo"] = m1.cpu("ours", "bare", "c64")
        result["m1_vs_bentoml_batching"] = m1.cpu("ours", "bentoml", "c64")
        result["m1_vs_mlflow"] = m1.cpu("ours", "mlflow", "c64")
        result["m1_c1_rps_vs_fastapi"] = m1.rps("ours", "fastapi", "c1")
        result["m2_c1_rps_vs_fastapi"] = m2.rps("ours", "fastapi", "c1")
        result["native_c16_rps_vs_fastapi"] = m5.rps("ours", "fastapi", "c16")
        result["native_c1_rps_vs_fastapi"] = m5.rps("ours", "fastapi", "c1")
        result["p99_c1_ms"] = m1.median("ours", "c1", lambda seen: seen.p99_ms)
        result["p99_c64_ms"] = m1.median("ours", "c64", lambda seen: seen.p99_ms)
        result["b256_vs_fastapi"] = m1.cpu("ours", "fastapi", "b256")
        result["log_cost"] = m1.cpu("ours", "ours-off", "c64")
        result["b256_log_cost"] = m1.cpu("ours", "ours-off", "b256")
        if {"ours", "fastapi"} <= set(m1.memory_mib):
            result["memory_vs_fastapi"] = m1.memory_mib["ours"] / m1.memory_mib["fastapi"]
        result["cold_start_s"] = m1.cold_s.get("ours")
        differences = [
            difference
            for seen in self.measured.values()
            for server, difference in seen.difference.items()
            if server.startswith("ours")
        ]
        result["max_difference"] = max(differences, default=None)

    def show(self) -> None:
        """Print the numbers next to their bars."""
        table = Table(title="Online serving")
        for heading in ("what", "key", "value", "bar", ""):
            table.add_column(heading, justify="right" if heading == "value" else "left")
        for key, (what, bar) in BARS.items():
            value = self.result[key]
            if value is not None:
                table.add_row(what, key, f"{value:.4g}", bar, verdict(value, bar))
        console.print(table)
        others = [seen.others for one in self.measured.values() for seen in one.cells.values()]
        if others:
            console.print(
                f"cores that were busy with something else: {statistics.median(others):.2f} in the median cell, "
                f"{max(others):.2f} in the worst"
                + (": measure again" if statistics.median(others) > 0.3 else "")
            )
        if self.failed:
            console.print(f"[red]{self.failed} answers of ours were no success[/]")


def bodies_file(place: Place, server: Server, *, batch: bool) -> Path:
    """Return where the bodies for a server lie."""
    return place.folder / f"{server.name}-{'many' if batch else 'one'}.txt"


def verdict(value: float, bar: str) -> str:
    """Compare a value with a bar such as ``<= 0.5``."""
    if not bar:
        return ""
    sign, limit = bar.split()
    return "met" if (value <= float(limit) if sign == "<=" else value >= float(limit)) else "[red]missed[/]"


def arguments() -> argparse.Namespace:
    """Read the command line."""

    def names(known: list[str]) -> Callable[[str], list[str]]:
        def read(text: str) -> list[str]:
            given = [part.strip() for part in text.split(",") if part.strip()]
            if wrong := [one for one in given if one not in known]:
                raise argparse.ArgumentTypeError(f"{', '.join(wrong)}: known are {', '.join(known)}")
            return given

        return read

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="short cells, fewer peers and models, no swaps")
    parser.add_argument("--models", type=names(list(MODELS)), help="of m1 to m5")
    parser.add_argument("--only", type=names(list(SERVERS)), help="servers, such as ours,fastapi,echo")
    parser.add_argument("--cells", type=names(list(CELLS)), help="of c1,c16,c64,b256")
    parser.add_argument(
        "--no-swaps", dest="swaps", action="store_false", help="neither swaps nor two workers"
    )
    parser.add_argument("--rounds", type=int, help="rounds over all cells; 2, of m1 3, or 1 when quick")
    parser.add_argument("--seconds", type=int, help="seconds of a cell; 2, or 1 when quick")
    parser.add_argument("--keep", action="store_true", help="leave the folder with all logs")
    given = parser.parse_args()
    given.models = given.models or list(QUICK_CELLS if given.quick else MODELS)
    given.only = given.only or list(QUICK_SERVERS if given.quick else SERVERS)
    given.seconds = given.seconds or (1 if given.quick else 2)
    given.warm = 1
    given.swaps = given.swaps and not given.quick
    return given


def main() -> int:
    """Measure and print; 1 where the load tool is missing."""
    given = arguments()
    if lacking := load.missing():
        print(lacking, file=sys.stderr)
        return 1
    warnings.simplefilter("ignore")
    began = time.perf_counter()
    root = Path(tempfile.mkdtemp(prefix="loopwright-bench-"))
    bench = Bench(given, root)
    console.print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {given.seconds} s a cell; "
        "the load tool runs on the same machine"
    )
    try:
        bench.run()
    finally:
        if given.keep:
            console.print(f"everything lies in {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)
    bench.show()
    console.print(f"{time.perf_counter() - began:.0f} s in total")
    print(
        json.dumps(
            {
                key: value if isinstance(value, int) else float(f"{value:.4g}")
                for key, value in bench.result.items()
                if value is not None
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
