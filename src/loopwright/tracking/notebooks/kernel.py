"""A new process of this Python for the cells of a notebook."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from loopwright.errors import Unavailable

__all__ = ["client", "tools"]


def tools() -> dict[str, Any]:
    """Return the packages that run notebooks, by name.

    Raises
    ------
    Unavailable
        One of them is not installed.
    """
    found = {}
    for name in ("nbformat", "nbclient", "ipykernel", "jupyter_client"):
        try:
            found[name] = importlib.import_module(name)
        except ImportError:
            raise Unavailable(
                f"Running a notebook needs the package {name}, which is not installed.",
                hint="pip install nbclient ipykernel",
            ) from None
    return found


@contextlib.contextmanager
def client(
    content: Any, folder: Path, variables: Mapping[str, str], extension: str, timeout_s: float | None
) -> Iterator[Any]:
    """Give an nbclient for a notebook's content, whose kernel is this very Python, whatever kernels are installed.

    Parameters
    ----------
    content
        The notebook as nbformat has it; outputs are written into it.
    folder
        The working folder of the kernel.
    variables
        Added to the kernel's environment.
    extension
        An IPython extension that is loaded before the first cell.
    timeout_s
        Seconds that one cell may take; None for as long as it wants.
    """
    with tempfile.TemporaryDirectory(prefix="loopwright-kernel-") as temporary:
        spec = Path(temporary) / "loopwright" / "kernel.json"
        spec.parent.mkdir()
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        command.append(f"--IPKernelApp.extra_extensions=['{extension}']")
        facts = {"argv": command, "display_name": "Python", "language": "python", "env": dict(variables)}
        spec.write_text(json.dumps(facts))
        made = tools()["nbclient"].NotebookClient(
            content,
            timeout=timeout_s,
            kernel_name="loopwright",
            resources={"metadata": {"path": str(folder)}},
        )
        manager = made.create_kernel_manager()
        specs = importlib.import_module("jupyter_client.kernelspec")
        manager.kernel_spec_manager = specs.KernelSpecManager(kernel_dirs=[temporary])
        if os.name == "posix":
            # Sockets in a folder of this user, not ports that everybody on the machine can reach.
            manager.transport, manager.ip = "ipc", str(Path(temporary) / "kernel")
        yield made
