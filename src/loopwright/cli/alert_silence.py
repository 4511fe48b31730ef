"""``loopwright alert silence | silences | unsilence``: for a while, nobody is told of certain alerts."""

from typing import Annotated

from cyclopts import Parameter

from loopwright.cli.alert_tables import table
from loopwright.cli.output import COMMON, Common, console, emit, when
from loopwright.records import Alert, Silence

__all__ = ["silence", "silences", "unsilence"]


def silence(
    alert: Annotated[str, Parameter(help="An alert: just this one. Else say which, below.")] = "",
    /,
    *,
    lasting: Annotated[str, Parameter(name="--for", help="How long, such as 30m, 2h or 7d.")],
    reason: Annotated[str, Parameter(help="Why; people will ask.")],
    model: str = "",
    deployment: str = "",
    check: str = "",
    subject: Annotated[str, Parameter(help="The column, metric, KPI or schedule.")] = "",
    segment: str = "",
    every: Annotated[bool, Parameter(name="--all", help="All alerts there are.", negative="")] = False,
    by: Annotated[str, Parameter(help="Who, else this user.")] = "",
    common: Common = COMMON,
) -> None:
    """Send no message of certain alerts for a while. They still open and show; those still open in the end are sent then.

    Names can be patterns as in a shell.

    For example:

        loopwright alert silence 3f9a1c20 --for 2h --reason "known, repaired tonight"
        loopwright alert silence --deployment digits-api --check drift --for 7d --reason "a new scanner"
        loopwright alert silence --segment "region=*" --for 1h --reason "moving the feed"
    """
    from loopwright.config import parse_duration
    from loopwright.errors import InvalidInput
    from loopwright.ledger import Ledger
    from loopwright.monitor import alerting

    ledger = Ledger.open(common.open())
    fields = {
        "model": model,
        "deployment": deployment,
        "check": check,
        "subject": subject,
        "segment": segment,
    }
    if alert:
        found = alerting.find(ledger, alert).read(Alert)
        fields = {name: value or getattr(found, name) for name, value in fields.items()}
    elif not any(fields.values()) and not every:
        raise InvalidInput(
            "This would silence every alert of the project.",
            valid="Name an alert, or a --model, --deployment, --check, --subject or --segment; or say --all.",
            hint="loopwright alert silence --deployment NAME --for 2h --reason WHY",
        )
    try:
        span = parse_duration(lasting)
    except ValueError as error:
        raise InvalidInput(f"--for: {error}.") from error
    made = alerting.silence(
        ledger,
        span,
        by=by,
        reason=reason,
        model=fields["model"],
        deployment=fields["deployment"],
        check=fields["check"],
        subject=fields["subject"],
        segment=fields["segment"],
    )
    if common.json:
        emit(made)
        return
    console.print(
        f"Silence {made.id} until {when(made.until)}: {_about(made)}. End it: loopwright alert unsilence {made.id}",
        highlight=False,
        markup=False,
    )


def _about(one: Silence) -> str:
    from loopwright.monitor.alerting import FIELDS

    said = [f"{name} {getattr(one, name)}" for name in FIELDS if getattr(one, name)]
    return ", ".join(said) or "all alerts"


def silences(
    *,
    every: Annotated[bool, Parameter(name="--all", help="Those that are over as well.", negative="")] = False,
    common: Common = COMMON,
) -> None:
    """List the silences.

    For example:

        loopwright alert silences
    """
    from loopwright.ledger import Ledger
    from loopwright.monitor import alerting

    ledger = Ledger.open(common.open())
    found = alerting.known_silences(ledger) if every else alerting.active(ledger)
    if common.json:
        emit(found)
        return
    table(
        [
            {"id": one.id, "until": one.until, "by": one.by, "about": _about(one), "reason": one.reason}
            for one in found
        ],
        empty="No silence holds. Make one: loopwright alert silence ALERT --for 2h --reason WHY",
    )


def unsilence(silence: str, /, *, common: Common = COMMON) -> None:
    """End a silence now: alerts under it that are still open are sent.

    For example:

        loopwright alert unsilence 5d0c77aa
    """
    from loopwright.ledger import Ledger
    from loopwright.monitor import alerting

    ended = alerting.end_silence(Ledger.open(common.open()), silence)
    if common.json:
        emit(ended)
        return
    console.print(f"The silence {ended.id} is over.", highlight=False)
