"""``loopwright up | down | status``: the running parts."""

import time
from typing import Annotated

from cyclopts import Parameter

from loopwright import parts
from loopwright.cli.output import COMMON, Common, console, emit, emit_table
from loopwright.config import Project

__all__ = ["down", "status", "up"]


def up(
    *,
    detach: Annotated[
        bool, Parameter(help="Return when all parts are ready, and leave them running.", negative="")
    ] = False,
    common: Common = COMMON,
) -> None:
    """Start all parts of the project and stay until Ctrl-C, which stops them.

    A second `up` says what is running already and where, and leaves it alone.

    For example:

        loopwright up
        loopwright up --detach && loopwright status
    """
    from loopwright.supervisor import control

    project = common.open()
    started = time.monotonic()
    if not control.up(project):
        console.print(f"Project [bold]{project.name}[/bold] is running already:")
        _print(project, common)
        return
    if not common.json:
        console.print(f"Project [bold]{project.name}[/bold] is up after {time.monotonic() - started:.0f} s:")
    _print(project, common)
    if detach:
        return
    console.print("Ctrl-C stops everything.")
    try:
        while parts.supervisor(project):
            time.sleep(0.5)
    except KeyboardInterrupt:
        control.down(project)
        console.print("Stopped.")


def down(*, common: Common = COMMON) -> None:
    """Stop all parts of the project; nothing that was acknowledged is lost.

    For example:

        loopwright down
    """
    from loopwright.supervisor import control

    project = common.open()
    stopped = control.down(project)
    console.print("Stopped." if stopped else f"Project {project.name} was not running.")


def status(*, common: Common = COMMON) -> None:
    """Show the parts of the project: state, address, restarts and memory.

    For example:

        loopwright status
        loopwright status --json
    """
    _print(common.open(), common)


def _print(project: Project, common: Common) -> None:
    from loopwright.supervisor import control

    rows = control.status(project)
    if common.json:
        emit(rows)
        return
    emit_table(
        "",
        [
            {
                "part": row.name,
                "state": row.state,
                "address": row.url,
                "pid": row.pid,
                "restarts": row.restarts,
                "MB": round(row.memory_mb),
                "up s": round(row.uptime_s),
            }
            for row in rows
        ],
        empty=f"Project {project.name} is not running. Try: loopwright up",
    )
    urls = {row.name: row.url for row in rows if row.url and row.state == "ready"}
    if "server" in urls:
        console.print(f"MLflow  {urls['server']}/mlflow/\nPrefect {urls['server']}/prefect/", highlight=False)
    if "console" in urls:
        console.print(f"Console {urls['console']}/", highlight=False)
    if rows and (count := _undelivered(project)):
        console.print(
            f"Alerts that could not be delivered: {count}. See: loopwright alert deliveries --failed"
        )


def _undelivered(project: Project) -> int:
    """Return how many messages about alerts were given up; asked for here without the monitors, which load slowly."""
    import sqlalchemy as sa

    from loopwright.errors import LoopwrightError
    from loopwright.ledger import Ledger
    from loopwright.ledger.schema import deliveries

    query = sa.select(sa.func.count()).select_from(deliveries).where(deliveries.c.state == "failed")
    try:
        with Ledger.open(project).reading() as connection:
            return int(connection.execute(query).scalar() or 0)
    except LoopwrightError:  # a ledger that is down is no reason not to show what runs
        return 0
