"""Why a cell failed, and why an output is another one: from the error, the code and a second run."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from loopwright.tracking.notebooks.verdict.findings import Cause
from loopwright.tracking.notebooks.verdict.scan import Scanned

__all__ = ["of_difference", "of_error", "order_of"]

_NAME = re.compile(r"name '([^']+)' is not defined")
_MODULE = re.compile(r"No module named '?([^'\s;]+)")
_NETWORK = {
    "ClientConnectorError", "ConnectError", "ConnectTimeout", "ConnectionError", "ConnectionRefusedError", "HTTPError",
    "MaxRetryError", "NewConnectionError", "ProxyError", "ReadTimeout", "SSLError", "URLError", "gaierror",
}  # fmt: skip
#: Modules whose packages have other names.
_PACKAGES = {
    "bs4": "beautifulsoup4", "cv2": "opencv-python", "dotenv": "python-dotenv", "PIL": "pillow", "skimage": "scikit-image",
    "sklearn": "scikit-learn", "yaml": "PyYAML", "attr": "attrs", "dateutil": "python-dateutil", "fitz": "PyMuPDF",
    "psycopg2": "psycopg2-binary", "umap": "umap-learn", "imblearn": "imbalanced-learn",
}  # fmt: skip


def of_error(name: str, message: str, number: int, scanned: Scanned, folder: Path) -> Cause:
    """Name the cause of an error that a cell raised.

    Parameters
    ----------
    name, message
        The error's type and text.
    number
        The cell's number, from 1.
    folder
        The notebook's folder: paths are relative to it.
    """
    message = message.strip().split("\n")[0]
    if name == "FileNotFoundError" or "No such file or directory" in message:
        return _missing_file(message, folder)
    if name in {"ModuleNotFoundError", "ImportError"} and (found := _MODULE.search(message)):
        return _missing_module(found[1], folder)
    if name == "NameError" and (found := _NAME.search(message)):
        return _missing_name(found[1], number, scanned)
    if name in {"StdinNotImplementedError", "EOFError"}:
        return Cause(
            "needs input",
            "it asks for input, and nobody is there to answer",
            "put the answer into a variable at the top of the notebook",
        )
    if name in _NETWORK or "urlopen error" in message or "Name or service not known" in message:
        return Cause(
            "network",
            f"it needs the network ({name}: {message[:160]})",
            "keep the data in a file beside the notebook, and read that",
        )
    return Cause("error", f"{name}: {message[:300]}" if message else name)


def _missing_file(message: str, folder: Path) -> Cause:
    quoted = re.findall(r"'([^']+)'", message)
    if not quoted:
        return Cause("missing file", message)
    path = Path(quoted[-1])
    near = _nearest_file(path, folder)
    guess = f" (nearest: {near})" if near else ""
    advice = (
        f"write {near} instead" if near else "put the file there, or say in the notebook where it comes from"
    )
    if path.is_absolute():
        advice = f"an absolute path is another one on each machine: {advice}, relative to the notebook"
    return Cause("missing file", f"file not found: {path}{guess}", advice)


def _nearest_file(path: Path, folder: Path) -> str:
    """Return a file below the notebook's folder that may be meant: of the same name, else of a similar one."""
    known = [
        item.relative_to(folder).as_posix()
        for pattern in ("*", "*/*", "*/*/*")
        for item in folder.glob(pattern)
        if item.is_file() and not any(part.startswith(".") for part in item.relative_to(folder).parts)
    ][:2000]
    same = [item for item in known if Path(item).name == path.name]
    if same:
        return same[0]
    names = {Path(item).name: item for item in known}
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.7)
    return names[close[0]] if close else ""


def _missing_module(module: str, folder: Path) -> Cause:
    top = module.partition(".")[0]
    for place in (folder.parent / f"{top}.py", folder.parent / top / "__init__.py"):
        if place.is_file():
            return Cause(
                "missing module",
                f"the module {module} is not installed and not beside the notebook; there is {place}",
                f"run Jupyter in {folder.parent}, or move the notebook there",
            )
    package = _PACKAGES.get(top, top)
    return Cause("missing module", f"the module {module} is not installed", f"pip install {package}")


def _missing_name(name: str, number: int, scanned: Scanned) -> Cause:
    cells = scanned.defining(name)
    later = [cell for cell in cells if cell > number]
    if later:
        return Cause(
            "name from a later cell",
            f"{name} is defined in cell {later[0]}, which comes later",
            f"move cell {later[0]} above cell {number}",
        )
    close = difflib.get_close_matches(name, scanned.names, n=1, cutoff=0.75)
    guess = f" (nearest: {close[0]})" if close else ""
    return Cause(
        "name that no cell defines",
        f"no cell defines {name}: its cell was deleted or it was typed elsewhere{guess}",
        f"write a cell that defines {name} again",
    )


def order_of(counts: Sequence[int | None]) -> str:
    """Say how the stored counts of the cells that have one show that they were not run from top to bottom once.

    Empty when they were.
    """
    known = [(cell, count) for cell, count in enumerate(counts, 1) if count is not None]
    pairs = list(itertools.pairwise(known))
    for (cell, count), (later, next_count) in pairs:
        if next_count < count:
            return f"The notebook was not run from top to bottom: cell {cell} was run after cell {later}"
    for (cell, count), (later, next_count) in pairs:
        if next_count > count + 1:
            runs = "one run" if next_count == count + 2 else f"{next_count - count - 1} runs"
            return f"Between the cells {cell} and {later}, {runs} of cells are missing: changed, or deleted since"
    return ""


def of_difference(number: int, what: str, stable: bool | None, scanned: Scanned, order: str) -> Cause:
    """Name the cause of an output that is another one than the stored.

    Parameters
    ----------
    what
        Where the two differ.
    stable
        Whether a second run gave the same as the first; None when there was none.
    """
    if stable is not True:
        random = [item for cell, found in scanned.unseeded().items() if cell <= number for item in found]
        clock = [item for cell, found in scanned.clock().items() if cell <= number for item in found]
        if random:
            calls = ", ".join(dict.fromkeys(call for call, _ in random[:3]))
            return Cause("unseeded randomness", f"no seed in {calls}", f"give it one: {random[0][1]}")
        if clock:
            return Cause(
                "time-dependent",
                f"it depends on the time ({', '.join(dict.fromkeys(clock[:3]))})",
                "put the day into a variable at the top of the notebook",
            )
        if stable is False:
            text = "it gives another output each time it is run"
            return Cause("unseeded randomness", text, "find what has no seed")
    hint = (
        "run the notebook from top to bottom and store it"
        if order
        else "compare the versions of the packages, and the data"
    )
    because = f"; {order[0].lower()}{order[1:]}" if order else ""
    return Cause("other output", f"{what}{because}", hint)
