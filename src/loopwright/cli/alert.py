"""``loopwright alert``: what the monitors found, of models and of schedules, and who is told."""

from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter

from loopwright.cli.alert_tables import table
from loopwright.cli.output import COMMON, Common, console, emit, when
from loopwright.records import Alert, Silence

__all__ = ["app"]

app = cyclopts.App(name="alert", help="Look at alerts, acknowledge and silence them; who is told.")
for _verb in ("silence", "silences", "unsilence"):
    app.command(f"loopwright.cli.alert_silence:{_verb}", name=_verb)


@app.command(name="list")
def list_(
    *,
    every: Annotated[bool, Parameter(name="--all", help="Resolved ones as well.", negative="")] = False,
    deployment: Annotated[str, Parameter(help="Only those of one deployment.")] = "",
    common: Common = COMMON,
) -> None:
    """List alerts: open ones first, of these the critical ones, of these the newest.

    For example:

        loopwright alert list
        loopwright alert list --all --deployment digits-api
    """
    from loopwright.ledger import Ledger
    from loopwright.monitor import alerting

    ledger = Ledger.open(common.open())
    alerts = [state.read(Alert) for state in ledger.states("alert")]
    shown = [
        alert
        for alert in alerts
        if (every or alert.state != "resolved") and deployment in {"", alert.deployment}
    ]
    shown.sort(key=_urgency)
    quiet = alerting.active(ledger)
    if common.json:
        emit([_plain(alert, alerting.covers(alert, quiet)) for alert in shown])
        return
    hidden = len(alerts) - len(shown)
    table(
        [
            {
                "id": alerting.short_id(alert),
                "since": alert.since,
                "state": f"{alert.state}, silenced" if alerting.covers(alert, quiet) else alert.state,
                "severity": alert.severity,
                "check": alert.check,
                "of": alert.deployment or alert.subject,
                "what": alert.message,
            }
            for alert in shown
        ],
        empty=f"No alert is open; {hidden} others: loopwright alert list --all" if hidden else "No alert.",
    )
    if given_up := alerting.failed(ledger):
        console.print(
            f"Messages that could not be delivered: {given_up}. See: loopwright alert deliveries --failed",
            highlight=False,
        )


def _urgency(alert: Alert) -> tuple[int, int, float]:
    state = ("open", "acknowledged", "resolved").index(alert.state)
    severity = ("critical", "warning", "info").index(alert.severity)
    return state, severity, -alert.since.timestamp()


def _plain(alert: Alert, silence: Silence | None) -> dict[str, Any]:
    """Return an alert as JSON has it: its fields, the id it can be called by, and the silence it falls under."""
    from loopwright.monitor.alerting import short_id
    from loopwright.records import to_plain

    return {"short_id": short_id(alert), **to_plain(alert), "silence": silence.id if silence else None}


@app.command
def show(alert: str, /, *, common: Common = COMMON) -> None:
    """Show all about an alert: what moved, what was done about it, who was told.

    ALERT is its id or its short id, of which the first digits are enough.

    For example:

        loopwright alert show 3f9a1c20
    """
    from loopwright.ledger import Ledger
    from loopwright.monitor import alerting

    ledger = Ledger.open(common.open())
    found = alerting.find(ledger, alert).read(Alert)
    silence = alerting.covers(found, alerting.active(ledger))
    events = alerting.history(ledger, found)
    told = alerting.deliveries(ledger, alert=found.id)
    if common.json:
        happened = [
            {"id": one.id, "at": one.at, "kind": one.kind, "actor": one.actor, **_said(one.payload)}
            for one in events
        ]
        emit({**_plain(found, silence), "events": happened, "deliveries": told})
        return
    table([{"": name, " ": value} for name, value in _facts(found, silence).items()], empty="")
    if drawn := alerting.bars(found.detail):
        console.print(f"\n{drawn}", highlight=False, markup=False)
    console.print("\nWhat happened", style="bold")
    table(
        [
            {
                "at": one.at,
                "what": one.kind.removeprefix("alert."),
                "by": _said(one.payload)["by"] or one.actor,
                "said": _said(one.payload)["said"],
            }
            for one in events
        ],
        empty="Nothing is kept.",
    )
    console.print("\nWho was told", style="bold")
    table([_row(one) for one in told], empty="Nobody: loopwright alert test   says who would be.")


def _facts(alert: Alert, silence: Silence | None) -> dict[str, Any]:
    from loopwright.monitor.alerting import short_id

    model = f"{alert.model}/{alert.version}" if alert.version else alert.model
    facts = {
        "what": alert.message,
        "state": alert.state + (f", by {alert.by}" if alert.by and alert.state == "acknowledged" else ""),
        "severity": alert.severity,
        "since": alert.since,
        "value": f"{alert.value:.4g}, limit {alert.limit:.4g}",
        "rows": alert.rows or None,
        "model": model or None,
        "deployment": alert.deployment or None,
        "segment": alert.segment or None,
        "escalated": alert.escalated,
        "silenced": f"until {when(silence.until)} by {silence.by}: {silence.reason or 'no reason given'}"
        if silence
        else None,
        "what to do": alert.advice or None,
        "id": alert.id,
        "short id": short_id(alert),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _said(payload: dict[str, Any]) -> dict[str, str]:
    said = payload.get("note") or payload.get("reason") or payload.get("message") or ""
    return {"by": str(payload.get("by") or ""), "said": str(said)}


def _row(one: Any) -> dict[str, Any]:
    return {
        "at": one.changed,
        "what": one.reason,
        "to": one.address,
        "state": one.state,
        "tries": one.attempts,
        "next": one.due if one.state == "pending" else None,
        "why not": one.error or None,
    }


@app.command
def ack(
    alert: str,
    /,
    *,
    note: Annotated[str, Parameter(help="What is kept with it, such as what you are doing about it.")] = "",
    by: Annotated[str, Parameter(help="Who looks after it, else this user.")] = "",
    common: Common = COMMON,
) -> None:
    """Say that somebody looks after an alert: it is not escalated any more.

    For example:

        loopwright alert ack 3f9a1c20
        loopwright alert ack 3f9a1c20 --note "the new scanner; I am on it"
    """
    from loopwright.ledger import Ledger
    from loopwright.monitor import alerting

    done = alerting.acknowledge(Ledger.open(common.open()), alert, by, note)
    if common.json:
        emit(_plain(done, None))
        return
    console.print(f"Acknowledged by {done.by}: {alerting.headline(done)}", highlight=False, markup=False)


@app.command
def resolve(
    alert: str,
    /,
    *,
    reason: Annotated[str, Parameter(help="Why it is over.")],
    by: Annotated[str, Parameter(help="Who says so, else this user.")] = "",
    common: Common = COMMON,
) -> None:
    """Declare an alert over. It opens again when the next windows find the same.

    For example:

        loopwright alert resolve 3f9a1c20 --reason "the feed was repaired"
    """
    from loopwright.ledger import Ledger
    from loopwright.monitor import alerting

    done = alerting.resolve(Ledger.open(common.open()), alert, by, reason)
    if common.json:
        emit(_plain(done, None))
        return
    console.print(f"Resolved: {alerting.headline(done)}", highlight=False, markup=False)


@app.command(name="test")
def try_out(
    address: Annotated[
        str, Parameter(help="An Apprise address in quotes; else all of [alerts] to and escalate_to.")
    ] = "",
    /,
    *,
    common: Common = COMMON,
) -> None:
    """Send a test message to each address and say what became of it; the exit code is 1 when one did not take it.

    For example:

        loopwright alert test
        loopwright alert test 'json://127.0.0.1:8080/alerts'
    """
    import sys

    from loopwright.errors import InvalidConfig
    from loopwright.monitor import alerting

    project = common.open()
    config = project.config.alerts
    texts = (address,) if address else (*config.to, *config.escalate_to)
    if not texts:
        raise InvalidConfig(
            "Nobody is told of alerts: [alerts] has no addresses.",
            valid='Add to loopwright.toml: [alerts] to = ["mailtos://USER:${SMTP_PASSWORD}@mail.example.com?to=ops@example.com"].',
            hint="loopwright alert test 'json://127.0.0.1:8080/alerts'   (tries one address)",
        )
    for text in config.checks:
        if unknown := alerting.unknown_check(text):
            sys.stderr.write(f"{unknown}\n")
    rows = [
        {"address": name, "result": "failed" if error else "sent", "seconds": seconds, "why": error or None}
        for name, seconds, error in alerting.try_addresses(texts, project)
    ]
    if common.json:
        emit(rows)
    else:
        table(rows, empty="")
    if any(row["result"] == "failed" for row in rows):
        sys.exit(1)


@app.command
def deliveries(
    *,
    failed: Annotated[bool, Parameter(help="Only those that were given up.", negative="")] = False,
    most: Annotated[int, Parameter(name="--limit", help="How many, the newest first.")] = 50,
    common: Common = COMMON,
) -> None:
    """List the messages that were sent, wait, were held back or failed.

    For example:

        loopwright alert deliveries
        loopwright alert deliveries --failed
    """
    from loopwright.ledger import Ledger
    from loopwright.monitor import alerting

    ledger = Ledger.open(common.open())
    rows = alerting.deliveries(ledger, state="failed" if failed else None, limit=most)
    if common.json:
        emit(rows)
        return
    table(
        [{"alert": alerting.short_id(one.alert), **_row(one), "title": one.title} for one in rows],
        empty="No message was given up." if failed else "No message was sent yet. Try: loopwright alert test",
    )


@app.command
def export(
    what: Literal["grafana", "prometheus"],
    /,
    *,
    out: Annotated[Path | None, Parameter(help="The file to write, else standard output.")] = None,
    common: Common = COMMON,
) -> None:
    """Write a Grafana dashboard (JSON), or Prometheus' alert rules (YAML), of this project's deployments and limits.

    For example:

        loopwright alert export grafana --out dashboard.json
        loopwright alert export prometheus --out /etc/prometheus/rules/loopwright.yml
    """
    from loopwright.errors import Denied
    from loopwright.monitor import exports

    project = common.open()
    text = exports.dashboard(project) if what == "grafana" else exports.rules(project)
    if out is None:
        print(text)  # noqa: T201
        return
    try:
        out.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise Denied(f"{out} cannot be written: {error.strerror}.", hint=f"ls -ld {out.parent}") from error
    console.print(f"Written: {out}", highlight=False, markup=False)
