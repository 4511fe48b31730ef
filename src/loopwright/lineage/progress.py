"""A progress bar for what takes long: on a terminal only, and on standard error, so that output stays output."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

__all__ = ["counted", "track"]

Item = TypeVar("Item")
#: Less than this is read before anybody could read the bar.
WORTH_BYTES = 50_000_000


def track(items: Sequence[Item], what: str, size: int) -> Iterable[Item]:
    """Give the items, showing how many are done where they are many bytes."""
    if len(items) < 2 or size < WORTH_BYTES or not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track as shown

    return shown(items, what, console=Console(stderr=True), transient=True)


def counted(batches: Iterable[Sequence[Item]], what: str) -> Iterator[Sequence[Item]]:
    """Give batches of rows, showing how many rows have come."""
    if not sys.stderr.isatty():
        yield from batches
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}: {task.completed:,.0f} rows"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        for batch in batches:
            yield batch
            bar.advance(task, len(batch))
