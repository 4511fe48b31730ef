"""Watches a notebook from inside its kernel: what it imports, what it writes outside of its folder, whom it asks.

Loaded as an IPython extension before the first cell. Imports nothing but the standard library, so that it changes
nothing of what it watches, and writes each fact at once: a kernel may be killed at any time.
"""

import json
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["REPORT", "load_ipython_extension"]

#: The file that the facts are written to, one JSON object a line.
REPORT = "LOOPWRIGHT_NOTEBOOK_REPORT"

_CHANGING = {
    "os.mkdir": 0,
    "os.remove": 0,
    "os.rename": 1,
    "os.rmdir": 0,
    "os.symlink": 1,
    "os.truncate": 0,
    "shutil.copyfile": 1,
    "shutil.move": 1,
    "shutil.rmtree": 0,
}
_LOCAL = {"localhost", "127.0.0.1", "::1", "0.0.0.0", ""}  # noqa: S104 - a name to leave out, not one to bind


class _Watch:
    def __init__(self) -> None:
        self._report = Path(os.environ[REPORT]).open("a", buffering=1)  # noqa: SIM115 - open as long as the kernel is
        self._before = {name.partition(".")[0] for name in sys.modules}
        self._folder = Path.cwd().resolve()
        home = Path.home()
        #: Caches and places of the system: what is written there is no result.
        self._ignored = tuple(
            str(path)
            for path in (
                Path(tempfile.gettempdir()).resolve(),
                Path(sys.prefix).resolve(),
                Path(sys.base_prefix).resolve(),
                home / ".cache",
                home / ".config" / "matplotlib",
                home / ".ipython",
                home / ".jupyter",
                home / ".local" / "share" / "jupyter",
                "/dev",
                "/proc",
            )
        )
        self._said: set[tuple[str, str]] = set()

    def say(self, kind: str, what: str) -> None:
        if (kind, what) not in self._said:
            self._said.add((kind, what))
            self._report.write(json.dumps({kind: what}) + "\n")

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Look at an audit event of the interpreter."""
        if event == "open":
            path, mode, flags = arguments
            writing = (isinstance(mode, str) and set(mode) & set("wax+")) or (
                mode is None and isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
            )
            if writing:
                self._changed(path)
        elif event in _CHANGING:
            self._changed(arguments[_CHANGING[event]])
        elif event == "socket.getaddrinfo":
            self._asked(arguments[0])
        elif event == "socket.connect" and isinstance(arguments[1], tuple):
            self._asked(arguments[1][0])

    def _changed(self, path: Any) -> None:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return  # a file descriptor
        full = os.path.realpath(os.fsdecode(path))
        if not Path(full).is_relative_to(self._folder) and not full.startswith(self._ignored):
            self.say("wrote", full)

    def _asked(self, host: Any) -> None:
        name = host.decode(errors="replace") if isinstance(host, bytes) else str(host or "")
        if name not in _LOCAL and name != socket.gethostname():
            self.say("asked", name)

    def after_cell(self, *_: Any) -> None:
        """Write down what was imported since the kernel started."""
        for name in {name.partition(".")[0] for name in list(sys.modules)} - self._before:
            self.say("imported", name)


def load_ipython_extension(shell: Any) -> None:
    """Start watching."""
    watch = _Watch()
    sys.addaudithook(watch.hook)
    shell.events.register("post_run_cell", watch.after_cell)
