"""Parity: the same rows through all four modes, and how far the answers are from the model's own.

Everything runs as it does in production, with the same code and in processes of its own where that is so, but in a
project of its own in a temporary folder: nothing of it reaches the prediction log or the monitors.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
from numpy.typing import NDArray

from loopwright.config import FILE, PROJECT_VARIABLE, Project
from loopwright.deploy import batch, edge, stream
from loopwright.deploy.base import Predictor, publish
from loopwright.deploy.edge import archive
from loopwright.deploy.edge.verification import answer
from loopwright.deploy.stream.base import open_channel
from loopwright.deploy.stream.consumer import Consumer
from loopwright.errors import InvalidInput, LoopwrightError, Unavailable
from loopwright.ledger import Ledger
from loopwright.predictions import Ids
from loopwright.records import Deployment, Mode, ModelVersion, Task, Variant
from loopwright.scoring.base import Manifest, Scores

__all__ = ["ModeParity", "Parity", "parity"]

#: Name of the column that carries the number of a row through a batch.
ROW = "loopwright_row"
#: Rows of one request; a body has a limit.
REQUEST_ROWS = 200
#: Seconds for a serving process to be ready.
START_S = 60.0
_TOML = """
[model.{model}]
target = {target}

[deployment.online]
model = {model}
mode = "online"

[deployment.batch]
model = {model}
mode = "batch"
source = "rows.parquet"
sink = "sqlite:///sink.db?table=predictions"
key = "{row}"

[deployment.stream]
model = {model}
mode = "stream"
source = "sqlite:///streams.db?topic=rows"
sink = "sqlite:///streams.db?topic=predictions"
"""
#: One answer as every mode can give it: the prediction, and the probabilities by class where there are any.
Answer = tuple[Any, Mapping[str, float] | None]


@dataclass(frozen=True, slots=True)
class ModeParity:
    """How far one mode is from the reference.

    `max_difference` is absolute or relative, whichever is smaller, over probabilities or numbers; `how` says in which
    way the mode was run, or why it was not (then `rows` is 0).
    """

    mode: str
    rows: int
    max_difference: float
    label_flips: int
    how: str


@dataclass(frozen=True, slots=True)
class Parity:
    """The comparison of the modes. `ok` says that every mode is within `tolerance` and changes no label."""

    model: str
    version: int
    rows: int
    reference: str
    modes: tuple[ModeParity, ...]
    tolerance: float
    ok: bool
    seconds: float


def parity(project: Project, model: str, *, rows: int = 200, version: int | None = None) -> Parity:
    """Score the same rows in all four modes and compare the answers with the model's own.

    Parameters
    ----------
    project, model
        A model of the project.
    rows
        How many of the rows kept with the version are scored, at least 1.
    version
        The version; else the model's champion.

    Returns
    -------
    Parity
        One entry per mode; a mode that cannot run this version, such as edge without an ONNX graph, says why and
        counts no rows.

    Raises
    ------
    InvalidInput
        No rows are kept with the version, because it was registered by hand.
    NotFound, Unavailable
        There is no such version, or MLflow is needed and does not answer.
    """
    from loopwright import registry, scoring

    started = time.monotonic()
    number = version or registry.version(project, model, "champion").version
    folder = scoring.prepare(project, model, number)
    manifest = scoring.read_manifest(folder)
    columns = _replay(folder, manifest, max(1, rows))
    expected, reference = _reference(project, folder, manifest, columns)
    with (
        tempfile.TemporaryDirectory(prefix="loopwright-parity-", ignore_cleanup_errors=True) as root,
        closing(_Bench(Path(root), folder, manifest, columns)) as bench,
    ):
        modes = tuple(_compare(bench, mode, expected, manifest) for mode in Mode)
    ok = all(one.max_difference <= manifest.tolerance and one.label_flips == 0 for one in modes)
    seconds = round(time.monotonic() - started, 3)
    count = len(expected.prediction)
    found = Parity(model, number, count, reference, modes, manifest.tolerance, ok, seconds)
    ledger = Ledger.open(project)
    try:
        ledger.append("parity.measured", model, found)
    finally:
        ledger.close()
    return found


def _replay(folder: Path, manifest: Manifest, rows: int) -> dict[str, NDArray[Any]]:
    """Return real rows, as they were kept with the version."""
    from loopwright.registry.artifacts import REPLAY
    from loopwright.registry.columns import arrays_of
    from loopwright.scoring import golden

    path = folder / REPLAY
    if not path.is_file():
        raise InvalidInput(
            f"No rows are kept with {manifest.model}/{manifest.version}, so there is nothing to compare.",
            valid="A version made by loopwright.register keeps some.",
            hint=f"loopwright model show {manifest.model} {manifest.version}",
        )
    return arrays_of(golden.read_rows(path).slice(0, rows), manifest.signature.inputs)


def _reference(
    project: Project, folder: Path, manifest: Manifest, columns: dict[str, NDArray[Any]]
) -> tuple[Scores, str]:
    """Return the model's own answers; where its files are out of reach, those of the prepared scorer."""
    from loopwright import registry, scoring
    from loopwright.scoring.native import NativeRuntime, load_model

    count = len(next(iter(columns.values())))
    if manifest.runtime != "native":
        try:
            with tempfile.TemporaryDirectory(prefix="loopwright-native-") as temporary:
                files = registry.download(project, _uri(project, manifest), Path(temporary))
                runtime = NativeRuntime(Path(), manifest, load_model(files))
                return runtime.score(columns, count), "the model itself, in this process"
        except (LoopwrightError, OSError) as error:
            why = f", because the model itself is out of reach ({error})"
    else:
        why = ""
    scorer = scoring.load(folder)
    try:
        return scorer.score(columns), f"the prepared scorer ({manifest.runtime}){why}"
    finally:
        scorer.close()


def _uri(project: Project, manifest: Manifest) -> str:
    from loopwright import registry

    ledger = Ledger.open(project)
    try:
        state = ledger.get("model_version", f"{manifest.model}/{manifest.version}")
    finally:
        ledger.close()
    known = state.read(ModelVersion) if state else registry.version(project, manifest.model, manifest.version)
    return known.uri


def _compare(bench: _Bench, mode: Mode, expected: Scores, manifest: Manifest) -> ModeParity:
    from loopwright.scoring import golden

    if mode is Mode.edge and not manifest.has_graph:
        return ModeParity(str(mode), 0, 0.0, 0, f"not run: there is no ONNX graph ({manifest.graph_reason})")
    run: Callable[[], tuple[list[Answer], str]] = getattr(bench, mode)
    answers, how = run()
    found = _scores(answers, manifest)
    scale = 1.0
    if manifest.signature.task == Task.regression and len(answers) > 1:
        # For a target in thousandths an absolute difference of 1e-5 would be no agreement.
        scale = min(1.0, float(np.nanstd(expected.prediction)) or 1.0)
    difference, flips = golden.compare(expected, found, scale=scale)
    # JSON has no infinity, which is the difference to an answer that is no number.
    return ModeParity(str(mode), len(answers), min(difference, sys.float_info.max), flips, how)


def _scores(answers: Sequence[Answer], manifest: Manifest) -> Scores:
    """Return answers as a scorer gives them."""
    from loopwright.registry.estimator import class_array

    classes = manifest.signature.classes
    dtype = class_array(classes).dtype if classes else np.dtype(np.float64)
    prediction = np.array([label for label, _ in answers], dtype=dtype)
    if not manifest.probability:
        return Scores(prediction)
    shares = [[(by_class or {}).get(str(label), np.nan) for label in classes] for _, by_class in answers]
    return Scores(prediction, np.array(shares, dtype=np.float64))


class _Bench:
    """A project in a temporary folder that serves one prepared version in every mode."""

    def __init__(
        self, root: Path, folder: Path, manifest: Manifest, columns: dict[str, NDArray[Any]]
    ) -> None:
        self.manifest = manifest
        self.columns = columns
        quoted = {"model": json.dumps(manifest.model), "target": json.dumps(manifest.signature.target)}
        (root / FILE).write_text(_TOML.format(**quoted, row=ROW), encoding="utf-8")
        self.project = Project(root)
        _lend(folder, self.project.scorer(manifest.model, manifest.version))
        # Not `Ledger.open`: a ledger that the environment names belongs to the real project.
        self.url = f"sqlite:///{self.project.state / 'ledger.db'}"
        self.ledger = Ledger(self.url, actor="parity")
        self.rows = _json_rows(columns)
        for name, declared in self.project.config.deployment.items():
            variants = (Variant("champion", manifest.version),)
            publish(self.ledger, Deployment(name, manifest.model, declared.mode, variants, salt="parity"))

    def close(self) -> None:
        """Close the ledger; the folder is its maker's to remove."""
        self.ledger.close()

    def online(self) -> tuple[list[Answer], str]:
        """Ask a serving process over HTTP."""
        answers: list[Answer] = []
        with self._serving() as client:
            for start in range(0, len(self.rows), REQUEST_ROWS):
                reply = client.post("/predict/online", json=self.rows[start : start + REQUEST_ROWS])
                if reply.status_code != 200:
                    raise InvalidInput(f"The rows were refused online: {reply.text[:500]}")
                answers += [
                    (one["prediction"], one.get("probability")) for one in reply.json()["predictions"]
                ]
        return answers, "HTTP requests to a serving process"

    @contextmanager
    def _serving(self) -> Iterator[httpx.Client]:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        environment = {key: value for key, value in os.environ.items() if key != "LOOPWRIGHT_PART"}
        environment |= {PROJECT_VARIABLE: str(self.project.root), "LOOPWRIGHT_LEDGER": self.url}
        command = [sys.executable, "-m", "loopwright.deploy.online.worker", "--port", str(port)]
        log = self.project.root / "serving.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, cwd=self.project.root, env=environment, stdout=out, stderr=subprocess.STDOUT
            )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
                _wait(client, process, log)
                yield client
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def batch(self) -> tuple[list[Answer], str]:
        """Run a batch from a Parquet file into a SQLite table."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from loopwright.registry.columns import table_of

        table = table_of(self.columns, self.manifest.signature.inputs)
        numbers = pa.array(range(len(self.rows)), pa.int64())
        pq.write_table(table.append_column(ROW, numbers), self.project.root / "rows.parquet")
        batch.run(self.project, "batch", ledger=self.ledger)
        with sqlite3.connect(self.project.root / "sink.db") as connection:
            found = connection.execute("SELECT key, prediction, probability FROM predictions").fetchall()
        connection.close()
        found.sort(key=lambda row: int(row[0]))
        answers = [(label, json.loads(shares) if shares else None) for _, label, shares in found]
        return answers, "a run from Parquet to SQLite"

    def stream(self) -> tuple[list[Answer], str]:
        """Send messages through a channel."""
        channel = open_channel(self.project, "stream")
        ids = Ids.open(self.project)
        predictor = Predictor(self.project, "stream", ledger=self.ledger, ids=ids, worker="parity")
        try:
            predictor.refresh()
            channel.publish([(str(number), msgspec.json.encode(row)) for number, row in enumerate(self.rows)])
            consumer = Consumer(predictor, channel, ids=ids, ledger=self.ledger)
            while channel.lag():
                consumer.step()
        finally:
            predictor.close()
            channel.close()
        reader = stream.results(self.project, "stream", group="parity")
        try:
            found = [json.loads(one.value) for one in reader.read(len(self.rows) + 1, 0).messages]
        finally:
            reader.close()
        found.sort(key=lambda one: int(one["key"]))
        return [(one["prediction"], one["probability"]) for one in found], "messages through a SQLite channel"

    def edge(self) -> tuple[list[Answer], str]:
        """Ask the predictor of a bundle, in a process of its own."""
        path = edge.bundle(self.project, self.manifest.model, self.manifest.version, ledger=self.ledger)
        unpacked = self.project.root / "device"
        unpacked.mkdir()
        for name, data in archive.read(path).items():
            (unpacked / name).write_bytes(data)
        found = answer(unpacked, self.rows)
        answers = [(one["prediction"], one.get("probability")) for one in found]
        return answers, "the bundled predictor, in a process of its own"


def _lend(folder: Path, into: Path) -> None:
    """Let a prepared version be seen in another project, without a copy where the system has links."""
    import shutil

    into.parent.mkdir(parents=True, exist_ok=True)
    try:
        into.symlink_to(folder, target_is_directory=True)
    except OSError:
        shutil.copytree(folder, into)


def _json_rows(columns: dict[str, NDArray[Any]]) -> list[dict[str, Any]]:
    """Return rows as callers send them: missing values as null, times as ISO 8601."""
    plain = {name: [_json_value(value) for value in values.tolist()] for name, values in columns.items()}
    return [dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)]


def _json_value(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return None if isinstance(value, float) and np.isnan(value) else value


def _wait(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            if client.get("/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise Unavailable(f"The serving process did not get ready: {log.read_text(errors='replace')[-1000:]}")
