"""Telling the demo: stages that really happened, what is going on now, and the report."""

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

__all__ = ["Report", "Stage", "StageFailed", "Story"]

_BARS = " ▁▂▃▄▅▆▇█"


class StageFailed(Exception):
    """A stage of the demo did not happen as it must; the message says what was seen instead."""


@dataclass
class Stage:
    """One stage: its name, whether it really happened, how long it took, and what was seen."""

    name: str
    ok: bool = False
    seconds: float = 0.0
    detail: str = ""


@dataclass
class Report:
    """`demo-report.json`. For a regression the `accuracy_*` figures hold its metric."""

    stages: list[Stage] = field(default_factory=list)
    requests: int = 0
    failed_requests: int = 0
    metric: str = "accuracy"
    accuracy_before: float | None = None
    accuracy_shifted: float | None = None
    accuracy_after: float | None = None
    shift_to_promoted_s: float | None = None
    bad_candidate_to_rollback_requests: int | None = None
    memory_total_mb: float = 0.0
    memory_mb: dict[str, float] = field(default_factory=dict)
    duration_s: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether every stage happened and no request failed."""
        return bool(self.stages) and all(stage.ok for stage in self.stages) and self.failed_requests == 0

    def write(self, path: Path) -> None:
        """Write the report as JSON."""
        path.write_text(json.dumps(asdict(self) | {"ok": self.ok}, indent=2) + "\n")


class Story:
    """Shows the stages as they happen: a live picture in a terminal, plain lines elsewhere."""

    def __init__(self, title: str, console: Console, report: Report) -> None:
        self.console = console
        self.report = report
        self._title = title
        self._live: Live | None = None
        self._now = ""
        self._figures: dict[str, str] = {}
        self._curve: list[float] = []
        self._curve_name = ""

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Show the live picture while the block runs."""
        if not self.console.is_terminal:
            self.console.print(self._title, style="bold")
            yield
            return
        with Live(self._picture(), console=self.console, refresh_per_second=4, transient=True) as self._live:
            yield
        self._live = None

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Run one stage; an exception in it marks the stage as failed and ends the story."""
        stage = Stage(name)
        self.report.stages.append(stage)
        started = time.monotonic()
        self._now = name
        self._refresh()
        try:
            yield stage
            stage.ok = True
        finally:
            stage.seconds = round(time.monotonic() - started, 1)
            mark = Text("✔ ", style="green") if stage.ok else Text("✘ ", style="bold red")
            line = Text.assemble(mark, (f"{name:<12}", "bold"), f"{stage.seconds:>6.1f} s  ", stage.detail)
            self.console.print(line, soft_wrap=True, highlight=False)
            self._now = ""
            self._refresh()

    def say(self, text: str) -> None:
        """Tell one thing that happened inside a stage."""
        self.console.print(Text(f"    {text}", style="dim"), soft_wrap=True, highlight=False)

    def show(self, figures: dict[str, str], curve: list[float], curve_name: str) -> None:
        """Update the live figures and the small plot: one value per second, from 0 to the largest."""
        self._figures, self._curve, self._curve_name = figures, curve[-60:], curve_name
        self._refresh()

    def _refresh(self) -> None:
        if self._live:
            self._live.update(self._picture())

    def _picture(self) -> Panel:
        figures = Table.grid(padding=(0, 3))
        figures.add_row(
            *(Text.assemble((f"{name} ", "dim"), (value, "bold")) for name, value in self._figures.items())
        )
        top = max(self._curve, default=0.0) or 1.0
        bars = "".join(_BARS[round(max(0.0, value) / top * (len(_BARS) - 1))] for value in self._curve)
        plot = Text.assemble((f"{self._curve_name} ", "dim"), (bars, "cyan"))
        now = Text(f"▶ {self._now} ..." if self._now else "", style="bold yellow")
        return Panel(Group(now, figures, plot), title=self._title, title_align="left", border_style="blue")


def facts(report: Report) -> Table:
    """Return the summary for people."""
    table = Table(box=None, show_header=False, pad_edge=False)
    number: Any = lambda value: "-" if value is None else f"{value:.4g}"  # noqa: E731
    for name, value in (
        ("requests", f"{report.requests}, {report.failed_requests} failed"),
        (f"{report.metric} before", number(report.accuracy_before)),
        (f"{report.metric} after the change", number(report.accuracy_shifted)),
        (f"{report.metric} repaired", number(report.accuracy_after)),
        ("change to promotion", f"{number(report.shift_to_promoted_s)} s"),
        (
            "broken model stopped after",
            f"{number(report.bad_candidate_to_rollback_requests)} of its requests",
        ),
        ("memory of the whole system", f"{report.memory_total_mb:.0f} MB at its peak"),
        ("duration", f"{report.duration_s:.0f} s"),
    ):
        table.add_row(Text(name, style="dim"), Text(value, style="bold"))
    return table
