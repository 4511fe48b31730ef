"""What all commands share: the project option, ``--json``, and tables."""

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.console import Console, RenderableType
from rich.table import Table

from loopwright.config import Project

__all__ = ["Common", "console", "emit", "emit_table", "emit_whole", "when", "working"]

#: Lines are as long as they are: ids and commands stay whole when they are copied.
console = Console(soft_wrap=True)
#: A table that is piped keeps each row on one line.
_PIPED = 1000


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Options of every command."""

    project: Annotated[
        Path | None, Parameter(help="The project folder; else the one around the working folder.")
    ] = None
    json: Annotated[bool, Parameter(help="Print JSON for programs.", negative="")] = False

    def open(self) -> Project:
        """Find the project these options point to."""
        return Project(self.project) if self.project else Project.find()


COMMON = Common()


def emit(value: Any) -> None:
    """Print a record or a list of records as JSON."""
    print(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2).decode())  # noqa: T201


def emit_table(title: str, rows: Sequence[Mapping[str, Any]], *, empty: str) -> None:
    """Print rows as a table; `empty` is said instead when there are none, and should name the next command."""
    if not rows:
        console.print(empty)
        return
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for name, value in rows[0].items():
        table.add_column(name, justify="right" if isinstance(value, int | float) else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    emit_whole(table)


def emit_whole(drawn: RenderableType) -> None:
    """Print something with columns or branches: folded to the terminal, and when it is piped as wide as it is."""
    out = console if console.is_terminal else Console(file=console.file, width=_PIPED)
    out.print(drawn, soft_wrap=False)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, datetime):
        return when(value)
    return str(value)


def when(moment: datetime) -> str:
    """Show a moment in the reader's own time zone."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """Show on a terminal, on standard error, that something takes its time."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        bar.add_task(what, total=None)
        yield
