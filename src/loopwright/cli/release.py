"""``loopwright release``: replacing a champion."""

from typing import Annotated

import cyclopts
from cyclopts import Parameter

from loopwright.cli.output import COMMON, Common, console, emit, emit_table

__all__ = ["app"]

app = cyclopts.App(name="release", help="Replace a champion: gate, canary, verdict.")


@app.command
def start(
    deployment: str,
    /,
    *,
    version: int | None = None,
    reason: str = "requested on the command line",
    force: Annotated[
        bool, Parameter(help="Go to canary even when the gate is not met; it is recorded.", negative="")
    ] = False,
    common: Common = COMMON,
) -> None:
    """Start a release: of a registered version, or without one of a new training.

    For example:

        loopwright release start digits-api --version 4
        loopwright release start digits-api --reason "new scanner"
    """
    from loopwright.release.triggers import request

    made = request(common.open(), deployment, version=version, reason=reason, forced=force)
    if common.json:
        emit(made)
        return
    console.print(
        f"Release [bold]{made.id}[/bold] is {made.state}. Watch it: loopwright release show {deployment}"
    )


@app.command
def show(deployment: str, /, *, common: Common = COMMON) -> None:
    """Show the current or last release of a deployment, as JSON.

    For example:

        loopwright release show digits-api
    """
    from loopwright.errors import NotFound
    from loopwright.ledger import Ledger

    ledger = Ledger.open(common.open())
    state = ledger.get("release", deployment)
    if state is None:
        known = [other.key for other in ledger.states("release")]
        raise NotFound.among(
            "release of deployment", deployment, known, hint=f"loopwright release start {deployment}"
        )
    emit(state.value)


@app.command(name="list")
def list_(*, common: Common = COMMON) -> None:
    """List the decisions: what was promoted, rolled back or rejected, and why.

    For example:

        loopwright release list
    """
    from loopwright.ledger import Ledger
    from loopwright.records import DecisionRecord

    events = Ledger.open(common.open()).events("decision", newest=True, limit=50)
    records = [event.read(DecisionRecord) for event in events]
    if common.json:
        emit(records)
        return
    emit_table(
        "",
        [
            {
                "ended": record.ended,
                "deployment": record.deployment,
                "decision": record.decision,
                "champion": record.champion,
                "candidate": record.candidate,
                "trigger": record.trigger,
                "reason": record.reason,
            }
            for record in records
        ],
        empty="Nothing has been decided yet. Try: loopwright release start DEPLOYMENT",
    )
