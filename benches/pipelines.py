"""What a pipeline costs on top of its own work: five trivial steps, warm, against a plain Prefect flow.

    python benches/pipelines.py

Starts the local server on a project of its own, runs both in turn in this process and compares medians. The last line
is one JSON object; `warm5_vs_prefect` is our time as a share of Prefect's.
"""

import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

ROUNDS = 12
STEPS = 5


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


def main() -> None:
    """Measure and print."""
    root = Path(tempfile.mkdtemp(prefix="loopwright-bench-"))
    (root / "loopwright.toml").write_text('[project]\nname = "bench"\n')
    with server(root) as (base, first_start_s, pid):
        os.environ |= {
            "LOOPWRIGHT_PROJECT": str(root),
            "MLFLOW_TRACKING_URI": f"{base}/mlflow",
            "PREFECT_API_URL": f"{base}/prefect/api",
            "PREFECT_HOME": str(root / "prefect-client"),
            "PREFECT_LOGGING_LEVEL": "ERROR",
        }
        import prefect
        import psutil

        import loopwright as lw

        @prefect.task
        def plain_step(number: int) -> int:
            return number + 1

        @prefect.flow
        def plain_flow() -> int:
            number = 0
            for _ in range(STEPS):
                number = plain_step(number)
            return number

        @lw.step
        def our_step(number: int) -> int:
            return number + 1

        @lw.pipeline
        def our_pipeline() -> int:
            number = 0
            for _ in range(STEPS):
                number = our_step(number)
            return number

        for _ in range(3):
            plain_flow(), our_pipeline()
        plain, ours = [], []
        for _ in range(ROUNDS):  # in turn, so that what else the machine does hits both
            plain.append(timed(plain_flow))
            ours.append(timed(our_pipeline))
        memory_mb = psutil.Process(pid).memory_full_info().pss / 1e6
    with server(root) as (_, warm_start_s, _):
        pass
    ratio = statistics.median(ours) / statistics.median(plain)
    rows = {
        "plain Prefect flow": statistics.median(plain),
        "Loopwright pipeline (Prefect + MLflow + lineage)": statistics.median(ours),
    }
    print(f"{STEPS} trivial steps, warm, same process, same server; median of {ROUNDS}")
    for name, seconds in rows.items():
        print(f"  {name:<50} {seconds * 1000:8.0f} ms")
    print(f"  {'ratio':<50} {ratio:8.3f}")
    print(
        f"  server: new project {first_start_s:.1f} s, known project {warm_start_s:.1f} s, {memory_mb:.0f} MB PSS"
    )
    print(
        json.dumps(
            {
                "bench": "pipelines",
                "warm5_vs_prefect": round(ratio, 4),
                "warm5_ms": round(rows["Loopwright pipeline (Prefect + MLflow + lineage)"] * 1000, 1),
                "prefect5_ms": round(rows["plain Prefect flow"] * 1000, 1),
                "server_first_start_s": round(first_start_s, 1),
                "server_start_s": round(warm_start_s, 1),
                "server_pss_mb": round(memory_mb, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
