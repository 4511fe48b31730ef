"""A KPI in Python, in a process of its own: one that never ends, crashes or eats the memory takes nothing with it.

The rows go through a file that the process maps into its memory, the answer comes back through another; what the function
prints goes nowhere. The other side is `kpi_child`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
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
    if "raised" in given:
        raise InvalidInput(f"{entrypoint} raised {given['raised']}.")
    if "gave" in given:
        raise InvalidInput(
            f"{entrypoint} gives {given['gave']}.",
            valid="A KPI gives one number, None, or a list of three: the number and the ends of its interval.",
        )
    return given["value"]


def _run(arguments: list[str], root: Path, timeout_s: float) -> int | None:
    """Run the other side and return its status, None where it had to be stopped."""
    process = subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).with_name("kpi_child.py")), *arguments],
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
