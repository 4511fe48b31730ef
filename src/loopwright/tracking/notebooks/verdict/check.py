"""Running a notebook as it is, in a process of its own, and finding out what came of it."""

from __future__ import annotations

import copy
import importlib
import importlib.metadata
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loopwright.errors import InvalidInput
from loopwright.tracking.notebooks.files import text_of
from loopwright.tracking.notebooks.kernel import client, tools
from loopwright.tracking.notebooks.verdict import causes
from loopwright.tracking.notebooks.verdict.findings import Cause, CellFinding, Verdict
from loopwright.tracking.notebooks.verdict.outputs import difference, is_empty
from loopwright.tracking.notebooks.verdict.probe import REPORT
from loopwright.tracking.notebooks.verdict.scan import Scanned

__all__ = ["check"]

_PROBE = "loopwright.tracking.notebooks.verdict.probe"


@dataclass
class _Run:
    """One run of all code cells until one fails. Outputs and seconds are of the cells that ran or failed."""

    outputs: list[list[dict[str, Any]]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cause: Cause | None = None
    imported: set[str] = field(default_factory=set)
    written: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)


def check(
    notebook: Path,
    *,
    timeout_s: float = 600.0,
    tolerance: float = 1e-6,
    progress: Callable[[int, int, str], None] = lambda _done, _whole, _text: None,
) -> Verdict:
    """Run a notebook from top to bottom in a new process and compare what it gives with what it shows.

    The file stays as it is. When outputs differ, or something in the code may give another result each time, it is run
    a second time, to tell chance from change.

    Parameters
    ----------
    timeout_s
        Seconds that one cell may take.
    tolerance
        The relative difference of two numbers that counts as none.
    progress
        Called before each cell with how many have ended, how many there are, and the cell's first line.

    Raises
    ------
    NotFound, Denied
        There is no such file, or it cannot be read.
    InvalidInput
        It is no notebook, has no code, or is not in Python.
    Unavailable
        The packages that run notebooks are not installed.
    """
    content = _read(notebook)
    code = [cell for cell in content.cells if cell.cell_type == "code" and cell.source.strip()]
    sources = [cell.source for cell in code]
    scanned = Scanned(sources)
    folder = notebook.resolve().parent
    started = time.perf_counter()
    first = _run(content, sources, folder, scanned, timeout_s, progress)
    stored = [[dict(output) for output in cell.outputs] for cell in code]
    differ = [difference(one, other, tolerance) for one, other in zip(stored, first.outputs, strict=False)]
    compared = [not is_empty(one) for one in stored]
    suspected = bool(scanned.unseeded() or scanned.clock()) and not all(map(is_empty, first.outputs))
    second: _Run | None = None
    if first.cause is None and (suspected or any(d and c for d, c in zip(differ, compared, strict=False))):
        second = _run(content, sources, folder, scanned, timeout_s, progress)
    order = causes.order_of([cell.execution_count for cell in code])
    findings = []
    for place, cell in enumerate(code):
        findings.append(_finding(place, cell, first, second, stored, differ, scanned, order, tolerance))
    return Verdict(
        notebook=str(notebook),
        python=platform.python_version(),
        cells=tuple(findings),
        order=order,
        lock=_lock(first.imported | set(scanned.imports)),
        written=tuple(first.written),
        hosts=tuple(first.hosts),
        runs=1 if second is None else 2,
        seconds=time.perf_counter() - started,
    )


def _read(notebook: Path) -> Any:
    nbformat = tools()["nbformat"]
    text = text_of(notebook)
    valid = "A notebook is a JSON file that Jupyter wrote, ending in .ipynb."
    try:
        content = nbformat.reads(text, as_version=4)
        cells = content.cells
    except Exception as error:  # noqa: BLE001 - nbformat raises anything: no JSON, no cells, cells that are none
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise InvalidInput(f"{notebook} is no notebook: {reason}.", valid=valid) from None
    language = content.metadata.get("kernelspec", {}).get("language", "") or content.metadata.get(
        "language_info", {}
    ).get("name", "python")
    if language.lower() not in {"python", "ipython", ""}:
        raise InvalidInput(
            f"{notebook} is written in {language}.", valid="Notebooks in Python can be checked."
        )
    if not any(cell.cell_type == "code" and cell.source.strip() for cell in cells):
        raise InvalidInput(f"{notebook} has no code: there is nothing to run.", valid=valid)
    return content


def _run(
    content: Any,
    sources: Sequence[str],
    folder: Path,
    scanned: Scanned,
    timeout_s: float,
    progress: Callable[[int, int, str], None],
) -> _Run:
    """Run all code cells in a new process, until one fails."""
    nbclient = tools()["nbclient"]
    fresh = copy.deepcopy(content)
    for cell in fresh.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    found = _Run()
    with tempfile.TemporaryDirectory(prefix="loopwright-check-") as temporary:
        report = Path(temporary) / "report.jsonl"
        with (
            client(fresh, folder, {REPORT: str(report)}, _PROBE, timeout_s) as cells,
            cells.setup_kernel(stderr=subprocess.DEVNULL),
        ):
            for index, cell in enumerate(fresh.cells):
                if cell.cell_type != "code" or not cell.source.strip():
                    continue
                number = len(found.outputs) + 1
                progress(number - 1, len(sources), cell.source.strip().split("\n")[0])
                started = time.perf_counter()
                try:
                    cells.execute_cell(cell, index)
                except nbclient.exceptions.CellExecutionError as error:
                    found.cause = causes.of_error(error.ename, error.evalue, number, scanned, folder)
                except nbclient.exceptions.CellTimeoutError:
                    found.cause = Cause(
                        "never ends",
                        f"it did not end within {timeout_s:g} s",
                        "give it more time with --timeout, or less to do",
                    )
                except nbclient.exceptions.DeadKernelError:
                    found.cause = Cause("process died", "its process died, perhaps for want of memory")
                found.seconds.append(time.perf_counter() - started)
                found.outputs.append([dict(output) for output in cell.outputs])
                if found.cause:
                    break
        _add_report(found, report)
    return found


def _add_report(found: _Run, report: Path) -> None:
    lines = report.read_text().splitlines() if report.exists() else []
    for line in lines:
        try:
            fact = json.loads(line)
        except json.JSONDecodeError:  # the kernel was killed while it wrote
            continue
        if "imported" in fact:
            found.imported.add(fact["imported"])
        elif "wrote" in fact:
            found.written.append(fact["wrote"])
        elif "asked" in fact:
            found.hosts.append(fact["asked"])


def _finding(
    place: int,
    cell: Any,
    first: _Run,
    second: _Run | None,
    stored: Sequence[Sequence[Mapping[str, Any]]],
    differ: Sequence[str],
    scanned: Scanned,
    order: str,
    tolerance: float,
) -> CellFinding:
    number = place + 1
    count = cell.execution_count
    if place >= len(first.outputs):
        return CellFinding(number, cell.source, "not reached", stored_count=count)
    seconds, given = first.seconds[place], first.outputs[place]
    if first.cause is not None and place == len(first.outputs) - 1:
        return CellFinding(number, cell.source, "failed", seconds, cause=first.cause, stored_count=count)
    if is_empty(stored[place]):
        output = "none" if is_empty(given) else "not stored"
        return CellFinding(number, cell.source, "ran", seconds, output, stored_count=count)  # type: ignore[arg-type]
    if not differ[place]:
        return CellFinding(number, cell.source, "ran", seconds, "equal", stored_count=count)
    stable = None
    if second is not None and place < len(second.outputs):
        stable = not difference(given, second.outputs[place], tolerance)
    cause = causes.of_difference(number, differ[place], stable, scanned, order)
    return CellFinding(number, cell.source, "ran", seconds, "different", differ[place], cause, count)


def _lock(modules: set[str]) -> tuple[str, ...]:
    """Return the packages that imported modules belong to, with their versions."""
    distributions = importlib.metadata.packages_distributions()
    names = {
        name for module in modules - set(sys.stdlib_module_names) for name in distributions.get(module, ())
    }
    found = {name: importlib.metadata.version(name) for name in names}
    return tuple(f"{name}=={found[name]}" for name in sorted(found, key=str.lower))
