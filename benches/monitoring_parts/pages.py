"""How long the console's pages take with 5,000 windows and 10 million predictions. Called by ``benches/monitoring.py``.

A console is started in a process of its own for each answer, so that nothing is known from an earlier one; only its start
is not counted. Files may be in the system's cache: they were just written.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.ledger.schema import signals, windows
from loopwright.monitor.live import Follower
from loopwright.predictions import Ids, PredictionLog, Predictions, files
from loopwright.predictions.seal import write_segment
from loopwright.records import Column, Deployment, Mode, ModelVersion, Signature, Task, Variant, micros
from loopwright.registry.profile import profile_of

__all__ = ["run"]

API, MODEL = "demand-api", "demand"
NUMBERS, TEXTS = 20, 10
NAMES = [*(f"number_{place:02}" for place in range(NUMBERS)), *(f"text_{place:02}" for place in range(TEXTS))]
SIGNATURE = Signature(
    tuple(Column(name, "double" if name[0] == "n" else "string") for name in NAMES),
    Task.classification,
    "y",
    (0, 1),
)
TOML = f"""
[model.{MODEL}]
target = "y"
[deployment.{API}]
model = "{MODEL}"
mode = "online"
[monitor.{MODEL}]
window = "5m"
segments = ["text_00"]
performance = {{ metric = "accuracy", worse_than = 0.8 }}
kpi.cost = {{ sql = "select avg(prediction) from predictions", at_most = 0.5 }}
"""
WINDOWS, PARTS, FILES, FILE_ROWS = 5000, 10, 10, 1_000_000
LENGTH = timedelta(minutes=5)
SEED = 7


def run(*, scale: float = 1.0) -> dict[str, float]:
    """Measure and print each answer, and return the slowest in seconds.

    Parameters
    ----------
    scale
        The share of the windows and rows that are made, 0 to 1.
    """
    with tempfile.TemporaryDirectory() as folder:
        project, end = _project(Path(folder), scale)
        slowest = {"page_api_s": 0.0, "page_html_s": 0.0}
        for kind, path in _paths(end):
            seconds, size = _cold(project.root, path)
            print(f"{path:<78} {seconds:6.3f} s {size / 1000:9.1f} kB")
            slowest[kind] = max(slowest[kind], seconds)
        with _Console(project.root) as console:
            list(console.ask(["/api/deployments", f"/api/deployments/{API}"]))
            time.sleep(3)
            again = [seconds for seconds, _ in console.ask([f"/api/deployments/{API}"] * 5)]
        print(
            f"the story of a deployment, while somebody looks at it: {min(again):.3f} to {max(again):.3f} s"
        )
    return {name: round(value, 3) for name, value in slowest.items()} | {"page_warm_s": round(max(again), 3)}


def _paths(end: datetime) -> Iterator[tuple[str, str]]:
    base = f"/api/monitoring/deployments/{API}"
    start = (end - 2 * LENGTH).isoformat().replace("+", "%2B")
    parts = [
        *(
            "",
            "/health",
            "/series?seconds=900",
            "/series?seconds=604800",
            "/log",
            "/performance",
            "/estimated",
        ),
        *("/segments", "/kpis", "/labels", "/quality", "/drift", "/drift?windows=1000&limit=30", "/features"),
        *("/features/number_00", "/features/text_00", "/windows?limit=1000", f"/windows/{start}"),
    ]
    yield "page_api_s", "/api/deployments"
    yield "page_api_s", f"/api/deployments/{API}"
    for part in parts:
        yield "page_api_s", base + part
    yield "page_api_s", "/api/monitoring/deployments"
    yield "page_api_s", "/api/monitoring/alerts?state=all"
    for page in ("/", f"/model/{API}", f"/model/{API}/feature/number_00", "/alerts", "/sql"):
        yield "page_html_s", page


# The project.


def _project(folder: Path, scale: float) -> tuple[Project, datetime]:
    (folder / "loopwright.toml").write_text(TOML, encoding="utf-8")
    project = Project(folder)
    ledger = Ledger.open(project, actor="bench")
    random = np.random.default_rng(SEED)
    now = datetime.now(UTC)
    end = datetime.fromtimestamp(int(now.timestamp()) // 300 * 300, UTC)
    made = ModelVersion(MODEL, 1, "", "file:///x", signature=SIGNATURE)
    ledger.put("model_version", made.ref, made)
    served = Deployment(API, MODEL, Mode.online, (Variant("champion", 1),))
    ledger.put("deployment", API, served, event="deployment.changed")
    profile = profile_of(_inputs(20_000, random), SIGNATURE, random.integers(0, 2, 20_000))
    path = project.scorer(MODEL, 1) / "profile.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(msgspec.json.encode(profile))
    began = time.perf_counter()
    count = _windows(ledger, end, int(WINDOWS * scale), random)
    print(
        f"{int(WINDOWS * scale):,} windows with {count:,} signals written in {time.perf_counter() - began:.1f} s"
    )
    began = time.perf_counter()
    rows = _log(project, now, max(1, int(FILE_ROWS * scale)), random)
    print(f"{rows:,} predictions written in {time.perf_counter() - began:.1f} s, seed {SEED}")
    began, counted, follower = time.perf_counter(), 0, Follower(project, ledger)
    while found := follower.turn(datetime.now(UTC), rows=1_000_000, seconds=60):
        counted += found
    print(f"{counted:,} of them counted live in {time.perf_counter() - began:.1f} s")
    ledger.close()
    return project, end


def _inputs(n: int, random: np.random.Generator) -> dict[str, Any]:
    texts = np.array([f"category {number}" for number in range(50)], object)
    made: dict[str, Any] = {name: random.normal(0, 1, n) for name in NAMES[:NUMBERS]}
    return made | {name: random.choice(texts, n) for name in NAMES[NUMBERS:]}


def _windows(ledger: Ledger, end: datetime, count: int, random: np.random.Generator) -> int:
    """Write windows of both phases: 30 features by three checks, and a metric over all rows and ten parts of them."""
    total, bins = 0, [{"bin": str(number), "reference": 0.05, "current": 0.05} for number in range(20)]
    detail = json.dumps({"bins": bins, "what": "mean 0 -> 0.1", "mean": 0.1})
    for first in range(0, count, 250):
        rows, found = [], []
        for number in range(first, min(first + 250, count)):
            start = end - (count - number) * LENGTH
            span = {"start_us": micros(start), "end_us": micros(start + LENGTH)}
            for place, phase in enumerate(("inputs", "labels")):
                key = 2 * number + place + 1
                rows.append(
                    span
                    | {
                        "id": key,
                        "deployment": API,
                        "model": MODEL,
                        "phase": phase,
                        "version": 1,
                        "state": "judged",
                    }
                    | {"rows": 8000, "labelled": 7000 * place, "maturity": 1.0 if place else None, "fired": 1}
                    | {"failed": "[]", "judged": start + LENGTH}
                )
                found += [span | {"window": key} | one for one in _signals(phase, random, detail)]
        with ledger.writing() as connection:
            connection.execute(windows.insert(), rows)
            connection.execute(signals.insert(), found)
        total += len(found)
    return total


def _signals(phase: str, random: np.random.Generator, detail: str) -> list[dict[str, Any]]:
    def one(check: str, subject: str, value: float, limit: float, segment: str = "") -> dict[str, Any]:
        return {
            "deployment": API, "model": MODEL, "version": 1, "checked": check, "subject": subject,
            "segment": segment, "value": value, "lower": value - 0.02, "upper": value + 0.02, "limit_value": limit,
            "rows": 8000, "fired": value > limit and check == "drift", "detail": detail,
        }  # fmt: skip

    if phase == "labels":
        parts = [f"text_00=category {number}" for number in range(PARTS)]
        metric = [
            one("performance", "accuracy", 0.9 + 0.01 * random.normal(), 0.8, part) for part in ("", *parts)
        ]
        return [*metric, one("kpi", "cost", 0.4, 0.5), one("calibration", "accuracy", 0.01, 0.03)]
    values = np.abs(random.normal(0, 0.01, (3, len(NAMES))))
    checks = ("drift", "missing", "out_of_range")
    made = [
        one(check, name, float(values[row, place]), 0.02)
        for row, check in enumerate(checks)
        for place, name in enumerate(NAMES)
    ]
    return [*made, one("estimated", "accuracy", 0.88, 0.8), one("volume", "rows", 8000.0, 5000.0)]


def _log(project: Project, now: datetime, rows: int, random: np.random.Generator) -> int:
    """Write sealed segments as the log writes them, the last rows of them a moment ago; 15 minutes hold 1/20 of all."""
    log = PredictionLog(project, API, MODEL, SIGNATURE)
    n = 1000
    inputs = _inputs(n, random)
    now_us = micros(now)
    log.append(
        Predictions(
            prediction_id=Ids.open(project).new(n, now_us),
            at_us=np.full(n, now_us - 5 * 3600 * 1_000_000),
            version=1,
            variant="champion",
            propensity=1.0,
            entity=None,
            latency_ms=(10.0 ** random.normal(0, 0.2, n)).astype(np.float32),
            inputs=inputs,
            prediction=random.integers(0, 2, n),
            probability=random.dirichlet((1, 1), n),
        )
    )
    log.close()
    folder = files.of_deployment(project, API)
    sample = pq.read_table(folder.segments()[0].path)
    total = n
    span_us = 5 * 3600 * 1_000_000 // FILES
    for number in range(FILES):
        first_us = now_us - (FILES - number) * span_us
        at = np.sort(random.integers(first_us, first_us + span_us, rows))
        batch = _repeated(sample, at, number, random)
        stem = files.new_stem(folder.segments()[0].stem)
        temporary = folder.root / f".{stem}.tmp"
        found = write_segment(temporary, batch.to_batches(max_chunksize=131_072))
        assert found is not None
        known = folder.segments()[0].stem.rpartition("-")[2]
        stem = f"{stem.rpartition('-')[0]}-{known}"
        folder.shelf.publish(
            temporary, files.Segment(temporary, stem, found.first_us, found.last_us, found.rows)
        )
        total += rows
    return total


def _repeated(sample: Any, at: Any, number: int, random: np.random.Generator) -> Any:
    """Return the sample's rows again and again in random order, at other times and with ids of their own."""
    taken = sample.take(pa.array(random.integers(0, len(sample), len(at))))
    place = taken.schema.get_field_index("at")
    times = pa.array(at).cast(taken.schema.field("at").type)
    taken = taken.set_column(place, taken.schema.field("at"), times)
    ids = pa.array([f"{number:08x}{row:024x}" for row in range(len(at))])
    return taken.set_column(taken.schema.get_field_index("prediction_id"), "prediction_id", ids)


# Asking.


@dataclass
class _Console:
    """A console in a process of its own."""

    root: Path

    def __enter__(self) -> Self:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self._url = f"http://127.0.0.1:{found.getsockname()[1]}"
        command = [sys.executable, "-m", "loopwright.console.app", "--port", self._url.rpartition(":")[2]]
        self._process = subprocess.Popen(
            command,
            env=os.environ | {"LOOPWRIGHT_PROJECT": str(self.root)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(600):
            try:
                self._get("/health")
                return self
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("the console did not start")

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)

    def ask(self, paths: Sequence[str]) -> Iterator[tuple[float, int]]:
        """Yield how long each answer took, in seconds, and how many bytes it has."""
        for path in paths:
            began = time.perf_counter()
            size = self._get(path)
            yield time.perf_counter() - began, size

    def _get(self, path: str) -> int:
        with urllib.request.urlopen(self._url + path, timeout=60) as answer:
            return len(answer.read())


def _cold(root: Path, path: str) -> tuple[float, int]:
    with _Console(root) as console:
        (found,) = console.ask([path])
    return found


if __name__ == "__main__":
    print(json.dumps(run(scale=float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)))
