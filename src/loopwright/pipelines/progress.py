"""Progress of a run in a terminal: a line for each step, and a bar for steps that are called for many items."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

__all__ = ["Progress"]

_MARKS = {"completed": "[green]✓[/green]", "cached": "[cyan]↺[/cyan]", "failed": "[red]✗[/red]"}


class Progress:
    """What is shown while a run goes on; nothing at all when `shown` is False."""

    def __init__(self, shown: bool) -> None:
        self._live: Any = None
        if shown:
            from rich.console import Console
            from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Live

            self._live = Live(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[count]}"),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )

    @classmethod
    def in_terminal(cls) -> Progress:
        """Return a progress that is shown when the standard error stream is a terminal."""
        return cls(sys.stderr.isatty())

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Callable[[str, str], None]]:
        """Show one call of a step; what is given is called with its status and a note at its end."""
        if not self._live or any(task.fields.get("items") == name for task in self._live.tasks):
            yield lambda _status, _note: None
            return
        row = self._live.add_task(name, total=None, count="")
        started, end = time.perf_counter(), ["failed", ""]

        def said(status: str, note: str) -> None:
            end[:] = [status, note]

        try:
            yield said
        finally:
            from rich.markup import escape

            self._live.remove_task(row)
            seconds = time.perf_counter() - started
            note = f"  [yellow]{escape(end[1])}[/yellow]" if end[1] else ""
            self._live.console.print(f"{_MARKS[end[0]]} {name:<24} {seconds:8.2f} s{note}", highlight=False)

    @contextlib.contextmanager
    def items(self, name: str, total: int) -> Iterator[Callable[[], None]]:
        """Show a bar for the calls of a step for many items; what is given is called after each."""
        if not self._live:
            yield lambda: None
            return
        row = self._live.add_task(name, total=total, items=name, count=f"0 of {total}")
        started, ok, done = time.perf_counter(), False, 0

        def advance() -> None:
            nonlocal done
            done += 1
            self._live.update(row, completed=done, count=f"{done} of {total}")

        try:
            yield advance
            ok = True
        finally:
            self._live.remove_task(row)
            mark = _MARKS["completed" if ok else "failed"]
            seconds = time.perf_counter() - started
            self._live.console.print(
                f"{mark} {name:<24} {seconds:8.2f} s  {done} of {total}", highlight=False
            )
