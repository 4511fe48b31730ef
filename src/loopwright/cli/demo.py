"""``loopwright demo``: the whole loop, once through."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

__all__ = ["demo"]


def demo(
    *,
    data: Annotated[Path | None, Parameter(help="A CSV file of your own instead of the digits.")] = None,
    target: Annotated[str | None, Parameter(help="The column to predict; needed with --data.")] = None,
    time: Annotated[
        str | None, Parameter(help="The column of time; found by itself where it can be.")
    ] = None,
    drop: Annotated[str, Parameter(help="Columns to leave out, separated by commas.")] = "",
    leave: Annotated[
        bool,
        Parameter(
            name="--exit", help="Stop everything at the end instead of waiting for Ctrl-C.", negative=""
        ),
    ] = False,
    report: Annotated[Path, Parameter(help="Where the report is written.")] = Path("demo-report.json"),
    folder: Annotated[
        Path | None, Parameter(help="Where the demo's project is written; else a temporary folder.")
    ] = None,
) -> None:
    """Watch a model go from training to a live, monitored service that repairs itself.

    Real handwritten digits by default. The exit code is 0 only when every stage really happened.

    For example:

        loopwright demo
        loopwright demo --exit --data bikes.csv --target cnt --drop casual,registered,instant
    """
    from loopwright.demo import run

    columns = tuple(name.strip() for name in drop.split(",") if name.strip())
    stay = not leave and sys.stdout.isatty()
    sys.exit(
        run(
            data=data,
            target=target,
            time_column=time,
            drop=columns,
            stay=stay,
            report_path=report,
            folder=folder,
        )
    )
