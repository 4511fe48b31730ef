"""``loopwright alert``: what the monitors found, of models and of schedules."""

import cyclopts

from loopwright.cli.output import COMMON, Common, emit, emit_table
from loopwright.records import Alert

__all__ = ["app"]

app = cyclopts.App(name="alert", help="List alerts.")


@app.command(name="list")
def list_(*, common: Common = COMMON) -> None:
    """List alerts, open ones first.

    For example:

        loopwright alert list
    """
    from loopwright.ledger import Ledger

    alerts = [state.read(Alert) for state in Ledger.open(common.open()).states("alert")]
    alerts.sort(key=lambda alert: (alert.state == "resolved", -alert.since.timestamp()))
    if common.json:
        emit(alerts)
        return
    emit_table(
        "",
        [
            {
                "since": alert.since,
                "state": alert.state,
                "check": alert.check,
                "of": alert.deployment or alert.subject,
                "what": alert.message,
            }
            for alert in alerts
        ],
        empty="No alert.",
    )
