"""``loopwright trace``: from a prediction back to its data."""

import sys

from rich.tree import Tree

from loopwright.cli.output import COMMON, Common, emit, emit_whole

__all__ = ["trace"]

_MARKS = {True: "[green]ok[/green]", False: "[bold red]BROKEN[/bold red]", None: "[yellow]unknown[/yellow]"}


def trace(prediction_id: str, /, *, common: Common = COMMON) -> None:
    """Walk from a prediction to the source file its model learned from, checking each hash on the way.

    The exit code is 1 when a link is broken.

    For example:

        loopwright trace 0192f3...
    """
    from loopwright import lineage

    found = lineage.trace(common.open(), prediction_id)
    if common.json:
        emit(found)
    else:
        tree = Tree(f"[bold]{prediction_id}[/bold]")
        branch = tree
        for link in found.links:
            short = f" [dim]{link.hash[:16]}[/dim]" if link.hash else ""
            branch = branch.add(
                f"{_MARKS[link.ok]} {link.kind} [bold]{link.name}[/bold]{short}\n[dim]{link.detail}[/dim]"
            )
        emit_whole(tree)
    if any(link.ok is False for link in found.links):
        sys.exit(1)
