"""One side of the comparison, in a process of its own: the notebook's code, or the pipeline as plain Python.

Started as ``python -m loopwright.tracking.notebooks.convert.child <task.json>`` in a folder of links to the project's
files. What is written there stays there; the project's own files are never written to.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import importlib.util
import json
import os
import pickle
import random
import shutil
import sys
import traceback
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["main"]

SEED = 0
#: Tables with more values than this are thinned out before they are kept for the comparison.
_MOST_VALUES = 5_000_000
_MOST_ITEMS = 1000


class _Captures:
    """Keeps values as they are at this moment."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, str, bytes]] = []

    def take(self, step: str, name: str, value: Any) -> None:
        try:
            content = pickle.dumps(_plain(value))
        except Exception:  # noqa: BLE001 - a value that refuses is compared by its type
            content = pickle.dumps(_opaque(value))
        self.kept.append((step, name, content))


def _opaque(value: Any) -> tuple[str, str]:
    return ("(object)", type(value).__name__)


def _plain(value: Any, depth: int = 3) -> Any:
    """Reduce a value to what can be compared: numbers, text, tables, arrays; of others the type."""
    import numpy as np
    import pandas as pd

    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, pd.DataFrame | pd.Series | pd.Index):
        frame = value.to_frame() if isinstance(value, pd.Index) else value
        step = max(1, frame.size // _MOST_VALUES)
        return ("(table)", value.shape, frame.iloc[::step])
    if isinstance(value, np.ndarray) and value.dtype != object:
        step = max(1, value.size // _MOST_VALUES)
        return ("(array)", value.shape, value[::step] if value.ndim else value)
    if hasattr(value, "nnz") and hasattr(value, "sum"):
        return ("(sparse)", value.shape, float(value.sum()), float(abs(value).sum()), int(value.nnz))
    if hasattr(value, "to_pandas"):
        return _plain(value.to_pandas(), depth)
    if depth and type(value) is dict and len(value) <= _MOST_ITEMS:
        return {str(key): _plain(item, depth - 1) for key, item in value.items()}
    if depth and isinstance(value, list | tuple) and len(value) <= _MOST_ITEMS:
        return [_plain(item, depth - 1) for item in value]
    return _opaque(value)


def _seed() -> None:
    import numpy as np

    random.seed(SEED)
    np.random.seed(SEED)
    if importlib.util.find_spec("torch") is not None and os.environ.get("LOOPWRIGHT_PROOF_TORCH"):
        importlib.import_module("torch").manual_seed(SEED)


def _protect(root: Path) -> None:
    """Keep the project's files as they are: a link that is written to becomes a file of its own first."""
    here = os.path.realpath(os.environ["LOOPWRIGHT_PROOF_FOLDER"])
    protected = os.path.realpath(root)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or not isinstance(arguments[0], str | os.PathLike):
            return
        path, mode, flags = arguments
        writes = (
            bool(set(mode) & set("wax+"))
            if isinstance(mode, str)
            else bool(flags & (os.O_WRONLY | os.O_RDWR))
        )
        if not writes:
            return
        # Not `Path.resolve`: the link itself is meant, not what it points to.
        path = os.path.abspath(os.fspath(path))  # noqa: PTH100
        real = os.path.realpath(path)
        if real.startswith(here + os.sep) or not real.startswith(protected + os.sep):
            return
        if not path.startswith(here + os.sep) or not Path(path).is_symlink():
            raise PermissionError(f"{path} is not written to while notebook and pipeline are compared")
        Path(path).unlink()
        keeps = isinstance(mode, str) and bool(set(mode) & set("ar+"))
        if keeps:
            shutil.copyfile(real, path)

    sys.addaudithook(hook)


def _run_notebook(task: dict[str, Any], captures: _Captures) -> None:
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    names = vars(module)
    states: list[Any] = []

    def hold() -> None:
        import numpy as np

        states.append((random.getstate(), np.random.get_state()))

    def back() -> None:
        import numpy as np

        python, legacy = states.pop()
        random.setstate(python)
        np.random.set_state(legacy)

    def take(step: str, wanted: Sequence[str]) -> None:
        for name in wanted:
            captures.take(step, name, names.get(name, "(not bound)"))

    names.update(
        display=lambda *_args, **_kwargs: None,
        __builtins__=builtins,
        __lw_hold=hold,
        __lw_back=back,
        __lw_take=take,
    )
    for segment in task["segments"]:
        code = compile(segment["code"], f"cell {segment['cell']}", "exec", dont_inherit=True)
        exec(code, names)  # noqa: S102 - running the user's own notebook is the point


def _run_pipeline(task: dict[str, Any], captures: _Captures) -> None:
    import loopwright

    # In this process nothing is registered and no metric is logged: the values themselves are compared.
    vars(loopwright)["register"] = functools.partial(_registered, captures)
    if task["quiet_mlflow"]:
        vars(importlib.import_module("mlflow"))["log_metrics"] = lambda *_args, **_kwargs: None
    spec = importlib.util.spec_from_file_location(task["module"], task["file"])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[task["module"]] = module
    spec.loader.exec_module(module)
    for step in task["steps"]:
        found: Any = getattr(module, step["name"], None)
        if hasattr(found, "function"):
            found.function = _captured(captures, step["name"], step["outputs"], found.function)
        elif callable(found):
            setattr(module, step["name"], _captured(captures, step["name"], step["outputs"], found))
    pipeline = getattr(module, task["pipeline"])
    getattr(pipeline, "function", pipeline)()


def _captured(
    captures: _Captures, step: str, outputs: Sequence[str], function: Callable[..., Any]
) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        value = function(*args, **kwargs)
        values = value if len(outputs) > 1 and isinstance(value, tuple) else (value,)
        for name, item in zip(outputs, values, strict=False):
            captures.take(step, name, item)
        return value

    return run


def _registered(
    captures: _Captures, name: str, model: Any, table: Any, *, target: str | None = None, **_rest: Any
) -> Any:
    """Stand where `register` stands: nothing is registered, but model, table and target must fit each other."""
    if target not in getattr(table, "columns", ()):
        raise ValueError(f"the table to register {name} with has no column {target!r}")
    if table[target].isna().any():
        raise ValueError(f"the target {target!r} of {name} has gaps")
    if not len(table):
        raise ValueError(f"the table to register {name} with is empty")
    rows = table.drop(columns=target).head(20)
    answers = len(model.predict(rows))
    captures.take(
        "(register)", name, {"rows": len(table), "target": target, "predicts": answers == len(rows)}
    )
    return types.SimpleNamespace(model=name, version=0, ref=f"{name}/0")


def _failure(error: BaseException, file: str) -> dict[str, str]:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == file or frame.filename.startswith("cell ")]
    last = own[-1] if own else None
    where = "" if last is None else last.filename if last.filename.startswith("cell ") else last.name
    line = (last.line or "").strip() if last else ""
    return {"where": where, "line": line, "error": f"{type(error).__name__}: {error}"[:500]}


def main(path: str) -> None:
    """Do the task that a file describes, and write what was seen beside it."""
    task = json.loads(Path(path).read_text(encoding="utf-8"))
    captures = _Captures()
    failure: dict[str, str] | None = None
    _protect(Path(task["protected"]))
    _seed()
    try:
        (_run_notebook if task["side"] == "notebook" else _run_pipeline)(task, captures)
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 - whatever the user's code raises is reported
        failure = _failure(error, task.get("file", ""))
    with Path(task["result"]).open("wb") as file:
        pickle.dump((captures.kept, failure), file)
    # Threads and pools that the user's code left behind must not hold the answer back.
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
