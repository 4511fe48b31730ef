"""Tracking against plain MLflow, side by side: metrics, models, the best of 10,000 runs, memory, writers at once.

    python benches/tracking.py [PART ...]

Each part runs plain MLflow and Loopwright in turn and compares medians; without names all parts run. The last line is
one JSON object.
"""

import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil

ROUNDS = 3
POINTS_PLAIN, POINTS_OURS = 150, 1500
RUNS = 10_000
WRITERS = 8
ROOT = Path(tempfile.mkdtemp(prefix="loopwright-bench-"))
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], health: str, **environment: str) -> Iterator[psutil.Process]:
    """Run a server with its children until the block ends; starts when its health page answers."""
    log = (ROOT / "server.log").open("ab")
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PREFECT_"))
    }
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        env=clean | QUIET | environment,
        cwd=ROOT,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    started = time.monotonic()
    try:
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(health, timeout=2)
                break
            if process.poll() is not None or time.monotonic() - started > 300:
                raise SystemExit((ROOT / "server.log").read_text()[-3000:])
            time.sleep(0.2)
        yield psutil.Process(process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def our_server(folder: str) -> Iterator[tuple[str, psutil.Process]]:
    """Run the local server of a new project; gives MLflow's address and the process."""
    root = ROOT / folder
    root.mkdir()
    (root / "loopwright.toml").write_text('[project]\nname = "bench"\n')
    port = free_port()
    command = ["loopwright.supervisor.server", "--port", str(port)]
    with running(command, f"http://127.0.0.1:{port}/health", LOOPWRIGHT_PROJECT=str(root)) as process:
        yield f"http://127.0.0.1:{port}/mlflow", process


def timed(call: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def in_turn(
    plain: Callable[[], object], ours: Callable[[], object], rounds: int = ROUNDS
) -> tuple[float, float]:
    """Time two calls in turn, so that what else the machine does hits both; return the medians in seconds."""
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        found[0].append(timed(plain))
        found[1].append(timed(ours))
    return statistics.median(found[0]), statistics.median(found[1])


def client_of(address: str, *, buffered: bool = False) -> Any:
    """Return an MLflow client whose registry is the same server."""
    import mlflow

    return mlflow.MlflowClient(f"loopwright+{address}" if buffered else address, registry_uri=address)


def log_points(client: Any, number: int) -> None:
    """Log points one by one and end when all can be read."""
    run_id = client.create_run("0").info.run_id
    for step in range(number):
        client.log_metric(run_id, "loss", 1 / (step + 1), step=step)
    assert len(client.get_metric_history(run_id, "loss")) == number
    client.set_terminated(run_id)


def metrics(http: str) -> dict[str, Any]:
    """Points a second, one `log_metric` each, until all can be read."""
    pairs = {"http": (http, http), "sqlite": (f"sqlite:///{ROOT}/plain.db", f"sqlite:///{ROOT}/ours.db")}
    found = {}
    for name, (plain_address, our_address) in pairs.items():
        plain, ours = client_of(plain_address), client_of(our_address, buffered=True)
        log_points(plain, 5), log_points(ours, 5)
        slow, fast = in_turn(partial(log_points, plain, POINTS_PLAIN), partial(log_points, ours, POINTS_OURS))
        found[name] = POINTS_PLAIN / slow, POINTS_OURS / fast
    rates = {f"metrics_{name}_per_s": [round(rate) for rate in pair] for name, pair in found.items()}
    ratios = {name: round(pair[1] / pair[0], 1) for name, pair in found.items()}
    return {
        "metrics_one_by_one_vs_mlflow": ratios["http"],
        "metrics_sqlite_vs_mlflow": ratios["sqlite"],
    } | rates


def models(http: str) -> dict[str, Any]:
    """Seconds of one `log_model`, of an estimator both can store, and how many of fifteen each stores."""
    os.environ |= QUIET | {"MLFLOW_TRACKING_URI": http, "MLFLOW_REGISTRY_URI": http}
    import logging

    import mlflow
    import numpy as np
    from estimators import fitted

    import loopwright as lw

    logging.disable(logging.WARNING)
    estimators, table = fitted()
    ways: dict[str, Callable[[Any], Any]] = {
        "plain": lambda model: mlflow.sklearn.log_model(model, name="model"),
        "ours": lambda model: lw.log_model(model, table=table),
    }

    def stored(way: str, model: Any) -> bool:
        try:
            with mlflow.start_run():
                info = ways[way](model)
            return bool(
                np.array_equal(mlflow.sklearn.load_model(info.model_uri).predict(table), model.predict(table))
            )
        except Exception:  # noqa: BLE001 - whatever it raises, it is not stored
            return False

    both = {way: sum(stored(way, model) for model in estimators) for way in ways}
    with mlflow.start_run():
        plain, ours = in_turn(lambda: ways["plain"](estimators[0]), lambda: ways["ours"](estimators[0]))
    return {
        "log_model_vs_mlflow": round(ours / plain, 4),
        "log_model_s": [round(plain, 2), round(ours, 3)],
        "log_model_estimators": f"{both['ours']} of {len(estimators)}",
        "log_model_estimators_mlflow": f"{both['plain']} of {len(estimators)}",
    }


def seed(address: str) -> None:
    """Write 10,000 runs with 10 metrics, 10 parameters and 5 tags each through MLflow's own tables."""
    import mlflow
    import sqlalchemy as sa
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric, SqlParam, SqlRun, SqlTag

    mlflow.MlflowClient(address).search_experiments()  # makes the tables
    engine = sa.create_engine(address)
    ids = [f"{number:032x}" for number in range(RUNS)]
    with engine.begin() as connection:
        runs = [
            {
                "run_uuid": run,
                "name": f"run-{number}",
                "status": "FINISHED",
                "start_time": number,
                "end_time": number + 1,
                "lifecycle_stage": "active",
                "experiment_id": 0,
                "artifact_uri": "",
                "source_type": "LOCAL",
                "user_id": "me",
                "source_name": "",
                "source_version": "",
                "entry_point_name": "",
            }
            for number, run in enumerate(ids)
        ]
        points = [
            {
                "run_uuid": run,
                "key": f"m{key}",
                "value": (number * 7919 * (key + 1)) % 100_003 / 1e5,
                "timestamp": number,
                "step": 0,
                "is_nan": False,
            }
            for number, run in enumerate(ids)
            for key in range(10)
        ]
        connection.execute(sa.insert(SqlRun.__table__), runs)
        connection.execute(sa.insert(SqlMetric.__table__), points)
        connection.execute(sa.insert(SqlLatestMetric.__table__), points)
        for table, number in ((SqlParam, 10), (SqlTag, 5)):
            rows = [
                {"run_uuid": run, "key": f"k{key}", "value": str(key)} for run in ids for key in range(number)
            ]
            connection.execute(sa.insert(table.__table__), rows)
    engine.dispose()


def best(_: str) -> dict[str, Any]:
    """Seconds to find the best of 10,000 runs by a metric."""
    address = f"sqlite:///{ROOT}/many.db"
    seed(address)
    import mlflow

    from loopwright.tracking.reading import best as our_best
    from loopwright.tracking.sql import SqlReader

    client = mlflow.MlflowClient(address)

    def plain() -> str:
        return str(client.search_runs(["0"], order_by=["metrics.m3 DESC"], max_results=1)[0].info.run_id)

    def ours() -> str:
        return our_best(SqlReader(address), "m3")[0].run_id

    assert plain() == ours()
    slow, fast = in_turn(plain, ours)
    return {
        "best_of_10k_vs_mlflow": round(fast / slow, 4),
        "best_of_10k_ms": [round(slow * 1e3), round(fast * 1e3, 1)],
    }


def memory(_: str) -> dict[str, Any]:
    """PSS of our server for both, against the two official ones as they come."""

    def megabytes(*processes: psutil.Process) -> float:
        every = [one for process in processes for one in (process, *process.children(recursive=True))]
        found = 0.0
        for one in every:
            with contextlib.suppress(psutil.Error):
                found += one.memory_full_info().pss / 1e6
        return found

    with our_server("memory") as (_address, process):
        time.sleep(10)
        ours = megabytes(process)
    ports = free_port(), free_port()
    store = ["--backend-store-uri", f"sqlite:///{ROOT}/default.db"]
    with (
        running(
            ["mlflow", "server", "--port", str(ports[0]), *store], f"http://127.0.0.1:{ports[0]}/health"
        ) as mlflow,
        running(
            ["prefect", "server", "start", "--port", str(ports[1])],
            f"http://127.0.0.1:{ports[1]}/api/health",
            PREFECT_HOME=str(ROOT / "prefect"),
        ) as prefect,
    ):
        time.sleep(45)  # its fifteen processes are still importing when it answers
        theirs = megabytes(mlflow, prefect)
    return {
        "server_memory_vs_defaults": round(ours / theirs, 3),
        "server_memory_mb": [round(theirs), round(ours)],
    }


OPEN = """
import sys, mlflow
client = mlflow.MlflowClient(sys.argv[1])
client.set_terminated(client.create_run("0").info.run_id)
"""


def first_start(_: str) -> dict[str, Any]:
    """Count the processes that survive when eight open one new store at once."""
    found = []
    for address in (f"sqlite:///{ROOT}/race/plain.db", f"loopwright+sqlite:///{ROOT}/race/ours.db"):
        children = [
            subprocess.Popen(
                [sys.executable, "-c", OPEN, address], env=os.environ | QUIET, stderr=subprocess.DEVNULL
            )
            for _ in range(WRITERS)
        ]
        found.append([child.wait() for child in children].count(0))
    return {"first_start_of_8": found[1], "first_start_of_8_mlflow": found[0]}


# The first `start_run` of a process imports git and IPython, which is not a wait for the store.
WRITE = """
import sys, time, mlflow, git, IPython
mlflow.set_tracking_uri(sys.argv[1])
mlflow.MlflowClient().search_experiments()
print("ready", flush=True)
sys.stdin.readline()
slowest, errors = 0.0, 0
def call(function, *arguments, **named):
    global slowest, errors
    started = time.perf_counter()
    try:
        function(*arguments, **named)
    except Exception:
        errors += 1
    slowest = max(slowest, time.perf_counter() - started)
for _ in range(4):
    call(mlflow.start_run)
    for number in range(10): call(mlflow.log_param, f"p{number}", number)
    for step in range(20): call(mlflow.log_metric, "loss", 1 / (step + 1), step=step)
    call(mlflow.set_tag, "kind", "bench")
    call(mlflow.end_run)
print(errors, slowest, flush=True)
"""


def writers(http: str) -> dict[str, Any]:
    """Errors and the slowest call of eight processes that write four runs of 33 calls each."""
    import mlflow

    def write(address: str, **more: str) -> tuple[int, float, float]:
        environment = os.environ | QUIET | {"MLFLOW_REGISTRY_URI": address} | more
        children = [
            subprocess.Popen(
                [sys.executable, "-c", WRITE, address],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for _ in range(WRITERS)
        ]
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()
        started = time.perf_counter()
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        ends = [child.communicate()[0].split() for child in children]
        took = time.perf_counter() - started
        return sum(int(end[0]) for end in ends), max(float(end[1]) for end in ends), WRITERS * 4 * 33 / took

    files = f"sqlite:///{ROOT}/writers-plain.db", f"loopwright+sqlite:///{ROOT}/writers-ours.db"
    for address in files:
        mlflow.MlflowClient(address).search_experiments()  # or seven of plain MLflow's eight would not start
    plain, direct = (write(address) for address in files)
    ours = write(http, LOOPWRIGHT_BUFFERED_URI=http)
    return {
        "writers_8_errors": ours[0],
        "writers_8_slowest_s": round(ours[1], 3),
        "writers_8_calls_per_s": round(ours[2]),
        "writers_8_sqlite": [direct[0], round(direct[1], 3), round(direct[2])],
        "writers_8_mlflow_sqlite": [plain[0], round(plain[1], 3), round(plain[2])],
    }


PARTS: dict[str, Callable[[str], dict[str, Any]]] = {
    "metrics": metrics,
    "models": models,
    "best": best,
    "first_start": first_start,
    "writers": writers,
    "memory": memory,
}
#: What is asked of a figure: the bound, and whether it is a lower one.
BARS = {
    "metrics_one_by_one_vs_mlflow": (10, True),
    "log_model_vs_mlflow": (0.03, False),
    "best_of_10k_vs_mlflow": (0.02, False),
    "server_memory_vs_defaults": (0.2, False),
    "first_start_of_8": (8, True),
    "writers_8_errors": (0, False),
    "writers_8_slowest_s": (0.5, False),
}


def main() -> None:
    """Measure and print."""
    warnings.simplefilter("ignore")
    os.environ |= QUIET
    os.chdir(ROOT)
    wanted = sys.argv[1:] or list(PARTS)
    found: dict[str, Any] = {"bench": "tracking"}
    with contextlib.ExitStack() as stack:
        http = ""
        if {"metrics", "models", "writers"} & set(wanted):
            http, _ = stack.enter_context(our_server("project"))
        for part in wanted:
            if part == "memory":
                stack.close()
            figures = PARTS[part](http)
            print(f"{part}: {figures}", flush=True)  # a later part may take minutes
            found |= figures
    print(f"{'':<36}{'figure':>24}   bar")
    for name, value in found.items():
        bar, least = BARS.get(name, (None, False))
        met = "" if bar is None else ("met" if (value >= bar if least else value <= bar) else "MISSED")
        print(
            f"{name:<36}{value!s:>24}   {'' if bar is None else ('>= ' if least else '<= ') + str(bar)} {met}"
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
