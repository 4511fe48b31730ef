"""What pipelines cost on top of their own work, against plain Prefect and ZenML.

    python benches/pipelines.py

Starts the local server on a project of its own and runs ours and the peers in turn. ZenML cannot be installed beside
Prefect 3: it gets an environment of its own below .tools, once. The last line is one JSON object; ratios are our time,
or lines, as a share of the peer's.
"""

import contextlib
import io
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import tokenize
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROUNDS = 12
STEPS = 5
HERE = Path(__file__).resolve().parent
ZENML = HERE.parent / ".tools" / "zenml"
ZENML_VERSION = "0.98.0"

OURS = """
import time
from pathlib import Path
import loopwright as lw

@lw.step(cache=True)
def one(n: int) -> int:
    return n + 1

@lw.pipeline
def five() -> int:
    n = 0
    for _ in range(5):
        n = one(n)
    return n

def note(name):
    with open("calls.txt", "a") as file:
        print(name, file=file)

@lw.step
def early(n: int) -> int:
    note("early")
    return n + 1

@lw.step
def third(n: int) -> int:
    note("third")
    if not Path("mended").exists():
        Path("third.pid").touch()
        time.sleep(600)
    return n + 1

@lw.step
def after(n: int) -> int:
    note("after")
    return n + 1

@lw.pipeline
def fragile() -> int:
    return after(after(third(early(early(0)))))

if __name__ == "__main__":
    five()
"""
EPHEMERAL = """
from prefect import flow, task
from prefect.cache_policies import INPUTS, TASK_SOURCE

@task(cache_policy=INPUTS + TASK_SOURCE, persist_result=True)
def one(n: int) -> int:
    return n + 1

@flow
def five() -> int:
    n = 0
    for _ in range(5):
        n = one(n)
    return n

if __name__ == "__main__":
    five()
"""
WITH_ZENML = """
from zenml import pipeline, step

@step
def one(n: int) -> int:
    return n + 1

@pipeline(enable_cache=True)
def five() -> None:
    n = one(0)
    for _ in range(4):
        n = one(n)

if __name__ == "__main__":
    five()
"""


@contextlib.contextmanager
def server(root: Path) -> Iterator[tuple[str, float, int]]:
    """Run the local server of a project; gives its address, the seconds to its first answer, and its pid."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"LOOPWRIGHT_PROJECT": str(root)}
    started = time.perf_counter()
    with (root / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "loopwright.supervisor.server", "--port", str(port)],
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            if process.poll() is not None or time.perf_counter() - started > 180:
                raise SystemExit((root / "server.log").read_text())
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", time.perf_counter() - started, process.pid
    finally:
        process.terminate()
        process.wait()


def timed(call: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def warm() -> dict[str, float]:
    """Time five trivial steps in this process, and what each further step costs, ours and Prefect's in turn."""
    import prefect
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    import loopwright as lw

    @prefect.task
    def plain_step(number: int) -> int:
        return number + 1

    @prefect.flow
    def plain_flow(steps: int) -> int:
        number = 0
        for _ in range(steps):
            number = plain_step(number)
        return number

    @lw.step
    def our_step(number: int) -> int:
        return number + 1

    @lw.pipeline
    def our_pipeline(steps: int) -> int:
        number = 0
        for _ in range(steps):
            number = our_step(number)
        return number

    def without_tick(steps: int) -> int:
        # A synchronous flow waits at its end for a thread that ticks once a second, which would hide its steps.
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            return plain_flow(steps)

    for _ in range(3):
        plain_flow(STEPS), our_pipeline(STEPS), without_tick(STEPS)
    plain, ours = [], []
    for _ in range(ROUNDS):  # in turn, so that what else the machine does hits both
        plain.append(timed(lambda: plain_flow(STEPS)))
        ours.append(timed(lambda: our_pipeline(STEPS)))
    more = 40
    slopes: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(4):
        for name, call in (("ours", our_pipeline), ("plain", without_tick)):
            few = timed(lambda call=call: call(STEPS))
            many = timed(lambda call=call: call(STEPS + more))
            slopes[name].append((many - few) / more)
    return {
        "ours": statistics.median(ours),
        "plain": statistics.median(plain),
        "ours_step": statistics.median(slopes["ours"]),
        "plain_step": statistics.median(slopes["plain"]),
    }


def script(
    python: Path | str, folder: Path, text: str, variables: dict[str, str | None], times: int
) -> float:
    """Run a script of five steps once, so that its results are kept, then time it in new processes; the median."""
    (folder / "five.py").write_text(text)
    environment = {name: value for name, value in os.environ.items() if name not in variables}
    environment |= {name: value for name, value in variables.items() if value is not None}

    def once() -> None:
        done = subprocess.run(
            [str(python), "five.py"], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(done.stdout[-3000:] + done.stderr[-3000:])

    once()
    return statistics.median(timed(once) for _ in range(times))


def zenml() -> Path | None:
    """Return the Python of an environment with ZenML, made when it is missing; None where that cannot be."""
    python = ZENML / "bin" / "python"
    if not python.exists():
        import uv

        tool = uv.find_uv_bin()
        print(f"installing ZenML {ZENML_VERSION} into {ZENML} ...", file=sys.stderr)
        commands = (
            [tool, "venv", "--quiet", "--python", sys.executable, str(ZENML)],
            [tool, "pip", "install", "--quiet", "--python", str(python), f"zenml[local]=={ZENML_VERSION}"],
        )
        for command in commands:
            if subprocess.run(command, check=False).returncode:
                shutil.rmtree(ZENML, ignore_errors=True)
                return None
    return python


def reruns(root: Path) -> dict[str, float | None]:
    """Time a script of five kept steps in a new process each."""
    found: dict[str, float | None] = {"ours": script(sys.executable, root, OURS, {}, 5)}
    with tempfile.TemporaryDirectory() as home:
        alone: dict[str, str | None] = {
            "PREFECT_API_URL": None,
            "PREFECT_HOME": home,
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        }
        found["ephemeral"] = script(sys.executable, Path(home), EPHEMERAL, alone, 3)
    python = zenml()
    found["zenml"] = None
    if python is not None:
        with tempfile.TemporaryDirectory() as home:
            own: dict[str, str | None] = {
                "ZENML_CONFIG_PATH": f"{home}/config",
                "ZENML_ANALYTICS_OPT_IN": "false",
                "PYTHONDONTWRITEBYTECODE": None,
            }
            found["zenml"] = script(python, Path(home), WITH_ZENML, own, 3)
    return found


def killed(root: Path) -> dict[str, Any]:
    """Kill a run with SIGKILL in step 3 of 5; time until Prefect says crashed, and see what a resume calls."""
    from loopwright import pipelines
    from loopwright.config import Project
    from loopwright.pipelines import history

    project = Project(root)
    quiet = {"cwd": root, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    runner = subprocess.Popen([sys.executable, "-m", "loopwright.pipelines.runner"], **quiet)  # type: ignore[call-overload]
    try:
        command = [sys.executable, "-m", "loopwright", "pipeline", "run", "five:fragile"]
        process = subprocess.Popen(command, **quiet)  # type: ignore[call-overload]
        while not (root / "third.pid").exists():
            if process.poll() is not None:
                raise SystemExit(f"the run to be killed ended by itself with {process.returncode}")
            time.sleep(0.05)
        run = history.find(project, "last")
        process.kill()
        process.wait()
        started = time.perf_counter()
        while pipelines.flow_run(project, run.flow_run_id).state != "crashed":
            if time.perf_counter() - started > 60:
                break
            time.sleep(0.1)
        seconds = time.perf_counter() - started
    finally:
        runner.terminate()
        runner.wait()
    before = (root / "calls.txt").read_text().split()
    (root / "mended").touch()
    resumed = history.resume(project, history.find(project, run.run_id))
    again = (root / "calls.txt").read_text().split()[len(before) :]
    return {"crashed_s": seconds, "before": before, "again": again, "status": resumed.status}


def lines(path: Path) -> int:
    """Count the lines of a file that hold code."""
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    found: set[int] = set()
    tokens = list(tokenize.generate_tokens(io.StringIO(path.read_text()).readline))
    for token in tokens:
        is_docstring = token.type == tokenize.STRING and token.line.lstrip().startswith('"""')
        if token.type not in skipped and token.type != tokenize.ENDMARKER and not is_docstring:
            found |= set(range(token.start[0], token.end[0] + 1))
    return len(found)


def both_work(root: Path) -> None:
    """Run both ways to train, track and register, so that what is counted is what works."""
    from sklearn.datasets import load_wine

    load_wine(as_frame=True).frame.to_csv(root / "wine.csv", index=False)
    for name in ("plain", "ours"):
        shutil.copy(HERE / "by_hand" / f"{name}.py", root)
        code = f"import {name}; {name}.train()"
        subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True)
    import mlflow

    for model in ("wine-by-hand", "wine"):
        assert mlflow.MlflowClient().get_model_version(model, "1").run_id, model


def main() -> None:
    """Measure and print."""
    root = Path(tempfile.mkdtemp(prefix="loopwright-bench-"))
    (root / "loopwright.toml").write_text('[project]\nname = "bench"\n')
    os.chdir(root)
    with server(root) as (base, first_start_s, pid):
        os.environ |= {
            "LOOPWRIGHT_PROJECT": str(root),
            "MLFLOW_TRACKING_URI": f"{base}/mlflow",
            "PREFECT_API_URL": f"{base}/prefect/api",
            "PREFECT_HOME": str(root / "prefect-client"),
            "PREFECT_LOGGING_LEVEL": "ERROR",
        }
        import psutil

        again = reruns(root)
        crash = killed(root)
        in_process = warm()
        both_work(root)
        memory_mb = psutil.Process(pid).memory_full_info().pss / 1e6
    with server(root) as (_, warm_start_s, _):
        pass
    by_hand, ours_lines = lines(HERE / "by_hand" / "plain.py"), lines(HERE / "by_hand" / "ours.py")
    result = {
        "bench": "pipelines",
        "warm5_vs_prefect": in_process["ours"] / in_process["plain"],
        "rerun5_vs_zenml": again["ours"] / again["zenml"] if again["ours"] and again["zenml"] else None,
        "rerun5_vs_prefect_ephemeral": again["ours"] / again["ephemeral"]
        if again["ours"] and again["ephemeral"]
        else None,
        "step_overhead_vs_prefect": in_process["ours_step"] / in_process["plain_step"],
        "lines_vs_by_hand": ours_lines / by_hand,
        "killed_crashed_s": crash["crashed_s"],
        "killed_redone": crash["again"],
        "server_first_start_s": first_start_s,
        "server_start_s": warm_start_s,
        "server_pss_mb": memory_mb,
    }
    rows: list[tuple[str, float | None, float | None, str]] = [
        ("5 trivial steps, warm: Prefect flow", in_process["ours"], in_process["plain"], "<= 0.15"),
        (
            "each further step: Prefect without its tick",
            in_process["ours_step"],
            in_process["plain_step"],
            "<= 1.3",
        ),
        ("5 kept steps, new process: ZenML", again["ours"], again["zenml"], "<= 0.5"),
        ("5 kept steps, new process: Prefect ephemeral", again["ours"], again["ephemeral"], "<= 0.2"),
    ]
    print(f"{'':<48} {'ours':>9} {'peer':>9} {'ratio':>8}  bar")
    for name, own, peer, bar in rows:
        if own is None or peer is None:
            print(f"{name:<48} {'-':>9} {'-':>9} {'-':>8}  {bar}   (the peer could not be installed)")
        else:
            print(f"{name:<48} {own * 1000:6.1f} ms {peer * 1000:6.0f} ms {own / peer:8.3f}  {bar}")
    print(
        f"{'train, track and register: lines by hand':<48} {ours_lines:9} {by_hand:9} {ours_lines / by_hand:8.3f}  <= 0.5"
    )
    print(
        f"kill -9 in step 3 of 5: called {crash['before']}, crashed after {crash['crashed_s']:.1f} s, "
        f"then called {crash['again']}: {crash['status']}"
    )
    print(
        f"server: new project {first_start_s:.1f} s, known project {warm_start_s:.1f} s, {memory_mb:.0f} MB PSS"
    )
    print(
        json.dumps(
            {key: round(value, 4) if isinstance(value, float) else value for key, value in result.items()}
        )
    )


if __name__ == "__main__":
    main()
