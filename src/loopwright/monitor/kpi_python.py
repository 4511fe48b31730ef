"""A KPI in Python, in a process of its own: one that never ends, crashes or eats the memory takes nothing with it.

The rows go through a file that the process maps into its memory, the answer comes back through another; what the function
prints goes nowhere. Run as ``python -m loopwright.monitor.kpi_python <module:function> <rows> <answer>`` in the folder of
the project.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from loopwright.errors import InvalidInput

__all__ = ["call"]


def call(entrypoint: str, table: Any, *, root: Path, timeout_s: float) -> Any:
    """Call a function with a pyarrow Table and return the number, the list of numbers or the None that it gives.

    Parameters
    ----------
    entrypoint
        ``"<module>:<function>"``, imported from `root`.
    table
        A pyarrow Table.
    root
        The project's folder, where the function runs.
    timeout_s
        When it is stopped, with whatever it has started.

    Raises
    ------
    InvalidInput
        It cannot be imported, raises, crashes, takes too long, or gives something else.
    """
    import pyarrow as pa

    with tempfile.TemporaryDirectory(prefix="loopwright-kpi-") as folder:
        rows, answer = Path(folder) / "rows.arrow", Path(folder) / "answer.json"
        with pa.OSFile(str(rows), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        status = _run([entrypoint, str(rows), str(answer)], root, timeout_s)
        if status is None:
            raise InvalidInput(
                f"{entrypoint} was stopped after {timeout_s:g} s.",
                valid="It must end within its timeout.",
                hint="make it faster, or set timeout of the KPI",
            )
        try:
            given = json.loads(answer.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            how = (
                f"was killed by {signal.Signals(-status).name}"
                if status < 0
                else f"ended with status {status}"
            )
            raise InvalidInput(f"{entrypoint} {how} before it gave anything.") from None
    if "error" in given:
        raise InvalidInput(given["error"])
    return given["value"]


def _run(arguments: list[str], root: Path, timeout_s: float) -> int | None:
    """Run the other side and return its status, None where it had to be stopped."""
    process = subprocess.Popen(
        [sys.executable, "-m", "loopwright.monitor.kpi_python", *arguments],
        cwd=root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,  # what the function has started is stopped with it
    )
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _plain(value: Any) -> Any:
    """Return what JSON can carry: numbers of NumPy and Arrow as those of Python, NaN as nothing."""
    for method in ("as_py", "item"):
        if hasattr(value, method):
            value = getattr(value, method)()
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    text = repr(value)
    raise InvalidInput(
        f"It gives {text if len(text) <= 80 else text[:77] + '...'}, of type {type(value).__name__}.",
        valid="A KPI gives one number, None, or a list of three: the number and the ends of its interval.",
    )


def _answer(entrypoint: str, rows: str) -> dict[str, Any]:
    import importlib

    import pyarrow as pa

    module, _, name = entrypoint.partition(":")
    try:
        with pa.memory_map(rows) as source:
            table = pa.ipc.open_file(source).read_all()
            return {"value": _plain(getattr(importlib.import_module(module), name)(table))}
    except InvalidInput as error:
        return {"error": f"{entrypoint}: {error.fact} {error.valid}"}
    except (Exception, SystemExit) as error:  # noqa: BLE001 (the function is somebody else's)
        where = traceback.extract_tb(error.__traceback__)[-1]
        return {
            "error": f"{entrypoint} raised {type(error).__name__}: {str(error)[:300]} "
            f"({Path(where.filename).name}, line {where.lineno})."
        }


def main() -> None:
    """Compute the KPI that the arguments name and write what it gave."""
    entrypoint, rows, answer = sys.argv[1:]
    Path(answer).write_text(json.dumps(_answer(entrypoint, rows)), encoding="utf-8")


if __name__ == "__main__":
    main()
