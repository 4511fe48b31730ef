"""One repetition in a process of its own: ``python -m loopwright.reproduction.replay ORDER RESULT STEPS``.

It runs with the packages of the run, in the folder with its code, against the stage's own server.
"""

from __future__ import annotations

import sys
import time
import traceback
from pathlib import Path
from typing import Any, Literal

import httpx
import msgspec

from loopwright import parts, tracking
from loopwright.config import Project
from loopwright.errors import LoopwrightError, Unavailable
from loopwright.ledger import Ledger
from loopwright.pipelines.entrypoints import load
from loopwright.pipelines.execution import Execution
from loopwright.records import ModelVersion, PipelineRun

__all__ = ["main"]

_SERVER_S = 180.0


class _Watch:
    """Hashes what each step returned, tables or not, and says in a file which step begins."""

    def __init__(self, steps_file: Path) -> None:
        self.values: list[tuple[str, str]] = []
        self._steps_file = steps_file

    def __call__(self, what: Literal["began", "ended"], step: str, value: Any) -> None:
        if what == "began":
            with self._steps_file.open("a") as file:
                file.write(f"{step}\n")
        else:
            self.values.append((step, _value_digest(value)))


def _value_digest(value: Any) -> str:
    """Return a hash of any value, or an empty text for one that cannot be hashed."""
    import joblib  # type: ignore[import-untyped]

    try:
        return str(joblib.hash(value))
    except Exception:  # noqa: BLE001  (whatever pickling it raises: it has no hash then)
        return ""


def main(order_file: str, result_file: str, steps_file: str) -> None:
    """Run the pipeline and write what it gave, or how it failed.

    All three are files; the first two hold JSON. The order names `entrypoint`, `parameters` and `tolerance`, and in `models` what `compare_models` takes. The result has `run`, `metrics`, `values` and `models`, or `error`.
    """
    order = msgspec.json.decode(Path(order_file).read_bytes())
    project = Project.find()
    try:
        result = _repeat(project, order, Path(steps_file))
    except LoopwrightError as error:
        cause = error.__cause__
        if cause is not None:
            traceback.print_exception(cause)
        result = {"error": {"message": error.fact, "type": type(cause or error).__name__, **error.attrs}}
    Path(result_file).write_bytes(msgspec.json.encode(result, enc_hook=str))


def _repeat(project: Project, order: dict[str, Any], steps_file: Path) -> dict[str, Any]:
    parts.connect(project)
    _wait_for_server(project)
    pipeline = load(project, order["entrypoint"])
    watch = _Watch(steps_file)
    parameters = pipeline.bind(order["parameters"])
    run = Execution(project, pipeline, parameters, "reproduce", watch=watch).run("").record
    return {
        "run": run,
        "metrics": tracking.get(project, run.run_id).metrics,
        "values": watch.values,
        "models": _models(project, run, order),
    }


def _wait_for_server(project: Project) -> None:
    address = parts.mlflow_url(project).removesuffix("/mlflow") + "/health"
    until = time.monotonic() + _SERVER_S
    while True:
        try:
            if httpx.get(address, timeout=5, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            if time.monotonic() > until:
                raise Unavailable(f"The server at {address} did not start.") from None
        time.sleep(0.1)


def _models(project: Project, run: PipelineRun, order: dict[str, Any]) -> list[Any]:
    from loopwright.reproduction.answers import compare_models

    ledger = Ledger.open(project)
    try:
        made = [state.read(ModelVersion) for state in ledger.states("model_version")]
    finally:
        ledger.close()
    now = sorted((one for one in made if one.run_id == run.run_id), key=lambda one: one.version)
    return compare_models(project, order["models"], now, order["tolerance"])


if __name__ == "__main__":
    main(*sys.argv[1:])
