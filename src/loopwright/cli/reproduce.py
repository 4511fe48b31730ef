"""``loopwright reproduce``: a run again, from its record alone."""

import sys
import time
from typing import TYPE_CHECKING, Annotated, Self

from cyclopts import Parameter

from loopwright.cli.output import COMMON, Common, console, emit, emit_table
from loopwright.errors import InvalidInput

if TYPE_CHECKING:
    from loopwright.reproduction import Reproduction

__all__ = ["reproduce"]

_COLOURS = {"reproduced": "bold green", "within tolerance": "bold green", "not reproduced": "bold red"}


class _Progress:
    """One line on stderr for each thing that is done; on a terminal with a spinner and its time beside it."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, soft_wrap=True, highlight=False)
        self._status = self._console.status("", spinner="dots")
        self._line, self._since = "", time.monotonic()

    def __enter__(self) -> Self:
        self._status.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._finish("[green]✓[/green]" if kind is None else "[red]✗[/red]")
        self._status.stop()

    def say(self, text: str) -> None:
        """Begin the next thing."""
        from rich.markup import escape

        self._finish("[green]✓[/green]")
        self._line, self._since = escape(text), time.monotonic()
        self._status.update(self._line)

    def _finish(self, mark: str) -> None:
        if self._line:
            seconds = time.monotonic() - self._since
            self._console.print(
                f"{mark} {self._line}" + (f" [dim]{seconds:.0f} s[/dim]" if seconds >= 1 else "")
            )
        self._line = ""


def reproduce(
    run: str = "last",
    /,
    *,
    tolerance: float = 1e-6,
    ignore: Annotated[
        tuple[str, ...],
        Parameter(help="A metric that is not compared, such as a time; may be repeated.", negative=""),
    ] = (),
    same_environment: Annotated[
        bool, Parameter(help="Take the present packages, also where the run had others.", negative="")
    ] = False,
    here: Annotated[
        bool,
        Parameter(
            help="Take the present files instead of the commit, if the steps are unchanged.", negative=""
        ),
    ] = False,
    timeout: Annotated[
        str | None, Parameter(help="Such as 30m; by default ten times as long as the run, at least 10m.")
    ] = None,
    common: Common = COMMON,
) -> None:
    """Repeat a run from its commit, lock and data snapshots, and compare metrics, model answers and tables.

    Nothing of the project is touched: it runs in a temporary folder with stores of its own, and only the verdict is
    kept. The exit code is 1 when the run was not reproduced.

    For example:

        loopwright reproduce bike-demand/3

    Parameters
    ----------
    run
        A run id or the beginning of one, a model version, a prediction id, or `last`: the newest that completed.
    tolerance
        The largest relative difference of a metric that counts as the same.
    """
    from loopwright import reproduction
    from loopwright.config import parse_duration

    try:
        seconds = parse_duration(timeout).total_seconds() if timeout else None
    except ValueError as error:
        raise InvalidInput(f"--timeout: {error}.") from error
    with _Progress() as progress:
        found = reproduction.reproduce(
            common.open(),
            run,
            tolerance=tolerance,
            ignore=ignore,
            same_environment=same_environment,
            here=here,
            timeout_s=seconds,
            say=progress.say,
        )
    if common.json:
        emit(found)
    else:
        _show(found)
    if not found.ok:
        sys.exit(1)


def _show(found: "Reproduction") -> None:
    rows = [
        *(_row("metric", one.name, one.then, one.now, one.difference, ok=one.ok) for one in found.metrics),
        *(
            _row("model", one.version, f"{one.rows} rows", one.problem or f"{one.flips} labels differ",
                 one.difference, ok=one.ok)
            for one in found.models
        ),
        *(
            _row("step", one.name, _tables(one.tables), f"other {one.problem}" if one.problem else "same",
                 None, ok=not one.problem)
            for one in found.steps
        ),
        *(
            _row("dataset", one.name, one.then[:12] or "-", one.now[:12] or "-", None, ok=one.ok)
            for one in found.datasets
        ),
    ]  # fmt: skip
    emit_table("", rows, empty="")
    for note in found.notes:
        console.print(f"[dim]note: {note}[/dim]", highlight=False)
    colour = _COLOURS[found.outcome]
    text = found.outcome if found.outcome != "within tolerance" else f"reproduced within {found.tolerance:g}"
    console.print(
        f"[{colour}]{text}[/{colour}] in {found.seconds:.0f} s: {found.code}, packages {found.packages}"
    )
    if not found.ok:
        console.print(f"[bold]{found.cause}[/bold]: {found.reason}", highlight=False)


def _tables(count: int) -> str:
    return "1 table" if count == 1 else f"{count or 'no'} tables"


def _row(
    kind: str,
    name: str,
    then: float | str | None,
    now: float | str | None,
    difference: float | None,
    *,
    ok: bool,
) -> dict[str, str]:
    return {
        "what": kind,
        "name": name,
        "then": _number(then),
        "now": _number(now),
        "difference": "" if difference is None else ("0" if difference == 0 else f"{difference:.1e}"),
        "": "[green]ok[/green]" if ok else "[bold red]differs[/bold red]",
    }


def _number(value: float | str | None) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.10g}"
