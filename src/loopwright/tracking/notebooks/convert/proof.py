"""Showing that the pipeline computes what the notebook computes: both run, with the same seed, and are compared."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopwright.tracking.notebooks.convert.cells import Statement
from loopwright.tracking.notebooks.convert.compare import Capture, Comparison, compare
from loopwright.tracking.notebooks.convert.plan import Plan

__all__ = ["Proof", "prove", "segments"]

#: Folders that hold no data of a notebook.
_SKIPPED = {
    ".git", ".ipynb_checkpoints", ".loopwright", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox", ".venv",
    "__pycache__", "mlruns", "node_modules", "venv",
}  # fmt: skip
#: After so many entries, folders are linked whole instead of file by file.
_MOST_LINKS = 5000


@dataclass(frozen=True, slots=True)
class Proof:
    """The verdict. `failures` name what did not run, by side; `seconds` is the time of the slower side."""

    equal: bool
    comparisons: tuple[Comparison, ...]
    failures: dict[str, str]
    seconds: float

    @property
    def values(self) -> int:
        """How many numbers, tables and texts were compared; objects, of which only the type is, do not count."""
        return sum(row.kind != "object" for row in self.comparisons)


def prove(plan: Plan, file: Path, *, tolerance: float, timeout_s: float) -> Proof:
    """Run the notebook's code and the pipeline in processes of their own and compare all that flows between steps."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="loopwright-proof-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary).resolve()
        names = [{"name": step.name, "outputs": step.outputs} for step in plan.steps]
        source = plan.notebook.path.resolve().parent
        tasks: dict[str, dict[str, Any]] = {
            "notebook": {"segments": segments(plan), "cwd": source},
            "pipeline": {
                "module": file.stem,
                "file": str(file),
                "pipeline": plan.pipeline,
                "steps": names,
                "quiet_mlflow": "mlflow." in file.read_text(encoding="utf-8") and not _uses_mlflow(plan),
                "cwd": plan.target,
            },
        }
        running = {
            side: _start(folder, side, task, _root(plan, side, task["cwd"])) for side, task in tasks.items()
        }
        ended = {
            side: _finish(process, folder, side, started + timeout_s, timeout_s)
            for side, process in running.items()
        }
    failures = {side: reason for side, (_, reason) in ended.items() if reason}
    rows = compare(ended["notebook"][0], ended["pipeline"][0], tolerance) if not failures else []
    equal = not failures and all(row.equal for row in rows)
    return Proof(equal, tuple(rows), failures, time.monotonic() - started)


def segments(plan: Plan) -> list[dict[str, Any]]:
    """Return the notebook's code, cell by cell, with the values that flow between steps taken where a step ends.

    What the pipeline leaves out runs too, but draws its random numbers aside: a shown sample must not shift the rest.
    """
    chosen = {id(item) for step in plan.steps for item in step.statements}
    shown = {
        id(item.statement): item for item in plan.left_out if item.statement is not None and item.harvested
    }
    ends: dict[int, list[tuple[str, tuple[str, ...]]]] = {}
    for step in plan.steps:
        ends.setdefault(_place(plan, step.statements[-1]), []).append((step.name, step.outputs))
    found = []
    for cell in plan.notebook.cells:
        body: list[ast.stmt] = []
        for item in cell.statements:
            if isinstance(item.node, ast.ImportFrom) and item.node.module == "__future__":
                continue
            node: ast.stmt = item.node
            if id(item) in shown:
                node = _Naming({id(value): name for name, value in shown[id(item)].harvested}).visit(node)
            aside = id(item) not in chosen and id(item) not in shown
            body += [*_call("__lw_hold()"), node, *_call("__lw_back()")] if aside else [node]
            for name, outputs in ends.get(id(item), ()):
                body += _call(f"__lw_take({name!r}, {list(outputs)!r})")
        if body:
            module = ast.fix_missing_locations(ast.Module(body, type_ignores=[]))
            found.append({"cell": cell.number, "code": ast.unparse(module)})
    return found


class _Naming(ast.NodeTransformer):
    """Gives a metric that is only shown its name: ``print(accuracy_score(y, p))`` binds ``accuracy`` on the way."""

    def __init__(self, names: dict[int, str]) -> None:
        self.names = names

    def visit(self, node: ast.AST) -> Any:
        name = self.names.get(id(node))
        if name is not None and isinstance(node, ast.expr):
            return ast.NamedExpr(ast.Name(name, ast.Store()), node)
        return self.generic_visit(node)


def _call(code: str) -> list[ast.stmt]:
    return ast.parse(code).body


def _place(plan: Plan, last: Statement) -> int:
    """Return the id of the statement of the notebook that a step ends with."""
    if any(last is item for cell in plan.notebook.cells for item in cell.statements):
        return id(last)
    name = last.text.partition(" = ")[0]
    for item in plan.left_out:
        if item.statement is not None and any(name == given for given, _ in item.harvested):
            return id(item.statement)
    raise AssertionError(f"{last.text!r} comes from no statement of the notebook")


def _uses_mlflow(plan: Plan) -> bool:
    return any("mlflow" in item.text for item in plan.imports)


def _root(plan: Plan, side: str, folder: Path) -> Path:
    """Return the folder that is mirrored: high enough that what the code names as ``../data`` is inside."""
    texts = [item.default for item in plan.parameters if isinstance(item.default, str)]
    if side == "notebook":
        nodes = (
            node for cell in plan.notebook.cells for item in cell.statements for node in ast.walk(item.node)
        )
        texts = [
            node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
    ups = [text.replace("\\", "/").split("/").count("..") for text in texts if text.startswith("..")]
    root = folder
    for _ in range(min(max(ups, default=0), 3)):
        root = root.parent
    return plan.target if root.is_relative_to(plan.target) else root


def _mirror(root: Path, into: Path) -> None:
    """Make a folder of links to all files below another one."""
    waiting = [(root, into)]
    links = 0
    while waiting:
        source, target = waiting.pop(0)
        target.mkdir(parents=True, exist_ok=True)
        with os.scandir(source) as entries:
            for entry in entries:
                if entry.name in _SKIPPED or into.is_relative_to(entry.path):
                    continue
                links += 1
                if entry.is_dir(follow_symlinks=False) and links < _MOST_LINKS:
                    waiting.append((Path(entry.path), target / entry.name))
                else:
                    (target / entry.name).symlink_to(entry.path)


def _start(folder: Path, side: str, task: dict[str, Any], root: Path) -> subprocess.Popen[bytes]:
    mirror = folder / side
    _mirror(root, mirror)
    project = folder / f"{side}-project"
    project.mkdir()
    (project / "loopwright.toml").write_text('[project]\nname = "proof"\n')
    cwd = mirror / Path(task.pop("cwd")).relative_to(root)
    task |= {"side": side, "protected": str(root), "result": str(folder / f"{side}.pickle")}
    path = folder / f"{side}.json"
    path.write_text(json.dumps(task), encoding="utf-8")
    environment = os.environ | {
        "LOOPWRIGHT_PROJECT": str(project),
        "LOOPWRIGHT_PROOF_FOLDER": str(folder),
        "MLFLOW_TRACKING_URI": f"sqlite:///{project / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "MPLBACKEND": "Agg",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    environment.pop("PYTHONSTARTUP", None)
    with (folder / f"{side}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "loopwright.tracking.notebooks.convert.child", str(path)],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _finish(
    process: subprocess.Popen[bytes], folder: Path, side: str, deadline: float, timeout_s: float
) -> tuple[Sequence[Capture], str]:
    """Wait for one side and return what it captured, and why it failed if it did."""
    try:
        code = process.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return [], f"it was stopped after {timeout_s:g} s"
    result = folder / f"{side}.pickle"
    if not result.is_file():
        log = (folder / f"{side}.log").read_text(errors="replace").strip().splitlines()
        return [], f"the process ended with code {code}: {log[-1] if log else 'it said nothing'}"
    captures, failure = pickle.loads(result.read_bytes())  # noqa: S301 - our own child wrote it a moment ago
    if failure is None:
        return captures, ""
    where = f"{failure['where']}: " if failure["where"] else ""
    line = f" (at: {failure['line'][:100]})" if failure["line"] else ""
    return captures, f"{where}{failure['error']}{line}"
